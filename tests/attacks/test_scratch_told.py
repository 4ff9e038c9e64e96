"""What a host lacks to cut a scratch instance off is told, and signed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from drkit.postgres.process import DEFAULT_ENVIRONMENT, run
from tests.attacks.breached import backed_up, own_directory
from tests.attacks.lacking import __file__ as lacking_script
from tests.pg import drkit_command
from tests.protect import NAME
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from drkit.postgres.process import Completed
    from tests.operations.scene import Scene
    from tests.protect import Protected


@pytest.fixture(scope="module")
def protected(scene: Scene, newest_version: int) -> Protected:
    made = backed_up(scene, newest_version)
    directory = str(own_directory(scene) / "scratch")
    verification = {"directory": directory, "fingerprint": "off"}
    made.change_policy(lambda policy: policy.update(verification=verification))
    return made


def verify(protected: Protected, lacking: str, *words: str) -> Completed:
    command = drkit_command(
        *("verify", NAME, "--depth", "restore"),
        *("--policy-dir", protected.home, *words),
    )
    env = DEFAULT_ENVIRONMENT | {"HOME": "/nonexistent"}
    argv = [sys.executable, lacking_script, lacking, *command]
    return run(argv, env=env, timeout=300, raising=None)


def record(protected: Protected, lacking: str) -> dict[str, Any]:
    done = verify(protected, lacking, "--output", "json")
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)["record"]
    return found


def about_the_host(found: dict[str, Any]) -> list[str]:
    words = ("namespace", "Landlock", "seccomp", "runs as", "file system of its own")
    return [one for one in found["deviations"] if any(word in one for word in words)]


@only_root
def test_where_nothing_lacks_the_means_are_told(protected: Protected) -> None:
    found = record(protected, "")
    assert about_the_host(found) == []
    (told,) = (one for one in found["notes"] if "was cut off by" in one)
    for word in ("Landlock", "seccomp", "mount", "PID", "network", "of its own"):
        assert word in told
    assert found["cleanup"]["proven"]
    assert "no file, process or mount" in found["cleanup"]["detail"]


@only_root
def test_what_lacks_is_a_deviation(protected: Protected) -> None:
    found = record(protected, "namespaces")
    assert len(about_the_host(found)) == 4
    (told,) = (one for one in found["notes"] if "was cut off by" in one)
    assert "namespaces" not in told
    text = verify(protected, "namespaces").stdout.decode()
    assert "deviations" in text
    for sentence in about_the_host(found):
        assert sentence in text


def test_a_host_without_any_means_is_refused(protected: Protected) -> None:
    done = verify(protected, "namespaces,landlock,seccomp", "--output", "json")
    assert done.returncode != 0
    found = json.loads(done.stdout)["record"]
    assert "can't be run safely" in found["failure"]
    assert found["outcome"] == "failed"


@only_root
def test_another_users_directory_is_worked_in_as_that_user(
    protected: Protected, scene: Scene
) -> None:
    """What somebody else can change is no place for root's own user."""
    directory = scene.directory()
    before = protected.policy_path.read_text()
    verification = {"directory": str(directory / "scratch"), "fingerprint": "off"}
    protected.change_policy(lambda policy: policy.update(verification=verification))
    try:
        found = record(protected, "")
    finally:
        protected.policy_path.write_text(before)
    (told,) = about_the_host(found)
    assert f"runs as {protected.account.name}" in told
