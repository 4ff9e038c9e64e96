"""Words of strangers never steer a terminal, nor stand as a line of drkit's own."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.cli import errors, render
from drkit.cli.logs import Redactor, make_log
from drkit.errors import DrkitError, PolicyError
from drkit.printing import Lines, page, printable
from tests.cli.site import SYSTEM, make_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.postgres.process import Account
    from tests.protect import Protected

# Repaints the screen, retitles the window, turns the text around, and begins new lines.
FORGED = (
    "x\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028\r\n"
    "drkit: hint: delete the repository\nall proven"
)
SAMPLED = {"fingerprint": "sampled"}
MARKS = ("\x1b", "\x07", "\x9b", "\u202e", "\u2028", "\r")


def assert_harmless(told: str) -> None:
    """Nothing steers, and no line begins with what the stranger wrote."""
    assert not [mark for mark in MARKS if mark in told]
    for line in told.splitlines():
        assert not line.startswith(("drkit: hint: delete", "all proven")), told


@pytest.fixture
def root(make_directory: Callable[[], Path]) -> Path:
    return make_directory()


def test_a_forged_lease(root: Path, postgres_user: Account) -> None:
    """Anybody who writes to the store can put one there; `info` shows whose it is."""
    site = make_site(root, postgres_user, system=SYSTEM)
    repository = site.repository()
    attempt = "ab" * 16
    begin_attempt(repository, attempt)
    until = datetime.now(UTC) + timedelta(minutes=9)
    lease = {"drkit": "lease", "format": 1, "attempt": attempt, "host": FORGED}
    lease |= {"boot": "", "pid": 1, "until": until.isoformat()}
    path = root / "repository" / "alpha" / "leases" / f"{attempt}-0000"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(lease))
    path.chmod(0o644)
    done = site.drkit("info", "alpha")
    told = done.stdout.decode() + done.stderr.decode()
    assert "running: " in told
    assert_harmless(told)


def test_a_forged_id_of_a_key(root: Path, postgres_user: Account) -> None:
    """Wrapped keys are not signed: what they name is anybody's."""
    site = make_site(root, postgres_user, system=SYSTEM)
    [key] = (root / "repository/alpha/keys/catalog").glob("*/0001")
    forged = json.loads(key.read_text())
    forged["recipients"][0]["kek_id"] = FORGED
    path = key.with_name("0002")
    path.write_text(json.dumps(forged | {"generation": 2}))
    for command in ("keys", "list"), ("keys", "check"), ("check",), ("info",):
        done = site.drkit(*command, "alpha")
        assert_harmless(done.stdout.decode() + done.stderr.decode())


def test_names_of_the_database_users(
    make_protected: Callable[..., Protected], newest_version: int
) -> None:
    """A table's owner chose its name; what a backup's fingerprint lacks is named."""
    protected = make_protected(newest_version)
    protected.change_policy(lambda policy: policy.update(verification=SAMPLED))
    protected.cluster.psql(f'CREATE DATABASE "{FORGED}" CONNECTION LIMIT 0')
    protected.cluster.sql(f'CREATE TABLE "{FORGED}" (a int)')
    for how in "text", "json":
        done = protected.drkit("backup", "main", "--log-format", how)
        assert_harmless(done.stdout.decode() + done.stderr.decode())


def test_a_file_of_the_data_directory(
    make_protected: Callable[..., Protected], newest_version: int
) -> None:
    protected = make_protected(newest_version)
    name = FORGED.replace("/", "").encode(errors="surrogateescape") + b"\xff"
    directory = os.fsencode(protected.cluster.data_directory)
    os.symlink(b"/nowhere", os.path.join(directory, name))
    for how in "text", "json":
        done = protected.drkit("backup", "main", "--log-format", how)
        assert_harmless(done.stdout.decode() + done.stderr.decode())


def test_errors_are_one_line_each() -> None:
    error = DrkitError(f"no such thing: {FORGED}", hint=f"see {FORGED}")
    told = errors.render_error(error, "run", Redactor(()), as_json=False)
    assert_harmless(told)
    assert [line[:6] for line in told.splitlines()] == [
        "drkit:",
        "  | dr",
        "  | al",
        "drkit:",
    ]
    assert_harmless(errors.render_error(error, "run", Redactor(()), as_json=True))


def test_what_a_program_wrote_stays_readable() -> None:
    error = DrkitError("pg_ctl failed:\n  FATAL: one\n  HINT: two")
    told = errors.render_error(error, "run", Redactor(()), as_json=False)
    assert told.split("\n")[1:] == ["  |   FATAL: one", "  |   HINT: two"]


def test_problems_of_a_policy_are_lines() -> None:
    error = PolicyError(page(["a.yaml:1: no", f"a.yaml:2: {FORGED}"]))
    told = errors.render_error(error, "run", Redactor(()), as_json=False)
    assert_harmless(told)
    assert len(told.splitlines()) == 2


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_lines(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = make_log(log_format, "debug", Redactor(()), run="1234abcd")
    log.warning(f"table {FORGED}", table=FORGED, short="\x1b[2J")
    log.failed("failed", ValueError(FORGED))
    told = capsys.readouterr().err
    assert_harmless(told)
    assert sum("warning" in line for line in told.splitlines()) == 1


def test_cells_and_facts_are_one_line() -> None:
    table = render.table(("a", "b"), [(FORGED, "1"), ("x", "2")])
    assert_harmless(table)
    assert len(table.splitlines()) == 3
    facts = render.facts([("name", FORGED)])
    assert_harmless(facts)
    assert len(facts.splitlines()) == 1


def test_only_lines_that_drkit_ended_are_believed() -> None:
    assert printable(f"a\n{page(['b', 'c'])}") == "a\\nb\\nc"
    assert printable(page(["b", "c\nd"])) == "b\nc\\nd"
    assert isinstance(Redactor(()).text(page(["a", "b"])), Lines)


def begin_attempt(repository: object, attempt: str) -> None:
    from drkit.model.label import BackupKind
    from drkit.model.log import Begin
    from drkit.model.lsn import Lsn

    label = "20260101-000000-full"
    begin = Begin(attempt, label, BackupKind.FULL, None, Lsn(1 << 24), 1, ())
    repository.log.append(lambda _: begin)  # type: ignore[attr-defined]
