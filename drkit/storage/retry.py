"""The one place where storage requests are repeated."""

from __future__ import annotations

import os

from drkit.errors import ObjectExists, StorageError

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from drkit.model.objects import ObjectInfo
    from drkit.protocols import Buffer, Clock, Storage

    T = TypeVar("T")

_FIRST_PAUSE = 0.25  # seconds, doubled each time
_LONGEST_PAUSE = 15.0


class RetryingStorage:
    """Repeats what failed in passing, as its inner storage's `transient` says.

    A put whose outcome is unknown is settled by reading back: the same bytes are a
    success, others are `ObjectExists`. The same bytes go out each time.
    """

    def __init__(
        self,
        inner: Storage,
        clock: Clock,
        *,
        attempts: int = 8,
        deadline: float = 120.0,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        """Wrap `inner`.

        Args:
            attempts: how often a request is made at most.
            deadline: seconds after which no new attempt is begun.
            jitter: returns numbers from 0 to 1; pauses are half fixed, half this.
        """
        self._inner = inner
        self._clock = clock
        self._attempts = attempts
        self._deadline = deadline
        self._jitter = jitter or _random

    @property
    def url(self) -> str:
        """The inner storage's address."""
        return self._inner.url

    def put(self, name: str, data: Buffer) -> None:
        """Create `name`."""
        unclear = False

        def attempt() -> None:
            nonlocal unclear
            try:
                self._inner.put(name, data)
            except ObjectExists:
                if not (unclear and self._holds(name, data)):
                    raise
            except StorageError as error:
                unclear = unclear or error.transient
                raise

        try:
            self._repeat(attempt)
        except ObjectExists:
            raise
        except StorageError:
            if not (unclear and self._arrived(name, data)):
                raise

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        """Read a range."""
        return self._repeat(lambda: self._inner.get(name, offset, length, limit=limit))

    def size(self, name: str) -> int:
        """Return the length in bytes."""
        return self._repeat(lambda: self._inner.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects; after a failure the listing goes on behind the last one."""
        last = ""
        patience = self._patience()
        while True:
            try:
                for info in self._inner.list(prefix):
                    if info.name > last:
                        yield info
                        last = info.name
                        patience = self._patience()
            except StorageError as error:
                patience.wait_or_raise(error)
            else:
                return

    def delete(self, name: str) -> None:
        """Remove `name`."""
        self._repeat(lambda: self._inner.delete(name))

    def hidden(self, prefix: str) -> Sequence[str] | None:
        """Return the names of which the store has bytes that it does not show."""
        return self._repeat(lambda: self._inner.hidden(prefix))

    def beneath(self, name: str, length: int) -> Sequence[bytes]:
        """Return the beginnings of what is hidden of a name."""
        return self._repeat(lambda: self._inner.beneath(name, length))

    def _repeat(self, request: Callable[[], T]) -> T:
        patience = self._patience()
        while True:
            try:
                return request()
            except StorageError as error:
                patience.wait_or_raise(error)

    def _patience(self) -> _Patience:
        return _Patience(self._clock, self._attempts, self._deadline, self._jitter)

    def _holds(self, name: str, data: Buffer) -> bool:
        """Say whether `name` holds exactly `data`, byte by byte."""
        size = memoryview(data).nbytes
        same_length = self._inner.size(name) == size
        return same_length and self._inner.get(name, 0, size) == data

    def _arrived(self, name: str, data: Buffer) -> bool:
        """Look once more, after all attempts: perhaps only the last reply was lost."""
        try:
            return self._holds(name, data)
        except StorageError:
            return False


class _Patience:
    """How often and how long one request has been tried."""

    def __init__(
        self,
        clock: Clock,
        attempts: int,
        deadline: float,
        jitter: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._attempts = attempts
        self._deadline = deadline
        self._jitter = jitter
        self._begun = clock.monotonic()
        self._made = 0

    def wait_or_raise(self, error: StorageError) -> None:
        """Sleep until the next attempt, or raise `error` if there will be none."""
        if not error.transient:
            raise error
        self._made += 1
        pause = self._pause()
        passed = self._clock.monotonic() - self._begun
        if self._made >= self._attempts or passed + pause > self._deadline:
            raise StorageError(
                f"{error.message}; gave up after {self._made} attempts"
                f" in {passed:.1f} s",
                hint=error.hint,
                transient=True,
            ) from error
        self._clock.sleep(pause)

    def _pause(self) -> float:
        longest = min(_FIRST_PAUSE * 2.0 ** (self._made - 1), _LONGEST_PAUSE)
        return longest * (0.5 + 0.5 * self._jitter())


def _random() -> float:
    """Return a number from 0 to 1 without the import time of `random`."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
