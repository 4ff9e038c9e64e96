"""The rounds over all tools, which alternate."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster import archive_with, relation_sizes
from measuring import busy_cores, measure

from drkit.errors import DrkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster import Cluster
    from report import Results
    from tool import Site, Tool

_BUSY = 0.15  # cores that others may keep busy before it is worth a warning


class Wanted(NamedTuple):
    """What to measure: phases among `backup`, `restore` and `wal`, and how often."""

    phases: tuple[str, ...]
    rounds: int


class Comparison:
    """The rounds over all tools."""

    def __init__(
        self,
        wanted: Wanted,
        site: Site,
        cluster: Cluster,
        tools: list[Tool],
        results: Results,
        say: Callable[[str], None],
    ) -> None:
        self.wanted = wanted
        self.site = site
        self.cluster = cluster
        self.tools = tools
        self.results = results
        self.say = say
        self.expected = relation_sizes(cluster.data_directory)

    def run(self) -> None:
        """Measure what was asked for."""
        for name in ("logs", "home"):
            self.site.fresh(name)
        self._warm_up()
        phases = self.wanted.phases
        if "backup" in phases or "restore" in phases:
            for number in range(self.wanted.rounds):
                self._round(number)
        if "wal" in phases:
            self._push_wal()

    def _round(self, number: int) -> None:
        self._look_around(f"round {number + 1}")
        if "backup" in self.wanted.phases or number == 0:
            for tool in self._in_turn(self.tools, number):
                self._back_up(tool)
        if "restore" in self.wanted.phases:
            for tool in self._in_turn(self.tools, number):
                self._restore(tool)

    def _back_up(self, tool: Tool) -> None:
        # the new repository must not be sent what the old one still waits for
        archive_with(self.site.server, "true")
        archive_with(self.site.server, self.site.archive_command(tool.prepare()))
        self._measure("backup", tool, tool.backup())
        self.results.stored[tool.name].append(tool.stored())

    def _restore(self, tool: Tool) -> None:
        target = self.site.fresh("restored")
        self._measure("restore", tool, tool.restore(target))
        if relation_sizes(target) != self.expected:
            raise DrkitError(f"{tool.name} did not restore every file in full")
        shutil.rmtree(target)

    def _push_wal(self) -> None:
        archive_with(self.site.server, "true")
        tools = [tool for tool in self.tools if tool.push("") is not None]
        for tool in tools:
            tool.prepare()
        self._look_around("WAL")
        for number, segment in enumerate(self.cluster.segments):
            for tool in self._in_turn(tools, number):
                command = tool.push(segment)
                assert command is not None
                self._measure("wal", tool, command)

    def _measure(self, phase: str, tool: Tool, command: Sequence[str]) -> None:
        # PostgreSQL runs archive_command in its data directory
        cwd = self.site.server.data_directory if phase == "wal" else "/"
        log = f"{self.site.work}/logs/{tool.name}-{phase}.log"
        sample = measure(command, self.site.identity, self.site.environment, log, cwd)
        self.results.samples[phase][tool.name].append(sample)
        self.say(
            f"{tool.name} {phase}: {sample.seconds:.2f} s, "
            f"{sample.cpu_seconds:.2f} s of processor, {sample.peak_bytes / 1e6:.0f} MB"
        )

    def _warm_up(self) -> None:
        """Read the cluster once, so that the first tool finds it cached as all do."""
        buffer = bytearray(1 << 20)
        for path in Path(self.cluster.directory).rglob("*"):
            if path.is_file():
                with path.open("rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass

    def _look_around(self, when: str) -> None:
        busy = busy_cores()
        if busy > _BUSY:
            text = f"before {when}, something else kept {busy:.1f} cores busy"
            self.results.warnings.append(text)
            self.say(f"warning: {text}")

    @staticmethod
    def _in_turn(tools: list[Tool], number: int) -> list[Tool]:
        """Rotate, so that no tool is always the first."""
        first = number % len(tools)
        return tools[first:] + tools[:first]
