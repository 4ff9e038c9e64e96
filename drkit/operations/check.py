"""Preflight: is everything there that a backup and a restore will need?

Every check runs, whatever others found; one that can't run without what is missing
says so.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, DrkitError, PostgresRefused
from drkit.model.finding import Finding, State, failed, ok, skipped, warning
from drkit.operations import preflight
from drkit.operations.heads import log_standing
from drkit.operations.keys import Signing, check_keys
from drkit.operations.roundtrip import wal_round_trip
from drkit.operations.verifying.evidence import check_evidence
from drkit.postgres.facts import read_facts
from drkit.repository.identity import prove_create_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from drkit.model.fingerprint import Mode
    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.protocols import Clock, Progress
    from drkit.repository.repository import Repository

    Look = Callable[["Subject", "_Found"], Iterator[Finding]]

_NO_REPOSITORY = "the repository was not opened"
_NO_LOG = "the log could not be read"
_NO_SERVER = "the server was not reached"
_STATE_HINT = (
    "without it nobody here can tell a repository that was put back to an older state: "
    "let DRKIT_STATE_DIR name a directory that belongs to this user, or to root, and "
    "that nobody else can write to"
)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The heartbeat that the policy asks for.

    Attributes:
        connect: opens a session in its database.
        objective: the RPO that it is to prove, if there is one.
    """

    connect: Callable[[], Connection]
    every: timedelta
    objective: timedelta | None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked; each part is opened by its own check, for it may fail.

    Attributes:
        replicate: opens a replication connection and closes it; None where backups
            don't take one.
        local_root: the directory of a local repository; None for any other.
        data_directory: where the source reads files; None where it is streamed.
        archive_command: what the server should run.
        timeout: how long the round trip may take.
        fingerprint: which ones backups take along; None: none.
    """

    system_identifier: str
    source: str
    policy_path: str
    repository: Callable[[], Repository]
    signing: Signing
    connect: Callable[[], Connection]
    heartbeat: Heartbeat
    replicate: Callable[[], None] | None
    local_root: str | None
    data_directory: str | None
    archive_command: str
    timeout: timedelta
    clock: Clock
    fingerprint: Mode | None = None


@dataclass(slots=True)
class _Found:
    """What earlier checks found out and later ones build on."""

    repository: Repository | None = None
    connection: Connection | None = None
    facts: ServerFacts | None = None
    findings: list[Finding] = field(default_factory=list)


def check(subject: Subject, progress: Progress) -> tuple[Finding, ...]:
    """Check everything; return a finding for each thing that was looked at."""
    found = _Found()
    try:
        for name, look in _CHECKS.items():
            progress.phase(f"check {name}")
            _add(found, name, look(subject, found))
    finally:
        if found.connection is not None:
            found.connection.close()
    return tuple(found.findings)


def _add(found: _Found, name: str, findings: Iterator[Finding]) -> None:
    """Take the findings of one check, and what stopped it as the last of them."""
    try:
        # What was found before an error stays in the list.
        found.findings.extend(findings)
    except DrkitError as error:
        found.findings.append(failed(name, error))


def _repository(subject: Subject, found: _Found) -> Iterator[Finding]:
    repository = subject.repository()
    found.repository = repository
    lineage = repository.lineage.hex()
    yield ok("repository", f"{repository.storage.url}, lineage {lineage}")


def _create_only(_: Subject, found: _Found) -> Iterator[Finding]:
    if found.repository is None:
        yield skipped("create-only", _NO_REPOSITORY)
        return
    repository = found.repository
    probe = repository.layout.probe(os.urandom(16).hex())
    prove_create_only(repository.storage, probe)
    yield ok("create-only", "a second write of a name is refused")


def _keys(subject: Subject, found: _Found) -> Iterator[Finding]:
    """Try log and keys; those that open what they should are told in one line."""
    if found.repository is None:
        yield skipped("keys", _NO_REPOSITORY)
        return
    findings = check_keys(found.repository, subject.signing)
    opened = found.repository.log.state.opened
    if opened is not None and opened.system_identifier != subject.system_identifier:
        error = PostgresRefused(
            f"the log is of system identifier {opened.system_identifier}, the policy "
            f"of {subject.system_identifier}",
            hint="this cluster was made anew or is another one: protect it under a "
            "name of its own",
        )
        yield failed("system identifier of the log", error)
    yield from (one for one in findings if one.name == "log")
    keys = [one for one in findings if one.name != "log"]
    wrong = [one for one in keys if one.state is not State.OK]
    yield from wrong
    if not wrong:
        own = sum(one.name.startswith("keys.") for one in keys)
        data = len(keys) - own
        yield ok(
            "keys", f"all {own} of the policy are there and open all {data} data keys"
        )


def _head(_: Subject, found: _Found) -> Iterator[Finding]:
    """Hold the log's head against what is known of it; the log must be readable."""
    name = "log's head"
    if found.repository is None:
        yield skipped(name, _NO_REPOSITORY)
        return
    if _log_is_unreadable(found):
        yield skipped(name, _NO_LOG)
        return
    standing = log_standing(found.repository)
    for alarm in standing.alarms:
        yield failed(name, alarm)
    cluster = found.repository.layout.cluster
    for label in standing.uncommitted:
        yield warning(
            name,
            f"{label} is stored and whole, but the log has no commit of it",
            "its backup died just before it, or newer log entries are gone; to delete "
            f"it: drkit discard {cluster} {label}",
        )
    for note in standing.notes:
        yield warning(name, note)
    memory = found.repository.log.guard.memory
    if memory.problem is not None:
        yield warning(name, memory.problem, _STATE_HINT)
    elif not standing.alarms:
        yield ok(name, f"{standing.head}, and this host remembers it")


def _signatures(subject: Subject, found: _Found) -> Iterator[Finding]:
    name = "WAL signatures"
    if found.repository is None:
        yield skipped(name, _NO_REPOSITORY)
    elif _log_is_unreadable(found):
        yield skipped(name, _NO_LOG)
    else:
        yield preflight.check_signatures(found.repository, subject.signing)


def _evidence(_: Subject, found: _Found) -> Iterator[Finding]:
    """Hold the chain of evidence against the log, which must be readable."""
    if found.repository is None:
        yield skipped("evidence", _NO_REPOSITORY)
        return
    if _log_is_unreadable(found):
        yield skipped("evidence", _NO_LOG)
        return
    damage, passed = check_evidence(found.repository)
    if passed:
        yield warning("evidence", "; ".join(passed))
    if damage is None:
        count = len(found.repository.log.state.evidence)
        yield ok(
            "evidence", f"{count} records, all there and each behind the one before"
        )
    else:
        hint = (
            "`drkit drill list` tells everything; restore what is missing from a copy"
        )
        yield failed("evidence", Corrupt(f"{damage.name} {damage.what}", hint=hint))


def _log_is_unreadable(found: _Found) -> bool:
    return any(
        one.name == "log" and one.state in (State.FAILED, State.SKIPPED)
        for one in found.findings
    )


def _server(subject: Subject, found: _Found) -> Iterator[Finding]:
    found.connection = subject.connect()
    yield preflight.check_transport(found.connection, subject.source)
    yield preflight.check_rights(found.connection, subject.source)
    if subject.fingerprint is not None:
        yield preflight.check_fingerprint(found.connection, subject.fingerprint)
    found.facts = read_facts(found.connection)
    yield preflight.check_version(found.facts)
    yield preflight.check_identity(found.facts, subject.system_identifier)


def _settings(subject: Subject, found: _Found) -> Iterator[Finding]:
    if found.connection is None:
        yield skipped("settings", _NO_SERVER)
        return
    yield from preflight.check_settings(
        found.connection,
        subject.archive_command,
        subject.policy_path,
        subject.source,
        standby=found.facts is not None and found.facts.in_recovery,
    )


def _data_directory(subject: Subject, found: _Found) -> Iterator[Finding]:
    if subject.data_directory is not None:
        yield preflight.check_data_directory(
            subject.data_directory, subject.system_identifier, found.facts
        )


def _replication(subject: Subject, _: _Found) -> Iterator[Finding]:
    if subject.replicate is not None:
        subject.replicate()
        yield ok("replication", "a replication connection can be opened")


def _disk(subject: Subject, found: _Found) -> Iterator[Finding]:
    if subject.local_root is not None:
        yield preflight.check_disk(subject.local_root, found.connection)


def _clock(subject: Subject, found: _Found) -> Iterator[Finding]:
    if found.connection is None:
        yield skipped("clock", _NO_SERVER)
        return
    yield preflight.check_clock(found.connection, subject.clock)


def _archiver(_: Subject, found: _Found) -> Iterator[Finding]:
    if found.connection is None:
        yield skipped("archiver", _NO_SERVER)
    elif found.facts is None or not found.facts.in_recovery:
        yield preflight.check_archiver(found.connection)
    elif found.repository is None:
        yield skipped("archiving", _NO_REPOSITORY)
    else:
        yield preflight.check_arrivals(found.repository, found.facts)


def _heartbeat(subject: Subject, found: _Found) -> Iterator[Finding]:
    if found.connection is None:
        yield skipped("heartbeat", _NO_SERVER)
        return
    wanted = subject.heartbeat
    with closing(wanted.connect()) as connection:
        yield preflight.check_heartbeat(connection, wanted.every, wanted.objective)


def _round_trip(subject: Subject, found: _Found) -> Iterator[Finding]:
    name = "WAL round trip"
    if found.repository is None:
        yield skipped(name, _NO_REPOSITORY)
        return
    if found.connection is None or found.facts is None:
        yield skipped(name, _NO_SERVER)
        return
    obstacle = _obstacle(subject, found.facts)
    if obstacle is not None:
        yield skipped(name, obstacle)
        return
    trip = wal_round_trip(found.repository, found.connection, subject.timeout)
    yield ok(
        name,
        f"{trip.segment} was archived after {trip.seconds:.1f} s and came back right",
    )


def _obstacle(subject: Subject, facts: ServerFacts) -> str | None:
    """Say why no segment can come back, however long one waits."""
    obstacles = {
        "a standby writes no WAL": facts.in_recovery,
        "archive_mode is off": facts.archive_mode == "off",
        "archive_command is empty": not (
            facts.archive_command or facts.archive_library
        ),
        "archive_command does not run drkit": "drkit" not in facts.archive_command
        and not facts.archive_library,
        "the server is not the policy's": str(facts.system_identifier)
        != subject.system_identifier,
    }
    return next((why for why, holds in obstacles.items() if holds), None)


_CHECKS: dict[str, Look] = {
    "repository": _repository,
    "create-only": _create_only,
    "keys": _keys,
    "log's head": _head,
    "WAL signatures": _signatures,
    "evidence": _evidence,
    "server": _server,
    "settings": _settings,
    "data directory": _data_directory,
    "replication": _replication,
    "disk space": _disk,
    "clock": _clock,
    "archiver": _archiver,
    "heartbeat": _heartbeat,
    "WAL round trip": _round_trip,
}
