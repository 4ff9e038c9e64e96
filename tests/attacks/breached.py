"""A restored cluster whose superuser is an attacker, as a policy's site runs it."""

from __future__ import annotations

import tempfile
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from drkit import wiring
from drkit.model.recovery import RecoveryTarget
from drkit.operations.scratch.instance import scratch_instance
from drkit.postgres.process import server_account
from drkit.postgres.sandbox.confinement import own_account
from drkit.sites.rehearsal import rehearsal_site
from tests.operations.scene import backup
from tests.operations.scratch_tools import CLOCK, fill, recover

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drkit.operations.scratch.instance import Scratch
    from tests.operations.scene import Scene
    from tests.protect import Protected


class Ran(NamedTuple):
    """What a shell of the server's did."""

    code: int
    out: str


class Breached:
    """A running scratch instance, and what its superuser can do there."""

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with closing(self.scratch.connect()) as connection:
            return connection.query(statement)

    def shell(self, script: str) -> Ran:
        """Run a script by COPY FROM PROGRAM: with the server's own rights."""
        # Tabs, backslashes and what is no text would not pass COPY.
        quoted = f"({script}) 2>&1; echo EXIT $?".replace("'", "''")
        with closing(self.scratch.connect()) as connection:
            connection.query("CREATE TEMP TABLE said (line text)")
            connection.query(
                f"COPY said FROM PROGRAM '{quoted}' (FORMAT csv, QUOTE e'\\x01', "
                "DELIMITER e'\\x02')"
            )
            lines = [line or "" for (line,) in connection.query("TABLE said")]
        return Ran(int(lines[-1].removeprefix("EXIT ")), "\n".join(lines[:-1]))


def backed_up(scene: Scene, major: int) -> Protected:
    """Make a cluster with one backup and WAL behind it."""
    protected = scene.protect(major)
    protected.cluster.rows("CREATE TABLE t AS SELECT 1 AS n")
    backup(protected)
    protected.archive_now()
    return protected


def own_directory(scene: Scene) -> Path:
    """Make a directory of the tester's: of root's, if root tests."""
    made = Path(tempfile.mkdtemp(prefix="own-", dir=scene.factory.base))
    made.chmod(0o755)
    scene.directories.append(made)
    return made


@contextmanager
def breached(
    protected: Protected, scene: Scene, environ: Mapping[str, str] | None = None
) -> Iterator[Breached]:
    """Restore and recover as `drkit verify --depth restore` does."""
    site = rehearsal_site(protected.policy(), wiring.Secrets(environ or {}))
    major = protected.cluster.binaries.major
    account = own_account(server_account())
    directory = str(own_directory(scene) / "scratch")
    options = replace(site.scratch(major), directory=directory, account=account)
    with scratch_instance(options, CLOCK) as scratch:
        fill(scratch, protected, RecoveryTarget())
        recover(scratch, protected)
        yield Breached(scratch)
