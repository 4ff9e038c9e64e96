"""The superuser of a restored cluster tries to get out, by SQL and by programs."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import DrkitError
from tests.attacks.breached import Breached, backed_up, breached
from tests.pg import versions_under_test
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.operations.scene import Scene
    from tests.protect import Protected


@pytest.fixture(scope="module", params=versions_under_test(), ids=lambda v: f"pg{v}")
def protected(scene: Scene, request: pytest.FixtureRequest) -> Protected:
    return backed_up(scene, request.param)


@pytest.fixture(scope="module")
def inside(protected: Protected, scene: Scene) -> Iterator[Breached]:
    with breached(protected, scene) as found:
        yield found


@pytest.fixture(scope="module")
def outside(scene: Scene, protected: Protected) -> Path:
    """A directory that everybody may read and write."""
    made = scene.directory()
    (made / "there").write_text("secret")
    made.chmod(0o777)
    return made


def refused(inside: Breached, statement: str) -> str:
    with pytest.raises(DrkitError) as caught:
        inside.sql(statement)
    return str(caught.value)


def test_files_outside_are_not_read(
    inside: Breached, outside: Path, protected: Protected
) -> None:
    key = next(protected.home.rglob("signing.key"))
    paths = ["/etc/passwd", f"{outside}/there", protected.policy_path, key]
    production = Path(protected.cluster.data_directory, "PG_VERSION")
    for path in (*paths, production, f"/proc/{os.getpid()}/environ", "/etc/shadow"):
        refused(inside, f"SELECT pg_read_file('{path}')")
        refused(inside, f"SELECT lo_import('{path}')")
        refused(inside, f"CREATE TEMP TABLE x (y text); COPY x FROM '{path}'")
        assert inside.shell(f"cp {path} x").code != 0
    for path in ("/etc", "/proc", outside, protected.home):
        refused(inside, f"SELECT pg_ls_dir('{path}')")


def test_files_outside_are_not_written(inside: Breached, outside: Path) -> None:
    for path in (f"{outside}/new", f"{outside}/there", "/tmp/new", "/dev/shm/new"):
        refused(inside, f"COPY (SELECT 1) TO '{path}'")
        refused(inside, f"SELECT lo_export(lo_from_bytea(0, 'x'), '{path}')")
        assert inside.shell(f"echo x >{path}").code != 0
        assert inside.shell(f"cp PG_VERSION {path}").code != 0
    assert os.listdir(outside) == ["there"]
    assert (outside / "there").read_text() == "secret"


def test_its_own_configuration_is_not_written(inside: Breached) -> None:
    place = inside.scratch.directory
    for name in ("pg_hba.conf", "postgresql.conf", "server.log", "new"):
        assert inside.shell(f"echo x >>{place}/{name}").code != 0


def subscription(conninfo: str) -> str:
    return (
        f"CREATE SUBSCRIPTION s CONNECTION '{conninfo} connect_timeout=2' PUBLICATION p"
    )


def test_production_is_not_reached(inside: Breached, protected: Protected) -> None:
    """A backend that connects as a client: it does what pg_dump would do."""
    cluster = protected.cluster
    cluster.rows("CREATE PUBLICATION p")
    local = f"host={cluster.directory} user=postgres dbname=postgres"
    said = refused(inside, subscription(local))
    assert "could not connect" in said
    assert cluster.sql("SELECT count(*) FROM pg_replication_slots") == 0
    cluster.rows("DROP PUBLICATION p")


def test_the_network_is_not_reached(inside: Breached) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        said = refused(inside, subscription(f"host=127.0.0.1 port={port} user=x"))
        assert "could not connect" in said
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_library_that_was_planted_is_not_loaded(inside: Breached) -> None:
    (place,) = inside.sql(
        "SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'"
    )[0]  # fmt: skip
    data = inside.scratch.data_directory
    assert inside.shell(f"cp {place}/plpgsql.so {data}/planted.so").code == 0
    said = refused(inside, f"LOAD '{data}/planted.so'")
    assert "failed to map segment" in said
    inside.sql(f"LOAD '{place}/plpgsql.so'")


def test_a_program_that_was_planted_is_not_run(inside: Breached) -> None:
    assert inside.shell("cp /bin/sh planted").code == 0
    assert inside.shell("./planted -c :").code == 126


def test_tablespaces_are_made_nowhere(inside: Breached, outside: Path) -> None:
    refused(inside, f"CREATE TABLESPACE far LOCATION '{outside}'")
    assert os.listdir(outside) == ["there"]


def test_the_server_has_no_rights_to_give(inside: Breached) -> None:
    pid = inside.scratch.server.pid
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


def test_the_server_goes_first_where_memory_runs_out(inside: Breached) -> None:
    pid = inside.scratch.server.pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"


@only_root
def test_the_server_is_nobody_else(inside: Breached, protected: Protected) -> None:
    pid = inside.scratch.server.pid
    owner = os.stat(f"/proc/{pid}").st_uid
    assert owner not in {0, protected.account.uid}
    # this kernel has everything, so nothing is told but what is configured otherwise
    assert not [one for one in inside.scratch.deviations if "scratch instance" in one]
    assert "of its own" in inside.scratch.confined_by


def test_what_it_leaves_running_is_ended(protected: Protected, scene: Scene) -> None:
    with breached(protected, scene) as inside:
        loop = "trap : 1 2 3 15; cd /; while :; do :; done"
        assert inside.shell(f"({loop}) >/dev/null 2>&1 </dev/null &").code == 0
        owner = os.stat(inside.scratch.directory).st_uid
        assert running(owner)
    cleanup = inside.scratch.cleanup
    assert cleanup is not None
    assert cleanup.proven, cleanup.detail
    assert running(owner) == []


def running(owner: int) -> list[str]:
    """Return the processes that were started from a scratch instance's shell."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
            if b"trap : 1 2 3 15" in words and os.stat(f"/proc/{name}").st_uid == owner:
                found.append(name)
        except OSError:
            continue
    return found
