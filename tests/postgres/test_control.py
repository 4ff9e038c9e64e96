"""Control files, against pg_controldata and against what servers do with them."""

from __future__ import annotations

import base64
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt, PostgresRefused, SourceUnreadable
from drkit.postgres.control import (
    IMPOSSIBLE_CHECKPOINT,
    ControlFile,
    invalidate_checkpoint,
    parse_control,
    read_control,
)
from drkit.postgres.crc32c import crc32c
from tests.pg import copy_tree, give_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.postgres.process import Account
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

STATES = {
    "starting up": "STARTUP",
    "shut down": "SHUT_DOWN",
    "shut down in recovery": "SHUT_DOWN_IN_RECOVERY",
    "shutting down": "SHUTTING_DOWN",
    "in crash recovery": "IN_CRASH_RECOVERY",
    "in archive recovery": "IN_ARCHIVE_RECOVERY",
    "in production": "IN_PRODUCTION",
}
SETTINGS = {
    "max_connections": "33",
    "max_worker_processes": "9",
    "max_wal_senders": "7",
    "max_prepared_transactions": "5",
    "max_locks_per_transaction": "66",
    "track_commit_timestamp": "on",
    "wal_log_hints": "on",
    "wal_level": "logical",
}


# The fields of a control file that PostgreSQL 17 wrote.
OF_17 = base64.b64decode(
    "LbdFcOyOAWukBgAAiXkQDAEAAAAAAAAAuo8BawAAAAAoAAAfAAAAACgAAB8AAAAAAQAAAAEAAAAB"
    "AAAAAQAAAN5YAAAAAAAAHUAAAAEAAAAAAAAA2gIAAAEAAAABAAAAAQAAAAAAAAC6jwFrAAAAAAAA"
    "AAAAAAAAAAAAAAAAAADoAwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAEAAAAAAAAAZAAAAAgAAAAKAAAAAAAAAEAAAAAAAAAACAAAAAAAAACH1jJBACAAAAAAAgAAIAAA"
    "AAAAAUAAAAAgAAAAzAcAAAAIAAABAAAAAQAAAE9cKCamyZNfW5BkPVkxm1TJl5Fn33ow1Pbk7QVT"
    "bjDciGDcQA=="
)


def control_path(cluster: Cluster) -> Path:
    return Path(cluster.data_directory, "global", "pg_control")


def pg_controldata(cluster: Cluster) -> dict[str, str]:
    output = cluster.run_tool("pg_controldata", cluster.data_directory).stdout.decode()
    pairs = (line.split(":", 1) for line in output.splitlines())
    return {name.strip(): value.strip() for name, value in pairs}


def as_pg_controldata_prints(control: ControlFile) -> dict[str, str]:
    """Our fields in pg_controldata's words."""
    onoff = {False: "off", True: "on"}
    yesno = {False: "no", True: "yes"}
    state = next(text for text, name in STATES.items() if name == control.state.name)
    time_format = "%a %b %e %H:%M:%S %Y"
    return {
        "pg_control version number": str(control.pg_control_version),
        "Catalog version number": str(control.catalog_version),
        "Database system identifier": str(control.system_identifier),
        "Database cluster state": state,
        "pg_control last modified": control.time.astimezone().strftime(time_format),
        "Latest checkpoint location": str(control.checkpoint),
        "Latest checkpoint's REDO location": str(control.redo),
        "Latest checkpoint's TimeLineID": str(control.timeline),
        "Latest checkpoint's PrevTimeLineID": str(control.previous_timeline),
        "Latest checkpoint's full_page_writes": onoff[control.full_page_writes],
        "Latest checkpoint's NextXID": (
            f"{control.next_xid >> 32}:{control.next_xid & 0xFFFFFFFF}"
        ),
        "Latest checkpoint's NextOID": str(control.next_oid),
        "Latest checkpoint's oldestXID": str(control.oldest_xid),
        "Time of latest checkpoint": (
            control.checkpoint_time.astimezone().strftime(time_format)
        ),
        "Minimum recovery ending location": str(control.min_recovery_point),
        "Min recovery ending loc's timeline": str(control.min_recovery_timeline),
        "Backup start location": str(control.backup_start),
        "Backup end location": str(control.backup_end),
        "End-of-backup record required": yesno[control.backup_end_required],
        "wal_level setting": control.wal_level.name.lower(),
        "wal_log_hints setting": onoff[control.wal_log_hints],
        "max_connections setting": str(control.max_connections),
        "max_worker_processes setting": str(control.max_worker_processes),
        "max_wal_senders setting": str(control.max_wal_senders),
        "max_prepared_xacts setting": str(control.max_prepared_transactions),
        "max_locks_per_xact setting": str(control.max_locks_per_transaction),
        "track_commit_timestamp setting": onoff[control.track_commit_timestamp],
        "Database block size": str(control.block_size),
        "Blocks per segment of large relation": str(control.relation_segment_blocks),
        "WAL block size": str(control.wal_block_size),
        "Bytes per WAL segment": str(control.wal_segment_size),
        "Data page checksum version": str(control.data_checksum_version),
    }


def assert_same_as_pg_controldata(cluster: Cluster) -> ControlFile:
    control, data = read_control(str(control_path(cluster)))
    assert len(data) == 8192
    ours = as_pg_controldata_prints(control)
    theirs = pg_controldata(cluster)
    assert ours == {name: theirs[name] for name in ours}
    return control


@pytest.mark.parametrize("checksums", [False, True])
def test_fields_are_those_of_pg_controldata(
    checksums: bool, pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(
        pg_version, SETTINGS, data_checksums=checksums, wal_segment_size=4 << 20
    )
    cluster.sql("CREATE TABLE filled AS SELECT generate_series(1, 1000)")
    cluster.sql("CHECKPOINT")

    control = assert_same_as_pg_controldata(cluster)
    assert control.state.name == "IN_PRODUCTION"
    assert control.data_checksums is checksums

    cluster.stop()
    assert assert_same_as_pg_controldata(cluster).state.name == "SHUT_DOWN"


def test_fields_of_a_standby(
    pg_version: int, make_cluster: MakeCluster, adopt_cluster: MakeCluster
) -> None:
    primary = make_cluster(pg_version)
    copy = f"{primary.directory}/standby"
    primary.run_tool(
        "pg_basebackup", f"-h{primary.directory}", "-Upostgres", "-cfast", f"-D{copy}"
    )
    Path(copy, "standby.signal").touch()
    standby = adopt_cluster(
        pg_version,
        copy,
        {"restore_command": f"cp {primary.data_directory}/pg_wal/%f %p"},
    )
    standby.start()
    standby.sql("CHECKPOINT")

    control = assert_same_as_pg_controldata(standby)
    assert control.state.name == "IN_ARCHIVE_RECOVERY"
    assert control.min_recovery_point > 0
    standby.stop()
    assert_same_as_pg_controldata(standby)


def test_reading_while_the_server_writes(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    stop = threading.Event()

    def checkpoint() -> None:
        while not stop.is_set():
            cluster.sql("SELECT pg_switch_wal(); CHECKPOINT")

    writer = threading.Thread(target=checkpoint)
    writer.start()
    try:
        seen = {
            read_control(str(control_path(cluster)))[0].checkpoint for _ in range(3000)
        }
    finally:
        stop.set()
        writer.join()
    assert len(seen) > 1


@pytest.fixture
def control_bytes(newest_version: int, make_cluster: MakeCluster) -> bytes:
    cluster = make_cluster(newest_version, start=False)
    return control_path(cluster).read_bytes()


def test_a_flipped_bit_anywhere_is_found(control_bytes: bytes) -> None:
    parse_control(control_bytes)
    for position in range(296):
        damaged = bytearray(control_bytes)
        damaged[position] ^= 1
        with pytest.raises((Corrupt, PostgresRefused)):
            parse_control(bytes(damaged))


def test_short_files_and_other_formats_are_refused(control_bytes: bytes) -> None:
    with pytest.raises(Corrupt, match="only 200 bytes"):
        parse_control(control_bytes[:200])
    old = control_bytes[:8] + struct.pack("<I", 942) + control_bytes[12:]
    with pytest.raises(PostgresRefused, match="format 942"):
        parse_control(old)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="pg_control"):
        read_control(str(tmp_path / "pg_control"))


def test_lasting_damage_names_the_file(control_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pg_control"
    path.write_bytes(b"\1" + control_bytes[1:])
    with pytest.raises(Corrupt, match=r"pg_control: the control file's checksum"):
        read_control(str(path))


def test_invalidation_changes_the_checkpoint_only(control_bytes: bytes) -> None:
    before = parse_control(control_bytes)
    changed = invalidate_checkpoint(control_bytes)
    after = parse_control(changed)

    assert after.checkpoint == IMPOSSIBLE_CHECKPOINT
    assert len(changed) == len(control_bytes)
    differing = {
        name for name in vars(before) if getattr(before, name) != getattr(after, name)
    }
    assert differing == {"checkpoint", "crc"}


def copy_by_hand(cluster: Cluster, target: Path, account: Account) -> None:
    """A base backup as drkit makes it: files, then the label, pg_control invalid."""
    with cluster.connect() as connection:
        start, stop = (
            ("pg_backup_start('copy', true)", "pg_backup_stop(false)")
            if cluster.binaries.major >= 15
            else ("pg_start_backup('copy', true, false)", "pg_stop_backup(false)")
        )
        connection.execute(f"SELECT {start}")
        copy_tree(cluster.data_directory, target)
        label = connection.execute(f"SELECT labelfile FROM {stop}").fetchone()
    assert label is not None
    for name in ("postmaster.pid", "postmaster.opts"):
        (target / name).unlink()
    (target / "backup_label").write_text(label[0])
    # The needed WAL lies in the source by now, as it would in an archive.
    (target / "recovery.signal").touch()
    control = target / "global" / "pg_control"
    control.write_bytes(invalidate_checkpoint(control.read_bytes()))
    give_to(account, target)


@pytest.mark.parametrize("with_signal", [False, True])
def test_invalid_checkpoint_starts_only_with_a_label(
    with_signal: bool,
    pg_version: int,
    make_cluster: MakeCluster,
    adopt_cluster: MakeCluster,
    make_directory: Callable[[], Path],
    postgres_user: Account,
) -> None:
    cluster = make_cluster(pg_version)
    cluster.sql("CREATE TABLE kept AS SELECT 1 AS x")
    target = make_directory() / "data"
    copy_by_hand(cluster, target, postgres_user)
    without = Path(f"{target}-without-label")
    copy_tree(target, without)
    os.unlink(without / "backup_label")
    if not with_signal:
        os.unlink(without / "recovery.signal")
    settings = {"restore_command": f"cp {cluster.data_directory}/pg_wal/%f %p"}

    with pytest.raises(PostgresRefused, match="could not locate a valid checkpoint"):
        adopt_cluster(pg_version, str(without), settings).start()

    restored = adopt_cluster(pg_version, str(target), settings)
    restored.start()
    restored.wait_until_primary()
    assert restored.sql("SELECT x FROM kept") == 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c_of_rfc_3720(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected
    assert crc32c(data[5:], crc32c(data[:5])) == expected


def test_a_control_file_of_17_is_read() -> None:
    found = parse_control(OF_17.ljust(8192, b"\0"))
    assert found.pg_control_version == 1700
    assert found.system_identifier == 7710601183182042925
    assert str(found.checkpoint) == "0/1F000028"
    assert found.wal_segment_size == 16 << 20
    assert found.data_checksums
    assert invalidate_checkpoint(OF_17.ljust(8192, b"\0"))
