"""Cutting what is to be read into steps that threads take one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.model.frames import PAGES_AT_ONCE
from drkit.model.manifest import CONTROL_FILE, FileKind
from drkit.postgres.detection import How

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from drkit.postgres.detection import FilePlan
    from drkit.postgres.scan import FoundFile

    Blocks = npt.NDArray[np.int64]

_PIECE = 64 << 20  # what one worker takes of a large file at a time


class Piece(NamedTuple):
    """A stretch of a file; of one whose changed pages are known, some of those."""

    number: int
    file: FoundFile
    start: int
    end: int
    blocks: Blocks | None = None


def cut(files: Sequence[FoundFile], plans: Sequence[FilePlan]) -> list[list[Piece]]:
    """Return what there is to read, in steps: what takes long first.

    The last thing that is read should be small, so that no thread waits for
    another. What is compared is not cut, since the outcome decides on all of it.
    """
    pieces: list[Piece] = []
    listed: list[Piece] = []
    for number, file in enumerate(files):
        if file.kind is not FileKind.FILE or file.path == CONTROL_FILE:
            continue
        plan = plans[number]
        if plan.how is How.BLOCKS and not plan.audit:
            if len(plan.blocks):
                listed.append(Piece(number, file, 0, file.size, plan.blocks))
            continue
        may_cut = plan.how in (How.WHOLE, How.SCAN) and not plan.audit
        step = _PIECE if may_cut else max(file.size, 1)
        pieces += [
            Piece(number, file, start, min(start + step, file.size))
            for start in range(0, max(file.size, 1), step)
        ]
    pieces.sort(key=lambda piece: piece.end - piece.start < _PIECE // 16)
    return [*_in_frames(listed), *([piece] for piece in pieces)]


def _in_frames(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Yield the pages of all pieces, as many at a time as fill a frame."""
    step: list[Piece] = []
    room = PAGES_AT_ONCE
    for piece in pieces:
        blocks = piece.blocks
        while blocks is not None and len(blocks):
            step.append(piece._replace(blocks=blocks[:room]))
            room, blocks = room - len(blocks[:room]), blocks[room:]
            if not room:
                yield step
                step, room = [], PAGES_AT_ONCE
    if step:
        yield step
