"""Measures how long a large catalog takes to list and to plan an expiry of.

Everything is in memory and made up, but for the log: its entries are signed, chained
and sealed as ever, and each figure is of a reader that begins with nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

from drkit.crypto.keys import PURPOSES, LocalKeyProvider
from drkit.crypto.signing import Signer
from drkit.model.backup import BackupSummary, ManifestRef
from drkit.model.label import BackupKind, new_label
from drkit.model.log import Begin, Commit, Entry, LogState, Open
from drkit.model.lsn import Lsn
from drkit.model.retention import Retention
from drkit.model.wal import Segment
from drkit.operations.expire import plan_expire
from drkit.repository.identity import create_identity
from drkit.repository.keyring import Keyring
from drkit.repository.layout import Layout
from drkit.repository.log import Log
from drkit.repository.log_entries import LogIdentity
from drkit.repository.repository import Repository
from drkit.repository.wal import WalArchive
from drkit.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.protocols import KeyProvider

SYSTEM = "7300000000000000001"
SEGMENT = 16 << 20
A_WEEK = 168  # backups: a full one and hourly incrementals
RETENTION = Retention(
    full=4, window=timedelta(days=30), daily=7, weekly=5, monthly=12, yearly=2
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: datetime) -> None:
        self.time = now

    def now(self) -> datetime:
        """Return the time that was set."""
        return self.time

    def monotonic(self) -> float:
        """Return the machine's own."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.time += timedelta(seconds=seconds)


class Catalog:
    """A repository in memory, and the keys to it."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.clock = Clock(datetime(2026, 1, 4, 2, tzinfo=UTC))
        self._keks = {purpose: os.urandom(32) for purpose in PURPOSES}
        self._signer = Signer(os.urandom(32))
        self.lineage = create_identity(self.storage, self.clock.now())

    def open(self) -> Repository:
        """Open the repository as a new process does."""
        layout = Layout("main")
        keyring = Keyring(self.storage, layout, self.lineage, self._providers())
        trusted = frozenset([self._signer.public])
        identity = LogIdentity("here", lambda: self._signer, trusted)
        log = Log(self.storage, layout, self.lineage, keyring, identity, self.clock)
        wal = WalArchive(self.storage, layout, self.lineage, keyring, SYSTEM)
        return Repository(
            self.storage, layout, self.lineage, keyring, log, wal, self.clock
        )

    def fill(self, backups: int, segments: int) -> None:
        """Write a log and as much WAL as it took meanwhile."""
        repository = self.open()
        repository.log.append(lambda _: Open("main", SYSTEM, SEGMENT))
        parent = None
        for number in range(backups):
            start = Lsn(number * segments // backups * SEGMENT + 0x28)
            if number % A_WEEK == 0:
                parent = None
            parent = self._back_up(repository, parent, start)
            self.clock.sleep(3600)
        for number in range(segments):
            name = Segment(1, number).name(SEGMENT)
            path = f"{repository.layout.wal(SYSTEM)}{name[:8]}/{name[8:16]}/{name}"
            self.storage.put(path, b"")

    def _back_up(self, repository: Repository, parent: str | None, start: Lsn) -> str:
        attempt, now = os.urandom(16).hex(), self.clock.now()
        kind = BackupKind.FULL if parent is None else BackupKind.INCREMENTAL

        def begin(state: LogState) -> Entry:
            label = new_label(now, kind, state.last_label)
            keys = (("backup", os.urandom(16).hex()), ("catalog", os.urandom(16).hex()))
            return Begin(attempt, label, kind, parent, start, 1, keys)

        entry = repository.log.append(begin).entry
        if not isinstance(entry, Begin):
            raise TypeError("the log returned another entry than it was given")
        name = repository.layout.manifest(entry.label, attempt)
        manifest = ManifestRef(name, 4711, os.urandom(32).hex(), os.urandom(16).hex())
        summary = _summary(entry, now)
        repository.log.append(lambda _: Commit(attempt, manifest, summary))
        return entry.label

    def _providers(self) -> dict[str, Callable[[], KeyProvider]]:
        def source(purpose: str) -> Callable[[], KeyProvider]:
            return lambda: LocalKeyProvider(self._keks[purpose])

        return {purpose: source(purpose) for purpose in PURPOSES}


def _summary(begin: Begin, now: datetime) -> BackupSummary:
    return BackupSummary(
        label=begin.label,
        kind=begin.kind,
        source="local",
        start_lsn=begin.start_lsn,
        stop_lsn=Lsn(begin.start_lsn + 0x100),
        timeline=1,
        start_time=now,
        stop_time=now + timedelta(minutes=1),
        system_identifier=SYSTEM,
        server_version=180000,
        wal_segment_size=SEGMENT,
        files=1000,
        bytes=1 << 30,
        stored_bytes=1 << 26,
        damaged_pages=0,
        warnings=0,
    )


def list_backups(catalog: Catalog) -> int:
    """List the backups; return how many."""
    return len(catalog.open().backups())


def list_wal(catalog: Catalog) -> int:
    """List the archive; return how many files it has."""
    return sum(1 for _ in catalog.open().wal.list())


def plan(catalog: Catalog) -> int:
    """Plan an expiry; return how many backups and WAL files would go."""
    planned = plan_expire(catalog.open(), RETENTION, catalog.clock.now(), most=1 << 30)
    return sum(map(len, planned.chains)) + len(planned.wal)


MEASURED = {
    "list the backups": list_backups,
    "list the WAL": list_wal,
    "plan an expiry": plan,
}


def main() -> int:
    """Print a table; return 1 if anything takes longer than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backups", type=int, default=10_000)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=10.0, help="in seconds (10)")
    asked = parser.parse_args()
    catalog = Catalog()
    catalog.fill(asked.backups, asked.segments)
    print(f"{asked.backups:,} backups, {asked.segments:,} WAL segments")
    print("| | median, s | least to most, s | processor, s | found |")
    print("|---|---:|---:|---:|---:|")
    slowest = 0.0
    for name, measure in MEASURED.items():
        samples, busy, found = [], [], 0
        for _ in range(asked.rounds):
            began, worked = time.perf_counter(), time.process_time()
            found = measure(catalog)
            samples.append(time.perf_counter() - began)
            busy.append(time.process_time() - worked)
        slowest = max(slowest, median(samples))
        span = f"{min(samples):.2f} to {max(samples):.2f}"
        print(
            f"| {name} | {median(samples):.2f} | {span} | {median(busy):.2f} "
            f"| {found:,} |"
        )
    return int(slowest > asked.limit)


if __name__ == "__main__":
    raise SystemExit(main())
