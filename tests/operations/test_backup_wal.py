"""What a backup's WAL is said to be, and since when the log demands signatures."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt, StorageError, WalRefused
from drkit.model.log_wal import unsigned_note
from drkit.model.lsn import Lsn
from drkit.model.wal import Segment, WalFileName
from drkit.operations.backup_wal import (
    BackupWal,
    demand_signatures,
    refuse_changed_wal,
)
from tests.builders import SEGMENT, World, begin, commit_entry, replace_object
from tests.faults import FaultyStorage
from tests.operations.verify_tools import Quiet

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.model.backup import BackupSummary, WalRange
    from drkit.repository.repository import Repository


def name(number: int, timeline: int = 1) -> str:
    return Segment(timeline, number).name(SEGMENT)


def push(world: World, *names: str) -> None:
    for one in names:
        content = f"of {one}".encode()
        world.repository().wal.push(WalFileName.parse(one), content, world.clock.now())


def summary(first: int, last: int, timeline: int = 1) -> BackupSummary:
    """A backup that needs these segments."""
    made = commit_entry(begin(World().repository())).backup
    return replace(
        made,
        timeline=timeline,
        start_lsn=Lsn(first * SEGMENT + 0x28),
        stop_lsn=Lsn(last * SEGMENT + 0x100),
    )


def looked(
    repository: Repository, *names: str, pg_wal: str | None = None
) -> WalRange | None:
    wal = BackupWal(repository, pg_wal)
    for one in names:
        wal.add(WalFileName.parse(one))
    return wal.found()


@pytest.fixture
def world() -> World:
    made = World(signed=True)
    push(made, name(2), name(3), name(4))
    return made


def test_names_and_contents_count_and_so_does_their_order(world: World) -> None:
    repository = world.repository()
    found = looked(repository, name(2), name(3))
    assert found is not None
    assert found.segments == 2
    assert found == looked(world.repository(), name(2), name(3))
    assert found != looked(repository, name(3), name(2))
    assert found != looked(repository, name(3), name(4))


def test_nothing_is_said_where_one_is_not_signed(world: World) -> None:
    unsigned = replace(world, signed=False).repository()
    unsigned.wal.push(WalFileName.parse(name(5)), b"unsigned", world.clock.now())
    pinned = World(world.storage, world.keys, world.clock, signed=True).repository()
    pinned.log.state.wal_signed = {1: name(9)}
    assert looked(pinned, name(4)) is not None
    assert looked(pinned, name(4), name(5)) is None
    assert looked(World().repository()) is None


def test_a_backup_with_another_segment_is_refused(world: World) -> None:
    repository = world.repository()
    backup = replace(summary(2, 3), wal=looked(repository, name(2), name(3)))
    refuse_changed_wal(repository, backup)
    refuse_changed_wal(repository, replace(backup, wal=None))
    file = WalFileName.parse(name(3))
    world.storage.delete(repository.wal.name(file))
    repository.wal.push(file, b"signed as well", world.clock.now())
    with pytest.raises(Corrupt, match=backup.label):
        refuse_changed_wal(world.repository(), backup)


def test_what_the_server_has_is_compared(world: World, tmp_path: Path) -> None:
    repository, segment = world.repository(), tmp_path / name(2)
    pg_wal = str(tmp_path)
    assert looked(repository, name(2), pg_wal=pg_wal) is not None, "it has gone"
    segment.write_bytes(f"of {name(2)}".encode())
    assert looked(repository, name(2), pg_wal=pg_wal) is not None
    segment.write_bytes(b"another")
    with pytest.raises(WalRefused, match=name(2)):
        looked(repository, name(2), pg_wal=pg_wal)


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_what_is_no_file_in_pg_wal_is_passed_over(
    world: World, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / name(2)
    (tmp_path / "other").write_bytes(b"another")
    make = {
        "pipe": lambda: os.mkfifo(place),
        "link": lambda: place.symlink_to(tmp_path / "other"),
        "directory": place.mkdir,
    }
    make[kind]()
    assert looked(world.repository(), name(2), pg_wal=str(tmp_path)) is not None


def test_the_log_lets_be_what_was_there_before() -> None:
    world = World()
    push(world, name(1), name(2), f"{name(3)}.partial", "00000002.history")
    push(world, name(3, 2), "00000003.history")
    signed = replace(world, signed=True)
    push(signed, name(3, 3), name(4, 3), name(4, 2), "00000004.history")
    repository = signed.repository()
    backup = replace(summary(4, 4, 3), wal=looked(repository, name(4, 3)))
    demand_signatures(repository, backup, Quiet())
    state = world.repository().log.read()
    assert state.wal_signed == {
        1: name(4),
        2: name(4, 2),
        3: name(4, 3),
        4: name(0, 4),
    }
    again = signed.repository()
    demand_signatures(again, backup, Quiet())
    assert len(again.log.read().backups) == 0
    assert again.log.state.wal_signed == state.wal_signed
    for one in (name(1), name(3, 2), name(3, 3), "00000004.history"):
        again.wal.get(WalFileName.parse(one))
    push(signed, name(5, 2))  # so that what is replaced is not the archive's end
    replace_object(
        world.storage,
        again.wal.name(WalFileName.parse(name(4, 2))),
        world.storage.get(again.wal.name(WalFileName.parse(name(3, 2)))),
    )
    with pytest.raises(Corrupt):
        again.wal.get(WalFileName.parse(name(4, 2)))


def test_an_entry_that_can_t_be_written_is_left_to_the_next_backup() -> None:
    world = World()
    world.repository()
    signed = replace(world, signed=True)
    push(signed, name(4))
    faulty = FaultyStorage(world.storage)
    repository, progress = signed.repository(storage=faulty), Quiet()
    backup = replace(summary(4, 4), wal=looked(repository, name(4)))
    faulty.fail("put", StorageError("it is full"), at=1, times=1 << 30)
    demand_signatures(repository, backup, progress)
    assert "the next backup will" in progress.warnings[0]
    demand_signatures(signed.repository(), backup, progress)
    assert world.repository().log.read().wal_signed == {1: name(4)}


def test_a_backup_without_signed_wal_demands_nothing() -> None:
    world = World()
    repository = world.repository()
    demand_signatures(repository, summary(2, 2), Quiet())
    assert world.repository().log.read().wal_signed is None


def test_what_may_be_unsigned_is_told() -> None:
    assert unsigned_note({}, [name(1)]) is None
    assert unsigned_note({1: name(2)}, [name(2), name(3)]) is None
    told = unsigned_note({1: name(3), 2: name(9, 2)}, [name(2), name(4), name(9, 2)])
    assert told is not None
    assert name(3) in told
    assert name(9, 2) not in told
    assert "not signed" in (unsigned_note(None, []) or "")
