"""May a restore overwrite this data directory? Only the cluster's own, and at rest."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, PostgresRefused, SourceUnreadable, TargetNotEmpty
from drkit.model.manifest import CONTROL_FILE
from drkit.postgres.control import ControlFile, read_control
from drkit.postgres.running import server_that_uses
from drkit.postgres.target_checks import (
    is_incomplete,
    marked_tablespaces,
    names_in,
    refuse_unless_idle,
)

if TYPE_CHECKING:
    from collections.abc import Collection

_ELSEWHERE = "restore to an empty directory, without --delta"
_VERSION = re.compile(r"PG_\d+_\d+\Z")
_IN_WAL = re.compile(
    r"(?:[0-9A-F]{24}(?:\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history"
    r"|archive_status|summaries|xlogtemp\.\d+|RECOVERYXLOG|RECOVERYHISTORY|lost\+found)"
    r"\Z"
)


def holds_anything(directory: str) -> bool:
    """Say whether there is a directory that is not empty.

    Raises:
        DrkitError: this user may not look.
    """
    return os.path.isdir(directory) and bool(names_in(directory))


def refuse_unless_replaceable(directory: str, system_identifier: str) -> None:
    """Refuse a directory but the backed-up cluster's own, or an incomplete restore.

    A mark beside a control file proves nothing: a server may have run there since.

    Raises:
        TargetNotEmpty: says why it is not to be touched.
    """
    refuse_unless_idle(directory)
    _refuse_foreign_owner(directory)
    control_file = os.path.join(directory, CONTROL_FILE.decode())
    if is_incomplete(directory) and not os.path.lexists(control_file):
        return
    control = control_of(directory)
    if control.system_identifier != int(system_identifier):
        raise TargetNotEmpty(
            f"{directory} is another cluster's: its system identifier is "
            f"{control.system_identifier}, the backup's {system_identifier}",
            hint=_ELSEWHERE,
        )


def control_of(directory: str) -> ControlFile:
    """Return the control file of what looks like a data directory.

    Raises:
        TargetNotEmpty: it does not look like one.
    """
    for name in ("PG_VERSION", CONTROL_FILE.decode()):
        if not os.path.isfile(os.path.join(directory, name)):
            raise TargetNotEmpty(
                f"{directory} is not empty, and no data directory: it has no {name}",
                hint=_ELSEWHERE,
            )
    try:
        return read_control(os.path.join(directory, CONTROL_FILE.decode()))[0]
    except (Corrupt, PostgresRefused, SourceUnreadable) as error:
        raise TargetNotEmpty(
            f"it can't be told whose data directory {directory} is: {error.message}",
            hint=_ELSEWHERE,
        ) from error


def refuse_unless_own_tablespace(place: str, directory: str) -> None:
    """Refuse a tablespace's place that is neither free nor this data directory's.

    Raises:
        TargetNotEmpty: says which.
    """
    if not os.path.lexists(place):
        return
    if not os.path.isdir(place):
        raise TargetNotEmpty(
            f"{place}, for a tablespace, is no directory",
            hint="choose another place: --tablespace-map OLD=NEW",
        )
    _refuse_foreign_owner(place)
    if not names_in(place):
        return
    if not _is_linked(place, directory):
        raise TargetNotEmpty(
            f"{place}, for a tablespace, is not empty, and not one of {directory}",
            hint="empty it, or choose another place: --tablespace-map OLD=NEW",
        )
    pid = server_that_uses(place)
    if pid is not None:
        raise TargetNotEmpty(
            f"{place}, for a tablespace, is in use by a running server, process {pid}",
            hint="stop it, or choose another place: --tablespace-map OLD=NEW",
        )


def is_shared(place: str) -> bool:
    """Say whether a tablespace's place holds more than one server's directory."""
    names = names_in(place)
    return len(names) > 1 or not all(_VERSION.match(name) for name in names)


def tablespace_links(directory: str) -> dict[str, str]:
    """Return where the links in `pg_tblspc` lead, by their names."""
    above = os.path.join(directory, "pg_tblspc")
    if os.path.islink(above) or not os.path.isdir(above):
        return {}
    paths = {name: os.path.join(above, name) for name in sorted(names_in(above))}
    return {
        name: os.readlink(path) for name, path in paths.items() if os.path.islink(path)
    }


def wal_place(directory: str, owners: Collection[int]) -> str | None:
    """Return the directory that `pg_wal` links to, if it may be emptied.

    That is when it belongs to one of the owners, holds nothing but what a server keeps
    there, and no running server uses it: a copied data directory has the original's
    link.
    """
    link = os.path.join(directory, "pg_wal")
    if not os.path.islink(link) or not os.path.isdir(link):
        return None
    place = os.path.realpath(link)
    if os.stat(place).st_uid not in owners or server_that_uses(place) is not None:
        return None
    return place if all(_IN_WAL.match(name) for name in names_in(place)) else None


def _is_linked(place: str, directory: str) -> bool:
    known = [
        *tablespace_links(directory).values(),
        *marked_tablespaces(directory),
        *marked_tablespaces(directory, "shared"),
    ]
    return any(os.path.realpath(one) == os.path.realpath(place) for one in known)


def _refuse_foreign_owner(directory: str) -> None:
    user, owner = os.geteuid(), os.stat(directory).st_uid
    if user not in (0, owner):
        raise TargetNotEmpty(
            f"{directory} belongs to the user with number {owner}",
            hint="only that user, or root, may restore over it",
        )
