"""Making a restored data directory ready to be run as a scratch instance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, PostgresRefused, StorageError
from drkit.ownership import acting_as
from drkit.postgres.configuration import (
    RECOVERY_SETTINGS,
    effective_settings,
    quote_setting,
    render_recovery,
)
from drkit.postgres.control import read_control
from drkit.postgres.files import read_text
from drkit.postgres.private_directory import owner_for
from drkit.postgres.restored_configuration import (
    installed_libraries,
    production_settings,
)
from drkit.postgres.sandbox.confinement import Confinement
from drkit.postgres.scratch_log import rejected_settings
from drkit.postgres.scratch_settings import scratch_settings

if TYPE_CHECKING:
    from drkit.model.owner import Owner
    from drkit.postgres.process import Account
    from drkit.postgres.server import ThrowawayServer

_HBA = "local all all trust\n"  # in a directory that is the server's user's alone
_AUTO_CONF = "postgresql.auto.conf"
_RECOVERY = RECOVERY_SETTINGS | {"allow_in_place_tablespaces"}
_LEAST_DATA_LIMIT = 512 << 20
_TELLS_SHARED_MEMORY = 15
_OTHER_SHARED_MEMORY = 1 << 30


def prepare(
    server: ThrowawayServer,
    directory: str,
    writable: tuple[str, ...],
    account: Account,
    memory: int,
) -> tuple[str, ...]:
    """Give a server its settings and confine it; nothing of production's is left.

    Args:
        server: not started, over a data directory that a restore has filled.
        directory: the private one; configuration files go there.
        writable: what the server may write to, beside its data and its socket.
        account: whom the server runs as.
        memory: bytes that it may use.

    Returns:
        What differs from production, a sentence each.

    Raises:
        DrkitError: the data directory was not restored to be recovered.
        StorageError: a configuration file can't be written.
        PostgresRefused: the server refuses its settings.
    """
    files = _Files(directory, owner_for(account))
    with acting_as(files.owner):
        control = read_control(f"{server.data_directory}/global/pg_control")[0]
        _neutralize(Path(server.data_directory), files)
        restored = Path(directory, _AUTO_CONF)
        production, missing = production_settings(server.data_directory, restored)
    libraries = installed_libraries(server.binaries)
    major = server.binaries.major
    chosen = scratch_settings(production, control, major, memory, libraries)
    server.settings = chosen.forced | {
        "hba_file": files.write("pg_hba.conf", _HBA),
        "ident_file": files.write("pg_ident.conf", ""),
        "config_file": files.write("postgresql.conf", ""),
    }
    server.confinement = confinement = Confinement(
        server.binaries,
        account,
        directory,
        (server.data_directory, server.directory, *writable),
        memory=max(memory, _LEAST_DATA_LIMIT),
        shared=memory,
    )
    refused = _take_over(server, dict(chosen.taken), files)
    server.confinement = replace(confinement, shared=_shared_memory(server, memory))
    return (*chosen.deviations, *missing, *refused)


def _shared_memory(server: ThrowawayServer, memory: int) -> int:
    """Return the bytes of shared memory that a server will map.

    Since PostgreSQL 15 it says so itself; before, its buffers are the largest part, and
    they are a quarter of its memory.
    """
    if server.binaries.major < _TELLS_SHARED_MEMORY:
        return memory + _OTHER_SHARED_MEMORY
    asked = _arguments(server, "shared_memory_size")
    return int(server.run_tool("postgres", *asked).stdout) << 20


@dataclass(frozen=True, slots=True)
class _Files:
    """Writes files of a private directory, as the server's user, whose it is."""

    directory: str
    owner: Owner

    def write(self, name: str, text: str) -> str:
        path = Path(self.directory, name)
        try:
            with acting_as(self.owner):
                path.touch(0o600)
                path.write_text(text, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise StorageError(f"can't write {path}: {error.strerror}") from error
        return str(path)


def _neutralize(data: Path, files: _Files) -> None:
    """Leave nothing in the data directory's own settings but what recovery needs.

    `postgresql.auto.conf` is read whatever the command line says. What stood there is
    kept in the private directory, for whoever looks into a failure.
    """
    if not (data / "recovery.signal").exists():
        raise DrkitError(f"{data} was not restored to be recovered")
    (data / "standby.signal").unlink(missing_ok=True)  # follows without end
    path = data / _AUTO_CONF
    found = read_text(str(path))
    files.write(_AUTO_CONF, found)
    every = effective_settings(str(path), found, lambda *_: [])
    mine = {name: value for name, value in every.items() if name in _RECOVERY}
    text = render_recovery(mine)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


def _take_over(
    server: ThrowawayServer, taken: dict[str, str], files: _Files
) -> list[str]:
    """Write production's settings, but for those that this host does not know."""
    left_out: list[str] = []
    while True:
        lines = [f"{name} = {quote_setting(value)}\n" for name, value in taken.items()]
        files.write("postgresql.conf", "".join(lines))
        refused = _refused_settings(server, taken)
        left_out += [
            f"{name} = {taken[name]} is unknown on this host and left out"
            for name in refused
        ]
        taken = {name: taken[name] for name in taken if name not in refused}
        if not refused:
            return left_out


def _refused_settings(server: ThrowawayServer, taken: dict[str, str]) -> list[str]:
    """Ask a server, without starting it, what of its configuration file it refuses.

    Raises:
        PostgresRefused: it refuses something else.
    """
    try:
        server.run_tool("postgres", *_arguments(server, "port"))
    except DrkitError as error:
        refused = rejected_settings(error.message) & taken.keys()
        if refused:
            return sorted(refused)
        raise PostgresRefused(
            f"the scratch instance can't be configured: {error.message}",
            hint="this is a bug of drkit; please report it",
        ) from error
    return []


def _arguments(server: ThrowawayServer, asked: str) -> list[str]:
    """Return what makes a server tell one setting, and not start."""
    settings = (f"{name}={value}" for name, value in server.settings.items())
    words = [word for setting in settings for word in ("-c", setting)]
    return [f"-D{server.data_directory}", f"-C{asked}", *words]
