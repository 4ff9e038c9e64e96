"""What a running server says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.lsn import Lsn

if TYPE_CHECKING:
    from drkit.protocols import ServerSession

# One statement, so that everything is of one moment. A standby has no current LSN to
# write at, and its last checkpoint may be of an older timeline than what it replays.
_TIMELINE = """
        CASE WHEN pg_is_in_recovery()
            THEN greatest(c.timeline_id, r.min_recovery_end_timeline)
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
        END
"""
_ONLY_TIMELINE = f"""
    SELECT {_TIMELINE} FROM pg_control_checkpoint() AS c, pg_control_recovery() AS r
"""  # noqa: S608  made of constants
_FACTS = f"""
    SELECT
        current_setting('server_version_num')::int,
        s.system_identifier,
        i.bytes_per_wal_segment,
        i.database_block_size,
        i.data_page_checksum_version,
        current_setting('data_directory'),
        current_setting('data_directory_mode'),
        pg_is_in_recovery(),
        {_TIMELINE},
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_lsn() END::text,
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_insert_lsn() END::text,
        current_setting('archive_mode'),
        -- shown as "(disabled)" while archiving is off; its reset value is not
        (SELECT reset_val FROM pg_settings WHERE name = 'archive_command'),
        coalesce(current_setting('archive_library', true), ''),
        current_setting('wal_level'),
        current_setting('config_file'),
        current_setting('hba_file'),
        current_setting('ident_file'),
        current_setting('server_encoding'),
        coalesce(current_setting('summarize_wal', true), 'off') = 'on'
    FROM pg_control_system() AS s, pg_control_init() AS i,
        pg_control_checkpoint() AS c, pg_control_recovery() AS r
"""  # noqa: S608  made of constants
UTC_NOW = (
    """to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')"""
)
_TABLESPACES = """
    SELECT oid::bigint, spcname::text, pg_tablespace_location(oid)
    FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid
"""


class Tablespace(NamedTuple):
    """A tablespace besides the two of every cluster.

    Attributes:
        location: the directory; relative (`pg_tblspc/…`) if it lies in the cluster's.
    """

    oid: int
    name: str
    location: str


@dataclass(frozen=True)
class ServerFacts:
    """What a running server says of itself.

    Attributes:
        version_num: as in 160004.
        wal_segment_size: in bytes, as `block_size` is.
        in_recovery: whether this is a standby.
        timeline: the one being written, or replayed.
        current_lsn: written so far; on a standby replayed so far.
        insert_lsn: the end of what is in the WAL buffers; on a standby as before.
        data_directory_mode: permission bits, as in 0o700.
        summarize_wal: whether the server notes which blocks change; from 17 on.
    """

    version_num: int
    system_identifier: int
    wal_segment_size: int
    block_size: int
    data_checksums: bool
    data_directory: str
    data_directory_mode: int
    in_recovery: bool
    timeline: int
    current_lsn: Lsn
    insert_lsn: Lsn
    archive_mode: str
    archive_command: str
    archive_library: str
    wal_level: str
    config_file: str
    hba_file: str
    ident_file: str
    server_encoding: str
    summarize_wal: bool
    tablespaces: tuple[Tablespace, ...]

    @property
    def major_version(self) -> int:
        """The first part of the version, as in 16."""
        return self.version_num // 10000


def read_timeline(session: ServerSession) -> int:
    """Ask the server for the timeline that it writes, or replays.

    Raises:
        PostgresUnreachable: the session was lost.
    """
    return int(session.query(_ONLY_TIMELINE)[0][0])


def read_facts(session: ServerSession) -> ServerFacts:
    """Ask the server what a backup must know of it.

    Raises:
        PostgresRefused: the role may not see the settings.
        PostgresUnreachable: the session was lost.
    """
    row = session.query(_FACTS)[0]
    spaces = session.query(_TABLESPACES)
    return ServerFacts(
        version_num=row[0],
        system_identifier=row[1],
        wal_segment_size=row[2],
        block_size=row[3],
        data_checksums=row[4] != 0,
        data_directory=row[5],
        data_directory_mode=int(row[6], 8),
        in_recovery=row[7],
        timeline=row[8],
        current_lsn=Lsn.parse(row[9]),
        insert_lsn=Lsn.parse(row[10]),
        archive_mode=row[11],
        archive_command=row[12],
        archive_library=row[13],
        wal_level=row[14],
        config_file=row[15],
        hba_file=row[16],
        ident_file=row[17],
        server_encoding=row[18],
        summarize_wal=row[19],
        tablespaces=tuple(Tablespace(*space) for space in spaces),
    )


def read_time(session: ServerSession) -> datetime:
    """Ask for the server's time, which the commits in its WAL carry, in UTC.

    Raises:
        PostgresUnreachable: the session was lost.
    """
    return parse_time(session.query(f"SELECT {UTC_NOW}")[0][0])


def parse_time(text: str) -> datetime:
    """Return the time that `UTC_NOW` stands for."""
    return datetime.fromisoformat(f"{text}+00:00")
