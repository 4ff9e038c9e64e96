"""Measures a verification by restoring against its steps, each run alone.

Alone are: the restore; the server until it takes writes; every page's checksum
(`pg_checksums`); every row (`pg_dump` to nowhere); every index (`pg_amcheck`); the
clearing away. Both alternate. What only drkit does (identity, fingerprint, the write,
the signed record) has no counterpart, so it counts against drkit.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import frame
from cluster import archive_with, session
from frame import OneCluster, say
from measuring import measure
from peers import Drkit

from drkit.postgres.server import ThrowawayServer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from drkit.postgres.process import Account

_TOGETHER = "verification"


class Timed(NamedTuple):
    """One step of one round; the verification is a step of its own."""

    step: str
    seconds: float


class Benchmark(OneCluster):
    """One cluster with one backup, which is verified again and again."""

    def __init__(self, options: argparse.Namespace, work: str, account: Account):
        super().__init__(options, work, account)
        self.samples: list[Timed] = []

    def run(self) -> None:
        """Back up once, and measure all rounds."""
        with self.served({}) as site:
            self.site, self.tool = site, Drkit(site, fingerprint="sampled")
            archive_with(site.server, "true")
            archive_with(site.server, site.archive_command(self.tool.prepare()))
            site.run(*self.tool.backup())
            with session(site.server) as connection:
                connection.query("SELECT pg_switch_wal()")
        for number in range(self.options.rounds):
            frame.warn_if_busy()
            turn = (self._together, self._alone)
            for take in turn if number % 2 == 0 else turn[::-1]:
                take()

    def _together(self) -> None:
        self._measure(_TOGETHER, self.tool.verification())

    def _alone(self) -> None:
        target = self.site.fresh("restored")
        self._measure("restore", self.tool.restore(target))
        server = ThrowawayServer(
            self.binaries,
            data_directory=target,
            settings={"archive_mode": "off"},
            account=self.account,
            environment=self.site.environment,
        )
        with server:
            with self._timed("start, replay, promote"):
                server.start(timeout=600)
                server.wait_until_primary(timeout=600)
            with self._timed("every row"):
                server.run_tool("pg_dumpall", "--globals-only", f"-d{server.url}")
                dump = (
                    "--format=custom",
                    "--compress=0",
                    "--no-sync",
                    "--file=/dev/null",
                )
                server.run_tool("pg_dump", *dump, server.url, timeout=None)
            with self._timed("every index"):
                arguments = ("--all", "--heapallindexed", "--install-missing")
                place = ("-h", server.directory, "-U", "postgres")
                jobs = f"--jobs={self.options.jobs}"
                server.run_tool("pg_amcheck", *arguments, jobs, *place, timeout=None)
            server.stop(timeout=600)
            with self._timed("every page"):
                server.run_tool("pg_checksums", "--check", f"-D{target}", timeout=None)
        with self._timed("clearing away"):
            shutil.rmtree(target)

    def _measure(self, step: str, command: Sequence[str]) -> None:
        log = f"{self.work}/logs/{step}.log".replace(" ", "-")
        sample = measure(command, self.site.identity, self.site.environment, log)
        self._note(step, sample.seconds)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self._note(step, time.monotonic() - begin)

    def _note(self, step: str, seconds: float) -> None:
        self.samples.append(Timed(step, seconds))
        say(f"{step}: {seconds:.2f} s")


def table(samples: Sequence[Timed]) -> str:
    """Return medians as Markdown, and the verification against the sum of the rest."""
    lines = ["| step | seconds | least-most |", "| --- | ---: | ---: |"]
    alone = 0.0
    for step in dict.fromkeys(one.step for one in samples):
        seconds = [one.seconds for one in samples if one.step == step]
        alone += 0.0 if step == _TOGETHER else median(seconds)
        least, most = min(seconds), max(seconds)
        lines.append(f"| {step} | {median(seconds):.2f} | {least:.2f}-{most:.2f} |")
    together = median(one.seconds for one in samples if one.step == _TOGETHER)
    lines.append(f"| the steps alone, together | {alone:.2f} | |")
    lines.append(f"| verification / steps alone | {together / alone:.2f} | |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = frame.parser(__doc__, "both, alternating")
    major = "of PostgreSQL, with amcheck (15)"
    parser.add_argument("--major", type=int, default=15, help=major)
    options = parser.parse_args(arguments)
    benchmark = frame.run(options, Benchmark)
    if benchmark is None:
        return 1
    frame.show(benchmark, f"{options.rounds} rounds", table(benchmark.samples))
    frame.write_samples(options.json, benchmark.samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
