"""Leases: who is working, so that two hosts don't do the same work twice.

A lease only saves work. Nothing depends on it being right: what keeps two writers from
hurting each other is the log. It bears a code that takes the log's key to make, so who
can only store objects can neither hold everybody up nor speak for a live writer.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from drkit.crypto.derive import derive, length_prefixed
from drkit.errors import ObjectExists, ObjectNotFound, TooLong
from drkit.model import members
from drkit.repository import limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from drkit.protocols import Clock, Storage
    from drkit.repository.layout import Layout
    from drkit.repository.repository import Repository

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
    """A lease as it was last renewed.

    Attributes:
        proven: whether somebody with the log's key wrote it.
    """

    attempt: str
    holder: Holder
    until: datetime
    proven: bool

    def gone(self, here: Holder) -> bool:
        """Say whether its holder is known to be dead, by a lease that is believed."""
        return self.proven and self.holder.gone(here)


def leases_of(repository: Repository) -> Leases:
    """Return the leases of a cluster whose log has been read."""
    info = length_prefixed("drkit/1/lease", repository.lineage)
    key = derive(repository.log.dek().secret, info)
    return Leases(repository.storage, repository.layout, repository.clock, key)


class Leases:
    """The leases of one cluster.

    Args:
        key: that codes are made with.
    """

    def __init__(
        self, storage: Storage, layout: Layout, clock: Clock, key: bytes
    ) -> None:
        self._storage = storage
        self._layout = layout
        self._clock = clock
        self._key = key

    def renew(self, attempt: str, holder: Holder, number: int) -> datetime:
        """Write the lease's renewal `number`; return until when it holds.

        Where something has that name already, the renewal takes a later one.
        """
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
        for place in itertools.count(number):
            name = self._layout.lease(attempt, place)
            data = json.dumps(lease | {"code": self._code(name, lease)}).encode()
            try:
                self._storage.put(name, data)
            except ObjectExists:
                continue
            break
        return until

    def release(self, attempt: str) -> None:
        """Delete an attempt's leases."""
        prefix = f"{self._layout.leases()}{attempt}-"
        for info in list(self._storage.list(prefix)):
            self._storage.delete(info.name)

    def held(self, here: Holder) -> dict[str, Lease]:
        """Return the leases that still hold, by attempt; only proven ones do.

        One that would hold for very long was written by a clock that is wrong, or this
        clock is: it may be years before it lapses, so it counts for nothing.
        """
        now = self._clock.now()
        newest: dict[str, Lease] = {}
        for lease in self._listed():
            known = newest.get(lease.attempt)
            if lease.proven and (known is None or lease.until > known.until):
                newest[lease.attempt] = lease
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

        They are read name by name as well: a listing may lack some, and a live attempt
        must not be taken for dead because of that. One that is not proven counts where
        none is, as older versions write them, and if it is plausible.
        """
        latest = self._clock.now() + _PLAUSIBLE
        found = [
            lease
            for name in self._names(attempt)
            if (lease := self._read(name)) is not None
            and (lease.proven or lease.until < latest)
        ]
        proven = [lease for lease in found if lease.proven]
        return max(proven or found, key=lambda one: one.until, default=None)

    def _names(self, attempt: str) -> set[str]:
        """Return the names of an attempt's leases, and of what is not one."""
        prefix = f"{self._layout.leases()}{attempt}-"
        names = {info.name for info in self._storage.list(prefix)}
        for number in itertools.count():
            name = self._layout.lease(attempt, number)
            if name not in names and not self._there(name):
                return names
            names.add(name)
        return names

    def _there(self, name: str) -> bool:
        try:
            self._storage.size(name)
        except ObjectNotFound:
            return False
        return True

    def _listed(self) -> Iterator[Lease]:
        for info in self._storage.list(self._layout.leases()):
            lease = self._read(info.name)
            if lease is not None:
                yield lease

    def _read(self, name: str) -> Lease | None:
        """Return a lease; None if it was released, or is not worth work to save."""
        try:
            found = members.parse_plain(self._storage.get(name, limit=limits.LEASE))
            code = found.pop("code", "")
            proven = hmac.compare_digest(
                str(code).encode(), self._code(name, found).encode()
            )
            return _decode(name, found, proven=proven)
        except (ObjectNotFound, TooLong, ValueError, KeyError):
            return None

    def _code(self, name: str, lease: members.Members) -> str:
        """Return the code of a lease under its name, in hex."""
        said = json.dumps(lease, sort_keys=True)
        message = length_prefixed(name) + said.encode()
        return hmac.digest(self._key, message, hashlib.sha256).hex()


def _decode(name: str, found: members.Members, *, proven: bool) -> Lease:
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
    return Lease(attempt, holder, until, proven)


def _boot_id() -> str:
    """Name this boot and process-id namespace: containers may share a host name."""
    try:
        return f"{_BOOT_ID.read_text().strip()} {_NAMESPACE.readlink()}"
    except OSError:
        return ""
