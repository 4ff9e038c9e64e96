"""The settings with which a restored server recovers to its target."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from drkit.model.manifest import FileKind
from drkit.model.recovery import TargetKind
from drkit.postgres.configuration import (
    FoundSetting,
    find_recovery_settings,
)

if TYPE_CHECKING:
    from drkit.model.head import ManifestHead
    from drkit.model.pagemap import PageMap
    from drkit.model.recovery import RecoveryTarget
    from drkit.repository.unpacking import PackReader

_MAX_CONFIGURATION = 1 << 20
_NEUTRAL = {
    "archive_cleanup_command": "",
    "recovery_end_command": "",
    "recovery_min_apply_delay": "0",
}


def recovery_settings(
    target: RecoveryTarget, timeline: int, restore_command: str
) -> dict[str, str]:
    """Return the settings, as a DBA would write them, in order.

    The timeline is a number always: `latest` would follow whatever branch an earlier
    recovery left behind.
    """
    settings = {"restore_command": restore_command}
    settings |= _target_setting(target)
    settings["recovery_target_timeline"] = str(timeline)
    if target.kind is not TargetKind.LATEST:
        settings["recovery_target_action"] = str(target.action)
        if target.kind in (TargetKind.TIME, TargetKind.LSN, TargetKind.XID):
            inclusive = "on" if target.inclusive else "off"
            settings["recovery_target_inclusive"] = inclusive
    return settings


def copy_settings(head: ManifestHead) -> dict[str, str]:
    """Return what a copy of this cluster needs to recover, whatever the target.

    A configuration file outside of the data directory can't be edited for the copy, so
    its recovery settings are overridden. Recovery stops at in-place tablespaces unless
    they are allowed (`CheckTablespaceDirectory` in `xlogrecovery.c`).
    """
    settings = dict(_NEUTRAL) if head.server.config_file else {}
    if any(one.in_place for one in head.tablespaces):
        settings["allow_in_place_tablespaces"] = "on"
    return settings


def _target_setting(target: RecoveryTarget) -> dict[str, str]:
    match target.kind:
        case TargetKind.IMMEDIATE:
            return {"recovery_target": "immediate"}
        case TargetKind.TIME if target.time is not None:
            # isoformat keeps microseconds and the offset, which PostgreSQL reads.
            return {"recovery_target_time": target.time.isoformat(sep=" ")}
        case TargetKind.LSN:
            return {"recovery_target_lsn": str(target.lsn)}
        case TargetKind.XID:
            return {"recovery_target_xid": str(target.xid)}
        case TargetKind.NAME if target.name is not None:
            return {"recovery_target_name": target.name}
        case _:
            return {}


def foreign_settings(
    page_map: PageMap, reader: PackReader, directory: str
) -> list[FoundSetting]:
    """Return where the restored configuration sets what is left of other recoveries.

    PostgreSQL refuses to start with two targets, even where one of them is empty, and
    would run another recovery's commands. Files outside of the data directory are not
    in the backup and are not looked at.
    """

    def text(path: str) -> str | None:
        inside = os.path.relpath(path, directory)
        number = page_map.find(inside.encode(errors="surrogateescape"))
        if number is None or page_map.files["kind"][number] != FileKind.FILE:
            return None
        if int(page_map.files["size"][number]) > _MAX_CONFIGURATION:
            return None
        return reader.file(number).decode(errors="surrogateescape")

    def read_include(directive: str, path: str) -> list[tuple[str, str]]:
        paths = [path]
        if directive == "include_dir":
            paths = _configuration_files(page_map, directory, path)
        texts = ((one, text(one)) for one in paths)
        return [(one, content) for one, content in texts if content is not None]

    main = os.path.join(directory, "postgresql.conf")
    return find_recovery_settings(main, text(main) or "", read_include)


def _configuration_files(page_map: PageMap, directory: str, path: str) -> list[str]:
    """Return the files that `include_dir` of a directory means, in their order."""
    inside = os.path.relpath(path, directory).encode(errors="surrogateescape")
    return [
        os.path.join(path, name.decode(errors="surrogateescape"))
        for parent, name in map(os.path.split, page_map.paths)
        if parent == inside and name.endswith(b".conf") and not name.startswith(b".")
    ]


def disable_settings(text: str, lines: set[int]) -> str:
    """Comment out the given lines, counted from 1, and say who did."""
    kept = text.splitlines(keepends=True)
    for line in lines:
        kept[line - 1] = f"# commented out by drkit restore: {kept[line - 1]}"
    return "".join(kept)
