"""What two readings around one moment have in common: that was so at the moment too.

Commits become visible in another order than they are written to WAL, so what one
snapshot shows is no state that recovery ends in. What is the same in a snapshot before
a restore point and in one after it was the same at the restore point as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from drkit.model.fingerprint import Content, Facts, SequenceState, Unstable

MODULUS = 1 << 64


class Block(NamedTuple):
    """The rows of a block: their count, and two sums of their hashes."""

    rows: int
    first: int
    second: int


Blocks = Mapping[int, Block]


def stable_facts(before: Facts, after: Facts) -> tuple[Facts, Unstable]:
    """Return the facts that both readings have, and what changed between them."""
    kept: dict[str, dict[str, Mapping[str, str]]] = {}
    changed: set[tuple[str, str]] = set()
    for section in before.keys() & after.keys():
        old, new = before[section], after[section]
        same = {name for name in old if old[name] == new.get(name)}
        kept[section] = {name: old[name] for name in old if name in same}
        changed.update((section, name) for name in (old.keys() | new.keys()) - same)
    return kept, frozenset(changed)


def stable_content(before: Blocks, after: Blocks, percent: float) -> Content:
    """Return the content of the blocks that both readings agree on."""
    blocks = before.keys() | after.keys()
    skipped = {block for block in blocks if before.get(block) != after.get(block)}
    return content(before, percent, tuple(sorted(skipped)))


def content(blocks: Blocks, percent: float, skipped: tuple[int, ...] = ()) -> Content:
    """Return the content of blocks, without the skipped ones."""
    left_out = set(skipped)
    kept = [block for number, block in blocks.items() if number not in left_out]
    total = Block(*(sum(column) for column in zip(Block(0, 0, 0), *kept, strict=True)))
    return Content(total.rows, digest(total), percent, skipped)


def digest(total: Block) -> str:
    """Return the digest of rows from the sums of their hashes."""
    return f"{total.first % MODULUS:016x}{total.second % MODULUS:016x}"


def stable_sequences(
    before: Mapping[str, SequenceState], after: Mapping[str, SequenceState]
) -> dict[str, SequenceState]:
    """Return how far each sequence came before, and had come after."""
    both = before.keys() & after.keys()
    return {name: replace(before[name], until=after[name].reached) for name in both}
