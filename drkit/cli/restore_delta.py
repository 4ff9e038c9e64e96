"""What a restore over an existing data directory takes away, and what it came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drkit.cli import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.operations.delta import Patched
    from drkit.operations.delta_plan import DeltaPlan
    from drkit.operations.restore import RestorePlan

_SHOWN = 5


def amounts(plan: RestorePlan) -> Iterator[tuple[str, str]]:
    """Yield how much will be fetched, written and deleted."""
    fetch, write = render.size(plan.fetch_bytes), render.size(plan.write_bytes)
    if plan.delta is None:
        yield "fetch", f"{fetch} from the repository"
        yield "write", f"{write} in {plan.backup.files} files"
        return
    yield "fetch", f"what is missing there, at most {fetch} from the repository"
    yield "write", f"what differs, at most {write} in {plan.backup.files} files"
    yield "delete", _deleted(plan.delta)


def foreign_lines(delta: DeltaPlan | None) -> list[str]:
    """Return the lines on files whose loss may surprise."""
    if delta is None or not delta.foreign:
        return []
    lines = ["PostgreSQL did not make these files, and they will be deleted:"]
    lines += [f"  {path}" for path in delta.foreign[:_SHOWN]]
    more = len(delta.foreign) - _SHOWN
    return lines + ([f"  and {more} more"] if more > 0 else [])


def patched_text(done: Patched | None) -> str:
    """Return what a restore found there, as the end of a sentence."""
    if done is None:
        return ""
    return (
        f": of {done.files} files {render.size(done.kept_bytes)} fitted, "
        f"{render.size(done.written_bytes)} were written "
        f"({render.size(done.fetched_bytes)} fetched), {done.deleted_files} files were "
        "deleted"
    )


def delta_json(delta: DeltaPlan | None) -> dict[str, Any] | None:
    """Return a plan's part on what is there; null where nothing is."""
    if delta is None:
        return None
    return {
        "delete_files": delta.delete_files,
        "delete_bytes": delta.delete_bytes,
        "foreign_files": len(delta.foreign),
        "foreign": list(delta.foreign[:_SHOWN]),
    }


def patched_json(done: Patched | None) -> dict[str, int] | None:
    """Return what came of it; null where everything was written."""
    if done is None:
        return None
    return {
        "files": done.files,
        "kept_bytes": done.kept_bytes,
        "written_bytes": done.written_bytes,
        "fetched_bytes": done.fetched_bytes,
        "deleted_files": done.deleted_files,
    }


def _deleted(delta: DeltaPlan) -> str:
    if not delta.delete_files:
        return "nothing"
    size = render.size(delta.delete_bytes)
    return f"{delta.delete_files} files, {size}, that the backup does not have"
