"""From configuration to objects: the only place that knows every concrete class.

`wal push` comes through here, so everything heavy is imported where it is used.
"""

from __future__ import annotations

import os
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
    from drkit.model.draft import PolicyDraft
    from drkit.model.manifest import ServerDescription
    from drkit.operations.check import Subject
    from drkit.operations.keys import Signing
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
    return os.uname().nodename


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


def signing(policy: Policy, secrets: Secrets) -> Signing:
    """Return the policy's signing key, read at first use, and whom it trusts."""
    from drkit.crypto.signing import parse_public
    from drkit.operations.keys import Signing

    trusted = frozenset(parse_public(text) for text in policy.keys.trusted)
    return Signing(signer_source(compile_policy(policy), secrets), trusted)


def check_subject(policy: Policy, secrets: Secrets, timeout: timedelta) -> Subject:
    """Return what `check` looks at; nothing is opened yet."""
    from drkit.config.repository_url import split_repository_url
    from drkit.operations.check import Subject
    from drkit.postgres.connection import replication_connect

    def replicate() -> None:
        password = _password(policy, secrets)
        replication_connect(policy.cluster.url, password, "check").finish()

    streamed = policy.backup.source == "stream"
    scheme, path, _ = split_repository_url(policy.repository.url)
    return Subject(
        system_identifier=policy.cluster.system_identifier,
        source=policy.backup.source,
        policy_path=policy.path,
        repository=lambda: open_repository(policy, secrets),
        signing=signing(policy, secrets),
        connect=lambda: connect_to(policy, secrets, "check"),
        replicate=replicate if streamed else None,
        local_root=path if scheme == "file" else None,
        data_directory=None if streamed else policy.cluster.data_directory,
        archive_command=archive_command(policy.path),
        timeout=timeout,
        clock=SystemClock(),
    )


class InitSite:
    """The place of a new policy, its keys and its repository, for `init`.

    Args:
        policy_dir: where the policy goes; made if it is not there.
        keys_dir: where its keys go; None for a directory of its own beside it.
    """

    def __init__(
        self, name: str, policy_dir: str, keys_dir: str | None, secrets: Secrets
    ) -> None:
        folder = os.path.abspath(policy_dir)
        self.policy_path = os.path.join(folder, f"{name}.yaml")
        self._keys_dir = os.path.abspath(keys_dir or os.path.join(folder, "keys", name))
        self._secrets = secrets

    def key_path(self, purpose: str) -> str:
        """Return the absolute path of a key file."""
        return os.path.join(self._keys_dir, f"{purpose}.key")

    def read_key(self, purpose: str) -> str | None:
        """Return what a key file holds; None if there is none."""
        path = self.key_path(purpose)
        return self._secrets.resolve(f"file:{path}") if os.path.lexists(path) else None

    def refuse_existing_policy(self) -> None:
        """Raise PolicyError if there is a policy of that name already."""
        from drkit.config.writing import already_there

        if os.path.lexists(self.policy_path):
            raise already_there(self.policy_path)

    def accept(self, draft: PolicyDraft) -> None:
        """Raise PolicyError if the draft would be no valid policy."""
        self._parse(draft)

    def create_storage(
        self, draft: PolicyDraft, owner: tuple[int, int] | None
    ) -> Storage:
        """Open the repository's store; make its directory if it is one."""
        from drkit.config.repository_url import split_repository_url
        from drkit.storage.local import LocalStorage

        policy = self._parse(draft)
        scheme, path, _ = split_repository_url(policy.repository.url)
        if scheme == "file":
            LocalStorage.create(path, owner)
            _give_if_empty(path, owner)
        seconds = policy.wal.timeout.total_seconds()
        return storage(compile_policy(policy), self._secrets, seconds)

    def open_repository(
        self, draft: PolicyDraft, storage: Storage, lineage: bytes
    ) -> Repository:
        """Open the repository as the draft's policy will."""
        compiled = compile_policy(self._parse(draft))
        return repository_in(storage, lineage, compiled, self._secrets)

    def write_key(self, purpose: str, text: str, owner: tuple[int, int] | None) -> None:
        """Create a key file that only its owner can read."""
        from drkit.config.writing import KEY_MODE, make_directory, write_new

        make_directory(self._keys_dir, 0o700, owner)
        write_new(self.key_path(purpose), text, KEY_MODE, owner)

    def write_policy(self, draft: PolicyDraft, owner: tuple[int, int] | None) -> None:
        """Create the policy file."""
        from drkit.config.writing import (
            POLICY_MODE,
            make_directory,
            render_policy,
            write_new,
        )

        make_directory(os.path.dirname(self.policy_path), 0o755, owner)
        write_new(self.policy_path, render_policy(draft), POLICY_MODE, owner)

    def _parse(self, draft: PolicyDraft) -> Policy:
        from drkit.config.environment import OVERRIDES
        from drkit.config.loading import parse_policy
        from drkit.config.writing import render_policy

        # What the environment replaces is not what the file will say.
        environ = {
            name: value
            for name, value in self._secrets.environ.items()
            if name not in OVERRIDES
        }
        data = render_policy(draft).encode()
        return parse_policy(data, self.policy_path, environ)


def _give_if_empty(path: str, owner: tuple[int, int] | None) -> None:
    """Give away a directory that root made for a repository and nobody has used yet."""
    if owner is not None and os.stat(path).st_uid == 0 and not os.listdir(path):
        os.chown(path, *owner)
