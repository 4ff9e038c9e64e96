"""The session of a base backup: from `pg_backup_start` to `pg_backup_stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg

from drkit.errors import PostgresRefused
from drkit.model.lsn import Lsn
from drkit.postgres.connection import query
from drkit.postgres.facts import read_facts

if TYPE_CHECKING:
    from drkit.postgres.connection import Connection

# The two files as the bytes that the server itself would have written.
_STOP = """
    SELECT lsn::text, convert_to(labelfile, getdatabaseencoding()),
        convert_to(spcmapfile, getdatabaseencoding())
"""


class BackupStop(NamedTuple):
    """What ends a base backup: its last LSN, and two files to store with it."""

    lsn: Lsn
    backup_label: bytes
    tablespace_map: bytes


class BackupSession:
    """A base backup in the server's eyes: it lives and dies with one connection.

    The connection must stay open, and be used for nothing long, until `stop`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._timeline = 0

    def start(self, label: str, *, fast: bool = True) -> Lsn:
        """Begin the backup and return its start LSN.

        Args:
            label: what the backup label calls it.
            fast: checkpoint at once; else spread over `checkpoint_completion_target`.

        Raises:
            PostgresRefused: the server or the role's rights forbid it.
            PostgresUnreachable: the connection was lost.
        """
        if self._old_functions:
            statement = "SELECT pg_start_backup(%s, %s, false)::text"
        else:
            statement = "SELECT pg_backup_start(%s, %s)::text"
        row = query(self._connection, statement, (label, fast))[0]
        self._timeline = read_facts(self._connection).timeline
        return Lsn.parse(row[0])

    def stop(self) -> BackupStop:
        """End the backup; does not wait for WAL to be archived.

        Raises:
            PostgresRefused: the standby was promoted, or changed its timeline,
                meanwhile.
            PostgresUnreachable: the connection was lost, and the backup with it.
        """
        function = "pg_stop_backup" if self._old_functions else "pg_backup_stop"
        # the older function wants `exclusive` first
        arguments = "false, false" if self._old_functions else "false"
        row = query(self._connection, f"{_STOP} FROM {function}({arguments})")[0]
        self._check_timeline()
        return BackupStop(Lsn.parse(row[0]), bytes(row[1]), bytes(row[2] or b""))

    def alive(self) -> bool:
        """Say whether the session, and with it the backup, is still there; cheap."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    @property
    def _old_functions(self) -> bool:
        return self._connection.info.server_version < 150000

    def _check_timeline(self) -> None:
        timeline = read_facts(self._connection).timeline
        if timeline != self._timeline:
            raise PostgresRefused(
                f"the server went from timeline {self._timeline} to {timeline} during "
                "the backup, so its files are of two histories",
                hint="take a new backup",
            )
