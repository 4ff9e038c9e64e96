"""`make audit` never calls something sound that nobody was asked about."""

from __future__ import annotations

import json

from requirements.audit import AFFECTED, CLEAN, NOT_AUDITED, verdict

SOUND = {"name": "numpy", "version": "2.5.5", "vulns": []}
FLAW = {"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}
BROKEN = {"name": "jinja2", "version": "2.10", "vulns": [FLAW]}
UNKNOWN = {"name": "typst", "skip_reason": "Dependency not found on PyPI"}


def report(*dependencies: object) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_nothing_is_known_of_any() -> None:
    code, lines = verdict(report(SOUND, SOUND), "")
    assert code == CLEAN
    assert lines == ["no advisory is known of any of 2 packages"]


def test_an_advisory_is_named_with_what_mends_it() -> None:
    code, lines = verdict(report(SOUND, BROKEN), "")
    assert code == AFFECTED
    assert lines == ["jinja2 2.10: PYSEC-2019-217, mended in 2.10.1"]


def test_a_package_that_nobody_knew_is_not_sound() -> None:
    code, lines = verdict(report(SOUND, UNKNOWN), "No known vulnerabilities found")
    assert code == NOT_AUDITED
    assert lines == ["not audited: no data of 1 of 2: typst"]


def test_an_advisory_counts_more_than_what_is_unknown() -> None:
    code, lines = verdict(report(BROKEN, UNKNOWN), "")
    assert code == AFFECTED
    assert len(lines) == 2


def test_without_a_network_nothing_was_audited() -> None:
    error = "Traceback …\nConnectionError: Failed to resolve"
    code, lines = verdict("", error)
    assert code == NOT_AUDITED
    assert lines[0].endswith("ConnectionError: Failed to resolve")


def test_an_empty_report_is_no_audit() -> None:
    assert verdict(report(), "")[0] == NOT_AUDITED
