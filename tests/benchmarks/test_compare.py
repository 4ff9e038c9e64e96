"""The benchmarks, run as a person does, on something small."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import DrkitError
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.process import DEFAULT_ENVIRONMENT, SAME_USER
from tests.pg import versions_under_test

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

BENCHMARKS = Path(__file__, "../../../benchmarks").resolve()
ALLOCATED = 80_000_000


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import measuring

    return measuring


def rows(markdown: str) -> dict[str, list[str]]:
    """Return the cells of all rows that begin with a name, joined over the tables."""
    found: dict[str, list[str]] = {}
    for line in markdown.splitlines():
        if line.startswith("| ") and not line.startswith(("| tool", "| ---")):
            name, *cells = line.strip("| ").split(" | ")
            found.setdefault(name, []).extend(cells)
    return found


def test_compares_whatever_is_installed(
    make_directory: Callable[[], Path], tmp_path: Path
) -> None:
    work, output = make_directory(), tmp_path / "samples.json"
    small = ["--size", "50MB", "--rounds", "1", "--pushes", "2"]
    if 15 in versions_under_test():  # which spares it to ask pgBackRest about others
        small += ["--postgres-bin", ServerBinaries.locate(15).directory]
    done = run("compare.py", *small, "--work", str(work), "--json", str(output))
    assert done.returncode == 0, done.stderr
    assert list(work.iterdir()) == []

    found = json.loads(output.read_text())
    tools = set(found["tools"])
    assert {"drkit", "pg_basebackup", "cp"} <= tools
    assert found["cluster"]["bytes"] == pytest.approx(50e6, rel=0.1)
    for phase, runs in (("backup", 1), ("restore", 1), ("wal", 2)):
        measured = found["phases"][phase]
        assert set(measured) == (tools - {"pg_basebackup"} if phase == "wal" else tools)
        # One `cp` of a segment may be over before the watch has seen it grow.
        least = 0 if phase == "wal" else 100_000
        for tool in measured.values():
            check_samples(tool, runs, measured["drkit"], least)
    for stored in found["stored"].values():
        assert all(one["backup"] > 1e6 and one["wal"] > 0 for one in stored)

    table = rows(done.stdout)
    assert set(table) == tools
    for name, cells in table.items():
        assert cells[0] == found["tools"][name]
        assert "-" not in cells


def check_samples(
    tool: dict[str, Any], runs: int, drkit: dict[str, Any], least: int
) -> None:
    samples = tool["samples"]
    assert len(samples) == runs
    for sample in samples:
        assert sample["seconds"] > 0
        assert sample["cpu_seconds"] > 0
        assert sample["peak_bytes"] >= least
    middle = median(sample["seconds"] for sample in samples)
    assert tool["median_seconds"] == middle
    assert tool["drkit_ratio"] == drkit["median_seconds"] / middle


def test_leaves_a_directory_with_other_things_alone(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    done = run("compare.py", "--size", "50MB", "--work", str(tmp_path))
    assert done.returncode == 1
    assert "holds other things" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cluster"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--size", "49MB"),
        ("--size", "big"),
        ("--only", "backup,dump"),
        ("--tools", "drkit,rsync"),
        ("--rounds", "0"),
        ("--keep",),
    ],
)
def test_wrong_options_are_refused(wrong: tuple[str, ...]) -> None:
    done = run("compare.py", *wrong)
    assert done.returncode == 2
    assert wrong[0] in done.stderr


def test_peak_memory_is_that_of_the_whole_tree(
    measuring: ModuleType, tmp_path: Path
) -> None:
    hold = f"import time; held = bytearray(b'x' * {ALLOCATED}); time.sleep(0.4)"
    one = f'"{sys.executable}" -c "{hold}"'
    sample = measuring.measure(
        ["sh", "-c", f"{one} & {one}; wait"],
        SAME_USER,
        DEFAULT_ENVIRONMENT,
        str(tmp_path / "log"),
    )
    # each has two copies for a moment
    assert 2 * ALLOCATED < sample.peak_bytes < 4.5 * ALLOCATED
    assert sample.seconds > 0.4
    assert sample.cpu_seconds > 0


def test_a_short_command_is_seen_grown(measuring: ModuleType, tmp_path: Path) -> None:
    """It holds its memory for less than the time between two late looks."""
    short = f"held = bytearray(b'x' * {ALLOCATED})"
    sample = measuring.measure(
        [sys.executable, "-S", "-c", short],
        SAME_USER,
        DEFAULT_ENVIRONMENT,
        str(tmp_path / "log"),
    )
    assert sample.peak_bytes > ALLOCATED / 4


def test_the_first_looks_at_the_memory_follow_each_other_closely(
    measuring: ModuleType,
) -> None:
    waits = list(itertools.islice(measuring.pauses(), 100))
    assert sum(waits[:10]) < 0.01
    assert waits == sorted(waits)
    assert waits[-1] == measuring.INTERVAL


def test_a_command_that_fails_is_no_sample(
    measuring: ModuleType, tmp_path: Path
) -> None:
    argv = ["sh", "-c", "echo no such stanza >&2; exit 3"]
    log = str(tmp_path / "log")
    with pytest.raises(DrkitError, match=r"ended with 3:\n  no such stanza"):
        measuring.measure(argv, SAME_USER, DEFAULT_ENVIRONMENT, log)


def test_startup_prints_every_command() -> None:
    done = run("startup.py", "--rounds", "1", "--limit", "60000")
    assert done.returncode == 0, done.stderr
    assert set(rows(done.stdout)) == {
        "command",
        "`python -c pass`",
        "`drkit --version`",
        "`drkit wal push, its imports`",
        "`drkit --help`",
    }
