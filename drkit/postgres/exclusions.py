"""What a base backup leaves out, and what kind of file a path is.

The lists are those of PostgreSQL's `src/backend/backup/basebackup.c`; a test holds
them against what the server's own backup contains.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

EMPTIED = frozenset(
    {
        b"pg_wal",
        b"pg_replslot",
        b"pg_dynshmem",
        b"pg_notify",
        b"pg_serial",
        b"pg_snapshots",
        b"pg_subtrans",
        b"pg_stat_tmp",
    }
)
"""Directories of the data directory that are kept without their contents."""

KEPT_IN_WAL = (b"pg_wal/archive_status", b"pg_wal/summaries")
"""Directories under `pg_wal` that a server expects, the second from 17 on."""

_SKIPPED_FILES = frozenset(
    {
        b"postmaster.pid",
        b"postmaster.opts",
        b"postgresql.auto.conf.tmp",
        b"current_logfiles.tmp",
        b"backup_label",
        b"tablespace_map",
        b"backup_manifest",
        b"backup_label.old",
        b"tablespace_map.old",
    }
)
_RELATION = re.compile(
    rb"(?P<number>\d+)(?:_(?P<fork>fsm|vm|init))?(?:\.(?P<segment>\d+))?\Z"
)
_TEMPORARY = re.compile(rb"t\d+_\d+(?:_(?:fsm|vm|init))?(?:\.\d+)?\Z")
_DATABASE = re.compile(
    rb"(?:global|base/\d+|pg_tblspc/\d+/PG_[^/]+/\d+)\Z"
)  # the directories that hold relations

_CLUSTERS_DIRECTORY = re.compile(
    rb"(?:base(?:/\d+)?|global|pg_(?:xact|commit_ts|twophase|logical|tblspc)"
    rb"|pg_multixact(?:/(?:members|offsets))?|pg_tblspc/\d+/PG_[^/]+(?:/\d+)?)\Z"
)
_CLUSTERS_FILE = re.compile(
    rb"(?:.*/)?(?:PG_VERSION|pg_filenode\.map|pg_control)\Z"
    rb"|pg_(?:xact|multixact/(?:members|offsets)|commit_ts|twophase)/[0-9A-F]+\Z"
)


class Fork(Enum):
    """A relation's forks, by the suffix of their files."""

    MAIN = auto()
    FSM = auto()
    VM = auto()
    INIT = auto()


class RelationFile(NamedTuple):
    """A path that holds pages: relation number, fork and 1 GiB segment."""

    number: int
    fork: Fork
    segment: int

    def beside(self, path: bytes, suffix: bytes) -> bytes:
        """Return where the first file of another fork lies, given this file's path."""
        return path.rpartition(b"/")[0] + b"/%d" % self.number + suffix


def relation_file(path: bytes) -> RelationFile | None:
    """Return what relation file a path is; None if it holds no pages."""
    directory, _, name = path.rpartition(b"/")
    match = _RELATION.match(name)
    if match is None or _DATABASE.match(directory) is None:
        return None
    fork = Fork[(match["fork"] or b"main").decode().upper()]
    return RelationFile(int(match["number"]), fork, int(match["segment"] or 0))


def excluded_directory(path: bytes) -> bool:
    """Say whether a directory is left out with everything in it."""
    return path.rpartition(b"/")[2].startswith(b"pgsql_tmp")


def excluded_file(path: bytes) -> bool:
    """Say whether a file is left out; unlogged relations are told by `unlogged`."""
    directory, _, name = path.rpartition(b"/")
    if not directory and name in _SKIPPED_FILES:
        return True
    if name.startswith((b"pgsql_tmp", b"pg_internal.init")):
        return True
    return _DATABASE.match(directory) is not None and _TEMPORARY.match(name) is not None


def unlogged(names: list[bytes]) -> set[int]:
    """Return the relation numbers in one directory that have an init fork.

    Only that fork of an unlogged relation is kept: the server makes the others from it
    at the end of recovery.
    """
    matches = [_RELATION.match(name) for name in names]
    return {int(one["number"]) for one in matches if one and one["fork"] == b"init"}


def superseded_by_init(paths: Iterable[bytes]) -> set[bytes]:
    """Return those paths that are forks of relations whose init fork is among them.

    An unlogged relation gets its init fork last: an index, when all of it is built.
    Whoever lists its directory before that takes its main fork for a logged one. But
    with both in a backup recovery fails in the end: it makes each main fork out of the
    init fork, and finds this one there.
    """
    files = [(path, relation_file(path)) for path in paths]
    relations = [
        (path, (path.rpartition(b"/")[0], one.number), one.fork)
        for path, one in files
        if one is not None
    ]
    told = {relation for _, relation, fork in relations if fork is Fork.INIT}
    return {
        path
        for path, relation, fork in relations
        if fork is not Fork.INIT and relation in told
    }


def holds_relations(directory: bytes) -> bool:
    """Say whether a directory of the data directory holds relation files."""
    return _DATABASE.match(directory) is not None


def of_the_cluster(path: bytes) -> bool:
    """Say whether a path is one at which a server keeps what a backup must have."""
    own = _CLUSTERS_DIRECTORY.match(path) or _CLUSTERS_FILE.match(path)
    return bool(own) or relation_file(path) is not None
