"""A role that may read a restored cluster, and nothing else, made for a while.

What a policy asserts names tables and views, and whose those are by then nobody knows:
a table's owner can have put a view with a function of his into its place. So such
statements are asked by a session that has logged in as this role: no code of theirs
can get back to more rights, as it could from SET ROLE.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.conninfo import make_conninfo

from drkit.operations.proving.subject import AS_A_REPLICA
from drkit.postgres.connection import connect
from drkit.postgres.scratch_settings import reader_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.operations.proving.subject import Run
    from drkit.postgres.connection import Connection

_READS_ALL_SINCE = 140000
# Row security would turn statements into errors, whoever the rows are for.
_MAKE = "CREATE ROLE {role} LOGIN BYPASSRLS CONNECTION LIMIT 1"
_CONNECTS = "SELECT has_database_privilege(%s, %s, 'CONNECT')"
_MAY_CONNECT = "GRANT CONNECT ON DATABASE {database} TO {role}"
_READS_ALL = "GRANT pg_read_all_data TO {role}"
_READS_SCHEMA = """
    GRANT USAGE ON SCHEMA {schema} TO {role};
    GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};
    GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}
"""
_SCHEMAS = """
    SELECT nspname::text FROM pg_namespace
    WHERE nspname !~ '^pg_(toast|temp)' AND oid >= 16384 OR nspname = 'public'
"""
# FROM CURRENT: a list that is written as '' has one name in it, an empty one.
_SET = "SELECT set_config({name}, {value}, true)"
_KEEP = "ALTER ROLE {role} SET {name} FROM CURRENT"
_DROP = "DROP OWNED BY {role}; DROP ROLE {role}"


@contextmanager
def reader_session(run: Run, database: str) -> Iterator[Connection]:
    """Open a session of such a role in a database; both are gone at the end.

    Raises:
        PostgresUnreachable, PostgresRefused: it can't be had.
    """
    role = f"drkit_reader_{secrets.token_hex(8)}"
    with run.session(database) as superuser:
        superuser.query(AS_A_REPLICA)
        with superuser.transaction():
            for statement in _statements(superuser, role, database):
                superuser.query(statement)
        try:
            reader = run.connect.adopt(_log_in(superuser, role, database))
            try:
                yield reader
            finally:
                reader.close()
        finally:
            if not superuser.closed and not superuser.broken:
                superuser.query(_filled(superuser, _DROP, role=role))


def _statements(superuser: Connection, role: str, database: str) -> Iterator[str]:
    yield _filled(superuser, _MAKE, role=role)
    if not superuser.query(_CONNECTS, (role, database))[0][0]:  # it is noted for good
        yield _filled(superuser, _MAY_CONNECT, role=role, database=database)
    version = superuser.version()
    if version >= _READS_ALL_SINCE:
        yield _filled(superuser, _READS_ALL, role=role)
    else:
        for (schema,) in superuser.query(_SCHEMAS):
            yield _filled(superuser, _READS_SCHEMA, role=role, schema=schema)
    for name, value in reader_settings(version // 10000).items():
        literals = sql.SQL(_SET).format(
            name=sql.Literal(name), value=sql.Literal(value)
        )
        yield literals.as_string(superuser)
        yield _filled(superuser, _KEEP, role=role, name=name)


def _filled(superuser: Connection, statement: str, **names: str) -> str:
    quoted = {name: sql.Identifier(value) for name, value in names.items()}
    return sql.SQL(statement).format(**quoted).as_string(superuser)


def _log_in(superuser: Connection, role: str, database: str) -> Connection:
    place = make_conninfo(
        host=superuser.info.host,
        port=superuser.info.port,
        user=role,
        dbname=database,
        options="-c default_transaction_read_only=on",
    )
    return connect(place, None, "assertion")
