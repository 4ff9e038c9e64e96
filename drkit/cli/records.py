"""Records of evidence as the commands of `drkit drill` show them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from drkit.cli import render

if TYPE_CHECKING:
    from drkit.model.evidence import Action, Measure, Record
    from drkit.repository.attestation import Signed


def record_json(signed: Signed) -> dict[str, Any]:
    """Return what the commands of this group say of a record in JSON."""
    record = signed.record
    return {
        "sequence": record.sequence,
        "sha256": signed.digest,
        "signer": signed.signer,
        "cluster": record.cluster,
        "kind": str(record.kind),
        "scenario": record.scenario or None,
        "started": record.started.isoformat(),
        "finished": record.finished.isoformat(),
        "outcome": None if record.action else str(record.outcome),
        "backup": record.restored.label if record.restored else None,
        "rto": _measure_json(record.rto),
        "rpo": _measure_json(record.rpo),
        "failure": record.failure or None,
        "action": None if record.action is None else action_json(record.action),
    }


def action_json(action: Action) -> dict[str, Any]:
    """Return a corrective action as the commands of this group have it in JSON."""
    return {name: getattr(action, name) for name in action.__slots__}


def what(record: Record) -> str:
    """Say in a few words what a record is of."""
    if record.action is not None:
        return f"action {record.action.action}"
    return f"{record.kind} {record.scenario}".strip()


def outcome(record: Record) -> str:
    """Say how it ended; for an action, how it stands."""
    return record.action.state if record.action else str(record.outcome)


def measured(measure: Measure | None) -> str:
    """Write a figure and its target: `2 min 10 s of 15 min`; a dash for none."""
    if measure is None or measure.measured is None:
        return "—"
    figure = render.duration(timedelta(seconds=measure.measured))
    if measure.target is None:
        return figure
    return f"{figure} of {render.duration(timedelta(seconds=measure.target))}"


def _measure_json(measure: Measure | None) -> dict[str, Any] | None:
    if measure is None:
        return None
    return {
        "target_seconds": measure.target,
        "measured_seconds": measure.measured,
        "meaning": measure.meaning,
    }
