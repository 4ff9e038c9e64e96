"""What may be archived under which name, with WAL that real servers wrote."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import WalRefused
from drkit.model.wal import WalFileKind
from drkit.postgres.walfile import check_wal_file

if TYPE_CHECKING:
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

SIZE = 1 << 20


def system_identifier(cluster: Cluster) -> int:
    return int(cluster.sql("SELECT system_identifier FROM pg_control_system()"))


@pytest.fixture
def segment(newest_version: int, make_cluster: MakeCluster) -> tuple[str, bytes]:
    cluster = make_cluster(newest_version, wal_segment_size=SIZE)
    name = cluster.switch_wal()
    return name, cluster.wal_path(name).read_bytes()


@pytest.mark.parametrize("size", [1 << 20, 16 << 20])
def test_segments_of_every_version_are_accepted(
    size: int, pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version, wal_segment_size=size)
    name = cluster.switch_wal()
    identifier = system_identifier(cluster)

    facts = check_wal_file(name, cluster.wal_path(name).read_bytes(), identifier)

    assert facts.name.kind is WalFileKind.SEGMENT
    assert facts.major_version == pg_version
    assert facts.system_identifier == identifier
    assert facts.segment_size == size


def test_history_and_partial_of_a_promotion(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(
        pg_version,
        {"archive_mode": "on", "archive_command": "false"},
        wal_segment_size=SIZE,
    )
    cluster.sql("CREATE TABLE filled AS SELECT generate_series(1, 100)")
    cluster.stop()
    Path(cluster.data_directory, "standby.signal").touch()
    cluster.start()
    cluster.promote()

    wal = Path(cluster.data_directory, "pg_wal")
    found = {
        check_wal_file(path.name, path.read_bytes()).name.kind
        for path in wal.iterdir()
        if path.suffix in {".history", ".partial"}
    }
    assert found == {WalFileKind.HISTORY, WalFileKind.PARTIAL}
    # the new timeline's first segment begins with the old one's pages
    first = cluster.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    assert first.startswith("00000002")
    assert check_wal_file(first, (wal / first).read_bytes()).name.timeline == 2


def test_backup_history_of_a_server(pg_version: int, make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        pg_version,
        {"archive_mode": "on", "archive_command": "false"},
        wal_segment_size=SIZE,
    )
    with cluster.connect() as connection:
        connection.execute("SELECT pg_backup_start(E'new\\tlabel ü', true)")
        connection.execute("SELECT pg_backup_stop(false)")
    paths = list(Path(cluster.data_directory, "pg_wal").glob("*.backup"))
    assert len(paths) == 1
    content = paths[0].read_bytes()

    facts = check_wal_file(paths[0].name, content)
    assert facts.name.kind is WalFileKind.BACKUP

    with pytest.raises(WalRefused, match="starts in 0000000"):
        check_wal_file("0000000100000000000000FF.00000028.backup", content)
    other_offset = f"{paths[0].name[:24]}.00000030.backup"
    with pytest.raises(WalRefused, match="starts in 0000000"):
        check_wal_file(other_offset, content)
    with pytest.raises(WalRefused, match="no backup history"):
        check_wal_file(paths[0].name, content[:70])


def test_segment_under_another_name(segment: tuple[str, bytes]) -> None:
    name, data = segment
    other = f"{name[:-1]}F"
    with pytest.raises(WalRefused, match="recycled file, or a renamed one"):
        check_wal_file(other, data)
    with pytest.raises(WalRefused, match="no name of a WAL file"):
        check_wal_file(name.lower() + "x", data)
    beyond = f"{name[:16]}00001000"
    with pytest.raises(WalRefused, match="no WAL segment of 1048576 bytes"):
        check_wal_file(beyond, data)


def test_later_timeline_than_the_name(segment: tuple[str, bytes]) -> None:
    name, data = segment
    later = data[:4] + struct.pack("<I", 0x0B) + data[8:]
    check_wal_file("0000000B" + name[8:], later)
    with pytest.raises(WalRefused, match="timeline 11"):
        check_wal_file("0000000A" + name[8:], later)


def test_segment_of_another_cluster(segment: tuple[str, bytes]) -> None:
    name, data = segment
    found = struct.unpack_from("<Q", data, 24)[0]
    with pytest.raises(WalRefused, match=f"{found}.*belongs to 42") as caught:
        check_wal_file(name, data, 42)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "only 0 bytes"),
        (lambda data: data[:39], "only 39 bytes"),
        (lambda data: data[:-1], "1048575 bytes, not the 1048576"),
        (lambda data: data + b"\0", "1048577 bytes"),
        (lambda data: bytes(len(data)), "nothing but zeros"),
        (lambda data: bytes(8192) + data[8192:], "0x0000.*no version"),
        (lambda data: b"\x01\xd0" + data[2:], "0xd001.*no version"),
        (lambda data: data[:2] + b"\0\0" + data[4:], "does not begin as"),
        (lambda data: data[:2] + b"\x12\0" + data[4:], "does not begin as"),
        (lambda data: data[:32] + struct.pack("<I", 3) + data[36:], "segments of 3"),
        (lambda data: data[:36] + struct.pack("<I", 9) + data[40:], "pages of 9"),
    ],
)
def test_damaged_segments_are_refused(
    change: object, message: str, segment: tuple[str, bytes]
) -> None:
    name, data = segment
    with pytest.raises(WalRefused, match=message):
        check_wal_file(name, change(data))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"1\t0/3000000\tno\0 text\n", "no text"),
        (b"# only a comment\n", "no parent"),
        (b"hello\n", "malformed"),
        (b"2\t0/3000000\titself\n", "itself"),
        (b"x" * (2 << 20), "too many"),
    ],
)
def test_histories_that_are_none(content: bytes, message: str) -> None:
    with pytest.raises(WalRefused, match=message):
        check_wal_file("00000002.history", content)


def test_history_with_a_reason_in_latin_1() -> None:
    check_wal_file("00000002.history", b'1\t0/3000000\tbefore "\xe4"\n')


def test_only_light_modules_are_imported() -> None:
    code = (
        "import sys; before = set(sys.modules);"
        "import drkit.postgres.walfile;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {"numpy", "psycopg", "dataclasses", "datetime", "inspect", "subprocess"}
    assert heavy.isdisjoint(loaded)
