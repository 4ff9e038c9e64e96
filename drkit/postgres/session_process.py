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
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from drkit.errors import PostgresUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO, NoReturn

T = TypeVar("T")

_NOT_TAKEN = (signal.SIGINT, signal.SIGTERM)
_END_WITHIN = 5.0  # seconds; a cancel request may take two of them


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
        self._lost = False

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
        except PostgresUnreachable:
            return False
        return alive

    def end(self) -> None:
        """End the process, which cancels what the session still waits for."""
        if self._answers.closed:
            return
        with suppress(OSError):
            self._requests.close()
        if not self._hung_up():
            os.kill(self._pid, signal.SIGKILL)
        self._answers.close()
        with suppress(ChildProcessError):  # where nobody cares for children
            os.waitpid(self._pid, 0)

    def _hung_up(self) -> bool:
        """Wait until the process has ended; say whether it did in time."""
        poll = select.poll()
        poll.register(self._answers, 0)  # a hang-up is always told
        return bool(poll.poll(_END_WITHIN * 1000))

    def _tell(self, *request: Any) -> None:
        self._unanswered += 1
        with suppress(OSError):  # it has gone; why, it may have answered before
            pickle.dump(request, self._requests, pickle.HIGHEST_PROTOCOL)
            self._requests.flush()

    def _ask(self, *request: Any) -> Any:
        with self._lock:
            self._tell(*request)
            if self._lost:
                raise _lost()
            # If this is cut short, nobody knows which answer would come next.
            self._lost, failed = True, False
            while self._unanswered and not failed:
                failed, value = self._answer()
                self._unanswered -= 1
            self._lost = self._unanswered > 0
        if failed:
            raise value
        return value

    def _answer(self) -> tuple[bool, Any]:
        try:
            failed, value = pickle.load(self._answers)  # noqa: S301  our own child's
        except (EOFError, OSError, pickle.UnpicklingError):
            raise _lost() from None
        return failed, value


def _lost() -> PostgresUnreachable:
    return PostgresUnreachable(
        "the process that held the session with PostgreSQL has ended",
        hint="see the system's log: somebody ended it, or memory was short",
    )


def session_process() -> SessionProcess | None:
    """Start a process that gets ready to log in; None if the system lets no more be."""
    pipes: list[int] = []
    try:
        for _ in range(2):
            pipes += os.pipe()
        return _fork(*pipes)
    except OSError:
        for end in pipes:
            os.close(end)
        return None


def _fork(asked: int, requests: int, answers: int, answered: int) -> SessionProcess:
    # Signals are for the parent, which tells by hanging up. One that raised in the
    # child would take it through what the parent clears up.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_TAKEN)
    try:
        pid = os.fork()
        if not pid:
            os.close(requests)
            os.close(answers)
            _serve(asked, answered)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(asked)
    os.close(answered)
    return SessionProcess(pid, requests, answers)


def _serve(asked: int, answered: int) -> NoReturn:
    """Be that process; whatever happens, it ends here."""
    try:
        _let_go_of_the_terminal()
        from drkit.postgres.session_serving import serve  # noqa: PLC0415  takes long

        serve(os.fdopen(asked, "rb"), os.fdopen(answered, "wb"))
    finally:
        os._exit(0)


def _let_go_of_the_terminal() -> None:
    """Hold nothing open that others wait for the end of."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
