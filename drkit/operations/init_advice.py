"""What a person must know who sets a cluster up, or can't log in for it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, PostgresRefused
from drkit.operations.init_site import SIGNING
from drkit.ownership import acting_as, owner_of
from drkit.postgres.control import read_control
from drkit.postgres.readiness import login_lines, making_a_role
from drkit.repository.layout import REPOSITORY
from drkit.rights import user_name

if TYPE_CHECKING:
    from drkit.operations.init_site import InitRequest, Site
    from drkit.postgres.facts import ServerFacts

_PLAIN_ROLE = re.compile(r"[a-z_][a-z0-9_]*")
_NEWEST_NAMES = 150000  # of functions; which version it is, nobody knows before a login


def explain_login(error: PostgresRefused, user: str, source: str) -> PostgresRefused:
    """Return a refused login with what makes the role, should it not be there yet.

    Args:
        user: the role's name.
    """
    name = user if _PLAIN_ROLE.fullmatch(user) else '"' + user.replace('"', '""') + '"'
    statements = " ".join(making_a_role(name, _NEWEST_NAMES, source))
    lines = "; ".join(login_lines(name, source))
    return PostgresRefused(
        error.message,
        hint=f"if there is no such role yet, let a superuser run in that database: "
        f"{statements} For logins through the socket without a password, put in front "
        f"of the other lines: {lines}; then reload the server",
    )


def is_here(facts: ServerFacts) -> bool:
    """Say whether the server's files are on this host, and readable."""
    path = os.path.join(facts.data_directory, "global", "pg_control")
    try:
        with acting_as(owner_of(facts.data_directory)):
            control, _ = read_control(path)
    except (DrkitError, OSError):
        return False
    return control.system_identifier == facts.system_identifier


def init_warnings(request: InitRequest, facts: ServerFacts, site: Site) -> list[str]:
    """Say what may keep archive_command, which runs as the server, from working."""
    folder = os.path.dirname(site.key_path(SIGNING))
    copy = (
        f"keep a copy of the keys in {folder} away from this host: without them no "
        "backup can be read, by anybody"
    )
    found = [copy]
    variables = [text[4:] for text in request.s3.values() if text.startswith("env:")]
    if variables:
        found.append(
            f"the server's environment must hold {' and '.join(variables)} too, for "
            "its archive_command; or put them into files (mode 0600) and refer to "
            "those in the policy"
        )
    if not is_here(facts):
        found.append(
            "the server is on another host: its archive_command needs drkit, this "
            "policy and its keys there"
        )
        return found
    status = os.stat(facts.data_directory)
    if os.geteuid() not in (0, status.st_uid):
        found.append(
            f"the server runs as uid {status.st_uid}, which can't read the keys that "
            f"uid {os.geteuid()} wrote; let it own them, or its archive_command fails"
        )
    if site.keeps_keys():
        name = user_name(status.st_uid)
        found.append(
            f"the keys belong to root; {name} can read those that archiving needs, and "
            "no other: run backups, restores and verifications as root"
        )
    paths = [site.policy_path, site.key_path(SIGNING)]
    if request.repository_url.startswith("file://"):
        root = request.repository_url.removeprefix("file://").rstrip("/")
        paths.append(os.path.join(root, REPOSITORY))
    for path in paths:
        barrier = _barrier(path, status.st_uid, status.st_gid)
        if barrier is not None:
            found.append(
                f"the server runs as uid {status.st_uid} and may not enter {barrier}, "
                f"so that its archive_command can't get at {path}"
            )
    return found


def _barrier(path: str, uid: int, gid: int) -> str | None:
    """Return the first directory above `path` that its mode closes to a user."""
    parts = os.path.dirname(path).split("/")
    for count in range(2, len(parts) + 1):
        directory = "/".join(parts[:count])
        found = os.stat(directory)
        shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
        if not found.st_mode >> shift & 1:
            return directory
    return None
