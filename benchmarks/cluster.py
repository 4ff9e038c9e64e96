"""The cluster that is backed up: built to a size, at rest, and always the same."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drkit.errors import DrkitError
from drkit.postgres import process
from drkit.postgres.connection import connect
from drkit.postgres.server import ClusterOptions, ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drkit.postgres.binaries import ServerBinaries
    from drkit.postgres.connection import Connection
    from drkit.postgres.process import Account

MINIMUM_SIZE = 50_000_000  # an empty cluster takes half of it
_FORMAT = 1
_PGBENCH_SHARE = 0.647  # scale 150 of 3.5 GB
_PGBENCH_SCALE_BYTES = 15_000_000
_PROBE_ROWS = 1000
_ARCHIVED_WITHIN = 60.0

# In postgresql.conf. Nothing but the tools' own work happens while they are measured.
_MEASURED = {
    "shared_buffers": "512MB",
    "wal_level": "replica",
    "archive_mode": "on",
    "archive_command": "true",
    "autovacuum": "off",
    "checkpoint_timeout": "1d",
    "min_wal_size": "32MB",
}
# On the command line. Made so, new tables write no WAL.
_LOADING = {
    "archive_mode": "off",
    "fsync": "off",
    "maintenance_work_mem": "256MB",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "wal_level": "minimal",
}
_LOGGED = {
    name: value
    for name, value in _LOADING.items()
    if name not in ("wal_level", "max_wal_senders")
}
_WRITING = {
    "archive_mode": "off",
    "fsync": "off",
    "synchronous_commit": "off",
    "wal_keep_size": "8GB",
}
_TABLE = "CREATE TABLE public.documents (id bigint PRIMARY KEY, doc jsonb)"
_DOCUMENTS = """
    INSERT INTO public.documents
    SELECT g, jsonb_build_object(
        'id', g, 'name', md5(g::text), 'price', (g * 31 % 100000) / 100.0,
        'tags', jsonb_build_array(md5((g * 7)::text), md5((g * 13)::text)),
        'note', repeat(md5((g % 1000)::text), 4))
    FROM generate_series({first}::bigint, {last}::bigint) g
"""


@dataclass(frozen=True)
class Plan:
    """What a cluster is built from; an equal one is used again.

    Attributes:
        size: bytes wanted, WAL apart.
        segments: how many filled WAL segments to set aside.
        logged: whether tables are loaded through WAL; else their pages have no LSN.
    """

    size: int
    major: int
    segments: int
    logged: bool = False
    format: int = _FORMAT


@dataclass(frozen=True)
class Cluster:
    """Where a built cluster is: its data directory, and its WAL set aside."""

    directory: str
    account: Account

    @property
    def data_directory(self) -> str:
        """The data directory."""
        return f"{self.directory}/data"

    @property
    def segments(self) -> list[str]:
        """Paths of the filled WAL segments that were set aside, in their order."""
        directory = f"{self.directory}/wal"
        return [f"{directory}/{name}" for name in sorted(os.listdir(directory))]

    def measured_bytes(self) -> tuple[int, int]:
        """Return bytes and number of the cluster's files, WAL apart."""
        sizes = list(file_sizes(self.data_directory, without=("pg_wal",)))
        return sum(sizes), len(sizes)

    def built_from(self) -> Plan | None:
        """Return the plan of the cluster that is there; None if none is whole."""
        try:
            return Plan(**json.loads(Path(self.directory, "plan.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def build(self, plan: Plan, binaries: ServerBinaries) -> None:
        """Replace what is there by a new cluster; leaves it shut down."""
        shutil.rmtree(self.directory, ignore_errors=True)
        make_directory(self.directory, self.account)
        make_directory(f"{self.directory}/wal", self.account)
        with self.server(binaries, _LOGGED if plan.logged else _LOADING) as server:
            server.initdb(ClusterOptions(data_checksums=True))
            server.configure(_MEASURED)
            server.start()
            self._load(server, plan.size)
            server.stop(timeout=600)
        with self.server(binaries, _WRITING) as server:
            server.start()
            self._write_wal(server, plan.segments)
            server.stop(timeout=600)
        text = json.dumps(vars(plan))
        Path(self.directory, "plan.json").write_text(text, encoding="ascii")

    def server(
        self, binaries: ServerBinaries, settings: Mapping[str, str] | None = None
    ) -> ThrowawayServer:
        """Return a server for this cluster, not started."""
        return ThrowawayServer(
            binaries,
            data_directory=self.data_directory,
            settings=dict(settings or {}),
            account=self.account,
        )

    def _load(self, server: ThrowawayServer, size: int) -> None:
        left = size - self.measured_bytes()[0]
        scale = max(round(left * _PGBENCH_SHARE / _PGBENCH_SCALE_BYTES), 1)
        arguments = ("-i", "-q", f"--scale={scale}", server.url)
        server.run_tool("pgbench", *arguments, timeout=None)
        with session(server) as connection:
            connection.query("CHECKPOINT")
            _add_documents(connection, size - self.measured_bytes()[0])
            connection.query("CHECKPOINT")

    def _write_wal(self, server: ThrowawayServer, count: int) -> None:
        """Set filled segments aside, as `pgbench -N` writes them after checkpoints."""
        with session(server) as connection:
            first = _next_segment(connection)
            while _next_segment(connection) - first <= count:
                arguments = ("-n", "-N", "-c2", "-t1000", server.url)
                server.run_tool("pgbench", *arguments)
                connection.query("CHECKPOINT")
        written = sorted(
            entry.name
            for entry in os.scandir(f"{self.data_directory}/pg_wal")
            if entry.is_file() and len(entry.name) == 24
        )
        chosen = [name for name in written if int(name[16:], 16) >= first][:count]
        for name in chosen:
            target = f"{self.directory}/wal/{name}"
            shutil.copyfile(f"{self.data_directory}/pg_wal/{name}", target)
            os.chown(target, self.account.uid, self.account.gid)


def _add_documents(connection: Connection, size: int) -> None:
    """Fill a table with JSON documents until it takes about `size` bytes."""
    if size <= 0:
        return
    connection.query("BEGIN")
    connection.query("CREATE TABLE public.documents (id bigint PRIMARY KEY, doc jsonb)")
    connection.query(_DOCUMENTS.format(first=1, last=_PROBE_ROWS))
    taken = connection.query("SELECT pg_relation_size('public.documents')")[0][0]
    index = 24  # bytes a row in the primary key, which is no larger while so small
    rows = int(size / (taken / _PROBE_ROWS + index))
    connection.query(_DOCUMENTS.format(first=_PROBE_ROWS + 1, last=rows))
    connection.query("COMMIT")


def _next_segment(connection: Connection) -> int:
    """Return the number, in its 4 GB, of the segment after the one written to."""
    name = connection.query("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0]
    return int(name[16:], 16) + 1


def session(server: ThrowawayServer) -> contextlib.closing[Connection]:
    """Open a connection that the end of a `with` block closes."""
    return contextlib.closing(connect(server.url, None, "benchmark"))


def archive_with(server: ThrowawayServer, command: str) -> None:
    """Switch `archive_command`, when the old one has archived all WAL there is.

    Raises:
        DrkitError: the old command does not get its work done.
    """
    with session(server) as connection:
        connection.query("SELECT pg_switch_wal()")
    directory = f"{server.data_directory}/pg_wal/archive_status"
    deadline = time.monotonic() + _ARCHIVED_WITHIN
    while any(name.endswith(".ready") for name in os.listdir(directory)):
        if time.monotonic() > deadline:
            raise DrkitError(f"the server does not archive its WAL{server.log_tail()}")
        time.sleep(0.05)
    quoted = command.replace("'", "''")
    with session(server) as connection:
        connection.query(f"ALTER SYSTEM SET archive_command = '{quoted}'")
        connection.query("SELECT pg_reload_conf()")


def make_directory(path: str, account: Account) -> None:
    """Make an empty directory for the server's user."""
    os.mkdir(path, 0o700)
    os.chown(path, account.uid, account.gid)


def file_sizes(directory: str, without: tuple[str, ...] = ()) -> Iterator[int]:
    """Yield the length in bytes of every regular file below a directory.

    Args:
        directory: where to look.
        without: directories right below it that don't count.
    """
    for folder, folders, names in os.walk(directory):
        if folder == directory:
            folders[:] = [name for name in folders if name not in without]
        for name in names:
            path = os.path.join(folder, name)
            # a live server's temporary files come and go
            with contextlib.suppress(FileNotFoundError):
                if not os.path.islink(path):
                    yield os.stat(path).st_size


def relation_sizes(data_directory: str) -> dict[str, int]:
    """Return the length of every relation's main files, to compare two clusters."""
    return {
        os.path.relpath(path, data_directory): os.stat(path).st_size
        for path in map(str, Path(data_directory, "base").glob("*/[0-9]*"))
    }


def version_of(binaries: ServerBinaries, tool: str) -> str:
    """Return the version that one of PostgreSQL's programs gives."""
    answer = process.run([binaries.tool(tool), "--version"]).stdout.decode()
    return answer.split(")", 1)[1].split()[0]
