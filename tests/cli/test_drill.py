"""`drill list`, `export`, `verify` and `action` as they are typed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from drkit.crypto.signing import Signer
from drkit.errors import Corrupt, KeyUnavailable, NotFound, UsageError
from drkit.model.quarter import Quarter
from drkit.repository.attestation import sign_record
from drkit.repository.evidence import append
from tests.cli.site import SYSTEM
from tests.cli.test_expire import run
from tests.cli.test_json_output import agree
from tests.evidence import NOTHING, bare, record
from tests.pg import run_drkit

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.model.evidence import Record
    from tests.cli.site import Site


@pytest.fixture
def drilled(site: Site) -> Site:
    """A site with a drill, a verification that failed, and an open action."""
    repository = site.repository()
    for make in (record, bare):
        append(repository, lambda *place, make=make: _ours(make(*place)))
    add_action(site)
    return site


def _ours(one: Record) -> Record:
    now = datetime.now(UTC)
    began = now - timedelta(seconds=75.25)
    return replace(one, system_identifier=SYSTEM, started=began, finished=now)


def add_action(site: Site, *words: str) -> dict[str, Any]:
    words = words or ("--text", "more jobs", "--owner", "Mira", "--due", "2026-02-15")
    return json_of(site, "drill", "action", "add", "alpha", *words, "--follows", "0")


def json_of(site: Site, *words: str, code: int = 0) -> dict[str, Any]:
    got, out, err = run(site, *words, "--output", "json")
    assert got == code, err
    found: dict[str, Any] = json.loads(out)
    return found


def path_of(site: Site, sequence: int) -> Path:
    return site.root / f"repository/alpha/evidence/{sequence:010d}"


def trusted(site: Site) -> str:
    line = next(x for x in site.policy.read_text().splitlines() if "trusted" in x)
    return line.split('"')[1]


def export(site: Site) -> list[str]:
    words = ("--all", "--to", str(site.root / "out"))
    found = json_of(site, "drill", "export", "alpha", *words)
    return [one["path"] for one in found["files"]]


def test_list_shows_every_record_and_checks_the_chain(drilled: Site) -> None:
    code, out, _ = run(drilled, "drill", "list", "alpha")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == [
        *("record", "when", "what", "backup", "outcome", "RTO", "RPO")
    ]
    assert "drill host-loss" in lines[1]
    assert "20260115-113000-incr" in lines[1]
    assert "1 min 15 s of 1 min 00 s" in lines[1]
    assert "verification" in lines[2]
    assert "failed" in lines[2]
    assert "action 1" in lines[3]
    assert "more jobs" in lines[3]
    assert lines[-1].startswith("alpha: 3 records; all signatures are good")


def test_list_tells_a_broken_chain(drilled: Site) -> None:
    path_of(drilled, 1).unlink()
    code, out, _ = run(drilled, "drill", "list", "alpha")
    assert code == Corrupt.exit_code
    assert "✗ record alpha/evidence/0000000001 is missing" in out
    assert "drill host-loss" in out
    assert out.endswith("alpha: the chain of evidence is not whole\n")
    found = json_of(drilled, "drill", "list", "alpha", code=Corrupt.exit_code)
    assert (found["whole"], len(found["records"])) == (False, 2)


def test_no_evidence_is_said(site: Site) -> None:
    code, out, _ = run(site, "drill", "list", "alpha")
    assert code == 0
    assert "no evidence yet" in out


def test_evidence_is_checked_where_there_is_nothing_else(
    drilled: Site, tmp_path: Path
) -> None:
    """As an auditor does: no policy, no keys, no repository, no home."""
    paths, public = export(drilled), trusted(drilled)
    (drilled.root / "repository").rename(drilled.root / "gone")
    nowhere = {"DRKIT_POLICY_DIR": str(tmp_path / "nowhere")}
    words = ("drill", "verify", *paths, "--trusted", public)
    done = run_drkit(*words, env=nowhere, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert f"signed by  {public}" in text
    assert "0 of alpha: drill host-loss" in text
    assert "3 files are as they were signed, and none between is missing" in text
    assert "Nobody vouched" not in text
    words = ("drill", "verify", paths[0], paths[2], "--trusted", public)
    assert run_drkit(*words, env=nowhere).returncode == Corrupt.exit_code


def test_without_a_trusted_key_it_says_what_that_proves(drilled: Site) -> None:
    code, out, _ = run(drilled, "drill", "verify", *export(drilled))
    assert code == KeyUnavailable.exit_code
    assert "Nobody vouched for the signer" in out
    words = ("drill", "verify", *export(drilled))
    found = json_of(drilled, *words, code=KeyUnavailable.exit_code)
    assert found["signers_trusted"] is False


def test_the_policy_says_whom_to_trust(drilled: Site) -> None:
    words = ("drill", "verify", *export(drilled), "--policy")
    assert run(drilled, *words, "alpha")[0] == 0
    other = drilled.policy.with_name("beta.yaml")
    other.write_text(drilled.policy.read_text().replace("name: alpha", "name: beta"))
    code, out, _ = run(drilled, *words, "beta")
    assert code == Corrupt.exit_code
    assert "is of cluster alpha" in out


def test_a_changed_file_fails(drilled: Site) -> None:
    paths = export(drilled)
    with open(paths[1], "r+b") as file:
        file.seek(40)
        file.write(b"AAAA")
    words = ("drill", "verify", *paths, "--trusted", trusted(drilled))
    code, out, _ = run(drilled, *words)
    assert code == Corrupt.exit_code
    assert f"✗ {paths[1]} was changed after it was signed" in out
    assert "1 of 3 files can't be relied on" in out


def test_a_strangers_words_do_not_reach_the_terminal(site: Site) -> None:
    evil = bare(0, NOTHING, failure="\x1b[2J\u202eall is well")
    path = site.root / "evil"
    path.write_bytes(sign_record(evil, Signer(bytes(32))))
    code, out, _ = run(site, "drill", "verify", str(path))
    assert code == KeyUnavailable.exit_code
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "all is well" in out


def test_actions_are_added_and_settled(drilled: Site) -> None:
    second = add_action(drilled)
    assert second["action"]["action"] == 2
    code, out, _ = run(
        drilled, "drill", "action", "done", "alpha", "1", "--note", "4 jobs"
    )
    assert code == 0
    assert out.startswith("action 1 is done: more jobs (Mira, due 2026-02-15)\n")
    words = ("drill", "action", "drop", "alpha", "2", "--note", "needless")
    dropped = json_of(drilled, *words)
    assert dropped["action"]["state"] == "dropped"
    listed = json_of(drilled, "drill", "list", "alpha")["records"]
    assert [one["action"]["state"] for one in listed if one["action"]] == [
        *("open", "open", "done", "dropped")
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("export", "alpha", "0", "--all"), UsageError.exit_code),
        (("export", "alpha", "9"), NotFound.exit_code),
        (("verify", "/nonexistent/file"), NotFound.exit_code),
        (("verify", "/etc/hostname", "--trusted", "ed25519:12"), UsageError.exit_code),
        (("action", "done", "alpha", "7", "--note", "x"), NotFound.exit_code),
        (
            ("action", "add", "alpha", "--text", "a", "--owner", "b", "--due", "soon"),
            UsageError.exit_code,
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    drilled: Site, words: tuple[str, ...], code: int
) -> None:
    got, _, err = run(drilled, "drill", *words)
    assert got == code
    assert "hint: " in err


def test_documents(drilled: Site) -> None:
    agree("drill list", json_of(drilled, "drill", "list", "alpha"))
    to = ("--to", str(drilled.root / "out"))
    agree("drill export", json_of(drilled, "drill", "export", "alpha", "--all", *to))
    quarter = str(Quarter.of(datetime.now(UTC)))
    forms = ("--format", "markdown", "--to", str(drilled.root / "reports"))
    made = json_of(drilled, "drill", "report", "alpha", "--quarter", quarter, *forms)
    words = ("--policy", "alpha", "--report", made["signature"])
    files = ("drill", "verify", *export(drilled))
    agree("drill verify", json_of(drilled, *files, *words))
    agree("drill action add", add_action(drilled))
    for verb in ("done", "drop"):
        number = "1" if verb == "done" else "2"
        words = ("drill", "action", verb, "alpha", number, "--note", "x")
        agree(f"drill action {verb}", json_of(drilled, *words))
