"""A store as it would be after a loss: drills see it, and nobody else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.errors import ObjectNotFound, StorageError
from drkit.storage.memory import MemoryStorage
from drkit.storage.overlay import OverlayStorage

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def below() -> MemoryStorage:
    store = MemoryStorage()
    for name in ("a/kept", "a/gone", "a/damaged"):
        store.put(name, CONTENT)
    return store


@pytest.fixture
def overlay(below: MemoryStorage) -> OverlayStorage:
    return OverlayStorage(below, {"a/gone"}, {"a/damaged"})


def test_what_is_hidden_is_not_there(overlay: OverlayStorage) -> None:
    assert [one.name for one in overlay.list("a/")] == ["a/damaged", "a/kept"]
    with pytest.raises(ObjectNotFound, match="a/gone"):
        overlay.get("a/gone")
    with pytest.raises(ObjectNotFound, match="a/gone"):
        overlay.size("a/gone")


def test_what_is_damaged_has_one_wrong_bit(overlay: OverlayStorage) -> None:
    found = overlay.get("a/damaged")
    assert overlay.size("a/damaged") == len(CONTENT)
    wrong = [at for at in range(len(CONTENT)) if found[at] != CONTENT[at]]
    assert wrong == [len(CONTENT) // 2]
    assert (found[wrong[0]] ^ CONTENT[wrong[0]]).bit_count() == 1


@given(offset=st.integers(0, 1024), length=st.none() | st.integers(0, 1024))
def test_ranges_are_of_the_same_content(offset: int, length: int | None) -> None:
    length = None if length is None else min(length, len(CONTENT) - offset)
    store = MemoryStorage()
    store.put("damaged", CONTENT)
    overlay = OverlayStorage(store, (), {"damaged"})
    whole = overlay.get("damaged")
    end = len(CONTENT) if length is None else offset + length
    assert overlay.get("damaged", offset, length) == whole[offset:end]


def test_nothing_else_changes(overlay: OverlayStorage, below: MemoryStorage) -> None:
    assert overlay.get("a/kept") == CONTENT
    assert overlay.url == below.url
    for name in ("a/kept", "a/gone", "a/damaged"):
        assert below.get(name) == CONTENT


def test_it_can_only_be_read(overlay: OverlayStorage, below: MemoryStorage) -> None:
    with pytest.raises(StorageError, match="may not write"):
        overlay.put("a/new", b"x")
    with pytest.raises(StorageError, match="may not write"):
        overlay.delete("a/kept")
    assert len(list(below.list("a/"))) == 3
