"""What `check` looks at on the server's side, one thing per function."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from drkit.errors import PostgresRefused, SourceUnreadable, StorageError, WalMissing
from drkit.model.duration import format_duration
from drkit.model.finding import Finding, failed, ok, skipped, warning
from drkit.model.fingerprint import Mode
from drkit.model.wal import WalFileName, segment_at
from drkit.operations.heartbeat import read_beat
from drkit.operations.rpo import allowed_age
from drkit.postgres.control import read_control
from drkit.postgres.fingerprint_rights import missing_grants
from drkit.postgres.needed import Need, needed_settings
from drkit.postgres.readiness import (
    database_bytes,
    read_archiver,
    read_role,
    server_time,
    setting_values,
)
from drkit.postgres.transport import read_transport
from drkit.postgres.walfile import MAJOR_VERSIONS
from drkit.rights import run_as_owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drkit.model.wal import Segment
    from drkit.operations.keys import Signing
    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.postgres.needed import Setting
    from drkit.protocols import Clock
    from drkit.repository.repository import Repository

_CLOCKS_APART = timedelta(seconds=5)
_SAFE = {
    "fsync": "a crash of the host can destroy the cluster",
    "full_page_writes": "pages that a crash tore can't be repaired",
}
_OF_THE_PRIMARY = frozenset(
    {
        "archive_mode",
        "archive_command",
        "archive_library",
        "wal_level",
        "full_page_writes",
    }
)
_RECENT = 8  # segments; an archiver that is further behind is as good as none


def check_transport(connection: Connection, source: str) -> Finding:
    """Look at who can listen to what goes between here and the server, or forge it."""
    way = read_transport(connection.pgconn)
    what = "whole backups, " if source == "stream" else ""
    if way.tells:
        return warning(
            "connection",
            f"{way.place}: require_auth gives the password to whoever answers there",
            "take require_auth out of cluster.url, or add sslmode=verify-full",
        )
    if way.verified or way.local:
        how = "TLS, and its certificate is verified" if way.verified else "this host"
        return ok("connection", f"{way.place}: {how}")
    how = "through TLS, but to whoever answers" if way.encrypted else "in clear"
    return warning(
        "connection",
        f"{way.place}: {what}what drkit asks and is answered goes over the network "
        f"{how}",
        "let cluster.url say sslmode=verify-full and sslrootcert",
    )


def check_rights(connection: Connection, source: str) -> Finding:
    """Look at what the connection's role may do."""
    role = read_role(connection, source)
    if role.statements:
        error = PostgresRefused(
            f"the role {role.name} lacks rights that a backup needs",
            hint=f"let a superuser run: {' '.join(role.statements)}",
        )
        return failed("rights", error)
    what = "which may do all that is needed"
    if role.superuser:
        what = "a superuser; README.md has a role with less rights that would do"
    return ok("rights", f"{role.name}, {what}")


def check_fingerprint(connection: Connection, mode: Mode) -> Finding:
    """Look whether the connection's role may take the fingerprints that are wanted."""
    grants = missing_grants(connection, mode)
    if not grants:
        return ok("fingerprint", f"{mode}, and the role may read all that is in it")
    effect = "lack tables that the role may not read"
    if mode is Mode.EXACT:
        effect += ", or are sampled where it may not lock them"
    return warning(
        "fingerprint",
        f"{mode} ones are wanted; without more rights they {effect}",
        f"let a superuser run: {' '.join(grants)}",
    )


def check_signatures(repository: Repository, signing: Signing) -> Finding:
    """Look whether WAL is signed, and whether everybody insists on it."""
    name, state = "WAL signatures", repository.log.state
    signers = ", ".join(sorted(state.wal_signers))
    if not signing.trusted_wal and state.wal_signed is None:
        return warning(
            name,
            "WAL is not signed, so whoever has its key could change it",
            f"make a key for that: drkit keys sign-wal {repository.layout.cluster}",
        )
    if not signing.trusted_wal:
        return warning(
            name,
            "the policy pins no key, so `wal get` on this host takes unsigned WAL",
            f"add to the policy's keys: trusted_wal: [{signers}]",
        )
    if state.wal_signed is None:
        return warning(
            name,
            "WAL is signed, but the log does not yet say that it must be",
            "take a backup; the first one whose WAL is all signed says so",
        )
    older = ", ".join(name for _, name in sorted(state.wal_signed.items()))
    return ok(
        name,
        f"all WAL must be signed; older than that is what precedes {older}"
        if older
        else "all WAL must be signed",
    )


def check_version(facts: ServerFacts) -> Finding:
    """Look at the server's version; say whether it is a primary or a standby."""
    newest = max(MAJOR_VERSIONS.values())
    if facts.major_version > newest:
        error = PostgresRefused(
            f"PostgreSQL {facts.major_version} is newer than this drkit knows",
            hint=f"upgrade drkit; this one handles 13 to {newest}",
        )
        return failed("server", error)
    kind = "a standby on" if facts.in_recovery else "a primary on"
    found = f"PostgreSQL {facts.major_version}, {kind} timeline {facts.timeline}"
    return ok("server", found)


def check_identity(facts: ServerFacts, system_identifier: str) -> Finding:
    """Look whether this is the policy's cluster."""
    name = "system identifier"
    if str(facts.system_identifier) == system_identifier:
        return ok(name, system_identifier)
    error = PostgresRefused(
        f"the server has {facts.system_identifier}, the policy says "
        f"{system_identifier}",
        hint="the URL points at another cluster, or this one was upgraded or made "
        "anew; then set it up under a name of its own",
    )
    return failed(name, error)


def check_settings(
    connection: Connection,
    command: str,
    policy_path: str,
    source: str,
    *,
    standby: bool,
) -> Iterator[Finding]:
    """Look at the settings that archiving and the safety of the data depend on.

    Those that only matter where WAL is written or archived are left out on a standby.
    """
    values = setting_values(connection, (*_SAFE, "data_checksums", "archive_mode"))
    elsewhere: frozenset[str] = frozenset()
    if standby and values["archive_mode"] != "always":
        elsewhere = _OF_THE_PRIMARY
    for one in needed_settings(connection, command, policy_path, source):
        if one.need is not Need.SUGGESTED and one.name not in elsewhere:
            yield _setting(one)
    yield from _safety(values, elsewhere)


def _safety(values: Mapping[str, str], elsewhere: frozenset[str]) -> Iterator[Finding]:
    """Look at what endangers the data, though backups go on."""
    for name, danger in _SAFE.items():
        if name in elsewhere:
            continue
        if values[name] == "off":
            yield warning(name, f"is off: {danger}", f"ALTER SYSTEM SET {name} = on;")
        else:
            yield ok(name, values[name])
    if values["data_checksums"] == "on":
        yield ok("data_checksums", "on")
    else:
        yield warning(
            "data_checksums",
            "is off: a backup can't tell damaged pages",
            "stop the server and run: pg_checksums --enable",
        )


def _setting(one: Setting) -> Finding:
    shown = one.current or "(empty)"
    if one.need is Need.RIGHT:
        return ok(one.name, shown)
    how = "restart the server" if one.restart else "SELECT pg_reload_conf();"
    error = PostgresRefused(
        f"is {shown}: {one.reason}", hint=f"{one.statement} Then: {how}"
    )
    return failed(one.name, error)


def check_data_directory(
    directory: str, system_identifier: str, facts: ServerFacts | None
) -> Finding:
    """Look whether the local source can read the cluster's files, and the right ones.

    Raises:
        SourceUnreadable: it can't.
        PostgresRefused: they are another cluster's.
    """
    control, _ = read_control(os.path.join(directory, "global", "pg_control"))
    if str(control.system_identifier) != system_identifier:
        raise PostgresRefused(
            f"{directory} belongs to system identifier {control.system_identifier}",
            hint="correct cluster.data_directory in the policy",
        )
    if facts is not None and not _same(directory, facts.data_directory):
        raise PostgresRefused(
            f"the server's data directory is {facts.data_directory}, the policy says "
            f"{directory}",
            hint="correct cluster.data_directory in the policy",
        )
    for path in (directory, os.path.join(directory, "base")):
        if not os.access(path, os.R_OK | os.X_OK):
            raise SourceUnreadable(
                f"{path} can't be read by uid {os.geteuid()}",
                hint=run_as_owner(path),
            )
    return ok("data directory", f"{directory} can be read")


def _same(first: str, second: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(first, second)
    return False


def check_disk(root: str, connection: Connection | None) -> Finding:
    """Look whether a local repository has room for the next full backup.

    Raises:
        StorageError: the directory can't be looked at.
    """
    name = "disk space"
    try:
        system = os.statvfs(root)
    except OSError as error:
        message = f"{root} can't be looked at: {error.strerror}"
        raise StorageError(message) from error
    free = system.f_bavail * system.f_frsize
    detail = f"{_gigabytes(free)} free in {root}"
    if connection is None:
        return ok(name, detail)
    wanted = database_bytes(connection)
    detail += f"; the databases have {_gigabytes(wanted)} before compression"
    if free < wanted:
        hint = "the next full backup may not fit: enlarge the file system"
        return warning(name, detail, hint)
    return ok(name, detail)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def check_clock(connection: Connection, clock: Clock) -> Finding:
    """Compare this host's wall clock with the server's."""
    before = clock.now()
    there = server_time(connection)
    here = before + (clock.now() - before) / 2
    apart = abs(there - here)
    detail = f"this host and the server are {apart.total_seconds():.1f} s apart"
    if apart > _CLOCKS_APART:
        hint = "set both clocks by NTP: recovery targets are times of the server"
        return warning("clock", detail, hint)
    return ok("clock", detail)


def check_archiver(connection: Connection) -> Finding:
    """Look at what the server's archiver did last."""
    status = read_archiver(connection)
    if status.failing:
        hint = "the server's log holds what archive_command printed"
        return warning("archiver", str(status), hint)
    return ok("archiver", str(status))


def check_heartbeat(
    connection: Connection, every: timedelta, objective: timedelta | None
) -> Finding:
    """Look whether the heartbeat is kept up; on a standby, whether it arrives.

    Raises:
        PostgresRefused: there is something else in its place, or it can't be read.
    """
    name, set_up = "heartbeat", "make one: drkit heartbeat POLICY --create"
    beat = read_beat(connection)
    if beat is None and objective is None:
        return skipped(name, f"there is none, so RPO can't be proven; {set_up}")
    if beat is None:
        return warning(name, "there is none to prove objectives.rpo by", set_up)
    age = max(server_time(connection) - beat.written_at, timedelta(0))
    detail = f"the newest is {format_duration(age)} old"
    if age <= allowed_age(every):
        return ok(name, detail)
    return warning(
        name,
        f"{detail}, though one is due every {format_duration(every)}",
        "look at the timer that runs `drkit heartbeat`, or set heartbeat.every to how "
        "often it does",
    )


def check_arrivals(repository: Repository, facts: ServerFacts) -> Finding:
    """Look whether the WAL that a standby has replayed is in the repository.

    Its primary archives, and can't be asked; what arrives tells.
    """
    name, size = "archiving", facts.wal_segment_size
    recent = list(_before(segment_at(facts.current_lsn, facts.timeline, size)))
    if not recent:
        return ok(name, "no WAL segment is complete yet")
    replayed = recent[0].name(size)
    newest = next((one for one in recent if _archived(repository, one, size)), None)
    if newest is None:
        error = WalMissing(
            f"the standby has replayed {replayed}, but neither that nor the segments "
            "before it are in the repository",
            hint="the primary must archive into it: run `drkit check` there",
        )
        return failed(name, error)
    if newest == recent[0]:
        return ok(name, f"{replayed}, the last one that was replayed, is archived")
    return warning(
        name,
        f"the standby has replayed {replayed}, archived is {newest.name(size)} at last",
        "if this lasts, look at the archiver of the primary",
    )


def _before(segment: Segment) -> Iterator[Segment]:
    """Yield the segments that precede one, the nearest first."""
    for number in range(segment.number - 1, segment.number - 1 - _RECENT, -1):
        if number > 0:  # there is no segment 0
            yield segment._replace(number=number)


def _archived(repository: Repository, segment: Segment, size: int) -> bool:
    """Say whether a segment is archived, of its timeline or of one before."""
    names = (
        segment._replace(timeline=timeline).name(size)
        for timeline in range(segment.timeline, 0, -1)
    )
    return any(repository.wal.has(WalFileName.parse(name)) for name in names)
