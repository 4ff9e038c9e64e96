"""What the tests of backups share: taking one with any store, clock or listener."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from drkit import wiring
from drkit.config.compiled import compile_policy
from drkit.crypto.signing import public_keys
from drkit.model.due import Due
from drkit.model.label import BackupKind
from drkit.operations.backup import take_backup
from drkit.operations.backup_options import BackupOptions
from drkit.operations.discarding import discard
from drkit.operations.fingerprints.of_backup import FingerprintWanted
from drkit.operations.heads import log_standing
from drkit.postgres.connection import connector
from drkit.repository.identity import read_lineage
from drkit.repository.keyring import Keyring
from drkit.repository.layout import REPOSITORY, Layout
from drkit.repository.log import Log
from drkit.repository.log_entries import LogIdentity
from drkit.repository.manifests import read_manifest
from drkit.repository.repository import Repository
from drkit.repository.wal import WalArchive
from drkit.repository.wal_signature import WalSigning, wal_trust
from drkit.sites.source import open_source
from tests.faults import FaultyStorage
from tests.operations.scene import restore as scene_restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from drkit.config.policy import Policy
    from drkit.model.backup import BackupSummary
    from drkit.model.fingerprint import Mode
    from drkit.model.log import AttemptState
    from drkit.model.manifest import Manifest
    from drkit.operations.backup_options import Taken
    from drkit.operations.framers.process import ProcessFramer
    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

SOURCES = ("local", "stream")
KINDS = (*SOURCES, "local+incr")
"""What is taken while something goes wrong; `+incr` is an incremental."""
MOSTLY_LOCAL = ("local", pytest.param("stream", marks=pytest.mark.long))
MOSTLY_STREAM = ("stream", pytest.param("local", marks=pytest.mark.long))
OTHER_HOST = "another-host"


@dataclass
class Listener:
    """A `Progress` that remembers what it was told, and can act on it.

    Attributes:
        at: called when a phase of that name begins. The local source tells "copy"
            after it has listed the files and before it reads the first.
        on_advance: called with every count of bytes, in the thread that read them.
    """

    at: dict[str, Callable[[], object]] = field(default_factory=dict)
    on_advance: Callable[[int], object] | None = None
    phases: list[str] = field(default_factory=list)
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    warnings: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def phase(self, name: str, total: int | None = None) -> None:
        self.phases.append(name)
        if name in self.at:
            self.at[name]()

    def advance(self, count: int) -> None:
        if self.on_advance:
            self.on_advance(count)

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))

    def warning(self, message: str, **fields: object) -> None:
        self.warnings.append((message, fields))


class ShiftedClock(wiring.SystemClock):
    """The machine's clock, wrong by `shift`."""

    def __init__(self, shift: timedelta = timedelta()) -> None:
        self.shift = shift

    def now(self) -> datetime:
        return super().now() + self.shift


@dataclass
class Site:
    """Everything a backup is taken with; what is not given is the real thing."""

    policy: Policy
    storage: FaultyStorage
    clock: wiring.SystemClock = field(default_factory=wiring.SystemClock)
    host: str = ""
    jobs: int = 1
    wal_timeout: timedelta = timedelta(seconds=30)
    fingerprint: Mode | None = None
    framers: Sequence[ProcessFramer] = ()

    def repository(self) -> Repository:
        """Open the repository over this store, clock and host."""
        compiled = compile_policy(self.policy)
        secrets = wiring.Secrets({})
        lineage, layout = read_lineage(self.storage), Layout(compiled["name"])
        sources = wiring.key_sources(compiled, secrets)
        keyring = Keyring(self.storage, layout, lineage, sources)
        host = self.host or wiring.host_name()
        trusted = public_keys(compiled["trusted"])
        signers = wiring.signer_sources(compiled, secrets)
        identity = LogIdentity(host, signers["signing"], trusted)
        log = Log(self.storage, layout, lineage, keyring, identity, self.clock)
        system = compiled["system_identifier"]
        pinned = public_keys(compiled["trusted_wal"])
        signing = WalSigning(
            signers.get("wal_signing"), partial(wal_trust, log, pinned)
        )
        wal = WalArchive(
            self.storage, layout, lineage, keyring, system, signing=signing
        )
        return Repository(self.storage, layout, lineage, keyring, log, wal, self.clock)

    def take(
        self,
        listener: Listener | None = None,
        kind: BackupKind = BackupKind.FULL,
    ) -> BackupSummary:
        """Take a backup as the command line does."""
        return self.taken(listener, kind).summary

    def taken(
        self,
        listener: Listener | None = None,
        kind: BackupKind = BackupKind.FULL,
    ) -> Taken:
        """Take a backup; return all that the operation tells of it."""
        repository = self.repository()
        with closing(open_source(self.policy, wiring.Secrets({}))) as opened:
            options = BackupOptions(
                self.host or wiring.host_name(),
                self.policy.backup.source,
                self.jobs,
                1,
                self.wal_timeout,
                opened.archiver,
                self._wanted(),
                framers=self.framers,
            )
            return take_backup(
                repository,
                opened.present,
                opened.source,
                Due(kind, "asked for"),
                options,
                listener or Listener(),
            )

    def _wanted(self) -> FingerprintWanted | None:
        if self.fingerprint is None:
            return None
        connect = connector(self.policy.cluster.url, None, "fingerprint")
        return FingerprintWanted(self.fingerprint, connect)

    def manifest(self, label: str) -> Manifest:
        """Read a backup's manifest."""
        repository = self.repository()
        return read_manifest(repository, repository.find(label).manifest)


def site(protected: Protected, source: str | None = None, **options: Any) -> Site:
    """Return a site over a protected cluster's own repository."""
    return site_of(protected.policy(), source, **options)


def site_of(policy: Policy, source: str | None = None, **options: Any) -> Site:
    """Return a site as a policy says, but for the source."""
    if source is not None:
        source = source.partition("+")[0]
        policy = replace(policy, backup=replace(policy.backup, source=source))
    bare = wiring.bare_storage(compile_policy(policy), wiring.Secrets({}))
    return Site(policy, FaultyStorage(bare), **options)


def difference_from_log(site: Site) -> tuple[set[str], set[str]]:
    """Hold the store against the log.

    Returns:
        Objects that nothing accounts for, and objects that should be there and aren't.
    """
    repository = site.repository()
    layout, storage = repository.layout, repository.storage
    state = repository.log.read()
    entries = {layout.log_entry(one.sequence) for one in repository.log.entries}
    expected = {REPOSITORY} | entries
    keys = {("catalog", key) for key in repository.log.key_ids}
    for commit in state.backups.values():
        manifest = read_manifest(repository, commit.manifest)
        expected.add(commit.manifest.name)
        if manifest.head.fingerprint is not None:
            expected.add(manifest.head.fingerprint.name)
        expected |= {
            layout.pack(commit.backup.label, commit.attempt, number)
            for number in range(len(manifest.packs))
        }
        begin = state.attempts[commit.attempt].begin
        keys |= {(purpose, bytes.fromhex(key)) for purpose, key in begin.keys}
    there = {info.name for info in storage.list("")}
    wal = {name for name in there if name.split("/")[1:2] in (["wal"], ["wal-days"])}
    for name in wal:
        if name.split("/")[1] == "wal-days":
            keys.add(("wal", bytes.fromhex(storage.get(name).decode())))
    expected |= {layout.dek_generation(purpose, key, 1) for purpose, key in keys}
    return there - wal - expected, expected - there


def assert_tidy(site: Site) -> None:
    """Fail unless the store holds exactly what the log accounts for."""
    running = site.repository().log.read().running()
    assert running == [], f"{running} are neither committed nor abandoned"
    difference = difference_from_log(site)
    assert difference == (set(), set()), f"left over, lacking: {difference}"


def discard_whole(site: Site) -> list[str]:
    """Do what is left to a person: delete whole backups that have no commit."""
    repository = site.repository()
    labels = log_standing(repository).uncommitted
    for label in labels:
        discard(repository, label, Listener())
    return list(labels)


def attempts(site: Site) -> list[AttemptState]:
    """Return what became of each attempt, oldest first."""
    return [one.state for one in site.repository().log.read().attempts.values()]


def sessions_of_drkit(cluster: Cluster) -> int:
    """Count the server's sessions of drkit, walsenders included."""
    count: int = cluster.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'drkit%'"
    )
    return count


def assert_not_in_backup(cluster: Cluster) -> None:
    """Fail unless all sessions of drkit end soon: a backup lives in its session."""
    waited = threading.Event()
    for _ in range(100):
        if sessions_of_drkit(cluster) == 0:
            return
        waited.wait(0.05)
    raise AssertionError("a session of drkit is still there")


@contextmanager
def restored(
    scene: Scene, protected: Protected, *options: str | Path
) -> Iterator[Cluster]:
    """Restore into a new directory and serve it until the block ends."""
    target = scene.target()
    scene_restore(protected, target, *options)
    cluster = scene.start(target, protected.cluster.binaries.major)
    try:
        yield cluster
    finally:
        cluster.stop("immediate")


_FINGERPRINT = """
    CREATE FUNCTION pg_temp.content(relation regclass) RETURNS text
    LANGUAGE plpgsql AS $$
    DECLARE found text;
    BEGIN
        EXECUTE format('SELECT count(*) || '':'' ||
            coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM %s AS t',
            relation) INTO found;
        RETURN found;
    END $$;
    SELECT n.nspname::text, c.relname::text, c.relkind::text,
        CASE WHEN relkind IN ('r', 'm') AND relpersistence = 'p'
            THEN pg_temp.content(c.oid) END
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE nspname !~ '^pg_(temp|toast)' AND nspname <> 'information_schema'
        AND (nspname <> 'pg_catalog' OR relname IN ('pg_largeobject', 'pg_description'))
    ORDER BY 1, 2, 3
"""
_GLOBAL = """
    SELECT 'role', rolname::text FROM pg_roles
    UNION ALL SELECT 'prepared', gid FROM pg_prepared_xacts
    UNION ALL SELECT 'tablespace', spcname::text FROM pg_tablespace
    ORDER BY 1, 2
"""


def content(cluster: Cluster) -> dict[str, list[tuple[Any, ...]]]:
    """Return what a cluster holds: every relation of every database, by its rows."""
    databases = cluster.rows("SELECT datname FROM pg_database WHERE datallowconn")
    found = {name: cluster.rows(_FINGERPRINT, name) for (name,) in databases}
    return found | {"": cluster.rows(_GLOBAL)}
