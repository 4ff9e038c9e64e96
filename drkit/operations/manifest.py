"""Making a backup's manifest from what was read and what was stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drkit.model.manifest import DAMAGED, FILE, RUN, Manifest, Rows
from drkit.repository.packing import assemble

if TYPE_CHECKING:
    import numpy.typing as npt

    from drkit.model.copied import Copied, CopiedFile
    from drkit.model.head import ManifestHead
    from drkit.model.pagemap import Chain
    from drkit.repository.packing import Packed

    Numbers = npt.NDArray[np.int64]


def make_manifest(
    head: ManifestHead, copied: Copied, packed: Packed, below: Chain | None
) -> Manifest:
    """Put the files in order and lay their runs beside them.

    Args:
        below: the parent's page map; only what differs from it is listed.
    """
    packs, frames, file_runs = assemble(packed)
    taken = np.array([file is not None for file in copied.files], dtype=np.bool_)
    file_runs = file_runs[taken[file_runs["file"]]]
    counts = np.bincount(file_runs["file"], minlength=len(copied.files))
    listed = _listed(copied, counts.tolist(), below)
    paths, files, renumbered = _file_table(listed)
    runs, files["runs"] = _run_table(file_runs, renumbered, len(paths))
    damaged = np.array(
        [
            (renumbered[number], block)
            for number, block in copied.damaged
            if taken[number]
        ],
        dtype=DAMAGED,
    )
    gone = _gone(copied, below) if below else ()
    return Manifest(head, paths, files, packs, frames, runs, damaged, gone)


def _listed(
    copied: Copied, runs: list[int], below: Chain | None
) -> list[CopiedFile | None]:
    """Return the files that are there, without those that are as the parent has them.

    A time of change alone is no difference: hints are written all the while.
    """
    if below is None:
        return copied.files
    rows = below.files[["kind", "mode", "size", "identity"]].tolist()
    places = {path: place for place, path in enumerate(below.paths)}

    def same(file: CopiedFile) -> bool:
        place = places.get(file.path)
        whole = file.kept == file.size
        row = (int(file.kind), file.mode, file.size, file.identity)
        return place is not None and whole and rows[place] == row

    return [
        None if file is None or (not count and same(file)) else file
        for file, count in zip(copied.files, runs, strict=True)
    ]


def _gone(copied: Copied, below: Chain) -> tuple[bytes, ...]:
    there = {file.path for file in copied.files if file is not None}
    return tuple(path for path in below.paths if path not in there)


def _file_table(
    listed: list[CopiedFile | None],
) -> tuple[list[bytes], Rows, Numbers]:
    """Return paths in order, their rows, and by old number each file's new one."""
    kept = sorted(
        (file.path, number) for number, file in enumerate(listed) if file is not None
    )
    renumbered = np.full(len(listed), -1, dtype=np.int64)
    rows = np.zeros(len(kept), dtype=FILE)
    for place, (_, number) in enumerate(kept):
        file = listed[number]
        if file is not None:
            rows[place] = (
                file.kind, file.mode, file.size, file.mtime, file.identity, file.kept, 0
            )  # fmt: skip
        renumbered[number] = place
    return [path for path, _ in kept], rows, renumbered


def _run_table(
    file_runs: Rows, renumbered: Numbers, count: int
) -> tuple[Rows, Numbers]:
    """Return the runs in the files' new order, and how many each file has."""
    owner = renumbered[file_runs["file"]]
    order = np.lexsort((file_runs["position"], owner))
    runs = np.empty(len(order), dtype=RUN)
    for name in RUN.names or ():
        runs[name] = file_runs[name][order]
    return runs, np.bincount(owner, minlength=count)
