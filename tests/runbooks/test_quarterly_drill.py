"""The runbook of a quarterly drill: every command in it, in order, on a real cluster.

Only the names in its first block are replaced, as it asks its readers to.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import drkit
from drkit.model.evidence import CheckState, Outcome, RecordKind
from drkit.model.quarter import Quarter
from drkit.operations.drills.registry import SCENARIOS
from drkit.repository.evidence import read_all
from tests.pg import state_directory
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.model.evidence import Record
    from tests.protect import Protected

RUNBOOK = Path(drkit.__file__).parents[1] / "runbooks" / "quarterly-drill.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NAMES = re.compile(r"^(\w+)=", re.MULTILINE)
MAJORS = [18, pytest.param(15, marks=pytest.mark.long)]


def blocks(language: str) -> list[str]:
    """The runbook's blocks of a language, in their order."""
    found = _BLOCK.findall(RUNBOOK.read_text())
    return [text for name, text in found if name == language]


class Reader:
    """Somebody who follows the runbook.

    Attributes:
        evidence: where everything that is handed over goes.
    """

    def __init__(self, protected: Protected, home: Path) -> None:
        self.protected = protected
        self.evidence = home / "drills"
        self.path = home / "bin"
        self.path.mkdir()
        command = self.path / "drkit"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m drkit "$@"\n')
        command.chmod(0o755)
        trusted = yaml.safe_load(protected.policy_path.read_text())["keys"]["trusted"]
        self.names = {
            "policy": NAME,
            "quarter": str(Quarter.of(datetime.now(UTC))),
            "evidence": str(self.evidence),
            "key": trusted[0],
        }

    def follow(self, block: str) -> str:
        """Run a block as a shell script, which must succeed; return what it says."""
        names = "".join(f"{name}={value}\n" for name, value in self.names.items())
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", names + block],
            env={
                "PATH": f"{self.path}:/usr/local/bin:/usr/bin:/bin",
                "HOME": "/nonexistent",
                "DRKIT_POLICY_DIR": str(self.protected.home),
                "DRKIT_STATE_DIR": state_directory(os.geteuid()),
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def prepared(protected: Protected, home: Path) -> Reader:
    """A cluster in use since yesterday, with a policy as the runbook shows it."""
    protected.cluster.rows(
        "CREATE TABLE orders AS SELECT generate_series(1, 1000) AS i"
    )
    shown = yaml.safe_load("".join(blocks("yaml")))
    shown["objectives"] = {"rto": "1 hour", "rpo": "1 hour"}  # not this machine's
    shown["verification"]["directory"] = str(home / "scratch")
    protected.change_policy(lambda policy: policy.update(shown))
    protected.backup()
    protected.cluster.rows("INSERT INTO orders SELECT generate_series(1001, 2000)")
    protected.archive_now()
    return Reader(protected, home)


def story(records: list[Record]) -> list[str]:
    return [
        one.scenario or ("" if one.action is None else one.action.state)
        for one in records
    ]


@pytest.mark.parametrize("major", MAJORS)
def test_every_command_of_the_runbook_works(
    make_protected: Callable[..., Protected],
    make_directory: Callable[[], Path],
    major: int,
) -> None:
    protected = make_protected(major, wal_segment_size=1 << 20)
    reader = prepared(protected, make_directory())
    names, *steps = blocks("sh")
    assert set(_NAMES.findall(names)) == set(reader.names)
    said = [reader.follow(step) for step in steps]

    records = read_all(protected.repository())
    assert story(records) == ["", "", *SCENARIOS, "open", "done"]
    assert {one.name for one in records[1].checks} >= {"fingerprint: tables"}
    for record in records[: 2 + len(SCENARIOS)]:
        assert record.outcome is Outcome.MET, (record.scenario, record.failure)
        _is_told_in_full(record)
    assert any("records; all signatures are good, and none" in text for text in said)
    assert "and none that the report was made of is missing" in said[-1]
    assert list((reader.evidence / "records").iterdir())
    _reports_agree(reader)
    scratch = Path(reader.protected.policy().verification.directory or "")
    assert not scratch.exists() or list(scratch.iterdir()) == []


def _is_told_in_full(record: Record) -> None:
    """A drill measures RTO and RPO, and the heartbeat came back."""
    assert record.rto is not None
    assert record.rto.measured is not None
    assert record.cleanup is not None
    assert record.cleanup.proven
    if record.kind is RecordKind.DRILL:
        assert record.rpo is not None
        assert record.rpo.measured is not None
        assert "newest heartbeat" in record.rpo.meaning
        (beat,) = [one for one in record.checks if one.name == "heartbeat"]
        assert beat.state is not CheckState.FAILED


def _reports_agree(reader: Reader) -> None:
    """The report that is signed tells the drills and the action."""
    (path,) = (reader.evidence / "signed").glob("*-Q?.json")
    found: dict[str, Any] = json.loads(path.read_text())
    text = json.dumps(found)
    assert all(name in text for name in SCENARIOS)
    assert "Archive at least every minute" in text
    assert {one.suffix for one in path.parent.iterdir()} == {
        *(".html", ".pdf", ".md", ".json")
    }


def test_a_block_that_fails_is_told(
    make_protected: Callable[..., Protected], make_directory: Callable[[], Path]
) -> None:
    """The test above can fail: a wrong command, and one within a pipe."""
    protected = make_protected(18, wal_segment_size=1 << 20)
    reader = Reader(protected, make_directory())
    for wrong in ('drkit verify "$polcy"', "drkit no-such | cat", 'drkit info "x$key"'):
        with pytest.raises(AssertionError):
            reader.follow(wrong)
