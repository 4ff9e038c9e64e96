"""The local driver on full and broken disks, and killed in the middle."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from drkit.errors import (
    DrkitError,
    NoSpace,
    StorageError,
)
from drkit.storage import oserrors
from drkit.storage.local import LocalStorage
from tests.storage.localtools import (
    listed,
    mounted,
    only_root,
    root_of,
    run_child,
    start_child,
    start_racer,
    temporaries,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage.create(tmp_path / "repository")


# -- full and broken disks


@only_root
def test_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m"):
        storage = LocalStorage.create(tmp_path / "disk")
        storage.put("kept", b"k" * 1000)
        with pytest.raises(NoSpace, match=r"disk has no room .*\d+ bytes") as caught:
            storage.put("large", bytes(2 << 20))
        assert "object large" in str(caught.value)
        assert caught.value.hint
        assert temporaries(storage) == []
        assert listed(storage) == ["kept"]
        storage.put("small", b"s" * 1000)
        assert storage.get("kept") == b"k" * 1000


@only_root
def test_no_more_inodes(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m,nr_inodes=12"):
        storage = LocalStorage.create(tmp_path / "disk")
        acknowledged = []
        with pytest.raises(NoSpace, match=r"[01] files are free"):  # noqa: PT012
            for number in range(20):
                storage.put(f"d{number}/o", b"x")
                acknowledged.append(f"d{number}/o")
        assert temporaries(storage) == []
        assert listed(storage) == sorted(acknowledged)


@only_root
def test_read_only_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=1m"):
        storage = LocalStorage.create(disk)
        storage.put("a", b"x")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for ask in (lambda: storage.put("b", b"x"), lambda: storage.delete("a")):
            with pytest.raises(StorageError, match="Read-only") as caught:
                ask()
            assert "read-only" in (caught.value.hint or "")
        assert storage.get("a") == b"x"


def test_file_size_limit(storage: LocalStorage) -> None:
    """The system takes a part of the write; the rest fails."""
    code, said = run_child(
        storage,
        f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))
print(attempt(lambda: storage.put("large", bytes(200_000))))
storage.put("small", bytes(100_000))
""",
    )
    assert code == 0
    assert "StorageError transient=False: writing object large" in said
    assert temporaries(storage) == []
    assert [tuple(info) for info in storage.list("")] == [("small", 100_000)]


def test_failed_fsync_is_a_lost_object_and_not_tried_again(
    storage: LocalStorage,
) -> None:
    code, said = run_child(
        storage,
        """
from drkit.storage.retry import RetryingStorage
from tests.faults import FaultyStorage
from tests.storage.clock import SleepingClock
counted = FaultyStorage(storage)
retrying = RetryingStorage(counted, SleepingClock())
seccomp.fail("fsync", errno.EIO)
print(attempt(lambda: retrying.put("a/b", b"x")), counted.calls)
""",
    )
    assert code == 0
    assert "StorageError transient=False: writing object a/b" in said
    assert "Input/output error (the disk failed" in said
    assert "Counter({'put': 1})" in said
    assert temporaries(storage) == []
    assert listed(storage) == []


def test_a_delete_is_only_done_when_it_is_durable(storage: LocalStorage) -> None:
    storage.put("a/b", b"x")
    script = """
seccomp.fail("fsync", errno.EIO)
print(attempt(lambda: storage.delete("a/b")))
"""
    for _ in range(2):  # the second time there is only the directory to sync
        _, said = run_child(storage, script)
        assert "StorageError transient=False: deleting object a/b" in said
    storage.delete("a/b")


def test_unreadable_disk_block(storage: LocalStorage) -> None:
    storage.put("a", b"x")
    _, said = run_child(
        storage,
        """
seccomp.fail("pread64", errno.EIO)
print(attempt(lambda: storage.get("a")))
""",
    )
    assert "StorageError transient=False: reading object a in" in said
    assert "Input/output error" in said


def test_file_system_without_hard_links(storage: LocalStorage) -> None:
    code, said = run_child(
        storage,
        """
seccomp.fail("linkat", errno.EPERM)
print(attempt(lambda: storage.put("a/b", b"first")))
print(attempt(lambda: storage.put("a/b", b"second")))
""",
    )
    assert code == 0
    first, second = said.splitlines()
    assert first == "None"
    assert second.startswith("ObjectExists")
    assert storage.get("a/b") == b"first"
    assert temporaries(storage) == []


def test_file_system_that_can_only_overwrite(storage: LocalStorage) -> None:
    code, said = run_child(
        storage,
        """
seccomp.fail("linkat", errno.EOPNOTSUPP)
seccomp.fail("renameat2", errno.EINVAL)
print(attempt(lambda: storage.put("a", b"x")))
""",
    )
    assert code == 0
    assert "neither hard links nor RENAME_NOREPLACE" in said
    assert listed(storage) == []
    assert temporaries(storage) == []


# -- killed processes

PUT_FOREVER = """
import hashlib, itertools
print("ready", flush=True)
for number in itertools.count():
    name = f"{sys.argv[2]}/{number % 7}/{number}"
    storage.put(name, hashlib.sha256(name.encode()).digest() * 4000)
    print(name, flush=True)
"""


def expected_content(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest() * 4000


def test_kill_9_at_any_moment(storage: LocalStorage) -> None:
    moments = random.Random(20260115)
    acknowledged: set[str] = set()
    for turn in range(12):
        with start_child(storage, PUT_FOREVER, f"turn{turn}") as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0, 0.08))
            child.kill()
            lines = child.stdout.read().splitlines(keepends=True)
        assert child.returncode == -signal.SIGKILL
        acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
    found = set(listed(storage))
    assert len(acknowledged) > 12
    assert acknowledged <= found
    assert len(found - acknowledged) <= 12  # the one that each child was about
    for name in found:
        assert storage.get(name) == expected_content(name)


@pytest.mark.parametrize(
    ("call", "visible"),
    [("mkdirat", 0), ("write", 0), ("fsync", 0), ("linkat", 0), ("unlinkat", 1)],
)
def test_death_at_each_step_of_a_put(
    storage: LocalStorage, call: str, visible: int
) -> None:
    storage.put("before", b"x")
    code, _ = run_child(
        storage,
        f"""
seccomp.kill_at({call!r})
storage.put("a/b", bytes(100_000))
""",
    )
    assert code == -signal.SIGSYS
    assert listed(storage) == ["a/b", "before"][1 - visible :]
    if visible:
        assert storage.get("a/b") == bytes(100_000)
    else:
        storage.put("a/b", b"again")
    assert len(temporaries(storage)) == (call != "mkdirat")


def test_sweep_removes_old_leftovers_only(storage: LocalStorage) -> None:
    run_child(storage, "seccomp.kill_at('unlinkat'); storage.put('old', b'content')")
    [old] = temporaries(storage)
    day_before_yesterday = time.time() - 2 * 86_400
    os.utime(root_of(storage) / "+tmp" / old, (day_before_yesterday,) * 2)
    run_child(storage, "seccomp.kill_at('linkat'); storage.put('young', b'content')")
    [young] = set(temporaries(storage)) - {old}
    assert storage.sweep_temporary(older_than_seconds=86_400) == 1
    assert temporaries(storage) == [young]
    assert storage.get("old") == b"content"
    assert storage.sweep_temporary(older_than_seconds=-1) == 1
    assert temporaries(storage) == []


def test_racing_processes(storage: LocalStorage) -> None:
    script = """
sys.stdin.readline()
for number in range(100):
    if attempt(lambda: storage.put(f"race/{number}", sys.argv[2].encode())) is None:
        print(number)
"""
    children = [start_racer(storage, script, str(racer)) for racer in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.close()
    won: dict[int, str] = {}
    for racer, child in enumerate(children):
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                assert int(line) not in won
                won[int(line)] = str(racer)
    assert sorted(won) == list(range(100))
    for number, racer_name in won.items():
        assert storage.get(f"race/{number}") == racer_name.encode()


def test_every_error_has_its_place_in_the_tree() -> None:
    for code in errno.errorcode:
        error = oserrors.explain(OSError(code, "x"), "testing", "/r", reading=False)
        assert isinstance(error, DrkitError)
        assert "testing" in str(error)
        assert not getattr(error, "transient", False)
