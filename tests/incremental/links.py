"""A link of a chain: a backup, a moment behind it, and what the cluster held then."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import sql

from tests.incremental.pagecompare import compare, unsupported_visibility
from tests.operations.scene import drkit, restore
from tests.pg import copy_tree
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

AMCHECK = 15  # Debian's has the extension, the wheel's versions have none
_LOOKAHEAD = 32  # nextval writes WAL for that many values at once

Content = dict[str, Any]


class Taken(NamedTuple):
    """What `drkit backup` says of a backup it took."""

    label: str
    kind: str
    parent: str | None
    reason: str


@dataclass(frozen=True)
class Link:
    """A backup, and the cluster as it was at a restore point soon after it.

    Attributes:
        point: the restore point's name.
        pages: a copy of the relations' files as they were then.
        spaces: places of the tablespaces outside of the data directory.
        timeline: the one that the cluster was on.
    """

    taken: Taken
    point: str
    content: Content
    pages: Path
    spaces: tuple[str, ...]
    timeline: int


def backup(protected: Protected, kind: str = "incremental") -> Taken:
    """Run `drkit backup --type`, which must succeed."""
    said = drkit(protected, "backup", NAME, "--type", kind, "--output", "json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    summary = told["backup"]
    return Taken(summary["label"], summary["kind"], told["parent"], told["reason"])


def remember(scene: Scene, protected: Protected, taken: Taken) -> Link:
    """Note what a cluster holds that nobody writes to, and name the moment.

    The restore point comes first, then a checkpoint that brings the pages to disk, and
    the content last: reading may prune pages, and the WAL of that, replayed before the
    pages are compared, would make up for what a backup has missed.
    """
    cluster, point = protected.cluster, f"behind {taken.label}"
    with cluster.connect() as connection:
        timeline = _value(connection, "SELECT timeline_id FROM pg_control_checkpoint()")
        connection.execute("SELECT pg_create_restore_point(%s)", [point])
        connection.execute("CHECKPOINT")
    pages = scene.directory()
    spaces = _copy_pages(Path(cluster.data_directory), pages)
    return Link(taken, point, content(cluster), pages, spaces, timeline)


def _copy_pages(source: Path, to: Path) -> tuple[str, ...]:
    """Copy what holds relations, tablespaces included; return where those are."""
    for name in ("base", "global", "pg_tblspc"):
        copy_tree(source / name, to / name)
    links = [one for one in (to / "pg_tblspc").iterdir() if one.is_symlink()]
    places = [str(link.readlink()) for link in links]
    for link, place in zip(links, places, strict=True):
        link.unlink()
        copy_tree(place, link)
    return tuple(places)


def prove(scene: Scene, protected: Protected, link: Link) -> None:
    """Restore to a link's moment and hold everything against what there was."""
    restored = restore_link(scene, protected, link)
    target = Path(restored.data_directory)
    differences = compare(link.pages, target) + unsupported_visibility(target)
    assert differences == [], f"{link.taken}: {differences[:20]}"
    restored.start()
    assert_same(content(restored), link.content)
    check_indexes(restored)
    check_structure(restored)
    use(restored)
    restored.close()


def restore_link(scene: Scene, protected: Protected, link: Link) -> Cluster:
    """Restore to a link's moment; return the server, stopped.

    Nobody has connected to it: a look at a page may change it.
    """
    target = scene.target()
    options = [link.taken.label, "--target-name", link.point]
    options += ["--target-timeline", str(link.timeline)]
    for number, place in enumerate(link.spaces):
        options += ["--tablespace-map", f"{place}={target.parent}/space-{number}"]
    restore(protected, target, *options)
    major = protected.cluster.binaries.major
    restored = scene.start(target, major, autovacuum="off")
    restored.stop()
    return restored


# -- content


def content(cluster: Cluster) -> Content:
    """Return by database and relation what it holds, told by digests."""
    found: Content = {}
    for name in databases(cluster):
        with cluster.connect(name) as connection:
            found |= {(name, *key): text for key, text in _database(connection)}
    return found


def databases(cluster: Cluster) -> list[str]:
    """Return the names of the databases that one can connect to."""
    query = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1"
    return [name for (name,) in cluster.rows(query)]


def _database(connection: Connection) -> Iterable[tuple[tuple[str, str], Any]]:
    relations = connection.execute("""
        SELECT n.nspname::text, c.relname::text, c.relkind::text
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm', 'S') AND c.relpersistence = 'p'
            AND n.nspname !~ '^pg_(temp|toast|catalog)'
            AND n.nspname <> 'information_schema'
        ORDER BY 1, 2
    """).fetchall()
    relations += [("pg_catalog", "pg_largeobject", "r"), ("pg_catalog", "pg_proc", "r")]
    for schema, name, kind in relations:
        what = _SEQUENCE if kind == "S" else _TABLE
        query = what.format(sql.Identifier(schema, name))
        yield (schema, name), connection.execute(query).fetchone()


_TABLE = sql.SQL(
    "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"))"
    " FROM {} AS t"
)
_SEQUENCE = sql.SQL("SELECT 'sequence', last_value FROM {}")


def assert_same(found: Content, expected: Content) -> None:
    """Fail unless the content is the same; sequences may be ahead by what WAL has."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value[0] == "sequence":
            assert value[1] <= found[key][1] <= value[1] + _LOOKAHEAD, key
        else:
            assert found[key] == value, key


# -- indexes


def check_indexes(cluster: Cluster) -> None:
    """Read each indexed column by its index and by the heap; both say the same."""
    for name in databases(cluster):
        with cluster.connect(name) as connection:
            for table, column in connection.execute(_BTREES).fetchall():
                _check_index(connection, sql.SQL(table), sql.SQL(column))


_BTREES = """
    SELECT i.indrelid::regclass::text, quote_ident(a.attname)
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_class AS t ON t.oid = i.indrelid
    JOIN pg_am AS m ON m.oid = c.relam
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL
        AND t.relpersistence = 'p' AND (t.oid >= 16384 OR t.relname IN
            ('pg_class', 'pg_attribute', 'pg_proc', 'pg_largeobject_metadata'))
        AND t.relnamespace <> 'pg_toast'::regnamespace
    ORDER BY 1, 2
"""
_SCANS = {  # by the plan's node: seqscan, indexscan, indexonlyscan
    "Index Only Scan": ("off", "on", "on"),
    "Index Scan": ("off", "on", "off"),
    "Seq Scan": ("on", "off", "off"),
}


def _check_index(connection: Connection, table: sql.SQL, column: sql.SQL) -> None:
    digest = sql.SQL(
        "SELECT count(x), coalesce(sum(hashtextextended(x::text, 0)::numeric), 0)"
        " FROM (SELECT {column} AS x FROM {table} ORDER BY {column}) AS t"
    ).format(table=table, column=column)
    found = {}
    for node, (heap, index, only) in _SCANS.items():
        connection.execute(
            "SELECT set_config('enable_seqscan', %s, false),"
            " set_config('enable_indexscan', %s, false),"
            " set_config('enable_indexonlyscan', %s, false),"
            " set_config('enable_bitmapscan', 'off', false)",
            [heap, index, only],
        )
        plan = connection.execute(sql.SQL("EXPLAIN ") + digest).fetchall()
        assert any(f"{node} " in line for (line,) in plan), (plan, node)
        found[node] = connection.execute(digest).fetchone()
    assert len(set(found.values())) == 1, (table, column, found)


# -- structure


def check_structure(cluster: Cluster) -> None:
    """Look at every page and at how they hang together, with what this version has."""
    if cluster.binaries.major == AMCHECK:
        _amcheck(cluster)
    for name in databases(cluster):
        cluster.run_tool(
            "pg_dump",
            f"--host={cluster.directory}",
            "--username=postgres",
            "--file=/dev/null",
            f"--dbname={name}",
        )


def _amcheck(cluster: Cluster) -> None:
    cluster.run_tool(
        "pg_amcheck",
        f"--host={cluster.directory}",
        "--username=postgres",
        "--all",
        "--install-missing",
        "--heapallindexed",
        "--parent-check",
    )


def use(cluster: Cluster) -> None:
    """Vacuum everything, as autovacuum will, and see that pages' checksums are right.

    Leaves the server stopped.
    """
    for name in databases(cluster):
        cluster.rows("VACUUM (DISABLE_PAGE_SKIPPING)", name)
    checksums = cluster.sql("SHOW data_checksums") == "on"
    cluster.stop()
    if checksums:
        cluster.run_tool("pg_checksums", "--check", "-D", cluster.data_directory)
    assert not re.search("PANIC|ERROR", Path(cluster.log_path).read_text())


def _value(connection: Connection, query: str) -> Any:
    row = connection.execute(sql.SQL(query)).fetchone()
    assert row is not None
    return row[0]
