"""What a restored data directory says of production's configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from drkit.postgres.configuration import effective_settings, read_includes_from_disk
from drkit.postgres.files import read_text

if TYPE_CHECKING:
    from drkit.postgres.binaries import ServerBinaries

_LIBRARIES = ("../lib", "../lib/postgresql", "../lib/pgsql", "../lib64/pgsql")


def production_settings(
    data_directory: str, auto_conf: Path
) -> tuple[dict[str, str], list[str]]:
    """Return production's settings by name, as far as the backup has them.

    Files outside of the data directory are not in the backup. Those that this host has
    at their paths may be another cluster's, so they are not read.

    Args:
        data_directory: that was restored.
        auto_conf: what was `postgresql.auto.conf` there, which wins.

    Returns:
        The settings, and sentences on what is missing.
    """
    missing: list[str] = []

    def read_include(directive: str, path: str) -> list[tuple[str, str]]:
        if _inside(path, data_directory) and os.path.exists(path):
            return read_includes_from_disk(directive, path)
        missing.append(
            f"{path}, which the configuration includes, is not in the backup"
        )
        return []

    main = Path(data_directory, "postgresql.conf")
    if not main.exists():
        missing.append(
            "production's postgresql.conf lies outside of its data directory and is "
            "not in the backup; PostgreSQL's defaults take its place"
        )
    settings: dict[str, str] = {}
    for path in filter(Path.exists, (main, auto_conf)):
        text = read_text(str(path))
        settings |= effective_settings(str(path), text, read_include)
    return settings, missing


def installed_libraries(binaries: ServerBinaries) -> frozenset[str]:
    """Return the names of the libraries that a server can load."""
    for place in _LIBRARIES:
        directory = os.path.realpath(os.path.join(binaries.directory, place))
        if os.path.exists(os.path.join(directory, "plpgsql.so")):
            names = os.listdir(directory)
            return frozenset(n.removesuffix(".so") for n in names if n.endswith(".so"))
    return frozenset()


def _inside(path: str, directory: str) -> bool:
    root = os.path.join(os.path.realpath(directory), "")
    return os.path.realpath(path).startswith(root)
