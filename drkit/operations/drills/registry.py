"""Which drills there are, and whose turn it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import UsageError
from drkit.model.evidence import RecordKind
from drkit.operations.drills import (
    corruption,
    host_loss,
    operator_error,
    repository_loss_partial,
)
from drkit.operations.rehearsal import rehearse
from drkit.operations.stage import Task
from drkit.repository.evidence import read_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from drkit.model.evidence import Record
    from drkit.operations.rehearsal import Rehearsed
    from drkit.operations.stage import Aim, Site, Stage
    from drkit.protocols import Progress


class Scenario(NamedTuple):
    """A disaster that can be played.

    Attributes:
        aim: plays it, and decides what to restore.
    """

    name: str
    summary: str
    aim: Callable[[Stage], Aim]


SCENARIOS: dict[str, Scenario] = {
    module.NAME: Scenario(module.NAME, module.SUMMARY, module.aim)
    for module in (host_loss, operator_error, corruption, repository_loss_partial)
}


def run_drill(site: Site, name: str | None, progress: Progress) -> Rehearsed:
    """Play a disaster, recover from it in a scratch instance, and write the evidence.

    Args:
        name: of the scenario; None takes the one that was drilled longest ago.

    Raises:
        UsageError: there is no such scenario.
        DrkitError: as `rehearse` does.
    """
    if name is None:
        name = next_scenario(one.record for one in read_chain(site.repository).records)
    if name not in SCENARIOS:
        raise UsageError(
            f"there is no scenario {name}",
            hint=f"there are: {', '.join(SCENARIOS)}",
        )
    scenario = SCENARIOS[name]
    return rehearse(site, Task(RecordKind.DRILL, name, scenario.aim), progress)


def next_scenario(records: Iterable[Record]) -> str:
    """Return the scenario that was drilled longest ago; never drilled ones first."""
    last: dict[str, int] = dict.fromkeys(SCENARIOS, -1)
    for record in records:
        if record.kind is RecordKind.DRILL and record.scenario in last:
            last[record.scenario] = record.sequence
    return min(last, key=last.__getitem__)
