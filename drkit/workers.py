"""Running work on several threads, and stopping all when one fails."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

_HELD_BACK = (signal.SIGTERM, signal.SIGINT)
_LOOK_EVERY = 0.1  # seconds between chances for a signal handler to raise


class Stop:
    """Told to every worker; a worker that sees it set gives up between two steps."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.cause: BaseException | None = None

    def is_set(self) -> bool:
        """Say whether another worker failed, or the run was interrupted."""
        return self._event.is_set()

    def set(self, cause: BaseException) -> None:
        """Ask all workers to give up; the first cause is kept."""
        if self.cause is None:
            self.cause = cause
        self._event.set()


def run(
    tasks: Sequence[Callable[[Stop], T]], watch: Callable[[], None] | None = None
) -> list[T]:
    """Run each task on a thread of its own; return their results in order.

    Args:
        watch: called about once a second in the calling thread; what it raises stops
            the tasks.

    Raises:
        BaseException: what the first failing task raised, or what a signal handler
            raised in the calling thread meanwhile. No thread outlives this call.
    """
    stop = Stop()
    results: list[T | None] = [None] * len(tasks)

    def work(place: int, task: Callable[[Stop], T]) -> None:
        try:
            results[place] = task(stop)
        except BaseException as error:  # noqa: BLE001  re-raised by the caller
            stop.set(error)

    threads = [
        threading.Thread(target=work, args=(place, task), name=f"worker-{place}")
        for place, task in enumerate(tasks)
    ]
    try:
        _start(threads)
        _join(threads, stop, watch)
    except BaseException as error:  # noqa: BLE001  re-raised below
        stop.set(error)
        _join(threads, stop, None)
    if stop.cause is not None:
        raise stop.cause
    return results  # type: ignore[return-value]  # every task returned


@contextmanager
def beside(
    task: Callable[[], T], interrupt: Callable[[], None]
) -> Iterator[Callable[[], T]]:
    """Run a task on a thread of its own while the block runs; neither outlives it.

    Yields what waits for the task and returns its result, or raises what it raised.

    Args:
        interrupt: lets the task end soon; called if the block fails before it has.
    """
    stop, results = Stop(), list[T]()

    def work() -> None:
        try:
            results.append(task())
        except BaseException as error:  # noqa: BLE001  re-raised by `result`
            stop.set(error)

    def result() -> T:
        while thread.is_alive():
            thread.join(_LOOK_EVERY)
        if stop.cause is not None:
            raise stop.cause
        return results[0]

    thread = threading.Thread(target=work, name="beside")
    try:
        _start([thread])
        yield result
    except BaseException:
        if thread.is_alive():
            interrupt()
        raise
    finally:
        _join([thread], stop, None)


def _start(threads: list[threading.Thread]) -> None:
    """Start all threads with signals held back.

    A handler that raised inside `start` would leave a thread that runs, though it does
    not count as alive yet, and nobody would wait for it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        for thread in threads:
            thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _join(
    threads: list[threading.Thread], stop: Stop, watch: Callable[[], None] | None
) -> None:
    looks = 0
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join(_LOOK_EVERY)
                looks += 1
                if watch is not None and looks % 10 == 0 and not stop.is_set():
                    watch()
            except BaseException as error:  # noqa: BLE001  re-raised by `run`
                stop.set(error)
