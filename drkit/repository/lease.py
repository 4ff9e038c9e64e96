"""Leases: who is working, so that two hosts don't do the same work twice.

A lease only saves work. Nothing depends on it being right: what keeps two writers from
hurting each other is the log.
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from drkit.errors import ObjectNotFound, TooLong
from drkit.model import members
from drkit.repository import limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from drkit.protocols import Clock, Storage
    from drkit.repository.layout import Layout

LEASE_FOR = timedelta(minutes=10)
RENEW_EVERY = timedelta(minutes=3)
_FORMAT = 1
_PLAUSIBLE = LEASE_FOR + timedelta(hours=1)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lease; `boot` tells two starts of a host apart."""

    host: str
    boot: str
    pid: int

    @classmethod
    def this(cls, host: str) -> Holder:
        """Describe the calling process."""
        return cls(host, _boot_id(), os.getpid())

    def gone(self, here: Holder) -> bool:
        """Say whether it is known to be dead: on this host, and no such process."""
        if (self.host, self.boot) != (here.host, here.boot) or not self.boot:
            return False
        return not Path(f"/proc/{self.pid}").exists()


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was last renewed."""

    attempt: str
    holder: Holder
    until: datetime


class Leases:
    """The leases of one cluster."""

    def __init__(self, storage: Storage, layout: Layout, clock: Clock) -> None:
        self._storage = storage
        self._layout = layout
        self._clock = clock

    def renew(self, attempt: str, holder: Holder, number: int) -> datetime:
        """Write the lease's renewal `number`; return until when it holds."""
        until = self._clock.now() + LEASE_FOR
        lease = {
            "drkit": "lease",
            "format": _FORMAT,
            "attempt": attempt,
            "host": holder.host,
            "boot": holder.boot,
            "pid": holder.pid,
            "until": until.isoformat(),
        }
        name = self._layout.lease(attempt, number)
        self._storage.put(name, json.dumps(lease).encode())
        return until

    def release(self, attempt: str) -> None:
        """Delete an attempt's leases."""
        prefix = f"{self._layout.leases()}{attempt}-"
        for info in list(self._storage.list(prefix)):
            self._storage.delete(info.name)

    def held(self, here: Holder) -> dict[str, Lease]:
        """Return the leases that still hold, by attempt.

        One that would hold for very long was written by a clock that is wrong, or this
        clock is: it may be years before it lapses, so it counts for nothing.
        """
        now = self._clock.now()
        newest = {lease.attempt: lease for lease in self._listed()}
        return {
            attempt: lease
            for attempt, lease in newest.items()
            if now < lease.until < now + _PLAUSIBLE and not lease.holder.gone(here)
        }

    def attempts(self) -> set[str]:
        """Return every attempt that has a lease, lapsed or not."""
        return {lease.attempt for lease in self._listed()}

    def last(self, attempt: str) -> Lease | None:
        """Return an attempt's newest lease, lapsed or not; None if it has none.

        They are read name by name: a listing may lack some, and a live attempt must not
        be taken for dead because of that.
        """
        names = (self._layout.lease(attempt, number) for number in itertools.count())
        newest = None
        while (lease := self._read(next(names))) is not None:
            newest = lease
        return newest

    def _listed(self) -> Iterator[Lease]:
        for info in self._storage.list(self._layout.leases()):
            lease = self._read(info.name)
            if lease is not None:
                yield lease

    def _read(self, name: str) -> Lease | None:
        """Return a lease; None if it was released, or is not worth work to save."""
        try:
            return _decode(name, self._storage.get(name, limit=limits.LEASE))
        except (ObjectNotFound, TooLong, ValueError, KeyError):
            return None


def _decode(name: str, data: bytes) -> Lease:
    found = members.parse_plain(data)
    holder = Holder(
        members.text(found, "host"),
        members.text(found, "boot"),
        members.count(found, "pid"),
    )
    attempt, until = members.text(found, "attempt"), members.moment(found, "until")
    ours = found["drkit"], members.count(found, "format")
    place = name.rpartition("/")[2].rpartition("-")[0]
    if ours != ("lease", _FORMAT) or place != attempt:
        raise ValueError("it is no lease of that name")
    return Lease(attempt, holder, until)


def _boot_id() -> str:
    """Name this boot and process-id namespace: containers may share a host name."""
    try:
        return f"{_BOOT_ID.read_text().strip()} {_NAMESPACE.readlink()}"
    except OSError:
        return ""
