"""What the vectors hold: a tiny cluster, what two incrementals change, and WAL."""

from __future__ import annotations

import hashlib

from drkit.model.manifest import FileKind
from drkit.repository.codec import FRAME_BYTES
from tests.chains import Changed, Files, whole
from tests.relations import index_pages

PAGE = 8192
SEGMENT = "000000010000000000000002"
OTHER_SEGMENT = "000000010000000000000003"
BACKUP_FILE = "000000010000000000000002.00000028.backup"
HISTORY = "00000002.history"
WAL = {
    SEGMENT: b"a tiny segment\n" * 40,
    OTHER_SEGMENT: b"one byte differs" * 40,
    BACKUP_FILE: b"",
    HISTORY: b"1\t0/3000000\tno recovery target specified\n",
}

SHRUNK, DROPPED = b"base/1/2601", b"base/1/2603"
TRUNCATED, GROWN = b"base/1/2602", b"base/1/2600"
INDEX = b"base/1/2604"


def pages(name: str, count: int) -> bytes:
    """Some pages of a relation, none like another."""
    return b"".join(
        hashlib.sha256(f"{name} {page}".encode()).digest() * (PAGE // 32)
        for page in range(count)
    )


FILES: Files = {
    # first and as long as a frame: so there is one with nothing but its pages
    INDEX: index_pages(FRAME_BYTES // PAGE),
    b"PG_VERSION": b"18\n",
    b"base": None,
    b"base/1": None,
    b"base/1/1259": bytes(range(256)) * 64,
    b"base/1/1259_vm": bytes(8192),
    GROWN: pages("grown", 5),
    SHRUNK: pages("shrunk", 3),
    TRUNCATED: pages("truncated", 3),
    DROPPED: pages("dropped", 2),
    b"base/1/caf\xe9": b"a name that is no UTF-8\n",
    b"base/2": None,
    b"empty": b"",
    b"global": None,
    b"global/pg_control": hashlib.sha256(b"control").digest() * 256,
}

CHANGES: list[tuple[dict[bytes, Changed], tuple[bytes, ...]]] = [
    (
        {
            # one page of two, and the last byte of the other
            b"base/1/1259": Changed(
                2 * PAGE, 2 * PAGE, ((PAGE - 1, b"!"), (PAGE, pages("new", 1)))
            ),
            b"base/1/1259_vm": whole(b"\1" * 8192),
            GROWN: Changed(
                6 * PAGE,
                5 * PAGE,
                ((2 * PAGE, pages("second", 1)), (5 * PAGE, pages("sixth", 1))),
            ),
            SHRUNK: Changed(PAGE, PAGE),
            INDEX: Changed(FRAME_BYTES, FRAME_BYTES, ((7 * PAGE, pages("split", 1)),)),
            # cut to one page and grown again; two pages were never written
            TRUNCATED: Changed(4 * PAGE, PAGE, ((3 * PAGE, pages("again", 1)),)),
            b"base/1/9998": whole(pages("new file", 2)),
            b"global/pg_control": whole(hashlib.sha256(b"later").digest() * 256),
            b"backup_manifest": whole(b"{}", FileKind.ATTACHMENT),
            b"empty": Changed(0, 0),
        },
        (DROPPED, b"base/2"),
    ),
    (
        {
            # what was cut off does not come back: its second page is zeros
            SHRUNK: Changed(3 * PAGE, PAGE, ((2 * PAGE, pages("third", 1)),)),
            # another file of the same name
            DROPPED: Changed(2 * PAGE, 0, ((PAGE, pages("reborn", 1)),)),
            GROWN: Changed(6 * PAGE, 6 * PAGE, ((0, pages("first", 1)),)),
            # a directory where a file was
            b"base/1/9998": Changed(0, kind=FileKind.DIRECTORY),
            b"global/pg_control": whole(hashlib.sha256(b"last").digest() * 256),
        },
        (b"base/1/caf\xe9",),
    ),
]
