"""What every session of drkit sets for itself, before it asks for anything.

The owner of a database can set defaults for its sessions, and every role for its own:
a `search_path` that finds his functions first, a role to become, a planner setting that
has a table's constraints computed. So the first statement names nothing that a
`search_path` could find, and pins it; what follows is looked up in `pg_catalog` alone.
Whatever lies elsewhere is named with its schema.

What shapes values as text is set as well: an answer must not hang on whose session
asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drkit.protocols import ServerSession

# All that is looked up here is named with its schema, and there is no operator in it.
_FIRST = """
    SELECT pg_catalog.set_config('search_path', 'pg_catalog', false),
        pg_catalog.set_config('role', 'none', false)
"""

# A backup holds one session for hours. Servers and roles may limit sessions; those
# limits would end it half-way.
_WITHOUT_LIMITS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}
# Against code of the database's users. A plan looks into CHECK constraints, and
# computes what is constant in them, only where this makes it.
_GUARDED = {
    "constraint_exclusion": "off",
    "event_triggers": "off",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "row_security": "off",  # an error instead of somebody's policy, and missing rows
}
# A statement must see what was committed while it waited for a lock, and mean the same
# everywhere.
_PLAIN = {
    "backslash_quote": "safe_encoding",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "exit_on_error": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
}
_AS_TEXT = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "quote_all_identifiers": "off",
    "xmlbinary": "base64",
}
_PINNED = _WITHOUT_LIMITS | _GUARDED | _PLAIN | _AS_TEXT

# Left out is what a version lacks, and what this role may not set.
_PIN = """
    SELECT pg_backend_pid(),
        count(set_config(wanted.name, wanted.value, false))
    FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
    JOIN pg_settings USING (name)
    WHERE context = 'user' OR current_setting('is_superuser') = 'on'
"""
_OF_PROGRAMS = ("constraint_exclusion", "statement_timeout", "lock_timeout")


def pin(session: ServerSession) -> int:
    """Set all of it for a session that has just begun.

    Returns:
        The id of the process that answers.

    Raises:
        PostgresUnreachable: the session was lost.
        PostgresRefused: the server refused it.
    """
    session.query(_FIRST)
    backend: int = session.query(_PIN, (list(_PINNED), list(_PINNED.values())))[0][0]
    return backend


def program_options() -> str:
    """Return the same for PostgreSQL's own programs, as their `options` take it.

    What they print is not read as text, and they set for themselves what else they
    need. These settings every version has.
    """
    wanted = {"search_path": "pg_catalog", "role": "none"}
    wanted |= {name: _PINNED[name] for name in _OF_PROGRAMS}
    return " ".join(f"-c {name}={value}" for name, value in wanted.items())
