"""From configuration to objects: the only place that knows every concrete class.

`wal push` comes through here, so everything heavy is imported where it is used.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from drkit.config.compiled import secret_owners
from drkit.config.secrets import SecretReference
from drkit.crypto.keys import PURPOSES, parse_kek
from drkit.crypto.signing import parse_signing_key, public_keys
from drkit.repository.identity import read_lineage
from drkit.repository.keyring import Keyring
from drkit.repository.layout import Layout
from drkit.repository.wal import WalArchive
from drkit.repository.wal_signature import WalSigning, WalTrust, wal_trust
from drkit.storage.opening import open_storage
from drkit.storage.retry import RetryingStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from drkit.config.compiled import Compiled
    from drkit.config.policy import Policy
    from drkit.crypto.signing import Signer
    from drkit.errors import DrkitError
    from drkit.model.standing import Rules
    from drkit.operations.fingerprints.of_backup import FingerprintWanted
    from drkit.operations.journal import Journal
    from drkit.operations.keys import Signing
    from drkit.operations.verifying.repository import Request
    from drkit.postgres.connection import Connection
    from drkit.postgres.session_process import SessionProcess
    from drkit.protocols import KeyProvider, Storage
    from drkit.repository.repository import Repository

LONG_DEADLINE = timedelta(minutes=5)  # for work that nobody waits for
_EVER: Mapping[int, str] = MappingProxyType({})  # of no timeline is WAL unsigned
SIGNING = ("signing", "wal_signing")
_ABSENT = 79  # an exit code of neither Python nor a shell nor sysexits.h


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

    def resolve(
        self,
        reference: SecretReference | str,
        users: Collection[int] | None = None,
    ) -> str:
        """Return a secret's value.

        Args:
            users: who may own its file; root and this user by default.
        """
        if isinstance(reference, str):
            reference = SecretReference.parse(reference)
        value = reference.resolve(self.environ, users).reveal()
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
            s3[name] = secrets.resolve(s3[name], secret_owners(compiled))
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
        return lambda: parse_kek(
            secrets.resolve(reference, secret_owners(compiled)), purpose, reference
        )

    return {purpose: source(purpose) for purpose in PURPOSES}


def open_wal_archive(
    compiled: Compiled,
    secrets: Secrets,
    segment_size: int | None = None,
    since: Mapping[int, str] | None = None,
) -> WalArchive:
    """Open what `wal push` and `wal get` need, and nothing else.

    `segment_size` is that of the cluster whose WAL is fetched, where it is at hand;
    `since` says from where on WAL must be signed, as `WalTrust` has it.

    Raises:
        RepositoryMissing: there is no repository.
    """
    store = storage(compiled, secrets, compiled["wal_timeout"], connections=1)
    lineage = read_lineage(store)
    layout = Layout(compiled["name"])
    keyring = Keyring(store, layout, lineage, key_sources(compiled, secrets))
    trust = WalTrust(public_keys(compiled["trusted_wal"]), since)
    signer = signer_sources(compiled, secrets).get("wal_signing")
    return WalArchive(
        *(store, layout, lineage, keyring, compiled["system_identifier"]),
        segment_size=lambda: segment_size,
        signing=WalSigning(signer, lambda: trust),
    )


def open_repository(
    policy: Policy, secrets: Secrets, *, accept_unsigned: bool = False
) -> Repository:
    """Open a policy's part of its repository.

    Args:
        accept_unsigned: take WAL also where it must be signed and is not.

    Raises:
        RepositoryMissing: there is no repository.
    """
    from drkit.config.compiled import compile_policy

    compiled = compile_policy(policy)
    connections = max(policy.backup.jobs, 8)
    store = storage(compiled, secrets, LONG_DEADLINE.total_seconds(), connections)
    lineage = read_lineage(store)
    return repository_in(
        store, lineage, compiled, secrets, accept_unsigned=accept_unsigned
    )


def repository_in(
    store: Storage,
    lineage: bytes,
    compiled: Compiled,
    secrets: Secrets,
    *,
    remembered: bool = True,
    accept_unsigned: bool = False,
) -> Repository:
    """Put a repository's parts together over a store.

    If `remembered`, this host holds its log against what it has seen of it.
    `accept_unsigned` is that of `open_repository`.
    """
    from drkit.config.state import StateFiles
    from drkit.repository.log import Log
    from drkit.repository.log_entries import LogIdentity
    from drkit.repository.repository import Repository

    layout, clock = Layout(compiled["name"]), SystemClock()
    keyring = Keyring(store, layout, lineage, key_sources(compiled, secrets))
    signers = signer_sources(compiled, secrets)
    trusted = public_keys(compiled["trusted"])
    identity = LogIdentity(host_name(), signers["signing"], trusted)
    memory = None
    if remembered:
        memory = StateFiles(secrets.environ, lineage, layout.cluster)
    log = Log(store, layout, lineage, keyring, identity, clock, memory)
    system = compiled["system_identifier"]
    pinned = public_keys(compiled["trusted_wal"])
    trust = partial(wal_trust, log, pinned, accept_unsigned=accept_unsigned)
    signing = WalSigning(signers.get("wal_signing"), trust)

    def segment_size() -> int | None:
        return None if log.state.opened is None else log.state.opened.segment_size

    wal = WalArchive(
        *(store, layout, lineage, keyring, system),
        segment_size=segment_size,
        signing=signing,
    )
    return Repository(store, layout, lineage, keyring, log, wal, clock)


def signer_sources(
    compiled: Compiled, secrets: Secrets
) -> dict[str, Callable[[], Signer]]:
    """Return by purpose what reads the signing keys that there are, at first use."""
    owners = secret_owners(compiled)

    def source(reference: str) -> Callable[[], Signer]:
        return lambda: parse_signing_key(secrets.resolve(reference, owners), reference)

    references = compiled["keys"]
    return {one: source(references[one]) for one in SIGNING if one in references}


def connect_to(policy: Policy, secrets: Secrets, purpose: str) -> Connection:
    """Connect to the policy's cluster."""
    from drkit.postgres.connection import connect

    return connect(policy.cluster.url, password_of(policy, secrets), purpose)


def verification_journal(
    policy: Policy,
    repository: Repository,
    request: Request,
    environ: Mapping[str, str],
    *,
    resume: bool,
) -> Journal:
    """Open the journal of a verification, in the user's cache directory.

    Raises:
        Locked: the same verification is running.
        OSError: there is no place for it.
    """
    import hashlib
    import json

    from drkit.config.cache import cache_dir
    from drkit.operations.journal import open_journal

    directory = cache_dir(environ)
    if directory is None:
        raise FileNotFoundError("there is no cache directory; set DRKIT_CACHE_DIR")
    scope = {
        "lineage": repository.lineage.hex(),
        "cluster": repository.layout.cluster,
        "label": request.label,
        "sample": None if request.sample is None else str(request.sample),
    }
    digest = hashlib.sha256(json.dumps(scope).encode()).hexdigest()[:16]
    path = os.path.join(directory, f"verify-{policy.name}-{digest}.journal")
    return open_journal(path, scope, repository.clock.now(), resume=resume)


def restore_command(
    policy: Policy, signed_since: Mapping[int, str] | None = _EVER
) -> str:
    """Return the `restore_command` that fetches this policy's WAL.

    Args:
        signed_since: from where on WAL must be signed, as `LogState.wal_signed`.

    PostgreSQL takes 1 to 125 for the end of WAL and promotes. Python ends with 1 where
    drkit is not whole, as while it is being upgraded, so 1 is given only for a code
    that comes from drkit alone. All others stop a recovery; a standby asks again. 143
    is SIGTERM, by which PostgreSQL knows its own shutdown.
    """
    policy_path = quoted(policy.path)
    unsigned = _unsigned_before(signed_since) if policy.keys.trusted_wal else ""
    get = f"wal get --absent-exit {_ABSENT}{unsigned} --policy {policy_path} %f %p"
    return (
        f"{drkit_command()} {get} || case $? in {_ABSENT}) exit 1;; 143) exit 143;; "
        "*) [ -e standby.signal ] && exit 1; exit 255;; esac"
    )


def _unsigned_before(since: Mapping[int, str] | None) -> str:
    """Return what lets `wal get` take WAL from before WAL was signed."""
    if since is None:
        return " --unsigned-before all"
    names = ",".join(name for _, name in sorted(since.items()))
    return f" --unsigned-before {names}" if names else ""


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


def fingerprint_wanted(policy: Policy, secrets: Secrets) -> FingerprintWanted | None:
    """Return which fingerprint backups take along; None if the policy wants none."""
    mode = policy.verification.fingerprint
    if mode is None:
        return None
    from drkit.operations.fingerprints.of_backup import FingerprintWanted

    url, password = policy.cluster.url, password_of(policy, secrets)

    def connect(database: str | None) -> Connection:
        from drkit.postgres.connection import connector  # takes long, and has time

        return connector(url, password, "fingerprint")(database)

    return FingerprintWanted(mode, connect)


def heartbeat_writer(
    policy: Policy, secrets: Secrets, process: SessionProcess | None
) -> Callable[[], Callable[[], DrkitError | None]]:
    """Return what begins to write a heartbeat for a backup.

    Args:
        process: writes it; without one, this process does, when it is waited for.
    """
    from drkit.operations.backup_heartbeat import beat_for_backup

    url, database = policy.cluster.url, policy.heartbeat.database
    password = password_of(policy, secrets)
    write = partial(beat_for_backup, url, password, database, host_name())
    return (lambda: write) if process is None else partial(process.begin, write)


def heartbeat_connection(policy: Policy, secrets: Secrets) -> Connection:
    """Connect to the database that has, or will have, the policy's heartbeat."""
    from drkit.postgres.connection import connector

    password = password_of(policy, secrets)
    connect = connector(policy.cluster.url, password, "heartbeat")
    return connect(policy.heartbeat.database)


def password_of(policy: Policy, secrets: Secrets) -> str | None:
    """Return the password of the policy's cluster, if the connection needs one."""
    from drkit.config.compiled import compile_policy

    reference = policy.cluster.password
    if reference is None:
        return None
    return secrets.resolve(reference, secret_owners(compile_policy(policy)))


def signing(policy: Policy, secrets: Secrets) -> Signing:
    """Return the policy's signing keys, read at first use, and whom it trusts."""
    from drkit.config.compiled import compile_policy
    from drkit.operations.keys import Signing

    compiled = compile_policy(policy)
    signers, keys = signer_sources(compiled, secrets), policy.keys
    trusted, trusted_wal = public_keys(keys.trusted), public_keys(keys.trusted_wal)
    wal_signer = signers.get("wal_signing")
    return Signing(signers["signing"], trusted, wal_signer, trusted_wal)


def rules(policy: Policy) -> Rules:
    """Return what a policy promises and rules, as reports tell it."""
    import hashlib

    from drkit.model.schedule import Every
    from drkit.model.standing import Rules

    every = policy.verification.every
    with open(policy.path, "rb") as file:
        configuration = hashlib.sha256(file.read()).hexdigest()
    return Rules(
        objectives=policy.objectives,
        retention=policy.retention,
        backups=policy.backup.schedule.by_kind(),
        verification=None if every is None else Every(every),
        timezone=policy.backup.timezone,
        configuration=configuration,
        trusted=tuple(policy.keys.trusted),
    )
