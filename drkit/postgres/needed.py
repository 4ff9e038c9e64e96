"""The settings that a server needs so that drkit can protect it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from drkit.postgres.configuration import quote_setting
from drkit.postgres.readiness import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.postgres.connection import Connection

_NAMES = (
    "archive_mode",
    "archive_command",
    "archive_library",
    "archive_timeout",
    "wal_level",
    "max_wal_senders",
    "summarize_wal",
)
_AT_START = "postmaster"


class Need(StrEnum):
    """How a setting stands."""

    RIGHT = "right"
    NEEDED = "needed"
    SUGGESTED = "suggested"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that matters, as it is and as it should be.

    Attributes:
        restart: whether a change takes a restart of the server, not only a reload.
        reason: why it matters, as a clause.
    """

    name: str
    current: str
    wanted: str
    need: Need
    restart: bool
    reason: str

    @property
    def line(self) -> str:
        """The line for postgresql.conf."""
        return f"{self.name} = {quote_setting(self.wanted)}"

    @property
    def statement(self) -> str:
        """The SQL statement that sets it."""
        value = self.wanted.replace("'", "''")
        return f"ALTER SYSTEM SET {self.name} = '{value}';"


def needed_settings(
    connection: Connection, command: str, policy_path: str, source: str
) -> tuple[Setting, ...]:
    """Compare the server's settings with what archiving and backups need.

    Args:
        command: the archive_command for this policy.
        policy_path: the policy's file; another drkit command is right if it names it.
        source: `local` or `stream`.
    """
    found = read_settings(connection, _NAMES)
    values = {name: value for name, (value, _) in found.items()}
    wanted = {
        name: (value, need, reason)
        for name, value, need, reason in _wishes(values, command, policy_path, source)
    }
    return tuple(
        Setting(name, values[name], value, need, found[name][1] == _AT_START, reason)
        for name, (value, need, reason) in wanted.items()
    )


def _wishes(
    values: dict[str, str], command: str, policy_path: str, source: str
) -> Iterator[tuple[str, str, Need, str]]:
    """Yield name, wanted value, need and reason of each setting that matters."""
    mode = values["archive_mode"]
    archiving = mode in ("on", "always")
    yield (
        "archive_mode",
        mode if archiving else "on",
        _need(right=archiving),
        "without it no WAL is archived",
    )
    current = values["archive_command"]
    ours = archives_to(current, policy_path, command)
    yield (
        "archive_command",
        current if ours else command,
        _need(right=ours),
        "it stores each WAL segment in the repository",
    )
    if values.get("archive_library"):
        why = "a library is used instead of archive_command"
        yield "archive_library", "", Need.NEEDED, why
    level = values["wal_level"]
    yield (
        "wal_level",
        "replica" if level == "minimal" else level,
        _need(right=level != "minimal"),
        "WAL of level minimal can't be recovered from",
    )
    if source == "stream" and values["max_wal_senders"] == "0":
        why = "a streamed backup takes a WAL sender"
        yield "max_wal_senders", "10", Need.NEEDED, why
    if values["archive_timeout"] == "0":
        why = "a quiet cluster's newest changes are archived within a minute"
        yield "archive_timeout", "60s", Need.SUGGESTED, why
    if values.get("summarize_wal") == "off":
        why = "incremental backups find changed pages without reading all others"
        yield "summarize_wal", "on", Need.SUGGESTED, why


def archives_to(current: str, policy_path: str, command: str) -> bool:
    """Say whether an archive_command stores WAL by this policy."""
    if current == command:
        return True
    if "drkit" not in current or "wal push" not in current:
        return False
    # Without --policy, drkit finds the policy by the system identifier.
    return "--policy" not in current or policy_path in current


def _need(*, right: bool) -> Need:
    return Need.RIGHT if right else Need.NEEDED
