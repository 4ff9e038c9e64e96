"""The WAL that makes a backup consistent: what it is, and that it stays that.

What each segment is, its signature says, so none of them is fetched for it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

from drkit.crypto.signing import format_public
from drkit.errors import Corrupt, DrkitError, NotFound, WalRefused
from drkit.model.backup import WalRange
from drkit.model.log_wal import WalSigners
from drkit.model.wal import (
    Segment,
    WalFileKind,
    WalFileName,
    parse_segment,
    segment_at,
    segments_between,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.backup import BackupSummary
    from drkit.model.log import LogState
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository


class BackupWal:
    """Takes in the segments of a backup, in order, as they are archived.

    Args:
        pg_wal: where the server that wrote them has the newest of them; None if that
            can't be read, or is not where they were written.
    """

    def __init__(self, repository: Repository, pg_wal: str | None) -> None:
        self._archive = repository.wal
        self._pg_wal = pg_wal
        self._digest = hashlib.sha256()
        self._segments = 0
        self._all_signed = bool(self._archive.trust().trusted)

    def add(self, file: WalFileName) -> None:
        """Take in an archived segment.

        Raises:
            Corrupt: it must be signed, and is not.
            WalRefused: it is not what the server wrote.
        """
        signed = self._archive.signature(file) if self._all_signed else None
        if signed is None:
            self._all_signed = False
            return
        if self._pg_wal is not None:
            _refuse_another(file, signed.digest, self._pg_wal)
        self._digest.update(file.name.encode() + signed.digest)
        self._segments += 1

    def found(self) -> WalRange | None:
        """Return what they all are; None if one is not signed."""
        if not self._all_signed:
            return None
        return WalRange(self._segments, self._digest.hexdigest())


def refuse_changed_wal(repository: Repository, backup: BackupSummary) -> None:
    """Refuse a backup whose WAL is another than when it ended, though it is signed.

    Raises:
        Corrupt: it is, or is not signed any more.
        NotFound: some of it is missing.
    """
    if backup.wal is None:
        return
    looked = BackupWal(repository, None)
    for segment in own_segments(backup):
        looked.add(WalFileName.parse(segment.name(backup.wal_segment_size)))
    if looked.found() != backup.wal:
        first = next(own_segments(backup)).name(backup.wal_segment_size)
        raise Corrupt(
            f"the {backup.wal.segments} WAL segments from {first} on are not those "
            f"that were archived when backup {backup.label} ended",
            hint="who changed them can sign WAL, so look at the hosts that archive; "
            "choose another backup, or an intact copy of the repository",
        )


def own_segments(backup: BackupSummary) -> Iterator[Segment]:
    """Yield the segments that make a backup consistent, in order."""
    size = backup.wal_segment_size
    place = (backup.start_lsn, backup.stop_lsn, backup.timeline, size)
    return segments_between(*place)


def demand_signatures(
    repository: Repository, backup: BackupSummary, progress: Progress
) -> None:
    """Write into the log that WAL must be signed, once a backup's own all was.

    What was archived before is let be; see docs/repository-format.md, "Signed WAL".
    """
    if backup.wal is None or repository.log.state.wal_signed is not None:
        return
    try:
        since = _demand(repository, backup)
    except DrkitError as error:
        progress.warning(
            "the log does not say yet that WAL must be signed; the next backup will",
            error=str(error),
        )
    else:
        progress.event("WAL must be signed from here on", since=", ".join(since))


def _demand(repository: Repository, backup: BackupSummary) -> tuple[str, ...]:
    """Write the entry; return the first segments that must be signed."""
    since = tuple(_since(repository, backup))
    signers = tuple(sorted(map(format_public, repository.wal.trust().trusted)))

    def decide(state: LogState) -> WalSigners:
        known = state.wal_signed  # of another host, which came first: add the signers
        return WalSigners(signers, since if known is None else ())

    repository.log.append(decide)
    return since


def _since(repository: Repository, backup: BackupSummary) -> Iterator[str]:
    """Yield the first segment that must be signed, of each timeline with older WAL."""
    size = backup.wal_segment_size
    files: dict[int, list[WalFileName]] = {}
    for stored in (*repository.wal.histories(), *repository.wal.list()):
        files.setdefault(stored.file.timeline, []).append(stored.file)
    for timeline, archived in sorted(files.items()):
        if timeline == backup.timeline:
            yield segment_at(backup.start_lsn, timeline, size).name(size)
        else:
            yield _behind_unsigned(repository, timeline, archived, size)


def _behind_unsigned(
    repository: Repository, timeline: int, archived: list[WalFileName], size: int
) -> str:
    """Return the name of the first segment behind a timeline's newest unsigned file."""
    for file in reversed(archived):
        if file.kind is WalFileKind.HISTORY:
            break
        if not _signed(repository, file):
            return parse_segment(file.name[:24], size).next().name(size)
    return Segment(timeline, 0).name(size)


def _signed(repository: Repository, file: WalFileName) -> bool:
    try:
        return repository.wal.signature(file) is not None
    except (Corrupt, NotFound):
        return False  # as good as unsigned: it proves nothing of what is before it


def _refuse_another(file: WalFileName, digest: bytes, pg_wal: str) -> None:
    written = _written(os.path.join(pg_wal, file.name))
    if written not in (None, digest):
        raise WalRefused(
            f"what is archived as {file.name} is not what the server wrote, so the "
            "backup can't be restored and was given up",
            hint="does another server archive under this policy? Give each its own; "
            "`drkit check` shows whether this one's WAL arrives",
        )


def _written(path: str) -> bytes | None:
    """Return the SHA-256 of a segment as the server has it; None if it has it no more.

    The server may give the file to a later segment at any time, under another name.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as opened:
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode):
                return None
            digest = hashlib.file_digest(opened, "sha256").digest()
        return digest if os.path.samestat(found, os.lstat(path)) else None
    except OSError:
        return None
