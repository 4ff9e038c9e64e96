"""What benchmarks of one cluster share: the cluster, its server, and how they run."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cluster import Cluster, Plan, version_of
from compare import size_of, work_directory
from measuring import busy_cores
from tool import Site

import drkit
from drkit.errors import DrkitError
from drkit.postgres import process
from drkit.postgres.binaries import ServerBinaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from drkit.postgres.process import Account

_BUSY = 0.15  # cores that others may keep busy before it is worth a warning


class Benchmark(Protocol):
    """What `run` needs of a benchmark."""

    @property
    def binaries(self) -> ServerBinaries:
        """PostgreSQL's programs."""

    def run(self) -> None:
        """Measure everything."""


B = TypeVar("B", bound=Benchmark)


class OneCluster:
    """A cluster that is built at first, and used again where it was kept."""

    def __init__(
        self,
        options: argparse.Namespace,
        work: str,
        account: Account,
        *,
        logged: bool = False,
    ) -> None:
        self.options = options
        self.work = work
        self.account = account
        where = getattr(options, "postgres_bin", None)
        self.binaries = (
            ServerBinaries.at(where) if where else ServerBinaries.locate(options.major)
        )
        self.cluster = Cluster(f"{work}/cluster", account)
        plan = Plan(options.size, self.binaries.major, 0, logged=logged)
        if self.cluster.built_from() != plan:
            say(f"building a cluster of PostgreSQL {self.binaries.major} in {work}")
            self.cluster.build(plan, self.binaries)

    @contextmanager
    def served(self, settings: Mapping[str, str], level: int = 3) -> Iterator[Site]:
        """Run the cluster's server for the block."""
        # the server's user may not be allowed to keep compiled modules there
        compileall.compile_dir(os.path.dirname(drkit.__file__), quiet=2)
        reach = (sys.executable, os.__file__, self.work)
        identity = process.drop_to(self.account, reach=reach)
        with self.cluster.server(self.binaries, dict(settings)) as server:
            server.start()
            site = Site(self.work, server, identity, self.options.jobs, level)
            for name in ("logs", "home"):
                site.fresh(name)
            yield site
            server.stop(timeout=600)


def run(
    options: argparse.Namespace, make: Callable[[argparse.Namespace, str, Account], B]
) -> B | None:
    """Make a benchmark and run it; None, and why on standard error, if that failed."""
    account = process.server_account()
    work = work_directory(options.work, account)
    try:
        benchmark = make(options, work, account)
        benchmark.run()
    except DrkitError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        program = os.path.basename(sys.argv[0])
        print(f"{program}: {error.message}{hint}", file=sys.stderr)
        return None
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    return benchmark


def show(benchmark: Benchmark, title: str, table: str) -> None:
    """Print what was measured."""
    version = version_of(benchmark.binaries, "postgres")
    print(f"PostgreSQL {version}, {title}\n\n{table}")


def write_samples(path: str | None, samples: Sequence[Any]) -> None:
    """Write every sample, a named tuple, as JSON."""
    if path:
        found = [one._asdict() for one in samples]
        Path(path).write_text(json.dumps(found, indent=1) + "\n")


def parser(about: str | None, rounds: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all of them have.

    Args:
        about: the benchmark's docstring, whose first line describes it.
        rounds: of what.
    """
    made = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    add = made.add_argument
    add("--size", type=size_of, default="3.5GB", help="of the cluster (3.5GB)")
    add("--rounds", type=int, default=3, help=f"of {rounds} (3)")
    add("--jobs", type=int, default=2, help="parallel workers (2)")
    add("--work", metavar="DIR", help="for everything; else a new one")
    add("--keep", action="store_true", help="leave all in --work; reuse its cluster")
    add("--json", metavar="FILE", help="also write every sample")
    return made


def warn_if_busy() -> None:
    """Say that others use this machine."""
    busy = busy_cores()
    if busy > _BUSY:
        say(f"warning: something else keeps {busy:.1f} cores busy")


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)
