"""Runs drkit beside other backup tools on one cluster, alternating, and compares.

What is measured, and how, is told in README.md beside this file.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import (
    MINIMUM_SIZE,
    Cluster,
    Plan,
    session,
    version_of,
)
from report import Results, machine_facts
from rounds import Comparison, Wanted
from selection import NAMES, choose_tools, newest_supported
from tool import Site

import drkit
from drkit.errors import DrkitError
from drkit.postgres import process
from drkit.postgres.binaries import ServerBinaries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.postgres.process import Account, Identity

_PHASES = ("backup", "restore", "wal")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_MARK = "drkit-compare"
_SPACE = 4  # sizes of the cluster: itself, a copy, a restore, and the repositories


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = _parse(arguments)
    # let the server be stopped and the directory be cleared, as at Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _compare(options)
    except DrkitError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"compare.py: {error.message}{hint}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", type=size_of, default="3.5GB", help="of the cluster (3.5GB)")
    add("--rounds", type=_positive, default=5, help="of backup and restore (5)")
    add("--pushes", type=_positive, default=20, help="of WAL segments, per tool (20)")
    add("--jobs", type=_positive, default=2, help="parallel workers (2)")
    add("--level", type=_positive, default=3, help="of zstd compression (3)")
    add("--only", type=_listed(_PHASES), default=_PHASES, help=",".join(_PHASES))
    add("--tools", type=_listed(NAMES), help=f"{','.join(NAMES)}; else all there are")
    add("--postgres-bin", metavar="DIR", help="PostgreSQL's programs")
    add("--work", metavar="DIR", help="for cluster and repositories; else a new one")
    add("--keep", action="store_true", help="leave all in --work; reuse its cluster")
    add("--json", metavar="FILE", help="also write every sample")
    options = parser.parse_args(arguments)
    if options.keep and not options.work:
        parser.error("--keep needs --work DIR")
    options.command = shlex.join(["python", "benchmarks/compare.py", *sys.argv[1:]])
    return options


def size_of(text: str) -> int:
    """Read a size with its unit, for argparse; return bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]B)", text.upper())
    if match is None:
        raise argparse.ArgumentTypeError("write a size like 3.5GB or 500MB")
    size = int(float(match[1]) * _UNITS[match[2]])
    if size < MINIMUM_SIZE:
        raise argparse.ArgumentTypeError(f"at least {MINIMUM_SIZE // 10**6}MB")
    return size


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _listed(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return what reads words with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        for word in words:
            if word not in known:
                among = ", ".join(known)
                raise argparse.ArgumentTypeError(f"{word} is none of {among}")
        return words

    return read


def _compare(options: argparse.Namespace) -> None:
    """Run in the work directory, and clear it away."""
    account = process.server_account()
    work = work_directory(options.work, account)
    try:
        _need_space(work, options)
        results = _run(options, work, account)
    finally:
        if not options.keep:
            _clear(work, remove=options.work is None)
    print(results.to_markdown(), end="")
    if options.json:
        text = json.dumps(results.to_json(), indent=1)
        Path(options.json).write_text(text + "\n", encoding="utf-8")


def work_directory(chosen: str | None, account: Account) -> str:
    """Make or take the directory; it holds this benchmark's files and no others."""
    if chosen is None:
        # /tmp is often held in memory, which would measure nothing
        work = tempfile.mkdtemp(prefix=f"{_MARK}-", dir="/var/tmp")
    else:
        work = os.path.abspath(chosen)
        os.makedirs(work, exist_ok=True)
        if os.listdir(work) and not os.path.exists(f"{work}/{_MARK}"):
            raise DrkitError(f"{work} holds other things", hint="name a new directory")
    Path(work, _MARK).touch()
    os.chown(work, account.uid, account.gid)
    os.chmod(work, 0o755)
    return work


def _need_space(work: str, options: argparse.Namespace) -> None:
    built = os.path.exists(f"{work}/cluster")
    needed, free = options.size * (_SPACE - built), shutil.disk_usage(work).free
    if free < needed:
        raise DrkitError(
            f"{work} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed",
            hint="name another directory with --work, or a smaller --size",
        )


def _clear(work: str, *, remove: bool) -> None:
    for name in ("cluster", "restored", "logs", "home", *NAMES):
        shutil.rmtree(f"{work}/{name}", ignore_errors=True)
    Path(work, _MARK).unlink()
    if remove:
        os.rmdir(work)


def _run(options: argparse.Namespace, work: str, account: Account) -> Results:
    identity = process.drop_to(account, reach=(sys.executable, os.__file__, work))
    cluster, binaries = _cluster(options, work, account, identity)
    # the server's user may not be allowed to keep compiled modules where drkit is
    compileall.compile_dir(os.path.dirname(drkit.__file__), quiet=2)
    with cluster.server(binaries) as server:
        server.start()
        with session(server) as connection:
            connection.query("CHECKPOINT")
        site = Site(work, server, identity, options.jobs, options.level)
        tools = choose_tools(site, options.tools)
        size, files = cluster.measured_bytes()
        results = Results(
            command=options.command,
            versions={tool.name: tool.version() for tool in tools},
            facts={
                "machine": machine_facts(work),
                "load_average_before": os.getloadavg(),
                "cluster": {
                    "postgresql": version_of(binaries, "postgres"),
                    "requested_bytes": options.size,
                    "bytes": size,
                    "files": files,
                },
                "jobs": options.jobs,
                "level": options.level,
                "rounds": options.rounds,
                "pushes": options.pushes,
            },
        )
        _say(f"cluster of {size / 1e9:.2f} GB, load average {os.getloadavg()[0]:.2f}")
        wanted = Wanted(options.only, options.rounds)
        Comparison(wanted, site, cluster, tools, results, _say).run()
        results.facts["load_average_after"] = os.getloadavg()
        server.stop(timeout=600)
    return results


def _cluster(
    options: argparse.Namespace, work: str, account: Account, identity: Identity
) -> tuple[Cluster, ServerBinaries]:
    """Take the cluster that is there, if it is the right one, or build it."""
    binaries = (
        ServerBinaries.at(options.postgres_bin)
        if options.postgres_bin
        else newest_supported(identity, options.tools)
    )
    cluster = Cluster(f"{work}/cluster", account)
    plan = Plan(options.size, binaries.major, options.pushes)
    if cluster.built_from() != plan:
        _say(f"building a cluster of PostgreSQL {binaries.major} in {work}")
        cluster.build(plan, binaries)
    return cluster, binaries


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
