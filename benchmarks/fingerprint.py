"""Measures what fingerprints add to backups, and how long exact ones hold writers up.

Full backups without one, with a sampled and with an exact one alternate, each into an
empty repository; behind each comes an incremental of the cluster at rest. All but the
server is drkit's own: what a command takes is taken from its start to its end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import frame
from cluster import archive_with, session
from frame import OneCluster, say
from measuring import measure
from peers import Drkit

from drkit.errors import DrkitError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from drkit.postgres.process import Account

_MODES = ("off", "sampled", "exact")
_TOLD = ("seconds", "held_seconds", "stored_bytes")


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


class Benchmark(OneCluster):
    """One cluster, and the backups that are taken of it."""

    def __init__(self, options: argparse.Namespace, work: str, account: Account):
        super().__init__(options, work, account)
        self.samples: list[Measured] = []

    def run(self) -> None:
        """Measure all rounds."""
        settings = {"summarize_wal": "on"} if self.binaries.major >= 17 else {}
        with self.served(settings) as self.site:
            with session(self.site.server) as connection:
                self._add_tables(connection)
                connection.query("CHECKPOINT")
            self._back_up("warm-up", "off")
            for number in range(self.options.rounds):
                self._round(number)

    def _add_tables(self, connection: Any) -> None:
        """Add small tables, of which an empty cluster of the same size has none."""
        for number in range(self.options.tables):
            connection.query(
                f"CREATE TABLE IF NOT EXISTS public.small_{number} AS "
                "SELECT n, md5(n::text) FROM generate_series(1, 100) AS n",
            )

    def _round(self, number: int) -> None:
        frame.warn_if_busy()
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
        say(f"{kind}, fingerprint {mode}: {sample.seconds:.2f} s")


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
    parser = frame.parser(__doc__, "all kinds, alternating")
    add = parser.add_argument
    add("--tables", type=int, default=0, help="small ones that are added (0)")
    add("--major", type=int, default=18, help="of PostgreSQL (18)")
    options = parser.parse_args(arguments)
    benchmark = frame.run(options, Benchmark)
    if benchmark is None:
        return 1
    frame.show(benchmark, f"{options.rounds} rounds", table(benchmark.samples))
    frame.write_samples(options.json, benchmark.samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
