"""What is easy to leave to the parent wrongly: one rule each, with its own relations.

A rule's relations and databases begin with its name. What `before` makes is in the full
backup, what `after` does to it in the incremental.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.pg import run_as

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pg import Cluster
    from tests.protect import Protected

    Step = str | Callable[["Field"], object]

_TEMPLATE = "same_template"
_OIDS = {"same_oid": 70001, "same_inode": 70002}


@dataclass
class Field:
    """The cluster that the rules play on.

    Attributes:
        paths: where a rule found its table, for later.
    """

    protected: Protected
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        return self.protected.cluster

    def path(self, relation: str, database: str = "postgres") -> Path:
        """Return the file of a relation."""
        query = f"SELECT pg_relation_filepath('{relation}')"
        found = self.cluster.sql(query, database)
        return Path(self.cluster.data_directory, found)


class Rule(NamedTuple):
    """Scripts run in psql; functions do what no script can, some by a restart."""

    before: Step
    after: Step


_MAKE = """
    CREATE TABLE {t} (n int, filler text);
    INSERT INTO {t} SELECT g, md5(g::text) FROM generate_series(1, 2000) AS g;
"""
_GROW = "INSERT INTO {t} SELECT g, 'new' FROM generate_series(1, 3000) AS g;"


def _make(name: str) -> str:
    return _MAKE.format(t=name)


# -- the same name for another relation


def _note_number(where: Field) -> None:
    where.cluster.psql(_make("same_number"))
    where.paths["same_number"] = where.path("same_number")


def _reuse_number(where: Field) -> None:
    """Drop a table and make another whose file has the same name.

    PostgreSQL does that once its counter has come round. As for pg_upgrade, the number
    can be given.
    """
    number = int(where.paths["same_number"].name)
    where.cluster.psql("DROP TABLE same_number; CHECKPOINT;")
    # Some minor versions of 15 want to be told when each column was made as well.
    versions = "binary_upgrade_set_next_attribute_versions"
    asked = where.cluster.sql(f"SELECT 1 FROM pg_proc WHERE proname = '{versions}'")
    give = "SELECT pg_catalog.binary_upgrade_set_next_{}(({} + {})::oid)"
    oids = ("heap_pg_class_oid", "pg_type_oid", "array_pg_type_oid")
    _in_single_user_mode(
        where.cluster,
        give.format("heap_relfilenode", number, 0),
        *(give.format(oid, number, 1000 + i) for i, oid in enumerate(oids)),
        *([f"SELECT {versions}('{{0/1,0/1}}'::pg_lsn[])"] if asked else []),
        "CREATE TABLE same_number (n int, m int)",
    )
    where.cluster.rows("INSERT INTO same_number VALUES (1, -1), (2, -2)")
    assert where.path("same_number") == where.paths["same_number"]


def _in_single_user_mode(cluster: Cluster, *statements: str) -> None:
    """Run statements as pg_upgrade's server would."""
    cluster.stop()
    command = [cluster.binaries.tool("postgres"), "--single", "-b", "-j"]
    command += ["-c", "exit_on_error=on", "-D", cluster.data_directory, "postgres"]
    script = "".join(f"{one};\n\n" for one in statements).encode()
    run_as(cluster.account, command, stdin=script, timeout=60)
    cluster.start()


# -- databases that are copied by files


def _make_copies(where: Field) -> None:
    """Copy a template, and change it afterwards, all before the full backup."""
    cluster = where.cluster
    cluster.rows(f"CREATE DATABASE {_TEMPLATE}")
    for table, space in (("inside", "pg_default"), ("elsewhere", '"in place"')):
        script = _make(table) + f"ALTER TABLE {table} SET TABLESPACE {space};"
        cluster.psql(script, _TEMPLATE)
    for name in _OIDS:
        _copy_template(cluster, name)
        where.paths[name] = where.path("elsewhere", name)
    for table in ("inside", "elsewhere"):
        cluster.rows(f"UPDATE {table} SET filler = reverse(filler)", _TEMPLATE)


def _copy_template(cluster: Cluster, name: str) -> None:
    cluster.rows(
        f"CREATE DATABASE {name} OID {_OIDS[name]} TEMPLATE {_TEMPLATE}"
        " STRATEGY file_copy"
    )


def _copy_again(where: Field) -> None:
    where.cluster.rows("DROP DATABASE same_oid")
    _copy_template(where.cluster, "same_oid")


def _copy_again_into_same_inode(where: Field) -> None:
    """As above; a file gets the inode that its namesake had, as happens on ext4."""
    path = where.paths["same_inode"]
    kept = path.parent.parent / "kept"
    os.link(path, kept)
    where.cluster.rows("DROP DATABASE same_inode")
    _copy_template(where.cluster, "same_inode")
    where.cluster.stop()
    kept.write_bytes(path.read_bytes())
    os.replace(kept, path)
    where.cluster.start()


RULES = {
    "hints_only": Rule(
        _make("hints_only") + "CHECKPOINT;",
        "SELECT count(*) FROM hints_only; CHECKPOINT;",
    ),
    "visible_only": Rule(
        _make("visible_only") + "SELECT count(*) FROM visible_only;",
        "VACUUM visible_only;",
    ),
    "invisible_only": Rule(
        _make("invisible_only") + "VACUUM invisible_only;",
        "DELETE FROM invisible_only WHERE n % 100 = 3;",
    ),
    "free_space_only": Rule(
        _make("free_space_only") + "DELETE FROM free_space_only WHERE n % 3 = 1;"
        "VACUUM free_space_only; SELECT count(*) FROM free_space_only;",
        "VACUUM free_space_only;",
    ),
    "truncated": Rule(_make("truncated"), "TRUNCATE truncated;"),
    "truncated_and_regrown": Rule(
        _make("truncated_and_regrown"),
        "TRUNCATE truncated_and_regrown;" + _GROW.format(t="truncated_and_regrown"),
    ),
    "shrunk": Rule(
        _make("shrunk"),
        "DELETE FROM shrunk WHERE ctid >= '(5,0)'; VACUUM (TRUNCATE) shrunk;",
    ),
    "shrunk_and_regrown": Rule(
        _make("shrunk_and_regrown"),
        "DELETE FROM shrunk_and_regrown WHERE ctid >= '(5,0)';"
        "VACUUM (TRUNCATE) shrunk_and_regrown;" + _GROW.format(t="shrunk_and_regrown"),
    ),
    "emptied_and_regrown": Rule(
        _make("emptied_and_regrown"),
        "DELETE FROM emptied_and_regrown; VACUUM (TRUNCATE) emptied_and_regrown;"
        + _GROW.format(t="emptied_and_regrown"),
    ),
    "rewritten": Rule(
        _make("rewritten") + "DELETE FROM rewritten WHERE n % 2 = 0;",
        "VACUUM FULL rewritten;",
    ),
    "clustered": Rule(
        _make("clustered") + "CREATE INDEX clustered_by ON clustered (filler);",
        "CLUSTER clustered USING clustered_by;",
    ),
    "same_number": Rule(_note_number, _reuse_number),
    "by_files": Rule(
        "CREATE DATABASE by_files_template;"
        "\\c by_files_template\n" + _make("by_files") + "CHECKPOINT;",
        "CREATE DATABASE by_files TEMPLATE by_files_template STRATEGY file_copy;",
    ),
    "by_wal": Rule(
        "CREATE DATABASE by_wal_template;"
        "\\c by_wal_template\n" + _make("by_wal") + "CHECKPOINT;",
        "CREATE DATABASE by_wal TEMPLATE by_wal_template STRATEGY wal_log;",
    ),
    "there_and_back": Rule(
        "CREATE DATABASE there_and_back;\\c there_and_back\n" + _make("there_and_back"),
        'ALTER DATABASE there_and_back SET TABLESPACE "in place";'
        "\\c there_and_back\nUPDATE there_and_back SET filler = 'there' WHERE n < 9;"
        "\\c postgres\nALTER DATABASE there_and_back SET TABLESPACE pg_default;",
    ),
    "same_oid": Rule(_make_copies, _copy_again),
    "same_inode": Rule("", _copy_again_into_same_inode),
    "made_logged": Rule(
        _make("made_logged") + "ALTER TABLE made_logged SET UNLOGGED;",
        "UPDATE made_logged SET filler = 'x' WHERE n < 5;"
        "ALTER TABLE made_logged SET LOGGED;",
    ),
    "made_unlogged": Rule(
        _make("made_unlogged"),
        "ALTER TABLE made_unlogged SET UNLOGGED;",
    ),
    "moved": Rule(
        _make("moved"),
        'ALTER TABLE moved SET TABLESPACE "in place";'
        "UPDATE moved SET filler = 'there' WHERE n < 9;"
        "ALTER TABLE moved SET TABLESPACE pg_default;",
    ),
    "untouched": Rule(_make("untouched") + "VACUUM FREEZE untouched;", ""),
}
