"""What a restore over an existing data directory finds there, before it touches it."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import DrkitError
from drkit.model.manifest import CONTROL_FILE, FileKind
from drkit.model.wal import WalFileName
from drkit.operations.filling import LEFT_OUT
from drkit.ownership import ROOT, acting_as
from drkit.postgres.control import ClusterState
from drkit.postgres.existing_checks import (
    control_of,
    refuse_unless_own_tablespace,
    refuse_unless_replaceable,
    tablespace_links,
    wal_place,
)
from drkit.postgres.existing_directory import ExistingDirectory, owners
from drkit.postgres.leftover_wal import unarchived_segments
from drkit.postgres.surplus import made_by_server
from drkit.postgres.target_checks import is_incomplete

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drkit.model.owner import Owner
    from drkit.model.pagemap import PageMap
    from drkit.postgres.control import ControlFile
    from drkit.postgres.surplus import Kinds, Surplus
    from drkit.repository.repository import Repository

_SHOWN = 5
_AT_REST = (ClusterState.SHUT_DOWN, ClusterState.SHUT_DOWN_IN_RECOVERY)


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """What is in the directory and has to go.

    Attributes:
        delete_files, delete_bytes: files that the backup does not have, and what they
            take on disk.
        foreign: those of them that PostgreSQL did not make, from the data directory.
        notes: what a person should know before it is too late.
    """

    delete_files: int
    delete_bytes: int
    foreign: tuple[str, ...]
    notes: tuple[str, ...]


def existing_directory(
    page_map: PageMap, to: str, tablespaces: Mapping[int, str], owner: Owner | None
) -> ExistingDirectory:
    """Return the directory that a backup is restored over."""
    system = page_map.head.server.system_identifier
    return ExistingDirectory(to, tablespaces, owner, system, kinds_of(page_map))


def kinds_of(page_map: PageMap) -> Kinds:
    """Return what tells the kind of what a restore makes from a backup at a path."""
    kinds = page_map.files["kind"]

    def kind(path: bytes) -> FileKind | None:
        number = page_map.find(path)
        if number is None or path in LEFT_OUT:
            return None
        found = FileKind(kinds[number])
        return None if found is FileKind.ATTACHMENT else found

    return kind


def plan_delta(
    repository: Repository,
    page_map: PageMap,
    to: str,
    tablespaces: Mapping[int, str],
    owner: Owner | None,
) -> DeltaPlan:
    """Check that a directory may be overwritten, and say what it would lose.

    Raises:
        TargetNotEmpty: it is not this cluster's data directory, or in use.
    """
    with acting_as(owner):
        refuse_unless_replaceable(to, page_map.head.server.system_identifier)
        for place in tablespaces.values():
            refuse_unless_own_tablespace(place, to)
        with closing(existing_directory(page_map, to, tablespaces, owner)) as target:
            try:
                target.look()
                found = list(target.surplus())
            except OSError as error:
                raise DrkitError(
                    f"can't look through {to}: {error.strerror}"
                ) from error
        notes = (
            *_notes(repository, to),
            *_of_links(to, tablespaces, owner),
            *_of_replaced(found, to),
        )
    gone = [one for one in found if not (one.directory or one.replaced)]
    gone = [one for one in gone if one.path != CONTROL_FILE]
    size = sum(one.size for one in found)
    return DeltaPlan(len(gone), size, _foreign(gone, tablespaces), notes)


def _foreign(gone: list[Surplus], tablespaces: Mapping[int, str]) -> tuple[str, ...]:
    links = {f"pg_tblspc/{oid}".encode() for oid in tablespaces}
    paths = [one.path for one in gone if one.path not in links]
    found = sorted(path for path in paths if not made_by_server(path))
    return tuple(os.fsdecode(path) for path in found)


def _notes(repository: Repository, to: str) -> Iterator[str]:
    yield (
        "--delta compares every file with the backup and writes what differs; how much "
        "that is shows only then"
    )
    if is_incomplete(to):
        yield f"{to} is an incomplete restore; this one finishes it"
    if os.path.lexists(os.path.join(to, os.fsdecode(CONTROL_FILE))):
        yield from _of_control(repository, to, control_of(to))


def _of_control(repository: Repository, to: str, control: ControlFile) -> Iterator[str]:
    if control.state not in _AT_REST:
        yield (
            f"the server of {to} was not shut down: it crashed, or it runs on another "
            "host or in another container, which can't be seen from here; make sure"
        )
    lost = _only_here(repository, to, control)
    if lost:
        yield (
            f"WAL in {to}/pg_wal that is not archived will be deleted: "
            f"{_few(lost)}; to keep it, copy it away or archive it first with "
            "`drkit wal push`"
        )


def _only_here(repository: Repository, to: str, control: ControlFile) -> list[str]:
    """Return the WAL segments of a data directory that the repository lacks."""
    segments = unarchived_segments(to, control)
    names = [one.name(control.wal_segment_size) for one in segments]
    with acting_as(ROOT):  # the repository need not be the owner's
        has = repository.wal.has
        return [name for name in names if not has(WalFileName.parse(name))]


def _of_links(
    to: str, tablespaces: Mapping[int, str], owner: Owner | None
) -> Iterator[str]:
    wal = os.path.join(to, "pg_wal")
    if os.path.islink(wal):
        place = wal_place(to, owners(owner))
        if place is not None:
            yield f"pg_wal stays a link to {place}, which is emptied"
        else:
            yield (
                f"pg_wal is a link to {os.readlink(wal)}, which is not this cluster's "
                "alone; a directory takes the link's place, and nothing there is "
                "deleted"
            )
    for oid, place in tablespace_links(to).items():
        if place not in tablespaces.values():
            yield (
                f"the tablespace at {place} ({oid}) stays as it is, since this restore "
                "writes nothing there; if WAL that is replayed makes it anew, empty it "
                "before the server starts"
            )


def _of_replaced(found: list[Surplus], to: str) -> Iterator[str]:
    for one in found:
        if one.replaced and one.link and one.path != b"pg_wal":
            path = os.fsdecode(one.path)
            yield (
                f"{path} is a link to {os.readlink(os.path.join(to, path))}; what the "
                "backup has takes the link's place, and nothing there is touched"
            )


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
