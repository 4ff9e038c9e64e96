"""Libraries and extensions that a database needs and this machine lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drkit.postgres.connection import Connection

_EXTENSIONS = """
    SELECT e.extname::text, e.extversion FROM pg_extension e
    WHERE NOT EXISTS (SELECT FROM pg_available_extensions a WHERE a.name = e.extname)
    ORDER BY 1
"""
_LIBRARIES = """
    SELECT DISTINCT CASE WHEN p.probin ~ '/' THEN '' ELSE '$libdir/' END || p.probin
    FROM pg_proc p WHERE p.probin IS NOT NULL AND p.probin <> '' ORDER BY 1
"""
# A library is named with or without its suffix; `$libdir` is where the server has its
# own. What a search path would find instead is not this server's either.
_THERE = """
    SELECT bool_or((pg_stat_file(file, true)).size IS NOT NULL)
    FROM (SELECT replace(%s, '$libdir', setting) AS stem FROM pg_config
            WHERE name = 'PKGLIBDIR') AS place,
        LATERAL unnest(ARRAY[stem, stem || '.so']) AS file
"""


def missing_files(connection: Connection) -> list[str]:
    """Return what a database uses and this machine has not, each a phrase."""
    extensions = [
        f"extension {name} {version} is used, and is not installed on this machine"
        for name, version in connection.query(_EXTENSIONS)
    ]
    libraries = [
        f"library {name} is used by functions, and is not on this machine"
        for (name,) in connection.query(_LIBRARIES)
        if not connection.query(_THERE, (name,))[0][0]
    ]
    return extensions + libraries
