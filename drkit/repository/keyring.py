"""Data keys: made, wrapped for storage, found again and unwrapped.

On the path of `wal push`: imports no more than that needs.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto.keys import KEY_BYTES, Dek, dek_of, new_dek, same_key_id, wrap_context
from drkit.errors import (
    Corrupt,
    KeyLost,
    KeyUnavailable,
    NotRecipient,
    ObjectExists,
    ObjectNotFound,
)
from drkit.model import members
from drkit.model.objects import WrappedKey
from drkit.repository import limits
from drkit.repository.layout import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from drkit.protocols import KeyProvider, Storage
    from drkit.repository.layout import Layout

_FIRST = 1
_KEY_ID = re.compile(rb"[0-9a-f]{32}\Z")


class StoredKey(NamedTuple):
    """A wrapped DEK as its object describes it."""

    purpose: str
    key_id: bytes
    generation: int
    recipients: tuple[WrappedKey, ...]


class Keyring:
    """Every DEK of one cluster.

    Args:
        providers: by purpose, each called once at first use, so that a run needs only
            the key-encrypting keys of what it touches.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        lineage: bytes,
        providers: Mapping[str, Callable[[], KeyProvider]],
    ) -> None:
        self._storage = storage
        self._layout = layout
        self._lineage = lineage
        self._sources = providers
        self._providers: dict[str, KeyProvider] = {}
        self._deks: dict[tuple[str, bytes], Dek] = {}

    def provider(self, purpose: str) -> KeyProvider:
        """Return the provider of a purpose's KEK."""
        if purpose not in self._providers:
            self._providers[purpose] = self._sources[purpose]()
        return self._providers[purpose]

    def create(self, purpose: str) -> Dek:
        """Make a DEK and store it wrapped; it is durable when this returns."""
        dek = new_dek(purpose)
        self.store(dek)
        return dek

    def store(self, dek: Dek) -> None:
        """Store a new DEK wrapped; it is durable when this returns."""
        context = wrap_context(self._lineage, dek.purpose, dek.key_id)
        wrapped = self.provider(dek.purpose).wrap(dek.secret, context)
        stored = StoredKey(dek.purpose, dek.key_id, _FIRST, (wrapped,))
        name = self._layout.dek_generation(dek.purpose, dek.key_id, _FIRST)
        self._storage.put(name, encode_key(stored, self._lineage))
        self._deks[dek.purpose, dek.key_id] = dek

    def get(self, purpose: str, key_id: bytes) -> Dek:
        """Return the DEK of that id.

        Raises:
            KeyUnavailable: it is not there, or no KEK at hand unwraps it.
        """
        known = self._deks.get((purpose, key_id))
        if known is not None:
            return known
        dek = self._unwrap(purpose, key_id)
        self._deks[purpose, key_id] = dek
        return dek

    def finder(self, purpose: str) -> Callable[[bytes], Dek]:
        """Return `get` for one purpose, as openers of objects want it."""
        return lambda key_id: self.get(purpose, key_id)

    def for_wal_day(self, day: str) -> Dek:
        """Return the DEK for WAL archived on a UTC day, `YYYYMMDD`; make it at first.

        Of two hosts that make one at once, the one whose pointer came first wins, and
        the other's key stays unused. What points at no key is passed over.
        """
        made: Dek | None = None
        for number in itertools.count():
            pointer = self._layout.wal_day(day, number)
            try:
                found = self._pointed_at(pointer)
            except ObjectNotFound:
                made = made or self.create("wal")
                try:
                    self._storage.put(pointer, made.key_id.hex().encode())
                except ObjectExists:
                    found = self._pointed_at(pointer)
                else:
                    return made
            if found is not None:
                return found
        raise AssertionError("there is always another name")

    def stored(self, purpose: str = "") -> Iterator[StoredKey]:
        """Yield the wrapped DEKs that are listed, of one purpose or of all."""
        for info in self._storage.list(self._layout.keys(purpose)):
            yield self.read(info.name)

    def read(self, name: str) -> StoredKey:
        """Return the wrapped DEK that one object holds.

        Raises:
            Corrupt: not such an object, or not the one of that name.
            ObjectNotFound: there is none.
        """
        data = self._storage.get(name, limit=limits.WRAPPED_KEY)
        return decode_key(name, data, self._lineage)

    def generations(
        self, purpose: str, key_id: bytes
    ) -> Iterator[tuple[str, Dek | Corrupt | KeyUnavailable]]:
        """Yield what is stored of a DEK, the newest first: each unwrapped, or why not.

        Raises:
            KeyLost: nothing is.
        """
        first = self._layout.dek_generation(purpose, key_id, _FIRST)
        mine = self._layout.dek(purpose, key_id)
        names = {info.name for info in self._storage.list(mine)}
        names.add(first)  # a listing may lack it
        lost = True
        for name in sorted(names, reverse=True):
            try:
                found: Dek | Corrupt | KeyUnavailable = self.unwrap(self.read(name))
            except ObjectNotFound:
                continue
            except (KeyUnavailable, Corrupt) as error:
                found = error
            lost = False
            yield name, found
        if lost:
            raise KeyLost(
                f"data key {key_id.hex()} ({purpose}) is not in {self._storage.url}",
                hint="it was deleted, or the object that names it was changed",
            )

    def wal_day_key(self, pointer: str) -> bytes:
        """Return the id of the DEK that a WAL day's object points at.

        Raises:
            Corrupt: it holds no key id.
            ObjectNotFound: there is none.
        """
        text = self._storage.get(pointer, limit=limits.WAL_DAY)
        if _KEY_ID.match(text) is None:
            raise Corrupt(f"object {pointer} holds no key id")
        return bytes.fromhex(text.decode("ascii"))

    def unwrap(self, stored: StoredKey) -> Dek:
        """Unwrap one stored key with the KEK of its purpose.

        Raises:
            NotRecipient: no recipient is that KEK, or what it opens is another key.
            KeyUnavailable: the KEK can't be had, or does not open what names it.
        """
        provider = self.provider(stored.purpose)
        context = wrap_context(self._lineage, stored.purpose, stored.key_id)
        for recipient in stored.recipients:
            if recipient.kek_id != provider.kek_id:
                continue
            try:
                secret = provider.unwrap(recipient, context)
            except KeyUnavailable as error:
                raise KeyUnavailable(
                    f"data key {stored.key_id.hex()} ({stored.purpose}): "
                    f"{error.message}",
                    hint=error.hint,
                ) from error
            dek = dek_of(secret, stored.purpose)
            if len(secret) == KEY_BYTES and same_key_id(dek.key_id, stored.key_id):
                return dek
        wrapped_for = ", ".join(recipient.kek_id for recipient in stored.recipients)
        raise NotRecipient(
            f"data key {stored.key_id.hex()} ({stored.purpose}) is not wrapped for "
            f"{provider.kek_id}, but for {wrapped_for}",
            hint=f"the policy's keys.{stored.purpose} is another key than the one "
            "that this repository was written with",
        )

    def find(self, purpose: str, key_id: bytes) -> Dek | None:
        """Return the DEK of that id; None if no writer of this repository made it.

        Raises:
            KeyUnavailable: the policy's key is none of this repository's.
        """
        try:
            return self.get(purpose, key_id)
        except (Corrupt, KeyLost):
            return None
        except KeyUnavailable:
            if any(self._opens(one) for one in self._all(purpose)):
                return None  # it is this one that somebody made up
            raise

    def speaks_for(self, key_id: bytes) -> bool:
        """Say whether anything but an object's header names a DEK for WAL.

        So one that was lost is told from one that somebody made up: what it sealed is
        no end of WAL.
        """
        if any(True for _ in self._storage.list(self._layout.dek("wal", key_id))):
            return True
        for info in self._storage.list(self._layout.wal_days()):
            with suppress(Corrupt, ObjectNotFound):
                if self.wal_day_key(info.name) == key_id:
                    return True
        return False

    def _pointed_at(self, pointer: str) -> Dek | None:
        """Return the DEK that a day's pointer names; None if it names none."""
        try:
            return self.find("wal", self.wal_day_key(pointer))
        except Corrupt:
            return None

    def _all(self, purpose: str) -> Iterator[StoredKey]:
        """Yield the wrapped DEKs that are listed and well made."""
        for info in self._storage.list(self._layout.keys(purpose)):
            with suppress(Corrupt, ObjectNotFound):
                yield self.read(info.name)

    def _opens(self, stored: StoredKey) -> bool:
        try:
            self.unwrap(stored)
        except KeyUnavailable:
            return False
        return True

    def _unwrap(self, purpose: str, key_id: bytes) -> Dek:
        failures = []
        for _, found in self.generations(purpose, key_id):
            if isinstance(found, Dek):
                return found
            failures.append(found)
        raise failures[0]


def encode_key(stored: StoredKey, lineage: bytes) -> bytes:
    """Return a wrapped DEK's object."""
    return json.dumps(
        {
            "drkit": "key",
            "format": 1,
            "lineage": lineage.hex(),
            "purpose": stored.purpose,
            "dek_id": stored.key_id.hex(),
            "generation": stored.generation,
            "recipients": [
                {
                    "provider": recipient.provider,
                    "kek_id": recipient.kek_id,
                    "wrapped": base64.b64encode(recipient.blob).decode(),
                }
                for recipient in stored.recipients
            ],
        },
    ).encode()


def _recipient(one: members.Members) -> WrappedKey:
    provider, kek_id = members.text(one, "provider"), members.text(one, "kek_id")
    wrapped = members.text(one, "wrapped")
    blob = base64.b64decode(wrapped, validate=True)
    spelled = base64.b64encode(blob).decode()  # the last digit has bits to spare
    if spelled != wrapped or not kek_id.startswith(f"{provider}:"):
        raise ValueError("a recipient is malformed")
    return WrappedKey(provider, kek_id, blob)


def decode_key(name: str, data: bytes, lineage: bytes) -> StoredKey:
    """Read a wrapped DEK's object; what it claims must agree with its place.

    Raises:
        Corrupt: not such an object.
    """
    try:
        found = members.parse_plain(data)
        ours = found["drkit"], members.count(found, "format")
        stored = StoredKey(
            members.text(found, "purpose"),
            members.hexadecimal(found, "dek_id"),
            members.count(found, "generation"),
            tuple(map(_recipient, members.listed(found, "recipients"))),
        )
        belongs = members.hexadecimal(found, "lineage")
    except (ValueError, KeyError, TypeError):
        raise Corrupt(f"object {name} is no wrapped data key") from None
    place = f"/{stored.purpose}/{stored.key_id.hex()}/{stored.generation:04d}"
    if ours != ("key", 1) or not name.endswith(place):
        raise Corrupt(f"object {name} is no wrapped data key of that name")
    if belongs != lineage:
        raise Corrupt(
            f"object {name} belongs to another repository, of lineage {belongs.hex()}",
            hint=f"{REPOSITORY} has lineage {lineage.hex()}: one of the two was "
            "changed, or put together from two repositories",
        )
    return stored
