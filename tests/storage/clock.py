"""A clock whose time passes only by sleeping."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class SleepingClock:
    """Keeps the pauses that were asked for, and makes none."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.passed = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 15, tzinfo=UTC) + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.passed += seconds
