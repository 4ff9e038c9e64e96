"""Setting a cluster up: repository, keys, log and policy, in that order.

The policy comes last, so that a run that was interrupted can be run again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.crypto.keys import KEY_BYTES, PURPOSES, format_kek, parse_kek
from drkit.crypto.signing import format_public, format_signing_key, parse_signing_key
from drkit.errors import (
    KeyUnavailable,
    ObjectNotFound,
    PostgresRefused,
    UsageError,
)
from drkit.model.draft import PolicyDraft
from drkit.model.fingerprint import Mode
from drkit.model.log import Open
from drkit.model.log_wal import WalSigners
from drkit.operations.init_advice import init_warnings, is_here
from drkit.operations.init_site import SIGNING, WAL_SIGNING
from drkit.ownership import owner_of
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
from drkit.repository.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drkit.model.owner import Owner
    from drkit.operations.init_site import InitRequest, Site
    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.protocols import Clock
    from drkit.repository.repository import Repository


_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


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
    if is_here(facts):
        return
    raise PostgresRefused(
        f"the server's data directory {facts.data_directory} can't be read here",
        hint="run this on the server's host, as its user or as root; or back up "
        "through a connection: --source stream",
    )


def _owner(facts: ServerFacts, source: str) -> Owner | None:
    """Return whom the repository is for: the server's user runs archive_command.

    Only root can give files away; what another user makes is its own.
    """
    if os.geteuid() != 0 or (source == "stream" and not is_here(facts)):
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
        warnings=tuple(init_warnings(request, facts, site)),
    )
