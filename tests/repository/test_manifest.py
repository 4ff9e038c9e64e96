"""Manifests to bytes and back, and everything that a reader must refuse."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.crypto.sealing import MAX_FRAME, overhead
from drkit.errors import Corrupt
from drkit.model.fingerprint import FingerprintRef, Mode
from drkit.model.head import ParentRef
from drkit.model.label import BackupKind
from drkit.model.lsn import Lsn
from drkit.model.manifest import DAMAGED, FILE, FRAME, PACK, RUN, Manifest
from drkit.repository.manifest import decode, encode, safe_paths
from tests.builders import manifest_head, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "alpha/backups/20260115-103000-full-" + "ab" * 16 + "/manifest"


def pack_row(*stored: int) -> tuple[object, ...]:
    size = overhead(0) + sum(stored) + 12 * len(stored)
    return size, np.arange(32, dtype=np.uint8), len(stored)


def small() -> Manifest:
    """Two packs, three frames, a directory and two files, one of them damaged."""
    digest = np.arange(16, dtype=np.uint8)
    taken = FingerprintRef("f", 9, "cd" * 32, Mode.EXACT, Lsn(0x30000A0), "drkit now")
    return Manifest(
        replace(manifest_head(), fingerprint=taken),
        [b"base", b"base/1", b"base/2"],
        rows_of(
            FILE,
            (2, 0o700, 0, 5, 0, 0, 0),
            (1, 0o600, 300, -5, 77, 0, 2),
            (1, 0o640, 40, 5, 0, 0, 1),
        ),
        rows_of(PACK, pack_row(116, 56), pack_row(116)),
        rows_of(FRAME, (116, 200, 1), (56, 40, 0), (116, 100, 0)),
        rows_of(
            RUN,
            (0, 200, 0, 0, digest),
            (200, 100, 2, 0, digest),
            (0, 40, 1, 0, digest),
        ),
        rows_of(DAMAGED, (1, 0)),
    )


def same(first: Manifest, second: Manifest) -> bool:
    tables = ("files", "packs", "frames", "runs", "damaged")
    return (
        first.head == second.head
        and first.paths == second.paths
        and first.gone == second.gone
        and all(
            np.array_equal(getattr(first, name), getattr(second, name))
            for name in tables
        )
    )


def refused(plain: bytes) -> str:
    with pytest.raises(Corrupt) as caught:
        decode(NAME, plain)
    assert NAME in str(caught.value)
    return str(caught.value)


def test_a_manifest_is_read_as_it_is_written() -> None:
    assert same(decode(NAME, encode(small())), small())


def test_an_empty_manifest_is_one() -> None:
    nothing = Manifest(
        manifest_head(),
        [],
        *(np.empty(0, dtype=dtype) for dtype in (FILE, PACK, FRAME, RUN, DAMAGED)),
    )
    assert same(decode(NAME, encode(nothing)), nothing)


def test_a_hundred_thousand_files_are_read_in_a_second_or_two() -> None:
    count = 100_000
    paths = [b"base/%06d" % number for number in range(count)]
    files = np.zeros(count, dtype=FILE)
    files["kind"], files["runs"], files["size"] = 1, 1, 8
    runs = np.zeros(count, dtype=RUN)
    runs["length"], runs["offset"] = 8, 8 * np.arange(count)
    manifest = replace(
        small(),
        paths=paths,
        files=files,
        packs=rows_of(PACK, pack_row(116)),
        frames=rows_of(FRAME, (116, 8 * count, 1)),
        runs=runs,
    )
    assert decode(NAME, encode(manifest)).paths == paths


# -- paths

PART = st.one_of(
    st.sampled_from([b"", b".", b"..", b"..."]),
    st.binary(min_size=1, max_size=6).filter(lambda part: not {0, 47} & set(part)),
)
PATHS = st.lists(PART, min_size=1, max_size=5).map(b"/".join)


@given(st.lists(PATHS, max_size=4))
def test_safe_paths_have_only_plain_parts(paths: list[bytes]) -> None:
    parts = [part for path in paths for part in path.split(b"/")]
    assert safe_paths(paths) == ({b"", b".", b".."}.isdisjoint(parts))


def test_a_safe_path_is_shorter_than_4096_bytes() -> None:
    assert safe_paths([b"a", b"x" * 4095])
    assert not safe_paths([b"a", b"x" * 4096])


@pytest.mark.parametrize(
    "paths",
    [
        [b"../base", b"base/1", b"base/2"],
        [b"/etc/passwd", b"base/1", b"base/2"],
        [b"", b"base/1", b"base/2"],
        [b".", b"base/1", b"base/2"],
        [b"base", b"base/../../x", b"base/2"],
        [b"base", b"base/", b"base/2"],
        [b"base", b"base//1", b"base/2"],
        [b"base", b"base/1", b"base/1"],
        [b"base", b"base/2", b"base/1"],
        [b"base", b"base/1"],
        [b"base", b"base/1", b"base/2", b"base/3"],
        [b"base", b"base/1", b"base/2" + b"x" * 4096],
    ],
)
def test_bad_paths_are_refused(paths: list[bytes]) -> None:
    refused(encode(replace(small(), paths=paths)))


# -- cells

CELLS: list[tuple[str, int, str, int]] = [
    ("files", 1, "kind", 0),
    ("files", 1, "kind", 4),
    ("files", 1, "kind", 2),
    ("files", 1, "mode", 0o1000),
    ("files", 1, "mode", 0o4755),
    ("files", 1, "mode", 0o2755),
    ("files", 0, "size", 1),
    ("files", 1, "size", 299),
    ("files", 2, "size", (1 << 40) + 1),
    ("files", 2, "size", (1 << 64) - 1),
    ("files", 0, "runs", 1),
    ("files", 1, "runs", (1 << 32) - 1),
    ("files", 1, "runs", 1),
    ("runs", 0, "length", 0),
    ("runs", 0, "length", 201),
    ("runs", 0, "length", (1 << 32) - 1),
    ("runs", 0, "position", 1),
    ("runs", 1, "position", 199),
    ("runs", 1, "position", 201),
    ("runs", 1, "position", (1 << 64) - 100),
    ("runs", 1, "position", (1 << 40) + 1),
    ("runs", 0, "frame", 3),
    ("runs", 0, "frame", (1 << 32) - 1),
    ("runs", 0, "frame", 1),
    ("runs", 0, "offset", 1),
    ("runs", 0, "offset", (1 << 32) - 1),
    ("frames", 0, "plain", 199),
    ("frames", 0, "plain", MAX_FRAME + 1),
    ("frames", 0, "codec", 128),
    ("frames", 0, "stored", 15),
    ("frames", 0, "stored", 117),
    ("frames", 0, "stored", (1 << 32) - 1),
    ("packs", 0, "frames", 1),
    ("packs", 0, "frames", 3),
    ("packs", 0, "frames", (1 << 32) - 1),
    ("packs", 0, "size", 0),
    ("packs", 0, "size", (1 << 64) - 1),
    ("damaged", 0, "file", 3),
    ("damaged", 0, "file", (1 << 32) - 1),
]


@pytest.mark.parametrize(("table", "row", "column", "value"), CELLS)
def test_a_cell_that_no_writer_makes_is_refused(
    table: str, row: int, column: str, value: int
) -> None:
    manifest = small()
    getattr(manifest, table)[column][row] = value
    refused(encode(manifest))


def test_frames_that_overflow_a_packs_size_are_refused() -> None:
    manifest = small()
    manifest.frames["stored"][:2] = (1 << 32) - 1
    manifest.packs["size"][0] = 2 * ((1 << 32) - 1) + overhead(0) + 24
    refused(encode(manifest))


def test_runs_of_one_file_may_touch_but_not_overlap() -> None:
    manifest = small()
    assert manifest.runs["position"][1] == 200
    decode(NAME, encode(manifest))
    manifest.runs["position"][1] = 199
    refused(encode(manifest))


def test_a_hole_is_no_damage() -> None:
    manifest = small()
    manifest.files["size"][1] = 500
    manifest.runs["position"][1] = 400
    assert same(decode(NAME, encode(manifest)), manifest)


# -- the head

HEAD = json.loads(
    encode(small())[4 : 4 + int.from_bytes(encode(small())[:4], "little")]
)


def with_head(head: Any) -> bytes:
    """The small manifest with another head; `head` is JSON or bytes."""
    good = encode(small())
    columns = good[4 + int.from_bytes(good[:4], "little") :]
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<I", len(raw)) + raw + columns


def members(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from members(inner, (*path, key))


def changed_head(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    head = json.loads(json.dumps(HEAD))
    inside = head
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return head


WRONG = [None, -1, 1.5, "\0", [], {}, [[]], True, 1e999, -1e999, "x" * 100, 1 << 80]


def test_the_small_manifests_head_is_good() -> None:
    assert same(decode(NAME, with_head(HEAD)), small())


@pytest.mark.parametrize("path", list(members(HEAD)), ids=str)
def test_members_of_another_type_are_refused_as_corrupt(path: tuple[Any, ...]) -> None:
    for value in WRONG:
        decode_or_corrupt(with_head(changed_head(path, value)))


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in members(HEAD)
        if isinstance(path[-1], str) and path != ("fingerprint",)
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_every_member_is_needed(path: tuple[Any, ...]) -> None:
    head = json.loads(json.dumps(HEAD))
    inside = head
    for step in path[:-1]:
        inside = inside[step]
    del inside[path[-1]]
    refused(with_head(head))


def test_manifests_from_before_fingerprints_have_none() -> None:
    old = {name: value for name, value in HEAD.items() if name != "fingerprint"}
    for head in (old, HEAD | {"fingerprint": None}):
        assert decode(NAME, with_head(head)).head.fingerprint is None


def test_unknown_members_and_columns_are_skipped() -> None:
    head = changed_head(("columns",), [*HEAD["columns"], ["file.later", "u8", 2]])
    plain = with_head(head | {"later": [1e999, None, "\ud800"]}) + bytes(16)
    assert same(decode(NAME, plain), small())


@pytest.mark.parametrize(
    "columns",
    [
        [],
        {},
        [["file.path", "u1"]],
        [["file.path", "u1", -1]],
        [["file.path", "u1", 1.0]],
        [["file.path", "u1", True]],
        [["file.path", "u1", 1 << 70]],
        [["file.path", "f8", 1]],
        [["file.path", "O", 1]],
        [["file.path", ["u1"], 1]],
        [[["file.path"], "u1", 1]],
        [*HEAD["columns"], HEAD["columns"][0]],
        [*HEAD["columns"], ["later", "u1", 1]],
        HEAD["columns"][:-1],
        list(reversed(HEAD["columns"])),
    ],
    ids=range(15),
)
def test_columns_that_do_not_fit_are_refused(columns: Any) -> None:
    refused(with_head(changed_head(("columns",), columns)))


@pytest.mark.parametrize("place", range(len(HEAD["columns"])))
def test_a_column_of_another_length_or_type_is_refused(place: int) -> None:
    name, kind, count = HEAD["columns"][place]
    for wrong in (
        [name, kind, count + 1],
        [name, kind, count - 1 if count else 2],
        [name, "u2" if kind != "u2" else "u4", count],
    ):
        columns = [*HEAD["columns"]]
        columns[place] = wrong
        refused(with_head(changed_head(("columns",), columns)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 10_000,
        b"{" + b'"a":1,' * 3 + b"}",
    ],
    ids=range(11),
)
def test_what_is_no_json_of_ours_is_refused(raw: bytes) -> None:
    refused(with_head(raw))


# -- incrementals


def incremental() -> Manifest:
    """The small manifest over a parent that had three files more."""
    manifest = small()
    parent = ParentRef("20260101-000000-full", "ab" * 32)
    manifest.files["kept"] = (0, 300, 8)
    gone = (b"base/0", b"base/10", b"other")
    return replace(manifest, head=manifest_head(parent=parent), gone=gone)


def test_an_incremental_is_read_as_it_is_written() -> None:
    read = decode(NAME, encode(incremental()))
    assert same(read, incremental())
    assert read.files["kept"].tolist() == [0, 300, 8]
    assert read.files["identity"].tolist() == [0, 77, 0]


def without_columns(manifest: Manifest, *names: str) -> bytes:
    """A manifest's plaintext as a writer makes it that does not know some columns."""
    plain = encode(manifest)
    end = 4 + int.from_bytes(plain[:4], "little")
    head = json.loads(plain[4:end])
    columns, kept = b"", []
    for name, kind, count in head["columns"]:
        size = count * int(kind[1])
        if name not in names:
            columns += plain[end : end + size]
            kept.append([name, kind, count])
        end += size
    raw = json.dumps(head | {"columns": kept}).encode()
    return struct.pack("<I", len(raw)) + raw + columns


LATER = ("file.identity", "file.kept", "gone.path")


def test_a_full_from_before_there_were_incrementals_is_read() -> None:
    manifest = small()
    manifest.files["identity"] = 0
    assert same(decode(NAME, without_columns(manifest, *LATER)), manifest)


@pytest.mark.parametrize("name", LATER)
def test_an_incremental_lacks_no_column(name: str) -> None:
    assert name in refused(without_columns(incremental(), name))


def test_what_keeps_more_than_it_is_long_is_refused() -> None:
    manifest = incremental()
    manifest.files["kept"][1] = 301
    assert "parent" in refused(encode(manifest))


@pytest.mark.parametrize(
    "gone",
    [
        (b"base/10", b"base/0"),
        (b"base/0", b"base/0"),
        (b"base/1",),
        (b"../base",),
        (b"",),
        (b"x" * 4096,),
    ],
)
def test_paths_that_can_not_be_gone_are_refused(gone: tuple[bytes, ...]) -> None:
    refused(encode(replace(incremental(), gone=gone)))


def test_a_full_keeps_and_loses_nothing() -> None:
    manifest = small()
    refused(encode(replace(manifest, gone=(b"base/0",))))
    manifest.files["kept"][1] = 1
    refused(encode(manifest))


def test_a_parent_and_the_kind_go_together() -> None:
    refused(encode(replace(incremental(), head=manifest_head())))
    for head, kind in (
        (incremental().head, BackupKind.FULL),
        (manifest_head(), BackupKind.INCREMENTAL),
    ):
        wrong = replace(head, kind=kind)
        refused(encode(replace(incremental(), head=wrong)))
        refused(encode(replace(small(), head=wrong)))


@pytest.mark.parametrize(
    "parent",
    [
        True,
        [],
        {},
        {"label": "20260101-000000-full"},
        {"label": "20260101-000000-full", "sha256": "0"},
        {"label": "20260101-000000-full", "sha256": "AB" * 32},
        {"label": "20260101-000000-full", "sha256": "ab" * 32 + "\n"},
        {"label": "yesterday", "sha256": "ab" * 32},
    ],
)
def test_a_parent_has_a_label_and_a_digest(parent: Any) -> None:
    head = changed_head(("parent",), parent) | {"kind": "incr"}
    refused(with_head(head))


def test_another_format_is_refused() -> None:
    assert "format" in refused(with_head(changed_head(("format",), 2)))


# -- bytes

GOOD = encode(small())


def test_every_truncation_is_refused() -> None:
    for end in range(len(GOOD)):
        refused(GOOD[:end])
    refused(GOOD + b"\0")


def test_giant_lengths_are_refused() -> None:
    for length in (len(GOOD), 2**31, 2**32 - 1):
        refused(struct.pack("<I", length) + GOOD[4:])


def decode_or_corrupt(plain: bytes) -> None:
    """Whatever the bytes are, nothing but a good manifest or `Corrupt` comes out."""
    try:
        read = decode(NAME, plain)
    except Corrupt:
        refused(plain)
    else:
        assert same(read, decode(NAME, encode(read)))


GOOD_INCREMENTAL = encode(incremental())


@given(st.data())
@settings(max_examples=300)
def test_changed_bytes_decode_or_are_corrupt(data: st.DataObject) -> None:
    plain = bytearray(data.draw(st.sampled_from([GOOD, GOOD_INCREMENTAL])))
    for _ in range(data.draw(st.integers(1, 4))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(
            st.integers(0, 255)
        )
    decode_or_corrupt(bytes(plain))


@given(st.binary(max_size=300))
def test_random_bytes_are_corrupt(plain: bytes) -> None:
    refused(plain)


@pytest.mark.long
def test_every_changed_bit_decodes_or_is_corrupt() -> None:
    for bit in range(len(GOOD) * 8):
        plain = bytearray(GOOD)
        plain[bit // 8] ^= 1 << bit % 8
        decode_or_corrupt(bytes(plain))
