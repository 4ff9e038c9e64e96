"""The rules on changed pages, each answering for its own relations.

All are played on one cluster for each way of finding out what changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.incremental.links import (
    Content,
    Link,
    assert_same,
    backup,
    content,
    databases,
    prove,
    remember,
    restore_link,
)
from tests.incremental.pagecompare import PAGE, compare, unsupported_visibility
from tests.incremental.rules import RULES, Field
from tests.incremental.workload import SETTINGS
from tests.operations.backup_tools import Listener, site

if TYPE_CHECKING:
    from tests.incremental.rules import Step
    from tests.operations.scene import Scene
    from tests.pg import Cluster


class Mode(NamedTuple):
    """A way to find out what changed, on a cluster that needs it."""

    major: int
    checksums: bool
    settings: dict[str, str]


MODES = {
    "15 by LSN, hints not in WAL": Mode(15, False, {"wal_log_hints": "off"}),
    "18 by summaries": Mode(18, True, {"summarize_wal": "on"}),
    "16 by LSN, hints in WAL": Mode(16, False, {"wal_log_hints": "on"}),
    "18 by LSN, checksums": Mode(18, True, {}),
}
ORDINARY = list(MODES)[:2]


@dataclass
class Outcome:
    """What came back.

    Attributes:
        link: what there was.
        owners: names of database and relation by path.
        wrong: the relations whose pages are not the same, with what is not.
        content: of the restored cluster.
    """

    link: Link
    owners: dict[str, str]
    wrong: dict[str, str]
    content: Content

    def of(self, rule: str) -> dict[str, str]:
        return {
            name: what
            for name, what in self.wrong.items()
            if any(part.startswith(rule) for part in name.split("."))
        }


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name in ORDINARY else pytest.mark.long)
        for name in MODES
    ],
)
def outcome(scene: Scene, request: pytest.FixtureRequest) -> Outcome:
    mode = MODES[request.param]
    protected = scene.protect(
        mode.major, SETTINGS | mode.settings, data_checksums=mode.checksums
    )
    where = Field(protected)
    where.cluster.rows("CREATE TABLESPACE \"in place\" LOCATION ''")
    for rule in RULES.values():
        _do(where, rule.before)
    full = backup(protected, "full")
    for rule in RULES.values():
        _do(where, rule.after)
    taken = backup(protected)
    assert (taken.kind, taken.parent) == ("incr", full.label), taken
    link, owners = remember(scene, protected, taken), _owners(where.cluster)
    protected.archive_now()
    restored = restore_link(scene, protected, link)
    wrong = _wrong(link, restored, owners)
    restored.start()
    found = content(restored)
    restored.close()
    return Outcome(link, owners, wrong, found)


def _do(where: Field, step: Step) -> None:
    if isinstance(step, str):
        where.cluster.psql(step)
    else:
        step(where)


def _wrong(link: Link, restored: Cluster, owners: dict[str, str]) -> dict[str, str]:
    target = Path(restored.data_directory)
    differences = compare(link.pages, target) + unsupported_visibility(target)
    return {
        owners.get(one.path, one.path): f"{one.what}, page {one.block}"
        for one in differences
    }


def _owners(cluster: Cluster) -> dict[str, str]:
    """Return database and relation by path; a TOAST table's go by its table's name."""
    query = """
        SELECT pg_relation_filepath(c.oid), current_database() || '.' ||
            coalesce(t.relname, c.relname)
        FROM pg_class AS c LEFT JOIN pg_class AS t ON t.reltoastrelid = c.oid
        WHERE pg_relation_filepath(c.oid) IS NOT NULL
    """
    return {
        path: owner
        for name in databases(cluster)
        for path, owner in cluster.rows(query, name)
    }


@pytest.mark.parametrize("rule", RULES)
def test_no_page_is_stale(outcome: Outcome, rule: str) -> None:
    assert outcome.of(rule) == {}


def test_nothing_else_differs(outcome: Outcome) -> None:
    assert outcome.wrong == {}
    assert_same(outcome.content, outcome.link.content)


# -- what needs a cluster of its own


def test_an_lsn_on_the_boundary_is_newer(scene: Scene) -> None:
    """A page whose LSN is the very one at which the parent started is stored."""
    protected = scene.protect(15, SETTINGS, data_checksums=False)
    cluster = protected.cluster
    cluster.psql("""
        CREATE TABLE boundary AS SELECT 'then' AS filler FROM generate_series(1, 9);
        VACUUM FREEZE boundary;
    """)
    full = backup(protected, "full")
    start = int(protected.repository().find(full.label).backup.start_lsn)
    path = cluster.sql("SELECT pg_relation_filepath('boundary')")
    cluster.stop()
    with Path(cluster.data_directory, path).open("r+b") as file:
        content = file.read().replace(b"then", b"here")
        file.seek(0)
        file.write((start >> 32).to_bytes(4, "little"))
        file.write((start & 0xFFFFFFFF).to_bytes(4, "little") + content[8:])
    cluster.start()
    link = remember(scene, protected, backup(protected))
    protected.archive_now()
    restored = restore_link(scene, protected, link)
    restored.start()
    assert restored.rows("SELECT DISTINCT filler FROM boundary") == [("here",)]


_SEEN = 600  # pages: a file of more than 4 MiB is read before all small ones


def test_a_map_that_the_parent_read_after_the_table(scene: Scene) -> None:
    """The parent has a page without its flag and the map with the bit for it.

    WAL mends that in the parent's own recovery, but not in the child's.
    """
    settings = {"wal_log_hints": "off"}
    protected = scene.protect(15, SETTINGS | settings, data_checksums=False)
    cluster = protected.cluster
    cluster.psql(f"""
        CREATE TABLE seen (n int PRIMARY KEY, filler text);
        ALTER TABLE seen ALTER filler SET STORAGE PLAIN;
        INSERT INTO seen VALUES (0, repeat('x', 8000));
        VACUUM seen; -- so that there is a map when the files are listed
        INSERT INTO seen SELECT g, repeat('x', 8000) FROM generate_series(2, {_SEEN}) g;
        SELECT count(*) FROM seen;
    """)
    assert cluster.sql("SELECT pg_relation_size('seen')") == _SEEN * PAGE
    read = [0]

    def vacuum_behind(count: int) -> None:
        read.append(read[-1] + count)
        if read[-1] >= _SEEN * PAGE > read[-2]:
            cluster.psql("VACUUM seen; CHECKPOINT;")

    site(protected, jobs=1).take(Listener(on_advance=vacuum_behind))
    taken = backup(protected)
    assert taken.kind == "incr", taken
    link = remember(scene, protected, taken)
    protected.archive_now()
    prove(scene, protected, link)
