"""The control file `global/pg_control`: what a cluster knows about itself.

Source of the layouts: `src/include/catalog/pg_control.h` of PostgreSQL 13 to 18. All
hold the same fields at the same offsets up to `data_checksum_version`; version 18 then
added `default_char_signedness`, which moves the checksum that ends the data. (It also
put the checkpoint's `wal_level` into what was padding.) Integers have the byte order of
the machine; drkit reads little-endian clusters.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from drkit.errors import Corrupt, PostgresRefused, SourceUnreadable
from drkit.model.lsn import Lsn
from drkit.postgres.crc32c import crc32c
from drkit.postgres.files import read_regular
from drkit.rights import run_as_owner

FILE_SIZE = 8192
"""What the server always writes (`PG_CONTROL_FILE_SIZE`), padded with zeros."""

_CRC_OFFSETS = {1300: 288, 1700: 288, 1800: 292}  # 1300 is of versions 13 to 16
_CHECKPOINT_OFFSET = 32
_ATTEMPTS = 200
_PAUSE = 0.01

# `=` means no implicit padding; every `x` is padding of the C structure.
_HEAD = struct.Struct("<QIIi4xqQ")  # ControlFileData up to checkPoint
_CHECKPOINT = struct.Struct("<QIIB7xQIIIIIII4xqIII4x")  # its checkPointCopy
_REST = struct.Struct("<QQI4xQQB3xiB3xiiiiiB3xIdIIIIIIIIB3xI")  # the rest

# In segment 0, where no cluster has WAL: servers begin with segment 1. The offset in
# its page is one at which a record could begin: the server checks that at every start.
IMPOSSIBLE_CHECKPOINT = Lsn(0x28)


class ClusterState(IntEnum):
    """`DBState`: what the server was doing when it last wrote the control file."""

    STARTUP = 0
    SHUT_DOWN = 1
    SHUT_DOWN_IN_RECOVERY = 2
    SHUTTING_DOWN = 3
    IN_CRASH_RECOVERY = 4
    IN_ARCHIVE_RECOVERY = 5
    IN_PRODUCTION = 6


class WalLevel(IntEnum):
    """How much the WAL carries; only `REPLICA` and above can be archived."""

    MINIMAL = 0
    REPLICA = 1
    LOGICAL = 2


@dataclass(frozen=True)
class ControlFile:
    """The fields of a control file that a backup or a restore looks at.

    Attributes:
        time: when the control file was last written.
        checkpoint: where the last checkpoint's record is; its replay begins at `redo`.
        timeline: that of the last checkpoint.
        min_recovery_point: how far an archive recovery must go before the cluster is
            consistent; 0 outside of one. `min_recovery_timeline` belongs to it.
        backup_start: the redo point of the backup that is being recovered from, else 0.
        backup_end: where a backup taken from a standby ends, else 0.
        relation_segment_blocks: blocks in one file of a large relation.
        data_checksum_version: 0 where pages have no checksums.
    """

    system_identifier: int
    pg_control_version: int
    catalog_version: int
    state: ClusterState
    time: datetime
    checkpoint: Lsn
    redo: Lsn
    timeline: int
    previous_timeline: int
    full_page_writes: bool
    next_xid: int
    next_oid: int
    oldest_xid: int
    checkpoint_time: datetime
    min_recovery_point: Lsn
    min_recovery_timeline: int
    backup_start: Lsn
    backup_end: Lsn
    backup_end_required: bool
    wal_level: WalLevel
    wal_log_hints: bool
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_transactions: int
    max_locks_per_transaction: int
    track_commit_timestamp: bool
    block_size: int
    relation_segment_blocks: int
    wal_block_size: int
    wal_segment_size: int
    data_checksum_version: int
    crc: int

    @property
    def data_checksums(self) -> bool:
        """Whether data pages carry checksums."""
        return self.data_checksum_version != 0


def parse_control(data: bytes) -> ControlFile:
    """Read the bytes of a control file.

    Raises:
        Corrupt: too short, or the checksum is wrong (a torn read, or real damage).
        PostgresRefused: a format that is none of PostgreSQL 13 to 18.
    """
    end = _crc_offset(data)
    crc = int.from_bytes(data[end : end + 4], "little")
    if crc32c(data[:end]) != crc:
        raise Corrupt(
            "the control file's checksum is wrong",
            hint="compare with pg_controldata; a backup or a standby has another copy",
        )
    head = _HEAD.unpack_from(data)
    copy = _CHECKPOINT.unpack_from(data, _HEAD.size)
    rest = _REST.unpack_from(data, _HEAD.size + _CHECKPOINT.size)
    try:
        return _assemble(head, copy, rest, crc)
    except ValueError as error:
        raise Corrupt(f"the control file holds an unknown value: {error}") from error


def _crc_offset(data: bytes) -> int:
    if len(data) < max(_CRC_OFFSETS.values()) + 4:
        raise Corrupt(f"the control file has only {len(data)} bytes")
    version = int.from_bytes(data[8:12], "little")
    offset = _CRC_OFFSETS.get(version)
    if offset is None:
        raise PostgresRefused(
            f"the control file has format {version}, which drkit does not know",
            hint="drkit reads PostgreSQL 13 to 18 of little-endian machines",
        )
    return offset


def _assemble(
    head: tuple[int, ...], copy: tuple[int, ...], rest: tuple[int, ...], crc: int
) -> ControlFile:
    return ControlFile(
        system_identifier=head[0],
        pg_control_version=head[1],
        catalog_version=head[2],
        state=ClusterState(head[3]),
        time=datetime.fromtimestamp(head[4], UTC),
        checkpoint=Lsn(head[5]),
        redo=Lsn(copy[0]),
        timeline=copy[1],
        previous_timeline=copy[2],
        full_page_writes=bool(copy[3]),
        next_xid=copy[4],
        next_oid=copy[5],
        oldest_xid=copy[8],
        checkpoint_time=datetime.fromtimestamp(copy[12], UTC),
        min_recovery_point=Lsn(rest[1]),
        min_recovery_timeline=rest[2],
        backup_start=Lsn(rest[3]),
        backup_end=Lsn(rest[4]),
        backup_end_required=bool(rest[5]),
        wal_level=WalLevel(rest[6]),
        wal_log_hints=bool(rest[7]),
        max_connections=rest[8],
        max_worker_processes=rest[9],
        max_wal_senders=rest[10],
        max_prepared_transactions=rest[11],
        max_locks_per_transaction=rest[12],
        track_commit_timestamp=bool(rest[13]),
        block_size=rest[16],
        relation_segment_blocks=rest[17],
        wal_block_size=rest[18],
        wal_segment_size=rest[19],
        data_checksum_version=rest[25],
        crc=crc,
    )


def read_control(path: str) -> tuple[ControlFile, bytes]:
    """Read a control file that a running server may be writing.

    The server's write is not atomic for a reader, so a wrong checksum is read again,
    for about two seconds.

    Args:
        path: the file itself, `…/global/pg_control`.

    Returns:
        The fields, and the very bytes they were read from.

    Raises:
        Corrupt: the checksum stayed wrong.
        PostgresRefused: a format that is none of PostgreSQL 13 to 18.
        SourceUnreadable: the file can't be read.
    """
    for _ in range(_ATTEMPTS - 1):
        data = _read(path)
        try:
            return parse_control(data), data
        except Corrupt:
            time.sleep(_PAUSE)
    data = _read(path)
    try:
        return parse_control(data), data
    except Corrupt as error:
        raise Corrupt(f"{path}: {error.message}", hint=error.hint) from error


def _read(path: str) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise SourceUnreadable(
            f"cannot read {path}: {error.strerror}",
            hint=run_as_owner(path) if isinstance(error, PermissionError) else None,
        ) from error


def invalidate_checkpoint(data: bytes) -> bytes:
    """Return a control file with which a server starts only beside a `backup_label`.

    A server that finds a `backup_label` takes its checkpoint from there. One that lost
    it would take the control file's, which may be later than the backup's start, and
    would come up corrupt; with an impossible one it refuses to start.

    Raises:
        Corrupt: the data was not sound to begin with.
        PostgresRefused: a format that is none of PostgreSQL 13 to 18.
    """
    parse_control(data)
    end = _crc_offset(data)
    body = bytearray(data[:end])
    struct.pack_into("<Q", body, _CHECKPOINT_OFFSET, IMPOSSIBLE_CHECKPOINT)
    return bytes(body) + struct.pack("<I", crc32c(body)) + data[end + 4 :]
