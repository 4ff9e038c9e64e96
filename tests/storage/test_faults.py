"""The fault injector does what tests believe that it does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drkit.errors import ObjectNotFound, StorageError
from drkit.storage.local import LocalStorage
from drkit.storage.memory import MemoryStorage
from tests.faults import ANY, FaultyStorage, unavailable


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage(MemoryStorage())


def test_failed_calls_do_nothing_and_lost_replies_did(storage: FaultyStorage) -> None:
    storage.fail("put", unavailable(), at=1)
    storage.lose_reply("put", unavailable(), at=2)
    for name in ("a", "b"):
        with pytest.raises(StorageError):
            storage.put(name, b"x")
    storage.put("c", b"x")
    assert [info.name for info in storage.list("")] == ["b", "c"]
    assert storage.calls == {"put": 3, "list": 1}
    assert storage.names[0] == ("put", "a")


def test_faults_of_one_name_and_of_any_call(storage: FaultyStorage) -> None:
    storage.put("a", b"x")
    storage.put("b", b"x")
    storage.fail("get", unavailable(), times=99, name="b")
    assert storage.get("a") == b"x"
    with pytest.raises(StorageError):
        storage.get("b")
    storage.fail(ANY, ObjectNotFound("a"), at=5)
    with pytest.raises(ObjectNotFound):
        storage.size("a")
    storage.heal()
    assert storage.get("b") == b"x"


def test_lies(storage: FaultyStorage) -> None:
    storage.put("a", b"0123456789")
    storage.put("b", b"")
    storage.shorten_bodies(3)
    assert storage.get("a", 2, 5) == b"23"
    storage.ignore_ranges()
    assert storage.get("a", 2, 5) == b"0123456789"
    storage.change_bodies(lambda body: body[::-1])
    assert storage.get("a") == b"9876543210"
    storage.hide(lambda name: name == "a")
    assert [info.name for info in storage.list("")] == ["b"]


@pytest.mark.parametrize(
    ("after", "expected"), [("False", ["a"]), ("True", ["a", "b"])]
)
def test_sudden_death(tmp_path: Path, after: str, expected: list[str]) -> None:
    script = f"""
import sys
from drkit.storage.local import LocalStorage
from tests.faults import FaultyStorage
storage = FaultyStorage(LocalStorage(sys.argv[1]))
storage.kill(at=3, after={after})
storage.put("a", b"x")
storage.get("a")
storage.put("b", b"y")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL
    found = [info.name for info in LocalStorage(tmp_path).list("")]
    assert found == expected
