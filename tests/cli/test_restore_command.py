"""The restore_command that a restore writes: 1 is drkit's own word, no accident."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from drkit import wiring
from drkit.cli import app
from drkit.errors import DrkitError
from tests.cli.site import SYSTEM, ServedSite, Site, segment, segment_name
from tests.operations.scene import Said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeCluster

ODD = 'it\'s 100% "odd" $HOME; `true`'
NAME = segment_name(7)


@dataclass
class Installation:
    """A Python that can lose the drkit package, as `pip install -U` makes it do."""

    python: Path
    marker: Path

    def break_off(self) -> None:
        self.marker.touch()

    def mend(self) -> None:
        self.marker.unlink()


@pytest.fixture
def installation(
    make_directory: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> Installation:
    directory = make_directory() / ODD
    directory.mkdir()
    python, marker = directory / "python", directory / "upgrading"
    quoted = str(marker).replace("'", "'\\''")
    python.write_text(
        f"#!/bin/sh\n[ -e '{quoted}' ] && set -- -S \"$@\"\n"  # no site: no packages
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return Installation(python, marker)


@pytest.fixture
def odd_site(site: Site) -> Site:
    """A site whose policy's path needs quoting, with one segment archived."""
    odd = site.root / ODD
    odd.mkdir()
    site.policy.rename(odd / site.policy.name)
    return site


def policy_path(site: Site) -> Path:
    return site.root / ODD / site.policy.name


@pytest.fixture
def data(odd_site: Site, tmp_path: Path) -> Path:
    """A data directory, as far as archiving looks at it."""
    directory = tmp_path / "data"
    (directory / "pg_wal").mkdir(parents=True)
    (directory / "global").mkdir()
    control = int(SYSTEM).to_bytes(8, "little") + bytes(100)
    (directory / "global" / "pg_control").write_bytes(control)
    (directory / "pg_wal" / NAME).write_bytes(segment(7))
    path = policy_path(odd_site)
    pushed = odd_site.drkit(
        "wal", "push", "--policy", path, f"pg_wal/{NAME}", cwd=directory
    )
    assert pushed.returncode == 0, pushed.stderr
    return directory


def expanded(site: Site, name: str) -> str:
    """Write out the command as PostgreSQL does before it hands it to the shell."""
    policy = SimpleNamespace(
        path=str(policy_path(site)), keys=SimpleNamespace(trusted_wal=())
    )
    command = wiring.restore_command(policy)  # type: ignore[arg-type]
    for found, put in (("%f", name), ("%p", "pg_wal/RECOVERYXLOG"), ("%%", "%")):
        command = command.replace(found, put)
    return command


def fetch(site: Site, data: Path, name: str = NAME) -> Said:
    """Run the command as PostgreSQL does: in the data directory, by the shell."""
    command = ["sh", "-c", expanded(site, name)]
    done = subprocess.run(command, cwd=data, capture_output=True, check=False)
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_what_is_archived_and_what_is_not(
    odd_site: Site, data: Path, installation: Installation
) -> None:
    assert fetch(odd_site, data).code == 0
    assert (data / "pg_wal" / "RECOVERYXLOG").read_bytes() == segment(7)
    absent = fetch(odd_site, data, segment_name(8))
    assert (absent.code, "is not archived" in absent.out) == (1, True)


def _no_package(_: Site, installation: Installation) -> None:
    installation.break_off()


def _no_python(_: Site, installation: Installation) -> None:
    installation.python.unlink()


def _no_repository(site: Site, _: Installation) -> None:
    (site.root / "repository").rename(site.root / "away")


FAILURES = {
    _no_package: "No module named drkit",
    _no_python: "not found",
    _no_repository: "drkit: error: ",
}


@pytest.mark.parametrize("spoil", FAILURES)
@pytest.mark.parametrize("standby", [False, True])
def test_no_failure_looks_like_the_end_of_wal(
    odd_site: Site,
    data: Path,
    installation: Installation,
    spoil: Callable[[Site, Installation], None],
    standby: bool,
) -> None:
    """A standby is not stopped: it asks again."""
    if standby:
        (data / "standby.signal").touch()
    spoil(odd_site, installation)
    for name in (NAME, segment_name(8)):
        said = fetch(odd_site, data, name)
        assert said.code == (1 if standby else 255)
        assert FAILURES[spoil] in said.err


def test_sigterm_is_known_as_postgresql_knows_it(
    odd_site: Site, data: Path, installation: Installation
) -> None:
    path = policy_path(odd_site)
    path.write_text(path.read_text().replace("1 second", "60 seconds"))
    _no_repository(odd_site, installation)
    (data / "standby.signal").touch()  # so that it keeps trying
    shell = subprocess.Popen(["sh", "-c", expanded(odd_site, NAME)], cwd=data)
    time.sleep(1.5)
    children = f"/proc/{shell.pid}/task/{shell.pid}/children"
    with open(children, encoding="ascii") as file:
        (child,) = file.read().split()
    os.kill(int(child), signal.SIGTERM)
    assert shell.wait(10) == 128 + signal.SIGTERM


@pytest.mark.parametrize("code", ["0", "126", "-1", "x", ""])
def test_a_code_that_postgresql_would_take_otherwise_is_refused(
    site: Site, code: str
) -> None:
    done = site.drkit("wal", "get", f"--absent-exit={code}", NAME, "x")
    assert done.returncode == 200
    assert b"--absent-exit is a number from 1 to 125" in done.stderr
    assert site.drkit("wal", "push", "--absent-exit=9", "x").returncode == 2


def test_an_upgrade_during_a_recovery_stops_it(
    served: ServedSite,
    make_directory: Callable[[], Path],
    adopt_cluster: MakeCluster,
    newest_version: int,
    installation: Installation,
) -> None:
    """PostgreSQL must stop, not promote with what was committed missing."""
    assert served.site.drkit("backup", "alpha").returncode == 0
    served.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
    served.archive_now()
    served.cluster.stop()
    target = make_directory() / "restored"
    policies = str(served.site.policy.parent)
    words = ["restore", "alpha", "--to", str(target), "--policy-dir", policies]
    assert app.run(words) == 0  # in this process, whose Python is the installation's
    installation.break_off()
    restored = adopt_cluster(newest_version, str(target), {"archive_mode": "off"})
    with pytest.raises(DrkitError, match=r"(?s)No module named drkit.*FATAL"):
        restored.start()
    assert (target / "recovery.signal").exists()
    installation.mend()
    restored.start()
    restored.wait_until_primary()
    assert restored.sql("SELECT count(*) FROM t") == 1000
