"""What every store must do; `drkit.protocols.Storage` says it in words."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from drkit.errors import ObjectExists, ObjectNotFound, StorageError, TooLong

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.protocols import Storage

LARGE = 64 << 20

REFUSED = [
    "",
    "/",
    "/absolute",
    "trailing/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/.",
    "a\\b",
    "a\nb",
    "a\0b",
    "a b",
    "a+b",
    "ä",
    "a/\u2024\u2024/b",
    "x" * 201,
    "/".join(["x" * 100] * 6),
]


def names(storage: Storage, prefix: str) -> list[str]:
    return [info.name for info in storage.list(prefix)]


def outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except StorageError as error:
        return type(error).__name__
    return "done"


def test_what_was_put_comes_back(storage: Storage) -> None:
    storage.put("production/log/0000000000", b"first entry")
    assert storage.get("production/log/0000000000") == b"first entry"
    assert storage.size("production/log/0000000000") == 11


def test_a_name_is_created_once(storage: Storage) -> None:
    storage.put("a/b", b"first")
    for second in (b"second", b"first", b""):
        with pytest.raises(ObjectExists, match="a/b"):
            storage.put("a/b", second)
    assert storage.get("a/b") == b"first"


def test_of_eight_racing_puts_one_wins(storage: Storage) -> None:
    for number in range(10):
        name = f"race/{number}"
        start = threading.Barrier(8)

        def put(content: bytes, name: str = name, start: threading.Barrier = start):
            start.wait()
            return outcome(lambda: storage.put(name, content))

        contents = [bytes([65 + writer]) * 20_000 for writer in range(8)]
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(put, contents))
        assert sorted(outcomes) == ["ObjectExists"] * 7 + ["done"]
        assert storage.get(name) == contents[outcomes.index("done")]


def test_empty_object(storage: Storage) -> None:
    storage.put("empty", b"")
    assert storage.get("empty") == b""
    assert storage.get("empty", 0, 0) == b""
    assert storage.size("empty") == 0
    assert [tuple(info) for info in storage.list("")] == [("empty", 0)]
    with pytest.raises(ObjectExists):
        storage.put("empty", b"")


def test_largest_pack(storage: Storage) -> None:
    content = os.urandom(1 << 20) * 64
    storage.put("pack", content)
    assert storage.size("pack") == LARGE
    assert storage.get("pack") == content
    assert storage.get("pack", LARGE - 10) == content[-10:]
    assert storage.get("pack", 12_345_678, 2 << 20) == content[12_345_678:][: 2 << 20]


def test_an_object_that_is_too_long_is_not_read(storage: Storage) -> None:
    storage.put("a/b", b"0123456789")
    for limit in (10, 11):
        assert storage.get("a/b", limit=limit) == b"0123456789"
    for limit in (0, 9):
        with pytest.raises(TooLong, match=r"a/b .*10 bytes"):
            storage.get("a/b", limit=limit)
    # who asks for a part gets no more than that
    assert storage.get("a/b", 2, 3, limit=3) == b"234"
    with pytest.raises(ObjectNotFound):
        storage.get("a/c", limit=10)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 10, b"0123456789"),
        (0, 1, b"0"),
        (3, 4, b"3456"),
        (9, 1, b"9"),
        (7, None, b"789"),
        (10, None, b""),
        (10, 0, b""),
        (0, 0, b""),
        (4, 0, b""),
    ],
)
def test_ranges(
    storage: Storage, offset: int, length: int | None, expected: bytes
) -> None:
    storage.put("digits", b"0123456789")
    assert storage.get("digits", offset, length) == expected


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 11), (9, 2), (10, 1), (11, None), (11, 0), (5000, 5), (-1, None), (0, -1)],
)
def test_fewer_bytes_than_asked_for_are_an_error(
    storage: Storage, offset: int, length: int | None
) -> None:
    storage.put("digits", b"0123456789")
    with pytest.raises(StorageError, match="digits") as caught:
        storage.get("digits", offset, length)
    assert not isinstance(caught.value, ObjectNotFound)
    assert not caught.value.transient


def test_absent_objects(storage: Storage) -> None:
    storage.put("there/too", b"x")
    for name in ("absent", "there/absent", "absent/deep/down", "there", "there/too/x"):
        for ask in (
            lambda name=name: storage.get(name),
            lambda name=name: storage.get(name, 3, 5),
            lambda name=name: storage.get(name, 0, 0),
            lambda name=name: storage.size(name),
        ):
            with pytest.raises(ObjectNotFound, match=name) as caught:
                ask()
            assert not caught.value.transient


def test_listing_is_in_byte_order_of_whole_names(storage: Storage) -> None:
    expected = sorted(
        ["a", "a-b", "a.b/c", "a/b", "b/a/c", "b/a-/c", "b/a.c", "b/a0", "B", "_x", "0"]
        + [f"many/{number}" for number in range(30)]
    )
    expected.remove("a")  # on a file system `a` can't be an object beside `a/b`
    for name in reversed(expected):
        storage.put(name, name.encode())
    assert [tuple(info) for info in storage.list("")] == [
        (name, len(name)) for name in expected
    ]


def test_listing_by_prefix(storage: Storage) -> None:
    for name in ("a/b1", "a/b2/c", "a/b2/d", "a/c", "ab", "b"):
        storage.put(name, b"")
    assert names(storage, "a/") == ["a/b1", "a/b2/c", "a/b2/d", "a/c"]
    assert names(storage, "a") == ["a/b1", "a/b2/c", "a/b2/d", "a/c", "ab"]
    assert names(storage, "a/b") == ["a/b1", "a/b2/c", "a/b2/d"]
    assert names(storage, "a/b2/") == ["a/b2/c", "a/b2/d"]
    assert names(storage, "a/b2/d") == ["a/b2/d"]
    assert names(storage, "nothing/here") == []
    assert names(storage, "a/c/") == []


def test_long_listing(storage: Storage) -> None:
    expected = [f"wal/{number:08X}" for number in range(1004)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: storage.put(name, b"w"), expected))
    assert names(storage, "wal/") == expected


def test_delete_is_idempotent(storage: Storage) -> None:
    storage.put("a/b", b"x")
    storage.put("a/c", b"y")
    storage.delete("a/b")
    storage.delete("a/b")
    storage.delete("never/was")
    storage.delete("a")
    with pytest.raises(ObjectNotFound):
        storage.get("a/b")
    assert names(storage, "") == ["a/c"]


def test_a_deleted_name_can_be_put(storage: Storage) -> None:
    storage.put("wal/1", b"old")
    storage.delete("wal/1")
    storage.put("wal/1", b"new")
    assert storage.get("wal/1") == b"new"


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_refused_names(storage: Storage, name: str) -> None:
    for ask in (
        lambda: storage.put(name, b"x"),
        lambda: storage.get(name),
        lambda: storage.size(name),
        lambda: storage.delete(name),
    ):
        with pytest.raises(StorageError, match="refused the object name") as caught:
            ask()
        assert type(caught.value) is StorageError
        assert not caught.value.transient
        assert caught.value.hint
    assert names(storage, "") == []


@pytest.mark.parametrize("prefix", ["/", "/a", "..", "a/../", "a//", "a\\", "*", "ä"])
def test_refused_prefixes(storage: Storage, prefix: str) -> None:
    with pytest.raises(StorageError, match="refused the object name"):
        storage.list(prefix)


@pytest.mark.parametrize(
    "name", ["x" * 200, "/".join(["x" * 127] * 4), ".hidden", "...", "-", "a.B_c-9"]
)
def test_allowed_names(storage: Storage, name: str) -> None:
    storage.put(name, b"x")
    assert storage.get(name) == b"x"
    assert names(storage, "") == [name]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(storage: Storage, kind: Callable[[bytes], bytes]) -> None:
    content = os.urandom(300_000)
    storage.put("buffer", kind(content))
    assert storage.get("buffer") == content


def test_part_of_a_reused_buffer(storage: Storage) -> None:
    buffer = bytearray(b"0123456789" * 1000)
    storage.put("part", memoryview(buffer)[5:5005])
    buffer[:] = bytes(len(buffer))
    assert storage.get("part") == b"5678901234" * 500


def test_concurrent_puts_and_gets(storage: Storage) -> None:
    contents = {f"o/{number}": os.urandom(1 + 997 * number) for number in range(40)}

    def put_and_get(name: str) -> bool:
        storage.put(name, contents[name])
        return storage.get(name) == contents[name]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put_and_get, contents))
    assert {i.name: i.size for i in storage.list("o/")} == {
        name: len(content) for name, content in contents.items()
    }


def test_nobody_sees_a_part_of_an_object(storage: Storage) -> None:
    size = 24 << 20
    content = os.urandom(1 << 20) * 24
    finished, looked_before, looked_after = (threading.Event() for _ in range(3))
    seen: set[int] = set()

    def watch() -> None:
        while not finished.is_set():
            try:
                seen.update({storage.size("large"), len(storage.get("large"))})
                looked_after.set()
            except ObjectNotFound:
                looked_before.set()
            seen.update(info.size for info in storage.list(""))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert looked_before.wait(30)
        storage.put("large", content)
        assert looked_after.wait(30)
    finally:
        finished.set()
        watcher.join()
    assert seen == {size}


def test_nothing_is_hidden_of_what_was_not_deleted(storage: Storage) -> None:
    storage.put("a/b", b"content")
    assert storage.hidden("a/") == []
    assert storage.beneath("a/b", 9) == []
