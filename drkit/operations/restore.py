"""Restoring a backup to a directory: plan, then execute the plan.

Nothing is written to the repository, and nothing but the repository, its keys and the
target is needed.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from drkit import workers
from drkit.errors import Corrupt, NoSpace, StorageError, UsageError
from drkit.model.manifest import CONTROL_FILE, FileKind
from drkit.operations.choice import choose
from drkit.operations.recovery import (
    disable_settings,
    foreign_targets,
    read_restored_configuration,
    recovery_settings,
)
from drkit.postgres.configuration import render_recovery, strip_recovery_settings
from drkit.postgres.control import invalidate_checkpoint
from drkit.postgres.target_directory import (
    TargetDirectory,
    check_space,
    refuse_unless_free,
    refuse_unless_free_tablespace,
)
from drkit.repository.repository import read_manifest
from drkit.repository.unpacking import PackReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drkit.model.backup import BackupSummary
    from drkit.model.manifest import Manifest
    from drkit.model.recovery import RecoveryTarget
    from drkit.operations.choice import Choice
    from drkit.postgres.configuration import FoundSetting
    from drkit.postgres.target_directory import Owner
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository

_OPEN_FILES = 64  # kept open by each worker: a relation's runs come in a row
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
        restore_command: as it goes into the recovery settings.
        owner: given when running as root.
    """

    label: str | None
    target: RecoveryTarget
    to: str
    tablespaces: Mapping[str, str]
    jobs: int
    restore_command: str
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Everything a restore will do; printing it is the whole of `--plan`.

    Attributes:
        tablespaces: by oid, where each goes.
        settings: the recovery settings in the order they are written.
        disabled: settings in the backup's own configuration that PostgreSQL would
            refuse beside ours; they are commented out.
        write_bytes, fetch_bytes: content to write, and stored objects to read.
    """

    request: RestoreRequest
    choice: Choice
    manifest: Manifest
    tablespaces: dict[int, str]
    settings: dict[str, str]
    disabled: tuple[FoundSetting, ...]
    write_bytes: int
    fetch_bytes: int

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
    refuse_unless_free(request.to)
    choice = choose(repository, request.label, request.target)
    manifest = read_manifest(repository, choice.commit.manifest)
    tablespaces = _map_tablespaces(manifest, request)
    for place in tablespaces.values():
        refuse_unless_free_tablespace(place, request.to)
    check_space(_needed(manifest, request.to, tablespaces))
    reader = PackReader(repository, manifest)
    settings = recovery_settings(
        request.target, choice.history.timeline, request.restore_command
    )
    configuration = read_restored_configuration(manifest, reader)
    foreign = foreign_targets(configuration, request.to, settings)
    return RestorePlan(
        request,
        choice,
        manifest,
        tablespaces,
        settings,
        tuple(foreign),
        manifest.content_bytes(),
        choice.commit.backup.stored_bytes,
    )


def execute_restore(
    repository: Repository, plan: RestorePlan, progress: Progress
) -> None:
    """Fill the directory; `global/pg_control` comes last.

    Raises:
        Corrupt: a pack is missing or damaged; the directory stays marked incomplete.
        NoSpace, StorageError: of the target or the repository.
    """
    request, manifest = plan.request, plan.manifest
    target = TargetDirectory(request.to, plan.tablespaces, request.owner)
    with closing(target), _explained(request.to):
        progress.phase("prepare")
        target.begin()
        directories = _make_directories(target, manifest)
        progress.phase("fetch", plan.write_bytes)
        _write_files(repository, plan, target, progress)
        progress.phase("finish")
        _write_recovery(target, plan)
        target.set_mode(_directory_mode(manifest))
        target.sync_directories(directories)
        _write_control(target, repository, manifest)
        target.sync_directories([b"global"])
        target.complete()


def _map_tablespaces(manifest: Manifest, request: RestoreRequest) -> dict[int, str]:
    there = {one.path: one.oid for one in manifest.head.tablespaces if not one.in_place}
    for old in request.tablespaces:
        if old not in there:
            known = ", ".join(sorted(there)) or "none"
            raise UsageError(
                f"the backup has no tablespace at {old}",
                hint=f"its tablespaces are: {known}",
            )
    places = {oid: request.tablespaces.get(old, old) for old, oid in there.items()}
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


def _needed(
    manifest: Manifest, directory: str, tablespaces: Mapping[int, str]
) -> dict[str, int]:
    """Return the bytes that go to each directory."""
    needed = {directory: 0} | dict.fromkeys(tablespaces.values(), 0)
    roots = {f"pg_tblspc/{oid}/".encode(): place for oid, place in tablespaces.items()}
    sizes = manifest.files["size"].tolist()
    for path, size in zip(manifest.paths, sizes, strict=True):
        place = directory
        if roots and path.startswith(b"pg_tblspc/"):
            prefix = b"/".join(path.split(b"/", 2)[:2]) + b"/"
            place = roots.get(prefix, directory)
        needed[place] += size
    return needed


def _make_directories(target: TargetDirectory, manifest: Manifest) -> list[bytes]:
    """Make the cluster's directories, parents first; return them."""
    kinds = manifest.files["kind"].tolist()
    modes = manifest.files["mode"].tolist()
    made: list[bytes] = []
    for path, kind, mode in zip(manifest.paths, kinds, modes, strict=True):
        if kind == FileKind.DIRECTORY and not target.is_tablespace(path):
            target.make_directory(path, mode)
            made.append(path)
    target.link_tablespaces()
    return made


def _write_files(
    repository: Repository,
    plan: RestorePlan,
    target: TargetDirectory,
    progress: Progress,
) -> None:
    writing = _Writing(plan.manifest, target, progress)
    packs: queue.SimpleQueue[int] = queue.SimpleQueue()
    for pack in range(len(plan.manifest.packs)):
        packs.put(pack)

    def work(stop: workers.Stop) -> None:
        reader = PackReader(repository, plan.manifest)
        with closing(_OpenFiles(writing)) as files:
            while not stop.is_set():
                try:
                    pack = packs.get_nowait()
                except queue.Empty:
                    return
                _write_pack(reader, pack, files, stop)

    workers.run([work] * plan.request.jobs)
    writing.write_empty()


def _write_pack(
    reader: PackReader, pack: int, files: _OpenFiles, stop: workers.Stop
) -> None:
    for runs, plain in reader.frames(pack):
        if stop.is_set():
            return
        for number, position, offset, length in runs:
            files.write(number, position, plain[offset : offset + length])


class _Writing:
    """What the workers of one restore share: which files still lack runs."""

    def __init__(
        self, manifest: Manifest, target: TargetDirectory, progress: Progress
    ) -> None:
        self.manifest = manifest
        self.target = target
        self._progress = progress
        self._lock = threading.Lock()
        self._left = manifest.files["runs"].tolist()
        self._left_out = {
            number
            for number, kind in enumerate(manifest.files["kind"].tolist())
            if kind != FileKind.FILE or manifest.paths[number] == CONTROL_FILE
        }

    def wanted(self, number: int) -> bool:
        """Say whether a file is written here: `pg_control` and attachments are not."""
        return number not in self._left_out

    def wrote(self, number: int, count: int) -> bool:
        """Count a run; say whether it was its file's last."""
        self._progress.advance(count)
        with self._lock:
            self._left[number] -= 1
            return bool(self._left[number] == 0)

    def finish(self, number: int, descriptor: int) -> None:
        """Make a file whose runs are all written whole and durable."""
        row = self.manifest.files[number]
        size, mode, mtime = int(row["size"]), int(row["mode"]), int(row["mtime"])
        if os.fstat(descriptor).st_size != size:
            os.ftruncate(descriptor, size)  # a hole at the end
        self.target.finish(descriptor, mode, mtime)

    def write_empty(self) -> None:
        """Make the files that have no run at all."""
        for number in np.flatnonzero(self.manifest.files["runs"] == 0).tolist():
            if self.wanted(number):
                mode = int(self.manifest.files[number]["mode"])
                descriptor = self.target.open(self.manifest.paths[number], mode)
                try:
                    self.finish(number, descriptor)
                finally:
                    os.close(descriptor)


class _OpenFiles:
    """One worker's open files, the least recently used closed first."""

    def __init__(self, writing: _Writing) -> None:
        self._writing = writing
        self._open: OrderedDict[int, int] = OrderedDict()

    def write(self, number: int, position: int, data: memoryview) -> None:
        """Write a run where it belongs."""
        if not self._writing.wanted(number):
            return
        descriptor = self._descriptor(number)
        at, view = position, data
        while view:
            count = os.pwrite(descriptor, view, at)
            at, view = at + count, view[count:]
        # Starts writing to disk now, so that the fsync at the end finds little to do.
        os.posix_fadvise(descriptor, position, len(data), os.POSIX_FADV_DONTNEED)
        if self._writing.wrote(number, len(data)):
            self._writing.finish(number, descriptor)
            os.close(self._open.pop(number))

    def close(self) -> None:
        """Close what is open."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _descriptor(self, number: int) -> int:
        if number not in self._open:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            manifest = self._writing.manifest
            mode = int(manifest.files[number]["mode"])
            self._open[number] = self._writing.target.open(manifest.paths[number], mode)
        self._open.move_to_end(number)
        return self._open[number]


def _write_recovery(target: TargetDirectory, plan: RestorePlan) -> None:
    """Write what tells the server to recover, and how far."""
    head = plan.manifest.head
    mode = _directory_mode(plan.manifest) & 0o660
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
        target.write(path, changed, _directory_mode(plan.manifest) & 0o660)


def _write_control(
    target: TargetDirectory, repository: Repository, manifest: Manifest
) -> None:
    number = manifest.find(CONTROL_FILE)
    if number is None:
        raise Corrupt(
            f"backup {manifest.head.label} has no {CONTROL_FILE.decode()}",
            hint="choose another backup; `drkit info` lists them",
        )
    content = PackReader(repository, manifest).file(number)
    mode = int(manifest.files[number]["mode"])
    target.put_last(CONTROL_FILE, invalidate_checkpoint(content), mode)


def _escaped(place: str) -> str:
    """Escape a path for `tablespace_map`, whose lines PostgreSQL unescapes."""
    for character in ("\\", "\n", "\r"):
        place = place.replace(character, "\\" + character)
    return place


def _directory_mode(manifest: Manifest) -> int:
    return 0o750 if manifest.head.server.group_access else 0o700


class _explained:  # noqa: N801  a context manager reads as a word
    """Turns operating-system errors of the target into errors a person can act on."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if not isinstance(error, OSError):
            return
        again = (
            "then run the same command again: it clears what is there and starts over"
        )
        what = f"restoring to {self._directory} failed: {error.strerror}"
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise NoSpace(what, hint=f"free some room, {again}") from error
        raise StorageError(what, hint=f"mend what the error says, {again}") from error
