"""What was measured, as a Markdown table and as JSON."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from measuring import Sample
    from tool import Stored

_REFERENCE = "drkit"
_NONE = "-"


@dataclass
class Results:
    """Every sample of one run of the benchmark, and where it was run.

    Attributes:
        command: what was typed.
        versions: of the tools, by name in the order of the table.
        facts: of machine and cluster; part of the JSON as they are.
        samples: by phase (`backup`, `restore`, `wal`) and tool.
        stored: by tool, what its repository took after each backup.
        warnings: what may have disturbed the measurement.
    """

    command: str
    versions: dict[str, str]
    facts: dict[str, Any]
    samples: dict[str, dict[str, list[Sample]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    stored: dict[str, list[Stored]] = field(default_factory=lambda: defaultdict(list))
    warnings: list[str] = field(default_factory=list)

    def seconds(self, phase: str, tool: str) -> list[float]:
        """Return the wall seconds of a tool's runs."""
        return [sample.seconds for sample in self.samples[phase][tool]]

    def ratio(self, phase: str, tool: str) -> float | None:
        """Return drkit's median time divided by the tool's."""
        ours, theirs = self.seconds(phase, _REFERENCE), self.seconds(phase, tool)
        return median(ours) / median(theirs) if ours and theirs else None

    def to_json(self) -> dict[str, Any]:
        """Return everything, raw samples included."""
        return {
            "benchmark": "compare",
            "version": 1,
            "command": self.command,
            **self.facts,
            "tools": self.versions,
            "warnings": self.warnings,
            "phases": {phase: self._phase(phase) for phase in list(self.samples)},
            "stored": {
                tool: [one._asdict() for one in found]
                for tool, found in self.stored.items()
            },
        }

    def _phase(self, phase: str) -> dict[str, Any]:
        return {
            tool: {
                "median_seconds": median(self.seconds(phase, tool)),
                "drkit_ratio": self.ratio(phase, tool),
                "samples": [sample._asdict() for sample in samples],
            }
            for tool, samples in self.samples[phase].items()
            if samples
        }

    def to_markdown(self) -> str:
        """Return the tables with what they were measured on."""
        parts = []
        if self.samples["backup"] or self.samples["restore"]:
            parts.append(_table(_BACKUP_HEAD, map(self._backup_row, self.versions)))
        if self.samples["wal"]:
            tools = [tool for tool in self.versions if self.samples["wal"][tool]]
            parts.append(_table(_WAL_HEAD, map(self._wal_row, tools)))
        parts += [f"Warning: {text}" for text in self.warnings]
        parts += [_place(self.facts, self._runs()), f"Measured with `{self.command}`."]
        return "\n\n".join(parts) + "\n"

    def _runs(self) -> str:
        """Say how often each phase that was measured ran."""
        return ", ".join(
            f"{len(next(iter(tools.values())))} x {phase}"
            for phase, tools in self.samples.items()
            if tools
        )

    def _backup_row(self, tool: str) -> list[str]:
        backup, wal = _NONE, _NONE
        if self.stored[tool]:
            backup = _megabytes(median(one.backup for one in self.stored[tool]))
            wal = _megabytes(median(one.wal for one in self.stored[tool]))
        return [
            tool,
            self.versions[tool],
            _spread(self.seconds("backup", tool), 1, 2),
            _ratio(self.ratio("backup", tool)),
            _spread(self.seconds("restore", tool), 1, 2),
            _ratio(self.ratio("restore", tool)),
            backup,
            wal,
            self._peak("backup", tool),
            self._peak("restore", tool),
        ]

    def _peak(self, phase: str, tool: str) -> str:
        peaks = [sample.peak_bytes for sample in self.samples[phase][tool]]
        return _megabytes(max(peaks)) if peaks else _NONE

    def _wal_row(self, tool: str) -> list[str]:
        return [
            tool,
            self.versions[tool],
            _spread(self.seconds("wal", tool), 1000, 0),
            _ratio(self.ratio("wal", tool)),
        ]


_BACKUP_HEAD = (
    "tool",
    "version",
    "full backup, s",
    "drkit / tool",
    "restore, s",
    "drkit / tool",
    "backup, MB",
    "its WAL, MB",
    "peak MB, backup",
    "peak MB, restore",
)
_WAL_HEAD = ("tool", "version", "one WAL segment, ms", "drkit / tool")


def machine_facts(path: str) -> dict[str, Any]:
    """Describe this machine, with the file system that holds `path`."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_bytes": memory,
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(path),
        "python": platform.python_version(),
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [
            line.split(":", 1)[1] for line in file if line.startswith("model name")
        ]
    return models[0].strip() if models else platform.machine()


def _file_system(path: str) -> str:
    """Return the type of the file system that `path` is on."""
    real = os.path.realpath(path)
    with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
        mounts = [line.split()[1:3] for line in file]
    # of mounts one over the other the last one counts, as it does for `max` reversed
    above = [(point, kind) for point, kind in reversed(mounts) if _is_in(real, point)]
    return max(above, key=lambda mount: len(mount[0]))[1]


def _is_in(path: str, directory: str) -> bool:
    return os.path.commonpath([path, directory]) == directory


def _place(facts: dict[str, Any], runs: str) -> str:
    cluster, machine = facts["cluster"], facts["machine"]
    return (
        f"{machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB memory, {machine['kernel']}, "
        f"{machine['file_system']}, Python {machine['python']}; "
        f"PostgreSQL {cluster['postgresql']}, "
        f"{cluster['bytes'] / 1e9:.2f} GB in {cluster['files']} files, page checksums "
        f"on; {facts['jobs']} workers, zstd level {facts['level']}; medians "
        f"(least-most) of {runs}."
    )


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [list(head), ["---", "---", *["---:"] * (len(head) - 2)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(seconds: list[float], factor: int, digits: int) -> str:
    if not seconds:
        return _NONE
    middle, least, most = (
        f"{value * factor:.{digits}f}"
        for value in (median(seconds), min(seconds), max(seconds))
    )
    return f"{middle} ({least}-{most})"


def _ratio(ratio: float | None) -> str:
    return _NONE if ratio is None else f"{ratio:.2f}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}" if size < 1e7 else f"{size / 1e6:.0f}"
