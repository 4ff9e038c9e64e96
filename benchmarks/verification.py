"""Measures a verification by restoring against its steps, each run alone.

Alone are: the restore; the server until it takes writes; every page's checksum
(`pg_checksums`); every row (`pg_dump` to nowhere); every index (`pg_amcheck`); the
clearing away. Both alternate. What only drkit does (identity, fingerprint, the write,
the signed record) has no counterpart, so it counts against drkit.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import sys
import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from cluster import Cluster, Plan, archive_with, session, version_of
from compare import size_of, work_directory
from measuring import busy_cores, measure
from peers import Drkit
from tool import Site

import drkit
from drkit.errors import DrkitError
from drkit.postgres import process
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.connection import query
from drkit.postgres.server import ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.postgres.process import Account

_TOGETHER = "verification"
_BUSY = 0.15  # cores that others may keep busy before it is worth a warning


class Timed(NamedTuple):
    """One step of one round; the verification is a step of its own."""

    step: str
    seconds: float


class Benchmark:
    """One cluster with one backup, which is verified again and again."""

    def __init__(self, options: argparse.Namespace, work: str, account: Account):
        self.options = options
        self.work = work
        self.account = account
        self.samples: list[Timed] = []
        self.binaries = ServerBinaries.locate(options.major)
        self.cluster = Cluster(f"{work}/cluster", account)
        plan = Plan(options.size, self.binaries.major, 0)
        if self.cluster.built_from() != plan:
            _say(f"building a cluster of PostgreSQL {self.binaries.major} in {work}")
            self.cluster.build(plan, self.binaries)

    def run(self) -> None:
        """Back up once, and measure all rounds."""
        # the server's user may not be allowed to keep compiled modules there
        compileall.compile_dir(os.path.dirname(drkit.__file__), quiet=2)
        reach = (sys.executable, os.__file__, self.work)
        identity = process.drop_to(self.account, reach=reach)
        with self.cluster.server(self.binaries, {}) as server:
            server.start()
            self.site = Site(self.work, server, identity, self.options.jobs, 3)
            for name in ("logs", "home"):
                self.site.fresh(name)
            self.tool = Drkit(self.site, fingerprint="sampled")
            archive_with(server, "true")
            archive_with(server, self.site.archive_command(self.tool.prepare()))
            self.site.run(*self.tool.backup())
            with session(server) as connection:
                query(connection, "SELECT pg_switch_wal()")
            server.stop(timeout=600)
        for number in range(self.options.rounds):
            busy = busy_cores()
            if busy > _BUSY:
                _say(f"warning: something else keeps {busy:.1f} cores busy")
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
        _say(f"{step}: {seconds:.2f} s")


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
    options = _parse(arguments)
    account = process.server_account()
    work = work_directory(options.work, account)
    try:
        benchmark = Benchmark(options, work, account)
        benchmark.run()
    except DrkitError as error:
        print(f"verification.py: {error.message}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    version = version_of(benchmark.binaries, "postgres")
    print(f"PostgreSQL {version}, {options.rounds} rounds\n")
    print(table(benchmark.samples))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--size", type=size_of, default="3.5GB", help="of the cluster (3.5GB)")
    add("--rounds", type=int, default=3, help="of both, alternating (3)")
    add("--jobs", type=int, default=2, help="parallel workers (2)")
    add("--major", type=int, default=15, help="of PostgreSQL, with amcheck (15)")
    add("--work", metavar="DIR", help="for everything; else a new one")
    add("--keep", action="store_true", help="leave all in --work; reuse its cluster")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
