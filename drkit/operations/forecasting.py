"""How long a restore will take, by the evidence that the repository holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import DrkitError
from drkit.model.forecast import NEWEST, Amounts, forecast_by, measured_runs
from drkit.repository.evidence import newest_records

if TYPE_CHECKING:
    from drkit.model.backup import BackupSummary
    from drkit.model.evidence import Forecast
    from drkit.operations.restore import RestorePlan
    from drkit.operations.windows import Restorable
    from drkit.repository.repository import Repository

_LOOKED_AT = 2 * NEWEST  # corrective actions and failures are records too


class Outlook(NamedTuple):
    """How long a restore will take, until the server is ready.

    Attributes:
        forecast: None if nothing was measured, or nothing could be read.
        runs: how many measured restores it is made from.
        problem: why the evidence could not be read; empty if it could.
    """

    forecast: Forecast | None
    runs: int = 0
    problem: str = ""


def outlook(repository: Repository, wanted: Amounts) -> Outlook:
    """Forecast a restore of these amounts; nobody's restore fails for it."""
    try:
        runs = measured_runs(newest_records(repository, _LOOKED_AT))
    except DrkitError as error:
        return Outlook(None, problem=error.message)
    return Outlook(forecast_by(runs, wanted), len(runs))


def outlook_of_plan(repository: Repository, plan: RestorePlan) -> Outlook | None:
    """Forecast a restore; None over an existing directory, which nobody measured."""
    if plan.delta is not None:
        return None
    segments = len(plan.choice.reach.segments)
    return outlook(repository, Amounts(plan.write_bytes, plan.fetch_bytes, segments))


def outlook_of_newest(
    repository: Repository, backups: tuple[BackupSummary, ...], found: Restorable
) -> Outlook | None:
    """Forecast a restore to the newest moment; None if there is none.

    What it would read is taken to be all that the chain's backups have stored.
    """
    if not backups or not found.windows:
        return None
    window, by_label = found.windows[-1], {one.label: one for one in backups}
    newest = by_label[window.labels[-1]]
    chain, label = [newest], repository.log.state.parent_of(newest.label)
    while label is not None:
        chain.append(by_label[label])
        label = repository.log.state.parent_of(label)
    replayed = max(window.end_lsn - newest.start_lsn, 0)
    wanted = Amounts(
        written_bytes=newest.bytes,
        fetched_bytes=sum(one.stored_bytes for one in chain),
        wal_segments=-(-replayed // newest.wal_segment_size),
    )
    return outlook(repository, wanted)
