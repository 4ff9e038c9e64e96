"""A sampled fingerprint: everything is read twice, around a restore point.

What both readings agree on was the same at the restore point. Nobody is held up.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.fingerprint import DatabaseFingerprint, Fingerprint, Mode
from drkit.model.fingerprint_stable import (
    stable_content,
    stable_facts,
    stable_sequences,
)
from drkit.operations.fingerprints.looking import (
    choose,
    look_at_cluster,
    look_at_database,
    read_chosen,
    settle,
)
from drkit.postgres import fingerprint as server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drkit.model.fingerprint_stable import Blocks
    from drkit.operations.fingerprints.looking import (
        Choice,
        Limits,
        Marked,
        Seen,
        Sessions,
    )
    from drkit.postgres.connection import Connection
    from drkit.postgres.fingerprint_guard import Guard
    from drkit.protocols import Clock


class _Look(NamedTuple):
    seen: Seen
    blocks: Mapping[str, Blocks]
    unread: Mapping[str, str]


def sample(
    sessions: Sessions,
    restore_point: str,
    clock: Clock,
    limits: Limits,
    marked: Marked = None,
    instead: str = "",
) -> Fingerprint:
    """Take a sampled fingerprint.

    Args:
        marked: called as soon as the restore point is made.
        instead: why it is no exact one, though that was wanted.
    """
    seed = int.from_bytes(os.urandom(4), "big") >> 1
    chosen = {
        name: choose(session, limits.blocks, seed)
        for name, session in sessions.databases.items()
    }
    globally, before = _look(sessions, chosen, seed, clock, limits)
    moment = server.mark(sessions.main, restore_point)
    taken_at = clock.now()
    if marked is not None and moment.restore_point is not None:
        marked()
    settled = settle(sessions.main, moment.lsn, clock)
    globally_after, after = _look(sessions, chosen, seed, clock, limits)
    databases = tuple(
        _database(name, chosen[name], before[name], after[name], settled)
        for name in chosen
    )
    facts, unstable = stable_facts(globally.facts, globally_after.facts)
    return Fingerprint(
        mode=Mode.SAMPLED,
        taken_at=taken_at,
        lsn=moment.lsn,
        restore_point=moment.restore_point,
        seed=seed,
        facts=facts,
        databases=databases,
        unread={**sessions.unread, **globally.unread, **globally_after.unread},
        unstable=unstable,
        limits=tuple(_limits(databases, limits, settled, instead)),
    )


def _look(
    sessions: Sessions,
    chosen: Mapping[str, Choice],
    seed: int,
    clock: Clock,
    limits: Limits,
) -> tuple[Seen, dict[str, _Look]]:
    with server.snapshot(sessions.main):
        globally = look_at_cluster(sessions.main)
    until = clock.monotonic() + limits.seconds
    looks = {}
    for name, session in sessions.databases.items():
        left = until - clock.monotonic()
        guard = sessions.guards[name]
        looks[name] = _look_at(session, guard, chosen[name], seed, clock, left)
    return globally, looks


def _look_at(
    session: Connection,
    guard: Guard,
    choice: Choice,
    seed: int,
    clock: Clock,
    seconds: float,
) -> _Look:
    with server.snapshot(session):
        seen = look_at_database(session, guard)
        return _Look(seen, *read_chosen(session, guard, choice, seed, clock, seconds))


def _database(
    name: str, choice: Choice, before: _Look, after: _Look, settled: bool
) -> DatabaseFingerprint:
    facts, unstable = stable_facts(before.seen.facts, after.seen.facts)
    both = before.blocks.keys() & after.blocks.keys() if settled else set()
    unread = {**choice.unread, **before.seen.unread, **after.seen.unread}
    unread |= {**before.unread, **after.unread}
    percent = {table.name: part for table, part in choice.percent.items()}
    return DatabaseFingerprint(
        name=name,
        facts=facts,
        tables={
            table: stable_content(
                before.blocks[table], after.blocks[table], percent[table]
            )
            for table in sorted(both)
        },
        sequences=stable_sequences(before.seen.sequences, after.seen.sequences),
        unread=unread,
        unstable=unstable,
    )


def _limits(
    databases: tuple[DatabaseFingerprint, ...],
    limits: Limits,
    settled: bool,
    instead: str,
) -> list[str]:
    tables = [one for database in databases for one in database.tables.values()]
    whole = sum(one.whole for one in tables)
    unread = sum(len(database.unread) for database in databases)
    said = []
    if instead:
        said.append(f"An exact fingerprint was wanted: {instead}.")
    if not settled:
        said.append("Commits waited for a standby, so no rows can be compared.")
    if whole < len(tables):
        said.append(
            f"{whole} of {len(tables)} tables are held whole, of the others some "
            f"{limits.blocks} blocks each: a change elsewhere in them is not seen."
        )
    if unread:
        said.append(f"{unread} tables or sequences are not compared: see `unread`.")
    return said
