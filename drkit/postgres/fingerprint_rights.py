"""What a role needs besides a backup's rights so that it can take fingerprints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from drkit.model.fingerprint import Mode

if TYPE_CHECKING:
    from drkit.postgres.connection import Connection

_ROLE = """
    SELECT current_user::text, rolname::text, pg_has_role(oid, 'USAGE')
    FROM pg_roles WHERE rolname = ANY (%s)
"""
_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
_UNHOLDABLE = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
        AND n.nspname !~ '^pg_(toast|temp)' AND has_table_privilege(c.oid, 'SELECT')
        AND NOT has_table_privilege(c.oid, %s)
    ORDER BY 1 LIMIT 1
"""
_READS_SINCE, _MAINTAINS_SINCE = 140000, 170000


def missing_grants(connection: Connection, mode: Mode) -> tuple[str, ...]:
    """Return SQL with which a superuser gives the role what fingerprints lack.

    A role may have the rights to every table one by one; that is not looked at.
    """
    wanted = _roles(connection.version(), mode)
    if connection.query(_SUPERUSER)[0][0]:
        return ()
    return tuple(
        f"GRANT {role} TO {sql.Identifier(name).as_string(connection)};"
        for name, role, has in connection.query(_ROLE, (wanted,))
        if not has
    )


def unholdable(connection: Connection) -> str:
    """Return a table of this database that the role may read but not lock, or ''."""
    rights = "UPDATE, DELETE, TRUNCATE"
    if connection.version() >= _MAINTAINS_SINCE:
        rights += ", MAINTAIN"
    rows = connection.query(_UNHOLDABLE, (rights,))
    return str(rows[0][0]) if rows else ""


def _roles(version: int, mode: Mode) -> list[str]:
    """Return the predefined roles that together may do everything."""
    reading = ["pg_read_all_data"] if version >= _READS_SINCE else []
    if mode is Mode.SAMPLED or version < _READS_SINCE:
        return reading
    holding = "pg_maintain" if version >= _MAINTAINS_SINCE else "pg_write_all_data"
    return [*reading, holding]
