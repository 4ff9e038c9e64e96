"""What drkit makes of a server's incremental backups, held against pg_combinebackup.

Both are given the same bytes.
"""

from __future__ import annotations

import os
import tarfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from drkit import wiring
from drkit.model.due import Due
from drkit.model.label import BackupKind
from drkit.model.manifest import FileKind
from drkit.operations.backup import take_backup
from drkit.operations.backup_options import BackupOptions
from drkit.postgres.connection import replication_connect
from drkit.postgres.replication import BaseBackupStream
from drkit.postgres.stream_source import StreamSource
from drkit.repository.chain import read_chain
from drkit.repository.unpacking import PackReader
from drkit.sites.source import open_source
from tests.operations.backup_tools import Listener, site
from tests.pg import give_to, run_as

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.postgres.replication import ArchiveData, StreamStart
    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

SETTINGS = {"summarize_wal": "on", "autovacuum": "off"}
# The file of each has its own rules, and pg_combinebackup writes one of its own.
LEFT_TO_OTHERS = {"backup_label", "tablespace_map", "backup_manifest"}


class Overheard(BaseBackupStream):
    """Writes what passes to a directory, as pg_basebackup would."""

    into: Path

    def begin_incremental(self, label: str, manifest: bytes) -> StreamStart:
        self.start = super().begin_incremental(label, manifest)
        return self.start

    def begin(self, label: str) -> StreamStart:
        self.start = super().begin(label)
        return self.start

    def data(
        self, archives: int, given_up: Callable[[], bool]
    ) -> Iterator[ArchiveData]:
        for one in super().data(archives, given_up):
            name = "backup_manifest" if one.archive is None else f"{one.archive}.tar"
            with (self.into / name).open("ab") as file:
                file.write(one.data)
            yield one

    def unpack(self) -> dict[str, Path]:
        """Unpack the archives; return where each tablespace's files are, by place."""
        spaces = {}
        for number, (oid, location) in enumerate(self.start.archives):
            archive = self.into / f"{number}.tar"
            target = self.into / (f"space-{oid}" if oid else "data")
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="tar")
            archive.unlink()
            if oid:
                spaces[location] = target
                (self.into / "links").mkdir(exist_ok=True)
                (self.into / "links" / str(oid)).symlink_to(target)
        data = self.into / "data"
        for link in (self.into / "links").iterdir():
            link.rename(data / "pg_tblspc" / link.name)
        (self.into / "backup_manifest").rename(data / "backup_manifest")
        return spaces


def _take(
    protected: Protected, kind: BackupKind, into: Path
) -> tuple[str, dict[str, Path]]:
    """Take a backup; return its label, and where pg_combinebackup finds the same."""
    with closing(open_source(protected.policy(), wiring.Secrets({}))) as opened:
        plain = opened.source
        assert isinstance(plain, StreamSource)
        connect = partial(replication_connect, protected.cluster.url, None, "backup")
        stream = Overheard(connect(), connect)
        stream.into = into
        source = StreamSource(
            wiring.connect_to(protected.policy(), wiring.Secrets({}), "test"),
            stream,
            plain._facts,
            opened.present.server,
        )
        used = site(protected)
        with closing(source):
            taken = take_backup(
                used.repository(),
                opened.present,
                source,
                Due(kind, "asked for"),
                BackupOptions(
                    "here",
                    "stream",
                    2,
                    1,
                    used.wal_timeout,
                    opened.archiver,
                ),
                Listener(),
            )
    assert taken.summary.kind is kind, taken.reason
    return taken.summary.label, stream.unpack()


def _combine(
    cluster: Cluster, parts: list[tuple[Path, dict[str, Path]]], into: Path
) -> Path:
    """Run pg_combinebackup; return a directory whose pg_tblspc is of directories."""
    give_to(cluster.account, into)
    for path, _ in parts:
        give_to(cluster.account, path)
    mapping = [
        f"--tablespace-mapping={place}={into}/{place.name}"
        for place in parts[-1][1].values()
    ]
    run_as(
        cluster.account,
        [
            cluster.binaries.tool("pg_combinebackup"),
            "--no-sync",
            *mapping,
            f"--output={into}/combined",
            *(str(path / "data") for path, _ in parts),
        ],
    )
    return into / "combined"


def _files(root: Path) -> dict[str, bytes]:
    found = {}
    for place, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = Path(place, name)
            found[os.path.relpath(path, root)] = path.read_bytes()
    return found


def _composed(protected: Protected, label: str) -> dict[str, bytes]:
    repository = protected.repository()
    page_map = read_chain(repository, repository.find(label))
    content = [bytearray(size) for size in page_map.files["size"].tolist()]
    reader = PackReader(repository, page_map)
    for pack in reader.packs():
        for runs, plain in reader.frames(pack):
            for number, position, offset, length in runs:
                part = plain[offset : offset + length]
                content[number][position : position + length] = part
    return {
        os.fsdecode(path): bytes(content[number])
        for number, path in enumerate(page_map.paths)
        if page_map.files["kind"][number] == FileKind.FILE
    }


WORK = [
    """
        INSERT INTO t SELECT n, repeat('x', 300) FROM generate_series(1, 3000) AS n;
        UPDATE t SET n = n + 1 WHERE n % 97 = 0; INSERT INTO there SELECT 1;
        CREATE DATABASE by_files STRATEGY file_copy TEMPLATE work;
    """,
    """
        DELETE FROM t WHERE ctid >= '(90,0)'; VACUUM (TRUNCATE) t; TRUNCATE emptied;
        UPDATE there SET n = n + 1 WHERE n % 500 = 1; VACUUM FULL pg_class;
        CREATE DATABASE by_wal STRATEGY wal_log TEMPLATE work; DROP TABLE dropped;
    """,
    """
        UPDATE t SET n = -n WHERE ctid BETWEEN '(3,0)' AND '(5,0)';
        CREATE INDEX ON t (n);
        INSERT INTO t SELECT n, 'grown' FROM generate_series(1, 20000) AS n;
        DELETE FROM there WHERE n % 2 = 0; SELECT count(*) FROM t;
    """,
]


def _prepare(scene: Scene, protected: Protected) -> None:
    cluster, space = protected.cluster, scene.directory()
    cluster.psql(f"""
        CREATE TABLESPACE elsewhere LOCATION '{space}';
        CREATE DATABASE work; CREATE TABLE dropped AS SELECT 1 AS n;
        CREATE TABLE t (n int, filler text);
        INSERT INTO t SELECT n, repeat('x', 300) FROM generate_series(1, 3000) AS n;
        CREATE TABLE there TABLESPACE elsewhere AS
            SELECT n FROM generate_series(1, 30000) AS n;
        CREATE TABLE emptied AS SELECT n FROM generate_series(1, 30000) AS n;
        VACUUM;
    """)
    cluster.psql("CREATE TABLE u AS SELECT generate_series(1, 5000) AS n", "work")


def test_page_maps_agree_with_pg_combinebackup(
    scene: Scene, newest_version: int
) -> None:
    protected = scene.protect(newest_version, SETTINGS, source="stream")
    _prepare(scene, protected)
    cluster, parts = protected.cluster, []
    incrementals = [BackupKind.INCREMENTAL] * len(WORK)
    for kind, work in zip([BackupKind.FULL, *incrementals], ["", *WORK], strict=True):
        cluster.psql(work)
        into = scene.directory()
        label, spaces = _take(protected, kind, into)
        parts.append((into, spaces))
    expected = _files(_combine(cluster, parts, scene.directory()))
    found = _composed(protected, label)
    maps = {path for path in expected if path.endswith("_vm")}
    assert expected.keys() - LEFT_TO_OTHERS - maps <= found.keys()
    assert found.keys() <= expected.keys()
    different = [path for path in found if found[path] != expected[path]]
    assert different == []
    read_label = parts[-1][0] / "data" / "backup_label"
    assert b"INCREMENTAL FROM LSN" in read_label.read_bytes()
    head = site(protected).manifest(label).head
    assert "INCREMENTAL" not in head.backup_label
    assert "START WAL LOCATION" in head.backup_label
