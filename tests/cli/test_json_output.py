"""docs/json-output.md shows what the commands really write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import drkit
from drkit.cli.logs import Redactor, make_log
from tests.pg import run_drkit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from tests.cli.site import ServedSite, Site

DOCUMENT = Path(drkit.__file__).parents[1] / "docs" / "json-output.md"
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> dict[str, Any]:
    """The first example of each section, by the section's heading."""
    found = {}
    for heading, text in _SECTION.findall(DOCUMENT.read_text()):
        match = _EXAMPLE.search(text)
        if match is not None:
            found[heading] = json.loads(match[1])
    return found


def differences(shown: Any, real: Any, path: str = "") -> Iterator[str]:
    """Yield where two documents differ in members or types; null may stand anywhere."""
    if shown is None or real is None:
        return
    if isinstance(shown, dict) and isinstance(real, dict):
        for name in shown.keys() ^ real.keys():
            yield f"{path}.{name} is {'shown' if name in shown else 'real'} only"
        for name in shown.keys() & real.keys():
            yield from differences(shown[name], real[name], f"{path}.{name}")
    elif isinstance(shown, list) and isinstance(real, list):
        for one in real if shown else ():
            yield from differences(shown[0], one, f"{path}[]")
    elif _kind(shown) != _kind(real):
        yield f"{path} is shown as {_kind(shown)} and really {_kind(real)}"


def _kind(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__


def agree(command: str, real: Any) -> None:
    shown = examples()[command]
    assert shown["drkit"] == real["drkit"] == command
    assert shown["version"] == real["version"] == 1
    assert list(differences(shown, real)) == []


def test_differences_are_found() -> None:
    assert list(differences({"a": [{"b": 1}]}, {"a": [{"b": 2.5}]})) == []
    for real in ({}, {"a": [], "c": 1}, {"a": [{"b": "1"}]}, {"a": [{"b": 1}, {}]}):
        assert list(differences({"a": [{"b": 1}]}, real)) != []


def test_every_command_is_documented() -> None:
    commands = {name for name, shown in examples().items() if "drkit" in shown}
    listed = run_drkit("--help").stdout.decode().partition("Commands:")[2]
    groups = re.findall(r"^  (\w+)  ", listed.partition("Examples:")[0], re.MULTILINE)
    assert {name.partition(" ")[0] for name in commands} - {"Errors"} == set(groups)


def test_documents(
    served: ServedSite, make_directory: Callable[[], Path], tmp_path: Path
) -> None:
    place = make_directory()
    served.cluster.sql(f"CREATE TABLESPACE fast LOCATION '{place}'")
    served.cluster.sql("CREATE TABLE t TABLESPACE fast AS SELECT 1 AS i")
    policy = served.site.policy
    policy.write_text(policy.read_text() + "objectives: {rpo: 5 minutes}\n")

    def write(*words: str | Path) -> Any:
        done = served.site.drkit(*words, "--output", "json")
        assert done.returncode in (0, 3, 20), done.stderr
        return json.loads(done.stdout)

    agree("check", write("check", "alpha"))
    agree("heartbeat", write("heartbeat", "alpha", "--create"))
    agree("backup", write("backup", "alpha"))
    moment = served.cluster.sql("SELECT clock_timestamp()::text")
    served.cluster.sql("INSERT INTO t VALUES (2)")
    names = [served.archive_now() for _ in range(4)]
    target = make_directory() / "restored"
    words = ("--to", target, "--target-time", moment)
    words += ("--tablespace-map", f"{place}={target}-fast")
    planned = write("restore", "alpha", *words, "--plan")
    agree("restore", planned)
    assert planned["plan"]["tablespaces"][0]["new"] == f"{target}-fast"
    agree("restore", write("restore", "alpha", *words))
    again = write("restore", "alpha", *words, "--delta")
    agree("restore", again)
    assert again["delta"]["kept_bytes"] > 0
    assert again["plan"]["delta"]["foreign"] == []
    check_start(planned["plan"]["start"], target)
    agree("keys list", write("keys", "list", "alpha"))
    agree("keys check", write("keys", "check", "alpha"))
    agree("keys sign-wal", write("keys", "sign-wal", "alpha"))
    agree("policy check", write("policy", "check", "alpha"))
    (gone,) = served.site.wal.rglob(names[1])
    gone.unlink()
    status = write("wal", "status", "alpha")
    agree("wal status", status)
    assert len(status["timelines"][0]["gaps"]) == 1
    agree("info", write("info", "alpha"))
    agree("verify", write("verify", "alpha"))
    name = served.archive_now()
    segment = served.cluster.wal_path(name)
    agree("wal push", write("wal", "push", "--policy", "alpha", segment))
    fetched = tmp_path / "fetched"
    agree("wal get", write("wal", "get", "--policy", "alpha", name, fetched))
    repository = f"file://{tmp_path}/repository"
    words = ("--url", served.cluster.url, "--repository", repository)
    agree("init", write("init", "beta", *words, "--policy-dir", tmp_path / "policies"))


def check_start(start: dict[str, str], target: Path) -> None:
    """The commands are those that the text shows."""
    assert start["log"] == f"{target}.log"
    for command in (start["command"], start["beside"]):
        assert f"pg_ctl -D {target} -l {start['log']} " in command
        assert command.endswith(" start")
    assert "archive_mode=off" in start["beside"]


def test_demo() -> None:
    done = run_drkit("demo", "--output", "json")
    assert done.returncode == 0, done.stderr
    agree("demo", json.loads(done.stdout))


def test_errors(site: Site) -> None:
    done = site.drkit("backup", "nobody", "--output", "json")
    assert done.stdout == b""
    assert list(differences(examples()["Errors"], json.loads(done.stderr))) == []


def test_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = make_log("json", "info", Redactor(()), run="94af746c", command="backup")
    log.bind(policy="production").info("phase", phase="copy", total_bytes=26560817)
    real = json.loads(capsys.readouterr().err)
    shown = examples()["Log lines"]
    assert shown | {"timestamp": real["timestamp"]} == real
