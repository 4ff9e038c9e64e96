"""The process that fills frames: one request after the other, until there is none.

It speaks on a pair of pipes: a byte once it is ready, then for each pickled request a
pickled answer. The first request is the key of the content's digests and zstd's level,
and has no answer; all others are pages, and whether to verify them.
"""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from drkit.hardening import harden
from drkit.model.page import PAGE
from drkit.ownership import acting_as
from drkit.postgres.detection import stretches
from drkit.postgres.files import open_below
from drkit.postgres.pages import failing
from drkit.repository.codec import Content
from drkit.repository.framing import FrameFiller

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from drkit.model.frames import FilePages, FilledFrame

READY = b"+"


class Framer:
    """Reads pages into frames; used by one thread."""

    def __init__(self, key: bytes, level: int) -> None:
        self._made: list[FilledFrame] = []
        keep = self._made.append
        self._filler = FrameFiller(key, level, keep, Content.SCATTERED)

    def frame(self, pages: Sequence[FilePages], *, verify: bool) -> FilledFrame | None:
        """Return a frame with these pages; None if anything about them is unusual."""
        size = PAGE * sum(len(one.blocks) for one in pages)
        space = self._filler.space(size)[:size]
        parts = [_parts(one) for one in pages]
        if not size or not _read(pages, parts, space):
            return None
        if verify and _fails(pages, space):
            return None
        for one, mine in zip(pages, parts, strict=True):
            self._filler.took_all(one.file, mine)
        self._filler.flush()
        frame = self._made.pop()
        return frame._replace(payload=bytes(frame.payload))


def _parts(pages: FilePages) -> list[tuple[int, int]]:
    """Return where the pages stand in their file, and the lengths of the stretches."""
    found = stretches(pages.blocks)
    return [(first * PAGE, (behind - first) * PAGE) for first, behind in found]


def _read(
    pages: Sequence[FilePages],
    parts: Sequence[Sequence[tuple[int, int]]],
    into: memoryview,
) -> bool:
    """Read the pages of all files; say whether they are there and can be read."""
    at = 0
    try:
        for one, mine in zip(pages, parts, strict=True):
            with acting_as(one.owner):
                descriptor = open_below(one.root, one.place)
            try:
                for position, length in mine:
                    part = into[at : at + length]
                    if os.preadv(descriptor, (part,), position) < length:
                        return False
                    at += length
            finally:
                os.close(descriptor)
    except OSError:
        return False
    return True


def _fails(pages: Sequence[FilePages], content: memoryview) -> bool:
    numbers = np.concatenate([one.blocks + one.first for one in pages])
    return bool(failing(content, numbers))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the other side hangs up."""
    try:
        answers.write(READY)
        answers.flush()
        framer = Framer(*pickle.load(requests))  # noqa: S301  our own parent's
        while True:
            pages, verify = pickle.load(requests)  # noqa: S301  our own parent's
            frame = framer.frame(pages, verify=verify)
            pickle.dump(frame, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, BrokenPipeError):
        return


def main(pipes: str) -> None:
    """Serve each pair of pipes from a process of its own, and outlive the others.

    Args:
        pipes: the descriptors of each pair, as `requests:answers,requests:answers`.
    """
    harden()
    pairs = [tuple(map(int, pair.split(":"))) for pair in pipes.split(",")]
    mine = pairs[0]
    for pair in pairs[1:]:
        if os.fork() == 0:
            mine = pair
            break
    for pair in pairs:
        if pair is not mine:  # an end that stayed open here would hide another's end
            os.close(pair[0])
            os.close(pair[1])
    serve(os.fdopen(mine[0], "rb"), os.fdopen(mine[1], "wb"))
    with suppress(ChildProcessError):
        while True:
            os.wait()  # or they stayed zombies where nobody else cares for orphans
    os._exit(0)
