"""The settings with which a restored server recovers to its target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.recovery import TargetKind
from drkit.postgres.configuration import (
    FoundSetting,
    find_recovery_settings,
)

if TYPE_CHECKING:
    from drkit.model.manifest import Manifest
    from drkit.model.recovery import RecoveryTarget
    from drkit.repository.unpacking import PackReader

_MAX_CONFIGURATION = 1 << 20
_TARGETS = frozenset(
    {
        "recovery_target",
        "recovery_target_time",
        "recovery_target_lsn",
        "recovery_target_xid",
        "recovery_target_name",
    }
)


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


def read_restored_configuration(
    manifest: Manifest, reader: PackReader
) -> dict[str, str]:
    """Return the text of every configuration file in the backup, by path."""
    texts: dict[str, str] = {}
    for number, path in enumerate(manifest.paths):
        small = int(manifest.files["size"][number]) <= _MAX_CONFIGURATION
        if path.endswith(b".conf") and small and path != b"postgresql.auto.conf":
            text = reader.file(number).decode(errors="surrogateescape")
            texts[path.decode(errors="surrogateescape")] = text
    return texts


def foreign_targets(
    texts: dict[str, str], directory: str, settings: dict[str, str]
) -> list[FoundSetting]:
    """Return where the restored configuration sets another recovery target than ours.

    PostgreSQL refuses to start with two, even where one of them is empty; ours
    overrides only the same one. Files outside of the data directory are not in the
    backup and are not looked at.
    """
    main = "postgresql.conf"
    if main not in texts:
        return []

    def read_include(directive: str, path: str) -> list[tuple[str, str]]:
        inside = path.removeprefix(f"{directory}/")
        if directive != "include_dir":
            return [(path, texts[inside])] if inside in texts else []
        prefix = inside.rstrip("/") + "/"
        return [
            (f"{directory}/{name}", text)
            for name, text in sorted(texts.items())
            if name.startswith(prefix) and "/" not in name[len(prefix) :]
        ]

    found = find_recovery_settings(f"{directory}/{main}", texts[main], read_include)
    return [one for one in found if one.name in _TARGETS and one.name not in settings]


def disable_settings(text: str, lines: set[int]) -> str:
    """Comment out the given lines, counted from 1, and say who did."""
    kept = text.splitlines(keepends=True)
    for line in lines:
        kept[line - 1] = f"# commented out by drkit restore: {kept[line - 1]}"
    return "".join(kept)
