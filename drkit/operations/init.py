"""Setting a cluster up: repository, keys, log and policy, in that order.

The policy comes last, so that a run that was interrupted can be run again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from drkit.crypto.keys import KEY_BYTES, PURPOSES, format_kek, parse_kek
from drkit.crypto.signing import format_public, format_signing_key, parse_signing_key
from drkit.errors import (
    DrkitError,
    KeyUnavailable,
    ObjectNotFound,
    PostgresRefused,
    UsageError,
)
from drkit.model.draft import PolicyDraft
from drkit.model.fingerprint import Mode
from drkit.model.log import Open
from drkit.model.log_wal import WalSigners
from drkit.ownership import acting_as, owner_of
from drkit.postgres.control import read_control
from drkit.postgres.facts import read_facts
from drkit.postgres.fingerprint_rights import missing_grants
from drkit.postgres.needed import Setting, needed_settings
from drkit.postgres.readiness import (
    OWN_ROLE,
    login_lines,
    making_a_role,
    read_role,
)
from drkit.repository.identity import create_identity, prove_create_only
from drkit.repository.layout import REPOSITORY, Layout
from drkit.rights import user_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.protocols import Clock, Storage
    from drkit.repository.repository import Repository

    Owner = tuple[int, int]  # uid, gid

SIGNING, WAL_SIGNING = "signing", "wal_signing"
_PLAIN_ROLE = re.compile(r"[a-z_][a-z0-9_]*")
_NEWEST_NAMES = 150000  # of functions; which version it is, nobody knows before a login
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Site(Protocol):
    """Where a new policy, its keys and its repository are to be."""

    @property
    def policy_path(self) -> str:
        """Return the absolute path of the policy file."""

    def key_path(self, purpose: str) -> str:
        """Return the absolute path of a key file."""

    def read_key(self, purpose: str, owner: Owner | None) -> str | None:
        """Return what a key file holds; None if there is none.

        Args:
            owner: who may own it beside root and this user.

        Raises:
            KeyUnavailable: it can't be read, or others can, or could have written it.
        """

    def refuse_existing_policy(self) -> None:
        """Raise PolicyError if there is a policy of that name already."""

    def accept(self, draft: PolicyDraft) -> None:
        """Raise PolicyError if the draft would be no valid policy."""

    def create_storage(self, draft: PolicyDraft, owner: Owner | None) -> Storage:
        """Open the repository's store; make its directory if it is one."""

    def open_repository(
        self, draft: PolicyDraft, storage: Storage, lineage: bytes
    ) -> Repository:
        """Open the repository as the draft's policy will."""

    def write_key(self, purpose: str, text: str, owner: Owner | None) -> None:
        """Create a key file that nobody else can read.

        Args:
            owner: the server's user where this is root. Whether the keys become that
                user's says `keeps_keys`.
        """

    def keeps_keys(self) -> bool:
        """Say whether keys stay root's, but for reading what archiving needs."""

    def write_policy(self, draft: PolicyDraft, owner: Owner | None) -> None:
        """Create the policy file."""


@dataclass(frozen=True, slots=True)
class InitRequest:
    """What a person asked for.

    Attributes:
        source: `local` or `stream`.
        password: a reference to where the password is; None if none is needed.
        s3: fields of `repository.s3`, with references for secrets.
        archive_command: what the server will have to run.
    """

    name: str
    url: str
    repository_url: str
    source: str
    password: str | None
    s3: Mapping[str, str]
    archive_command: str


@dataclass(frozen=True, slots=True)
class InitResult:
    """What was made, and what is left to do.

    Attributes:
        created: files that this run wrote.
        kept: key files that were there and are used.
        log_opened: False if the cluster's log was open already.
        grants: SQL that the connection's role still needs.
        role: SQL that makes a role of less rights, where that one is a superuser.
        login: lines for files of the server, by which its user logs in as that role.
    """

    name: str
    policy_path: str
    repository: str
    lineage: str
    system_identifier: str
    server_version: int
    public_key: str
    created: tuple[str, ...]
    kept: tuple[str, ...]
    log_opened: bool
    archive_command: str
    settings: tuple[Setting, ...]
    grants: tuple[str, ...]
    role: tuple[str, ...]
    login: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Keys:
    """The text of every key file; `new` are those that have to be written.

    Attributes:
        public, wal_public: public halves of both signing keys, as policies write them.
    """

    texts: Mapping[str, str]
    new: tuple[str, ...]
    public: str
    wal_public: str


def initialise(
    request: InitRequest, connection: Connection, site: Site, clock: Clock
) -> InitResult:
    """Set a cluster up; what an interrupted run left is used, nothing is replaced.

    Raises:
        UsageError: the name can't be one.
        PostgresRefused: the server is a standby, or another one than the repository's.
        PolicyError: there is such a policy, or it would be wrong.
        KeyUnavailable: the repository knows the cluster, but its keys are not here.
    """
    _refuse_name(request.name)
    site.refuse_existing_policy()
    facts = _look_at(connection, request)
    owner = _owner(facts, request.source)
    keys = _settle_keys(site, owner)
    draft = _draft(request, facts, site, keys)
    site.accept(draft)

    storage = site.create_storage(draft, owner)
    layout = Layout(request.name)
    prove_create_only(storage, layout.probe(os.urandom(16).hex()))
    lineage = create_identity(storage, clock.now())
    repository = site.open_repository(draft, storage, lineage)
    _refuse_lost_keys(repository, keys, site)
    for purpose in keys.new:
        site.write_key(purpose, keys.texts[purpose], owner)
    opened = _open_log(repository, facts, keys)
    site.write_policy(draft, owner)
    return _result(request, connection, facts, site, keys, lineage, opened)


def explain_login(error: PostgresRefused, user: str, source: str) -> PostgresRefused:
    """Return a refused login with what makes the role, should it not be there yet.

    Args:
        user: the role's name.
    """
    name = user if _PLAIN_ROLE.fullmatch(user) else '"' + user.replace('"', '""') + '"'
    statements = " ".join(making_a_role(name, _NEWEST_NAMES, source))
    lines = "; ".join(login_lines(name, source))
    return PostgresRefused(
        error.message,
        hint=f"if there is no such role yet, let a superuser run in that database: "
        f"{statements} For logins through the socket without a password, put in front "
        f"of the other lines: {lines}; then reload the server",
    )


def _refuse_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't be the name of a policy",
            hint="use a-z, 0-9, _ and -, beginning with a letter or a digit",
        )


def _look_at(connection: Connection, request: InitRequest) -> ServerFacts:
    """Return what the server says of itself, if it can be set up from here."""
    try:
        facts = read_facts(connection)
    except PostgresRefused as error:
        grants = (
            *read_role(connection, request.source).statements,
            *missing_grants(connection, Mode.SAMPLED),
        )
        if not grants:
            raise
        raise PostgresRefused(
            error.message, hint=f"let a superuser run: {' '.join(grants)}"
        ) from None
    if facts.in_recovery:
        raise PostgresRefused(
            "the server is a standby, but it is the primary that archives",
            hint="let --url point at the primary; afterwards `cluster.url` in the "
            "policy may point at a standby, and backups are taken from that",
        )
    if request.source == "local":
        _refuse_distant(facts)
    return facts


def _refuse_distant(facts: ServerFacts) -> None:
    """Refuse a server whose files are not on this host, or not readable."""
    if _is_here(facts):
        return
    raise PostgresRefused(
        f"the server's data directory {facts.data_directory} can't be read here",
        hint="run this on the server's host, as its user or as root; or back up "
        "through a connection: --source stream",
    )


def _is_here(facts: ServerFacts) -> bool:
    path = os.path.join(facts.data_directory, "global", "pg_control")
    try:
        with acting_as(owner_of(facts.data_directory)):
            control, _ = read_control(path)
    except (DrkitError, OSError):
        return False
    return control.system_identifier == facts.system_identifier


def _owner(facts: ServerFacts, source: str) -> Owner | None:
    """Return whom the repository is for: the server's user runs archive_command.

    Only root can give files away; what another user makes is its own.
    """
    if os.geteuid() != 0 or (source == "stream" and not _is_here(facts)):
        return None
    return owner_of(facts.data_directory, raising=PostgresRefused)


def _settle_keys(site: Site, owner: Owner | None) -> _Keys:
    """Take the keys that are there, and make up the others; nothing is written."""
    texts: dict[str, str] = {}
    new: list[str] = []
    for purpose in PURPOSES:
        found = site.read_key(purpose, owner)
        if found is None:
            new.append(purpose)
            found = format_kek(purpose, os.urandom(KEY_BYTES))
        parse_kek(found, purpose, site.key_path(purpose))
        texts[purpose] = found
    public = {}
    for purpose in (SIGNING, WAL_SIGNING):
        seed = site.read_key(purpose, owner)
        if seed is None:
            new.append(purpose)
            seed = format_signing_key(os.urandom(KEY_BYTES))
        texts[purpose] = seed
        signer = parse_signing_key(seed, site.key_path(purpose))
        public[purpose] = format_public(signer.public)
    return _Keys(texts, tuple(new), public[SIGNING], public[WAL_SIGNING])


def _draft(
    request: InitRequest, facts: ServerFacts, site: Site, keys: _Keys
) -> PolicyDraft:
    local = request.source == "local"
    return PolicyDraft(
        name=request.name,
        url=request.url,
        data_directory=facts.data_directory if local else None,
        system_identifier=str(facts.system_identifier),
        repository_url=request.repository_url,
        key_paths={purpose: site.key_path(purpose) for purpose in keys.texts},
        public_key=keys.public,
        wal_public_key=keys.wal_public,
        source=request.source,
        password=request.password,
        s3=request.s3,
    )


def _refuse_lost_keys(repository: Repository, keys: _Keys, site: Site) -> None:
    """Refuse new keys for a cluster that was written with others."""
    try:
        repository.storage.size(repository.layout.log_entry(0))
    except ObjectNotFound:
        return
    beginning = keys.new == (WAL_SIGNING,)  # to sign WAL, which was not signed yet
    if not keys.new or (beginning and not repository.log.read().wal_signers):
        return
    paths = ", ".join(site.key_path(purpose) for purpose in keys.new)
    raise KeyUnavailable(
        f"the repository knows a cluster {repository.layout.cluster}, but these keys "
        f"of it are not here: {paths}",
        hint="bring them back from where the copies are kept; to protect another "
        "cluster, choose another name. New keys would not open what is there",
    )


def _open_log(repository: Repository, facts: ServerFacts, keys: _Keys) -> bool:
    """Open the cluster's log; return False if it was open for this cluster already."""
    system = str(facts.system_identifier)
    opened = repository.log.read().opened
    if opened is None:
        entry = Open(repository.layout.cluster, system, facts.wal_segment_size)
        repository.log.append(lambda _: entry)
        repository.log.append(lambda _: WalSigners((keys.wal_public,), ()))
        return True
    if opened.system_identifier != system:
        raise PostgresRefused(
            f"{repository.layout.cluster} at {repository.storage.url} is the cluster "
            f"with system identifier {opened.system_identifier}; this server has "
            f"{system}",
            hint="choose another name for this cluster, or point --url at that one",
        )
    return False


def _result(
    request: InitRequest,
    connection: Connection,
    facts: ServerFacts,
    site: Site,
    keys: _Keys,
    lineage: bytes,
    opened: bool,
) -> InitResult:
    role = read_role(connection, request.source)
    superuser, version = role.superuser, facts.version_num
    return InitResult(
        name=request.name,
        policy_path=site.policy_path,
        repository=request.repository_url,
        lineage=lineage.hex(),
        system_identifier=str(facts.system_identifier),
        server_version=facts.version_num,
        public_key=keys.public,
        created=(*(site.key_path(one) for one in keys.new), site.policy_path),
        kept=tuple(site.key_path(one) for one in keys.texts if one not in keys.new),
        log_opened=opened,
        archive_command=request.archive_command,
        settings=needed_settings(
            connection, request.archive_command, site.policy_path, request.source
        ),
        grants=(
            *role.statements,
            *missing_grants(connection, Mode.SAMPLED),
        ),
        role=making_a_role(OWN_ROLE, version, request.source) if superuser else (),
        login=login_lines(OWN_ROLE, request.source) if superuser else (),
        warnings=tuple(_warnings(request, facts, site)),
    )


def _warnings(request: InitRequest, facts: ServerFacts, site: Site) -> list[str]:
    """Say what may keep archive_command, which runs as the server, from working."""
    folder = os.path.dirname(site.key_path(SIGNING))
    copy = (
        f"keep a copy of the keys in {folder} away from this host: without them no "
        "backup can be read, by anybody"
    )
    found = [copy]
    variables = [text[4:] for text in request.s3.values() if text.startswith("env:")]
    if variables:
        found.append(
            f"the server's environment must hold {' and '.join(variables)} too, for "
            "its archive_command; or put them into files (mode 0600) and refer to "
            "those in the policy"
        )
    if not _is_here(facts):
        found.append(
            "the server is on another host: its archive_command needs drkit, this "
            "policy and its keys there"
        )
        return found
    status = os.stat(facts.data_directory)
    if os.geteuid() not in (0, status.st_uid):
        found.append(
            f"the server runs as uid {status.st_uid}, which can't read the keys that "
            f"uid {os.geteuid()} wrote; let it own them, or its archive_command fails"
        )
    if site.keeps_keys():
        name = user_name(status.st_uid)
        found.append(
            f"the keys belong to root; {name} can read those that archiving needs, and "
            "no other: run backups, restores and verifications as root"
        )
    paths = [site.policy_path, site.key_path(SIGNING)]
    if request.repository_url.startswith("file://"):
        root = request.repository_url.removeprefix("file://").rstrip("/")
        paths.append(os.path.join(root, REPOSITORY))
    for path in paths:
        barrier = _barrier(path, status.st_uid, status.st_gid)
        if barrier is not None:
            found.append(
                f"the server runs as uid {status.st_uid} and may not enter {barrier}, "
                f"so that its archive_command can't get at {path}"
            )
    return found


def _barrier(path: str, uid: int, gid: int) -> str | None:
    """Return the first directory above `path` that its mode closes to a user."""
    parts = os.path.dirname(path).split("/")
    for count in range(2, len(parts) + 1):
        directory = "/".join(parts[:count])
        found = os.stat(directory)
        shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
        if not found.st_mode >> shift & 1:
            return directory
    return None
