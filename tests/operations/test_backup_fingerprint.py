"""Fingerprints that backups take along: comparable, told, and never in the way."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.errors import DrkitError, PostgresUnreachable
from drkit.model.depth import Depth
from drkit.model.fingerprint import Mode
from drkit.model.label import BackupKind
from drkit.model.retention import Retention
from drkit.operations.expire import execute_expire, plan_expire
from drkit.operations.fingerprints.taking import compare
from drkit.operations.verifying.repository import Request, verify
from drkit.postgres.connection import connector
from drkit.postgres.fingerprint import BUSY
from drkit.postgres.interruptible import Interruptible
from drkit.repository.fingerprint import fingerprint_of
from tests.operations.backup_tools import (
    Listener,
    assert_tidy,
    difference_from_log,
    site,
)
from tests.operations.fingerprints import fill, taken_again, writers
from tests.operations.scene import drkit, restore
from tests.operations.test_backup_standby import make_pair
from tests.protect import NAME

if TYPE_CHECKING:
    from drkit.model.fingerprint import Fingerprint
    from tests.operations.backup_tools import Site
    from tests.operations.scene import Scene
    from tests.protect import Protected

TIMED = {"archive_timeout": "1s"}


def stored(site: Site, label: str) -> Fingerprint:
    """Read the fingerprint of a backup, which must have one."""
    found = fingerprint_of(site.repository(), site.manifest(label).head)
    assert found is not None
    return found


def restored_differences(
    scene: Scene, protected: Protected, label: str, expected: Fingerprint
) -> list[str]:
    """Restore to a fingerprint's moment; return where the copy differs."""
    target = scene.target()
    point = expected.restore_point
    where: tuple[str, ...] = ("--target-lsn", expected.lsn, "--exclusive")
    if point is not None:
        where = ("--target-name", point)
    restore(protected, target, label, *where)
    major = protected.cluster.binaries.major
    cluster = scene.start(target, major, autovacuum="off")
    found = compare(expected, taken_again(cluster, expected))
    cluster.close()
    return [one.text for one in found if one.severity == "failure"]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_backup_under_load_restores_to_what_it_took_along(
    newest_version: int, scene: Scene, mode: Mode
) -> None:
    _prove(newest_version, scene, mode, "local")


@pytest.mark.parametrize("source", ["local", "stream"])
@pytest.mark.long
def test_a_backup_of_any_major_does(pg_version: int, scene: Scene, source: str) -> None:
    for mode in Mode:
        _prove(pg_version, scene, mode, source)


def test_a_streamed_backup_of_an_old_major_does(scene: Scene) -> None:
    _prove(15, scene, Mode.EXACT, "stream")


def _prove(major: int, scene: Scene, mode: Mode, source: str) -> None:
    protected = scene.protect(major)
    fill(protected.cluster)
    here = site(protected, source, fingerprint=mode)
    with writers(protected.cluster) as done:
        taken = here.taken()
        assert min(done) > 0
    summary, made = taken.summary, taken.fingerprint
    assert made is not None
    assert made.warnings == ()
    assert made.held_seconds < 2
    assert (made.held_seconds > 0) == (mode is Mode.EXACT)
    expected = stored(here, summary.label)
    assert expected.mode is mode
    assert expected.restore_point == f"drkit {summary.label}"
    assert summary.fingerprint is not None
    assert str(summary.fingerprint.lsn) == expected.lsn
    assert summary.fingerprint.lsn >= summary.stop_lsn
    assert restored_differences(scene, protected, summary.label, expected) == []
    assert_tidy(here)


def test_an_incremental_takes_its_own(newest_version: int, scene: Scene) -> None:
    protected = scene.protect(newest_version, {"summarize_wal": "on"})
    fill(protected.cluster)
    here = site(protected, fingerprint=Mode.SAMPLED)
    here.take()
    protected.cluster.rows("INSERT INTO parts VALUES (7, 1)")
    taken = here.taken(kind=BackupKind.INCREMENTAL)
    assert taken.parent is not None
    label = taken.summary.label
    expected = stored(here, label)
    assert expected.restore_point == f"drkit {label}"
    assert restored_differences(scene, protected, label, expected) == []


def test_the_command_tells_it(newest_version: int, scene: Scene) -> None:
    protected = scene.protect(newest_version)
    protected.change_policy(
        lambda policy: policy.update(verification={"fingerprint": "exact"})
    )
    said = drkit(protected, "backup", NAME, "--output", "json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    told = found["fingerprint"]
    assert told["taken"]
    assert told["restore_point"] == f"drkit {found['backup']['label']}"
    assert found["backup"]["fingerprint"] == {"mode": "exact", "lsn": told["lsn"]}
    listed = json.loads(drkit(protected, "info", NAME, "--output", "json").out)
    assert told["lsn"] in json.dumps(listed)
    said = drkit(protected, "backup", NAME, "--type", "full")
    assert "exact, of " in said.out
    protected.change_policy(
        lambda policy: policy.update(verification={"fingerprint": "off"})
    )
    said = drkit(protected, "backup", NAME, "--type", "full", "--output", "json")
    assert json.loads(said.out)["fingerprint"] is None


def weakened(protected: Protected, *grants: str) -> None:
    """Let the policy name a role that can take backups, and has these rights too."""
    cluster = protected.cluster
    names = ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)")
    cluster.rows("CREATE ROLE weak LOGIN; GRANT pg_monitor TO weak")
    for name in (*names, *grants):
        cluster.rows(f"GRANT EXECUTE ON FUNCTION {name} TO weak")
    url = cluster.url.replace("postgres@", "weak@")
    protected.change_policy(lambda policy: policy["cluster"].update(url=url))


def test_without_the_right_to_a_restore_point_the_backup_is_good(
    newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(newest_version)
    weakened(protected)
    listener = Listener()
    here = site(protected, fingerprint=Mode.SAMPLED)
    taken = here.taken(listener)
    assert taken.fingerprint is not None
    assert taken.fingerprint.reference is None
    (warning,) = taken.fingerprint.warnings
    assert "no fingerprint was taken" in warning
    assert "permission denied for function pg_create_restore_point" in warning
    assert warning in [text for text, _ in listener.warnings]
    head = here.manifest(taken.summary.label).head
    assert warning in head.warnings
    assert head.fingerprint is None
    assert taken.summary.fingerprint is None
    assert taken.summary.warnings == len(head.warnings)
    assert_tidy(here)


def test_what_the_role_may_not_read_or_do_is_told(
    newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(newest_version)
    fill(protected.cluster)
    weakened(protected, "pg_create_restore_point(text)")
    here = site(protected, fingerprint=Mode.SAMPLED)
    taken = here.taken()
    assert taken.fingerprint is not None
    assert taken.fingerprint.reference is not None
    lacking, late = taken.fingerprint.warnings
    assert "tables: the role may not read it: grant it pg_read_all_data" in lacking
    assert "comes late" in late
    assert "pg_switch_wal" in late


def test_writers_that_do_not_end_are_told(newest_version: int, scene: Scene) -> None:
    protected = scene.protect(newest_version, {"deadlock_timeout": "100ms"})
    fill(protected.cluster)
    here = site(protected, fingerprint=Mode.EXACT)
    with protected.cluster.connect(application_name="a long report") as writer:
        writer.execute("BEGIN; UPDATE shop.orders SET price = 1 WHERE id = 1")
        taken = here.taken()
        writer.execute("ROLLBACK")
    assert taken.fingerprint is not None
    (warning,) = taken.fingerprint.warnings
    assert "the fingerprint is sampled, not exact" in warning
    assert "a long report" in warning
    assert stored(here, taken.summary.label).mode is Mode.SAMPLED


@pytest.mark.parametrize(
    "mode", [Mode.EXACT, pytest.param(Mode.SAMPLED, marks=pytest.mark.long)]
)
def test_a_table_that_is_being_altered_holds_no_backup_up(
    newest_version: int, scene: Scene, mode: Mode
) -> None:
    protected = scene.protect(newest_version, {"deadlock_timeout": "100ms"})
    protected.cluster.rows("CREATE TABLE busy (n int)")
    here = site(protected, fingerprint=mode)
    with protected.cluster.connect() as other:
        other.execute("BEGIN; ALTER TABLE busy ADD m int")
        taken = here.taken()
        other.execute("ROLLBACK")
    assert taken.fingerprint is not None
    assert taken.fingerprint.seconds < 15
    (warning,) = taken.fingerprint.warnings
    assert warning == f"the fingerprint lacks 1 table: {BUSY}"
    expected = stored(here, taken.summary.label)
    assert expected.mode is mode
    assert expected.databases[0].unread == {"public.busy": BUSY}


def test_a_database_that_cannot_be_entered_is_told(
    newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(newest_version)
    fill(protected.cluster)
    protected.cluster.rows("ALTER DATABASE side CONNECTION LIMIT 0")
    weakened(protected, "pg_create_restore_point(text)", "pg_switch_wal()")
    protected.cluster.rows("GRANT pg_read_all_data TO weak")
    taken = site(protected, fingerprint=Mode.SAMPLED).taken()
    assert taken.fingerprint is not None
    (warning,) = taken.fingerprint.warnings
    assert warning.startswith("the fingerprint lacks side: ")
    assert "too many connections" in warning


def test_a_lost_connection_costs_the_fingerprint_and_not_the_backup(
    newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(newest_version)
    fill(protected.cluster)
    here = site(protected, fingerprint=Mode.EXACT)
    with protected.cluster.connect() as writer:
        writer.execute("BEGIN; UPDATE shop.orders SET price = 1 WHERE id = 1")
        cut = threading.Thread(target=_cut_off, args=(protected,))
        cut.start()
        taken = here.taken()
        cut.join()
        writer.execute("ROLLBACK")
    assert taken.fingerprint is not None
    (warning,) = taken.fingerprint.warnings
    assert "no fingerprint was taken" in warning
    assert protected.repository().find(taken.summary.label)
    assert_tidy(here)


def _cut_off(protected: Protected) -> None:
    """End the fingerprint's sessions once it waits for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
        "'drkit fingerprint' AND wait_event_type = 'Lock'"
    )
    while not protected.cluster.sql(waiting):
        time.sleep(0.01)
    protected.cluster.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'drkit fingerprint'"
    )


def test_a_backup_that_fails_ends_the_fingerprint_and_leaves_none(
    newest_version: int, scene: Scene
) -> None:
    """The WAL does not come, while an exact fingerprint waits for a writer."""
    protected = scene.protect(newest_version)
    fill(protected.cluster)
    here = site(protected, fingerprint=Mode.EXACT, wal_timeout=timedelta(seconds=1))
    protected.cluster.rows("ALTER SYSTEM SET archive_command = 'false'")
    # by itself the fingerprint would wait for most of that
    protected.cluster.rows("ALTER SYSTEM SET deadlock_timeout = '60s'")
    protected.cluster.rows("SELECT pg_reload_conf()")
    with protected.cluster.connect() as writer:
        writer.execute("BEGIN; UPDATE shop.orders SET price = 1 WHERE id = 1")
        begun = time.monotonic()
        with pytest.raises(DrkitError, match="was not archived"):
            here.take()
        assert time.monotonic() - begun < 20
        writer.execute("ROLLBACK")
    assert_tidy(here)


def test_what_an_abandoned_attempt_stored_is_swept(
    newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(newest_version)
    here = site(protected, fingerprint=Mode.SAMPLED)

    def fail() -> None:
        names = [info.name for info in here.storage.list("")]
        assert any(name.endswith("/fingerprint") for name in names)
        raise DrkitError("the host went away")

    with pytest.raises(DrkitError, match="went away"):
        here.take(Listener(at={"commit": fail}))
    assert_tidy(here)


def test_a_standby_gives_a_sample_of_an_lsn(newest_version: int, scene: Scene) -> None:
    pair = make_pair(scene, newest_version, **TIMED)
    fill(pair.primary)
    pair.primary.rows("ALTER SCHEMA shop OWNER TO postgres")  # or it is left out
    pair.catch_up()
    here = site(pair.protected, fingerprint=Mode.EXACT)
    stop = threading.Event()
    ticking = threading.Thread(target=_tick, args=(pair.primary, stop))
    ticking.start()
    try:
        taken = here.taken()
    finally:
        stop.set()
        ticking.join()
    assert taken.fingerprint is not None
    (warning,) = taken.fingerprint.warnings
    assert "sampled, not exact" in warning
    assert "standby" in warning
    expected = stored(here, taken.summary.label)
    assert expected.restore_point is None
    assert taken.summary.fingerprint is not None
    assert taken.summary.fingerprint.lsn >= taken.summary.stop_lsn
    pair.primary.rows("DELETE FROM shop.orders")
    pair.protected.archive_now()
    label = taken.summary.label
    assert restored_differences(scene, pair.protected, label, expected) == []


def _tick(primary: object, stop: threading.Event) -> None:
    while not stop.wait(0.2):
        primary.switch_wal()  # type: ignore[attr-defined]


def test_an_expiry_takes_it_along(newest_version: int, scene: Scene) -> None:
    protected = scene.protect(newest_version)
    here = site(protected, fingerprint=Mode.SAMPLED)
    first, second = here.take(), here.take()
    repository = here.repository()
    name = repository.layout.fingerprint(
        first.label, repository.find(first.label).attempt
    )
    assert repository.storage.size(name) > 0
    plan = plan_expire(repository, Retention(full=1), repository.clock.now())
    execute_expire(repository, plan, "host", Listener())
    assert protected.labels() == [second.label]
    assert difference_from_log(here) == (set(), set())


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("missing", marks=pytest.mark.long),
        pytest.param("shorter", marks=pytest.mark.long),
        "bit",
    ],
)
def test_a_damaged_one_is_found_and_blames_no_restore(
    newest_version: int, scene: Scene, fault: str
) -> None:
    protected = scene.protect(newest_version)
    here = site(protected, fingerprint=Mode.SAMPLED)
    label = here.take().label
    repository = here.repository()
    name = repository.layout.fingerprint(label, repository.find(label).attempt)
    data = bytearray(repository.storage.get(name))
    repository.storage.delete(name)
    if fault == "shorter":
        repository.storage.put(name, data[:-1])
    elif fault == "bit":
        data[200] ^= 1
        repository.storage.put(name, data)
    for depth in (Depth.OBJECTS, Depth.DATA):
        found = verify(repository, Request(depth=depth), None, Listener())
        if depth is Depth.OBJECTS and fault == "bit":
            assert found.exit_code == 0
            continue
        (damage,) = found.damage
        assert damage.name == name
        assert (damage.backup, damage.backups) == (label, ())
        assert found.exit_code == 15
        assert found.restorable is not None
        assert found.restorable.windows[0].missing is None
    target = scene.target()
    restore(protected, target, label)


def test_sessions_end_when_they_are_interrupted(
    newest_version: int, scene: Scene
) -> None:
    cluster = scene.protect(newest_version).cluster
    connect = Interruptible(connector(cluster.url, None, "sleeper"))
    connection = connect(None)
    timer = threading.Timer(0.2, connect.interrupt)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(Exception, match=r"cancel|closed|lost"):
        connection.execute("SELECT pg_sleep(30)")
    timer.join()
    assert time.monotonic() - begun < 5
    with pytest.raises(PostgresUnreachable, match="interrupted"):
        connect(None)
    connection.close()
    connect.close()
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)'"
    assert cluster.sql(asleep + " AND state = 'active'") == 0
