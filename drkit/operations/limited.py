"""A limit on the time of work that tells its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import DrkitError

if TYPE_CHECKING:
    from drkit.protocols import Clock, Progress


class Limited:
    """Passes progress on, and ends the work that tells it when the time is over.

    Args:
        seconds: from now on.
    """

    def __init__(self, inner: Progress, clock: Clock, seconds: float) -> None:
        self._inner = inner
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock.monotonic() + seconds
        self._phase = "start"

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            DrkitError: none are.
        """
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            raise DrkitError(
                f"the time limit of {self._seconds:g} s was reached in the phase "
                f"{self._phase}",
                hint="set verification.time_limit higher, or give it a faster machine",
            )
        return left

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin a phase, if there is time for it."""
        self._phase = name
        self._inner.phase(name, total)
        self.left()

    def advance(self, count: int) -> None:
        """Count bytes of this phase, as long as there is time."""
        self._inner.advance(count)
        self.left()

    def event(self, name: str, **fields: object) -> None:
        """Tell a fact."""
        self._inner.event(name, **fields)

    def warning(self, message: str, **fields: object) -> None:
        """Tell what a person must read."""
        self._inner.warning(message, **fields)
