"""Clusters with repositories that the tests of a module share."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.operations.scene import Scene
from tests.pg import ClusterFactory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.postgres.process import Account

_ROOM = 4 << 30
_IN_MEMORY = "/dev/shm"


@pytest.fixture(scope="session")
def workshop(postgres_user: Account) -> Iterator[ClusterFactory]:
    """Makes clusters in memory where there is room, which spares waiting for disks."""
    base = tempfile.mkdtemp(prefix="drkit-", dir=_place())
    os.chmod(base, 0o755)
    yield ClusterFactory(base, postgres_user)
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def scene(workshop: ClusterFactory) -> Iterator[Scene]:
    with Scene(workshop) as scene:
        yield scene


def _place() -> str:
    if os.access(_IN_MEMORY, os.W_OK):
        status = os.statvfs(_IN_MEMORY)
        if min(status.f_bavail * status.f_frsize, _free_memory()) > _ROOM:
            return _IN_MEMORY
    return "/tmp"


def _free_memory() -> int:
    """Return the bytes that can be used up without swapping."""
    found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) << 10 if found else 0
