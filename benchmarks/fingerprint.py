"""Measures what fingerprints add to backups, and how long exact ones hold writers up.

Full backups without one, with a sampled and with an exact one alternate, each into an
empty repository; behind each comes an incremental of the cluster at rest. All but the
server is drkit's own: what a command takes is taken from its start to its end.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.postgres.process import Account

_MODES = ("off", "sampled", "exact")
_TOLD = ("seconds", "held_seconds", "stored_bytes")
_BUSY = 0.15  # cores that others may keep busy before it is worth a warning


class Measured(NamedTuple):
    """One backup.

    Attributes:
        seconds: of the whole command; `taking` are those of the fingerprint in it.
        held: seconds that writers were held up at most.
        size: bytes of the stored fingerprint.
    """

    kind: str
    mode: str
    seconds: float
    taking: float
    held: float
    size: int


class Benchmark:
    """One cluster, and the backups that are taken of it."""

    def __init__(self, options: argparse.Namespace, work: str, account: Account):
        self.options = options
        self.work = work
        self.account = account
        self.samples: list[Measured] = []
        self.binaries = ServerBinaries.locate(options.major)
        self.cluster = Cluster(f"{work}/cluster", account)
        plan = Plan(options.size, self.binaries.major, 0)
        if self.cluster.built_from() != plan:
            _say(f"building a cluster of PostgreSQL {self.binaries.major} in {work}")
            self.cluster.build(plan, self.binaries)

    def run(self) -> None:
        """Measure all rounds."""
        # the server's user may not be allowed to keep compiled modules there
        compileall.compile_dir(os.path.dirname(drkit.__file__), quiet=2)
        reach = (sys.executable, os.__file__, self.work)
        identity = process.drop_to(self.account, reach=reach)
        settings = {"summarize_wal": "on"} if self.binaries.major >= 17 else {}
        with self.cluster.server(self.binaries, settings) as server:
            server.start()
            with session(server) as connection:
                self._add_tables(connection)
                query(connection, "CHECKPOINT")
            options = self.options
            self.site = Site(self.work, server, identity, options.jobs, 3)
            for name in ("logs", "home"):
                self.site.fresh(name)
            self._back_up("warm-up", "off")
            for number in range(options.rounds):
                self._round(number)
            server.stop(timeout=600)

    def _add_tables(self, connection: Any) -> None:
        """Add small tables, of which an empty cluster of the same size has none."""
        for number in range(self.options.tables):
            query(
                connection,
                f"CREATE TABLE IF NOT EXISTS public.small_{number} AS "
                "SELECT n, md5(n::text) FROM generate_series(1, 100) AS n",
            )

    def _round(self, number: int) -> None:
        busy = busy_cores()
        if busy > _BUSY:
            _say(f"warning: something else keeps {busy:.1f} cores busy")
        first = number % len(_MODES)  # so that none is always the first
        for mode in _MODES[first:] + _MODES[:first]:
            self._back_up("full", mode)

    def _back_up(self, kind: str, mode: str) -> None:
        """Take a full backup and an idle incremental into a new repository."""
        tool = Drkit(self.site, fingerprint=mode)
        archive_with(self.site.server, "true")
        archive_with(self.site.server, self.site.archive_command(tool.prepare()))
        self._measure(kind, mode, tool.backup())
        if kind == "full":
            self._measure("idle incremental", mode, tool.incremental())

    def _measure(self, kind: str, mode: str, command: Sequence[str]) -> None:
        log = f"{self.work}/logs/{kind}-{mode}.log".replace(" ", "-")
        command = (*command, "--output", "json")
        environment = self.site.environment
        sample = measure(command, self.site.identity, environment, log)
        told = _document(Path(log).read_text())["fingerprint"] or {}
        if told.get("warnings") or bool(told) != (mode != "off"):
            raise DrkitError(f"the fingerprint is not as it was wanted: {told}")
        if kind != "warm-up":
            taken = (told.get(name, 0) for name in _TOLD)
            self.samples.append(Measured(kind, mode, sample.seconds, *taken))
        _say(f"{kind}, fingerprint {mode}: {sample.seconds:.2f} s")


def _document(log: str) -> Any:
    """Return the JSON document in what a command wrote."""
    return json.JSONDecoder().raw_decode(log[log.index('{\n  "drkit"') :])[0]


def table(samples: Sequence[Measured]) -> str:
    """Return medians as Markdown, and what a fingerprint adds."""
    lines = [
        "| backup | fingerprint | seconds | least-most | ratio | taking | held, ms |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, mode in dict.fromkeys((one.kind, one.mode) for one in _ordered(samples)):
        mine = [one for one in samples if (one.kind, one.mode) == (kind, mode)]
        seconds = [one.seconds for one in mine]
        bare = [one.seconds for one in samples if (one.kind, one.mode) == (kind, "off")]
        lines.append(
            f"| {kind} | {mode} | {median(seconds):.2f} "
            f"| {min(seconds):.2f}-{max(seconds):.2f} "
            f"| {median(seconds) / median(bare):.3f} "
            f"| {median(one.taking for one in mine):.2f} "
            f"| {1000 * median(one.held for one in mine):.0f} |"
        )
    return "\n".join(lines)


def _ordered(samples: Sequence[Measured]) -> list[Measured]:
    return sorted(samples, key=lambda one: (one.kind, _MODES.index(one.mode)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = _parse(arguments)
    account = process.server_account()
    work = work_directory(options.work, account)
    try:
        benchmark = Benchmark(options, work, account)
        benchmark.run()
    except DrkitError as error:
        print(f"fingerprint.py: {error.message}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    version = version_of(benchmark.binaries, "postgres")
    print(f"PostgreSQL {version}, {options.rounds} rounds\n")
    print(table(benchmark.samples))
    if options.json:
        found = [one._asdict() for one in benchmark.samples]
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--size", type=size_of, default="3.5GB", help="of the cluster (3.5GB)")
    add("--rounds", type=int, default=3, help="of all kinds, alternating (3)")
    add("--tables", type=int, default=0, help="small ones that are added (0)")
    add("--jobs", type=int, default=2, help="parallel workers (2)")
    add("--major", type=int, default=18, help="of PostgreSQL (18)")
    add("--work", metavar="DIR", help="for the cluster; else a new one")
    add("--keep", action="store_true", help="leave all in --work; reuse its cluster")
    add("--json", metavar="FILE", help="also write every sample")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
