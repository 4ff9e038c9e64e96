"""A session that a process of its own holds; the cases are in `session_cases`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.postgres.session_cases import CASES

if TYPE_CHECKING:
    from tests.conftest import MakeCluster

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", CASES)
def test_session_process(
    case: str, newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    argv = [sys.executable, "-W", "error", "-m", "tests.postgres.session_cases"]
    done = subprocess.run(
        [*argv, case, cluster.url],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
