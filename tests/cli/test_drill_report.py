"""`drkit drill report`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit import wiring
from drkit.config.compiled import compile_policy
from drkit.config.loading import load_policy
from drkit.model.evidence import RecordKind
from drkit.model.quarter import Quarter
from drkit.repository.evidence import append
from drkit.repository.identity import read_lineage
from tests.builders import FakeClock
from tests.cli.site import SYSTEM
from tests.cli.test_json_output import differences, examples
from tests.reports.history import history

if TYPE_CHECKING:
    from drkit.model.evidence import Record
    from drkit.repository.repository import Repository
    from tests.cli.site import Site

LAST = Quarter.of(datetime.now(UTC)).back(1)
SUFFIXES = {".html", ".pdf", ".md", ".json"}  # a signature ends with .json as well


def add_record(site: Site, kind: RecordKind, **changes: object) -> None:
    """Store a record of the middle of the last quarter that is over."""
    like = next(one for one in history().records if one.kind is kind)
    started = LAST.begin + timedelta(days=40)

    def build(sequence: int, previous: str) -> Record:
        return replace(
            like,
            sequence=sequence,
            previous=previous,
            cluster=site.name,
            system_identifier=SYSTEM,
            started=started,
            finished=started + timedelta(minutes=9),
            **changes,  # type: ignore[arg-type]
        )

    append(repository_at(site, started + timedelta(minutes=9)), build)


def repository_at(site: Site, now: datetime) -> Repository:
    """The site's repository, as who works there at a moment has it."""
    policy = load_policy(site.policy, {})
    compiled, secrets = compile_policy(policy), wiring.Secrets({})
    store = wiring.bare_storage(compiled, secrets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "SystemClock", lambda: FakeClock(now))
        return wiring.repository_in(store, read_lineage(store), compiled, secrets)


@pytest.fixture
def drilled(site: Site) -> Site:
    """A site with a drill and a verification in the last quarter."""
    add_record(site, RecordKind.DRILL)
    add_record(site, RecordKind.VERIFICATION)
    return site


def report(site: Site, *words: str | Path) -> Any:
    done = site.drkit("drill", "report", "alpha", *words, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_forms_are_written_and_told(drilled: Site, tmp_path: Path) -> None:
    place = tmp_path / "reports"
    found = report(drilled, "--quarter", str(LAST), "--to", place)
    assert found["clusters"] == ["alpha"]
    assert found["over"]
    assert {Path(one["path"]).suffix for one in found["files"]} == SUFFIXES
    assert {path.suffix for path in place.iterdir()} == SUFFIXES
    for one in found["files"]:
        data = Path(one["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == one["sha256"]
        if one["format"] == "json":
            assert one["sha256"] == found["content_sha256"]
    again = report(drilled, "--to", place)
    assert [one["sha256"] for one in again["files"]] == [
        one["sha256"] for one in found["files"]
    ]


def test_documented_shapes(drilled: Site, tmp_path: Path) -> None:
    found = report(drilled, "--to", tmp_path / "out", "--format", "json")
    assert list(differences(examples()["drill report"], found)) == []
    (written,) = found["files"]
    whole = json.loads(Path(written["path"]).read_text())
    assert list(differences(examples()["drill report file"], whole)) == []


def test_text_says_the_headline_and_the_files(drilled: Site, tmp_path: Path) -> None:
    done = drilled.drkit(
        "drill",
        "report",
        "alpha",
        "--to",
        tmp_path / "out",
        "--format",
        "html,markdown",
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert text.startswith(f"{LAST}: ")
    assert "alpha: 1 drill and 1 verification; 2 of 2 restores proven." in text
    assert f"drill-report-alpha-{LAST}.md" in text
    names = {path.name.partition(".")[2] for path in (tmp_path / "out").iterdir()}
    assert names == {"html", "md", "dsse.json"}


def test_a_lost_record_is_told_and_the_report_made(
    drilled: Site, tmp_path: Path
) -> None:
    (first, _) = sorted((drilled.root / "repository/alpha/evidence").rglob("0*"))
    first.unlink()
    found = report(drilled, "--to", tmp_path / "out", "--format", "markdown")
    assert found["status"] == "broken"
    text = next((tmp_path / "out").glob("*.md")).read_text()
    assert "Evidence broken" in text.partition("## Summary")[0]


def test_a_quarter_without_evidence(site: Site, tmp_path: Path) -> None:
    found = report(site, "--to", tmp_path / "out")
    assert found["status"] == "unproven"
    assert len(found["files"]) == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--quarter", "2026"), "'2026' is no quarter"),
        (("--quarter", "9990-Q1"), "9990-Q1 has not begun"),
        (("--format", "docx"), "'docx' is not understood"),
        (("alpha",), "alpha is named twice"),
    ],
)
def test_refusals(
    site: Site, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    place = tmp_path / "out"
    done = site.drkit("drill", "report", "alpha", *words, "--to", place)
    assert done.returncode == 2
    assert told in done.stderr.decode()
    assert "hint:" in done.stderr.decode()
    assert not place.exists()
