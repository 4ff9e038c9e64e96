"""What drkit's processes leave behind: core dumps, and files others could change."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.hardening import safe_umask
from drkit.model.evidence import RecordKind
from drkit.postgres import process
from tests.cli.site import SYSTEM, Site, make_site
from tests.cli.test_drill_report import LAST, add_record
from tests.operations.test_framers import group, ready
from tests.pg import drkit_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeCluster

SEGMENT = "0" * 23 + "1"
IMPORTED_WITHIN = 3.0  # seconds


@pytest.fixture
def silent() -> Iterator[int]:
    """A server that never says anything; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def site(tmp_path: Path, silent: int) -> Site:
    url = f"postgresql://u@127.0.0.1:{silent}/postgres"
    return make_site(tmp_path, process.current_account(), system=SYSTEM, url=url)


# -- memory


@pytest.fixture
def dumps_allowed() -> Iterator[None]:
    """As for a service with LimitCORE=infinity."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("no core dumps may be made here at all")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.mark.usefixtures("dumps_allowed")
@pytest.mark.parametrize("words", [("wal", "get", SEGMENT, "x"), ("backup", "alpha")])
def test_a_crash_dumps_no_keys(
    site: Site, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """One waits for its repository and the other for its server while it is hit."""
    (tmp_path / "standby.signal").touch()  # `wal get` repeats what fails
    if words[0] == "wal":
        (site.root / "repository").rename(site.root / "away")
    env = {"DRKIT_POLICY_DIR": str(site.policy.parent), "PATH": os.defpath}
    with subprocess.Popen(
        drkit_command(*words),
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as started:
        time.sleep(IMPORTED_WITHIN)
        os.kill(started.pid, signal.SIGSEGV)
        _, status = os.waitpid(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
    assert started.returncode == -signal.SIGSEGV
    assert not os.WCOREDUMP(status)


@pytest.mark.usefixtures("dumps_allowed")
def test_processes_that_read_pages_dump_none_either() -> None:
    with ready() as started:
        for pid in group(started):
            limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
            core = next(one for one in limits if one.startswith("Max core file size"))
            assert core.split()[4:6] == ["0", "0"]


# -- modes


@pytest.mark.parametrize(
    ("chosen", "used"),
    [(0o000, 0o022), (0o777, 0o077), (0o027, 0o027), (0o002, 0o022), (0o700, 0o022)],
)
def test_a_umask_that_is_safe(chosen: int, used: int) -> None:
    assert safe_umask(chosen) == used


def _run(site: Site, umask: str, *words: str | Path) -> None:
    env = {"DRKIT_POLICY_DIR": str(site.policy.parent), "PATH": os.defpath}
    command = ["/bin/sh", "-c", f'umask {umask}; exec "$@"', "sh"]
    done = subprocess.run(
        [*command, *drkit_command(*words)], env=env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def _others_write(top: Path) -> list[str]:
    found = [top, *top.rglob("*")]
    return [str(one) for one in found if one.lstat().st_mode & 0o022]


@pytest.mark.parametrize("umask", ["000", "777"])
def test_reports_and_evidence_whatever_the_umask(
    site: Site, tmp_path: Path, umask: str
) -> None:
    add_record(site, RecordKind.DRILL)
    add_record(site, RecordKind.VERIFICATION)
    reports, evidence = tmp_path / "r/e/ports", tmp_path / "e/vidence"
    words = ("drill", "report", "alpha", "--quarter", str(LAST), "--to", reports)
    _run(site, umask, *words)
    _run(site, umask, "drill", "export", "alpha", "--all", "--to", evidence)
    assert len(list(reports.iterdir())) == 5  # the signature too
    assert len(list(evidence.iterdir())) == 2
    for top in (tmp_path / "r", tmp_path / "e"):
        assert _others_write(top) == []
        for one in [top, *top.rglob("*")]:
            needed = 0o700 if one.is_dir() else 0o600
            assert stat.S_IMODE(one.stat().st_mode) & needed == needed


def test_a_link_in_the_place_of_a_report_in_the_making(
    site: Site, tmp_path: Path
) -> None:
    """Somebody else can write where reports go, and knows their names."""
    add_record(site, RecordKind.DRILL)
    place, victim = tmp_path / "shared", tmp_path / "victim"
    place.mkdir()
    victim.write_text("precious")
    for form in ("html", "pdf", "md", "json"):
        link = place / f"drill-report-alpha-{LAST}.{form}.new"
        link.symlink_to(victim)
    (place / "alpha-evidence-0000000000.dsse.json.new").symlink_to(victim)
    _run(site, "022", "drill", "report", "alpha", "--quarter", str(LAST), "--to", place)
    _run(site, "022", "drill", "export", "alpha", "--to", place)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("umask", ["000", "777"])
def test_what_init_makes_whatever_the_umask(
    make_cluster: MakeCluster,
    make_directory: Callable[[], Path],
    newest_version: int,
    umask: str,
) -> None:
    """A new parent of the repository above all: who can rename it has the store."""
    cluster, home = make_cluster(newest_version), make_directory()
    repository, policies = home / "new/above/repository", home / "etc/drkit/policies"
    words = ("init", "main", "--url", cluster.url, "--policy-dir", policies)
    command = drkit_command(*words, "--repository", f"file://{repository}")
    done = process.run(
        ["/bin/sh", "-c", f'umask {umask}; exec "$@"', "sh", *command],
        identity=process.drop_to(cluster.account, reach=(sys.executable, __file__)),
        env=process.DEFAULT_ENVIRONMENT | {"HOME": str(home)},
        raising=None,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert _others_write(home) == []
    assert any(repository.iterdir())
