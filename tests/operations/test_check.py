"""`check`: what is right passes with a real WAL round trip, what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit import wiring
from drkit.config.compiled import compile_policy
from drkit.errors import (
    Corrupt,
    KeyUnavailable,
    PolicyError,
    PostgresRefused,
    PostgresUnreachable,
    RepositoryMissing,
    WalMissing,
)
from drkit.model.finding import State, first_exit_code
from drkit.operations.check import check
from drkit.repository.evidence import append
from drkit.sites.check import check_subject
from tests.builders import FakeClock
from tests.evidence import bare
from tests.faults import FaultyStorage
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.model.evidence import Record
    from drkit.model.finding import Finding
    from tests.protect import Protected

    MakeProtected = Callable[..., Protected]

SMALL = 1 << 20
ROUND_TRIP = "WAL round trip"


class Silent:
    """Progress that nobody watches."""

    def phase(self, name: str, total: int | None = None) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def event(self, name: str, **fields: object) -> None:
        pass

    def warning(self, message: str, **fields: object) -> None:
        pass


def findings(
    protected: Protected, seconds: float = 20, **changes: Any
) -> dict[str, Finding]:
    """Check a cluster in this process; `changes` replace fields of the subject."""
    subject = check_subject(
        protected.policy(), wiring.Secrets({}), timedelta(seconds=seconds)
    )
    found = check(replace(subject, **changes), Silent())
    named = {one.name: one for one in found}
    assert len(named) == len(found), "a thing is told twice"
    return named


def states(found: dict[str, Finding], state: State) -> set[str]:
    return {name for name, one in found.items() if one.state is state}


@pytest.fixture
def protected(make_protected: MakeProtected) -> Protected:
    return make_protected(15, wal_segment_size=SMALL)


def test_a_cluster_that_is_set_up_passes(protected: Protected) -> None:
    found = findings(protected)
    assert states(found, State.FAILED) == set()
    assert states(found, State.SKIPPED) == {"heartbeat"}  # there is none
    assert states(found, State.WARNING) == {"fsync"}  # tests switch it off
    assert set(found) == {
        *("repository", "create-only", "log", "keys", "evidence", "WAL signatures"),
        *("connection", "rights", "server", "fingerprint", "log's head"),
        *("system identifier", "archive_mode", "archive_command", "wal_level"),
        *("fsync", "full_page_writes", "data_checksums", "data directory"),
        *("disk space", "clock", "archiver", "heartbeat", ROUND_TRIP),
    }
    # the probe is gone, and the round trip's segment is there
    storage = protected.repository().storage
    assert list(storage.list(f"{NAME}/probes/")) == []
    segment = found[ROUND_TRIP].detail.split()[0]
    assert segment in {one.file.name for one in protected.repository().wal.list()}
    # again at once: the restore point is then the first record of its segment
    again = findings(protected)[ROUND_TRIP]
    assert again.state is State.OK
    assert again.detail.split()[0] > segment


def test_the_newest_version_streamed(make_protected: MakeProtected) -> None:
    protected = make_protected(18, source="stream", wal_segment_size=SMALL)
    found = findings(protected)
    assert states(found, State.FAILED) | states(found, State.SKIPPED) == {"heartbeat"}
    assert found["replication"].state is State.OK
    assert "data directory" not in found


def test_a_repository_that_is_nowhere(protected: Protected) -> None:
    nowhere = f"file://{protected.home}/elsewhere"
    protected.change_policy(lambda policy: policy["repository"].update(url=nowhere))
    found = findings(protected)
    assert found["repository"].state is State.FAILED
    assert first_exit_code(tuple(found.values())) == RepositoryMissing.exit_code
    assert states(found, State.SKIPPED) == {
        *(
            "create-only",
            "keys",
            "log's head",
            "WAL signatures",
            "evidence",
            "heartbeat",
            ROUND_TRIP,
        )
    }
    # what needs no repository was looked at all the same
    assert found["server"].state is State.OK
    assert found["archive_command"].state is State.OK


def test_a_chain_of_evidence_that_lacks_a_record(protected: Protected) -> None:
    repository, system = protected.repository(), protected.policy().cluster

    def ours(sequence: int, previous: str) -> Record:
        made = bare(sequence, previous)
        whose, now = system.system_identifier, datetime.now(UTC)
        made = replace(made, cluster=NAME, system_identifier=whose)
        return replace(made, started=now, finished=now)

    for _ in range(2):
        append(repository, ours)
    assert findings(protected)["evidence"].detail.startswith("2 records")
    repository.storage.delete(repository.layout.evidence_record(0))
    found = findings(protected)
    assert states(found, State.FAILED) == {"evidence"}
    assert found["evidence"].exit_code == Corrupt.exit_code
    assert "evidence/0000000000 is missing" in found["evidence"].detail


def test_a_server_that_is_down(protected: Protected) -> None:
    protected.cluster.stop()
    found = findings(protected)
    assert states(found, State.FAILED) == {"server"}
    assert found["server"].exit_code == PostgresUnreachable.exit_code
    assert found["keys"].state is State.OK
    assert found["data directory"].state is State.OK
    assert states(found, State.SKIPPED) == {
        *("settings", "clock", "archiver", "heartbeat", ROUND_TRIP)
    }


def test_a_missing_archive_command(protected: Protected) -> None:
    set_archive_command(protected, "")
    found = findings(protected)
    assert states(found, State.FAILED) == {"archive_command"}
    command = wiring.archive_command(str(protected.policy_path))
    assert command in str(found["archive_command"].hint)
    assert found[ROUND_TRIP].state is State.SKIPPED


def test_another_tool_s_archive_command(protected: Protected) -> None:
    set_archive_command(protected, "cp %p /nowhere/%f")
    found = findings(protected, seconds=0.5)
    assert found["archive_command"].state is State.FAILED
    assert found["archive_command"].exit_code == PostgresRefused.exit_code


def test_a_failing_archive_command_is_told_with_what_the_server_knows(
    protected: Protected,
) -> None:
    command = wiring.archive_command(f"{protected.home}/nothing/{NAME}.yaml")
    set_archive_command(protected, command)
    protected.cluster.switch_wal()
    wait_until(protected, "SELECT failed_count > 0 FROM pg_stat_archiver")
    found = findings(protected, seconds=1)
    assert found["archiver"].state is State.WARNING
    assert found[ROUND_TRIP].exit_code == WalMissing.exit_code
    assert "not archived within 1 s" in found[ROUND_TRIP].detail
    assert command in found[ROUND_TRIP].detail


def test_a_segment_that_comes_back_damaged(protected: Protected) -> None:
    def flip(body: bytes) -> bytes:
        """Damage what is as large as a segment."""
        middle = len(body) // 2
        changed = bytes([body[middle] ^ 1])
        return body[:middle] + changed + body[middle + 1 :] if middle > 2048 else body

    policy, secrets = protected.policy(), wiring.Secrets({})
    right = protected.repository()
    faulty = FaultyStorage(right.storage)
    faulty.change_bodies(flip)
    damaged = wiring.repository_in(
        faulty, right.lineage, compile_policy(policy), secrets
    )
    # random bytes, so that the segment stays large when it is compressed
    noise = (
        "SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 1e3)"
    )
    protected.cluster.rows(f"SELECT pg_logical_emit_message(false, 'x', ({noise}))")
    found = findings(protected, repository=lambda: damaged)
    assert states(found, State.FAILED) == {ROUND_TRIP}
    assert found[ROUND_TRIP].exit_code == Corrupt.exit_code


def test_archiving_that_is_switched_off(
    make_protected: MakeProtected,
) -> None:
    settings = {"archive_mode": "off", "wal_level": "minimal", "max_wal_senders": "0"}
    protected = make_protected(15, settings, wal_segment_size=SMALL)
    found = findings(protected)
    assert states(found, State.FAILED) == {"archive_mode", "wal_level"}
    assert "restart" in str(found["archive_mode"].hint)
    assert found[ROUND_TRIP].state is State.SKIPPED


def test_settings_that_endanger_the_data_are_warnings(
    make_protected: MakeProtected,
) -> None:
    protected = make_protected(
        15, {"full_page_writes": "off"}, wal_segment_size=SMALL, data_checksums=False
    )
    found = findings(protected)
    assert states(found, State.WARNING) == {
        *("fsync", "full_page_writes", "data_checksums")
    }
    assert states(found, State.FAILED) == set()


def test_a_standby(protected: Protected) -> None:
    cluster = protected.cluster
    cluster.stop()
    Path(cluster.data_directory, "standby.signal").touch()
    cluster.start()
    found = findings(protected)
    assert found["server"].detail == "PostgreSQL 15, a standby on timeline 1"
    assert found["archiving"].state is State.OK
    assert states(found, State.FAILED) == set()
    assert found[ROUND_TRIP].state is State.SKIPPED


def test_another_cluster_behind_the_url(protected: Protected) -> None:
    protected.change_policy(
        lambda policy: policy["cluster"].update(system_identifier="7300000000000000001")
    )
    found = findings(protected)
    assert states(found, State.FAILED) == {
        *("system identifier of the log", "system identifier", "data directory")
    }
    assert found[ROUND_TRIP].state is State.SKIPPED


def test_a_copy_of_the_data_directory_is_not_it(
    protected: Protected, make_directory: Callable[[], Path]
) -> None:
    """As after a restore beside the old one: the same identifier, other files."""
    copy = make_directory() / "copy"
    (copy / "global").mkdir(parents=True)
    original = Path(protected.cluster.data_directory, "global/pg_control")
    (copy / "global/pg_control").write_bytes(original.read_bytes())
    found = findings(protected, data_directory=str(copy))
    assert states(found, State.FAILED) == {"data directory"}
    assert "correct cluster.data_directory" in str(found["data directory"].hint)


def test_keys_that_are_unusable_are_named_and_the_rest_goes_on(
    protected: Protected,
) -> None:
    key = protected.home / "keys" / "wal.key"
    key.chmod(0o644)
    found = findings(protected, seconds=2)
    assert found["keys.wal"].state is State.FAILED
    assert first_exit_code(tuple(found.values())) == KeyUnavailable.exit_code
    assert found["server"].state is State.OK
    # archive_command can't use it either
    assert found[ROUND_TRIP].state is State.FAILED


@pytest.mark.parametrize("source", ["local", "stream"])
def test_rights_are_asked_for_as_sql_that_suffices(
    make_protected: MakeProtected, source: str
) -> None:
    protected = make_protected(15, source=source, wal_segment_size=SMALL)
    cluster = protected.cluster
    cluster.rows('CREATE ROLE "back up" LOGIN')
    url = cluster.url.replace("postgres@", "back%20up@")
    protected.change_policy(lambda policy: policy["cluster"].update(url=url))
    lacking = findings(protected)
    refused = {"replication"} if source == "stream" else set()
    assert states(lacking, State.FAILED) == {"rights", "server"} | refused
    hint = str(lacking["rights"].hint)
    assert '"back up"' in hint
    cluster.rows(hint.partition(": ")[2])
    found = findings(protected)
    assert states(found, State.FAILED) | states(found, State.SKIPPED) == {"heartbeat"}
    assert protected.backup()


def test_streaming_needs_a_replication_connection(
    make_protected: MakeProtected,
) -> None:
    protected = make_protected(15, source="stream", wal_segment_size=SMALL)
    cluster = protected.cluster
    hba = Path(cluster.data_directory, "pg_hba.conf")
    hba.write_text("local replication all reject\n" + hba.read_text())
    cluster.rows("SELECT pg_reload_conf()")
    found = findings(protected)
    assert states(found, State.FAILED) == {"replication"}
    assert "pg_hba.conf" in found["replication"].detail


def test_clocks_that_differ_are_a_warning(protected: Protected) -> None:
    clock = FakeClock(wiring.SystemClock().now() + timedelta(seconds=90))
    found = findings(protected, clock=clock)
    assert found["clock"].state is State.WARNING
    assert "90." in found["clock"].detail or "89." in found["clock"].detail


def test_the_command(protected: Protected) -> None:
    right = protected.json("check", NAME)
    assert right["passed"] is True
    assert right["checks"][0]["name"] == "policy"
    assert right["checks"][-1]["name"] == ROUND_TRIP

    set_archive_command(protected, "exit 1")
    wrong = protected.drkit("check", NAME, "--timeout", "1 second", "--output", "json")
    assert wrong.returncode == PostgresRefused.exit_code
    assert json.loads(wrong.stdout)["exit_code"] == wrong.returncode


def test_a_wrong_policy_is_told(protected: Protected) -> None:
    protected.change_policy(lambda policy: policy.update(retention={}))
    done = protected.drkit("check", NAME)
    assert done.returncode == PolicyError.exit_code
    assert "retention" in done.stderr.decode()
    as_json = protected.drkit("check", NAME, "--output", "json")
    assert as_json.returncode == PolicyError.exit_code
    (policy,) = json.loads(as_json.stdout)["checks"]
    assert (policy["name"], policy["state"]) == ("policy", "failed")


def set_archive_command(protected: Protected, command: str) -> None:
    protected.cluster.rows(f"ALTER SYSTEM SET archive_command = '{command}'")
    protected.cluster.rows("SELECT pg_reload_conf()")
    wait_for_setting(protected, command)


def wait_for_setting(protected: Protected, value: str) -> None:
    query = f"SELECT current_setting('archive_command') = '{value}'"
    wait_until(protected, query)


def wait_until(protected: Protected, query: str) -> None:
    for _ in range(500):
        if protected.cluster.sql(query):
            return
        protected.cluster.sql("SELECT pg_sleep(0.02)")
    raise AssertionError(query)
