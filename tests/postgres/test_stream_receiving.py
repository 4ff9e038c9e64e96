"""Archives as a server streams them, laid over a parent: every file comes out right."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit import workers
from drkit.errors import PostgresRefused
from drkit.model.changes import NO_BLOCKS, Relation, Summary, unite
from drkit.model.manifest import FileKind
from drkit.postgres.receiving import Receiving
from drkit.postgres.stream_parent import StreamParent
from drkit.postgres.stream_pieces import Exchange, Storing
from drkit.repository.chain import ChainContent, read_parent
from tests.builders import World, back_up
from tests.operations.backup_tools import Listener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.model.changes import ChangedBlocks
    from drkit.model.copied import CopiedFile
    from drkit.workers import Stop

PAGE = 8192
SEGMENT = 131072
MAGIC = 0xD3AE1F0D
TABLE, MAP, FREE_SPACE = b"base/5/16384", b"base/5/16384_vm", b"base/5/16384_fsm"
SPACED = b"pg_tblspc/16400/PG_18_202506291/5/16385"
PLAIN, LARGE = b"pg_xact/0000", b"log/server.log"
PAGES = st.lists(st.binary(min_size=1, max_size=3), max_size=12).map(
    lambda seeds: b"".join((seed * PAGE)[:PAGE] for seed in seeds)
)


class Incremental(NamedTuple):
    """A relation as the server sends it."""

    truncation: int
    blocks: dict[int, bytes]

    def content(self) -> bytes:
        numbers = sorted(self.blocks)
        head = struct.pack(
            f"<III{len(numbers)}I", MAGIC, len(numbers), self.truncation, *numbers
        )
        padding = bytes(-len(head) % PAGE) if numbers else b""
        return head + padding + b"".join(self.blocks[number] for number in numbers)

    def laid_over(self, parent: bytes, limit: int | None) -> bytes:
        """Do page by page what the header says."""
        length = max([self.truncation, *(block + 1 for block in self.blocks)])
        below = min(self.truncation, self.truncation if limit is None else limit)
        pages = []
        for number in range(length):
            old = parent[number * PAGE : (number + 1) * PAGE]
            page = old if number < below and len(old) == PAGE else bytes(PAGE)
            pages.append(self.blocks.get(number, page))
        return b"".join(pages)


INCREMENTAL = st.builds(
    Incremental,
    st.integers(0, 14),
    st.dictionaries(
        st.integers(0, 14),
        st.binary(min_size=1, max_size=2).map(lambda seed: (seed * PAGE)[:PAGE]),
        max_size=8,
    ),
)


class Writer:
    """Keeps what it is given, in small frames."""

    def __init__(self, frame: int) -> None:
        self.wrote: list[tuple[int, int, bytes]] = []
        self._frame = frame
        self._space = memoryview(b"")
        self._left = 0

    def space(self, unit: int) -> memoryview:
        if self._left < unit:
            self._left = self._frame
        self._space = memoryview(bytearray(self._left))
        return self._space

    def took(self, file: int, position: int, length: int) -> None:
        assert 0 < length <= len(self._space)
        self.wrote.append((file, position, bytes(self._space[:length])))
        self._left -= length

    def took_all(self, file: int, parts: Sequence[tuple[int, int]]) -> None:
        raise NotImplementedError("nothing that streams takes many at once")

    def add(
        self, file: int, position: int, data: bytes | bytearray | memoryview
    ) -> None:
        self.wrote.append((file, position, bytes(data)))


def archive(files: dict[bytes, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(os.fsdecode(path))
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def parent_of(files: dict[bytes, bytes], limits: dict[Relation, int]) -> StreamParent:
    repository = World().repository()
    chain = read_parent(repository, back_up(repository, files))
    return StreamParent(ChainContent(repository, chain, {}), truncated(limits))


def truncated(limits: dict[Relation, int]) -> ChangedBlocks:
    values = np.array(list(limits.values()), np.uint32)
    return unite([Summary(list(limits), values, NO_BLOCKS)], SEGMENT)


def receive(
    parent: StreamParent | None, archives: dict[int | None, bytes], chunk: int = 30000
) -> tuple[list[CopiedFile], Writer]:
    """Stream archives by the oid of their tablespaces through all the machinery."""
    exchange, writer = Exchange(1), Writer(3 * PAGE + 100)
    receiving = Receiving(exchange, list(archives), parent, SEGMENT)
    content = parent.content if parent else None
    storing = Storing(exchange, None, content, Listener())

    def work(stop: Stop) -> None:
        try:
            for number, data in enumerate(archives.values()):
                for start in range(0, len(data), chunk):
                    part = memoryview(data)[start : start + chunk]
                    receiving.take(number, part, stop)
            receiving.take(None, memoryview(b"the server's manifest"), stop)
            receiving.finish()
        finally:
            exchange.end()

    workers.run([work, storing.worker(writer)])
    return receiving.files(storing.unchanged), writer


def laid_over(
    before: dict[bytes, bytes], files: list[CopiedFile], writer: Writer
) -> dict[bytes, bytes]:
    """Lay what was written over what there was, as a page map does."""
    contents = []
    for file in files:
        assert file.kept <= min(file.size, len(before.get(file.path, b"")))
        kept = before.get(file.path, b"")[: file.kept]
        contents.append(bytearray(kept.ljust(file.size, b"\0")))
    for number, position, data in writer.wrote:
        assert position + len(data) <= len(contents[number])
        contents[number][position : position + len(data)] = data
    return {
        file.path: bytes(content)
        for file, content in zip(files, contents, strict=True)
        if file.kind is FileKind.FILE
    }


@settings(max_examples=60)
@given(
    old=PAGES,
    spaced=PAGES,
    free_space=st.tuples(PAGES, PAGES),
    plain=st.tuples(st.binary(max_size=50), st.binary(max_size=50)),
    new=INCREMENTAL,
    new_spaced=INCREMENTAL,
    limit=st.none() | st.integers(1, 15),
    chunk=st.integers(300, 100_000),
)
def test_every_file_is_as_the_server_has_it(
    old: bytes,
    spaced: bytes,
    free_space: tuple[bytes, bytes],
    plain: tuple[bytes, bytes],
    new: Incremental,
    new_spaced: Incremental,
    limit: int | None,
    chunk: int,
) -> None:
    before = {TABLE: old, MAP: old, SPACED: spaced, FREE_SPACE: free_space[0]}
    before |= {PLAIN: plain[0], LARGE: b"logged\n" * 1000}
    limits = {} if limit is None else {Relation(16400, 5, 16385): limit}
    spaced_name = b"PG_18_202506291/5/INCREMENTAL.16385"
    sent = {
        b"base/5/INCREMENTAL.16384": new.content(),
        b"base/5/INCREMENTAL.16384_vm": new.content(),
        FREE_SPACE: free_space[1],
        PLAIN: plain[1],
        LARGE: b"logged\n" * 1001,
        b"base/5/16386": old,
    }
    files, writer = receive(
        parent_of(before, limits),
        {None: archive(sent), 16400: archive({spaced_name: new_spaced.content()})},
        chunk,
    )
    assert laid_over(before, files, writer) == {
        TABLE: new.laid_over(old, None),
        SPACED: new_spaced.laid_over(spaced, limit),
        FREE_SPACE: free_space[1],
        PLAIN: plain[1],
        LARGE: b"logged\n" * 1001,
        b"base/5/16386": old,
    }
    assert files[-1].kind is FileKind.ATTACHMENT
    assert files[-1].size == len(b"the server's manifest")


def test_what_is_as_before_is_not_written() -> None:
    pages = bytes(range(256)) * 32 * 600  # more than a frame and a buffer hold
    before = {FREE_SPACE: pages, PLAIN: b"same", LARGE: pages}
    files, writer = receive(parent_of(before, {}), {None: archive(before)})
    by_path = {file.path: file for file in files}
    assert all(by_path[path].kept == len(before[path]) for path in before)
    assert {file for file, _, _ in writer.wrote} == {len(files) - 1}  # the manifest


def test_of_a_file_that_grew_the_new_end_is_written() -> None:
    pages = bytes(range(256)) * 32 * 600
    before, after = {LARGE: pages}, {LARGE: pages + b"more"}
    files, writer = receive(parent_of(before, {}), {None: archive(after)})
    assert files[0].kept == len(pages)
    assert sum(len(data) for number, _, data in writer.wrote if number == 0) < 1 << 21
    assert laid_over(before, files, writer) == after


def test_a_file_with_nothing_in_common_needs_no_parent() -> None:
    before, after = {LARGE: b"a" * 9000}, {LARGE: b"b" * 9000}
    files, writer = receive(parent_of(before, {}), {None: archive(after)})
    assert files[0].kept == 0
    assert laid_over({}, files, writer) == after


def test_pages_are_not_cut_in_two() -> None:
    pages = bytes(range(256)) * 32 * 50
    _, writer = receive(None, {None: archive({TABLE: pages + b"torn"})})
    parts = [(at, len(data)) for number, at, data in writer.wrote if number == 0]
    assert sum(length for _, length in parts) == len(pages) + 4
    assert all(at % PAGE == 0 for at, _ in parts)
    assert [length % PAGE for _, length in parts if length % PAGE] == [4]


def test_changes_to_what_the_parent_lacks_are_refused() -> None:
    sent = {b"base/5/INCREMENTAL.16384": Incremental(1, {}).content()}
    with pytest.raises(
        PostgresRefused, match=r"base/5/16384, which backup .* not have"
    ):
        receive(parent_of({PLAIN: b""}, {}), {None: archive(sent)})


def test_an_archive_that_ends_too_soon_is_refused() -> None:
    sent = archive({b"base/5/INCREMENTAL.16384": Incremental(1, {}).content()})
    for length in (600, 515, 400):
        with pytest.raises(PostgresRefused, match="ended inside a file"):
            receive(parent_of({TABLE: bytes(PAGE)}, {}), {None: sent[:length]})


def test_in_a_full_backup_a_name_is_only_a_name() -> None:
    sent = {b"base/5/INCREMENTAL.16384": b"somebody's own", b"INCREMENTAL.x": b"other"}
    files, writer = receive(None, {None: archive(sent)})
    assert laid_over({}, files, writer) == sent


def test_a_file_that_shrank_keeps_no_more_than_it_has() -> None:
    pages = bytes(range(256)) * 32 * 600
    before, after = {LARGE: pages}, {LARGE: pages[:3_000_000]}
    files, writer = receive(parent_of(before, {}), {None: archive(after)})
    assert files[0].kept == files[0].size == 3_000_000
    assert laid_over(before, files, writer) == after
