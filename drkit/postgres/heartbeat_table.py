"""Whether `drkit.heartbeat` is drkit's table, and nothing but that.

Whoever writes to a table, or only plans to read it, runs what its owner has put there:
triggers, rules, policies, defaults, constraints, expressions of indexes. So it may have
nothing that `CREATE_TABLE` does not give it; and schema and table must belong to
drkit's role or to a superuser, who alone could change it behind the look. The look is
a statement of its own behind the lock, in the transaction that goes on to use the
table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from drkit.errors import PostgresRefused
from drkit.postgres.fingerprint_guard import trusted

if TYPE_CHECKING:
    from drkit.postgres.connection import Connection

TABLE = "drkit.heartbeat"

CREATE_TABLE = """
    CREATE TABLE drkit.heartbeat (
        id smallint PRIMARY KEY CHECK (id = 1),
        written_at timestamptz NOT NULL,
        lsn pg_lsn NOT NULL,
        host text NOT NULL,
        nonce text NOT NULL
    ) WITH (fillfactor = 10)
"""
_COLUMNS = {
    "id int2",
    "written_at timestamptz",
    "lsn pg_lsn",
    "host text",
    "nonce text",
}
_SCHEMA = f"""
    SELECT pg_get_userbyid(nspowner)::text, {trusted("nspowner")}
    FROM pg_namespace WHERE nspname = 'drkit'
"""  # noqa: S608  made of constants
_LOOK = f"""
    SELECT c.oid::bigint, c.relkind::text, c.relpersistence::text,
        pg_get_userbyid(c.relowner)::text, {trusted("c.relowner")},
        (SELECT array_agg(a.attname || ' ' || t.typname ORDER BY a.attname)
            FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND t.typnamespace = 'pg_catalog'::regnamespace)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'drkit' AND c.relname = 'heartbeat'
"""  # noqa: S608  made of constants
# All that can hold code, or lead to another table.
_SURPLUS = """
    SELECT 'the trigger ' || tgname FROM pg_trigger WHERE tgrelid = {oid}::oid
    UNION ALL
    SELECT 'the rule ' || rulename FROM pg_rewrite WHERE ev_class = {oid}::oid
    UNION ALL
    SELECT 'row-level security' FROM pg_class
        WHERE oid = {oid}::oid AND (relrowsecurity OR relforcerowsecurity)
    UNION ALL
    SELECT 'a column ' || attname || ' that drkit does not know' FROM pg_attribute
        WHERE attrelid = {oid}::oid AND attnum > 0 AND NOT attisdropped
            AND attname <> ALL ('{{id,written_at,lsn,host,nonce}}')
    UNION ALL
    SELECT 'a default or expression of column ' || attname FROM pg_attribute
        WHERE attrelid = {oid}::oid AND attnum > 0 AND NOT attisdropped
            AND (atthasdef OR attidentity <> '' OR attgenerated <> '')
    UNION ALL
    SELECT 'the constraint ' || conname FROM pg_constraint
        WHERE conrelid = {oid}::oid AND contype NOT IN ('p', 'n')
            AND pg_get_constraintdef(oid) <> 'CHECK ((id = 1))'
    UNION ALL
    SELECT 'the index ' || indexrelid::regclass FROM pg_index
        WHERE indrelid = {oid}::oid AND NOT indisprimary
    UNION ALL
    SELECT 'the statistics ' || stxname FROM pg_statistic_ext
        WHERE stxrelid = {oid}::oid
    UNION ALL
    SELECT 'a parent or child' FROM pg_inherits
        WHERE inhrelid = {oid}::oid OR inhparent = {oid}::oid
    UNION ALL
    SELECT 'a partition of its own' FROM pg_class
        WHERE oid = {oid}::oid AND relispartition
"""


class Found(NamedTuple):
    """What the catalogs say of the table.

    Attributes:
        trusted: whether its owner, and the schema's, may do all that drkit may.
    """

    oid: int
    owner: str
    trusted: bool


def look(connection: Connection) -> Found | None:
    """Look at the table; None if there is none of that name.

    Raises:
        PostgresRefused: there is something else of that name.
        PostgresUnreachable: the connection was lost.
    """
    rows = connection.query(_LOOK)
    if not rows:
        return None
    oid, kind, persistence, owner, owner_trusted, columns = rows[0]
    if kind != "r" or not set(columns or ()) >= _COLUMNS:
        raise PostgresRefused(
            f"{TABLE} in database {connection.info.dbname} is not drkit's table",
            hint="rename it, or set heartbeat.database in the policy to another one",
        )
    if persistence != "p":
        raise PostgresRefused(
            f"{TABLE} is unlogged, so that no restore brings it back",
            hint=f"ALTER TABLE {TABLE} SET LOGGED;",
        )
    schema_owner, schema_trusted = connection.query(_SCHEMA)[0]
    who = owner if schema_trusted else schema_owner
    return Found(oid, who, owner_trusted and schema_trusted)


def refuse_foreign(connection: Connection, found: Found) -> None:
    """Raise PostgresRefused for a table that somebody else can change."""
    if found.trusted:
        return
    role = quoted_role(connection)
    raise PostgresRefused(
        f"{TABLE} belongs to {found.owner}, whose triggers would run with the rights "
        f"of {connection.info.user}",
        hint=f"ALTER SCHEMA drkit OWNER TO {role}; "
        f"ALTER TABLE {TABLE} OWNER TO {role};",
    )


def refuse_surplus(connection: Connection, found: Found) -> None:
    """Raise PostgresRefused for a table that has what drkit has not given it."""
    rows = connection.query(_SURPLUS.format(oid=found.oid))
    surplus = [str(what) for (what,) in rows]
    if surplus:
        raise PostgresRefused(
            f"{TABLE} is not as drkit has made it, and what was added would run with "
            f"the rights of {connection.info.user}: {', '.join(surplus)}",
            hint=f"take that away; or ALTER TABLE {TABLE} RENAME TO heartbeat_before; "
            "then make it anew with `drkit heartbeat POLICY --create`",
        )


def schema_is_there(connection: Connection) -> bool:
    """Say whether there is a schema drkit.

    Raises:
        PostgresRefused: it belongs to somebody who may do less than drkit.
    """
    rows = connection.query(_SCHEMA)
    if rows and not rows[0][1]:
        role = quoted_role(connection)
        raise PostgresRefused(
            f"the schema drkit in database {connection.info.dbname} belongs to "
            f"{rows[0][0]}, who could replace what is in it",
            hint=f"ALTER SCHEMA drkit OWNER TO {role};",
        )
    return bool(rows)


def quoted_role(connection: Connection) -> str:
    """Return the session's role, as SQL names it."""
    return sql.Identifier(connection.info.user).as_string(connection)
