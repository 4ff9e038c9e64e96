"""Random work on a cluster: what changes pages in every way that PostgreSQL has.

All choices come from one `random.Random`: a seed and the names of the steps repeat a
run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.errors import FeatureNotSupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from tests.pg import Cluster

SETTINGS = {
    "autovacuum": "off",
    "allow_in_place_tablespaces": "on",
    "max_prepared_transactions": "10",
    "log_min_messages": "fatal",
}
HOME = "postgres"
DATABASES = ('sp ace "quoted"', "née d'été\nune ligne")
TABLES = ("one", 'Two "2"', "tr\u00efple")
_MOST_DATABASES = 5
_SPACES = ("elsewhere", "in place")

_TABLE = """
    CREATE TABLE {table} (
        id int PRIMARY KEY, n int NOT NULL, filler text, big text,
        tags int[], place point
    );
    ALTER TABLE {table} ALTER big SET STORAGE EXTERNAL;
    CREATE INDEX ON {table} (n);
"""
_GROW = """
    INSERT INTO {table} SELECT g, g % 100, md5(g::text || {n}), NULL,
        ARRAY[g % 7, g % 11, {n}], point(g % 50, {n})
    FROM generate_series((SELECT coalesce(max(id), 0) + 1 FROM {table}),
        (SELECT coalesce(max(id), 0) + {rows} FROM {table})) AS g;
"""
_INDEXES = (
    "btree (filler)",
    "btree (n, id) WHERE n < 50",
    "hash (filler)",
    "gin (tags)",
    "gist (place)",
    "spgist (filler)",
    "brin (id) WITH (pages_per_range = 2)",
)

# Each is run statement by statement on one random table. {n} is a random number below
# 1000, {part} one below 7; {space} is one of the tablespaces or the default.
STATEMENTS = {
    "insert": _GROW,
    "update": "UPDATE {table} SET n = n + 1 WHERE id % 7 = {part};",
    "update indexed": """
        UPDATE {table} SET filler = md5(filler || {n}), place = point({n}, n),
            tags = tags || {n} WHERE id % 7 = {part};
    """,
    "delete": "DELETE FROM {table} WHERE id % 7 = {part};",
    "toast": """
        UPDATE {table} SET big = repeat(md5(id::text || {n}), 150) WHERE id % 29 = 1;
    """,
    "untoast": "UPDATE {table} SET big = NULL WHERE id % 58 = 1;",
    "roll back": """
        BEGIN; DELETE FROM {table} WHERE id % 7 = {part}; SAVEPOINT inner_one;
        UPDATE {table} SET n = -1; ROLLBACK TO inner_one; UPDATE {table} SET n = -2;
        ROLLBACK;
    """,
    "subtransactions": """
        BEGIN; UPDATE {table} SET n = {n} WHERE id % 7 = {part}; SAVEPOINT inner_one;
        UPDATE {table} SET n = 1 WHERE id % 7 = {part}; RELEASE inner_one;
        SELECT count(*) FROM (SELECT FROM {table} FOR KEY SHARE) AS locked; COMMIT;
    """,
    "truncate": "TRUNCATE {table};",
    "truncate and regrow": "TRUNCATE {table};" + _GROW,
    "shrink": """
        DELETE FROM {table} WHERE ctid >= '({part},0)'; VACUUM (TRUNCATE) {table};
    """,
    "shrink and regrow": """
        DELETE FROM {table} WHERE ctid >= '({part},0)'; VACUUM (TRUNCATE) {table};
    """
    + _GROW,
    "look": "SELECT sum(n), count(DISTINCT filler) FROM {table};",
    "vacuum": "VACUUM {table};",
    "freeze": "VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) {table};",
    "vacuum full": "VACUUM FULL {table};",
    "cluster": """
        ALTER TABLE {table} CLUSTER ON {primary}; CLUSTER {table};
    """,
    "rewrite": "ALTER TABLE {table} ALTER n TYPE bigint; ALTER TABLE {table} ALTER n "
    "TYPE int;",
    "drop and create": "DROP TABLE {table};" + _TABLE + _GROW,
    "reindex": "REINDEX TABLE {table};",
    "move": "ALTER TABLE {table} SET TABLESPACE {space};",
    "move there and back": """
        ALTER TABLE {table} SET TABLESPACE elsewhere; UPDATE {table} SET n = {n};
        ALTER TABLE {table} SET TABLESPACE pg_default;
    """,
    "not logged": "ALTER TABLE {table} SET UNLOGGED;" + _GROW,
    "logged": "ALTER TABLE {table} SET LOGGED;" + _GROW,
    "not logged and logged": """
        ALTER TABLE {table} SET UNLOGGED; UPDATE {table} SET n = {n};
        ALTER TABLE {table} SET LOGGED;
    """,
    "count": "SELECT nextval('counter') FROM generate_series(1, {n});",
    "count anew": "ALTER SEQUENCE counter RESTART WITH {n};",
    "temporary": """
        CREATE TEMPORARY TABLE passing AS SELECT * FROM {table};
        CREATE INDEX ON passing (n); DROP TABLE passing;
    """,
    "make objects": """
        SELECT lo_from_bytea(0, decode(repeat(md5(g::text || {n}), 200), 'hex'))
        FROM generate_series(1, 5) AS g;
    """,
    "change objects": """
        SELECT lo_put(oid, {n}, decode(md5('{n}'), 'hex'))
        FROM pg_largeobject_metadata WHERE oid::bigint % 2 = {part} % 2;
    """,
    "drop objects": """
        SELECT lo_unlink(oid) FROM pg_largeobject_metadata
        WHERE oid::bigint % 3 = {part} % 3;
    """,
    "catalog": """
        COMMENT ON TABLE {table} IS '{n}'; ANALYZE {table};
        VACUUM FULL pg_description; REINDEX INDEX pg_class_oid_index;
        VACUUM FULL pg_class;
    """,
    "checkpoint": "CHECKPOINT;",
}


@dataclass
class Workload:
    """A cluster with several databases, and the steps that change them.

    Attributes:
        space: where the tablespace outside of the data directory is.
        done: what was run, for the message of a failure.
    """

    cluster: Cluster
    random: Random
    space: Path
    done: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        """Make tablespaces, databases and tables."""
        self._run(
            sql.SQL("CREATE TABLESPACE elsewhere LOCATION {}").format(str(self.space)),
            sql.SQL("CREATE TABLESPACE \"in place\" LOCATION ''"),
            *(_format("CREATE DATABASE {}", name) for name in DATABASES),
        )
        for name in (HOME, *DATABASES):
            self._fill(name)
        self._run(sql.SQL("CREATE TABLE prepared (n int)"))

    def run(self, steps: Iterable[str]) -> None:
        """Run steps by name, one behind the other."""
        for name in steps:
            self.done.append(name)
            if name in STATEMENTS:
                self._on_table(name)
            else:
                SPECIAL[name](self)

    def databases(self, *besides: str) -> list[str]:
        """Return the databases that can be worked in."""
        query = "SELECT datname FROM pg_database WHERE NOT datistemplate"
        found = {name for (name,) in self.cluster.rows(query)}
        return sorted(found - set(besides))

    def _fill(self, database: str) -> None:
        script = "".join((_TABLE + _GROW).format(**self._words(t)) for t in TABLES)
        self._run(sql.SQL("CREATE SEQUENCE counter"), database=database)
        self._run(*_statements(script), database=database)

    def _on_table(self, name: str) -> None:
        database, table = self.random.choice(self.databases()), self._table()
        script = STATEMENTS[name].format(**self._words(table))
        self._run(*_statements(script), database=database)

    def _table(self) -> str:
        return self.random.choice(TABLES)

    def _words(self, table: str) -> dict[str, str]:
        return {
            "table": _quoted(table),
            "primary": _quoted(f"{table}_pkey"),
            "n": str(self.random.randrange(1, 1000)),
            "part": str(self.random.randrange(7)),
            "rows": str(self.random.randrange(50, 800)),
            "space": self.random.choice(("elsewhere", '"in place"', "pg_default")),
        }

    def _run(self, *statements: sql.Composable, database: str = HOME) -> None:
        with self.cluster.connect(database) as connection:
            for statement in statements:
                connection.execute(statement)

    # -- what is more than statements on a table

    def make_index(self) -> None:
        """Index a table by a random access method."""
        what = self.random.choice(_INDEXES)
        method, _, column = what.partition(" ")
        create = f"CREATE INDEX ON {_quoted(self._table())} USING {method} {column}"
        database = self.random.choice(self.databases())
        self._run(sql.SQL(create), database=database)

    def drop_indexes(self) -> None:
        """Drop all that was indexed beside the primary key."""
        find = """
            SELECT indexrelid::regclass::text FROM pg_index
            WHERE NOT indisprimary AND indrelid >= 16384 AND NOT indisclustered
                AND indrelid IN (SELECT oid FROM pg_class WHERE relkind = 'r')
        """
        database = self.random.choice(self.databases())
        found = self.cluster.rows(find, database)
        drops = [sql.SQL(f"DROP INDEX {name}") for (name,) in found]
        self._run(*drops, database=database)

    def make_database(self, strategy: str, template: str | None = None) -> None:
        """Copy a database, of which there are not too many."""
        others = self.databases(HOME)
        if len(others) >= _MOST_DATABASES:
            self.drop_database()
        chosen = template or self.random.choice([*self.databases(HOME), "template1"])
        name = f"copy {self.random.randrange(1 << 30)}"
        words = f"CREATE DATABASE {{}} TEMPLATE {{}} STRATEGY {strategy}"
        space = self.random.choice(("", " TABLESPACE elsewhere"))
        try:
            self._run(_format(words + space, name, chosen))
        except FeatureNotSupported:  # the template has tables there
            self._run(_format(words, name, chosen))
        if chosen == "template1":
            self._fill(name)

    def drop_database(self) -> None:
        """Drop one, and be left with one at least."""
        others = self.databases(HOME)
        if len(others) > 1:
            self._run(_format("DROP DATABASE {}", self.random.choice(others)))

    def move_database(self) -> None:
        """Put a database into another tablespace; which copies its files."""
        name = self.random.choice(self.databases(HOME))
        self._move(name, "pg_default", self.random.choice(_SPACES))

    def move_database_and_back(self) -> None:
        """Put a database elsewhere, change it there, and put it back."""
        name = self.random.choice(self.databases(HOME))
        self._move(name, "pg_default", "in place")
        change = STATEMENTS["update"].format(**self._words(self._table()))
        self._run(*_statements(change), database=name)
        self._move(name, "pg_default")

    def _move(self, database: str, *spaces: str) -> None:
        """Move a database from tablespace to tablespace, with all that is in it."""
        default = """
            SELECT spcname FROM pg_tablespace AS t JOIN pg_database AS d
            ON t.oid = dattablespace WHERE datname = current_database()
        """
        own = self.cluster.sql(default, database)
        others = {"pg_default", *_SPACES} - {own}
        gather = "ALTER {} ALL IN TABLESPACE {} SET TABLESPACE {}"
        for kind in ("TABLE", "INDEX"):
            for other in sorted(others):
                names = (sql.Identifier(other), sql.Identifier(own))
                one = sql.SQL(gather).format(sql.SQL(kind), *names)
                self._run(one, database=database)
        move = "ALTER DATABASE {} SET TABLESPACE {}"
        self._run(*(_format(move, database, space) for space in spaces))

    def prepare_transaction(self) -> None:
        """Leave a transaction prepared, and end an older one."""
        pending = self.cluster.rows("SELECT gid FROM pg_prepared_xacts ORDER BY gid")
        for (name,) in pending[:1]:
            self._run(sql.SQL("COMMIT PREPARED {}").format(name))
        name = f"it's {self.random.randrange(1 << 30)}"
        self._run(
            sql.SQL("BEGIN"),
            sql.SQL("INSERT INTO prepared SELECT generate_series(1, 300)"),
            sql.SQL("PREPARE TRANSACTION {}").format(name),
        )

    def lock_together(self) -> None:
        """Let two transactions lock the same rows, which makes multixacts."""
        database, table = self.random.choice(self.databases()), self._table()
        lock = _format("SELECT id FROM {} WHERE id < 200 FOR SHARE", table)
        with self.cluster.connect(database) as one, one.transaction():
            one.execute(lock)
            with self.cluster.connect(database) as other:
                other.execute(lock)

    def restart(self, mode: str = "fast") -> None:
        """Stop the server in one of its ways, and start it."""
        self.cluster.stop(mode)  # type: ignore[arg-type]
        self.cluster.start()

    def promote(self) -> None:
        """Go on on a new timeline, as after a failover, with the same files."""
        self.cluster.stop()
        Path(self.cluster.data_directory, "standby.signal").touch()
        self.cluster.start()
        self.cluster.promote()


SPECIAL: dict[str, Callable[[Workload], None]] = {
    "index": Workload.make_index,
    "drop indexes": Workload.drop_indexes,
    "copy database by WAL": lambda work: work.make_database("wal_log"),
    "copy database by files": lambda work: work.make_database("file_copy"),
    "copy template by files": lambda work: work.make_database("file_copy", "template1"),
    "drop database": Workload.drop_database,
    "move database": Workload.move_database,
    "move database and back": Workload.move_database_and_back,
    "prepare": Workload.prepare_transaction,
    "lock together": Workload.lock_together,
    "restart": Workload.restart,
    "crash": lambda work: work.restart("immediate"),
    "promote": Workload.promote,
}

_OFFLINE = ("restart", "crash", "promote")
# Recovery copies a template as the backup has it, later changes included: PostgreSQL's
# documentation, "Continuous Archiving", "Caveats".
_COPYING = ("copy database by files", "move database", "move database and back")
BETWEEN = (*STATEMENTS, *SPECIAL)
"""Steps that may come between two backups."""
MEANWHILE = tuple(x for x in BETWEEN if x not in (*_OFFLINE, *_COPYING))
"""Steps that may come while a backup is taken."""


def _format(statement: str, *names: str) -> sql.Composed:
    return sql.SQL(statement).format(*map(sql.Identifier, names))


def _statements(script: str) -> list[sql.SQL]:
    return [sql.SQL(one) for one in script.split(";") if one.strip()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
