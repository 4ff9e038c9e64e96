"""Fixtures that every test may use: servers, users and directories."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from drkit.postgres.process import Account, server_account
from tests.pg import (
    Cluster,
    ClusterFactory,
    give_to,
    remembering_in,
    versions_under_test,
)
from tests.protect import SETTINGS, Protected, protect

# A busy machine is no bug: examples have no time limit of their own.
settings.register_profile("drkit", deadline=None)
settings.load_profile("drkit")

# Some systems let a user's own group write; policies and keys would be refused then.
os.umask(0o022)

MakeCluster = Callable[..., Cluster]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `pg_version` once per PostgreSQL major."""
    if "pg_version" in metafunc.fixturenames:
        ids = [f"pg{major}" for major in versions_under_test()]
        metafunc.parametrize("pg_version", versions_under_test(), ids=ids)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on a version between the oldest and the newest.

    `make test` leaves that to CI, or it would take longer than anybody waits.
    """
    between = sorted(versions_under_test())[1:-1]
    names = {f"pg{major}" for major in between}
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None:
            continue
        majors = {callspec.params.get(name) for name in ("major", "pg_version")}
        if majors & set(between) or names & set(callspec.id.split("-")):
            item.add_marker(pytest.mark.between)


@pytest.fixture(scope="session")
def newest_version() -> int:
    """The newest PostgreSQL under test, for what does not vary with the version."""
    return max(versions_under_test())


@pytest.fixture(scope="session")
def postgres_user() -> Account:
    """Whom servers run as: `postgres` when root tests, else the tester."""
    return server_account()


@pytest.fixture(scope="session")
def session_directory(postgres_user: Account) -> Iterator[str]:
    """A directory with a short path (sockets live below) that every user can enter."""
    directory = tempfile.mkdtemp(prefix="drkit-test-", dir="/tmp")
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _remembering(session_directory: str) -> Iterator[None]:
    """Let no test leave in this host's own memory what it has seen of a log."""
    with remembering_in(Path(session_directory, "state")):
        yield


@pytest.fixture(scope="session")
def cluster_factory(session_directory: str, postgres_user: Account) -> ClusterFactory:
    return ClusterFactory(session_directory, postgres_user)


@pytest.fixture
def make_cluster(cluster_factory: ClusterFactory) -> Iterator[MakeCluster]:
    """Make clusters as `ClusterFactory.make` does; the test's end removes them."""
    made: list[Cluster] = []

    def make(*arguments: object, **options: object) -> Cluster:
        made.append(cluster_factory.make(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def adopt_cluster(cluster_factory: ClusterFactory) -> Iterator[MakeCluster]:
    """Serve existing data directories as `ClusterFactory.adopt` does."""
    made: list[Cluster] = []

    def adopt(*arguments: object, **options: object) -> Cluster:
        made.append(cluster_factory.adopt(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield adopt
    for cluster in made:
        cluster.close()


@pytest.fixture
def make_directory(
    session_directory: str, postgres_user: Account
) -> Iterator[Callable[[], Path]]:
    """Make directories that belong to the server's user, with short paths."""
    made: list[Path] = []

    def make(mode: int = 0o755) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="d-", dir=session_directory))
        os.chmod(directory, mode)
        give_to(postgres_user, directory)
        made.append(directory)
        return directory

    yield make
    for directory in made:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def make_protected(
    make_cluster: MakeCluster,
    make_directory: Callable[[], Path],
    postgres_user: Account,
) -> Callable[..., Protected]:
    """Make a cluster that archives into a repository of its own.

    Takes a major version, `settings` and the options of `ClusterFactory.make`, and
    `source` for the policy.
    """

    def make(
        major: int,
        settings: dict[str, str] | None = None,
        *,
        source: str = "local",
        **options: object,
    ) -> Protected:
        cluster = make_cluster(major, SETTINGS | (settings or {}), **options)
        return protect(cluster, make_directory(), postgres_user, source=source)

    return make
