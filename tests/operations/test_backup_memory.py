"""A backup's peak memory: bounded, whatever the size of the cluster."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pg import drkit_command, give_to
from tests.protect import NAME

if TYPE_CHECKING:
    from tests.operations.scene import Scene
    from tests.protect import Protected

MEGABYTE = 1 << 20
MOST = 250 * MEGABYTE

# A process starts with the peak of the one that forked it; this one is small.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _peak(protected: Protected, source: str, jobs: int) -> int:
    """Take a backup in a process of its own; return its peak memory in bytes."""
    protected.change_policy(lambda policy: policy["backup"].update(source=source))
    command = drkit_command(
        "backup",
        NAME,
        "--type",
        "full",
        "--jobs",
        str(jobs),
        "--policy-dir",
        protected.home,
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], capture_output=True, check=True
    )
    return int(done.stdout) * 1024


def _grow(protected: Protected, megabytes: int) -> None:
    """Add files that don't compress, so that every buffer gets filled."""
    place = Path(protected.cluster.data_directory, "extra")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    block = random.Random(7).randbytes(8 * MEGABYTE)
    for number in range(megabytes // 8):
        (place / str(number)).write_bytes(block)
    give_to(protected.account, place)


@pytest.mark.parametrize(("jobs", "source"), [(1, "stream"), (4, "local")])
def test_peak_memory_does_not_grow_with_the_cluster(
    jobs: int, source: str, newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(newest_version)
    _grow(protected, 96)
    small = _peak(protected, source, jobs)
    _grow(protected, 384)
    large = _peak(protected, source, jobs)
    assert large < MOST
    assert large < small + 30 * MEGABYTE
    protected.cluster.stop()
