# ruff: noqa: S608  (every part of these queries is a constant)
"""What a fingerprint asks of the catalogs: a query for each section.

Each query's first column is the object's name, the others are its attributes, all text.
Definitions are digests of catalog rows as they are: a physical copy has the same rows,
object identifiers included, and reading rows obeys the snapshot, which functions like
`pg_get_viewdef` do not. Columns that change by themselves, as statistics do, are left
out.

Objects of PostgreSQL's own (identifiers below 16384) are the same in every cluster of
a version, but for the rights that somebody gave or took: those are `system grants`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import PostgresRefused
from drkit.postgres.connection import translated

if TYPE_CHECKING:
    from drkit.model.fingerprint import Attributes
    from drkit.postgres.connection import Connection

_FIRST_NORMAL = 16384
_NAMESPACE = "n.nspname !~ '^pg_(toast|temp)'"

# pg_class: what VACUUM, ANALYZE and lazily kept hints change, and what is shown apart
_VOLATILE = (
    "{relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid,"
    "relfilenode,relhasindex,relhasrules,relhastriggers,relhassubclass,relowner,relacl,"
    "relkind,relpersistence}"
)

_RELATIONS = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
        c.relkind::text AS kind, c.relpersistence::text AS persistence,
        pg_get_userbyid(c.relowner)::text AS owner,
        coalesce(c.relacl::text, '') AS grants,
        md5((to_jsonb(c) - '{_VOLATILE}'::text[])::text) AS definition
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c', 'S')
        AND c.oid >= {_FIRST_NORMAL} AND {_NAMESPACE}
"""
_COLUMNS = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
        string_agg(CASE WHEN a.attisdropped THEN NULL ELSE quote_ident(a.attname) END,
            ', ' ORDER BY a.attnum) AS names,
        md5(string_agg(a::text, chr(10) ORDER BY a.attnum)) AS definition
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c') AND a.attnum > 0
        AND c.oid >= {_FIRST_NORMAL} AND {_NAMESPACE}
    GROUP BY 1
"""
_INDEXES = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
        i.indisvalid::text AS valid, md5(i::text) AS definition
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= {_FIRST_NORMAL} AND {_NAMESPACE}
"""
_FUNCTIONS = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '('
            || p.proargtypes::text || ')',
        pg_get_userbyid(p.proowner)::text AS owner,
        coalesce(p.proacl::text, '') AS grants,
        md5((to_jsonb(p) - '{{proowner,proacl}}'::text[])::text) AS definition
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid >= {_FIRST_NORMAL}
"""
_TYPES = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(t.typname),
        pg_get_userbyid(t.typowner)::text AS owner,
        coalesce(t.typacl::text, '') AS grants,
        md5((to_jsonb(t) - '{{typowner,typacl}}'::text[])::text
            || coalesce((SELECT string_agg(e::text, chr(10) ORDER BY e.oid)
                FROM pg_enum e WHERE e.enumtypid = t.oid), '')) AS definition
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.oid >= {_FIRST_NORMAL} AND {_NAMESPACE}
"""
_SCHEMAS = f"""
    SELECT quote_ident(n.nspname), pg_get_userbyid(n.nspowner)::text AS owner,
        coalesce(n.nspacl::text, '') AS grants
    FROM pg_namespace n WHERE {_NAMESPACE}
"""
_SEQUENCES = """
    SELECT s.seqrelid::regclass::text, md5(s::text) AS definition FROM pg_sequence s
"""
_EXTENSIONS = """
    SELECT quote_ident(e.extname), e.extversion AS version,
        pg_get_userbyid(e.extowner)::text AS owner FROM pg_extension e
"""
_SYSTEM_GRANTS = " UNION ALL ".join(
    f"""SELECT '{catalog}', md5(string_agg(oid || ' ' || {acl}::text, ',' ORDER BY oid))
    AS definition FROM {catalog} WHERE oid < {_FIRST_NORMAL} AND {acl} IS NOT NULL"""
    for catalog, acl in (
        ("pg_class", "relacl"),
        ("pg_proc", "proacl"),
        ("pg_type", "typacl"),
        ("pg_language", "lanacl"),
    )
)
_COLLATIONS = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname),
        md5((to_jsonb(c) - 'collversion')::text) AS definition
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE c.oid >= {_FIRST_NORMAL}
"""
# What the library of this host says: on another host it may sort otherwise.
_COLLATION_VERSIONS = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname),
        coalesce(pg_collation_actual_version(c.oid), '') AS version
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE c.oid >= {_FIRST_NORMAL} OR EXISTS (SELECT FROM pg_attribute a
        WHERE a.attcollation = c.oid AND a.attrelid >= {_FIRST_NORMAL})
"""


def _of_relation(catalog: str, name: str, relation: str) -> str:
    """Return the query for objects that belong to a relation: the rows as they are."""
    return f"""
        SELECT quote_ident(o.{name}) || ' on ' || o.{relation}::regclass::text,
            md5(string_agg(o::text, chr(10) ORDER BY o.oid)) AS definition
        FROM {catalog} o WHERE o.oid >= {_FIRST_NORMAL}
            AND o.{relation}::regclass::text !~ '^pg_toast' GROUP BY 1
    """


def _rows(catalog: str, name: str) -> str:
    """Return the query for objects of a catalog, told by a column or an expression."""
    return f"""
        SELECT {name}, md5(string_agg(o::text, chr(10) ORDER BY o.oid)) AS definition
        FROM {catalog} o WHERE o.oid >= {_FIRST_NORMAL} GROUP BY 1
    """


_OTHERS = {
    "pg_cast": "'from ' || o.castsource || ' to ' || o.casttarget",
    "pg_conversion": "quote_ident(o.conname)",
    "pg_default_acl": "pg_get_userbyid(o.defaclrole) || ' in ' || o.defaclnamespace",
    "pg_event_trigger": "quote_ident(o.evtname)",
    "pg_foreign_data_wrapper": "quote_ident(o.fdwname)",
    "pg_language": "quote_ident(o.lanname)",
    "pg_opclass": "quote_ident(o.opcname)",
    "pg_operator": "quote_ident(o.oprname)",
    "pg_opfamily": "quote_ident(o.opfname)",
    "pg_publication": "quote_ident(o.pubname)",
    "pg_statistic_ext": "quote_ident(o.stxname)",
    "pg_ts_config": "quote_ident(o.cfgname)",
    "pg_ts_dict": "quote_ident(o.dictname)",
}
_OTHER_OBJECTS = " UNION ALL ".join(
    _rows(catalog, f"'{catalog} ' || {name}") for catalog, name in _OTHERS.items()
)
_FOREIGN_SERVERS = _rows("pg_foreign_server", "quote_ident(o.srvname)")
_COMMENTS = """
    SELECT d.classoid::regclass::text, count(*)::text AS comments,
        md5(string_agg(d::text, chr(10) ORDER BY d.objoid, d.objsubid)) AS definition
    FROM pg_description d WHERE d.objoid >= 16384 GROUP BY 1
"""

DATABASE_SECTIONS = {
    "schemas": _SCHEMAS,
    "relations": _RELATIONS,
    "columns": _COLUMNS,
    "defaults": f"""
        SELECT o.adrelid::regclass::text || ', column ' || o.adnum,
            md5(o::text) AS definition
        FROM pg_attrdef o WHERE o.oid >= {_FIRST_NORMAL}""",
    "indexes": _INDEXES,
    "constraints": f"""
        SELECT quote_ident(o.conname) || ' on ' || CASE WHEN o.conrelid = 0
                THEN o.contypid::regtype::text ELSE o.conrelid::regclass::text END,
            md5(string_agg(o::text, chr(10) ORDER BY o.oid)) AS definition
        FROM pg_constraint o WHERE o.oid >= {_FIRST_NORMAL} GROUP BY 1""",
    "functions": _FUNCTIONS,
    "views": _of_relation("pg_rewrite", "rulename", "ev_class"),
    "triggers": _of_relation("pg_trigger", "tgname", "tgrelid"),
    "policies": _of_relation("pg_policy", "polname", "polrelid"),
    "types": _TYPES,
    "sequence definitions": _SEQUENCES,
    "extensions": _EXTENSIONS,
    "collations": _COLLATIONS,
    "collation versions": _COLLATION_VERSIONS,
    "system grants": _SYSTEM_GRANTS,
    "foreign servers": _FOREIGN_SERVERS,
    "comments": _COMMENTS,
    "other objects": _OTHER_OBJECTS,
}
"""What is asked in every database."""

# Never a password's hash: whether one is set is enough.
_ROLES = """
    SELECT quote_ident(r.rolname), r.rolsuper::text AS superuser,
        r.rolinherit::text AS inherit, r.rolcreaterole::text AS createrole,
        r.rolcreatedb::text AS createdb, r.rolcanlogin::text AS login,
        r.rolreplication::text AS replication, r.rolbypassrls::text AS bypassrls,
        r.rolconnlimit::text AS "connection limit",
        coalesce(r.rolvaliduntil::text, '') AS "valid until"{password}
    FROM {catalog} r
"""
_WHETHER_SET = ', (r.rolpassword IS NOT NULL)::text AS "password set"'
_MEMBERSHIPS = """
    SELECT pg_get_userbyid(m.member) || ' in ' || pg_get_userbyid(m.roleid)
            || ', granted by ' || pg_get_userbyid(m.grantor),
        (to_jsonb(m) - '{oid,roleid,member,grantor}'::text[])::text AS options
    FROM pg_auth_members m
"""
# The library's versions are of this host.
_DATABASES = """
    SELECT quote_ident(d.datname), pg_get_userbyid(d.datdba)::text AS owner,
        coalesce(d.datacl::text, '') AS grants,
        pg_encoding_to_char(d.encoding)::text AS encoding,
        d.datcollate::text AS collate, d.datctype::text AS ctype,
        d.datallowconn::text AS "allows connections", d.datconnlimit::text AS
        "connection limit", d.dattablespace::text AS tablespace
    FROM pg_database d
"""
_DATABASE_VERSIONS = """
    SELECT 'database ' || quote_ident(d.datname),
        coalesce(pg_database_collation_actual_version(d.oid), '') AS version
    FROM pg_database d WHERE d.datallowconn
"""
_TABLESPACES = """
    SELECT quote_ident(t.spcname), pg_get_userbyid(t.spcowner)::text AS owner,
        coalesce(t.spcacl::text, '') AS grants, coalesce(t.spcoptions::text, '') AS
        options
    FROM pg_tablespace t
"""
# Settings of roles may hold secrets: digests only.
_ROLE_SETTINGS = """
    SELECT coalesce((SELECT quote_ident(datname) FROM pg_database WHERE oid =
            s.setdatabase), 'all databases') || ' for ' || CASE s.setrole WHEN 0
            THEN 'all roles' ELSE pg_get_userbyid(s.setrole)::text END,
        md5(s.setconfig::text) AS definition
    FROM pg_db_role_setting s
"""
_PARAMETER_GRANTS = """
    SELECT p.parname, coalesce(p.paracl::text, '') AS grants FROM pg_parameter_acl p
"""
_SETTINGS = """
    SELECT s.name, s.reset_val AS value FROM pg_settings s WHERE s.name IN (
        'server_version', 'server_encoding', 'block_size', 'wal_block_size',
        'wal_segment_size', 'segment_size', 'data_checksums',
        'default_toast_compression', 'default_text_search_config',
        'lc_messages', 'lc_monetary', 'lc_numeric',
        'lc_time', 'DateStyle', 'IntervalStyle', 'TimeZone', 'log_timezone',
        'bytea_output', 'extra_float_digits', 'standard_conforming_strings',
        'array_nulls', 'xmlbinary', 'xmloption', 'default_tablespace',
        'default_table_access_method', 'default_transaction_isolation', 'search_path',
        'session_preload_libraries', 'shared_preload_libraries', 'wal_level')
"""


def cluster_sections(connection: Connection) -> dict[str, str]:
    """Return the queries for what belongs to no database, as the server has it.

    Roles without their passwords' existence where the role may not see `pg_authid`.
    """
    version = connection.version()
    statement = "SELECT has_table_privilege('pg_authid', 'SELECT')"
    full = connection.query(statement)[0][0]
    catalog, password = ("pg_authid", _WHETHER_SET) if full else ("pg_roles", "")
    sections = {
        "roles": _ROLES.format(catalog=catalog, password=password),
        "memberships": _MEMBERSHIPS,
        "databases": _DATABASES,
        "tablespaces": _TABLESPACES,
        "role settings": _ROLE_SETTINGS,
        "settings": _SETTINGS,
    }
    if version >= 150000:
        sections["parameter grants"] = _PARAMETER_GRANTS
        sections["collation versions"] = _DATABASE_VERSIONS
    return sections


def read_sections(
    connection: Connection, sections: dict[str, str]
) -> tuple[dict[str, dict[str, Attributes]], dict[str, str]]:
    """Return the facts by section, and the sections that could not be read, and why.

    In a transaction a section that fails leaves the others' snapshot as it is.
    """
    facts: dict[str, dict[str, Attributes]] = {}
    unread: dict[str, str] = {}
    for section, statement in sections.items():
        try:
            with translated(connection), connection.transaction():
                facts[section] = _read(connection, statement)
        except (PostgresRefused, UnicodeDecodeError) as error:
            unread[section] = str(error)
    return facts, unread


def _read(connection: Connection, statement: str) -> dict[str, Attributes]:
    cursor = connection.execute(statement.encode())
    names = [column.name for column in cursor.description or ()][1:]
    return {
        row[0]: {
            name: "" if value is None else value
            for name, value in zip(names, row[1:], strict=True)
        }
        for row in cursor
    }
