"""What can be restored, as `info` and `verify` show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drkit.cli import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.operations.windows import Hole, Restorable, Window


def restorable_lines(found: Restorable) -> list[str]:
    """Say to which moments a cluster can be brought back, and to which it can't."""
    lines = ["restorable to any moment" if found.windows else "nothing can be restored"]
    for timeline in dict.fromkeys(window.timeline for window in found.windows):
        line = [one for one in found.windows if one.timeline == timeline]
        holes = [one for one in found.holes if one.timeline == timeline]
        lines += _line(sorted(line, key=lambda one: one.start_lsn), holes)
    lines += [
        f"NOT RESTORABLE: {one.label}: {one.reason}" for one in found.unrestorable
    ]
    return lines


def restorable_json(found: Restorable) -> dict[str, Any]:
    """Return the members that `info` and `verify` have of what can be restored."""
    newest = found.newest_moment
    return {
        "restorable": [_window_json(one) for one in found.windows],
        "except": [_hole_json(one) for one in found.holes],
        "unrestorable": [
            {"label": one.label, "missing": one.missing, "reason": one.reason}
            for one in found.unrestorable
        ],
        "newest_moment": None if newest is None else newest.isoformat(),
    }


def _line(windows: Sequence[Window], holes: Sequence[Hole]) -> list[str]:
    """Write the windows of one timeline as one, with what lies between them."""
    first, last = windows[0], windows[-1]
    lines = [
        f"  from {render.moment(first.start_time)}, {first.start_lsn}",
        f"  to   {_end(last)}, timeline {last.timeline}",
    ]
    lines += [f"  EXCEPT {_hole(hole)}" for hole in holes]
    if last.missing is not None:
        lines.append(f"  EXCEPT what follows: {_lacking(last, last.missing)}")
    notes = dict.fromkeys(note for window in windows for note in window.notes)
    return lines + [f"  note: {note}" for note in notes]


def _hole(hole: Hole) -> str:
    return (
        f"after {render.moment(hole.after_time)}, {hole.after_lsn}, until "
        f"{render.moment(hole.until_time)}, {hole.until_lsn}: "
        f"{_lacking(hole, hole.missing)}"
    )


def _lacking(one: Window | Hole, segment: str) -> str:
    if one.damaged:
        return f"WAL segment {segment} is damaged"
    if one.expired:
        return f"WAL has expired there, from segment {segment} on"
    return f"WAL segment {segment} is missing"


def _end(window: Window) -> str:
    if window.end_time is None:
        return f"{window.end_lsn}; its newest WAL holds no commit"
    last = render.exact(window.end_time)
    return f"just before {last}, the last commit; {window.end_lsn}"


def _window_json(one: Window) -> dict[str, Any]:
    return {
        "labels": list(one.labels),
        "timeline": one.timeline,
        "start_lsn": str(one.start_lsn),
        "start_time": one.start_time.isoformat(),
        "end_lsn": str(one.end_lsn),
        "end_time": None if one.end_time is None else one.end_time.isoformat(),
        "missing": one.missing,
        "damaged": one.damaged,
        "expired": one.expired,
        "notes": list(one.notes),
    }


def _hole_json(one: Hole) -> dict[str, Any]:
    return {
        "timeline": one.timeline,
        "after_lsn": str(one.after_lsn),
        "after_time": one.after_time.isoformat(),
        "until_lsn": str(one.until_lsn),
        "until_time": one.until_time.isoformat(),
        "missing": one.missing,
        "damaged": one.damaged,
        "expired": one.expired,
    }
