"""Reading a cluster's files from its data directory, all of them or what changed."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from drkit import workers
from drkit.errors import SourceUnreadable
from drkit.model.audit import audit_due
from drkit.model.manifest import CONTROL_FILE
from drkit.ownership import acting_as
from drkit.postgres.control import read_control
from drkit.postgres.damage import PageChecker
from drkit.postgres.detection import Detection
from drkit.postgres.facts import read_facts
from drkit.postgres.reading import Reading
from drkit.postgres.scan import Found, scan, unlogged_since
from drkit.postgres.summaries import SINCE_VERSION, changed_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.model.changes import ChangedBlocks
    from drkit.model.copied import Copied
    from drkit.model.head import WalPosition
    from drkit.postgres.local_cluster import LocalCluster
    from drkit.protocols import (
        Clock,
        ContentWriter,
        ParentContent,
        Progress,
        ServerSession,
    )

_SUMMARIZER_STALLS = timedelta(seconds=60)


def changed_since(
    parent: ParentContent,
    session: ServerSession,
    cluster: LocalCluster,
    start: WalPosition,
    clock: Clock,
) -> Detection | str:
    """Return what tells the pages that changed since a parent; else why nothing can.

    Args:
        start: of the backup that was begun in `session`.

    Raises:
        PostgresUnreachable: the session was lost.
        PostgresRefused: the role may not ask.
    """
    head, facts = parent.chain.head, cluster.facts
    if start.lsn < head.stop.lsn:
        return f"this server has not come to the end of backup {head.label} yet"
    changed: ChangedBlocks | None = None
    if facts.version_num >= SINCE_VERSION and facts.summarize_wal:
        with acting_as(cluster.owner):
            found = changed_blocks(
                session,
                cluster.data_directory,
                cluster.history,
                head.start.lsn,
                start.lsn,
                cluster.server.relation_segment_size,
                _SUMMARIZER_STALLS,
                clock,
            )
        if isinstance(found, str):
            return found
        changed = found
    elif head.source != "local":
        return (
            f"backup {head.label} was streamed, so without WAL summaries its files "
            "can't be told from others of the same names"
        )

    def due(path: bytes) -> bool:
        return audit_due(path, head.start.time, start.time, cluster.audit_every)

    return Detection(parent, changed, due)


def copy_cluster(
    session: ServerSession,
    cluster: LocalCluster,
    start: WalPosition,
    detection: Detection | None,
    check_session: Callable[[], None],
    writers: Sequence[ContentWriter],
    progress: Progress,
) -> Copied:
    """Read all files, one thread per writer, and `pg_control` after all others.

    Args:
        session: asked only about pages that may be damaged.
        detection: for an incremental; None to read everything.
        check_session: raises if the backup's session is lost; called now and then.
    """
    # Asked anew: WAL since the backup's start has none that came before it.
    names = {one.oid: one.name for one in read_facts(session).tablespaces}
    with acting_as(cluster.owner):
        found = scan(cluster.data_directory, names, cluster.server.catalog_version)
    for left_out in found.warnings:
        progress.warning(left_out)
    checker = _checker(session, cluster, start)
    reading = Reading(found, detection, start.lsn, checker, progress, cluster.owner)
    progress.phase("copy", reading.total())
    tasks = [reading.worker(writer) for writer in writers]
    workers.run(tasks, watch=check_session)
    check_session()
    with acting_as(cluster.owner):
        number, control = _read_control(cluster.data_directory, found)
        unlogged = unlogged_since(found)
    writers[0].add(number, 0, control)
    return reading.copied({number: len(control)}, unlogged)


def _checker(
    session: ServerSession, cluster: LocalCluster, start: WalPosition
) -> PageChecker | None:
    if not cluster.facts.data_checksums:
        return None

    def insert_lsn() -> int:
        return read_facts(session).insert_lsn

    return PageChecker(start.lsn, insert_lsn, cluster.server.relation_segment_size)


def _read_control(data_directory: str, found: Found) -> tuple[int, bytes]:
    """Return the number and the content of the control file."""
    for number, file in enumerate(found.files):
        if file.path == CONTROL_FILE:
            return number, read_control(os.fsdecode(file.place))[1]
    raise SourceUnreadable(
        f"there is no global/pg_control in {data_directory}",
        hint="check `cluster.data_directory` in the policy",
    )
