"""Starting framers, asking them, and doing without them."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from drkit.model.frames import FilePages, FilledFrame

# The parent's module path as it is: a framer must not find other modules than it.
_PROGRAM = (
    "import sys; pipes = sys.argv.pop(1); sys.path[:] = sys.argv[1:]; "
    "from drkit.operations.framers.serving import main; main(pipes)"
)
_END_WITHIN = 2.0  # seconds; a disk that hangs may keep one longer


class ProcessFramer:
    """Speaks with one process that reads pages and fills frames; used by one thread.

    Attributes:
        lost: whether the process has gone before it was told to.
    """

    def __init__(self, requests: int, answers: int) -> None:
        self._requests: BinaryIO = os.fdopen(requests, "wb")
        self._answers: BinaryIO = os.fdopen(answers, "rb")
        self._ready = False
        self.lost = False

    def set_up(self, key: bytes, level: int) -> None:
        """Tell the process what all frames of a backup share."""
        self._tell((key, level))

    def frame(self, pages: Sequence[FilePages], *, verify: bool) -> FilledFrame | None:
        """Return a frame with these pages; None if the process can't, or not yet."""
        if not self._is_ready():
            return None
        self._tell((pages, verify))
        return self._answer()

    def close(self) -> None:
        """Hang up."""
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()

    def _is_ready(self) -> bool:
        """Say whether the process serves; one that has only begun is not waited for."""
        if not self._ready and self._has_answered():
            self._ready = True
            self.lost = not os.read(self._answers.fileno(), 1)
        return self._ready and not self.lost

    def _has_answered(self) -> bool:
        poll = select.poll()  # select.select takes no descriptor above 1023
        poll.register(self._answers, select.POLLIN)
        return bool(poll.poll(0))

    def _tell(self, value: object) -> None:
        try:
            pickle.dump(value, self._requests, pickle.HIGHEST_PROTOCOL)
            self._requests.flush()
        except OSError:
            self.lost = True

    def _answer(self) -> FilledFrame | None:
        try:
            frame: FilledFrame | None = pickle.load(self._answers)  # noqa: S301  ours
        except (EOFError, OSError, pickle.UnpicklingError):
            self.lost = True
            return None
        return frame


@contextmanager
def framers(most: int) -> Iterator[Sequence[ProcessFramer]]:
    """Run framers while the block runs; they get ready while it goes on.

    There are as many as processors, `most` of them at most, and none where they could
    not run beside each other, or where the system lets no more processes be.
    """
    with ExitStack() as stack:
        started: Sequence[ProcessFramer] = ()
        count = min(most, len(os.sched_getaffinity(0)))
        if count > 1:
            with suppress(OSError):
                started = _start(count, stack)
        yield started


class _Pipes(NamedTuple):
    """Both ends of one framer's pipes."""

    asked: int
    requests: int
    answers: int
    answered: int


def _start(count: int, stack: ExitStack) -> Sequence[ProcessFramer]:
    """Start one process, which becomes as many as are wanted when it is ready.

    What they import is so imported once, while this process goes on.
    """
    pipes = [_Pipes(*os.pipe(), *os.pipe()) for _ in range(count)]
    started = [ProcessFramer(one.requests, one.answers) for one in pipes]
    with ExitStack() as on_failure:
        for framer in started:
            on_failure.enter_context(closing(framer))
        stack.callback(_end, _process(pipes))
        stack.push(on_failure.pop_all())
    return started


def _process(pipes: Sequence[_Pipes]) -> subprocess.Popen[bytes]:
    """Start the process at the other ends of the pipes, and leave those to it."""
    theirs = [end for one in pipes for end in (one.asked, one.answered)]
    pairs = ",".join(f"{one.asked}:{one.answered}" for one in pipes)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, pairs, *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=theirs,
            process_group=0,  # an interrupt at the terminal is for the parent
        )
    finally:
        for end in theirs:
            os.close(end)


def _end(process: subprocess.Popen[bytes]) -> None:
    """See that all processes end; they do so once their pipes are closed."""
    try:
        process.wait(_END_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
