"""A session with the server that a process of its own holds.

What speaks with the server takes as long to import as the rest of the command line.
So both go on side by side.

The process is a fork, which begins at once where a new interpreter would first have to
start; so it must be made while this one has a single thread. It takes pickled requests
from one pipe and answers each on another, in order (`drkit.postgres.session_serving`).
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from drkit.errors import DrkitError, PostgresUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO, NoReturn

T = TypeVar("T")

# For the parent alone, which tells by hanging up; one that stopped or ended the child
# would keep it from cancelling what runs.
_NOT_TAKEN = (
    *(signal.SIGINT, signal.SIGTERM),
    *(signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP),
)
_STANDARD = 3  # standard input, output and error: descriptors 0 to 2
_CANCEL_WITHIN = 4.0  # seconds; a cancel request may take two of them
_END_WITHIN = 5.0
_FIRST_PAUSE, _LAST_PAUSE = 0.0005, 0.02


class SessionProcess:
    """A `ServerSession` that a process of its own holds; threads may share it.

    What needs no answer is not waited for: where it failed, the next call that waits
    raises what it raised.
    """

    def __init__(self, pid: int, requests: int, answers: int) -> None:
        self._pid = pid
        self._requests: BinaryIO = os.fdopen(requests, "wb")
        self._answers: BinaryIO = os.fdopen(answers, "rb")
        self._lock = threading.Lock()
        self._unanswered = 0
        self._used = False
        self._broken: Exception | None = None

    def log_in(self, url: str, password: str | None, purpose: str) -> None:
        """Open the session, as `connect` of `drkit.postgres.connection` does."""
        with self._lock:
            self._tell("log_in", url, password, purpose)

    def begin(self, call: Callable[[], T]) -> Callable[[], T]:
        """Have something called there; return what waits for what it returns or raises.

        Meanwhile no other request is answered. There is one such call at a time.

        Args:
            call: can be pickled, and needs nothing of this process.
        """
        with self._lock:
            self._tell("begin", call)
        return lambda: self._ask("result")

    def version(self) -> int:
        """Return the server's version, as in 160004."""
        version: int = self._ask("call", "version")
        return version

    def query(
        self, statement: str, parameters: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        Raises:
            PostgresUnreachable: the connection, or the process, was lost.
            PostgresRefused: the server answered with an error.
        """
        rows: list[tuple[Any, ...]] = self._ask("call", "query", statement, parameters)
        return rows

    def send(self, statement: str, parameters: tuple[str, ...]) -> None:
        """Send a statement, and don't wait; until `received` it takes no other."""
        with self._lock:
            self._tell("call", "send", statement, parameters)

    def received(self) -> str:
        """Wait for the answer to what was sent; return its text.

        Raises:
            PostgresUnreachable: the connection, or the process, was lost.
            PostgresRefused: the server answered with an error.
        """
        text: str = self._ask("call", "received")
        return text

    def alive(self) -> bool:
        """Say whether the session is still there; cheap."""
        try:
            alive: bool = self._ask("call", "alive")
        except DrkitError:
            return False
        return alive

    def end(self) -> None:
        """End the process, which cancels what the session still waits for."""
        if self._answers.closed:
            return
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()
        if not (self._used and self._has_ended()):
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # nobody's child any more
            os.waitpid(self._pid, 0)

    def _has_ended(self) -> bool:
        """Wait until the process has ended; say whether it did in time."""
        deadline, pause = time.monotonic() + _END_WITHIN, _FIRST_PAUSE
        with suppress(ChildProcessError):
            while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    return False
                time.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
        return True

    def _tell(self, *request: Any) -> None:
        if self._broken is not None:
            return  # the next answer that is waited for tells
        data = pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
        # Whatever cuts this short, nobody knows then which answer would come next.
        self._used, self._broken = True, _given_up()
        with suppress(OSError):  # it has gone; why, it may have answered before
            self._requests.write(data)
            self._requests.flush()
        self._unanswered += 1
        self._broken = None

    def _ask(self, *request: Any) -> Any:
        with self._lock:
            self._tell(*request)
            if self._broken is not None:
                raise self._broken
            self._broken, failed = _given_up(), False  # as above
            try:
                while self._unanswered and not failed:
                    failed, value = pickle.load(self._answers)  # noqa: S301  our child
                    self._unanswered -= 1
            except (EOFError, OSError, pickle.UnpicklingError):
                self._broken = _ended()
                raise self._broken from None
            self._broken = value if self._unanswered else None
        if failed:
            raise value
        return value


def _ended() -> PostgresUnreachable:
    return PostgresUnreachable(
        "the process that held the session with PostgreSQL has ended",
        hint="see the system's log: somebody ended it, or memory was short",
    )


def _given_up() -> PostgresUnreachable:
    return PostgresUnreachable("the session with PostgreSQL was given up")


def session_process() -> SessionProcess | None:
    """Start a process that gets ready to log in; None if the system lets no more be.

    There is none either where standard input, output or error is closed: its number
    would be one of a pipe's.
    """
    pipes: list[int] = []
    try:
        for _ in range(2):
            pipes += os.pipe()
        if min(pipes) >= _STANDARD:
            return _fork(*pipes)
    except OSError:
        pass
    for end in pipes:
        os.close(end)
    return None


def _fork(asked: int, requests: int, answers: int, answered: int) -> SessionProcess:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_TAKEN)
    try:
        pid = os.fork()
        if not pid:
            _be_the_process(asked, answered)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(asked)
    os.close(answered)
    return SessionProcess(pid, requests, answers)


# -- in the process


def _be_the_process(asked: int, answered: int) -> NoReturn:
    """Answer requests; whatever happens, the process ends here."""
    try:
        _let_go(asked, answered)
        _serve(os.fdopen(asked, "rb"), os.fdopen(answered, "wb"))
    finally:
        os._exit(0)


def _let_go(asked: int, answered: int) -> None:
    """Keep nothing open whose end others wait for, such as a terminal or a lock."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(_STANDARD):
        os.dup2(null, number)
    first, second = sorted((asked, answered))
    os.closerange(_STANDARD, first)
    os.closerange(first + 1, second)
    os.closerange(second + 1, os.sysconf("SC_OPEN_MAX"))


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    cancels: list[Callable[[], None]] = []
    threading.Thread(target=_watch, args=(requests, cancels), daemon=True).start()
    try:
        from drkit.postgres.session_serving import serve  # noqa: PLC0415  takes long
    except Exception as error:  # noqa: BLE001  the parent raises it
        pickle.dump((True, error), answers)
        answers.flush()
        return
    serve(requests, answers, cancels)


def _watch(requests: BinaryIO, cancels: list[Callable[[], None]]) -> NoReturn:
    """End the process when the other side has hung up, whatever it does by then."""
    poll = select.poll()
    poll.register(requests, 0)  # a hang-up is always told
    poll.poll()
    if cancels:
        for cancel in cancels:
            cancel()
        time.sleep(_CANCEL_WITHIN)  # to end the session properly takes less
    os._exit(0)
