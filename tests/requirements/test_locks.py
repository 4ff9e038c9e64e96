"""What is installed is named by its hash, and is what pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCKS = {"run": ("s3", "reports", "timestamps"), "demo": ("demo",), "dev": ("dev",)}


def locked(name: str) -> dict[str, tuple[str, str]]:
    """Each release of a lock file: version, and the rest of its statement."""
    text = re.sub(r"\s*#.*", "", (TOP / f"requirements/{name}.txt").read_text())
    found = {}
    for statement in text.replace("\\\n", " ").splitlines():
        if statement.strip():
            match = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==(\S+)(.*)", statement)
            assert match, statement
            found[canonicalize_name(match[1])] = (match[2], match[3])
    return found


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for, extras of extras included."""
    words = list(PROJECT["dependencies"])
    open_ = list(extras)
    while open_:
        for word in EXTRAS[open_.pop()]:
            inner = re.fullmatch(r"drkit\[([\w,]+)\]", word)
            if inner:
                open_ += inner[1].split(",")
            else:
                words.append(word)
    return [Requirement(word) for word in words]


@pytest.mark.parametrize("name", [*LOCKS, "build", "tools"])
def test_each_release_has_hashes(name: str) -> None:
    for package, (_, rest) in locked(name).items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", rest), package


@pytest.mark.parametrize("name", LOCKS)
def test_each_dependency_is_locked_within_its_bounds(name: str) -> None:
    releases = locked(name)
    for requirement in wanted(LOCKS[name]):
        version, _ = releases[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("name", ["run", "demo"])
def test_what_is_released_is_what_was_tested(name: str) -> None:
    tested = locked("dev")
    for package, (version, _) in locked(name).items():
        assert tested[package][0] == version, package


@pytest.mark.parametrize("file", ["Makefile", "docker/Dockerfile"])
def test_installations_are_by_hash(file: str) -> None:
    text = (TOP / file).read_text().replace("\\\n", " ")
    variables = dict(re.findall(r"^(\w+) := (.*)$", text, re.MULTILINE))
    for name, value in [*variables.items(), *variables.items()]:
        text = text.replace(f"$({name})", value)
    lines = [line for line in text.splitlines() if "pip install" in line]
    assert lines
    for line in lines:
        if ":=" not in line:
            for part in line.split("&&"):
                if "pip install" in part:
                    assert "--require-hashes" in part or "--no-deps" in part, part
