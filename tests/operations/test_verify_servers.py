"""Verifying backups of real servers: page checksums, damage, and what comes next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit.model.page import PAGE
from tests.cli.test_json_output import agree
from tests.operations.scene import drkit, restore
from tests.protect import NAME

if TYPE_CHECKING:
    from tests.operations.scene import Scene
    from tests.protect import Protected

DAMAGED_PAGES = 3
CORRUPT, MISSING_WAL = 15, 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def protect(scene: Scene, version: int, **options: Any) -> Protected:
    made = scene.protect(version, {"autovacuum": "off"}, **options)
    made.cluster.psql("""
        CREATE TABLE t AS SELECT n, repeat('x', 200) AS filler
            FROM generate_series(1, 5000) AS n;
        VACUUM t; CHECKPOINT;
    """)
    return made


def table(protected: Protected) -> str:
    found: str = protected.cluster.sql("SELECT pg_relation_filepath('t')")
    return found


def back_up(protected: Protected, code: int = 0) -> str:
    said = drkit(protected, "backup", NAME, "--output", "json", "--type", "full")
    assert said.code == code, said.err
    label: str = json.loads(said.out)["backup"]["label"]
    return label


def verify(protected: Protected, *options: str, code: int = 0) -> dict[str, Any]:
    said = drkit(protected, "verify", NAME, "--output", "json", *options)
    assert said.code == code, said.out + said.err
    found: dict[str, Any] = json.loads(said.out)
    assert found["exit_code"] == code
    return found


def first_pack(protected: Protected, label: str) -> Path:
    packs = f"{NAME}/backups/{label}-*/packs/000000"
    return next(protected.repository_root.glob(packs))


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))


def test_every_page_of_a_backup(scene: Scene, pg_version: int) -> None:
    protected = protect(scene, pg_version)
    label = back_up(protected)
    found = verify(protected)
    assert found["damage"] == found["notes"] == []
    assert found["backups"] == [label]
    assert found["page_checksums"] > 5000 // 40
    assert found["opened_bytes"] > 1 << 20
    assert found["restorable"][0]["labels"] == [label]

    flip(Path(protected.cluster.data_directory, table(protected)), 3 * PAGE + 5000)
    spoiled = back_up(protected, code=DAMAGED_PAGES)
    again = verify(protected)
    (note,) = again["notes"]
    assert spoiled in note
    assert f"{table(protected)} page 3" in note

    pack = next(
        protected.repository_root.glob(f"{NAME}/backups/{label}-*/packs/000000")
    )
    flip(pack, 5000)
    hurt = verify(protected, code=CORRUPT)
    agree("verify", hurt)
    (damage,) = hurt["damage"]
    assert damage["object"].endswith("packs/000000")
    assert damage["backups"] == [label]
    assert damage["places"]
    assert hurt["findings"]
    assert [one["label"] for one in hurt["unrestorable"]] == [label]
    assert hurt["restorable"][0]["labels"] == [spoiled]


@pytest.mark.parametrize("version", [16, 18])
def test_the_next_incremental_stores_damaged_content_anew(
    scene: Scene, version: int
) -> None:
    protected = protect(scene, version)
    label = back_up(protected)
    for pack in protected.repository_root.glob(f"{NAME}/backups/{label}-*/packs/*"):
        flip(pack, 5000)
    verify(protected, code=CORRUPT)

    said = drkit(protected, "backup", NAME, "--output", "json", "--type", "incremental")
    assert said.code == 0, said.err
    healed = json.loads(said.out)["backup"]["label"]
    assert healed.endswith("-incr")
    found = verify(protected, code=CORRUPT)
    assert {one for damage in found["damage"] for one in damage["backups"]} == {label}
    assert [one["labels"] for one in found["restorable"]] == [[healed]]

    target = scene.target()
    restore(protected, target, healed)
    query = "SELECT count(*), sum(n), min(filler) FROM t"
    restored = scene.start(target, version)
    assert restored.rows(query) == protected.cluster.rows(query)


def test_without_page_checksums(scene: Scene, newest_version: int) -> None:
    protected = protect(scene, newest_version, data_checksums=False)
    label = back_up(protected)
    found = verify(protected)
    assert found["page_checksums"] == 0
    (note,) = found["notes"]
    assert f"{label} is of a cluster without page checksums" in note


def test_what_people_read(scene: Scene, newest_version: int) -> None:
    protected = protect(scene, newest_version)
    label = back_up(protected)
    said = drkit(protected, "verify", NAME)
    assert said.code == 0
    assert said.out.startswith("main: no damage in 1 backup and their WAL\n")
    assert "restorable to any moment" in said.out

    pack = next(
        protected.repository_root.glob(f"{NAME}/backups/{label}-*/packs/000000")
    )
    pack.unlink()
    said = drkit(protected, "verify", NAME, "latest", "--depth", "objects")
    assert said.code == CORRUPT
    assert "main: 1 object DAMAGED" in said.out
    assert "is missing, though its backup was committed" in said.out
    assert "and " in said.out
    assert " more; --output json names all" in said.out
    assert f"touches {label}" in said.out
    assert "next: drkit backup main, which stores the damaged pages anew" in said.out
    assert f"NOT RESTORABLE: {label}" in said.out
    informed = drkit(protected, "info", NAME)
    assert f"NOT RESTORABLE: {label}: a verification found" in informed.out
    assert "nothing can be restored" in informed.out


@pytest.fixture(scope="module")
def plain(scene: Scene, newest_version: int) -> Protected:
    """A cluster with a backup that nobody changes."""
    protected = protect(scene, newest_version)
    back_up(protected)
    return protected


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--depth", "restore", "--sample", "1/7"], 2),
        (["--depth", "restore", "--resume"], 2),
        (["19990101", "--depth", "restore"], 14),
        (["--depth", "objects", "--sample", "1/7"], 2),
        (["--depth", "objects", "--resume"], 2),
        (["--sample", "8/7"], 2),
        (["19990101"], 14),
    ],
)
def test_what_is_refused(plain: Protected, options: list[str], code: int) -> None:
    said = drkit(plain, "verify", NAME, *options, "--log-format", "json")
    assert said.code == code
    assert said.error["hint"]
    assert said.out == ""


def test_resume_and_sample_on_the_command_line(
    plain: Protected, own_cache: Path
) -> None:
    said = drkit(plain, "verify", NAME, "--resume", "--sample", "1/1")
    assert said.code == 0
    assert "there is nothing to resume" in said.err
    assert list(own_cache.glob("drkit/verify-*")) == []
