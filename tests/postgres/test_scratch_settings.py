"""Which settings a scratch instance gets, and what it tells of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.control import read_control
from drkit.postgres.restored_configuration import (
    installed_libraries,
    production_settings,
)
from drkit.postgres.scratch_settings import (
    HARMLESS_LIBRARIES,
    TAKEN_OVER,
    must_be,
    scratch_settings,
)
from drkit.postgres.superusers import superuser_names
from tests.pg import versions_under_test

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.postgres.control import ControlFile
    from tests.conftest import MakeCluster

MB = 1 << 20
INSTALLED = frozenset({"plpgsql", "pg_stat_statements", "pg_cron"})


@pytest.fixture(scope="module")
def control(cluster_factory: object) -> ControlFile:
    made = cluster_factory.make(max(versions_under_test()), start=False)  # type: ignore[attr-defined]
    with made as cluster:
        return read_control(f"{cluster.data_directory}/global/pg_control")[0]


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *TAKEN_OVER,
                *must_be(18),
                "shared_preload_libraries",
                "shared_buffers",
                "data_directory",
                "restore_command",
            ]
        ),
        st.text("abc, '/", max_size=8),
    )
)
def test_only_what_is_named_is_taken_over(
    control: ControlFile, production: dict[str, str]
) -> None:
    chosen = scratch_settings(production, control, 18, 64 * MB, INSTALLED)
    bare = scratch_settings({}, control, 18, 64 * MB, INSTALLED)
    same = chosen.forced.keys() - {"shared_preload_libraries"}
    assert {name: chosen.forced[name] for name in same} == (
        {name: bare.forced[name] for name in same}
    )
    assert chosen.taken == {k: v for k, v in production.items() if k in TAKEN_OVER}
    assert not chosen.taken.keys() & chosen.forced.keys()
    assert must_be(18).items() <= chosen.forced.items()


@pytest.mark.parametrize(
    ("asked", "kept", "said"),
    [
        ("", "", []),
        ("pg_stat_statements", "pg_stat_statements", []),
        ('$libdir/plpgsql, "pg_cron"', "$libdir/plpgsql", ["pg_cron"]),
        ("pgaudit,pg_stat_statements", "pg_stat_statements", ["pgaudit"]),
    ],
)
def test_libraries_are_kept_if_known_and_there(
    control: ControlFile, asked: str, kept: str, said: list[str]
) -> None:
    production = {"shared_preload_libraries": asked}
    chosen = scratch_settings(production, control, 15, 64 * MB, INSTALLED)
    assert chosen.forced["shared_preload_libraries"] == kept
    assert len(chosen.deviations) == len(said)
    for name, sentence in zip(said, chosen.deviations, strict=True):
        why = "reach outside" if name in INSTALLED else "not installed"
        assert name in sentence
        assert why in sentence


def test_harmless_libraries_are_none_with_workers() -> None:
    assert not HARMLESS_LIBRARIES & {"pg_cron", "pglogical", "pg_prewarm", "bdr"}


def test_newer_settings_are_not_given_to_older_servers(control: ControlFile) -> None:
    old = scratch_settings({}, control, 14, 64 * MB, INSTALLED).forced
    assert not old.keys() & {"archive_library", "event_triggers", "summarize_wal"}


@pytest.mark.parametrize(
    ("memory", "buffers"), [(1, 16), (256 * MB, 64), (1 << 40, 8192)]
)
def test_buffers_are_a_quarter_of_the_memory_within_bounds(
    control: ControlFile, memory: int, buffers: int
) -> None:
    forced = scratch_settings({}, control, 18, memory, INSTALLED).forced
    assert forced["shared_buffers"] == f"{buffers << 10}kB"


def test_every_installation_says_what_it_can_load(pg_version: int) -> None:
    found = installed_libraries(ServerBinaries.locate(pg_version))
    assert "plpgsql" in found
    assert "not_there" not in found


def test_an_installation_without_libraries_has_none(tmp_path: Path) -> None:
    assert installed_libraries(ServerBinaries(str(tmp_path), 18)) == frozenset()


def test_files_outside_of_the_backup_are_not_read(
    make_directory: Callable[[], Path],
) -> None:
    data, elsewhere = make_directory(), make_directory()
    (elsewhere / "foreign.conf").write_text("timezone = 'Mars/Base'\n")
    (data / "conf.d").mkdir()
    (data / "conf.d/a.conf").write_text("TimeZone = UTC\n")
    (data / "link.conf").symlink_to(elsewhere / "foreign.conf")
    (data / "postgresql.conf").write_text(
        f"include_dir = conf.d\ninclude '{elsewhere}/foreign.conf'\n"
        "include_if_exists = 'link.conf'\ninclude 'gone.conf'\nwork_mem=1MB\n"
    )
    auto = data / "postgresql.auto.conf"
    auto.write_text("work_mem = '2MB'\n")
    settings, missing = production_settings(str(data), auto)
    assert settings == {"timezone": "UTC", "work_mem": "2MB"}
    assert len(missing) == 3


def test_a_configuration_elsewhere_is_told(make_directory: Callable[[], Path]) -> None:
    data = make_directory()
    settings, (missing,) = production_settings(str(data), data / "none")
    assert settings == {}
    assert "outside of its data directory" in missing


def test_superusers_are_found_under_all_their_names(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    assert superuser_names(cluster.data_directory) == ["postgres"]
    cluster.rows(
        "CREATE ROLE plain; CREATE ROLE other SUPERUSER; CREATE ROLE gone SUPERUSER;"
        "DROP ROLE gone; CREATE ROLE renamer SUPERUSER LOGIN"
    )
    with cluster.connect(options="-c role=renamer") as connection:
        connection.execute("SET SESSION AUTHORIZATION renamer")
        connection.execute("ALTER ROLE postgres RENAME TO ünïcode")
        connection.execute("CHECKPOINT")
    found = superuser_names(cluster.data_directory)
    assert found[0] == "ünïcode"
    assert {"postgres", "other", "renamer"} <= set(found)
    assert "plain" not in found
