"""A restored cluster looks for drkit's secrets: keys, policy, environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.attacks.breached import Breached, backed_up, breached
from tests.pg import versions_under_test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.operations.scene import Scene
    from tests.protect import Protected

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-store",
    "DRKIT_DATABASE_PASSWORD": "secret-of-the-database",
    "HTTPS_PROXY": "http://secret-of-the-proxy@proxy",
    "PGPASSWORD": "secret-of-libpq",
}


@pytest.fixture(scope="module", params=versions_under_test(), ids=lambda v: f"pg{v}")
def protected(scene: Scene, request: pytest.FixtureRequest) -> Protected:
    return backed_up(scene, request.param)


@pytest.fixture(scope="module")
def inside(protected: Protected, scene: Scene) -> Iterator[Breached]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        with breached(protected, scene, SECRETS) as found:
            yield found


def test_the_environment_holds_no_secret(inside: Breached) -> None:
    found = inside.shell("set; while read -r line; do echo $line; done </dev/null")
    assert found.code == 0
    assert "PATH=" in found.out
    assert "secret" not in found.out
    names = {line.partition("=")[0] for line in found.out.splitlines()}
    assert not [name for name in names if name.startswith(("DRKIT", "AWS", "HTTP"))]


def test_nothing_inside_names_the_policy_or_the_keys(
    inside: Breached, protected: Protected
) -> None:
    home = str(protected.home)
    (command,) = inside.sql("SELECT setting FROM pg_settings WHERE name = "
        "'restore_command'")[0]  # fmt: skip
    assert home not in str(command)
    assert "drkit wal" not in str(command)
    settings = Path(inside.scratch.data_directory, "postgresql.auto.conf").read_text()
    assert home not in settings
    command_line = Path(f"/proc/{inside.scratch.server.pid}/cmdline").read_bytes()
    assert home.encode() not in command_line
