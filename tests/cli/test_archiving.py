"""`wal push` and `wal get`: every exit code that PostgreSQL reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.site import SEGMENT, SYSTEM, Site, segment, segment_name
from tests.pg import drkit_command

if TYPE_CHECKING:
    from pathlib import Path

NAME = segment_name(7)
HEAVY = {
    *("pydantic", "pydantic_core", "yaml", "typer", "click", "rich"),
    *("numpy", "psycopg", "boto3", "logging", "asyncio", "subprocess", "socket"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory, as far as archiving looks at it."""
    directory = tmp_path / "data"
    (directory / "pg_wal").mkdir(parents=True)
    (directory / "global").mkdir()
    control = int(SYSTEM).to_bytes(8, "little") + bytes(100)
    (directory / "global" / "pg_control").write_bytes(control)
    return directory


def put(data: Path, content: bytes, name: str = NAME) -> str:
    (data / "pg_wal" / name).write_bytes(content)
    return f"pg_wal/{name}"


def archived(site: Site) -> list[str]:
    return sorted(path.name for path in site.wal.rglob("*") if path.is_file())


def test_push_archives_once_and_get_gives_it_back(site: Site, data: Path) -> None:
    path = put(data, segment(7, fill=b"x"))
    first = site.drkit("wal", "push", path, cwd=data)
    assert (first.returncode, first.stdout) == (0, f"drkit: archived {NAME}\n".encode())
    again = site.drkit("wal", "push", path, cwd=data)
    assert again.returncode == 0
    assert b"was archived already" in again.stdout
    assert archived(site) == [NAME]
    got = site.drkit("wal", "get", NAME, "pg_wal/RECOVERYXLOG", cwd=data)
    assert got.returncode == 0, got.stderr
    fetched = data / "pg_wal" / "RECOVERYXLOG"
    assert fetched.read_bytes() == segment(7, fill=b"x")
    assert sorted(os.listdir(data / "pg_wal")) == [NAME, "RECOVERYXLOG"]


def test_the_policy_is_chosen_by_the_cluster(site: Site, data: Path) -> None:
    other = site.policy.read_text().replace("name: alpha", "name: beta")
    other = other.replace(SYSTEM, "7700000000000000002")
    (site.policy.parent / "beta.yaml").write_text(other)
    assert site.drkit("wal", "push", put(data, segment(7)), cwd=data).returncode == 0
    assert archived(site) == [NAME]
    history = put(
        data, b"1\t0/700000\tno recovery target specified\n", "00000002.history"
    )
    assert site.drkit("wal", "push", history, cwd=data).returncode == 0
    assert archived(site) == [NAME, "00000002.history"]
    got = site.drkit("wal", "get", NAME, "pg_wal/x", cwd=data)
    assert got.returncode == 0, got.stderr
    nowhere = site.drkit("wal", "get", NAME, "x", cwd=site.root)
    assert nowhere.returncode == 200
    assert b"--policy NAME" in nowhere.stderr


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (segment(7, fill=b"y"), 19),
        (segment(8), 19),
        (segment(7, system="7700000000000000009"), 19),
        (segment(7)[:-1], 19),
        (bytes(SEGMENT), 19),
        (b"", 19),
    ],
    ids=["other content", "other place", "other cluster", "short", "zeros", "empty"],
)
def test_push_refuses(site: Site, data: Path, content: bytes, code: int) -> None:
    assert site.drkit("wal", "push", put(data, segment(7)), cwd=data).returncode == 0
    refused = site.drkit(
        "wal", "push", "--policy", "alpha", put(data, content), cwd=data
    )
    assert refused.returncode == code, refused.stderr
    assert refused.stderr.startswith(b"drkit: error: ")
    assert len(refused.stderr.splitlines()) == 2
    assert archived(site) == [NAME]


def test_push_refuses_histories_of_another_data_directory(
    site: Site, data: Path
) -> None:
    (data / "global" / "pg_control").write_bytes((5).to_bytes(8, "little"))
    history = put(data, b"1\t0/700000\tx\n", "00000002.history")
    refused = site.drkit("wal", "push", "--policy", "alpha", history, cwd=data)
    assert refused.returncode == 19
    assert archived(site) == []


def test_push_tells_a_missing_file_and_a_missing_repository(
    site: Site, data: Path
) -> None:
    assert site.drkit("wal", "push", "pg_wal/none", cwd=data).returncode == 24
    (site.root / "repository").rename(site.root / "away")
    gone = site.drkit("wal", "push", put(data, segment(7)), cwd=data)
    assert gone.returncode == 11, gone.stderr


@pytest.mark.parametrize("verb", ["push", "get"])
@pytest.mark.parametrize(
    "words", [[], ["--nonsense", "a", "b"], ["a", "b", "c"], ["a", "b", "--policy"]]
)
def test_usage(site: Site, verb: str, words: list[str]) -> None:
    done = site.drkit("wal", verb, *words)
    assert done.returncode == {"push": 2, "get": 200}[verb]
    assert f"drkit wal {verb} ".encode() in done.stderr


def test_get_says_that_a_file_is_not_archived(site: Site, data: Path) -> None:
    done = site.drkit("wal", "get", NAME, "pg_wal/x", cwd=data)
    assert done.returncode == 1
    assert b"is not archived" in done.stdout
    assert os.listdir(data / "pg_wal") == []


def _no_repository(site: Site, data: Path) -> None:
    (site.root / "repository").rename(site.root / "away")


def _empty_mount_point(site: Site, data: Path) -> None:
    _no_repository(site, data)
    (site.root / "repository").mkdir()


def _no_key(site: Site, data: Path) -> None:
    (site.root / "wal.key").unlink()


def _wrong_key(site: Site, data: Path) -> None:
    line = (site.root / "wal.key").read_text().strip()
    (site.root / "wal.key").write_text(f"{line[:-4]}0000" + "\n")


def _open_key(site: Site, data: Path) -> None:
    (site.root / "wal.key").chmod(0o644)


def _flipped_bit(site: Site, data: Path) -> None:
    (path,) = (one for one in site.wal.rglob("*") if one.is_file())
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.chmod(0o640)
    path.write_bytes(damaged)


def _no_policy(site: Site, data: Path) -> None:
    site.policy.unlink()


def _broken_policy(site: Site, data: Path) -> None:
    site.policy.write_text(site.policy.read_text() + "nonsense: 1\n")


def _no_destination(site: Site, data: Path) -> None:
    (data / "pg_wal" / NAME).unlink()
    (data / "pg_wal").rmdir()


def _other_cluster(site: Site, data: Path) -> None:
    (data / "global" / "pg_control").write_bytes((5).to_bytes(8, "little"))


FAILURES = [
    (_no_repository, "there is no|No such"),
    (_empty_mount_point, "no drkit repository"),
    (_no_key, "there is no file"),
    (_wrong_key, "not wrapped for"),
    (_open_key, "chmod 600"),
    (_flipped_bit, NAME),
    (_no_policy, "there is no policy"),
    (_broken_policy, "nonsense"),
    (_no_destination, "cannot write"),
    (_other_cluster, "system identifier 5"),
]


@pytest.mark.parametrize(
    ("spoil", "told"), FAILURES, ids=[spoil.__name__[1:] for spoil, _ in FAILURES]
)
def test_no_failure_of_get_looks_like_the_end_of_wal(
    site: Site, data: Path, spoil: object, told: str
) -> None:
    assert site.drkit("wal", "push", put(data, segment(7)), cwd=data).returncode == 0
    assert callable(spoil)
    spoil(site, data)
    policy = () if spoil is _no_policy else ("--policy", "alpha")
    done = site.drkit("wal", "get", *policy, NAME, "pg_wal/x", cwd=data)
    assert done.returncode == 200, done.stderr
    assert any(one in done.stderr.decode() for one in told.split("|")), done.stderr
    assert not (data / "pg_wal" / "x").exists()


def test_a_standby_is_not_stopped_by_a_failure(site: Site, data: Path) -> None:
    _no_repository(site, data)
    (data / "standby.signal").touch()
    began = time.monotonic()
    done = site.drkit("wal", "get", "--policy", "alpha", NAME, "pg_wal/x", cwd=data)
    assert done.returncode == 1, done.stderr
    assert b"no drkit repository" in done.stderr or b"there is no" in done.stderr
    assert time.monotonic() - began < 20
    assert site.drkit("wal", "get", NAME, cwd=data).returncode == 1


def test_a_standby_waits_for_a_repository_that_comes_back(
    site: Site, data: Path
) -> None:
    site.policy.write_text(site.policy.read_text().replace("1 second", "30 seconds"))
    assert site.drkit("wal", "push", put(data, segment(7)), cwd=data).returncode == 0
    _no_repository(site, data)
    (data / "standby.signal").touch()
    process = subprocess.Popen(
        drkit_command("wal", "get", "--policy", site.policy, NAME, "pg_wal/x"), cwd=data
    )
    time.sleep(1.5)
    assert process.poll() is None
    (site.root / "away").rename(site.root / "repository")
    assert process.wait(30) == 0
    assert (data / "pg_wal" / "x").read_bytes() == segment(7)


SHADOWS = {
    "missing": "raise ImportError('gone')",
    "memory": "raise MemoryError",
    "recursion": "raise RecursionError",
    "exit": "raise SystemExit(1)",
    # a shell starts what runs in its background with SIGINT ignored
    "interrupt": "import os, signal\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "os.kill(os.getpid(), signal.SIGINT)",
}


@pytest.mark.parametrize("shadow", list(SHADOWS))
@pytest.mark.parametrize("standby", [False, True])
def test_get_with_a_broken_installation(
    site: Site, data: Path, tmp_path: Path, shadow: str, standby: bool
) -> None:
    """A module that drkit needs fails as it is imported, in a process of its own."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "zstandard.py").write_text(SHADOWS[shadow])
    if standby:
        (data / "standby.signal").touch()
    env = {"PYTHONPATH": str(modules)}
    done = site.drkit("wal", "get", NAME, "pg_wal/x", cwd=data, env=env)
    assert done.returncode == (1 if standby else 200), done.stderr
    assert b"drkit: error: " in done.stderr
    pushed = site.drkit("wal", "push", put(data, segment(7)), cwd=data, env=env)
    assert 1 <= pushed.returncode <= 125
    assert archived(site) == []


@pytest.mark.parametrize("closed", [">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_get_without_anywhere_to_write_messages(
    site: Site, data: Path, closed: str
) -> None:
    command = " ".join(drkit_command("wal", "get", "--policy", site.policy, NAME, "x"))
    shell = ["sh", "-c", f"{command} {closed}; exit $?"]
    assert subprocess.run(shell, cwd=data, check=False).returncode == 1
    _no_repository(site, data)
    assert subprocess.run(shell, cwd=data, check=False).returncode == 200


def test_sigterm_ends_get_as_the_signal_it_is(site: Site, data: Path) -> None:
    """PostgreSQL tells its own shutdown from a failure by that signal."""
    site.policy.write_text(site.policy.read_text().replace("1 second", "60 seconds"))
    _no_repository(site, data)
    (data / "standby.signal").touch()  # so that it keeps trying
    process = subprocess.Popen(
        drkit_command("wal", "get", "--policy", site.policy, NAME, "x"),
        cwd=data,
        stderr=subprocess.PIPE,
    )
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM
    assert b"interrupted" in errors


def test_json(site: Site, data: Path) -> None:
    path = put(data, segment(7))
    done = site.drkit("wal", "push", "--output", "json", path, cwd=data)
    found = json.loads(done.stdout)
    assert (found["drkit"], found["version"], found["file"]) == ("wal push", 1, NAME)
    assert (found["new"], found["policy"]) == (True, "alpha")
    logged = site.drkit("wal", "push", "--log-format=json", path, cwd=data)
    assert json.loads(logged.stderr)["event"] == f"{NAME} was archived already"
    env = {"DRKIT_LOG_FORMAT": "json"}
    refused = site.drkit("wal", "push", put(data, b""), cwd=data, env=env)
    error = json.loads(refused.stderr)
    assert (error["drkit"], error["error"], error["exit_code"]) == (
        *("error", "WalRefused"),
        refused.returncode,
    )
    absent = segment_name(9)
    got = site.drkit("wal", "get", "--output=json", absent, "x", cwd=data)
    assert json.loads(got.stdout)["found"] is False
    assert site.drkit("wal", "push", "--quiet", path, cwd=data).stdout == b""


@pytest.mark.parametrize("words", [["push", f"pg_wal/{NAME}"], ["get", NAME, "x"]])
def test_archiving_imports_nothing_heavy(
    site: Site, data: Path, words: list[str]
) -> None:
    put(data, segment(7))
    env = os.environ | {"DRKIT_POLICY_DIR": str(site.policy.parent)}
    env |= {"HOME": str(site.root)}
    python = [sys.executable, "-X", "importtime", "-m", "drkit", "wal"]
    for command in (["push", f"pg_wal/{NAME}"], words):  # the first fills the cache
        done = subprocess.run(
            [*python, *command], cwd=data, env=env, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    lines = done.stderr.decode().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if "|" in line}
    assert "drkit.cli.archiving" in imported
    assert {name.partition(".")[0] for name in imported} & HEAVY == set()
