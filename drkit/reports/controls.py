"""The controls that auditors ask for, and the records that speak for each.

A record shows what was done; whether a control is met, an auditor decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.model.evidence import CheckState, Outcome
from drkit.reports.report import Control, Support, Verdict
from drkit.reports.words import listed, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.model.evidence import Record
    from drkit.reports.report import ClusterReport

    Shows = Callable[[ClusterReport], Support]

SHOWN, FINDINGS, NO_RECORD = "shown", "with findings", "no record"


class _Asked(NamedTuple):
    framework: str
    control: str
    asks: str
    shows: Shows


def controls(clusters: Sequence[ClusterReport]) -> tuple[Control, ...]:
    """Return the control map of all clusters."""
    return tuple(
        Control(
            asked.framework,
            asked.control,
            asked.asks,
            tuple(asked.shows(one) for one in clusters),
        )
        for asked in _ASKED
    )


def _support(
    cluster: str, records: Sequence[Record], text: str, *, trouble: bool = False
) -> Support:
    if not records:
        return Support(cluster, NO_RECORD, "no record in this quarter", ())
    failed = sum(record.outcome is Outcome.FAILED for record in records)
    if failed:
        text = f"{text}; {failed} failed"
    sequences = tuple(record.sequence for record in records)
    state = FINDINGS if failed or trouble else SHOWN
    return Support(cluster, state, text, sequences)


def _restores(report: ClusterReport) -> Support:
    """Backups were restored, by verifications or drills."""
    text = plural(len(report.exercises), "restore exercise")
    return _support(report.cluster, report.exercises, text)


def _backups(report: ClusterReport) -> Support:
    """Backups are taken and kept, and restoring them is tried."""
    kept = plural(report.backups.count, "backup")
    done = plural(len(report.exercises), "restore exercise")
    text = f"{kept} in force, {done}"
    bare = not report.backups.count
    return _support(report.cluster, report.exercises, text, trouble=bare)


def _drills(report: ClusterReport) -> Support:
    """Recovery was rehearsed."""
    return _support(report.cluster, report.drills, plural(len(report.drills), "drill"))


def _objectives(report: ClusterReport) -> Support:
    """Recovery time and point were measured."""
    measured = [record for record in report.exercises if _measured(record)]
    rto, rpo = report.rto.verdict, report.rpo.verdict
    text = f"RTO {rto}, RPO {rpo}"
    trouble = (rto, rpo) != (Verdict.MET, Verdict.MET)
    return _support(report.cluster, measured, text, trouble=trouble)


def _measured(record: Record) -> bool:
    measures = (record.rto, record.rpo)
    return any(each is not None and each.measured is not None for each in measures)


def _integrity(report: ClusterReport) -> Support:
    """The restored content was checked."""
    checked = [record for record in report.exercises if _done(record)]
    count = sum(_done(record) for record in checked)
    text = f"{plural(count, 'check')} of restored content"
    return _support(report.cluster, checked, text)


def _done(record: Record) -> int:
    return sum(check.state is not CheckState.NOT_DONE for check in record.checks)


def _apart(report: ClusterReport) -> Support:
    """Restores went to an instance of its own; on which hosts, and what is left."""
    apart = [one for one in report.exercises if one.actor is not None and one.restored]
    hosts = sorted({one.actor.host for one in apart if one.actor is not None})
    gone = sum(bool(one.cleanup and one.cleanup.proven) for one in apart)
    text = f"{plural(len(apart), 'scratch instance')}, {gone} seen to be removed"
    if hosts:
        text = f"{text}, on {listed(hosts)}"
    trouble = gone < len(apart)
    return _support(report.cluster, apart, text, trouble=trouble)


_SOC, _ISO = "SOC 2", "ISO/IEC 27001:2022"
_DORA, _NIST = "DORA (EU) 2022/2554", "NIST SP 800-34 Rev. 1"
_ASKED = (
    _Asked(
        _SOC,
        "A1.2",
        "Backups and recovery infrastructure are operated and monitored",
        _backups,
    ),
    _Asked(_SOC, "A1.3", "Procedures for recovery are tested", _drills),
    _Asked(
        _ISO,
        "A.8.13",
        "Backups are kept and tested regularly",
        _restores,
    ),
    _Asked(
        _ISO,
        "A.5.30",
        "Readiness for continuity is tested against its objectives",
        _objectives,
    ),
    _Asked(_DORA, "Art. 11", "Response and recovery plans are tested", _drills),
    _Asked(
        _DORA,
        "Art. 12(2)",
        "Backup, restoration and recovery are tested periodically",
        _restores,
    ),
    _Asked(
        _DORA,
        "Art. 12(3)",
        "Data is restored to systems apart from their source",
        _apart,
    ),
    _Asked(
        _DORA,
        "Art. 12(6)",
        "Recovery time and recovery point objectives are set and looked at",
        _objectives,
    ),
    _Asked(
        _DORA,
        "Art. 12(7)",
        "The integrity of recovered data is checked",
        _integrity,
    ),
    _Asked(
        _NIST,
        "3.4",
        "Backups can bring the system back",
        _restores,
    ),
    _Asked(
        _NIST,
        "3.5",
        "The contingency plan is tested and exercised",
        _drills,
    ),
)
