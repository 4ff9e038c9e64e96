"""Manifests for the second reader: split into columns, and checked."""

from __future__ import annotations

import itertools
import json
import re
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FRAME, MAX_PACK, MAX_CODEC = 4 << 20, 64 << 20, 127
COLUMNS = {
    "pack.size": "u8",
    "pack.sha256": "u1",
    "pack.frames": "u4",
    "frame.stored": "u4",
    "frame.plain": "u4",
    "frame.codec": "u1",
    "file.path": "u1",
    "file.kind": "u1",
    "file.mode": "u2",
    "file.size": "u8",
    "file.mtime": "i8",
    "file.identity": "u8",
    "file.kept": "u8",
    "file.runs": "u4",
    "run.position": "u8",
    "run.length": "u4",
    "run.frame": "u4",
    "run.offset": "u4",
    "run.digest": "u1",
    "damaged.file": "u4",
    "damaged.block": "u4",
    "gone.path": "u1",
}
WIDTHS = {"pack.sha256": 32, "run.digest": 16}
FORMATS = {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i8": "q"}


DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Manifest(NamedTuple):
    """A manifest whose columns agree; `columns` has them by name, as tuples."""

    head: dict[str, Any]
    columns: dict[str, Any]
    paths: list[bytes]
    gone: list[bytes]


class Refused(Exception):
    """Not as the document says."""


def need(condition: object, what: str) -> None:
    if not condition:
        raise Refused(what)


def parse_json(data: bytes, kind: str) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused(f"no JSON of a {kind}") from None
    need(isinstance(found, dict), f"no JSON object of a {kind}")
    need(found.get("drkit") == kind and found.get("format") == 1, f"no {kind} of v1")
    return found


def parse_plain(data: bytes, kind: str) -> dict[str, Any]:
    """Read what is not sealed: spelled in the one way that the format has for it."""
    found = parse_json(data, kind)
    need(json.dumps(found).encode() == data, f"another spelling of a {kind}")
    return found


def read_manifest(name: str, plain: bytes) -> Manifest:
    """Split a manifest, and check all that it can be checked for by itself."""
    head, columns = split_manifest(plain)
    paths = check_manifest(name, columns)
    gone = split_paths(name, columns["gone.path"])
    check_parent(name, head, columns, gone)
    return Manifest(head, columns, paths, gone)


def split_manifest(plain: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a manifest's head and its columns."""
    need(len(plain) >= 4, "manifest: cut off")
    end = 4 + int.from_bytes(plain[:4], "little")
    need(end <= len(plain), "manifest: head")
    head = parse_json(plain[4:end], "manifest")
    columns: dict[str, Any] = {}
    for name, kind, count in head["columns"]:
        code = FORMATS.get(kind)
        need(code and name not in columns and count >= 0, f"column {name}")
        layout = struct.Struct(f"<{count}{code}")
        need(end + layout.size <= len(plain), f"column {name}: cut off")
        columns[name] = layout.unpack_from(plain, end)
        need(COLUMNS.get(name, kind) == kind, f"column {name}: type")
        end += layout.size
    need(end == len(plain), "manifest: bytes behind the columns")
    if head["parent"] is None:  # perhaps from before there were incrementals
        nothing = (0,) * len(columns.get("file.kind", ()))
        absent = {"file.identity": nothing, "file.kept": nothing, "gone.path": ()}
        columns = absent | columns
    need(COLUMNS.keys() <= columns.keys(), "manifest: a column is missing")
    for name, width in WIDTHS.items():
        need(len(columns[name]) % width == 0, f"column {name}")
    return head, columns


def check_manifest(name: str, columns: Mapping[str, Any]) -> list[bytes]:
    """Return a manifest's paths when all columns agree."""
    for table in ("pack", "frame", "file", "run", "damaged"):
        counts = {
            len(column) // WIDTHS.get(title, 1)
            for title, column in columns.items()
            if title in COLUMNS
            and title.startswith(f"{table}.")
            and title != "file.path"
        }
        need(len(counts) == 1, f"{name}: columns of {table}")
    paths = split_paths(name, columns["file.path"])
    need(len(paths) == len(columns["file.kind"]), f"{name}: paths")
    need(set(columns["file.kind"]) <= {1, 2, 3}, f"{name}: kinds")
    need(all(mode <= 0o777 for mode in columns["file.mode"]), f"{name}: modes")
    need(sum(columns["file.runs"]) == len(columns["run.length"]), f"{name}: runs")
    need(sum(columns["pack.frames"]) == len(columns["frame.plain"]), f"{name}: frames")
    check_packs(name, columns)
    check_runs(name, columns)
    for file in columns["damaged.file"]:
        need(file < len(paths), f"{name}: damaged")
    return paths


def split_paths(name: str, column: tuple[int, ...]) -> list[bytes]:
    """Return a column's paths when they are safe and in order."""
    blob = bytes(column)
    need(not blob or blob.endswith(b"\0"), f"{name}: paths")
    paths = blob.split(b"\0")[:-1]
    need(all(a < b for a, b in itertools.pairwise(paths)), f"{name}: order")
    for path in paths:
        need(not {b"", b".", b".."} & set(path.split(b"/")), f"{name}: unsafe path")
        need(len(path) < 4096, f"{name}: long path")
    return paths


def check_parent(
    name: str, head: Mapping[str, Any], columns: Mapping[str, Any], gone: list[bytes]
) -> None:
    parent = head["parent"]
    need((parent is not None) == (head["kind"] == "incr"), f"{name}: parent")
    if parent is None:
        need(not gone and not any(columns["file.kept"]), f"{name}: no parent")
        return
    need(isinstance(parent, dict), f"{name}: parent")
    need(DIGEST.match(parent["sha256"]), f"{name}: digest of the parent")
    both = set(gone) & set(split_paths(name, columns["file.path"]))
    need(not both, f"{name}: gone, but there")
    for kept, size in zip(columns["file.kept"], columns["file.size"], strict=True):
        need(kept <= size, f"{name}: keeps more than there is")


def check_packs(name: str, columns: Mapping[str, Any]) -> None:
    first = 0
    for size, count in zip(columns["pack.size"], columns["pack.frames"], strict=True):
        stored = sum(columns["frame.stored"][first : first + count])
        need(96 + stored + 12 * count + 16 + 24 == size, f"{name}: size of a pack")
        need(size <= MAX_PACK, f"{name}: size of a pack")
        first += count
    need(all(one <= MAX_FRAME for one in columns["frame.plain"]), f"{name}: frames")
    need(all(one <= MAX_CODEC for one in columns["frame.codec"]), f"{name}: codecs")


def check_runs(name: str, columns: Mapping[str, Any]) -> None:
    run = 0
    for number, count in enumerate(columns["file.runs"]):
        reached = 0
        need(columns["file.size"][number] <= 1 << 40, f"{name}: size of a file")
        if columns["file.kind"][number] == 2:
            need(count == 0 == columns["file.size"][number], f"{name}: directory")
        for place in range(run, run + count):
            position, length = (
                columns["run.position"][place],
                columns["run.length"][place],
            )
            need(length > 0 and position >= reached, f"{name}: run {place}")
            reached = position + length
            need(reached <= columns["file.size"][number], f"{name}: run {place}")
            frame = columns["run.frame"][place]
            need(frame < len(columns["frame.plain"]), f"{name}: run {place}")
            end = columns["run.offset"][place] + length
            need(end <= columns["frame.plain"][frame], f"{name}: run {place}")
        run += count
