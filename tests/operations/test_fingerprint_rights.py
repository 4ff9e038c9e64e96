"""The rights that fingerprints take: asked for as SQL that suffices, by name."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drkit import wiring
from drkit.model.finding import State
from drkit.model.fingerprint import Mode
from drkit.operations.fingerprints.taking import Limits, take
from drkit.operations.preflight import check_fingerprint
from drkit.postgres.connection import connector
from drkit.postgres.fingerprint import FORBIDDEN
from drkit.postgres.fingerprint_rights import missing_grants
from drkit.sites.check import check_subject
from tests.operations.fingerprints import fill
from tests.operations.scene import drkit
from tests.protect import NAME

if TYPE_CHECKING:
    from tests.conftest import MakeCluster
    from tests.operations.scene import Scene

MAJORS = [15, 18]
POINT = "GRANT EXECUTE ON FUNCTION pg_create_restore_point TO"


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("mode", list(Mode))
def test_the_sql_that_is_told_suffices(
    make_cluster: MakeCluster, major: int, mode: Mode
) -> None:
    cluster = make_cluster(major, {"max_locks_per_transaction": "128"})
    fill(cluster)
    cluster.rows(f'CREATE ROLE "weak one" LOGIN; {POINT} "weak one"')
    url = cluster.url.replace("postgres@", "weak%20one@")
    connect = connector(url, None, "fingerprint")
    with connect(None) as connection:
        grants = missing_grants(connection, mode)
        assert 'GRANT pg_read_all_data TO "weak one";' in grants
        assert check_fingerprint(connection, mode).state is State.WARNING
        cluster.rows(" ".join(grants))
        assert missing_grants(connection, mode) == ()
        assert check_fingerprint(connection, mode).state is State.OK
    limits = Limits(fall_back=False)
    made = take(connect, mode, "p", wiring.SystemClock(), limits)
    assert made.mode is mode
    for database in made.databases:
        assert FORBIDDEN not in database.unread.values()


def test_who_may_read_but_not_lock_gets_a_sample_at_once(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    fill(cluster)
    cluster.rows(
        f"CREATE ROLE weak LOGIN; {POINT} weak; GRANT pg_read_all_data TO weak"
    )
    connect = connector(cluster.url.replace("postgres@", "weak@"), None, "fingerprint")
    clock = wiring.SystemClock()
    begun = clock.monotonic()
    made = take(connect, Mode.EXACT, "p", clock, Limits(lock_seconds=60))
    assert clock.monotonic() - begun < 30
    assert made.mode is Mode.SAMPLED
    assert "may not lock public.guarded in database postgres" in made.limits[0]


def test_check_looks_at_what_the_policy_wants(
    newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(newest_version)
    for wanted in ("off", "exact"):
        protected.change_policy(
            lambda policy, wanted=wanted: policy.update(
                verification={"fingerprint": wanted}
            )
        )
        subject = check_subject(
            protected.policy(), wiring.Secrets({}), timedelta(seconds=20)
        )
        assert subject.fingerprint == (None if wanted == "off" else Mode.EXACT)
    said = drkit(protected, "check", NAME)
    assert "fingerprint" in said.out
    assert "exact, and the role may read" in said.out
