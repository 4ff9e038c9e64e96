"""The local driver: its root, modes and owners, and hostile content."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import (
    ObjectExists,
    ObjectNotFound,
    RepositoryMissing,
    StorageError,
)
from drkit.storage.local import LocalStorage
from tests.storage.localtools import (
    NOBODY,
    listed,
    mounted,
    only_root,
    root_of,
    temporaries,
    unprivileged,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage.create(tmp_path / "repository")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody can reach."""
    with tempfile.TemporaryDirectory(prefix="drkit-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


# -- the root


def test_missing_root_is_no_missing_object(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "nowhere")
    for ask in (
        lambda: storage.get("a"),
        lambda: storage.size("a"),
        lambda: storage.delete("a"),
        lambda: storage.put("a", b""),
        lambda: list(storage.list("")),
        lambda: storage.sweep_temporary(0),
    ):
        with pytest.raises(RepositoryMissing, match="nowhere") as caught:
            ask()
        assert "mount" in (caught.value.hint or "")
    assert not (tmp_path / "nowhere").exists()


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryMissing):
        LocalStorage(tmp_path / "file").get("a")


def test_root_replaced_meanwhile(storage: LocalStorage) -> None:
    storage.put("a", b"x")
    root = root_of(storage)
    root.rename(root.with_name("moved"))
    root.mkdir()
    for ask in (lambda: storage.get("a"), lambda: storage.put("b", b"")):
        with pytest.raises(RepositoryMissing, match="not the directory it was"):
            ask()
    assert os.listdir(root) == []


@only_root
def test_unmounted_meanwhile(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m"):
        storage = LocalStorage.create(tmp_path / "disk")
        storage.put("a", b"x")
    with pytest.raises(RepositoryMissing, match="not the directory it was"):
        storage.get("a")


def test_create_keeps_what_is_there(storage: LocalStorage) -> None:
    storage.put("a", b"x")
    os.chmod(root_of(storage), 0o700)
    assert LocalStorage.create(root_of(storage)).get("a") == b"x"
    assert stat.S_IMODE(root_of(storage).stat().st_mode) == 0o700


def test_create_makes_what_lies_above(tmp_path: Path) -> None:
    storage = LocalStorage.create(tmp_path / "srv" / "backups" / "drkit")
    storage.put("a", b"x")
    assert storage.url == f"file://{tmp_path}/srv/backups/drkit"
    assert stat.S_IMODE(root_of(storage).stat().st_mode) == 0o750


def test_a_symbolic_link_to_the_root_is_the_operators_choice(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(root_of(storage))
    LocalStorage(tmp_path / "link").put("a", b"x")
    assert storage.get("a") == b"x"


# -- modes and owners


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o022])
def test_modes_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        storage = LocalStorage.create(tmp_path / "repository")
        storage.put("a/b/c", b"x")
    finally:
        os.umask(before)
    root = root_of(storage)
    for directory in (root, root / "a", root / "a" / "b", root / "+tmp"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o640


@only_root
def test_what_root_writes_belongs_to_the_owner(open_directory: Path) -> None:
    storage = LocalStorage.create(open_directory / "r", owner=(NOBODY, NOBODY))
    storage.put("wal/1/a", b"x")
    root = root_of(storage)
    for path in (root, root / "+tmp", root / "wal", root / "wal/1", root / "wal/1/a"):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    with unprivileged():
        again = LocalStorage(root)
        assert again.get("wal/1/a") == b"x"
        again.put("wal/1/b", b"y")
        again.delete("wal/1/a")
    assert listed(storage) == ["wal/1/b"]


def test_no_permission_says_who_may(open_directory: Path) -> None:
    storage = LocalStorage.create(open_directory / "repository")
    storage.put("a", b"x")
    os.chmod(root_of(storage), 0o500 if os.geteuid() else 0o755)
    try:
        with unprivileged():
            stranger = LocalStorage(root_of(storage))
            with pytest.raises(StorageError, match="Permission denied") as caught:
                stranger.put("b", b"x")
    finally:
        os.chmod(root_of(storage), 0o750)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    expected = f"sudo -u {owner} drkit" if os.geteuid() == 0 else "its mode is 0500"
    assert expected in (caught.value.hint or "")
    assert not caught.value.transient
    assert listed(storage) == ["a"]


def test_unreadable_root_is_no_missing_object(open_directory: Path) -> None:
    storage = LocalStorage.create(open_directory / "repository")
    storage.put("a/b", b"x")
    os.chmod(root_of(storage), 0)
    try:
        with unprivileged():
            stranger = LocalStorage(root_of(storage))
            for ask in (
                lambda: stranger.get("a/b"),
                lambda: stranger.size("a/b"),
                lambda: list(stranger.list("a/")),
            ):
                with pytest.raises(StorageError, match="Permission denied") as caught:
                    ask()
                assert not isinstance(caught.value, ObjectNotFound)
    finally:
        os.chmod(root_of(storage), 0o750)


# -- hostile content


def test_nothing_is_reached_through_symbolic_links(
    storage: LocalStorage, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root = root_of(storage)
    storage.put("real/object", b"x")
    (root / "directory").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "real" / "up").symlink_to("..")
    for name in ("directory/secret", "file", "real/up/real/object"):
        with pytest.raises(StorageError, match=name) as caught:
            storage.get(name)
        assert not isinstance(caught.value, ObjectNotFound)
        with pytest.raises(StorageError, match=name):
            storage.size(name)
    with pytest.raises(StorageError, match="symbolic links"):
        storage.put("directory/new", b"x")
    with pytest.raises(StorageError):
        storage.delete("directory/secret")
    with pytest.raises(StorageError):
        list(storage.list("directory/"))
    with pytest.raises(ObjectExists):
        storage.put("file", b"x")
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    assert listed(storage) == ["real/object"]
    assert temporaries(storage) == []


def test_what_is_no_file_is_refused_at_once(storage: LocalStorage) -> None:
    os.mkfifo(root_of(storage) / "fifo")
    for ask in (storage.get, storage.size):
        with pytest.raises(StorageError, match="not a regular file"):
            ask("fifo")
    assert listed(storage) == []


def test_strangers_are_not_listed(storage: LocalStorage) -> None:
    storage.put("a", b"x")
    root = root_of(storage)
    (root / "lost+found").mkdir()
    (root / "lost+found" / "inode").write_text("")
    (root / "notes (old).txt").write_text("")
    (root / os.fsdecode(b"\xff\xfe")).write_text("")
    assert listed(storage) == ["a"]


def test_an_object_is_no_directory(storage: LocalStorage) -> None:
    storage.put("a", b"x")
    with pytest.raises(StorageError, match="Not a directory"):
        storage.put("a/b", b"y")
    storage.put("c/d", b"x")
    with pytest.raises(ObjectExists):
        storage.put("c", b"y")
    storage.delete("c")
    assert listed(storage) == ["a", "c/d"]


def test_truncated_object(storage: LocalStorage) -> None:
    storage.put("a", b"0123456789")
    os.truncate(root_of(storage) / "a", 5)
    with pytest.raises(StorageError, match="has 5 bytes; bytes 2 to 8") as caught:
        storage.get("a", 2, 6)
    assert not caught.value.transient
