"""Pinning backups, so that no retention expires them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import NotFound, UsageError
from drkit.model.fate import lapsed
from drkit.model.log import Pin, Unpin

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.model.log import LogState
    from drkit.repository.repository import Repository

_LONGEST_REASON = 500


def pin_backup(
    repository: Repository, label: str, reason: str, until: datetime | None
) -> Pin:
    """Pin a backup; a pin that it has already is replaced.

    Args:
        label: or a unique prefix of it, or `latest`.
        until: from when on expiries may unpin it; None: never by themselves.

    Raises:
        NotFound: no live backup is meant.
        UsageError: the reason is empty, or the end has passed.
    """
    reason = " ".join(reason.split())
    if not reason or len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise UsageError(
            f"a pin's reason must have 1 to {_LONGEST_REASON} printable characters",
            hint="say why the backup is kept; whoever tidies up later reads it",
        )
    pin = Pin(repository.find(label).backup.label, reason, until)
    if lapsed(pin, repository.clock.now()):
        raise UsageError(f"the pin would end before it begins, at {until}")
    repository.log.append(lambda _: pin)
    return pin


def unpin_backup(repository: Repository, label: str) -> Pin:
    """Lift a backup's pin; return what it was.

    Raises:
        NotFound: no live backup is meant, or it is not pinned.
    """
    wanted = repository.find(label).backup.label
    lifted: list[Pin] = []

    def decide(state: LogState) -> Unpin:
        if wanted not in state.pins:
            pinned = ", ".join(state.pins) or "none"
            raise NotFound(
                f"backup {wanted} is not pinned", hint=f"pinned are: {pinned}"
            )
        lifted[:] = [state.pins[wanted]]
        return Unpin(wanted)

    repository.log.append(decide)
    return lifted[0]
