"""Measures incremental backups, drkit's beside pgBackRest's where that is installed.

    python benchmarks/incremental.py --size 3.5GB --rounds 3
    python benchmarks/incremental.py --size 1GB --rounds 0 --chain 100

Each round changes the cluster with `pgbench -N` and lets every tool take an incremental
of it, then another when nothing has changed. What PostgreSQL needs by itself for a
checkpoint, the start and the stop of a backup is measured as `server`. A chain is many
incrementals of a small change each, behind which drkit's restore is measured against
that of the full backup. See README.md.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import frame
from cluster import archive_with, relation_sizes, session
from frame import OneCluster, say
from measuring import measure
from peers import Drkit, PgBackRest
from selection import find_pgbackrest

from drkit.errors import DrkitError
from drkit.postgres.connection import connect
from drkit.postgres.session import BackupSession

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from measuring import Sample

    from drkit.postgres.process import Account

_CLIENTS = 4
_LINK_CLIENTS = 2  # a link's transactions are few
_FULL, _CHAIN = "restore full", "restore chain"
_SUMMARIZER_WITHIN = 60.0


class Measured(NamedTuple):
    """One command of one tool."""

    phase: str
    tool: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stored_bytes: int


class Benchmark(OneCluster):
    """One cluster, the tools that back it up, and what they took."""

    def __init__(self, options: argparse.Namespace, work: str, account: Account):
        super().__init__(options, work, account, logged=True)
        self.samples: list[Measured] = []
        self.watched: list[Measured] = []
        self._watching = True

    def run(self) -> None:
        """Measure what was asked for."""
        options = self.options
        on = "on" if options.summaries else "off"
        settings = {"summarize_wal": on} if self.binaries.major >= 17 else {}
        with self.served(settings, options.level) as self.site:
            self.tools = self._tools()
            self._prepare()
            self._take("full", lambda tool: tool.backup())
            self._rounds()
            if options.chain:
                self._chain()

    def _tools(self) -> list[Drkit | PgBackRest]:
        """Return what is measured; nobody but drkit has a part in a chain."""
        self.drkit = Drkit(self.site)
        tools: list[Drkit | PgBackRest] = [self.drkit]
        program = find_pgbackrest()
        if program and self.options.rounds and not self.options.alone:
            tools.append(PgBackRest(self.site, program))
        return tools

    def _prepare(self) -> None:
        """Let the server archive into every tool's repository."""
        archive_with(self.site.server, "true")
        commands = [self.site.archive_command(tool.prepare()) for tool in self.tools]
        archive_with(self.site.server, " && ".join(commands))
        for tool in self.tools:
            say(f"{tool.name} {tool.version()}")

    def _rounds(self) -> None:
        """Time the rounds; then take one more, of which only the memory counts.

        Watching it would slow the others down, short commands most of all.
        """
        self._watching = False
        for number in range(self.options.rounds):
            self._round(number)
        self._watching = True
        if self.options.rounds:
            timed, self.samples = self.samples, self.watched
            self._round(self.options.rounds)
            self.samples = timed

    def _round(self, number: int) -> None:
        self._change()
        self.samples.append(self._bare("server"))
        turn = self.tools if number % 2 == 0 else self.tools[::-1]
        self._take("changed", lambda tool: tool.incremental(), turn)
        self._rest()
        self.samples.append(self._bare("idle server"))
        self._take("idle", lambda tool: tool.incremental(), turn)

    def _change(self) -> None:
        each = self.options.transactions // _CLIENTS
        server = self.site.server
        arguments = ("-n", "-N", f"-c{_CLIENTS}", "-j2", f"-t{each}", server.url)
        server.run_tool("pgbench", *arguments, timeout=None)
        self._rest()

    def _rest(self) -> None:
        """Write everything out, and let the archiver and the summarizer catch up."""
        server = self.site.server
        with session(server) as connection:
            connection.query("CHECKPOINT")
            connection.query("SELECT pg_switch_wal()")
        status = f"{server.data_directory}/pg_wal/archive_status"
        deadline = time.monotonic() + _SUMMARIZER_WITHIN
        while any(name.endswith(".ready") for name in os.listdir(status)):
            if time.monotonic() > deadline:
                raise DrkitError(f"WAL is not archived{server.log_tail()}")
            time.sleep(0.05)
        os.sync()

    def _bare(self, phase: str) -> Measured:
        """Time what PostgreSQL does for any backup: checkpoint, start, stop."""
        connection = connect(self.site.server.url, None, "benchmark")
        with closing(connection):
            begun = time.monotonic()
            backup = BackupSession(connection)
            backup.begin("benchmark")
            backup.start()
            backup.stop()
            seconds = time.monotonic() - begun
        return Measured(phase, "postgresql", seconds, 0.0, 0, 0)

    def _take(
        self,
        phase: str,
        command_of: Callable[[Drkit | PgBackRest], Sequence[str]],
        tools: Sequence[Drkit | PgBackRest] | None = None,
    ) -> None:
        for tool in tools or self.tools:
            before = tool.stored().backup
            sample = self._measure(phase, command_of(tool))
            stored = tool.stored().backup - before
            self._note(phase, tool.name, sample, stored)

    def _chain(self) -> None:
        """Take many small incrementals; restore the full and the last in turn."""
        for _ in range(self.options.chain):
            self._link()
        listed = json.loads(self.site.run(*self.drkit.info()).stdout)
        labels = [one["label"] for one in listed["policies"][0]["backups"]]
        restores = [(_FULL, labels[0]), (_CHAIN, labels[-1])]
        frame.warn_if_busy()
        for number in range(max(self.options.restores, 1)):
            for phase, label in restores[:: 1 if number % 2 == 0 else -1]:
                self._restore(phase, label)

    def _link(self) -> None:
        server = self.site.server
        each = max(self.options.link // _LINK_CLIENTS, 1)
        arguments = ("-n", "-N", f"-c{_LINK_CLIENTS}", f"-t{each}", server.url)
        server.run_tool("pgbench", *arguments, timeout=None)
        self.site.run(*self.drkit.incremental())

    def _restore(self, phase: str, label: str) -> None:
        target = self.site.fresh("restored")
        sample = self._measure(phase, self.drkit.restore(target, label))
        self._note(phase, self.drkit.name, sample, 0)
        there = set(relation_sizes(self.cluster.data_directory))
        if set(relation_sizes(target)) - there:
            raise DrkitError("a restore has files that the cluster lacks")
        shutil.rmtree(target)

    def _measure(self, phase: str, command: Sequence[str]) -> Sample:
        log = f"{self.work}/logs/{phase}.log".replace(" ", "-")
        return measure(
            command,
            self.site.identity,
            self.site.environment,
            log,
            watch_memory=self._watching,
        )

    def _note(self, phase: str, tool: str, sample: Sample, stored: int) -> None:
        self.samples.append(Measured(phase, tool, *sample, stored))
        memory = f"{sample.peak_bytes / 1e6:.0f} MB, " if self._watching else ""
        say(
            f"{tool} {phase}: {sample.seconds:.2f} s, {sample.cpu_seconds:.2f} s of "
            f"processor, {memory}stored {stored / 1e6:.2f} MB"
        )


def table(samples: Sequence[Measured], watched: Sequence[Measured]) -> str:
    """Return the medians of each phase and tool, as Markdown.

    Args:
        watched: whose memory counts, but not their time.
    """
    lines = [
        "| phase | tool | seconds | least-most | stored, MB | peak, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for phase, tool in dict.fromkeys((one.phase, one.tool) for one in samples):
        mine = [one for one in samples if (one.phase, one.tool) == (phase, tool)]
        seconds = [one.seconds for one in mine]
        stored = statistics.median(one.stored_bytes for one in mine) / 1e6
        looked_at = [one for one in watched if (one.phase, one.tool) == (phase, tool)]
        peak = max(one.peak_bytes for one in [*mine, *looked_at]) / 1e6
        lines.append(
            f"| {phase} | {tool} | {statistics.median(seconds):.2f} | "
            f"{min(seconds):.2f}-{max(seconds):.2f} | {stored:.2f} | {peak:.0f} |"
        )
    return "\n".join(lines)


def round_ratios(samples: Sequence[Measured]) -> str:
    """Say what the incrementals took against pgBackRest's, in all and by themselves.

    By itself is what is beyond the server's own start and stop in the same round.
    """

    def each(phase: str, tool: str) -> list[float]:
        return [
            one.seconds for one in samples if (one.phase, one.tool) == (phase, tool)
        ]

    def beyond(phase: str, server: str) -> float:
        pairs = zip(each(phase, Drkit.name), each(server, "postgresql"), strict=True)
        return statistics.median(mine - servers for mine, servers in pairs)

    own, idle = beyond("changed", "server"), beyond("idle", "idle server")
    said = f"beyond the server: {own:.2f} s, when nothing has changed {idle:.2f} s"
    theirs = each("changed", PgBackRest.name)
    if not theirs:
        return said
    whole = statistics.median(each("changed", Drkit.name))
    peer = statistics.median(theirs)
    return f"{said}; of pgBackRest's time {whole / peer:.2f}, {own / peer:.3f} beyond"


def chain_ratio(samples: Sequence[Measured]) -> str:
    """Say how long a restore behind the chain takes, the full backup's being 1."""

    def median(phase: str, what: Callable[[Measured], float]) -> float:
        return statistics.median(what(one) for one in samples if one.phase == phase)

    def ratio(what: Callable[[Measured], float]) -> float:
        return median(_CHAIN, what) / median(_FULL, what)

    wall = ratio(lambda one: one.seconds)
    processor = ratio(lambda one: one.cpu_seconds)
    return (
        f"behind the chain: {wall:.2f} of the full's time, {processor:.2f} of its CPU"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = frame.parser(__doc__, "changes and backups")
    add = parser.add_argument
    add("--transactions", type=int, default=20_000, help="of each change (20000)")
    add("--chain", type=int, default=0, help="then restore behind so many incrementals")
    add("--link", type=int, default=200, help="transactions of each of those (200)")
    add("--restores", type=int, default=5, help="of the chain and of its full (5)")
    add("--summaries", action="store_true", help="PostgreSQL 17+: summarize_wal=on")
    add("--alone", action="store_true", help="leave pgBackRest out")
    add("--level", type=int, default=3, help="of zstd compression (3)")
    add("--major", type=int, help="of PostgreSQL; the newest that is installed")
    add("--postgres-bin", metavar="DIR", help="PostgreSQL's programs")
    options = parser.parse_args(arguments)
    benchmark = frame.run(options, Benchmark)
    if benchmark is None:
        return 1
    title = f"WAL summaries {'on' if options.summaries else 'off'}"
    frame.show(benchmark, title, table(benchmark.samples, benchmark.watched))
    if options.rounds:
        print(f"\n{round_ratios(benchmark.samples)}")
    if options.chain:
        print(f"\n{chain_ratio(benchmark.samples)}")
    frame.write_samples(options.json, benchmark.samples + benchmark.watched)
    return 0


if __name__ == "__main__":
    sys.exit(main())
