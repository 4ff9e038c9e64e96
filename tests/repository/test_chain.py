"""Chains of backups: composed, read back, and refused where one link is not right."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.errors import AttemptFenced, Corrupt, KeyUnavailable
from drkit.model.head import ParentRef
from drkit.model.log import ExpireIntent
from drkit.model.manifest import DAMAGED, Manifest
from drkit.repository.chain import ChainContent, lineage, read_chain, read_parent
from drkit.repository.unpacking import PackReader
from tests.builders import World, back_up, replace_object, rows_of
from tests.chains import Changed, back_up_over, laid_over, read_files, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.model.log import Commit
    from drkit.repository.repository import Repository
    from tests.chains import Files

PAGE = 8192
ONE, TWO = os.urandom(PAGE), os.urandom(PAGE)


def chain(
    lie: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> tuple[World, Repository, list[Commit], Files]:
    """A full and two incrementals; the last one may lie."""
    world = World()
    repository = world.repository()
    files: Files = {b"a": ONE * 4, b"b": TWO * 2, b"base": None, b"c": b"whole"}
    commits = [back_up(repository, files)]
    for changed, gone, what in (
        ({b"a": Changed(4 * PAGE, 4 * PAGE, ((PAGE, TWO),))}, (b"c",), None),
        (
            {
                b"a": Changed(3 * PAGE, 2 * PAGE, ((2 * PAGE, TWO),)),
                b"d": whole(b"new"),
            },
            (),
            lie,
        ),
    ):
        commits.append(
            back_up_over(
                repository, commits[-1], changed, gone=gone, lie=what or (lambda m: m)
            )
        )
        files = laid_over(files, changed, gone)
    return world, repository, commits, files


def test_a_chain_reads_back_from_all_its_backups() -> None:
    _, repository, commits, files = chain()
    page_map = read_chain(repository, commits[-1])
    assert read_files(repository, page_map) == files
    assert [one.head.label for one in page_map.layers] == [
        one.backup.label for one in commits
    ]
    assert page_map.head == page_map.layers[-1].head
    number = page_map.find(b"a")
    assert number is not None
    assert page_map.pieces_of(number)["layer"].tolist() == [0, 1, 2]


def test_every_link_of_a_chain_is_a_backup_of_its_own() -> None:
    _, repository, commits, _ = chain()
    first, second = (
        read_files(repository, read_chain(repository, one)) for one in commits[:2]
    )
    assert (first[b"a"], second[b"a"]) == (ONE * 4, ONE + TWO + ONE * 2)
    assert (b"c" in first, b"c" in second) == (True, False)


def test_a_chain_goes_from_the_full_to_the_backup() -> None:
    _, repository, commits, _ = chain()
    state = repository.log.state
    assert lineage(state, commits[2]) == commits
    assert lineage(state, commits[0]) == commits[:1]


def test_a_chain_without_its_beginning_is_refused() -> None:
    """The log does not let it happen; if it does, nothing is made up."""
    _, repository, commits, _ = chain()
    with pytest.raises(AttemptFenced, match="has a child that stays"):
        repository.log.append(lambda _: ExpireIntent((commits[0].backup.label,)))
    state = repository.log.state
    del state.backups[commits[0].backup.label]
    with pytest.raises(Corrupt, match="has expired"):
        lineage(state, commits[2])


def naming(label: str | None = None, sha256: str | None = None) -> object:
    def lie(manifest: Manifest) -> Manifest:
        true = manifest.head.parent
        assert true is not None
        told = ParentRef(label or true.label, sha256 or true.sha256)
        return replace(manifest, head=replace(manifest.head, parent=told))

    return lie


@pytest.mark.parametrize(
    "lie", [naming(sha256="ab" * 32), naming(label="20200101-000000-full")]
)
def test_a_manifest_that_names_another_parent_is_refused(
    lie: Callable[[Manifest], Manifest],
) -> None:
    _, repository, commits, _ = chain(lie)
    with pytest.raises(Corrupt, match="names another parent") as caught:
        read_chain(repository, commits[-1])
    assert commits[-1].manifest.name in str(caught.value)
    read_chain(repository, commits[1])


def keeping_more(manifest: Manifest) -> Manifest:
    files = manifest.files.copy()
    files["size"], files["kept"] = 9 * PAGE, 9 * PAGE
    return replace(manifest, files=files)


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        (lambda manifest: replace(manifest, gone=(b"never",)), "never was there"),
        (lambda manifest: replace(manifest, gone=(b"c",)), "never was there"),
        (keeping_more, "keeps more"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(
    lie: Callable[[Manifest], Manifest], what: str
) -> None:
    _, repository, commits, _ = chain(lie)
    with pytest.raises(Corrupt, match=what) as caught:
        read_chain(repository, commits[-1])
    assert commits[-1].backup.label in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("link", [0, 1, 2])
def test_a_manifest_of_the_chain_that_is_missing_or_changed_is_named(link: int) -> None:
    world, repository, commits, _ = chain()
    name = commits[link].manifest.name
    good = world.storage.get(name)
    replace_object(world.storage, name, good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(Corrupt, match=name):
        read_chain(repository, commits[-1])
    other = world.storage.get(commits[link - 1].manifest.name)
    replace_object(world.storage, name, other)
    with pytest.raises(Corrupt, match=name):
        read_chain(repository, commits[-1])
    world.storage.delete(name)
    with pytest.raises(Corrupt, match=f"{name} is missing"):
        read_chain(repository, commits[-1])


@pytest.mark.parametrize("purpose", ["catalog", "backup"])
def test_a_chain_needs_the_keys_of_all_its_backups(purpose: str) -> None:
    world, _, commits, _ = chain()
    layout = world.repository().layout
    begun = world.repository().log.state.attempts[commits[0].attempt].begin
    key_id = dict(begun.keys)[purpose]
    for info in list(world.storage.list(layout.dek(purpose, bytes.fromhex(key_id)))):
        world.storage.delete(info.name)
    fresh = world.repository()  # has no key in memory
    with pytest.raises(KeyUnavailable, match=key_id):
        read_files(fresh, read_chain(fresh, commits[-1]))


def test_a_damaged_pack_of_a_parent_is_named_unless_nothing_in_it_is_needed() -> None:
    world, repository, commits, files = chain()
    name = repository.layout.pack(commits[0].backup.label, commits[0].attempt, 0)
    replace_object(world.storage, name, world.storage.get(name)[:-30])
    page_map = read_chain(repository, commits[-1])
    with pytest.raises(Corrupt, match=name):
        read_files(repository, page_map)
    anew = {path: whole(one) for path, one in files.items() if one is not None}
    last = back_up_over(repository, commits[-1], anew)
    assert read_files(repository, read_chain(repository, last)) == files


# -- what an incremental is compared with


def content_of(
    repository: Repository, commit: Commit, lost: dict[str, set[int]] | None = None
) -> ChainContent:
    return ChainContent(repository, read_parent(repository, commit), lost or {})


def number_of(content: ChainContent, path: bytes) -> int:
    number = content.chain.find(path)
    assert number is not None
    return number


def test_a_piece_is_unchanged_by_its_digest_and_only_as_a_whole() -> None:
    world, repository, commits, _ = chain()
    content = content_of(repository, commits[1])
    pieces = content.chain.pieces_of(number_of(content, b"a"))
    assert pieces["length"].tolist() == [PAGE, PAGE, 2 * PAGE]
    first, middle, rest = pieces
    for info in list(world.storage.list("alpha/backups/")):
        world.storage.delete(info.name)  # nothing is fetched
    assert content.unchanged(middle, TWO)
    assert content.unchanged(middle, memoryview(bytearray(TWO)))
    assert not content.unchanged(middle, ONE)
    assert not content.unchanged(middle, TWO[:-1])
    assert not content.unchanged(first, ONE)  # it was cut: its digest is of more
    assert not content.unchanged(rest, ONE * 2)


def test_equal_content_of_two_backups_has_digests_of_its_own() -> None:
    repository = World().repository()
    full = back_up(repository, {b"a": ONE})
    again = back_up_over(repository, full, {b"b": whole(ONE)})
    content = content_of(repository, again)
    digests = [one.runs["digest"][0].tobytes() for one in content.chain.layers]
    assert digests[0] != digests[1]
    for path in (b"a", b"b"):
        (piece,) = content.chain.pieces_of(number_of(content, path))
        assert content.unchanged(piece, ONE)


def test_lost_frames_and_damaged_pages_are_stretches_of_files() -> None:
    def damaged(manifest: Manifest) -> Manifest:
        rows = rows_of(DAMAGED, (manifest.paths.index(b"a"), 2))
        return replace(manifest, damaged=rows)

    _, repository, commits, _ = chain(damaged)
    content = content_of(repository, commits[2])
    assert content.damaged(number_of(content, b"a")) == [(2 * PAGE, 3 * PAGE)]
    assert content.damaged(number_of(content, b"b")) == []
    lost = {commits[0].attempt: {0}, "f" * 32: {0}}
    content = content_of(repository, commits[2], lost)
    assert content.damaged(number_of(content, b"a")) == [
        (0, PAGE),
        (2 * PAGE, 3 * PAGE),
    ]
    assert content.damaged(number_of(content, b"b")) == [(0, 2 * PAGE)]
    assert content.damaged(number_of(content, b"d")) == []


def test_a_damaged_page_that_was_stored_anew_is_none_any_more() -> None:
    def damaged(manifest: Manifest) -> Manifest:
        rows = rows_of(DAMAGED, (manifest.paths.index(b"a"), 0))
        return replace(manifest, damaged=rows)

    _, repository, commits, _ = chain(damaged)
    above = {b"a": Changed(3 * PAGE, 3 * PAGE, ((0, TWO),))}
    newest = back_up_over(repository, commits[-1], above)
    content = content_of(repository, newest)
    assert content.damaged(number_of(content, b"a")) == []


# -- at random


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[dict[bytes, Changed], tuple[bytes, ...]]]:
    """Three incrementals over a full of files `a`, `b` and `c` of 40 bytes."""
    sizes = dict.fromkeys((b"a", b"b", b"c"), 40)
    found = []
    for _ in range(3):
        gone = tuple(sorted(path for path in sizes if draw(st.integers(0, 4)) == 0))
        for path in gone:
            del sizes[path]
        changed = {}
        for path in (b"a", b"b", b"c"):
            if path in gone or draw(st.booleans()):
                continue
            size = draw(st.integers(0, 50))
            kept = draw(st.integers(0, min(size, sizes.get(path, 0))))
            cuts = sorted(draw(st.sets(st.integers(0, size), max_size=4)))
            runs = tuple(
                (start, os.urandom(end - start))
                for start, end in zip(cuts[::2], cuts[1::2], strict=False)
            )
            changed[path] = Changed(size, kept, runs)
            sizes[path] = size
        found.append((changed, gone))
    return found


@given(steps(), st.data())
@settings(max_examples=25, deadline=None)
def test_random_chains_restore_whole_and_in_part(
    steps: list[tuple[dict[bytes, Changed], tuple[bytes, ...]]], data: st.DataObject
) -> None:
    repository = World().repository()
    files: Files = {path: os.urandom(40) for path in (b"a", b"b", b"c")}
    commit = back_up(repository, files)
    for changed, gone in steps:
        commit = back_up_over(repository, commit, changed, gone=gone)
        files = laid_over(files, changed, gone)
    page_map = read_chain(repository, commit)
    assert read_files(repository, page_map) == files
    reader = PackReader(repository, page_map)
    for number, path in enumerate(page_map.paths):
        content = files[path] or b""
        assert reader.file(number) == content
        start = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, len(content) - start))
        assert reader.read(number, start, length) == content[start : start + length]
