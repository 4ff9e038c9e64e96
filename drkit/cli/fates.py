"""What becomes of backups and why, as `expire` and `info` show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drkit.cli import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.model.fate import Fate


def fates_text(judged: Sequence[Fate]) -> str:
    """Write each backup's fate, one reason a line."""
    rows = []
    for fate in judged:
        verdict = "kept" if fate.kept else "EXPIRES"
        for place, reason in enumerate(fate.reasons):
            first = (fate.label, verdict) if place == 0 else ("", "")
            rows.append((*first, reason.text))
    return render.table(("backup", "fate", "because"), rows)


def fate_json(fate: Fate) -> dict[str, Any]:
    """Return a fate's members."""
    return {
        "label": fate.label,
        "parent": fate.parent,
        "kept": fate.kept,
        "reasons": [
            {"rule": reason.rule, "text": reason.text} for reason in fate.reasons
        ],
    }
