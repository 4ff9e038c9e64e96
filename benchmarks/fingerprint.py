"""Measures what fingerprints cost, and how long an exact one holds writers up.

Set the seconds of a sampled one against those of a full backup of the same cluster, as
`compare.py` measures them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from cluster import Cluster, Plan, version_of
from compare import size_of, work_directory

from drkit.errors import DrkitError
from drkit.model.fingerprint import Mode
from drkit.model.fingerprint_json import dump
from drkit.operations.fingerprint import Limits, take
from drkit.postgres import process
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.fingerprint import connector
from drkit.wiring import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.postgres.server import ThrowawayServer

_LIMITS = Limits(fall_back=False)


class Measured(NamedTuple):
    """One fingerprint."""

    mode: Mode
    seconds: float
    held_seconds: float
    bytes: int


def measure(server: ThrowawayServer, mode: Mode) -> Measured:
    """Take a fingerprint."""
    connect = connector(server.url, None, "benchmark")
    begun = time.monotonic()
    made = take(connect, mode, "benchmark", SystemClock(), _LIMITS)
    seconds = time.monotonic() - begun
    return Measured(mode, seconds, made.held_seconds, len(dump(made)))


def table(samples: Sequence[Measured]) -> str:
    """Return the medians as Markdown."""
    lines = [
        "| fingerprint | seconds | least-most | writers held, ms | bytes |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for mode in Mode:
        mine = [one for one in samples if one.mode is mode]
        seconds = [one.seconds for one in mine]
        held = 1000 * median(one.held_seconds for one in mine)
        lines.append(
            f"| {mode} | {median(seconds):.2f} | {min(seconds):.2f}-{max(seconds):.2f} "
            f"| {held:.0f} | {mine[-1].bytes} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = _parse(arguments)
    account = process.server_account()
    binaries = ServerBinaries.locate(options.major)
    work = work_directory(options.work, account)
    cluster = Cluster(f"{work}/cluster", account)
    plan = Plan(options.size, binaries.major, 0)
    try:
        if cluster.built_from() != plan:
            cluster.build(plan, binaries)
        with cluster.server(binaries) as server:
            server.start()
            samples = [
                measure(server, mode) for _ in range(options.rounds) for mode in Mode
            ]
    except DrkitError as error:
        print(f"fingerprint.py: {error.message}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    print(f"PostgreSQL {version_of(binaries, 'postgres')}\n\n{table(samples)}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--size", type=size_of, default="3.5GB", help="of the cluster (3.5GB)")
    add("--rounds", type=int, default=3, help="of both kinds (3)")
    add("--major", type=int, default=18, help="of PostgreSQL (18)")
    add("--work", metavar="DIR", help="for the cluster; else a new one")
    add("--keep", action="store_true", help="leave all in --work; reuse its cluster")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
