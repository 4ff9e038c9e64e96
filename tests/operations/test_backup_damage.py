"""Pages that are torn, wrong or unreadable when a backup reads them."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import SourceUnreadable
from drkit.model.page import PAGE
from drkit.postgres.binaries import ServerBinaries
from tests.operations import badblocks
from tests.operations.backup_child import Backups
from tests.operations.backup_tools import (
    Listener,
    assert_tidy,
    content,
    restored,
    site,
)
from tests.operations.scene import drkit
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.manifest import Manifest
    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

OBJECTIVE_MISSED = 3
BAD_FROM = 24 << 20


def _protect(scene: Scene, version: int, source: str = "local") -> Protected:
    made = scene.protect(version, {"autovacuum": "off"}, source=source)
    made.cluster.psql("""
        CREATE TABLE t AS SELECT n, repeat('x', 200) AS filler
            FROM generate_series(1, 5000) AS n;
        VACUUM t; CHECKPOINT;
    """)
    return made


def _file(cluster: Cluster, fork: str = "") -> Path:
    path = cluster.sql("SELECT pg_relation_filepath('t')")
    return Path(cluster.data_directory, path + fork)


def _flip(path: Path, block: int) -> None:
    """Change one byte in the middle of a page, as a rotting disk does."""
    with path.open("r+b") as file:
        file.seek(block * PAGE + 5000)
        byte = file.read(1)[0]
        file.seek(block * PAGE + 5000)
        file.write(bytes([byte ^ 0x10]))


def _damaged(manifest: Manifest) -> list[tuple[bytes, int]]:
    return [
        (manifest.paths[int(row["file"])], int(row["block"]))
        for row in manifest.damaged
    ]


@pytest.mark.parametrize(
    ("version", "source"),
    [(15, "stream"), (16, "local"), (18, "local"), (18, "stream")],
)
def test_pages_whose_checksum_stays_wrong(
    version: int, source: str, scene: Scene
) -> None:
    protected = _protect(scene, version, source)
    older = site(protected, source).take().label
    path = _file(protected.cluster)
    name = str(path.relative_to(protected.cluster.data_directory))
    for block in (3, 7):
        _flip(path, block)

    said = drkit(
        protected,
        "backup",
        NAME,
        "--type",
        "full",
        "--output",
        "json",
        "--log-format",
        "json",
    )
    assert said.code == OBJECTIVE_MISSED, said.err
    summary = json.loads(said.out)["backup"]
    assert summary["damaged_pages"] == 2
    warnings = [
        line for line in map(json.loads, said.err.splitlines()) if "block" in line
    ]
    assert sorted((line["file"], line["block"]) for line in warnings) == [
        (name, 3),
        (name, 7),
    ]
    assert all(line["level"] == "warning" for line in warnings)
    assert f"page {warnings[0]['block']} of {name} is damaged" in warnings[0]["event"]

    assert protected.labels() == [older, summary["label"]]
    manifest = site(protected).manifest(summary["label"])
    assert _damaged(manifest) == [(name.encode(), 3), (name.encode(), 7)]
    assert_tidy(site(protected))


def test_the_older_backup_still_brings_back_what_rotted(
    scene: Scene, newest_version: int
) -> None:
    protected = _protect(scene, newest_version)
    expected = content(protected.cluster)
    older = site(protected).take().label
    _flip(_file(protected.cluster), 3)
    said = drkit(protected, "backup", NAME, "--type", "full")
    assert said.code == OBJECTIVE_MISSED
    assert "DAMAGED: 1 pages of the cluster have a wrong checksum" in said.out
    with restored(scene, protected, older) as found:
        assert content(found) == expected


@pytest.mark.parametrize(("fork", "source"), [("_fsm", "stream"), ("_vm", "local")])
def test_damaged_maps_are_no_error(
    source: str, fork: str, newest_version: int, scene: Scene
) -> None:
    """The server may tear them, and makes them anew when it reads them."""
    protected = _protect(scene, newest_version, source)
    _flip(_file(protected.cluster, fork), 0)
    said = drkit(protected, "backup", NAME, "--type", "full")
    assert said.code == 0, said.err
    assert "damaged" not in said.err
    with restored(scene, protected) as found:
        assert found.sql("SELECT count(*) FROM t") == 5000


def test_a_page_that_is_torn_by_a_write_at_the_same_time(
    scene: Scene, newest_version: int
) -> None:
    """It is whole as soon as somebody has read it once."""
    protected = _protect(scene, newest_version)
    path = _file(protected.cluster)
    whole = path.read_bytes()
    _flip(path, 3)
    with _written_when_read(path, whole):
        summary = site(protected).take()
    assert summary.damaged_pages == 0
    with restored(scene, protected) as found:
        assert content(found) == content(protected.cluster)


def test_a_page_that_was_written_since_the_backup_began_is_left_to_the_wal(
    scene: Scene, newest_version: int
) -> None:
    protected = _protect(scene, newest_version)
    path = _file(protected.cluster)

    def write_and_tear() -> None:
        protected.cluster.rows("UPDATE t SET n = -n WHERE n <= 100; CHECKPOINT")
        _flip(path, 0)

    listener = Listener({"copy": write_and_tear})
    assert site(protected).take(listener).damaged_pages == 0
    _flip(path, 0)
    with restored(scene, protected) as found:
        assert content(found) == content(protected.cluster)


class _written_when_read:  # noqa: N801  a context manager reads as a word
    """Writes a file's true content when inotify(7) tells that it was read."""

    _ACCESSED = 1

    def __init__(self, path: Path, whole: bytes) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init()
        watch = libc.inotify_add_watch(self._events, os.fsencode(path), self._ACCESSED)
        assert watch >= 0
        self._path, self._whole = path, whole
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        os.close(self._events)

    def _write(self) -> None:
        os.read(self._events, 4096)
        with self._path.open("r+b") as file:
            file.write(self._whole)


# -- disks that can't be read


@pytest.fixture
def big(scene: Scene, newest_version: int) -> Protected:
    """A cluster with one file that reaches past the disk's first bad block."""
    made = scene.protect(newest_version, {"autovacuum": "off"})
    made.cluster.rows("""
        CREATE TABLE t AS SELECT n, repeat(md5(n::text), 60) AS filler
            FROM generate_series(1, 200) AS n;
        ALTER TABLE t ALTER filler SET STORAGE PLAIN;
        INSERT INTO t SELECT n, repeat(md5(n::text), 60)
            FROM generate_series(1, 14000) AS n;
        CHECKPOINT;
    """)
    return made


@pytest.fixture
def backups(big: Protected, tmp_path: Path) -> Iterator[Backups]:
    with Backups(big.policy_path, tmp_path) as running:
        yield running


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.long), 2])
def test_a_file_that_can_not_be_read(
    jobs: int, big: Protected, backups: Backups
) -> None:
    path = _file(big.cluster)
    assert path.stat().st_size > BAD_FROM + PAGE
    older = site(big).take().label
    ended = backups.run("local", read_errors_from=BAD_FROM, jobs=jobs)
    assert ended.status == SourceUnreadable.exit_code, ended.stderr
    assert f"can't read {path} at block " in ended.stderr
    block = int(ended.stderr.partition(f"{path} at block ")[2].partition(":")[0])
    # Reads of up to 2 MiB begin where the one before ended; the first bad one tells.
    assert 0 <= block - BAD_FROM // PAGE <= (2 << 20) // PAGE
    assert "Input/output error" in ended.stderr
    assert big.labels() == [older]
    assert_tidy(site(big))


def test_a_file_that_the_server_can_not_read(big: Protected, scene: Scene) -> None:
    cluster = big.cluster
    older = site(big, "stream").take().label
    name = cluster.sql("SELECT pg_relation_filepath('t')")
    cluster.stop()
    cluster.binaries = _under_bad_blocks(cluster.binaries, scene.directory())
    cluster.start()
    with pytest.raises(SourceUnreadable, match=name) as raised:
        site(big, "stream").take()
    assert "Input/output error" in raised.value.message
    assert big.labels() == [older]
    assert_tidy(site(big))


def _under_bad_blocks(binaries: ServerBinaries, directory: Path) -> ServerBinaries:
    """Return programs whose server reads from a disk with bad blocks."""
    program = directory / "postgres"
    words = [sys.executable, badblocks.__file__, str(BAD_FROM)]
    command = shlex.join([*words, binaries.tool("postgres")])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)
    return ServerBinaries(str(directory), binaries.major)
