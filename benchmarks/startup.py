"""Measures how long drkit takes to start, beside the bare interpreter."""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import time
from statistics import median

import drkit

_BARE = "python -c pass"
_WAL_PUSH = """
from drkit.__main__ import start_fast
start_fast()
import drkit.cli.archiving
"""
_COMMANDS: dict[str, tuple[str, ...]] = {
    _BARE: ("-c", "pass"),
    "drkit --version": ("-m", "drkit", "--version"),
    "drkit wal push, its imports": ("-c", _WAL_PUSH),
    "drkit --help": ("-m", "drkit", "--help"),
}


def main() -> int:
    """Print a table; return 1 if one of the quick commands is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="of each command (30)")
    parser.add_argument(
        "--limit",
        type=float,
        metavar="MS",
        help="fail if --version or wal push take more than the interpreter and this",
    )
    options = parser.parse_args()
    compileall.compile_dir(os.path.dirname(drkit.__file__), quiet=2)
    found = {name: median(times) for name, times in _measure(options.rounds).items()}
    _print(found)
    slowest = max(found[name] - found[_BARE] for name in list(_COMMANDS)[1:3])
    return int(options.limit is not None and slowest > options.limit)


def _measure(rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each command's runs; the commands take turns."""
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for number in range(rounds + 1):
        for name in _in_turn(number):
            arguments = _COMMANDS[name]
            begun = time.monotonic()
            subprocess.run(
                [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
            )
            if number:  # the first round only fills the page cache
                times[name].append((time.monotonic() - begun) * 1000)
    return times


def _in_turn(number: int) -> list[str]:
    """Rotate the commands: what ran just before has its effect on the next one."""
    names = list(_COMMANDS)
    first = number % len(names)
    return names[first:] + names[:first]


def _print(found: dict[str, float]) -> None:
    print("| command | median, ms | more than the interpreter, ms |")
    print("| --- | ---: | ---: |")
    for name, milliseconds in found.items():
        more = milliseconds - found[_BARE]
        print(f"| `{name}` | {milliseconds:.0f} | {more:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
