"""A cluster, opened for a backup: how its files are read, and what is known of it.

What only one way of reading needs is imported where it is used.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit import wiring
from drkit.errors import Corrupt, PostgresRefused, SourceUnreadable
from drkit.model.copied import Present
from drkit.model.timeline import TimelineHistory
from drkit.ownership import acting_as, owner_of
from drkit.postgres.archiver import archiver_asker
from drkit.postgres.describe import describe, refuse_unless_backupable
from drkit.postgres.facts import read_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGconn

    from drkit.config.policy import Policy
    from drkit.model.head import ServerDescription
    from drkit.model.owner import Owner
    from drkit.postgres.facts import ServerFacts
    from drkit.postgres.session_process import SessionProcess
    from drkit.protocols import BaseBackupSource, ServerSession


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A cluster, ready to be backed up.

    Attributes:
        archiver: asks the server, in a session of its own, how archiving goes.
    """

    present: Present
    source: BaseBackupSource
    archiver: Callable[[], str]

    def close(self) -> None:
        """Close all connections."""
        self.source.close()


def open_source(
    policy: Policy, secrets: wiring.Secrets, process: SessionProcess | None = None
) -> OpenedSource:
    """Connect to the cluster and return how its files are read.

    Args:
        process: holds the session; without one, this process does.

    Raises:
        PostgresUnreachable, PostgresRefused: as the server answers.
    """
    local = policy.backup.source == "local"
    opening = _local_source if local else _stream_source
    with ExitStack() as on_failure:
        session = _session(policy, secrets, process)
        on_failure.callback(session.end)
        facts = read_facts(session)
        refuse_unless_backupable(facts, policy.cluster.system_identifier)
        server = describe(session, facts)
        source, history = opening(policy, secrets, session, facts, server)
        on_failure.pop_all()
    archiver = archiver_asker(
        lambda: wiring.connect_to(policy, secrets, "backup watch")
    )
    return OpenedSource(Present(server, history, facts.current_lsn), source, archiver)


def _session(
    policy: Policy, secrets: wiring.Secrets, process: SessionProcess | None
) -> ServerSession:
    if process is None:
        return wiring.connect_to(policy, secrets, "backup")
    process.log_in(policy.cluster.url, wiring.password_of(policy, secrets), "backup")
    return process


def _local_source(
    policy: Policy,
    secrets: wiring.Secrets,  # noqa: ARG001  as _stream_source
    session: ServerSession,
    facts: ServerFacts,
    server: ServerDescription,
) -> tuple[BaseBackupSource, TimelineHistory]:
    from drkit.postgres.local_cluster import LocalCluster
    from drkit.postgres.local_source import LocalSource
    from drkit.postgres.timelines import read_history

    directory = policy.cluster.data_directory or facts.data_directory
    owner = _owner(directory)
    with acting_as(owner):
        history = _history(facts, lambda: read_history(directory, facts.timeline))
    audit_every = policy.backup.audit_every
    cluster = LocalCluster(facts, server, history, directory, owner, audit_every)
    return LocalSource(session, cluster, wiring.SystemClock()), history


def _owner(directory: str) -> Owner | None:
    """Return whom root acts as where the cluster's files are.

    Raises:
        SourceUnreadable: there is nothing, or it is nobody's alone.
    """
    try:
        owner = owner_of(directory, raising=SourceUnreadable)
    except OSError as error:
        raise SourceUnreadable(
            f"can't read {directory}: {error.strerror}",
            hint="check `cluster.data_directory` in the policy",
        ) from error
    if owner is not None and owner.uid == 0:
        raise SourceUnreadable(
            f"{directory} belongs to root, so no server's files are there",
            hint="check `cluster.data_directory` in the policy",
        )
    return owner


def _stream_source(
    policy: Policy,
    secrets: wiring.Secrets,
    session: ServerSession,
    facts: ServerFacts,
    server: ServerDescription,
) -> tuple[BaseBackupSource, TimelineHistory]:
    from drkit.postgres.connection import replication_connect
    from drkit.postgres.replication import BaseBackupStream
    from drkit.postgres.stream_source import StreamSource
    from drkit.postgres.timelines import ask_history

    password = wiring.password_of(policy, secrets)

    def replicate() -> PGconn:
        return replication_connect(policy.cluster.url, password, "backup")

    replication = replicate()
    history = _history(facts, lambda: ask_history(replication, facts.timeline))
    stream = BaseBackupStream(replication, replicate)
    return StreamSource(session, stream, facts, server), history


def _history(
    facts: ServerFacts, read: Callable[[], TimelineHistory]
) -> TimelineHistory:
    """Read the timeline's history; without it, no backup of an older one is trusted."""
    try:
        return read()
    except (Corrupt, PostgresRefused, SourceUnreadable):
        return TimelineHistory(facts.timeline)
