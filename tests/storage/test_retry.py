"""What is repeated, how often, and how an unclear put is settled."""

from __future__ import annotations

import random

import pytest

from drkit.errors import (
    NoSpace,
    ObjectExists,
    ObjectNotFound,
    RepositoryMissing,
    StorageError,
)
from drkit.storage.memory import MemoryStorage
from drkit.storage.retry import RetryingStorage
from tests.faults import FOREVER, FaultyStorage, unavailable
from tests.storage.clock import SleepingClock


@pytest.fixture
def faulty() -> FaultyStorage:
    return FaultyStorage(MemoryStorage())


@pytest.fixture
def clock() -> SleepingClock:
    return SleepingClock()


@pytest.fixture
def storage(faulty: FaultyStorage, clock: SleepingClock) -> RetryingStorage:
    jitter = random.Random(1).random
    return RetryingStorage(faulty, clock, attempts=5, deadline=60, jitter=jitter)


def test_every_method_is_repeated(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    for method in ("put", "get", "size", "list", "delete"):
        faulty.fail(method, unavailable(), times=2)
    storage.put("a", b"content")
    assert storage.get("a", 1, 3) == b"ont"
    assert storage.size("a") == 7
    assert [info.name for info in storage.list("")] == ["a"]
    storage.delete("a")
    assert set(faulty.calls.values()) == {3}
    assert storage.url == faulty.url


def test_pauses_grow_and_vary(
    storage: RetryingStorage, faulty: FaultyStorage, clock: SleepingClock
) -> None:
    faulty.fail("get", unavailable(), times=FOREVER)
    with pytest.raises(StorageError):
        storage.get("a")
    assert len(clock.pauses) == 4
    for number, pause in enumerate(clock.pauses):
        longest = 0.25 * 2**number
        assert longest / 2 <= pause <= longest
    assert len({pause / 2**number for number, pause in enumerate(clock.pauses)}) == 4


def test_pauses_have_a_limit(faulty: FaultyStorage, clock: SleepingClock) -> None:
    storage = RetryingStorage(faulty, clock, attempts=20, deadline=1e9)
    faulty.fail("get", unavailable(), times=FOREVER)
    with pytest.raises(StorageError, match="after 20 attempts"):
        storage.get("a")
    assert 7.5 <= max(clock.pauses) <= 15


def test_giving_up_says_how_often_and_how_long(
    storage: RetryingStorage, faulty: FaultyStorage, clock: SleepingClock
) -> None:
    cause = StorageError("503 SlowDown", hint="wait", transient=True)
    faulty.fail("size", cause, times=FOREVER)
    with pytest.raises(StorageError) as caught:
        storage.size("a")
    expected = f"503 SlowDown; gave up after 5 attempts in {clock.passed:.1f} s"
    assert str(caught.value) == expected
    assert caught.value.hint == "wait"
    assert caught.value.__cause__ is cause
    assert faulty.calls["size"] == 5


def test_no_attempt_begins_after_the_deadline(
    faulty: FaultyStorage, clock: SleepingClock
) -> None:
    storage = RetryingStorage(faulty, clock, attempts=1000, deadline=10)
    faulty.fail("get", unavailable(), times=FOREVER)
    faulty.call("get", lambda: clock.sleep(3), times=FOREVER)
    with pytest.raises(StorageError, match="gave up after"):
        storage.get("a")
    assert faulty.calls["get"] < 1000
    assert clock.passed < 10 + 3


@pytest.mark.parametrize(
    "error",
    [
        StorageError("EIO"),
        NoSpace("full"),
        RepositoryMissing("gone"),
        ObjectNotFound("absent"),
        KeyboardInterrupt(),
    ],
)
def test_what_is_not_transient_is_not_repeated(
    storage: RetryingStorage, faulty: FaultyStorage, error: BaseException
) -> None:
    for method, ask in (
        ("get", lambda: storage.get("a")),
        ("put", lambda: storage.put("a", b"x")),
        ("delete", lambda: storage.delete("a")),
        ("list", lambda: list(storage.list(""))),
    ):
        faulty.fail(method, error)
        with pytest.raises(type(error)) as caught:
            ask()
        assert caught.value is error
        assert faulty.calls[method] == 1


def test_a_taken_name_is_not_read_at_the_first_try(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    storage.put("a", b"same")
    with pytest.raises(ObjectExists):
        storage.put("a", b"same")
    assert faulty.calls == {"put": 2}


def test_a_lost_reply_is_settled_by_reading(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    faulty.lose_reply("put", unavailable())
    for number, data in enumerate((b"x", bytearray(b"y"), memoryview(b"z"))):
        storage.put(f"a{number}", data)
        assert faulty.inner.get(f"a{number}") == data


@pytest.mark.parametrize("theirs", [b"other", b"ourz", b""])
def test_other_content_after_an_unclear_put_is_taken(
    storage: RetryingStorage, faulty: FaultyStorage, theirs: bytes
) -> None:
    faulty.fail("put", unavailable())
    faulty.call("put", lambda: faulty.inner.put("a", theirs), at=2)
    with pytest.raises(ObjectExists):
        storage.put("a", b"ours")
    assert faulty.inner.get("a") == theirs


def test_reading_back_is_repeated_too(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    faulty.lose_reply("put", unavailable())
    faulty.fail("get", unavailable())
    faulty.fail("size", unavailable())
    storage.put("a", b"content")
    assert faulty.calls == {"put": 4, "size": 3, "get": 2}


def test_when_every_reply_is_lost_the_object_is_looked_for(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    faulty.lose_reply("put", unavailable(), at=5)
    faulty.fail("put", unavailable(), times=4)
    storage.put("a", b"content")
    assert faulty.inner.get("a") == b"content"
    assert faulty.calls["put"] == 5


def test_a_put_that_never_arrived_fails(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    faulty.fail("put", unavailable(), times=FOREVER)
    with pytest.raises(StorageError, match="gave up after 5 attempts"):
        storage.put("a", b"content")
    assert faulty.calls == {"put": 5, "size": 1}


def test_a_put_whose_object_can_not_be_read_back_fails(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    faulty.lose_reply("put", unavailable())
    faulty.fail("size", unavailable(), times=FOREVER)
    with pytest.raises(StorageError, match="gave up after 5 attempts"):
        storage.put("a", b"content")


def test_a_failed_disk_is_not_excused_by_reading(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    """What can be read after a failed fsync may be gone after the next start."""
    faulty.lose_reply("put", StorageError("EIO on fsync"))
    with pytest.raises(StorageError, match="EIO"):
        storage.put("a", b"content")
    assert faulty.calls == {"put": 1}


def test_a_listing_goes_on_where_it_broke(
    storage: RetryingStorage, faulty: FaultyStorage
) -> None:
    names = [f"o/{number:03}" for number in range(50)]
    for name in names:
        storage.put(name, b"")
    faulty.stop_listing(20, unavailable())
    assert [info.name for info in storage.list("o/")] == names
    assert faulty.calls["list"] == 2
