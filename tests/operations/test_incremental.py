"""Incremental backups from end to end: what they store, and that they restore."""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.crypto.keys import format_kek
from drkit.errors import KeyUnavailable
from drkit.model.label import BackupKind
from tests.operations.backup_tools import content, restored, site
from tests.protect import NAME

if TYPE_CHECKING:
    from typing import Any

    from tests.operations.scene import Scene
    from tests.protect import Protected

MODES = ["pg15", "pg16", "pg18", "pg18-summaries"]


@pytest.fixture(params=MODES)
def protected(request: pytest.FixtureRequest, scene: Scene) -> Protected:
    major, _, summaries = request.param.removeprefix("pg").partition("-")
    settings = {"summarize_wal": "on"} if summaries else {}
    made = scene.protect(int(major), settings)
    made.cluster.psql("""
        CREATE TABLE big AS
            SELECT n, repeat(md5(n::text), 10) AS text FROM generate_series(1, 30000) n;
        CREATE INDEX ON big (n);
        CREATE TABLE still AS SELECT n FROM generate_series(1, 50000) n;
        CHECKPOINT;
    """)
    return made


def point(protected: Protected, name: str) -> str:
    """Make a restore point, and archive it."""
    protected.cluster.rows(f"SELECT pg_create_restore_point('{name}')")
    protected.archive_now()
    return name


def incremental(protected: Protected) -> dict[str, Any]:
    return protected.json("backup", NAME, "--type", "incremental")


def test_chain_restores_at_every_link(scene: Scene, protected: Protected) -> None:
    labels = [protected.backup()]
    contents = [content(protected.cluster)]
    point(protected, "p0")
    for step in range(3):
        protected.cluster.psql(f"""
            UPDATE big SET text = 'step {step}' WHERE n % 1000 = {step};
            DELETE FROM big WHERE n BETWEEN {step * 100} AND {step * 100 + 50};
            CREATE TABLE new_{step} AS SELECT n FROM generate_series(1, 1000) n;
        """)
        taken = incremental(protected)
        assert taken["parent"] == labels[-1], taken
        assert taken["backup"]["kind"] == "incr"
        labels.append(taken["backup"]["label"])
        contents.append(content(protected.cluster))
        point(protected, f"p{step + 1}")
    for number, (label, expected) in enumerate(zip(labels, contents, strict=True)):
        to = ("--target-name", f"p{number}", "--target-action", "promote")
        with restored(scene, protected, label, *to) as cluster:
            assert content(cluster) == expected


def test_stores_what_changed_and_no_more(protected: Protected) -> None:
    # or the fingerprint is the first to read new rows, and flags their pages
    protected.cluster.psql("VACUUM")
    full = protected.json("backup", NAME, "--type", "full")["backup"]
    protected.cluster.psql("UPDATE big SET text = 'x' WHERE n = 15000")
    taken = incremental(protected)["backup"]
    assert taken["bytes"] >= full["bytes"]
    manifest = site(protected).manifest(taken["label"])
    files = manifest.run_files().tolist()
    stored = Counter[bytes]()
    for file, length in zip(files, manifest.runs["length"].tolist(), strict=True):
        stored[manifest.paths[file]] += length
    still = protected.cluster.sql("SELECT pg_relation_filepath('still')").encode()
    big = protected.cluster.sql("SELECT pg_relation_filepath('big')").encode()
    # going by LSNs, pages without any are stored: from 16 on there are some at the end
    assert stored[still] <= 4 * 8192
    assert 8192 <= stored[big] <= 8 * 8192
    assert len(manifest.paths) < len(site(protected).manifest(full["label"]).paths) / 4


def test_idle_stores_next_to_nothing(protected: Protected) -> None:
    protected.backup()
    protected.cluster.psql("CHECKPOINT")
    incremental(protected)
    taken = incremental(protected)["backup"]
    assert taken["stored_bytes"] < 200_000


def test_a_damaged_chain_makes_a_full(protected: Protected) -> None:
    label = protected.backup()
    for pack in protected.repository_root.glob(f"{NAME}/backups/{label}-*/manifest"):
        pack.write_bytes(b"x" + pack.read_bytes()[1:])
    done = protected.json("backup", NAME, "--type", "incremental")
    assert done["parent"] is None
    assert "can't be read" in done["reason"]
    assert done["backup"]["kind"] == "full"


def test_another_key_is_an_error_and_no_full_backup(protected: Protected) -> None:
    label = protected.backup()
    key = protected.home / "keys" / "backup.key"
    right = key.read_text()
    key.write_text(format_kek("backup", os.urandom(32)))
    done = protected.drkit("backup", NAME)
    assert done.returncode == KeyUnavailable.exit_code
    assert label.encode() in done.stderr
    assert b"--type full" in done.stderr
    key.write_text(right)
    assert protected.labels() == [label]
    assert incremental(protected)["parent"] == label


def test_a_lost_key_makes_a_full(protected: Protected) -> None:
    protected.backup()
    for wrapped in protected.repository_root.glob(f"{NAME}/keys/backup/*/*"):
        wrapped.unlink()
    done = incremental(protected)
    assert done["parent"] is None
    assert "data key" in done["reason"]


def test_auto_takes_what_is_due(protected: Protected) -> None:
    def auto() -> dict[str, Any]:
        return protected.json("backup", NAME)

    first = auto()
    assert (first["parent"], first["reason"]) == (None, "there is no full backup yet")
    assert auto()["parent"] == first["backup"]["label"]
    repository = site(protected)
    clock = repository.clock
    assert clock.now() - repository.repository().backups()[0].backup.start_time < (
        timedelta(minutes=5)
    )
    assert site(protected).take(kind=BackupKind.INCREMENTAL).kind == "incr"
