"""A server as a manifest describes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from drkit.errors import PostgresRefused
from drkit.model.head import ServerDescription
from drkit.model.page import PAGE

if TYPE_CHECKING:
    from drkit.postgres.facts import ServerFacts
    from drkit.protocols import ServerSession

_CONTROL = """
    SELECT s.catalog_version_no, s.pg_control_version, i.blocks_per_segment
    FROM pg_control_system() AS s, pg_control_init() AS i
"""
_GROUP_READ = 0o050


def describe(session: ServerSession, facts: ServerFacts) -> ServerDescription:
    """Return what a restore needs to know of the server.

    Raises:
        PostgresRefused: its pages have another size than drkit can verify.
    """
    catalog, control, blocks = session.query(_CONTROL)[0]
    if facts.block_size != PAGE:
        raise PostgresRefused(
            f"the server was built with pages of {facts.block_size} bytes; drkit reads "
            f"{PAGE}"
        )
    return ServerDescription(
        system_identifier=str(facts.system_identifier),
        version=facts.version_num,
        catalog_version=catalog,
        control_version=control,
        block_size=facts.block_size,
        relation_segment_size=blocks,
        wal_segment_size=facts.wal_segment_size,
        data_checksums=facts.data_checksums,
        group_access=bool(facts.data_directory_mode & _GROUP_READ),
        config_file=_outside(facts.config_file, facts.data_directory),
    )


def _outside(path: str, directory: str) -> str:
    """Return `path` if it lies outside of `directory`, as on Debian; else nothing."""
    inside = os.path.realpath(path).startswith(os.path.realpath(directory) + os.sep)
    return "" if inside or path.startswith(directory + os.sep) else path


def refuse_unless_backupable(facts: ServerFacts, system_identifier: str) -> None:
    """Refuse a server whose backup would not be this policy's, or not restorable.

    Raises:
        PostgresRefused: says what is in the way.
    """
    if str(facts.system_identifier) != system_identifier:
        raise PostgresRefused(
            f"the server has system identifier {facts.system_identifier}, the policy "
            f"says {system_identifier}",
            hint="the URL points at another cluster, or this one was upgraded or made "
            "anew; then put the new identifier into the policy",
        )
    if facts.in_recovery:
        return  # its primary archives; the wait for WAL shows whether it does
    if facts.archive_mode == "off" or facts.wal_level == "minimal":
        raise PostgresRefused(
            f"the server does not archive WAL (archive_mode={facts.archive_mode}, "
            f"wal_level={facts.wal_level}), so a backup of it could not be restored",
            hint="`drkit check` prints the settings that it needs",
        )
