"""From configuration to objects: the only place that knows every concrete class.

`wal push` comes through here, so everything heavy is imported where it is used.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from drkit.config.compiled import compile_policy
from drkit.config.secrets import SecretReference
from drkit.crypto.keys import PURPOSES, parse_kek
from drkit.repository.identity import read_lineage
from drkit.repository.keyring import Keyring
from drkit.repository.layout import Layout
from drkit.repository.wal import WalArchive
from drkit.storage.opening import open_storage
from drkit.storage.retry import RetryingStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from drkit.config.compiled import Compiled
    from drkit.config.policy import Policy
    from drkit.crypto.signing import Signer
    from drkit.model.manifest import ServerDescription
    from drkit.postgres.connection import Connection
    from drkit.protocols import BaseBackupSource, KeyProvider, Storage
    from drkit.repository.repository import Repository

_LONG_DEADLINE = timedelta(minutes=5)  # for work that nobody waits for


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall clock's time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Secrets:
    """Resolves references to secrets, and remembers the values so that logs can't leak.

    Attributes:
        seen: every value that was handed out.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.seen: set[str] = set()

    def resolve(self, reference: SecretReference | str) -> str:
        """Return a secret's value."""
        if isinstance(reference, str):
            reference = SecretReference.parse(reference)
        value = reference.resolve(self.environ).reveal()
        self.seen.update(part for part in (value, value.strip()) if part)
        return value


def host_name() -> str:
    """Return this host's name, as log entries and leases carry it."""
    return socket.gethostname()


def bare_storage(compiled: Compiled, secrets: Secrets, connections: int = 8) -> Storage:
    """Return the policy's store without retries."""
    s3 = dict(compiled["s3"])
    for name in ("access_key_id", "secret_access_key"):
        if name in s3:
            s3[name] = secrets.resolve(s3[name])
    return open_storage(compiled["repository_url"], connections=connections, **s3)


def storage(
    compiled: Compiled, secrets: Secrets, deadline: float, connections: int = 8
) -> Storage:
    """Return the policy's store; a request is repeated for `deadline` seconds."""
    bare = bare_storage(compiled, secrets, connections)
    return RetryingStorage(bare, SystemClock(), deadline=deadline)


def key_sources(
    compiled: Compiled, secrets: Secrets
) -> dict[str, Callable[[], KeyProvider]]:
    """Return by purpose what reads its key-encrypting key at first use."""

    def source(purpose: str) -> Callable[[], KeyProvider]:
        reference = compiled["keys"][purpose]
        return lambda: parse_kek(secrets.resolve(reference), purpose, reference)

    return {purpose: source(purpose) for purpose in PURPOSES}


def open_wal_archive(compiled: Compiled, secrets: Secrets) -> WalArchive:
    """Open what `wal push` and `wal get` need, and nothing else.

    Raises:
        RepositoryMissing: there is no repository.
    """
    store = storage(compiled, secrets, compiled["wal_timeout"], connections=1)
    lineage = read_lineage(store)
    layout = Layout(compiled["name"])
    keyring = Keyring(store, layout, lineage, key_sources(compiled, secrets))
    return WalArchive(store, layout, lineage, keyring, compiled["system_identifier"])


def open_repository(policy: Policy, secrets: Secrets) -> Repository:
    """Open a policy's part of its repository.

    Raises:
        RepositoryMissing: there is no repository.
    """
    compiled = compile_policy(policy)
    connections = max(policy.backup.jobs, 4)
    store = storage(compiled, secrets, _LONG_DEADLINE.total_seconds(), connections)
    return repository_in(store, read_lineage(store), compiled, secrets)


def repository_in(
    store: Storage, lineage: bytes, compiled: Compiled, secrets: Secrets
) -> Repository:
    """Put a repository's parts together over a store."""
    from drkit.crypto.signing import parse_public
    from drkit.repository.log import Log, LogIdentity
    from drkit.repository.repository import Repository

    layout, clock = Layout(compiled["name"]), SystemClock()
    keyring = Keyring(store, layout, lineage, key_sources(compiled, secrets))
    identity = LogIdentity(
        host_name(),
        signer_source(compiled, secrets),
        frozenset(parse_public(text) for text in compiled["trusted"]),
    )
    log = Log(store, layout, lineage, keyring, identity, clock)
    system = compiled["system_identifier"]
    wal = WalArchive(store, layout, lineage, keyring, system)
    return Repository(store, layout, lineage, keyring, log, wal, clock)


def signer_source(compiled: Compiled, secrets: Secrets) -> Callable[[], Signer]:
    """Return what reads the signing key at first use."""
    from drkit.crypto.signing import parse_signing_key

    reference = compiled["keys"]["signing"]
    return lambda: parse_signing_key(secrets.resolve(reference), reference)


def connect_to(policy: Policy, secrets: Secrets, purpose: str) -> Connection:
    """Connect to the policy's cluster."""
    from drkit.postgres.connection import connect

    return connect(policy.cluster.url, _password(policy, secrets), purpose)


def open_source(
    policy: Policy, secrets: Secrets
) -> tuple[ServerDescription, BaseBackupSource, Connection]:
    """Connect to the cluster and return how its files are read.

    Returns:
        The server, the source, and a connection of its own for questions meanwhile.

    Raises:
        PostgresUnreachable, PostgresRefused: as the server answers.
    """
    from drkit.postgres.connection import replication_connect
    from drkit.postgres.describe import describe, refuse_unless_backupable
    from drkit.postgres.facts import read_facts
    from drkit.postgres.local_source import LocalSource
    from drkit.postgres.replication import BaseBackupStream
    from drkit.postgres.stream_source import StreamSource

    clock = SystemClock()
    connection = connect_to(policy, secrets, "backup")
    facts = read_facts(connection)
    refuse_unless_backupable(facts, policy.cluster.system_identifier)
    server = describe(connection, facts)
    questions = connect_to(policy, secrets, "backup watch")
    if policy.backup.source == "local":
        directory = policy.cluster.data_directory or facts.data_directory
        return (
            server,
            LocalSource(connection, facts, server, directory, clock),
            questions,
        )
    password = _password(policy, secrets)
    replication = replication_connect(policy.cluster.url, password, "backup")
    stream = BaseBackupStream(replication)
    return server, StreamSource(connection, stream, facts, server, clock), questions


def restore_command(policy: Policy) -> str:
    """Return the `restore_command` that fetches this policy's WAL."""
    return f"{drkit_command()} wal get --policy {quoted(policy.path)} %f %p"


def archive_command(policy_path: str) -> str:
    """Return the `archive_command` that stores a policy's WAL."""
    return f"{drkit_command()} wal push --policy {quoted(policy_path)} %p"


def drkit_command() -> str:
    """Return how a server's shell starts this drkit, whatever its PATH is."""
    script = os.path.join(os.path.dirname(sys.executable), "drkit")
    if os.access(script, os.X_OK):
        return quoted(script)
    return f"{quoted(sys.executable)} -m drkit"


def quoted(text: str) -> str:
    """Quote for a shell inside a PostgreSQL command, where `%` is special."""
    import shlex

    return shlex.quote(text).replace("%", "%%")


def _password(policy: Policy, secrets: Secrets) -> str | None:
    reference = policy.cluster.password
    return None if reference is None else secrets.resolve(reference)
