"""Restoring a backup to a directory: plan, then execute the plan.

Nothing is written to the repository, and nothing but the repository, its keys and the
target is needed.
"""

from __future__ import annotations

import os
import stat
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, NoSpace, StorageError, UsageError
from drkit.model.log_wal import unsigned_note
from drkit.model.manifest import CONTROL_FILE, FileKind
from drkit.operations.backup_wal import refuse_changed_wal
from drkit.operations.choice import choose
from drkit.operations.delta import Patched, patch_files
from drkit.operations.delta_plan import DeltaPlan, existing_directory, plan_delta
from drkit.operations.expiry import telling_expiry, warn_of_expiry
from drkit.operations.filling import write_files
from drkit.operations.recovery import (
    copy_settings,
    disable_settings,
    foreign_settings,
    recovery_settings,
)
from drkit.ownership import acting_as
from drkit.postgres.configuration import render_recovery, strip_recovery_settings
from drkit.postgres.control import invalidate_checkpoint
from drkit.postgres.existing_checks import holds_anything
from drkit.postgres.existing_directory import ExistingDirectory
from drkit.postgres.target_checks import (
    check_space,
    refuse_unless_free,
    refuse_unless_free_tablespace,
)
from drkit.postgres.target_directory import TargetDirectory
from drkit.repository.chain import read_chain
from drkit.repository.unpacking import PackReader
from drkit.writing import room_left

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drkit.model.backup import BackupSummary
    from drkit.model.owner import Owner
    from drkit.model.pagemap import PageMap
    from drkit.model.recovery import RecoveryTarget
    from drkit.operations.choice import Choice
    from drkit.postgres.configuration import FoundSetting
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository

_GLOBAL = os.path.dirname(CONTROL_FILE)
_DISK_BLOCK = 4096
_AUTO_CONF = b"postgresql.auto.conf"
_CONF = b"postgresql.conf"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore, where to, and how.

    Attributes:
        label: a label, a unique prefix of one, `latest`, or None to let the target
            choose.
        to: the data directory to fill, absolute.
        tablespaces: new places by old ones.
        tablespaces_in: a directory where those that are not named there go, each by its
            OID; empty leaves them where they were.
        restore_command: as it goes into the recovery settings.
        owner: whose the cluster becomes where this is root, which acts as the owner
            in the target.
        delta: the directory may be the cluster's own; what fits the backup stays.
    """

    label: str | None
    target: RecoveryTarget
    to: str
    tablespaces: Mapping[str, str]
    jobs: int
    restore_command: str
    owner: Owner | None
    delta: bool = False
    tablespaces_in: str = ""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Everything a restore will do; printing it is the whole of `--plan`.

    Attributes:
        tablespaces: by oid, where each goes.
        settings: the recovery settings in the order they are written.
        disabled: recovery settings in the backup's own configuration, which are
            another recovery's; they are commented out.
        write_bytes, fetch_bytes: content to write, and stored objects to read.
        control: what `global/pg_control` will hold; that it could be read also proves
            the keys before anything is touched.
        delta: what has to go from an existing data directory; None where there is
            none, and everything is written.
        notes: what a person should know, beside those of choice and delta.
    """

    request: RestoreRequest
    choice: Choice
    page_map: PageMap
    tablespaces: dict[int, str]
    settings: dict[str, str]
    disabled: tuple[FoundSetting, ...]
    write_bytes: int
    fetch_bytes: int
    control: bytes = field(repr=False)
    delta: DeltaPlan | None = None
    notes: tuple[str, ...] = ()

    @property
    def backup(self) -> BackupSummary:
        """The backup that is restored."""
        return self.choice.commit.backup


def plan_restore(repository: Repository, request: RestoreRequest) -> RestorePlan:
    """Choose the backup, check that target and room are there; change nothing.

    Raises:
        NotFound, TargetUnreachable, Corrupt, KeyUnavailable: of the backup.
        TargetNotEmpty, NoSpace: of the target.
        UsageError: a tablespace mapping fits no tablespace.
    """
    with acting_as(request.owner):
        existing = request.delta and holds_anything(request.to)
        if not existing:
            refuse_unless_free(request.to)
    choice = _choose(repository, request)
    with telling_expiry(repository, choice.commit.backup.label, "read"):
        return _plan(repository, request, choice, existing=existing)


def _choose(repository: Repository, request: RestoreRequest) -> Choice:
    """Choose the backup; one that was asked for may expire at that moment."""
    if request.label is None:
        return choose(repository, None, request.target)
    label = repository.find(request.label).backup.label
    with telling_expiry(repository, label, "read"):
        return choose(repository, label, request.target)


def _plan(
    repository: Repository, request: RestoreRequest, choice: Choice, *, existing: bool
) -> RestorePlan:
    refuse_changed_wal(repository, choice.commit.backup)
    page_map = read_chain(repository, choice.commit)
    tablespaces = _map_tablespaces(page_map, request)
    delta = None
    if existing:
        delta = plan_delta(repository, page_map, request.to, tablespaces, request.owner)
    else:
        with acting_as(request.owner):
            for place in tablespaces.values():
                refuse_unless_free_tablespace(place, request.to)
    needed = _needed(page_map, request.to, tablespaces)
    with acting_as(request.owner):
        check_space(needed, request.to, needed if existing else ())
    settings = recovery_settings(
        request.target, choice.history.timeline, request.restore_command
    )
    settings |= copy_settings(page_map.head)
    _need_keys(repository, page_map)
    reader = PackReader(repository, page_map)
    foreign = foreign_settings(page_map, reader, request.to)
    return RestorePlan(
        request,
        choice,
        page_map,
        tablespaces,
        settings,
        tuple(foreign),
        page_map.content_bytes(),
        reader.fetched_bytes(),
        _read_control(page_map, reader),
        delta,
        tuple(_notes(repository, choice)),
    )


def _notes(repository: Repository, choice: Choice) -> Iterator[str]:
    size = choice.commit.backup.wal_segment_size
    names = (segment.name(size) for segment in choice.reach.segments)
    note = unsigned_note(repository.wal.trust().since, names)
    if note is not None:
        yield note


def execute_restore(
    repository: Repository, plan: RestorePlan, progress: Progress
) -> Patched | None:
    """Fill the directory; `global/pg_control` comes last.

    Returns:
        What an existing data directory lacked; None where there was none.

    Raises:
        Corrupt: a pack is missing or damaged; the directory stays marked incomplete.
        BackupExpired: another host has expired it meanwhile; likewise.
        NoSpace, StorageError: of the target or the repository.
    """
    request, page_map = plan.request, plan.page_map
    patched = None
    target = _target(plan)
    left = f"{request.to} is incomplete, and no server starts in it"
    with (
        closing(target),
        _explained(request.to, in_place=plan.delta is not None),
        telling_expiry(repository, plan.backup.label, "restored", left),
    ):
        progress.phase("prepare")
        target.begin()
        directories = _make_directories(target, page_map)
        if isinstance(target, ExistingDirectory):
            patched = patch_files(repository, page_map, target, progress, request.jobs)
        else:
            progress.phase("fetch", plan.write_bytes)
            write_files(repository, page_map, target, progress, request.jobs)
        progress.phase("finish")
        _write_recovery(target, plan)
        target.set_mode(_directory_mode(page_map))
        last = {path: directories.pop(path) for path in {_GLOBAL} & directories.keys()}
        target.settle_directories(directories)
        target.put_last(CONTROL_FILE, plan.control, _directory_mode(page_map) & 0o660)
        target.settle_directories(last)
        target.complete()
    warn_of_expiry(repository, plan.backup.label, progress)
    return patched


def _target(plan: RestorePlan) -> TargetDirectory:
    request = plan.request
    if plan.delta is None:
        return TargetDirectory(request.to, plan.tablespaces, request.owner)
    return existing_directory(
        plan.page_map, request.to, plan.tablespaces, request.owner
    )


def _need_keys(repository: Repository, page_map: PageMap) -> None:
    """Unwrap the keys of the whole chain, before the target is touched."""
    for manifest in page_map.layers:
        repository.keyring.get("backup", bytes.fromhex(manifest.head.dek_id))


def _map_tablespaces(page_map: PageMap, request: RestoreRequest) -> dict[int, str]:
    there = {one.path: one.oid for one in page_map.head.tablespaces if not one.in_place}
    for old in request.tablespaces:
        if old not in there:
            known = ", ".join(sorted(there)) or "none"
            raise UsageError(
                f"the backup has no tablespace at {old}",
                hint=f"its tablespaces are: {known}",
            )
    places = {
        oid: request.tablespaces.get(old) or _own_place(request, old, oid)
        for old, oid in there.items()
    }
    target = os.path.join(request.to, "")
    for place in places.values():
        inside = os.path.join(place, "").startswith(target)
        if not os.path.isabs(place) or os.path.normpath(place) != place or inside:
            raise UsageError(
                f"{place} can't be a tablespace's place",
                hint="give an absolute path outside of the data directory",
            )
    if len(set(places.values())) != len(places):
        raise UsageError("two tablespaces can't go to one place")
    return places


def _own_place(request: RestoreRequest, old: str, oid: int) -> str:
    within = request.tablespaces_in
    return os.path.join(within, str(oid)) if within else old


def _needed(
    page_map: PageMap, directory: str, tablespaces: Mapping[int, str]
) -> dict[str, int]:
    """Return the bytes that go to each directory."""
    needed = {directory: 0} | dict.fromkeys(tablespaces.values(), 0)
    roots = {f"pg_tblspc/{oid}/".encode(): place for oid, place in tablespaces.items()}
    sizes = page_map.files["size"].tolist()
    for path, size in zip(page_map.paths, sizes, strict=True):
        place = directory
        if roots and path.startswith(b"pg_tblspc/"):
            prefix = b"/".join(path.split(b"/", 2)[:2]) + b"/"
            place = roots.get(prefix, directory)
        needed[place] += -(-size // _DISK_BLOCK) * _DISK_BLOCK
    return needed


def _make_directories(target: TargetDirectory, page_map: PageMap) -> dict[bytes, int]:
    """Make the cluster's directories, parents first; return their modes.

    Until everything is in them, their owner may change them whatever their modes say.
    """
    kinds = page_map.files["kind"].tolist()
    modes = page_map.files["mode"].tolist()
    made: dict[bytes, int] = {}
    for path, kind, mode in zip(page_map.paths, kinds, modes, strict=True):
        if kind == FileKind.DIRECTORY and not target.is_link(path):
            target.make_directory(path, mode | stat.S_IRWXU)
            made[path] = mode
    target.link_tablespaces()
    return made


def _write_recovery(target: TargetDirectory, plan: RestorePlan) -> None:
    """Write what tells the server to recover, and how far."""
    head = plan.page_map.head
    mode = _directory_mode(plan.page_map) & 0o660
    label = head.backup_label.encode(errors="surrogateescape")
    target.write(b"backup_label", label, mode)
    if plan.tablespaces:
        lines = [f"{oid} {_escaped(at)}\n" for oid, at in plan.tablespaces.items()]
        target.write(b"tablespace_map", os.fsencode("".join(lines)), mode)
    auto_conf = target.read(_AUTO_CONF).decode(errors="surrogateescape")
    auto_conf = strip_recovery_settings(auto_conf) + render_recovery(plan.settings)
    target.write(_AUTO_CONF, auto_conf.encode(errors="surrogateescape"), mode)
    target.write(b"recovery.signal", b"", mode)
    _disable(target, plan)


def _disable(target: TargetDirectory, plan: RestorePlan) -> None:
    by_file: dict[str, set[int]] = {}
    for one in plan.disabled:
        by_file.setdefault(one.file, set()).add(one.line)
    for file, lines in by_file.items():
        path = os.fsencode(os.path.relpath(file, plan.request.to))
        text = target.read(path).decode(errors="surrogateescape")
        changed = disable_settings(text, lines).encode(errors="surrogateescape")
        target.write(path, changed, _directory_mode(plan.page_map) & 0o660)


def _read_control(page_map: PageMap, reader: PackReader) -> bytes:
    number = page_map.find(CONTROL_FILE)
    if number is None:
        raise Corrupt(
            f"backup {page_map.head.label} has no {CONTROL_FILE.decode()}",
            hint="choose another backup; `drkit info` lists them",
        )
    return invalidate_checkpoint(reader.file(number))


def _escaped(place: str) -> str:
    """Escape a path for `tablespace_map`, whose lines PostgreSQL unescapes."""
    for character in ("\\", "\n", "\r"):
        place = place.replace(character, "\\" + character)
    return place


def _directory_mode(page_map: PageMap) -> int:
    return 0o750 if page_map.head.server.group_access else 0o700


class _explained:  # noqa: N801  a context manager reads as a word
    """Turns operating-system errors of the target into errors a person can act on."""

    def __init__(self, directory: str, *, in_place: bool) -> None:
        self._directory = directory
        self._again = "then run the same command again: it "
        if in_place:
            self._again += "compares once more, and finishes"
        else:
            self._again += "clears what is there and starts over"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if not isinstance(error, OSError):
            return
        again, place = self._again, self._directory
        what = f"restoring to {self._directory} failed: {error.strerror}"
        if isinstance(error.filename, str | bytes):
            name = os.fsdecode(error.filename)
            what += f" ({name})"
            place = os.path.dirname(os.path.join(place, name))
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            # A failed write names no file, and a tablespace may lie on another disk.
            what += f", at {place}{room_left(place)}"
            raise NoSpace(what, hint=f"free some room, {again}") from error
        raise StorageError(what, hint=f"mend what the error says, {again}") from error
