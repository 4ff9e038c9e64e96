"""Whoever can write to the store puts 3 GiB where a small object belongs.

Nothing of it is read, on whichever host. It takes no key: the file is a hole.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import drkit
from drkit.errors import Corrupt, TooLong, WalRefused
from drkit.model.wal import WalFileName
from drkit.operations.archive import cluster_segment_size
from drkit.postgres.process import DEFAULT_ENVIRONMENT, current_account
from drkit.repository import limits
from drkit.repository.codec import FRAME_BYTES, compressor
from drkit.repository.lease import leases_of
from drkit.repository.objects import joined
from drkit.storage.retry import RetryingStorage
from tests.builders import (
    CLUSTER,
    SEGMENT,
    SYSTEM,
    FakeClock,
    World,
    back_up,
    begin,
    new_attempt,
)
from tests.cli.site import Site, make_site, segment, segment_name
from tests.operations.verify_tools import segment as whole_segment
from tests.pg import drkit_command
from tests.vectors.forge import Forger

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.model.log import Commit
    from drkit.repository.repository import Repository
    from tests.conftest import MakeCluster

LONG = 3 << 30
MOST = 300 << 20  # what a command may take; some 100 MiB are libraries
CORRUPT, REFUSED = Corrupt.exit_code, WalRefused.exit_code
# A process that forks from the tests would be as large as they are.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True)
sys.stdout.buffer.write(done.stderr + done.stdout)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
NUMBER = 5  # of the segment


class Done(NamedTuple):
    """How a command ended.

    Attributes:
        peak: the most memory that it took, in bytes.
    """

    code: int
    told: str
    peak: int


class Target(NamedTuple):
    """A protected cluster that exists on paper, with a backup and a segment."""

    site: Site
    commit: Commit
    repository: Repository

    @property
    def objects(self) -> Path:
        return self.site.root / "repository"

    def put(self, name: str, size: int = LONG) -> None:
        """Put a hole in the place of an object, or where there is none."""
        path = self.objects / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(size)

    def run(self, *arguments: str | Path, cwd: str | Path = "/") -> Done:
        command = [sys.executable, "-c", MEASURE, *drkit_command(*arguments)]
        policies = {"DRKIT_POLICY_DIR": str(self.site.policy.parent)}
        done = subprocess.run(
            command,
            capture_output=True,
            env=DEFAULT_ENVIRONMENT | {"HOME": "/nonexistent"} | policies,
            cwd=cwd,
            check=False,
            timeout=300,
        )
        *told, peak = done.stdout.decode().splitlines()
        return Done(done.returncode, "\n".join(told), int(peak) << 10)

    @property
    def segment(self) -> Path:
        return self.site.root / segment_name(NUMBER)

    @property
    def catalog_key(self) -> str:
        return next(iter(self.repository.log.key_ids)).hex()


@pytest.fixture
def target(tmp_path: Path) -> Target:
    site = make_site(
        tmp_path,
        current_account(),
        system=SYSTEM,
        timeout="1 second",
        segment_size=SEGMENT,
    )
    repository = site.repository()
    files = {b"PG_VERSION": b"18\n", b"global": None, b"global/pg_control": bytes(512)}
    commit = back_up(repository, files)
    needed = WalFileName.parse("000000010000000000000002")
    repository.wal.push(needed, whole_segment(2), datetime.now(UTC))
    made = Target(site, commit, repository)
    made.segment.write_bytes(segment(NUMBER, system=SYSTEM))
    return made


def restore_plan(target: Target) -> Done:
    to = target.site.root / "restored"
    return target.run("restore", "alpha", "--to", to, "--plan", "--target-immediate")


def info(target: Target) -> Done:
    return target.run("info", "alpha")


def push(target: Target) -> Done:
    return target.run("wal", "push", "--policy", "alpha", target.segment)


def fetch(target: Target) -> Done:
    to = target.site.root / "fetched"
    return target.run("wal", "get", "--policy", "alpha", target.segment.name, to)


def wal_name(target: Target) -> str:
    return target.repository.wal.name(WalFileName.parse(target.segment.name))


def manifest(target: Target) -> str:
    return target.commit.manifest.name


def pack(target: Target) -> str:
    backup = target.commit.backup.label, target.commit.attempt
    return target.repository.layout.pack(*backup, 0)


def wal_day(target: Target) -> str:
    return target.repository.layout.wal_day(datetime.now(UTC).strftime("%Y%m%d"))


CASES: dict[
    str, tuple[Callable[[Target], str], Callable[[Target], Done], tuple[int, ...]]
] = {
    "identity": (lambda _: "drkit.json", info, (CORRUPT,)),
    "identity, push": (lambda _: "drkit.json", push, (CORRUPT,)),
    "identity, get": (lambda _: "drkit.json", fetch, (200,)),
    "the log's key": (
        lambda target: f"alpha/keys/catalog/{target.catalog_key}/0001",
        info,
        (CORRUPT,),
    ),
    "another generation of it": (
        lambda target: f"alpha/keys/catalog/{target.catalog_key}/0002",
        info,
        (0,),
    ),
    "the next log entry": (
        lambda target: f"alpha/log/{len(target.repository.log.entries):010d}",
        info,
        (0,),
    ),
    "a log entry": (lambda _: "alpha/log/0000000001", info, (CORRUPT,)),
    "a manifest": (manifest, restore_plan, (CORRUPT,)),
    "a pack": (pack, restore_plan, (CORRUPT,)),
    "a segment, push": (wal_name, push, (0,)),  # at its next name
    "a segment, get": (wal_name, fetch, (1,)),  # nothing was archived
    "a WAL day, push": (wal_day, push, (0, CORRUPT)),
    "findings": (
        lambda _: f"alpha/findings/20260115-103000-{'0' * 32}",
        info,
        (0, CORRUPT),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_a_long_object_is_read(target: Target, case: str) -> None:
    place, command, codes = CASES[case]
    name = place(target)
    target.put(name)
    done = command(target)
    assert done.peak < MOST, f"{done.peak >> 20} MiB: {done.told}"
    assert done.code in codes, done.told
    assert done.code in (0, REFUSED) or name in done.told
    assert "Traceback" not in done.told


def test_what_a_command_takes_is_measured(target: Target) -> None:
    """So that the test above can fail: this reads a file of 400 MiB."""
    long = target.site.root / "000000010000000000000009"
    with long.open("wb") as file:
        file.truncate(400 << 20)
    done = target.run("wal", "push", "--policy", "alpha", long)
    assert done.code == REFUSED
    assert done.peak > 400 << 20


# -- the limits, where an object of each kind is read


def long_in(world: World, name: str, size: int) -> None:
    world.storage.delete(name)
    world.storage.put(name, bytes(size))


def test_a_long_lease_counts_for_nothing() -> None:
    world = World()
    repository = world.repository()
    attempt = new_attempt()
    long_in(world, f"{CLUSTER}/leases/{attempt}-0000", limits.LEASE + 1)
    leases = leases_of(repository)
    assert leases.attempts() == set()
    assert leases.last(attempt) is None


def test_a_long_object_in_the_logs_place_is_no_entry() -> None:
    world = World()
    repository = world.repository()
    before = len(repository.log.entries)
    long_in(world, f"{CLUSTER}/log/{before:010d}", limits.sealed(limits.LOG_ENTRY) + 1)
    begin(world.repository())
    assert len(world.repository().log.entries) == before + 1


def test_a_long_block_of_the_log_is_passed_over() -> None:
    world = World()
    repository = world.repository()
    size = limits.sealed(limits.LOG_BLOCK) + 1
    long_in(world, f"{CLUSTER}/log-blocks/0000000000", size)
    assert world.repository().log.read() == repository.log.state


def test_a_long_identity_is_refused_by_name() -> None:
    world = World()
    world.repository()
    long_in(world, "drkit.json", limits.IDENTITY + 1)
    with pytest.raises(TooLong, match=r"drkit\.json .* 65537 bytes"):
        world.repository()


def test_who_repeats_requests_asks_once_for_what_is_too_long() -> None:
    world = World()
    clock = FakeClock()
    world.storage.put("long", bytes(11))
    with pytest.raises(TooLong):
        RetryingStorage(world.storage, clock).get("long", limit=10)
    assert clock.seconds == 0


@pytest.mark.parametrize("plain", [0, 1, 4096, 2 << 20, 16 << 20])
def test_no_limit_is_less_than_what_writers_make(plain: int) -> None:
    world = World()
    repository = world.repository()
    content = os.urandom(plain)
    file = WalFileName.parse(segment_name(1))
    repository.wal.push(file, content, world.clock.now())
    assert world.storage.size(repository.wal.name(file)) <= limits.sealed(plain)
    assert repository.wal.get(file) == content


# -- WAL that expands


def bomb(target: Target, segment_size: int) -> None:
    """Seal zeros as a WAL file, as somebody who has its key does: 0.1 MB a GiB."""
    name = wal_name(target)
    dek = target.repository.keyring.for_wal_day("20260115")
    plain = compressor(3).compress(bytes(FRAME_BYTES))
    frames = [(plain, FRAME_BYTES, 1)] * (segment_size // FRAME_BYTES)
    forger = Forger(dek.secret, target.repository.lineage, "wal")
    path = target.objects / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(forger.seal(name, frames))
    assert path.stat().st_size < segment_size >> 10


@pytest.mark.parametrize("command", [push, fetch])
def test_wal_expands_to_no_more_than_its_kind(
    target: Target, command: Callable[[Target], Done]
) -> None:
    bomb(target, limits.WAL_SEGMENT + FRAME_BYTES)
    done = command(target)
    assert done.code in (REFUSED, 200)
    most = MOST if command is push else MOST + limits.WAL_SEGMENT
    assert done.peak < most, f"{done.peak >> 20} MiB"


def test_wal_expands_to_no_more_than_the_clusters_segments(target: Target) -> None:
    """As known to whoever has read the log, or stands in the data directory."""
    bomb(target, 1 << 30)
    repository = target.site.repository()
    repository.log.read()
    file = WalFileName.parse(target.segment.name)
    with pytest.raises(TooLong, match=f"expands to more than {SEGMENT} bytes"):
        repository.wal.get(file)
    directory = target.site.root / "data"
    (directory / "global").mkdir(parents=True)
    control = bytearray(8192)
    control[:8] = int(SYSTEM).to_bytes(8, "little")
    control[228:232] = SEGMENT.to_bytes(4, "little")
    (directory / "global/pg_control").write_bytes(control)
    done = target.run(
        *("wal", "get", "--policy", "alpha", target.segment.name, "fetched"),
        cwd=directory,
    )
    assert done.code == 200
    assert f"expands to more than {SEGMENT} bytes" in done.told
    assert done.peak < MOST, f"{done.peak >> 20} MiB"


def test_a_real_control_file_says_how_long_segments_are(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    sizes = cluster.rows("SELECT bytes_per_wal_segment FROM pg_control_init()")
    assert sizes == [(cluster_segment_size(cluster.data_directory),)]


def test_what_expands_is_held_once() -> None:
    """A part is let go of when the next comes, and the whole is not copied."""
    count, part = 64, 4 << 20
    tracemalloc.start()
    try:
        whole = joined(bytes(part) for _ in range(count))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(whole) == count * part
    assert peak < 1.25 * count * part


def test_nobody_reads_an_object_without_a_limit() -> None:
    """Nor a part of one whose length comes from elsewhere than a limit."""
    unbounded = [
        f"{path}:{call.lineno}"
        for path in Path(drkit.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "get"
        and re.search(r"(storage|store|_inner)$", ast.unparse(call.func.value))
        and len(call.args) < 3
        and not any(word.arg == "limit" for word in call.keywords)
    ]
    assert not unbounded
