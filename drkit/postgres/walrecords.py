"""Commits, aborts and restore points in WAL: what a recovery target can be.

Reads the bytes of segments one after the other and skips every other record by its
length. Sources: `src/include/access/xlogrecord.h`, `xact.h` and `xlog_internal.h`;
`ParseCommitRecord` in `src/backend/access/rmgrdesc/xactdesc.c`; `xlogreader.c`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception's name
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import Corrupt
from drkit.model.lsn import Lsn
from drkit.postgres.crc32c import crc32c
from drkit.postgres.walfile import LONG_HEADER, MAJOR_VERSIONS

if TYPE_CHECKING:
    Buffer = bytes | bytearray | memoryview
    _Lists = tuple[tuple[int, int], ...]

_PAGE_HEADER = Struct("<HHIQI4x")
_RECORD_HEADER = Struct("<IIQBB2xI")
_RECORD_SIZE = _RECORD_HEADER.size
_MAX_RECORD = 1020 << 20  # XLogRecordMaxSize

_FIRST_IS_CONTRECORD = 0x01
_FIRST_IS_OVERWRITE = 0x08

_RM_XLOG = 0
_RM_XACT = 1
_XLOG_RESTORE_POINT = 0x70
_XLOG_SWITCH = 0x40
_XACT_OPMASK = 0x70
_XACT_HAS_INFO = 0x80
_COMMIT, _ABORT, _COMMIT_PREPARED, _ABORT_PREPARED = 0x00, 0x20, 0x30, 0x40

_MASKS = {_RM_XLOG: 0xF0, _RM_XACT: _XACT_OPMASK}
_WANTED = {
    _RM_XLOG: frozenset({_XLOG_RESTORE_POINT}),
    _RM_XACT: frozenset({_COMMIT, _ABORT, _COMMIT_PREPARED, _ABORT_PREPARED}),
}

_DATA_SHORT, _DATA_LONG = 255, 254
_EXTRA_HEADERS = {253: 3, 252: 5}  # XLR_BLOCK_ID_ORIGIN, XLR_BLOCK_ID_TOPLEVEL_XID

_HAS_DBINFO = 1 << 0
_HAS_TWOPHASE = 1 << 4
# Flags of `xinfo` that announce a list, and the size of its items: subtransactions,
# dropped files, dropped statistics (since 15; 18 made them larger), invalidations.
_LISTS = ((1 << 1, 4), (1 << 2, 12), (1 << 8, 12), (1 << 3, 16))
_LISTS_OF_18 = ((1 << 1, 4), (1 << 2, 12), (1 << 8, 16), (1 << 3, 16))
_U32 = Struct("<I")
_U64 = Struct("<Q")
_I64 = Struct("<q")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class EventKind(StrEnum):
    """What happened."""

    COMMIT = "commit"
    ABORT = "abort"
    RESTORE_POINT = "restore point"


class WalEvent(NamedTuple):
    """A record at which a recovery can stop.

    Attributes:
        lsn: where the record begins; a target LSN at or before it stops before it.
        xid: the transaction, also where its prepared form is committed or aborted by
            another one; 0 for restore points.
        microseconds: its time, counted from 2000-01-01 UTC as PostgreSQL does.
        name: that of a restore point, else empty.
    """

    kind: EventKind
    lsn: Lsn
    xid: int
    microseconds: int
    name: str = ""

    @property
    def time(self) -> datetime:
        """The record's time, in UTC."""
        return _EPOCH + timedelta(microseconds=self.microseconds)


class Carry(NamedTuple):
    """A record that goes on in the next segment.

    Attributes:
        lsn: where the record begins; 0 if that was in no segment that was scanned.
        head: its bytes so far, or just its header if it is none that matters.
        remaining: how many of its bytes are still to come.
    """

    lsn: Lsn
    head: bytes
    remaining: int


class SegmentScan(NamedTuple):
    """What a segment holds.

    Attributes:
        events: in the order of the log.
        carry: to pass on with the next segment.
        end: the LSN after the last whole record, before alignment; the segment's start
            if it ends none.
        complete: whether the records go on to the segment's end, or to a switch of
            segments. A segment that is still being written is not complete, nor is one
            that is damaged in the middle.
        last: where the last whole record begins; 0 if none ends in this segment, or
            the one that does began where no scan was.
    """

    events: list[WalEvent]
    carry: Carry | None
    end: Lsn
    complete: bool
    last: Lsn = Lsn(0)


def scan_segment(
    data: Buffer, start_lsn: int, carry: Carry | None = None, *, verify: bool = False
) -> SegmentScan:
    """Find the commits, aborts and restore points of one segment.

    Args:
        data: the segment; a shorter one is read as far as it goes.
        start_lsn: the LSN of its first byte.
        carry: what the scan of the segment before returned; without it, a record that
            began there is passed over.
        verify: also check the CRC of each record that is reported (slow).

    Raises:
        Corrupt: the bytes are no WAL, the segment is not the one after the carry's,
            or a record that is to be reported is damaged.
    """
    return _Scan(data, start_lsn, verify).run(carry)


def begins_inside_record(data: Buffer) -> bool:
    """Say whether a segment begins with the rest of a record of the one before."""
    return bool(LONG_HEADER.unpack_from(data)[1] & _FIRST_IS_CONTRECORD)


class _Scan:
    """One pass over a segment.

    Records are read from `stream`: the pages without their headers. As headers are
    multiples of 8 bytes long, records stay aligned there.
    """

    def __init__(self, data: Buffer, start_lsn: int, verify: bool) -> None:
        if len(data) < LONG_HEADER.size:
            raise Corrupt(f"{len(data)} bytes are no WAL segment")
        header = LONG_HEADER.unpack_from(data)
        magic, self.flags, _, address, self.remaining, _, size, self.page_size = header
        sound = LONG_HEADER.size < self.page_size <= len(data)
        if magic not in MAJOR_VERSIONS or address != start_lsn or not sound:
            raise Corrupt(f"the segment at {Lsn(start_lsn)} does not begin with WAL")
        self.start = start_lsn
        self.lists = _LISTS_OF_18 if MAJOR_VERSIONS[magic] >= 18 else _LISTS
        self.verify = verify
        self.events: list[WalEvent] = []
        self.breaks: list[int] = []
        self.stream = self._join_pages(memoryview(data), magic)
        self.whole = self.lsn_of(len(self.stream) - 1) + 1 == start_lsn + size
        self.last_byte = 0  # of the stream, in the last whole record

    def _join_pages(self, view: memoryview, magic: int) -> bytes:
        """Strip the page headers, up to the first page that is not of this segment.

        Notes in `breaks` where a page says that it does not go on with a record that a
        crash left without its end.
        """
        size = self.page_size
        parts = [view[LONG_HEADER.size : size]]
        length = size - LONG_HEADER.size
        for offset in range(size, len(view) - size + 1, size):
            found, flags, _, address, _ = _PAGE_HEADER.unpack_from(view, offset)
            if found != magic or address != self.start + offset:
                break
            if flags & _FIRST_IS_OVERWRITE:
                self.breaks.append(length)
            parts.append(view[offset + _PAGE_HEADER.size : offset + size])
            length += size - _PAGE_HEADER.size
        return b"".join(parts)

    def lsn_of(self, position: int) -> int:
        """Return the LSN of a byte of the stream; a page's first follows its header."""
        first = self.page_size - LONG_HEADER.size
        lsn = self.start + LONG_HEADER.size + position
        if position >= first:
            pages = (position - first) // (self.page_size - _PAGE_HEADER.size) + 1
            lsn += pages * _PAGE_HEADER.size
        return lsn

    def run(self, carry: Carry | None) -> SegmentScan:
        """Take in the record that began earlier, then walk."""
        if not self.flags & _FIRST_IS_CONTRECORD:
            if carry is not None and not self.flags & _FIRST_IS_OVERWRITE:
                raise Corrupt(f"the record at {carry.lsn} lacks its end")
            return self._walk(0, 0)
        ahead = carry or Carry(Lsn(0), b"", self.remaining)
        if ahead.remaining != self.remaining:
            raise Corrupt(f"the record at {ahead.lsn} lacks its end")
        taken = min(self.remaining, len(self.stream))
        left = self.remaining - taken
        head = self._extend(ahead, taken)
        if left:
            going_on = Carry(ahead.lsn, head, left) if self.whole else None
            return SegmentScan([], going_on, Lsn(self.start), self.whole)
        if _matters(head):
            self._report(head, ahead.lsn)
        return self._walk(taken, ahead.lsn)

    def _extend(self, carry: Carry, taken: int) -> bytes:
        """Append to a record's head what this segment has of it, if it matters."""
        head = carry.head
        if carry.lsn == 0 or (len(head) >= _RECORD_SIZE and not _matters(head)):
            return head
        head += self.stream[:taken]
        return head if _matters(head) else head[:_RECORD_SIZE]

    def _walk(self, taken: int, previous: int) -> SegmentScan:
        """Go through the records that begin in this segment, behind `taken` bytes."""
        position, switched = _align(taken), False
        self.last_byte = taken
        for limit in (*self.breaks, len(self.stream)):
            start = max(position, self._stretch_start(limit))
            position, previous, switched = self._stretch(start, limit, previous)
        carry = None if switched else self._cut_off(position, previous)
        end = self.lsn_of(self.last_byte - 1) + 1 if self.last_byte else self.start
        to_the_end = position >= len(self.stream) or carry is not None
        complete = switched or (self.whole and to_the_end)
        return SegmentScan(self.events, carry, Lsn(end), complete, Lsn(previous))

    def _stretch_start(self, limit: int) -> int:
        """Return where the records that end at `limit` begin at the earliest."""
        return max((0, *(place for place in self.breaks if place < limit)))

    def _stretch(
        self, position: int, limit: int, previous: int
    ) -> tuple[int, int, bool]:
        """Go from record to record; a scan spends its time in this loop.

        Returns the position of what could not be read, the LSN of the last record, and
        whether that switched segments, so that the rest is empty.
        """
        stream = self.stream
        unpack = _RECORD_HEADER.unpack_from
        first = self.page_size - LONG_HEADER.size
        per_page = self.page_size - _PAGE_HEADER.size
        base = self.start + LONG_HEADER.size
        after = self.last_byte
        switched = False
        while position + _RECORD_SIZE <= limit and not switched:
            total, _, link, info, manager, _ = unpack(stream, position)
            if not _RECORD_SIZE <= total <= _MAX_RECORD or position + total > limit:
                break
            if previous and link != previous:
                break
            # `lsn_of`, without the cost of a call for each record
            previous = base + position
            if position >= first:
                previous += ((position - first) // per_page + 1) * _PAGE_HEADER.size
            after = position + total
            if manager in _MASKS:
                switched = self._look_at(position, after, previous, info, manager)
            position = (after + 7) & ~7
        self.last_byte = after
        return position, previous, switched

    def _look_at(
        self, position: int, after: int, lsn: int, info: int, manager: int
    ) -> bool:
        """Report a record if it matters; say whether it switches segments."""
        if (info & _MASKS[manager]) in _WANTED[manager]:
            self._report(self.stream[position:after], lsn)
        return manager == _RM_XLOG and info & 0xF0 == _XLOG_SWITCH

    def _cut_off(self, position: int, previous: int) -> Carry | None:
        """Return the record at `position` if it goes on in the next segment."""
        head = self.stream[position : position + _RECORD_SIZE]
        if not self.whole or len(head) < 8:
            return None
        total = _U32.unpack_from(head)[0]
        missing = total - (len(self.stream) - position)
        if not _RECORD_SIZE <= total <= _MAX_RECORD or missing <= 0:
            return None
        if previous and len(head) >= 16 and _U64.unpack_from(head, 8)[0] != previous:
            return None
        if len(head) == _RECORD_SIZE and _matters(head):
            head = self.stream[position:]
        return Carry(Lsn(self.lsn_of(position)), head, missing)

    def _report(self, record: bytes, lsn: int) -> None:
        if self.verify and not _crc_is_right(record):
            raise Corrupt(f"the WAL record at {Lsn(lsn)} has a wrong checksum")
        try:
            self.events.append(_event(record, Lsn(lsn), self.lists))
        except (StructError, IndexError) as error:
            raise Corrupt(f"the WAL record at {Lsn(lsn)} is damaged") from error


def _align(position: int) -> int:
    return (position + 7) & ~7


def _matters(record: bytes) -> bool:
    """Say whether a record that begins so is one to report."""
    if len(record) < _RECORD_SIZE:
        return False
    info, manager = record[16], record[17]
    return manager in _WANTED and info & _MASKS[manager] in _WANTED[manager]


def _crc_is_right(record: bytes) -> bool:
    """The CRC is of the data first and then of the header up to the CRC itself."""
    crc = crc32c(record[: _RECORD_SIZE - 4], crc32c(record[_RECORD_SIZE:]))
    return crc == int.from_bytes(record[_RECORD_SIZE - 4 : _RECORD_SIZE], "little")


def _event(record: bytes, lsn: Lsn, lists: _Lists) -> WalEvent:
    _, xid, _, info, manager, _ = _RECORD_HEADER.unpack_from(record)
    data = _main_data(record)
    microseconds = _I64.unpack_from(record, data)[0]
    if manager == _RM_XLOG:
        name = record[data + 8 : data + 72].split(b"\0")[0].decode("utf-8", "replace")
        return WalEvent(EventKind.RESTORE_POINT, lsn, 0, microseconds, name)
    operation = info & _XACT_OPMASK
    if operation in {_COMMIT_PREPARED, _ABORT_PREPARED} and info & _XACT_HAS_INFO:
        xid = _prepared_xid(record, data + 8, lists) or xid
    committed = operation in {_COMMIT, _COMMIT_PREPARED}
    kind = EventKind.COMMIT if committed else EventKind.ABORT
    return WalEvent(kind, lsn, xid, microseconds)


def _main_data(record: bytes) -> int:
    """Return where the main data begins, in a record that refers to no blocks."""
    position = _RECORD_SIZE
    while True:
        block_id = record[position]
        if block_id == _DATA_SHORT:
            return position + 2
        if block_id == _DATA_LONG:
            return position + 5
        if block_id not in _EXTRA_HEADERS:
            raise IndexError(f"block {block_id} in a record without blocks")
        position += _EXTRA_HEADERS[block_id]


def _prepared_xid(record: bytes, position: int, lists: _Lists) -> int:
    """Return the transaction that COMMIT or ROLLBACK PREPARED ended, or 0.

    Before it in the record stand lists that `xinfo` announces; each has a count and
    items of fixed size.
    """
    flags = _U32.unpack_from(record, position)[0]
    position += 4
    if flags & _HAS_DBINFO:
        position += 8
    for flag, size in lists:
        if flags & flag:
            position += 4 + size * _U32.unpack_from(record, position)[0]
    return _U32.unpack_from(record, position)[0] if flags & _HAS_TWOPHASE else 0
