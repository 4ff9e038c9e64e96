"""Fixtures for tests of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from drkit.postgres.process import Account, current_account
from tests.cli.site import SYSTEM, ServedSite, Site, make_site, serve_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeCluster


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A repository and policy of a cluster that exists on paper only."""
    return make_site(tmp_path, current_account(), system=SYSTEM, timeout="1 second")


@pytest.fixture
def served(
    make_cluster: MakeCluster,
    make_directory: Callable[[], Path],
    postgres_user: Account,
    newest_version: int,
) -> Iterator[ServedSite]:
    """A running server that archives with drkit."""
    cluster = make_cluster(
        newest_version, {"archive_mode": "on", "wal_level": "replica"}
    )
    return serve_site(cluster, make_directory(), postgres_user)
