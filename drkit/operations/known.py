"""What earlier verifications found damaged, and none has found sound since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import Corrupt, ObjectNotFound
from drkit.model.wal import WalFileKind, WalFileName, parse_segment
from drkit.operations.windows import Lost
from drkit.repository.findings import finding_names, read_finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from drkit.model.wal import Segment
    from drkit.repository.findings import Findings
    from drkit.repository.repository import Repository


def known_objects(repository: Repository) -> set[str]:
    """Return the names of objects that are known to be damaged."""
    names: set[str] = set()
    for findings in _readable(repository):
        for pack in findings.packs:
            place = (pack.label, pack.attempt, pack.pack)
            names.add(repository.layout.pack(*place))
        names |= set(findings.wal)
    return names


def known_losses(repository: Repository) -> Lost:
    """Return what is known to be lost of WAL and of the backups there were then."""
    segments: set[Segment] = set()
    backups: dict[str, str] = {}
    for findings in _readable(repository):
        segments |= set(_segments(repository, findings.wal))
        for pack in findings.packs:
            name = repository.layout.pack(pack.label, pack.attempt, pack.pack)
            reason = f"a verification found {name} damaged"
            backups |= {label: backups.get(label, reason) for label in pack.backups}
    return Lost(segments, backups)


def _readable(repository: Repository) -> Iterator[Findings]:
    """Yield the findings there are; only a verification tells of damaged ones."""
    for name in finding_names(repository):
        try:
            yield read_finding(repository, name)
        except (Corrupt, ObjectNotFound):
            continue


def _segments(repository: Repository, names: Iterable[str]) -> Iterator[Segment]:
    opened = repository.log.state.opened
    for name in names:
        file = WalFileName.parse(name.rpartition("/")[2])
        if file.kind is WalFileKind.SEGMENT and opened is not None:
            yield parse_segment(file.name, opened.segment_size)
