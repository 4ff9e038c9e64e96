"""The settings of a scratch instance.

Nothing of the restored configuration is in force but what is taken over here by name:
what the results of queries depend on, and libraries that reach nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from drkit.postgres.control import ControlFile

TAKEN_OVER = (
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "datestyle",
    "default_text_search_config",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "search_path",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
)
"""What the results of queries depend on, as text or in content."""

HARMLESS_LIBRARIES = frozenset(
    {
        "auto_explain",
        "pg_hint_plan",
        "pg_qualstats",
        "pg_stat_kcache",
        "pg_stat_statements",
        "pgaudit",
        "plpgsql",
        "plpgsql_check",
    }
)
"""Libraries that start no worker and reach nothing outside of the server.

Every other one is left out: a scheduler would run production's jobs, a replication
worker would eat from production's peers.
"""

LOG_LINE_PREFIX = "%n "
"""Seconds since the epoch; `drkit.postgres.scratch_log` reads them."""

_KB, _MB = 1 << 10, 1 << 20
_SMALLEST_BUFFERS, _LARGEST_BUFFERS = 16 * _MB, 8192 * _MB
_ISOLATING = {
    "archive_cleanup_command": "",
    "archive_command": "",
    "archive_mode": "off",
    "external_pid_file": "",
    "hot_standby": "off",  # nor does recovery end where production raised a limit
    "listen_addresses": "",
    "local_preload_libraries": "",
    "max_logical_replication_workers": "0",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "recovery_end_command": "",
    "recovery_min_apply_delay": "0",
    "recovery_target_action": "promote",
    "session_preload_libraries": "",
    "ssl": "off",
    "synchronous_standby_names": "",
}
_ISOLATING_SINCE = {
    "archive_library": (15, ""),
    "event_triggers": (17, "off"),
    "io_method": (18, "worker"),  # io_uring would go around the filter of calls
    "summarize_wal": (17, "off"),
    "sync_replication_slots": (17, "off"),
}
_HONEST = {  # or damage would not be seen
    "ignore_checksum_failure": "off",
    "zero_damaged_pages": "off",
}
_SESSION = _HONEST | {
    "default_transaction_read_only": "off",
    "local_preload_libraries": "",
    "role": "none",
    "session_preload_libraries": "",
}
_CALM = {
    "autovacuum": "off",  # what is looked at stays as it was restored
    "cluster_name": "drkit-scratch",
    "dynamic_shared_memory_type": "mmap",  # files of its own, gone with the rest
    "min_dynamic_shared_memory": "0",
    "shared_memory_type": "mmap",  # of System V's only what tells that it runs
    "unix_socket_group": "",
    "unix_socket_permissions": "0777",  # as `drkit.postgres.sandbox.seccomp` knows it
    "huge_pages": "off",  # those of this host are reserved for somebody
    "jit": "off",
    "restart_after_crash": "off",
    "wal_level": "replica",
}
_LOGGING = {
    "lc_messages": "C",
    "log_destination": "stderr",
    "log_line_prefix": LOG_LINE_PREFIX,
    "log_min_messages": "warning",
    "logging_collector": "off",
}
_MOST_PREPARED = 64
_FEWEST_CONNECTIONS = 20  # for the checks, beside the reserved ones
_WAL_SEGMENTS_KEPT = 5


@dataclass(frozen=True, slots=True)
class ScratchSettings:
    """How a scratch instance is configured.

    Attributes:
        forced: for the command line, which wins over every file.
        taken: from production, for the scratch instance's own configuration file.
        deviations: what differs from production, each a sentence.
    """

    forced: dict[str, str]
    taken: dict[str, str]
    deviations: tuple[str, ...]


def scratch_settings(
    production: Mapping[str, str],
    control: ControlFile,
    major: int,
    memory: int,
    installed: Collection[str],
) -> ScratchSettings:
    """Return the settings for a restored cluster.

    `fsync` stays on: the time that recovery takes is measured, and must be one that a
    real recovery could have.

    Args:
        production: what the restored configuration files set, names in lower case.
        control: of the restored cluster; the limits are at least its own.
        major: PostgreSQL's version.
        memory: bytes that the server may use.
        installed: the libraries that this installation has.
    """
    libraries = _names(production.get("shared_preload_libraries", ""))
    kept = [one for one in libraries if _loadable(one, installed)]
    forced = _ISOLATING | isolating_since(major) | _CALM | _LOGGING | _limits(control)
    forced |= _HONEST | _memory(memory) | _wal(control)
    forced["shared_preload_libraries"] = ",".join(kept)
    if major >= 15:
        forced["log_startup_progress_interval"] = "10s"
    taken = {name: production[name] for name in TAKEN_OVER if name in production}
    deviations = [
        *_left_out(libraries, kept, installed),
        *_not_preloaded(production),
        *_smaller(production, forced),
    ]
    return ScratchSettings(forced, taken, tuple(deviations))


def isolating_since(major: int) -> dict[str, str]:
    """Return the isolating settings that only newer versions have."""
    return {
        name: value
        for name, (since, value) in _ISOLATING_SINCE.items()
        if major >= since
    }


def must_be(major: int) -> dict[str, str]:
    """Return what a running scratch instance must show, by setting."""
    return _ISOLATING | isolating_since(major)


def session_settings(major: int) -> dict[str, str]:
    """Return what each session asks for itself.

    ALTER DATABASE and ALTER ROLE are in the restored catalogs and win over the command
    line, but not over the session's own wish.
    """
    return _SESSION | ({"event_triggers": "off"} if major >= 17 else {})


def reader_settings(major: int) -> dict[str, str]:
    """Return what a role that is no superuser gets from one: it may not ask for it.

    What belongs to a role wins over what belongs to a database.
    """
    given = _HONEST | {"session_preload_libraries": ""}
    return given | ({"event_triggers": "off"} if major >= 17 else {})


def _limits(control: ControlFile) -> dict[str, str]:
    """Return production's limits: recovery needs as many as were in use there."""
    prepared = max(control.max_prepared_transactions, _MOST_PREPARED)
    connections = max(control.max_connections, _FEWEST_CONNECTIONS)
    return {
        "max_connections": str(connections),
        "max_worker_processes": str(control.max_worker_processes),
        "max_wal_senders": str(control.max_wal_senders),
        "max_prepared_transactions": str(prepared),
        "max_locks_per_transaction": str(control.max_locks_per_transaction),
        "track_commit_timestamp": "on" if control.track_commit_timestamp else "off",
    }


def _memory(memory: int) -> dict[str, str]:
    buffers = min(max(memory // 4, _SMALLEST_BUFFERS), _LARGEST_BUFFERS)
    return {
        "shared_buffers": f"{buffers // _KB}kB",
        "maintenance_work_mem": f"{max(memory // 8, 16 * _MB) // _KB}kB",
        "work_mem": f"{max(memory // 64, 4 * _MB) // _KB}kB",
    }


def _wal(control: ControlFile) -> dict[str, str]:
    """Return limits that fit the size of the WAL's segments; 1 GB is the default."""
    least = _WAL_SEGMENTS_KEPT * control.wal_segment_size // _MB
    return {
        "min_wal_size": f"{max(least, 2)}MB",
        "max_wal_size": f"{max(2 * least, 1024)}MB",
    }


def _names(value: str) -> list[str]:
    """Split a list of libraries; also quoted names hold no commas in practice."""
    return [name for part in value.split(",") if (name := part.strip(' "'))]


def _loadable(name: str, installed: Collection[str]) -> bool:
    plain = name.removeprefix("$libdir/").removesuffix(".so")
    return plain in HARMLESS_LIBRARIES and plain in installed


def _left_out(
    libraries: list[str], kept: list[str], installed: Collection[str]
) -> list[str]:
    """Say which preloaded libraries are missing, and why."""
    return [
        f"the library {name} of shared_preload_libraries is left out: "
        + (
            "it may start workers or reach outside"
            if name.removeprefix("$libdir/").removesuffix(".so") in installed
            else "it is not installed here"
        )
        for name in libraries
        if name not in kept
    ]


def _not_preloaded(production: Mapping[str, str]) -> list[str]:
    return [
        f"{name} = {production[name]} is left out"
        for name in ("session_preload_libraries", "local_preload_libraries")
        if production.get(name)
    ]


def _smaller(production: Mapping[str, str], forced: Mapping[str, str]) -> list[str]:
    """Say what the time of recovery depends on and is another one here."""
    buffers = production.get("shared_buffers")
    if buffers in (None, forced["shared_buffers"]):
        return []
    return [f"shared_buffers is {forced['shared_buffers']}, in production {buffers}"]
