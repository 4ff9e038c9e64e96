"""What the tests of proofs share: a server as its checks see it, and faults on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from drkit.model.evidence import CheckState
from drkit.model.page import PAGE
from drkit.model.verification import VerificationRules
from drkit.operations.proving.checks import Subject, prove
from drkit.postgres.connection import connector
from drkit.postgres.pages import checksums
from drkit.wiring import SystemClock

if TYPE_CHECKING:
    from drkit.model.fingerprint import Fingerprint
    from drkit.operations.proving.checks import Proof
    from tests.pg import Cluster

RULES = VerificationRules(jobs=2)
PLENTY = 120.0  # seconds
DATA = """
    CREATE ROLE reader; CREATE ROLE writer;
    CREATE TABLE orders (id int PRIMARY KEY, content text, price numeric);
    INSERT INTO orders SELECT n, 'order ' || n, n / 7.0
        FROM generate_series(1, 20000) n;
    CREATE TABLE long AS SELECT 1 AS id,
        (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 9999) n) AS t;
    CREATE TABLE small AS SELECT 1 AS n;
    CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM orders;
    CREATE UNLOGGED TABLE passing AS SELECT 1 AS n;
    CREATE SEQUENCE numbers; SELECT setval('numbers', 1000);
"""


class Heard:
    """Progress that keeps the names of phases and the bytes."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.bytes = 0

    def phase(self, name: str, total: int | None = None) -> None:
        self.phases.append(name)

    def advance(self, count: int) -> None:
        self.bytes += count

    def event(self, name: str, **fields: object) -> None: ...

    def warning(self, message: str, **fields: object) -> None: ...


ODD = "odd = 'näme' %"


def fill(cluster: Cluster) -> None:
    """Make a bit of everything that checks look at."""
    cluster.rows(DATA)
    cluster.rows("CHECKPOINT")


def fill_odd(cluster: Cluster) -> None:
    """Make a database with a name that needs care."""
    cluster.rows(f'CREATE DATABASE "{ODD}"')
    cluster.rows("CREATE TABLE t AS SELECT 1 AS n", ODD)
    cluster.rows("CHECKPOINT", ODD)


def subject_of(cluster: Cluster) -> Subject:
    """Return a server as the one that was restored and started."""
    identifier, checksums_on, blocks = cluster.rows(
        "SELECT system_identifier::text, current_setting('data_checksums')::bool,"
        " (SELECT setting::int FROM pg_settings WHERE name = 'segment_size')"
        " FROM pg_control_system()"
    )[0]
    return Subject(
        server=cluster,
        data_directory=cluster.data_directory,
        connect=connector(cluster.url, None, "proof"),
        database="postgres",
        system_identifier=identifier,
        timeline=1,
        segment_blocks=blocks,
        checksums=checksums_on,
    )


def proof_of(
    subject: Subject | Cluster,
    rules: VerificationRules = RULES,
    expected: Fingerprint | str | None = None,
    *,
    seconds: float = PLENTY,
    at_fingerprint: bool = True,
) -> Proof:
    """Make all checks of a server."""
    if not isinstance(subject, Subject):
        subject = subject_of(subject)
    clock = SystemClock()
    deadline = clock.monotonic() + seconds
    return prove(
        subject,
        rules,
        expected,
        clock,
        Heard(),
        deadline,
        at_fingerprint=at_fingerprint,
    )


def failures(proof: Proof) -> dict[str, str]:
    """Return the details of the checks that failed, by name."""
    return {
        one.name: one.detail for one in proof.checks if one.state is CheckState.FAILED
    }


def states(proof: Proof) -> dict[str, CheckState]:
    return {one.name: one.state for one in proof.checks}


def relation_path(cluster: Cluster, relation: str) -> Path:
    path = cluster.sql(f"SELECT pg_relation_filepath('{relation}')")
    return Path(cluster.data_directory, path)


class Stopped:
    """A server that is stopped while its files are changed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __enter__(self) -> None:
        self._cluster.stop()

    def __exit__(self, *_: object) -> None:
        self._cluster.start()


def change_page(path: Path, block: int, at: int, content: bytes, *, seal: bool) -> None:
    """Write into a page; `seal` makes its checksum right again."""
    with path.open("r+b") as file:
        page = bytearray(os.pread(file.fileno(), PAGE, block * PAGE))
        assert len(page) == PAGE
        page[at : at + len(content)] = content
        if seal:
            page[8:10] = int(checksums(bytes(page), block)[0]).to_bytes(2, "little")
        os.pwrite(file.fileno(), page, block * PAGE)


def clear_page(path: Path, block: int) -> None:
    """Make a page new, as one that was never written to: PostgreSQL takes it."""
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(PAGE), block * PAGE)


def hide_from_index(cluster: Cluster, row: str) -> None:
    """Insert a row that an index does not get to know."""
    index = "'orders_pkey'::regclass"
    with cluster.connect() as connection:
        connection.execute("SET allow_system_table_mods = on")
        ready = "UPDATE pg_index SET indisready = %s WHERE indexrelid = " + index
        connection.execute(ready, (False,))
        connection.execute(f"INSERT INTO orders VALUES {row}")
        connection.execute(ready, (True,))
