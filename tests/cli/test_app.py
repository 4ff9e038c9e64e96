"""The command line as a whole: help, versions, usage, policies, errors."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from drkit import __version__
from tests.pg import drkit_command, run_drkit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.site import Site

COMMANDS = [
    ("backup",),
    ("restore",),
    ("policy", "check"),
    ("policy", "schema"),
    ("wal", "push"),
    ("wal", "get"),
    ("wal", "status"),
    ("demo",),
    ("init",),
    ("check",),
    ("info",),
    ("keys", "list"),
    ("keys", "check"),
]


def test_version() -> None:
    done = run_drkit("--version")
    assert (done.returncode, done.stdout) == (0, f"drkit {__version__}\n".encode())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples(command: tuple[str, ...]) -> None:
    done = run_drkit(*command, "--help")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert f"Usage: drkit {' '.join(command)} " in text
    for option in ("--policy-dir", "--output", "--log-format", "--log-level"):
        assert option in text
    assert "Examples:" in text


def test_help_lists_every_command() -> None:
    text = run_drkit("--help").stdout.decode()
    listed = text.partition("Commands:")[2].partition("Examples:")[0]
    for command in COMMANDS:
        assert f"\n  {command[0]} " in listed


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["backup"],
        ["backup", "alpha", "--nonsense"],
        ["backup", "alpha", "--jobs", "0"],
        ["backup", "alpha", "--type", "weekly"],
        ["backup", "alpha", "--type", "dump"],
        ["restore", "alpha"],
        ["restore", "alpha", "--to", "/x", "--target-immediate", "--target-lsn", "0/1"],
        ["wal", "nonsense"],
    ],
)
def test_usage(site: Site, words: list[str]) -> None:
    done = site.drkit(*words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == b""
    assert done.stderr.startswith(b"drkit: error: ")
    asked = site.drkit(*words, "--output", "json")
    assert asked.returncode == 2
    error = json.loads(asked.stderr)
    assert (error["drkit"], error["error"]) == ("error", "UsageError")


def test_an_unknown_policy(site: Site) -> None:
    done = site.drkit("backup", "beta")
    assert done.returncode == 14
    assert b"known are alpha" in done.stderr
    done = site.drkit("wal", "status", "--policy-dir", "/nonexistent")
    assert done.returncode == 14


def test_the_only_policy_needs_no_name(site: Site) -> None:
    assert site.drkit("wal", "status").returncode == 0
    (site.policy.parent / "beta.yaml").write_text(
        site.policy.read_text().replace("name: alpha", "name: beta")
    )
    several = site.drkit("wal", "status")
    assert several.returncode == 2
    assert b"alpha.yaml" in several.stderr


def test_policy_check_tells_all_errors_of_all_files(site: Site, tmp_path: Path) -> None:
    right = site.drkit("policy", "check", site.policy)
    assert right.returncode == 0
    assert b"policy alpha is right" in right.stdout
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    text = site.policy.read_text()
    first.write_text(text.replace("full: 4", "full: 0") + "nonsense: 1\n")
    second.write_text(text.replace("jobs: 2", "jobs: many"))
    done = site.drkit(
        "policy", "check", first, site.policy, second, "/nonexistent.yaml"
    )
    assert done.returncode == 10
    told = done.stdout.decode()
    assert f"{first}:{_line(first, 'retention')}: retention.full: " in told
    assert f"{first}:{_line(first, 'nonsense')}: nonsense: " in told
    assert f"{second}:{_line(second, 'backup: ')}: backup.jobs: " in told
    assert "/nonexistent.yaml" in told
    assert "policy alpha is right" in told
    asked = site.drkit("policy", "check", first, "alpha", "--output", "json")
    found = json.loads(asked.stdout)
    assert (asked.returncode, found["valid"]) == (10, False)
    assert [len(one["problems"]) for one in found["files"]] == [2, 0]


def _line(path: Path, start: str) -> int:
    lines = path.read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.startswith(start))


def test_policy_schema_is_json_schema() -> None:
    schema = json.loads(run_drkit("policy", "schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "retention" in schema["properties"]


def test_settings_of_the_environment_are_checked(site: Site) -> None:
    for name in ("DRKIT_LOG_FORMAT", "DRKIT_LOG_LEVEL"):
        done = site.drkit("policy", "schema", env={name: "loud"})
        assert done.returncode == 10, done.stderr
        assert name.encode() in done.stderr


def test_an_unforeseen_error_tells_its_kind_only(site: Site, tmp_path: Path) -> None:
    """Its text could hold anything; a debug log has it, redacted."""
    modules = tmp_path / "modules"
    modules.mkdir()
    secret = (site.root / "catalog.key").read_text().strip()
    (modules / "yaml.py").write_text(f"raise ValueError({secret!r})\n")
    env = {"PYTHONPATH": str(modules)}
    done = site.drkit("wal", "status", env=env)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("drkit: error: unexpected ValueError")
    assert len(lines) == 2
    loud = site.drkit("wal", "status", "--log-level", "debug", env=env)
    assert b"Traceback" in loud.stderr
    assert b"drkit-kek-1:***" in loud.stderr
    for output in (done.stderr, loud.stderr):
        assert secret.rpartition(":")[2].encode() not in output


def test_a_reader_that_goes_away(site: Site) -> None:
    """As in `drkit policy schema | head -1`."""
    process = subprocess.Popen(
        drkit_command("policy", "schema"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 0
