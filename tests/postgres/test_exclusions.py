"""What the scan finds, against what the server puts into its own base backup."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import SourceUnreadable
from drkit.model.manifest import FileKind
from drkit.postgres.exclusions import (
    EMPTIED,
    Fork,
    RelationFile,
    excluded_directory,
    excluded_file,
    holds_relations,
    relation_file,
    superseded_by_init,
    unlogged,
)
from drkit.postgres.scan import Found, scan
from tests.pg import copy_tree, give_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeCluster
    from tests.pg import Cluster

# Of no use in a restored cluster; the server copies them, drkit does not.
STALE = {"backup_label.old", "tablespace_map.old"}
# Made for each backup by the server; drkit keeps them in the manifest's head.
OF_THE_BACKUP = {"backup_label", "tablespace_map", "backup_manifest"}


def scanned(cluster: Cluster) -> Found:
    rows = cluster.rows("SELECT oid, spcname FROM pg_tablespace")
    catalog = cluster.sql("SELECT catalog_version_no FROM pg_control_system()")
    return scan(cluster.data_directory, dict(rows), catalog)


def kinds(found: Found) -> dict[str, FileKind]:
    return {os.fsdecode(file.path): file.kind for file in found.files}


def servers_own(cluster: Cluster, directory: Path) -> dict[str, FileKind]:
    """Take a base backup with the server's own tool; return what is in its archives."""
    cluster.run_tool(
        "pg_basebackup",
        f"--host={cluster.directory}",
        "--username=postgres",
        f"--pgdata={directory}/backup",
        "--format=tar",
        "--wal-method=none",
        "--checkpoint=fast",
        "--no-sync",
        "--no-verify-checksums",
    )
    found: dict[str, FileKind] = {}
    for archive in sorted((directory / "backup").glob("*.tar")):
        prefix = ""
        if archive.stem != "base":
            # The link is not among the members: tablespace_map stands for it.
            found[f"pg_tblspc/{archive.stem}"] = FileKind.DIRECTORY
            prefix = f"pg_tblspc/{archive.stem}/"
        with tarfile.open(archive) as members:
            for member in members:
                path = prefix + member.name.removeprefix("./").rstrip("/")
                is_file = member.isreg()
                found[path] = FileKind.FILE if is_file else FileKind.DIRECTORY
    for path in OF_THE_BACKUP:
        found.pop(path, None)
    return found


def compare(cluster: Cluster, directory: Path) -> dict[str, FileKind]:
    """Hold the scan against the server's backup; return what both have."""
    cluster.sql("CHECKPOINT")
    theirs = servers_own(cluster, directory)
    found = scanned(cluster)
    ours = kinds(found)
    for path in STALE:
        theirs.pop(path, None)
    if cluster.binaries.major < 16:  # its own backups lack in-place tablespaces
        for one in found.tablespaces:
            below = f"pg_tblspc/{one.oid}" if one.in_place else "nothing"
            theirs |= {p: kind for p, kind in ours.items() if p.startswith(below)}
    assert sorted(theirs.items() - ours.items()) == []
    assert sorted(ours.items() - theirs.items()) == []
    return ours


def put(cluster: Cluster, path: str | bytes, content: bytes = b"odd") -> Path:
    """Put a file into the data directory, directories and all."""
    place = Path(cluster.data_directory, os.fsdecode(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def make_odd_files(cluster: Cluster, database: int) -> None:
    base = f"base/{database}"
    for path in (
        "notes.txt",
        "conf.d/extra.conf",
        "a b\nc'd\"e",
        b"caf\xe9",
        "core",
        "postgresql.auto.conf.tmp",
        "current_logfiles.tmp",
        "backup_label.old",
        "tablespace_map.old",
        "global/pg_internal.init",
        "global/pg_internal.init.123",
        f"{base}/pg_internal.init",
        f"{base}/pg_internal.init.77",
        f"{base}/notes.txt",
        f"{base}/t3_99999",
        f"{base}/t3_99999.1",
        f"{base}/t3_99999_fsm",
        f"{base}/t3_99999_vm.2",
        f"{base}/t3_99999_init",
        f"{base}/t3_99999_odd",
        f"{base}/t_99999",
        f"{base}/t3_",
        f"{base}/99999",
        f"{base}/99999.1",
        f"{base}/99999_fsm",
        f"{base}/99998",
        f"{base}/99998_init",
        f"{base}/99998_vm",
        f"{base}/99998.1",
        "base/pgsql_tmp/pgsql_tmp123.0",
        f"{base}/pgsql_tmp99",
        "pgsql_tmp_at_the_top/x",
        "pg_stat_tmp/x.stat",
        "pg_replslot/slot/state",
        "pg_dynshmem/x",
        "pg_notify/0000",
        "pg_serial/0000",
        "pg_snapshots/x",
        "pg_subtrans/9999",
        "pg_wal/junk",
        "pg_wal/archive_status/junk.ready",
        "log/postgresql.log",
    ):
        put(cluster, path)
    give_to(cluster.account, cluster.data_directory)


TEMPORARY = (
    "CREATE TEMP TABLE x AS SELECT n, repeat('x', 3000) AS t "
    "FROM generate_series(1, 200) AS n; CREATE INDEX ON x (n)"
)
UNLOGGED = (
    "CREATE UNLOGGED TABLE {0} AS SELECT n, repeat('x', 3000) AS t "
    "FROM generate_series(1, 500) AS n; CREATE INDEX ON {0} (n)"
)


def test_the_scan_finds_what_the_server_copies(
    pg_version: int, make_cluster: MakeCluster, make_directory: Callable[[], Path]
) -> None:
    cluster = make_cluster(pg_version)
    cluster.sql(UNLOGGED.format("u"))
    cluster.sql("SELECT lo_from_bytea(0, 'large')")
    cluster.sql("CREATE DATABASE other")
    cluster.sql(UNLOGGED.format("v"), dbname="other")
    outside, shared = make_directory(), make_directory()
    catalog = cluster.sql("SELECT catalog_version_no FROM pg_control_system()")
    for place in (outside, shared):
        cluster.sql(f"CREATE TABLESPACE ts_{place.name[2:]} LOCATION '{place}'")
    foreign = shared / f"PG_{pg_version}_{catalog + 1}" / "5"
    foreign.mkdir(parents=True)
    (foreign / "16384").write_bytes(b"of another server")
    give_to(cluster.account, shared)
    ts = f"ts_{outside.name[2:]}"
    with cluster.connect(options="-c allow_in_place_tablespaces=on") as session:
        session.execute("CREATE TABLESPACE inside LOCATION ''")
    for name in (ts, "inside"):
        cluster.sql(
            f"CREATE TABLE t_{name} TABLESPACE {name} AS SELECT generate_series(1, 99)"
        )
        cluster.sql(
            f"CREATE UNLOGGED TABLE ut_{name} TABLESPACE {name} AS SELECT 1 AS a"
        )
    database = cluster.sql("SELECT oid FROM pg_database WHERE datname = 'postgres'")
    make_odd_files(cluster, database)
    with cluster.connect() as session:
        session.execute(f"SET temp_tablespaces = '', '{ts}'")
        session.execute(TEMPORARY)
        session.execute(TEMPORARY.replace("TABLE x", "TABLE y").replace("x (", "y ("))
        both = compare(cluster, make_directory())
    unlogged_file = cluster.sql("SELECT pg_relation_filepath('u')")
    assert f"{unlogged_file}_init" in both
    assert unlogged_file not in both
    found = scanned(cluster)
    assert sorted(one.in_place for one in found.tablespaces) == [False, False, True]
    names = {one.name: one.path for one in found.tablespaces}
    assert names[ts] == str(outside)
    assert not found.warnings


def test_a_linked_pg_wal_is_an_empty_directory(
    pg_version: int, make_cluster: MakeCluster, make_directory: Callable[[], Path]
) -> None:
    cluster = make_cluster(pg_version, start=False)
    wal, place = Path(cluster.data_directory, "pg_wal"), make_directory() / "wal"
    copy_tree(wal, place)
    copy_tree(wal, f"{wal}.gone")
    for path in sorted(wal.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    wal.rmdir()
    wal.symlink_to(place)
    give_to(cluster.account, cluster.data_directory)
    cluster.start()
    ours = compare(cluster, make_directory())
    inside = {path for path in ours if path.startswith("pg_wal/")}
    assert ours["pg_wal"] is FileKind.DIRECTORY
    assert inside <= {"pg_wal/archive_status", "pg_wal/summaries"}
    assert not scanned(cluster).warnings


# -- what the server warns about


@pytest.fixture
def plain_directory(tmp_path: Path) -> Path:
    for name in ("base/5", "global", "pg_tblspc", "pg_wal"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


def paths(directory: Path) -> tuple[set[str], list[str]]:
    found = scan(str(directory), {}, 1)
    return {os.fsdecode(file.path) for file in found.files}, found.warnings


def test_what_is_no_file_is_left_out_with_a_warning(plain_directory: Path) -> None:
    os.mkfifo(plain_directory / "pipe")
    found, warnings = paths(plain_directory)
    assert "pipe" not in found
    assert warnings == ["pipe is neither file nor directory and was left out"]


def test_links_are_left_out_with_a_warning_that_says_where_they_lead(
    plain_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "postgresql.conf").write_text("port = 5433\n")
    (plain_directory / "postgresql.conf").symlink_to(tmp_path / "postgresql.conf")
    (plain_directory / "PG_VERSION").write_text("18\n")
    (plain_directory / "version").symlink_to("PG_VERSION")
    (plain_directory / "nowhere").symlink_to(tmp_path / "nothing")
    (plain_directory / "itself").symlink_to("itself")
    walk = scan(str(plain_directory), {}, 1)
    assert {b"PG_VERSION"} == {
        file.path for file in walk.files if file.kind is FileKind.FILE
    }
    left_out = "is a symbolic link to {} and was left out".format
    assert sorted(walk.warnings) == [
        f"itself {left_out('itself')}",
        f"nowhere {left_out(tmp_path / 'nothing')}",
        f"postgresql.conf {left_out(tmp_path / 'postgresql.conf')}",
        f"version {left_out('PG_VERSION')}",
    ]


@pytest.mark.parametrize(
    "path",
    [
        "base/5/16384",
        "base/6",
        "pg_xact",
        "pg_xact/0000",
        "global/pg_filenode.map",
        "PG_VERSION",
    ],
)
def test_a_link_in_the_place_of_the_clusters_own_data_is_refused(
    plain_directory: Path, tmp_path: Path, path: str
) -> None:
    (plain_directory / path).parent.mkdir(exist_ok=True)
    (plain_directory / path).symlink_to(tmp_path)
    with pytest.raises(SourceUnreadable, match=f"{path} is a symbolic link") as caught:
        scan(str(plain_directory), {}, 1)
    assert "no backup was made" in str(caught.value.hint)


@pytest.mark.parametrize("target", ["..", ".", "../data", "global", "/"])
def test_a_link_around_the_data_directory_ends(
    plain_directory: Path, target: str
) -> None:
    (plain_directory / "base/around").symlink_to(plain_directory / target)
    found, warnings = paths(plain_directory)
    assert not any(path.startswith("base/around/") for path in found)
    assert any("base/around" in warning for warning in warnings)


def test_a_directory_that_can_not_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="nothing here"):
        scan(str(tmp_path / "nothing here"), {}, 1)


def test_only_this_servers_part_of_a_tablespace_is_taken(
    plain_directory: Path, tmp_path: Path
) -> None:
    for version in ("PG_18_202506291", "PG_17_202406281", "PG_9.6_201608131", "junk"):
        (tmp_path / "space" / version / "5").mkdir(parents=True)
    (plain_directory / "pg_tblspc/16400").symlink_to(tmp_path / "space")
    found = scan(str(plain_directory), {16400: "fast"}, 202506291)
    below = {f.path for f in found.files if f.path.startswith(b"pg_tblspc/16400/")}
    assert below == {
        b"pg_tblspc/16400/PG_18_202506291",
        b"pg_tblspc/16400/PG_18_202506291/5",
    }
    assert [(one.oid, one.name) for one in found.tablespaces] == [(16400, "fast")]


# -- names alone


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"base/5/16384", RelationFile(16384, Fork.MAIN, 0)),
        (b"base/5/16384.12", RelationFile(16384, Fork.MAIN, 12)),
        (b"base/5/16384_fsm", RelationFile(16384, Fork.FSM, 0)),
        (b"base/5/16384_vm.1", RelationFile(16384, Fork.VM, 1)),
        (b"base/5/16384_init", RelationFile(16384, Fork.INIT, 0)),
        (b"global/1262", RelationFile(1262, Fork.MAIN, 0)),
        (b"pg_tblspc/16400/PG_18_202506291/5/99", RelationFile(99, Fork.MAIN, 0)),
        (b"base/5/PG_VERSION", None),
        (b"base/5/pg_filenode.map", None),
        (b"base/5/t3_16384", None),
        (b"base/5/16384_odd", None),
        (b"base/5/16384.", None),
        (b"base/5/16384\n", None),
        (b"base/16384", None),
        (b"pg_xact/0000", None),
        (b"pg_multixact/members/0000", None),
        (b"pg_tblspc/16400/5/99", None),
        (b"16384", None),
    ],
)
def test_relation_files_are_told_by_their_paths(
    path: bytes, expected: RelationFile | None
) -> None:
    assert relation_file(path) == expected


def test_unlogged_relations_are_those_with_an_init_fork() -> None:
    names = [b"10", b"10_init", b"11", b"12_init", b"t3_13_init", b"x_init"]
    assert unlogged(names) == {10, 12}


def test_what_an_init_fork_makes_of_the_other_forks() -> None:
    unlogged_forks = [
        b"base/5/10",
        b"base/5/10.1",
        b"base/5/10_fsm",
        b"pg_tblspc/7/PG_18_202506291/5/10",
    ]
    others = [b"base/5/11", b"base/6/10", b"base/5/100", b"base/10_init", b"10"]
    inits = [b"base/5/10_init", b"pg_tblspc/7/PG_18_202506291/5/10_init"]
    found = superseded_by_init([*unlogged_forks, *others, *inits])
    assert found == set(unlogged_forks)
    assert superseded_by_init([*unlogged_forks, *others]) == set()


def test_directories_and_files_that_are_left_out() -> None:
    assert excluded_directory(b"base/pgsql_tmp")
    assert not excluded_directory(b"base")
    assert excluded_file(b"postmaster.pid")
    assert not excluded_file(b"global/pg_control")
    assert holds_relations(b"global")
    assert not holds_relations(b"pg_xact")
    assert all(b"/" not in name for name in EMPTIED)
