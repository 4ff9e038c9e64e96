"""What a process of its own does for a session, case by case.

Run as `python -m tests.postgres.session_cases CASE URL`, since the process is a fork,
which only a program with a single thread may make.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from drkit.errors import DrkitError, NotFound, PostgresRefused, PostgresUnreachable
from drkit.postgres.session_process import SessionProcess, session_process

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E", bound=Exception)

_SECRET = "s3cr3t-Pass"


def begun(url: str) -> SessionProcess:
    process = session_process()
    assert process is not None
    process.log_in(url, None, "case")
    return process


def raises(kind: type[E], call: Callable[[], object]) -> E:
    """Return what a call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("nothing was raised")


failure = partial(raises, DrkitError)


def speaks(url: str) -> None:
    """What it answers, it answers as a connection of this process would."""
    process = begun(url)
    assert process.version() >= 150000
    rows = process.query("SELECT %s::text, %s::bytea, NULL", ("é%", b"\0"))
    assert rows == [("é%", b"\0", None)]
    assert process.query("SET search_path = pg_catalog") == []
    at = process.query("SELECT timestamptz '2026-01-02 03:04:05+00'")[0][0]
    assert at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    before = time.monotonic()
    process.send("SELECT pg_sleep(0.5) || $1", ("é",))
    assert time.monotonic() - before < 0.4
    assert process.received() == "é"
    assert time.monotonic() - before >= 0.5
    assert process.alive()
    process.end()
    process.end()
    assert "psycopg" not in sys.modules  # or there would be no point in all this


def refused(url: str) -> None:
    """What the server refuses is told, and the session goes on."""
    process = begun(url)
    error = failure(lambda: process.query("SELECT 1 / 0"))
    assert isinstance(error, PostgresRefused)
    assert "division by zero" in error.message
    process.send("SELECT $1::int / 0", ("1",))
    assert "division by zero" in failure(process.received).message
    process.query("CREATE ROLE weak; SET ROLE weak")
    error = failure(lambda: process.query("SELECT pg_backup_start('x')"))
    assert "drkit's role needs" in (error.hint or "")
    assert process.query("SELECT 1") == [(1,)]
    process.end()


def no_login(url: str) -> None:
    """The first call tells that, and why, there is no session; later ones that too."""
    process = begun(url.replace("postgres@", f"nobody:{_SECRET}@"))
    error = failure(process.version)
    assert isinstance(error, PostgresRefused)
    assert 'role "nobody" does not exist' in error.message
    assert _SECRET not in f"{error} {error.hint}"
    assert failure(process.version).message == error.message
    assert not process.alive()
    process.end()


def killed(url: str) -> None:
    """One that was ended from outside is told from a session that was lost."""
    process = begun(url)
    process.version()
    os.kill(process._pid, signal.SIGKILL)
    error = failure(lambda: process.query("SELECT 1"))
    assert isinstance(error, PostgresUnreachable)
    assert "the process that held the session with PostgreSQL has ended" in str(error)
    assert not process.alive()
    process.end()


def closed(_: str) -> None:
    """There is none where its pipes would be taken for the standard streams."""
    before = os.listdir("/proc/self/fd")
    for number in range(3):
        kept = os.dup(number)
        os.close(number)
        process = session_process()
        os.dup2(kept, number)
        os.close(kept)
        assert process is None
    assert os.listdir("/proc/self/fd") == before


def unused(_: str) -> None:
    """One that was never asked for anything is not waited for."""
    process = session_process()
    assert process is not None
    before = time.monotonic()
    process.end()
    assert time.monotonic() - before < 0.05


def no_answer(_: str) -> None:
    """Nor is one that waits for a server that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = begun(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/x")
        time.sleep(0.5)
        before = time.monotonic()
        process.end()
        assert time.monotonic() - before < 1


def frozen(url: str) -> None:
    """An orphan ends, though its server can't even take a cancel request."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        process = begun(url)
        (backend,) = process.query("SELECT pg_backend_pid()")[0]
        os.write(theirs, f"{process._pid} {backend}".encode())
        process.query("SELECT 'asleep' || pg_sleep(60)")
        os._exit(0)
    holder, backend = map(int, os.read(ours, 100).split())
    assert_asleep(url, 1)
    stat = Path(f"/proc/{backend}/stat").read_text().rsplit(")", 1)[1]
    postmaster = int(stat.split()[1])
    os.kill(postmaster, signal.SIGSTOP)
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        deadline = time.monotonic() + 9
        while os.path.exists(f"/proc/{holder}/fd/0"):  # it may be a zombie by then
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(postmaster, signal.SIGCONT)


def hangs(url: str) -> None:
    """One that does nothing any more does not keep this process."""
    process = begun(url)
    process.version()
    os.kill(process._pid, signal.SIGSTOP)
    before = time.monotonic()
    process.end()
    assert 4 < time.monotonic() - before < 9
    assert not os.path.exists(f"/proc/{process._pid}")


def ended(url: str) -> None:
    """The end of the process is the end of what the server does for it."""
    process = begun(url)
    process.send("SELECT 'asleep' || pg_sleep(60)", ())
    time.sleep(0.5)
    before = time.monotonic()
    process.end()
    assert time.monotonic() - before < 4
    assert_asleep(url, 0)


def orphaned(url: str) -> None:
    """So is the end of the process that it worked for, in whatever state."""
    for ask in ("send", "query"):
        child = os.fork()
        if not child:
            process = begun(url)
            asked = getattr(process, ask)
            asked("SELECT 'asleep' || pg_sleep(60)", ())
            if ask == "send":
                time.sleep(60)
            os._exit(0)
        assert_asleep(url, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert_asleep(url, 0)


def assert_asleep(url: str, count: int) -> None:
    """Wait until so many sessions sleep."""
    process = begun(url)
    asleep = (
        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND state = 'active' AND query LIKE '%asleep%'"
    )
    deadline = time.monotonic() + 10
    while process.query(asleep) != [(count,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.end()


def signalled(url: str) -> None:
    """Signals of a terminal are for the parent; its own handler may raise."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = begun(url)
    process.version()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(KeyboardInterrupt):
            os.killpg(0, number)
            time.sleep(5)
            raise AssertionError("no signal came")
        assert process.alive()

    threading.Timer(0.5, os.killpg, (0, signal.SIGINT)).start()
    with suppress(KeyboardInterrupt):
        process.query("SELECT 'asleep' || pg_sleep(60)")
        raise AssertionError("no signal came")
    # its answer may come yet, and must not be taken for another one's
    assert isinstance(failure(lambda: process.query("SELECT 1")), PostgresUnreachable)
    process.end()
    assert_asleep(url, 0)


def called(url: str) -> None:
    """What is called there returns or raises here, without keeping the session."""
    process = begun(url)
    result = process.begin(partial(divmod, 7, 2))
    assert process.query("SELECT 1") == [(1,)]
    assert result() == (3, 1)
    returned = process.begin(partial(NotFound, "is returned", hint="not raised"))()
    assert isinstance(returned, NotFound)
    assert (returned.message, returned.hint) == ("is returned", "not raised")
    raised = raises(ZeroDivisionError, process.begin(partial(divmod, 1, 0)))
    assert "session_serving.py" in raised.__notes__[0]  # where it happened
    raised = raises(TypeError, process.begin(partial(memoryview, b"not picklable")))
    assert "can't send a memoryview" in str(raised)
    assert process.begin(os.getpid)() == process._pid != os.getpid()
    process.end()


def shared(url: str) -> None:
    """Threads may use it at once; each gets its own answers."""
    process = begun(url)
    wrong: list[object] = []

    def ask(number: int) -> None:
        for turn in range(100):
            answer = process.query("SELECT %s::int", (number * 1000 + turn,))
            if answer != [(number * 1000 + turn,)]:
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    process.end()


def no_process(_: str) -> None:
    """Where the system lets no more processes be, there is none, and nothing leaks."""
    before = os.listdir("/proc/self/fd")

    def fail() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    os.fork = fail
    assert session_process() is None
    assert os.listdir("/proc/self/fd") == before


CASES = {
    case.__name__: case
    for case in (
        *(speaks, refused, no_login, killed, hangs, ended, orphaned, signalled),
        *(called, shared, no_process, closed, unused, no_answer, frozen),
    )
}

if __name__ == "__main__":
    CASES[sys.argv[1]](sys.argv[2])
