r"""PostgreSQL's configuration files: what a restore takes out and puts in.

Source of the grammar: PostgreSQL's `src/backend/utils/misc/guc-file.l`. A line is
empty, a comment, or `name [=] value [# comment]`; a value in single quotes may hold
`''` and backslash escapes; `include`, `include_if_exists` and `include_dir` pull in
other files.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import PostgresRefused
from drkit.postgres.files import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    ReadInclude = Callable[[str, str], list[tuple[str, str]]]

RECOVERY_SETTINGS = frozenset(
    {
        "archive_cleanup_command",
        "recovery_end_command",
        "recovery_min_apply_delay",
        "recovery_target",
        "recovery_target_action",
        "recovery_target_inclusive",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_timeline",
        "recovery_target_xid",
        "restore_command",
    }
)
"""What steers a recovery, and must not outlive the one it was written for.

`recovery_min_apply_delay` is among them because it holds up a point-in-time recovery as
well as a standby. `primary_conninfo` and `primary_slot_name` are not: they do nothing
without `standby.signal`, and whoever makes a standby of a restored directory needs
them.
"""

_MAX_DEPTH = 10  # CONF_FILE_MAX_DEPTH
_SETTING = re.compile(
    r"""\s*(?P<name>[A-Za-z_\x80-\U0010ffff][\w$.\x80-\U0010ffff]*)
        \s*=?\s*
        (?P<value>'(?:[^'\\]|\\.|'')*'|[^\s#'=]\S*?)?
        \s*(?:\#.*)?\s*\Z""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"''|\\([0-7]{1,3}|.)")
_NAMED_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_INCLUDES = frozenset({"include", "include_if_exists", "include_dir"})


class FoundSetting(NamedTuple):
    """Where a configuration file sets something; `name` in lower case."""

    file: str
    line: int
    name: str


def strip_recovery_settings(auto_conf_text: str) -> str:
    """Return a `postgresql.auto.conf` without the settings of an earlier recovery.

    Every other line stays as it is, comments included.
    """
    kept = [
        line
        for line in auto_conf_text.splitlines(keepends=True)
        if _name_of(line) not in RECOVERY_SETTINGS
    ]
    return "".join(kept)


def find_recovery_settings(
    file: str, text: str, read_include: ReadInclude
) -> list[FoundSetting]:
    """Find where a configuration sets what only the restore may set.

    Commented lines don't count; a value of `''` does: PostgreSQL takes it as clearing
    the target and still refuses it beside another.

    Args:
        file: the path of the file, for messages and as the base of relative includes.
        text: its content.
        read_include: given a directive (`include`, …) and an absolute path, returns the
            paths and contents to go on with; `read_includes_from_disk` is one.

    Raises:
        PostgresRefused: files include each other without end.
    """
    every = _walk(file, text, read_include, 0)
    return [found for found, _ in every if found.name in RECOVERY_SETTINGS]


def effective_settings(
    file: str, text: str, read_include: ReadInclude
) -> dict[str, str]:
    """Return what a configuration file and those it includes set; the last one counts.

    Args:
        file: as for `find_recovery_settings`, like the others.
        text: its content.
        read_include: reads what it includes.

    Raises:
        PostgresRefused: files include each other without end.
    """
    every = _walk(file, text, read_include, 0)
    return {found.name: value for found, value in every}


def _walk(
    file: str, text: str, read_include: ReadInclude, depth: int
) -> Iterator[tuple[FoundSetting, str]]:
    """Yield every setting with its value, in the order in which PostgreSQL reads."""
    if depth > _MAX_DEPTH:
        raise PostgresRefused(
            f"configuration files include each other too deeply at {file}",
            hint=f"PostgreSQL follows {_MAX_DEPTH} levels; break the loop",
        )
    for number, line in enumerate(text.splitlines(), start=1):
        name = _name_of(line)
        if name in _INCLUDES:
            path = os.path.join(os.path.dirname(file), _value_of(line))
            for included, content in read_include(name, path):
                yield from _walk(included, content, read_include, depth + 1)
        elif name:
            yield FoundSetting(file, number, name), _value_of(line)


def read_includes_from_disk(directive: str, path: str) -> list[tuple[str, str]]:
    """Read what an include directive names, in the order in which PostgreSQL does.

    Raises:
        PostgresRefused: a file that must be there is missing or unreadable.
    """
    try:
        if directive == "include_dir":
            names = sorted(
                name
                for name in os.listdir(path)
                if name.endswith(".conf") and not name.startswith(".")
            )
            paths = [os.path.join(path, name) for name in names]
            texts = [name for name in paths if not os.path.isdir(name)]
            return [(name, read_text(name, follow=True)) for name in texts]
        return [(path, read_text(path, follow=True))]
    except FileNotFoundError:
        if directive == "include_if_exists":
            return []
        raise PostgresRefused(
            f"the configuration includes {path}, which is not there",
            hint="put the file there, or take the line out of the configuration",
        ) from None
    except OSError as error:
        raise PostgresRefused(
            f"cannot read {path}, which the configuration includes: {error.strerror}"
        ) from error


def quote_setting(value: str) -> str:
    r"""Write a value for a configuration file, in single quotes.

    A quoted string there may not run over a line's end, so line feeds become `\n`.

    Raises:
        ValueError: the value holds a zero byte.
    """
    if "\0" in value:
        raise ValueError("a setting can't hold a zero byte")
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return "'" + escaped.replace("\n", "\\n").replace("\r", "\\r") + "'"


def unquote_setting(text: str) -> str:
    """Return what PostgreSQL understands by a value as it stands in a file."""
    if not text.startswith("'"):
        return text
    return _ESCAPE.sub(_unescape, text[1:-1])


def _unescape(match: re.Match[str]) -> str:
    escaped = match[1]
    if escaped is None:
        return "'"
    if escaped[0] in "01234567":
        return chr(int(escaped, 8))
    return _NAMED_ESCAPES.get(escaped, escaped)


def render_recovery(settings: Mapping[str, str]) -> str:
    """Write recovery settings as lines for the end of `postgresql.auto.conf`."""
    lines = [f"{name} = {quote_setting(value)}" for name, value in settings.items()]
    return "\n".join(["# Recovery settings written by drkit restore", *lines, ""])


def _name_of(line: str) -> str:
    match = _SETTING.match(line)
    return match["name"].lower() if match is not None else ""


def _value_of(line: str) -> str:
    match = _SETTING.match(line)
    assert match is not None
    return unquote_setting(match["value"] or "")
