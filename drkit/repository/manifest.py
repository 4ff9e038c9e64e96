"""Manifests to and from bytes. The layout is in docs/repository-format.md.

A repository is hostile input: what `decode` returns has been checked to the last
count, so that a restore can index without fear.
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from drkit.crypto.sealing import (
    INDEX_ROW_BYTES,
    MAX_CODEC,
    MAX_FRAME,
    MAX_FRAMES,
    TAG,
    overhead,
)
from drkit.errors import Corrupt
from drkit.model import members
from drkit.model.fingerprint import FingerprintRef, Mode
from drkit.model.head import (
    ManifestHead,
    ParentRef,
    ServerDescription,
    Tablespace,
    WalPosition,
)
from drkit.model.label import BackupKind, is_attempt, label_time
from drkit.model.lsn import Lsn
from drkit.model.manifest import (
    DAMAGED,
    FILE,
    FRAME,
    PACK,
    RUN,
    FileKind,
    Manifest,
    Rows,
)
from drkit.repository.packing import MAX_PACK

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMAT = 1
_LENGTH = struct.Struct("<I")
_TABLES = {"pack": PACK, "frame": FRAME, "file": FILE, "run": RUN, "damaged": DAMAGED}
_MAX_FILE = 1 << 40
_MAX_MODE = 0o777
_MAX_PATH = 4095
_IS_KIND = np.isin(np.arange(256), list(FileKind))  # of each value of a byte
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def encode(manifest: Manifest) -> bytes:
    """Return a manifest's plaintext."""
    columns = [
        ("file.path", _join_paths(manifest.paths)),
        ("gone.path", _join_paths(manifest.gone)),
    ]
    tables = {
        "pack": manifest.packs,
        "frame": manifest.frames,
        "file": manifest.files,
        "run": manifest.runs,
        "damaged": manifest.damaged,
    }
    for table, rows in tables.items():
        for field in _TABLES[table].names or ():
            column = np.ascontiguousarray(rows[field]).reshape(-1)
            columns.append((f"{table}.{field}", column))
    listed = [[name, _type(column.dtype), column.size] for name, column in columns]
    head = json.dumps(_head_to_json(manifest.head) | {"columns": listed}).encode()
    parts = [_LENGTH.pack(len(head)), head]
    parts += [column.tobytes() for _, column in columns]
    return b"".join(parts)


def decode(name: str, plain: bytes) -> Manifest:
    """Read a manifest's plaintext.

    Args:
        name: the object's name, for messages.

    Raises:
        Corrupt: anything about it is not as a writer makes it.
    """
    try:
        found, offset = _split_head(plain)
        if (found["drkit"], found["format"]) != ("manifest", _FORMAT):
            raise Corrupt(f"object {name} is no manifest of this format")
        columns = _split_columns(members.listed(found, "columns"), plain, offset)
        if found["parent"] is None:
            _add_missing(columns)
        tables = {table: _rows(table, columns) for table in _TABLES}
        paths = _split_paths(columns["file.path"])
        gone = tuple(_split_paths(columns["gone.path"]))
        head = _head_from_json(found)
    except (ValueError, KeyError, TypeError, struct.error, IndexError) as error:
        raise Corrupt(f"manifest {name} is malformed: {error}") from None
    manifest = Manifest(
        head,
        paths,
        tables["file"],
        tables["pack"],
        tables["frame"],
        tables["run"],
        tables["damaged"],
        gone,
    )
    for what, holds in _checks(manifest):
        if not holds:
            raise Corrupt(f"manifest {name} is malformed: {what}")
    return manifest


def safe_paths(paths: Sequence[bytes]) -> bool:
    """Say whether all paths stay inside the directory that they are relative to."""
    if not paths:
        return True
    joined = (
        b"/" + b"/\0/".join(paths) + b"/"
    )  # searched at once: there may be millions
    plain = all(part not in joined for part in (b"//", b"/./", b"/../"))
    return plain and max(map(len, paths)) <= _MAX_PATH


def _type(dtype: np.dtype[Any]) -> str:
    return f"{dtype.kind}{dtype.itemsize}"


def _split_head(plain: bytes) -> tuple[dict[str, Any], int]:
    (length,) = _LENGTH.unpack_from(plain)
    end = _LENGTH.size + length
    if end > len(plain):
        raise ValueError("its head is cut off")
    return members.parse_object(plain[_LENGTH.size : end]), end


def _split_columns(
    listed: list[Any], plain: bytes, offset: int
) -> dict[str, np.ndarray[Any, Any]]:
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for name, kind, count in listed:
        known = kind in ("u1", "u2", "u4", "u8", "i8")
        if not known or type(count) is not int or count < 0 or name in columns:
            raise ValueError(f"column {name} is listed wrongly")
        dtype = np.dtype(f"<{kind}")
        size = dtype.itemsize * count
        if offset + size > len(plain):
            raise ValueError(f"column {name} is cut off")
        columns[name] = np.frombuffer(plain, dtype=dtype, count=count, offset=offset)
        offset += size
    if offset != len(plain):
        raise ValueError("bytes follow the last column")
    return columns


def _add_missing(columns: dict[str, np.ndarray[Any, Any]]) -> None:
    """Add what full backups lack that were taken before there were incrementals."""
    count = columns["file.kind"].size
    for name in ("file.identity", "file.kept"):
        columns.setdefault(name, np.zeros(count, dtype="<u8"))
    columns.setdefault("gone.path", _join_paths(()))


def _rows(table: str, columns: dict[str, np.ndarray[Any, Any]]) -> Rows:
    dtype = _TABLES[table]
    names = dtype.names or ()
    lengths = set()
    for field in names:
        column, kind = columns[f"{table}.{field}"], dtype[field]
        width = math.prod(kind.shape)
        if column.dtype != kind.base or column.size % width:
            raise ValueError(f"column {table}.{field} has another type")
        lengths.add(column.size // width)
    if len(lengths) != 1:
        raise ValueError(f"columns of {table} have different lengths")
    rows = np.empty(lengths.pop(), dtype=dtype)
    for field in names:
        rows[field] = columns[f"{table}.{field}"].reshape(rows[field].shape)
    return rows


def _join_paths(paths: Sequence[bytes]) -> np.ndarray[Any, Any]:
    return np.frombuffer(b"\0".join((*paths, b"")), dtype=np.uint8)


def _split_paths(column: np.ndarray[Any, Any]) -> list[bytes]:
    if column.dtype != np.uint8:
        raise ValueError("a column of paths has another type")
    blob = column.tobytes()
    if not blob:
        return []
    if not blob.endswith(b"\0"):
        raise ValueError("the last path is not ended")
    return blob[:-1].split(b"\0")


def _checks(manifest: Manifest) -> list[tuple[str, bool]]:
    paths, files, runs = manifest.paths, manifest.files, manifest.runs
    directories = files["kind"] == FileKind.DIRECTORY
    return [
        ("a path for each file", len(paths) == len(files)),
        ("a path is unsafe", safe_paths(paths)),
        ("paths are out of order", all(map(bytes.__lt__, paths, paths[1:]))),
        ("a file's kind", bool(_IS_KIND[files["kind"]].all())),
        ("a file's mode", bool((files["mode"] <= _MAX_MODE).all())),
        ("a file's size", bool((files["size"] <= _MAX_FILE).all())),
        ("a directory's size", bool((files["size"][directories] == 0).all())),
        ("runs do not match files", int(files["runs"].sum()) == len(runs)),
        ("packs and frames", _packs_hold(manifest)),
        ("runs and frames", _runs_hold(manifest)),
        ("damaged pages", bool((manifest.damaged["file"] < len(files)).all())),
        ("what its parent has", _parent_holds(manifest)),
    ]


def _parent_holds(manifest: Manifest) -> bool:
    head, gone, files = manifest.head, manifest.gone, manifest.files
    if (head.parent is not None) != (head.kind is BackupKind.INCREMENTAL):
        return False
    if head.parent is None:
        return not gone and not files["kept"].any()
    return bool(
        safe_paths(gone)
        and all(map(bytes.__lt__, gone, gone[1:]))
        and set(gone).isdisjoint(manifest.paths)
        and (files["kept"] <= files["size"]).all()
    )


def _packs_hold(manifest: Manifest) -> bool:
    packs, frames = manifest.packs, manifest.frames
    if int(packs["frames"].sum()) != len(frames):
        return False
    sizes = packs["frames"].astype(np.uint64) * np.uint64(INDEX_ROW_BYTES)
    sizes += np.uint64(overhead(0))
    np.add.at(sizes, manifest.frame_packs(), frames["stored"].astype(np.uint64))
    return bool(
        (frames["plain"] <= MAX_FRAME).all()
        and (frames["stored"] >= TAG).all()
        and (frames["codec"] <= MAX_CODEC).all()
        and (packs["frames"] <= MAX_FRAMES).all()
        and (packs["size"] <= MAX_PACK).all()
        and (packs["size"] == sizes).all()
    )


def _runs_hold(manifest: Manifest) -> bool:
    files, frames, runs = manifest.files, manifest.frames, manifest.runs
    if int(files["runs"].sum()) != len(runs) or (runs["frame"] >= len(frames)).any():
        return False
    counts = files["runs"]
    position, length = runs["position"].copy(), runs["length"].astype(np.uint64)
    ends, inside = position + length, runs["offset"] + length
    apart = np.empty(len(runs), dtype=bool)
    apart[1:] = position[1:] >= ends[:-1]
    with_runs = counts > 0
    apart[(np.cumsum(counts, dtype=np.int64) - counts)[with_runs]] = True  # each first
    return bool(
        (length > 0).all()
        and (inside <= frames["plain"][runs["frame"]]).all()
        and (position <= _MAX_FILE).all()
        and (ends <= np.repeat(files["size"], counts)).all()
        and apart.all()
        and not (files["kind"][with_runs] == FileKind.DIRECTORY).any()
    )


def _head_to_json(head: ManifestHead) -> dict[str, Any]:
    fields = asdict(head)
    fields |= {"drkit": "manifest", "format": _FORMAT}
    fields["kind"] = str(head.kind)
    for name in ("start", "stop"):
        position: WalPosition = getattr(head, name)
        fields[name] = {
            "lsn": str(position.lsn),
            "timeline": position.timeline,
            "time": position.time.isoformat(),
        }
    if head.fingerprint is not None:
        texts = {"mode": str(head.fingerprint.mode), "lsn": str(head.fingerprint.lsn)}
        fields["fingerprint"] = head.fingerprint._asdict() | texts
    return fields


def _head_from_json(found: members.Members) -> ManifestHead:
    label, attempt = members.text(found, "label"), members.text(found, "attempt")
    label_time(label)
    if not is_attempt(attempt):
        raise ValueError("its attempt is no attempt id")
    return ManifestHead(
        drkit_version=members.text(found, "drkit_version"),
        cluster=members.text(found, "cluster"),
        label=label,
        attempt=attempt,
        kind=BackupKind(found["kind"]),
        parent=_parent_from_json(found),
        source=members.text(found, "source"),
        dek_id=members.text(found, "dek_id"),
        server=_server_from_json(members.nested(found, "server")),
        start=_position_from_json(members.nested(found, "start")),
        stop=_position_from_json(members.nested(found, "stop")),
        backup_label=members.text(found, "backup_label"),
        tablespace_map=members.text(found, "tablespace_map"),
        tablespaces=tuple(
            map(_tablespace_from_json, members.listed(found, "tablespaces"))
        ),
        warnings=members.texts(found, "warnings"),
        fingerprint=_fingerprint_from_json(found),
    )


def _parent_from_json(found: members.Members) -> ParentRef | None:
    if found["parent"] is None:
        return None
    parent = members.nested(found, "parent")
    label = members.text(parent, "label")
    label_time(label)
    digest = members.text(parent, "sha256")
    if not _SHA256.match(digest):
        raise ValueError("its parent's digest is none")
    return ParentRef(label, digest)


def _fingerprint_from_json(found: members.Members) -> FingerprintRef | None:
    """Read what manifests lack that are older than fingerprints."""
    if found.get("fingerprint") is None:
        return None
    reference = members.nested(found, "fingerprint")
    digest = members.text(reference, "sha256")
    if not _SHA256.match(digest):
        raise ValueError("its fingerprint's digest is none")
    named = reference["restore_point"] is not None
    return FingerprintRef(
        members.text(reference, "name"),
        members.count(reference, "size"),
        digest,
        Mode(members.text(reference, "mode")),
        Lsn.parse(members.text(reference, "lsn")),
        members.text(reference, "restore_point") if named else None,
    )


def _server_from_json(found: members.Members) -> ServerDescription:
    return ServerDescription(
        system_identifier=members.text(found, "system_identifier"),
        version=members.count(found, "version"),
        catalog_version=members.count(found, "catalog_version"),
        control_version=members.count(found, "control_version"),
        block_size=members.count(found, "block_size"),
        relation_segment_size=members.count(found, "relation_segment_size"),
        wal_segment_size=members.count(found, "wal_segment_size"),
        data_checksums=members.flag(found, "data_checksums"),
        group_access=members.flag(found, "group_access"),
        config_file=members.text(found, "config_file"),
    )


def _position_from_json(found: members.Members) -> WalPosition:
    lsn = Lsn.parse(members.text(found, "lsn"))
    return WalPosition(
        lsn, members.count(found, "timeline"), members.moment(found, "time")
    )


def _tablespace_from_json(found: members.Members) -> Tablespace:
    return Tablespace(
        members.count(found, "oid"),
        members.text(found, "path"),
        members.text(found, "name"),
        members.flag(found, "in_place"),
    )
