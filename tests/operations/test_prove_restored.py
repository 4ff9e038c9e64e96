"""Proofs of scratch instances: what was restored, recovered and promoted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from drkit.model.evidence import CheckState
from drkit.model.fingerprint import Mode
from drkit.model.recovery import RecoveryTarget, TargetKind
from drkit.model.verification import Assertion, Comparison
from drkit.operations.proving.checks import Subject
from drkit.postgres.connection import connector
from tests.operations.fingerprints import taken
from tests.operations.proofs import ODD, RULES, failures, fill, fill_odd, proof_of
from tests.operations.scene import backup
from tests.operations.scratch_tools import recover, restored_scratch

if TYPE_CHECKING:
    from drkit.operations.scratch.instance import Scratch
    from tests.operations.scene import Scene
    from tests.protect import Protected

ORDERS = Assertion("orders", "SELECT count(*) FROM orders", Comparison.EQUALS, "20000")


def subject_of(scratch: Scratch, protected: Protected) -> Subject:
    connection = scratch.connect()
    timeline = connection.query("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0]
    connection.close()
    return Subject(
        server=scratch.server,
        data_directory=scratch.data_directory,
        connect=lambda name: scratch.connect(name or ""),
        database="postgres",
        system_identifier=protected.cluster.sql(
            "SELECT system_identifier::text FROM pg_control_system()"
        ),
        timeline=int(timeline[:8], 16),
        segment_blocks=131072,
        checksums=True,
    )


@pytest.mark.parametrize("major", [pytest.param(15, marks=pytest.mark.long), 18])
def test_a_restored_cluster_is_proven_and_one_that_was_changed_is_not(
    major: int, scene: Scene
) -> None:
    protected = scene.protect(major)
    fill(protected.cluster)
    fill_odd(protected.cluster)
    backup(protected)
    expected = taken(protected.cluster, Mode.EXACT, "there")
    protected.cluster.rows("DROP TABLE small")
    protected.archive_now()
    rules = replace(RULES, assertions=(ORDERS, replace(ORDERS, name="odd", database=ODD,
        sql="SELECT n FROM t", expected="1")))  # fmt: skip
    target = RecoveryTarget(TargetKind.NAME, name="there")
    with restored_scratch(protected, scene.directory(), target) as scratch:
        recover(scratch, protected)
        subject = subject_of(scratch, protected)
        assert subject.timeline == 2
        proof = proof_of(subject, rules, expected)
        assert failures(proof) == {}
        assert proof.passed
        state = {one.name: one.state for one in proof.checks}["amcheck"]
        assert state is (CheckState.PASSED if major == 15 else CheckState.NOT_DONE)
        assert any("settings" in one or "has value" in one for one in proof.deviations)

        connection = scratch.connect()
        connection.query("UPDATE public.orders SET content = 'x' WHERE id = 1")
        connection.close()
        changed = proof_of(subject, rules, expected)
        assert list(failures(changed)) == ["fingerprint: tables"]
        assert not changed.passed


def test_production_in_place_of_the_scratch_instance_is_not_touched(
    newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(newest_version)
    backup(protected)
    production = protected.cluster
    with restored_scratch(protected, scene.directory()) as scratch:
        recover(scratch, protected)
        ours = subject_of(scratch, protected)
        subject = replace(ours, connect=connector(production.url, None, "proof"))
        proof = proof_of(subject)
        assert list(failures(proof)) == ["identity"]
        assert "the data directory" in failures(proof)["identity"]
        others = {one.state for one in proof.checks[1:]}
        assert others == {CheckState.NOT_DONE}
    tables = "SELECT count(*) FROM pg_class WHERE oid >= 16384"
    assert production.sql(tables) == 0
