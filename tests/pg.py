"""Real PostgreSQL servers for tests: made quickly, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from drkit.config import state
from drkit.postgres import process
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.server import ClusterOptions, ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SUPPORTED = (15, 16, 18)
FAST = {
    "fsync": "off",
    "shared_buffers": "16MB",
}


def versions_under_test() -> tuple[int, ...]:
    """All supported majors, unless DRKIT_TEST_VERSIONS=15,18 narrows them.

    A major that is not installed fails its tests; nothing is skipped.
    """
    chosen = os.environ.get("DRKIT_TEST_VERSIONS", "")
    if not chosen:
        return SUPPORTED
    return tuple(int(word) for word in chosen.replace(",", " ").split())


_states: list[Path] = []


@contextmanager
def remembering_in(base: Path) -> Iterator[None]:
    """Keep in `base` what hosts remember of logs, whoever runs drkit, however."""
    _states.append(base)
    base.mkdir()
    own = state_directory(os.geteuid())
    before, state.SYSTEM_STATE = state.SYSTEM_STATE, own
    os.environ["DRKIT_STATE_DIR"] = own
    process.DEFAULT_ENVIRONMENT["DRKIT_STATE_DIR"] = own
    try:
        yield
    finally:
        del process.DEFAULT_ENVIRONMENT["DRKIT_STATE_DIR"]
        os.environ.pop("DRKIT_STATE_DIR")
        state.SYSTEM_STATE = before
        _states.pop()


def state_directory(uid: int) -> str:
    """Where a user's host remembers logs while tests run."""
    directory = _states[-1] / str(uid)
    if not directory.exists():
        directory.mkdir(0o755)
        if os.geteuid() != uid:
            os.chown(directory, uid, -1)
    return str(directory)


class Cluster(ThrowawayServer):
    """A throw-away server that tests can ask."""

    def connect(self, dbname: str = "postgres", **options: Any) -> psycopg.Connection:
        return psycopg.connect(
            host=self.directory,
            user="postgres",
            dbname=dbname,
            autocommit=True,
            **options,
        )

    def rows(self, query: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one or many statements; return the last one's rows, or none."""
        with self.connect(dbname) as connection:
            cursor = connection.execute(query)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def sql(self, query: str, dbname: str = "postgres") -> Any:
        """Run statements; return the first value of the last one, or None."""
        rows = self.rows(query, dbname)
        return rows[0][0] if rows else None

    def psql(self, script: str, dbname: str = "postgres") -> str:
        """Run a script in psql, as for meta-commands and COPY; return its output."""
        done = process.run(
            [
                self.binaries.tool("psql"),
                "-XAtq",
                "-vON_ERROR_STOP=1",
                f"-h{self.directory}",
                "-Upostgres",
                dbname,
            ],
            stdin=script.encode(),
            timeout=120,
        )
        return done.stdout.decode()

    def switch_wal(self) -> str:
        """End the current WAL segment with something in it; return its name."""
        return self.sql(
            "SELECT pg_logical_emit_message(false, 'test', 'end of segment');"
            "SELECT pg_walfile_name(pg_switch_wal())"
        )

    def wal_path(self, name: str) -> Path:
        return Path(self.data_directory, "pg_wal", name)


@dataclass
class ClusterFactory:
    """Makes clusters out of templates: copying one is faster than `initdb`."""

    base: str
    account: process.Account
    templates: dict[tuple[int, ClusterOptions], str] = field(default_factory=dict)

    def make(
        self,
        major: int,
        settings: Mapping[str, str] | None = None,
        *,
        start: bool = True,
        overrides: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Cluster:
        """Make a cluster; the caller closes it.

        Args:
            major: PostgreSQL's version.
            settings: go into postgresql.conf, so that copies have them as well.
            start: also start it.
            overrides: go on the command line of each start.
            options: of ClusterOptions.
        """
        cluster = self.adopt(major, "", overrides)
        try:
            template = self._template(cluster, ClusterOptions(**options))
            copy_tree(template, cluster.data_directory)
            cluster.configure(settings or {})
            if start:
                cluster.start()
        except BaseException:
            cluster.close()
            raise
        return cluster

    def adopt(
        self, major: int, directory: str, overrides: Mapping[str, str] | None = None
    ) -> Cluster:
        """Return a server, not started, for an existing data directory."""
        return Cluster(
            ServerBinaries.locate(major),
            base=self.base,
            data_directory=directory,
            settings=FAST | dict(overrides or {}),
            account=self.account,
        )

    def _template(self, cluster: Cluster, options: ClusterOptions) -> str:
        key = (cluster.binaries.major, options)
        if key not in self.templates:
            cluster.initdb(options)
            kept = f"{self.base}/template-{len(self.templates)}"
            shutil.move(cluster.data_directory, kept)
            self.templates[key] = kept
        return self.templates[key]


def copy_tree(source: str | Path, target: str | Path) -> None:
    """Copy a directory with owners, modes and links, as `cp -a` does."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def run_drkit(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    account: process.Account | None = None,
    cwd: str | Path | None = None,
    stdin: bytes = b"",
    timeout: float = 300,
) -> process.Completed:
    """Run the command line as a person does; failures come back as results.

    Args:
        arguments: what follows `drkit`.
        env: added to a bare environment.
        account: whom to run it as; by default the user who runs the tests.
        cwd: the working directory; by default `/`.
        stdin: its standard input.
        timeout: seconds.
    """
    identity = process.SAME_USER
    if account is not None:
        identity = process.drop_to(account, reach=(sys.executable, __file__))
    uid = os.geteuid() if account is None else account.uid
    own = {"HOME": "/nonexistent", "DRKIT_STATE_DIR": state_directory(uid)}
    return process.run(
        drkit_command(*arguments),
        identity=identity,
        env=process.DEFAULT_ENVIRONMENT | own | dict(env or {}),
        cwd=None if cwd is None else str(cwd),
        stdin=stdin,
        timeout=timeout,
        raising=None,
    )


def drkit_command(*arguments: str | Path) -> list[str]:
    """The command line as a list, for an archive_command or a process of one's own."""
    return [sys.executable, "-m", "drkit", *map(str, arguments)]


def give_to(account: process.Account, path: str | Path) -> None:
    """Make a user the owner of a file, or of a directory and all it holds."""
    if os.geteuid() != account.uid:
        owner = f"{account.uid}:{account.gid}"
        subprocess.run(["chown", "-hR", owner, str(path)], check=True)


def run_as(
    account: process.Account, argv: Sequence[str], **options: Any
) -> process.Completed:
    """Run any command as a user, with nothing but that user's rights."""
    own = os.geteuid() == account.uid
    identity = process.SAME_USER if own else process.Identity(account=account)
    return process.run(argv, identity=identity, **options)
