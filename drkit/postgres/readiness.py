"""Whether a server is set up to be backed up: settings, rights, and its archiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from drkit.postgres.connection import Connection

_SETTINGS = """
    SELECT name, reset_val, context FROM pg_settings WHERE name = ANY (%s)
"""
_ROLE = """
    SELECT rolname, rolsuper, rolreplication,
        pg_has_role(oid, 'pg_read_all_settings', 'USAGE')
    FROM pg_roles WHERE rolname = current_user
"""
_FUNCTIONS = """
    SELECT has_function_privilege(wanted, 'EXECUTE') FROM unnest(%s::text[]) AS wanted
"""
_ARCHIVER = """
    SELECT archived_count, last_archived_wal, last_archived_time,
        failed_count, last_failed_wal, last_failed_time
    FROM pg_stat_archiver
"""
_TIME = "SELECT clock_timestamp()"
_DATABASE_BYTES = """
    SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database
    WHERE has_database_privilege(oid, 'CONNECT')
        OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
"""

# Both have meant the same since version 15 renamed them.
_START_STOP = ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)")
_OLD_START_STOP = (
    "pg_start_backup(text, boolean, boolean)",
    "pg_stop_backup(boolean, boolean)",
)
_ALSO = ("pg_switch_wal()", "pg_create_restore_point(text)")
_READS_ALL_SINCE = 140000


class Role(NamedTuple):
    """The role of a connection, and what it lacks.

    Attributes:
        statements: SQL with which a superuser gives it what is missing.
    """

    name: str
    superuser: bool
    statements: tuple[str, ...]


OWN_ROLE = "drkit"
"""What a role that is made for drkit is called, if nobody says otherwise."""


def making_a_role(name: str, version: int, source: str) -> tuple[str, ...]:
    """Return SQL that makes a role with the least rights that do for backups.

    It is for the database that the policy's URL names: rights on functions are of one
    database, and so is the schema of the heartbeat.

    Args:
        name: as SQL takes it.
        version: as in 160004.
        source: `local` or `stream`.
    """
    replication = " REPLICATION" if source == "stream" else ""
    reading = ", pg_read_all_data" if version >= _READS_ALL_SINCE else ""
    return (
        f"CREATE ROLE {name} LOGIN{replication};",
        f"GRANT pg_monitor{reading} TO {name};",
        *(
            f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {name};"
            for function in _functions(version, source)
        ),
        f"CREATE SCHEMA drkit AUTHORIZATION {name};",
    )


def login_lines(name: str, source: str) -> tuple[str, ...]:
    """Return what lets a server's own user log in as a role, without a password.

    Each line begins with the file that it goes into; in `pg_hba.conf` the first line
    that fits counts.
    """
    lines = [f"pg_hba.conf: local all {name} peer map={OWN_ROLE}"]
    if source == "stream":
        lines.append(f"pg_hba.conf: local replication {name} peer map={OWN_ROLE}")
    return (*lines, f"pg_ident.conf: {OWN_ROLE} postgres {name}")


def _functions(version: int, source: str) -> tuple[str, ...]:
    if source != "local":
        return _ALSO
    return (*(_START_STOP if version >= 150000 else _OLD_START_STOP), *_ALSO)


class ArchiverStatus(NamedTuple):
    """What `pg_stat_archiver` shows; names and times are None before the first."""

    archived: int
    last_archived: str | None
    last_archived_time: datetime | None
    failed: int
    last_failed: str | None
    last_failed_time: datetime | None

    @property
    def failing(self) -> bool:
        """Whether the newest attempt that is on record failed."""
        if self.last_failed_time is None:
            return False
        done = self.last_archived_time
        return done is None or done < self.last_failed_time

    def __str__(self) -> str:
        if self.failing:
            return (
                f"archive_command has failed {self.failed} times, last for "
                f"{self.last_failed} at {_shown(self.last_failed_time)}"
            )
        if self.last_archived is None:
            return "archive_command has not run yet"
        return (
            f"the last file archived is {self.last_archived}, at "
            f"{_shown(self.last_archived_time)}"
        )


def _shown(time: datetime | None) -> str:
    return "" if time is None else time.isoformat(" ", "seconds")


def read_settings(
    connection: Connection, names: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Return by name what settings are, and when a change of them takes effect.

    Names that this version lacks are absent. Values are those of new sessions; that
    of `archive_command` is shown even while archiving is off.
    """
    rows = connection.query(_SETTINGS, (list(names),))
    return {name: (value or "", context) for name, value, context in rows}


def setting_values(connection: Connection, names: Collection[str]) -> Mapping[str, str]:
    """Return what settings are, by name."""
    found = read_settings(connection, names)
    return {name: value for name, (value, _) in found.items()}


def read_role(connection: Connection, source: str) -> Role:
    """Return the connection's role and what a backup from `source` lacks for it."""
    name, superuser, replication, settings = connection.query(_ROLE)[0]
    if superuser:
        return Role(name, superuser=True, statements=())
    quoted = sql.Identifier(name).as_string(connection)
    statements = []
    if not settings:
        statements.append(f"GRANT pg_monitor TO {quoted};")
    functions = _functions(connection.version(), source)
    granted = connection.query(
        _FUNCTIONS, ([f"pg_catalog.{one}" for one in functions],)
    )
    statements += [
        f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {quoted};"
        for function, (may,) in zip(functions, granted, strict=True)
        if not may
    ]
    if source == "stream" and not replication:
        statements.append(f"ALTER ROLE {quoted} REPLICATION;")
    return Role(name, superuser=False, statements=tuple(statements))


def read_archiver(connection: Connection) -> ArchiverStatus:
    """Return what the server knows of its archiver."""
    return ArchiverStatus(*connection.query(_ARCHIVER)[0])


def server_time(connection: Connection) -> datetime:
    """Return the server's wall clock."""
    time: datetime = connection.query(_TIME)[0][0]
    return time


def database_bytes(connection: Connection) -> int:
    """Return the size of all databases that the role may ask for."""
    return int(connection.query(_DATABASE_BYTES)[0][0])
