"""Entries of a cluster's log as JSON; docs/repository-format.md, "Log", lists them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from drkit.model import members
from drkit.model.backup import (
    ManifestRef,
    reference_from_json,
    summary_from_json,
    summary_to_json,
)
from drkit.model.label import BackupKind, is_attempt, label_time
from drkit.model.log import (
    Abandon,
    Begin,
    Commit,
    Entry,
    Evidence,
    ExpireDone,
    ExpireIntent,
    Open,
    Pin,
    Proven,
    Unpin,
)
from drkit.model.log_wal import ExpireWal, WalSigners
from drkit.model.lsn import Lsn
from drkit.model.wal import timeline_of

if TYPE_CHECKING:
    from collections.abc import Callable


_PUBLIC = re.compile(r"ed25519:[0-9a-f]{64}\Z")


class UnknownEntry(ValueError):
    """An entry of a type that this version does not know."""


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """Return an entry's own members, `type` first."""
    fields: dict[str, Any] = {"type": entry.TYPE}
    fields |= {name: getattr(entry, name) for name in entry.__slots__}
    match entry:
        case Begin():
            fields |= {"kind": str(entry.kind), "start_lsn": str(entry.start_lsn)}
            fields["keys"] = [list(key) for key in entry.keys]
        case Commit():
            manifest = entry.manifest
            fields["manifest"] = {
                name: getattr(manifest, name) for name in ManifestRef.__slots__
            }
            fields["backup"] = summary_to_json(entry.backup)
        case ExpireIntent() | ExpireDone():
            fields["labels"] = list(entry.labels)
        case ExpireWal():
            fields["bounds"] = [[line, str(bound)] for line, bound in entry.bounds]
        case WalSigners():
            fields |= {"signers": list(entry.signers), "since": list(entry.since)}
        case Pin():
            fields["until"] = None if entry.until is None else entry.until.isoformat()
        case Proven():
            fields["verified_at"] = entry.verified_at.isoformat()
        case _:
            pass
    return fields


def entry_from_json(found: dict[str, Any]) -> Entry:
    """Read an entry's own members.

    Raises:
        UnknownEntry: its type is of a later version.
        ValueError, KeyError, TypeError: a member is missing or malformed.
    """
    kind = members.text(found, "type")
    if kind not in _READERS:
        raise UnknownEntry(f"entries of type {kind!r} are not known")
    return _READERS[kind](found)


def _read_open(found: dict[str, Any]) -> Open:
    return Open(
        members.text(found, "cluster"),
        members.text(found, "system_identifier"),
        members.count(found, "segment_size"),
    )


def _read_begin(found: dict[str, Any]) -> Begin:
    label = members.text(found, "label")
    label_time(label)
    parent = None if found["parent"] is None else members.text(found, "parent")
    return Begin(
        _attempt(found),
        label,
        BackupKind(found["kind"]),
        parent,
        Lsn.parse(members.text(found, "start_lsn")),
        members.count(found, "timeline"),
        tuple(map(_key, members.listed(found, "keys"))),
    )


def _key(pair: Any) -> tuple[str, str]:
    purpose, key_id = pair
    return str(purpose), str(key_id)


def _read_commit(found: dict[str, Any]) -> Commit:
    return Commit(
        _attempt(found),
        reference_from_json(members.nested(found, "manifest")),
        summary_from_json(members.nested(found, "backup")),
    )


def _read_abandon(found: dict[str, Any]) -> Abandon:
    return Abandon(_attempt(found), members.text(found, "reason"))


def _read_expire_wal(found: dict[str, Any]) -> ExpireWal:
    return ExpireWal(tuple(map(_bound, members.listed(found, "bounds"))))


def _bound(pair: Any) -> tuple[int, Lsn]:
    timeline, bound = pair
    named = {"timeline": timeline, "bound": bound}
    return members.count(named, "timeline"), Lsn.parse(members.text(named, "bound"))


def _read_wal_signers(found: dict[str, Any]) -> WalSigners:
    signers, since = members.texts(found, "signers"), members.texts(found, "since")
    for signer in signers:
        if _PUBLIC.match(signer) is None:
            raise ValueError(f"{signer!r} is no public key")
    for name in since:
        timeline_of(name)
    return WalSigners(signers, since)


def _read_pin(found: dict[str, Any]) -> Pin:
    until = None if found["until"] is None else members.moment(found, "until")
    return Pin(members.text(found, "label"), members.text(found, "reason"), until)


def _read_proven(found: dict[str, Any]) -> Proven:
    evidence = members.sha256(found, "evidence")
    verified_at = members.moment(found, "verified_at")
    return Proven(members.text(found, "label"), verified_at, evidence)


def _read_evidence(found: dict[str, Any]) -> Evidence:
    return Evidence(members.count(found, "record"), members.sha256(found, "digest"))


def _attempt(found: dict[str, Any]) -> str:
    attempt = members.text(found, "attempt")
    if not is_attempt(attempt):
        raise ValueError(f"{attempt!r} is no attempt id")
    return attempt


_READERS: dict[str, Callable[[dict[str, Any]], Entry]] = {
    Open.TYPE: _read_open,
    Begin.TYPE: _read_begin,
    Commit.TYPE: _read_commit,
    Abandon.TYPE: _read_abandon,
    ExpireIntent.TYPE: lambda found: ExpireIntent(members.texts(found, "labels")),
    ExpireDone.TYPE: lambda found: ExpireDone(members.texts(found, "labels")),
    ExpireWal.TYPE: _read_expire_wal,
    WalSigners.TYPE: _read_wal_signers,
    Pin.TYPE: _read_pin,
    Unpin.TYPE: lambda found: Unpin(members.text(found, "label")),
    Proven.TYPE: _read_proven,
    Evidence.TYPE: _read_evidence,
}
