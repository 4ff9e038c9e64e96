"""Which tools run, and on which PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from peers import Copy, Drkit, PgBackRest, PgBaseBackup
from tool import PATH

from drkit.errors import DrkitError, NotFound
from drkit.postgres import process
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.server import ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tool import Site, Tool

    from drkit.postgres.process import Identity

NAMES = ("drkit", "pgbackrest", "pg_basebackup", "cp")
OLDEST_MAJOR = 13


def find_pgbackrest() -> str | None:
    """Return pgBackRest's path, if it is installed."""
    return shutil.which("pgbackrest", path=PATH)


def choose_tools(site: Site, wanted: Sequence[str] | None) -> list[Tool]:
    """Return the tools that are wanted, or all that are installed.

    Raises:
        DrkitError: one that is wanted is not installed.
    """
    program = find_pgbackrest()
    every: dict[str, Tool] = {"drkit": Drkit(site)}
    if program is not None:
        every["pgbackrest"] = PgBackRest(site, program)
    if os.path.exists(os.path.join(site.server.binaries.directory, "pg_basebackup")):
        every["pg_basebackup"] = PgBaseBackup(site)
    every["cp"] = Copy(site)
    missing = [name for name in wanted or () if name not in every]
    if missing:
        raise DrkitError(f"not installed here: {', '.join(missing)}")
    return [tool for name, tool in every.items() if wanted is None or name in wanted]


def newest_supported(
    identity: Identity, wanted: Sequence[str] | None
) -> ServerBinaries:
    """Return the newest installed PostgreSQL that pgBackRest, if it runs, knows.

    Raises:
        NotFound: no PostgreSQL that it knows is installed.
    """
    runs = wanted is None or "pgbackrest" in wanted
    program = find_pgbackrest() if runs else None
    newest = ServerBinaries.locate()
    for major in range(newest.major, OLDEST_MAJOR - 1, -1):
        with contextlib.suppress(NotFound):
            binaries = ServerBinaries.locate(major)
            if program is None or _is_known(program, binaries, identity):
                return binaries
    raise NotFound(
        "pgBackRest knows none of the PostgreSQL versions that are installed here",
        hint="choose one with --postgres-bin, and leave pgbackrest out of --tools",
    )


def _is_known(program: str, binaries: ServerBinaries, identity: Identity) -> bool:
    """Let pgBackRest itself say whether it knows a version."""
    with ThrowawayServer(binaries) as server:
        server.initdb()
        paths = (f"--{name}-path={server.directory}" for name in ("lock", "log"))
        repository = f"--repo1-path={server.directory}/repository"
        cluster = f"--pg1-path={server.data_directory}"
        options = ("--stanza=probe", repository, cluster, *paths, "--no-online")
        command = [program, *options, "stanza-create"]
        return process.run(command, identity=identity, raising=None).returncode == 0
