"""What the local driver's tests share: child processes, small disks, another user."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.storage.local import LocalStorage

REPOSITORY_ROOT = Path(__file__).parents[2]
NOBODY = 65534
only_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount and chown"
)

CHILD = """
import errno, os, sys
from drkit.errors import DrkitError
from drkit.storage.local import LocalStorage
from tests.storage import seccomp
storage = LocalStorage(sys.argv[1])
def attempt(work):
    try:
        return work()
    except DrkitError as error:
        transient = getattr(error, "transient", None)
        return f"{type(error).__name__} transient={transient}: {error} ({error.hint})"
"""


def root_of(storage: LocalStorage) -> Path:
    return Path(storage.url.removeprefix("file://"))


def temporaries(storage: LocalStorage) -> list[str]:
    return os.listdir(root_of(storage) / "+tmp")


def listed(storage: LocalStorage) -> list[str]:
    return [info.name for info in storage.list("")]


def start_child(
    storage: LocalStorage, script: str, *arguments: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + script, str(root_of(storage)), *arguments],
        cwd=REPOSITORY_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_child(storage: LocalStorage, script: str) -> tuple[int, str]:
    with start_child(storage, script) as child:
        output, errors = child.communicate(timeout=60)
    assert errors == ""
    return child.returncode, output


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "drkit-test", str(path)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be `nobody` for a while, if this is root, whom no mode keeps out."""
    was_root = os.geteuid() == 0
    if was_root:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
            os.setegid(0)


def start_racer(
    storage: LocalStorage, script: str, racer: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + script, str(root_of(storage)), racer],
        cwd=REPOSITORY_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
