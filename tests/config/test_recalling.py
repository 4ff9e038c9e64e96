"""Policies from the cache are those of the file, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import drkit
from drkit.config.addresses import (
    ClusterSection,
    KeysSection,
    RepositorySection,
    S3Section,
)
from drkit.config.cache import read_entry, read_source, write_entry
from drkit.config.choosing import load_compiled
from drkit.config.codec import decode_policy, encode
from drkit.config.loading import load_policy, parse_policy
from drkit.config.policy import (
    BackupRules,
    BackupSchedules,
    ClusterAddress,
    HeartbeatRules,
    KeyReferences,
    Policy,
    RepositoryAddress,
    S3Access,
    WalRules,
)
from drkit.config.recalling import find_policy, recall_policy
from drkit.config.schema import (
    BackupSection,
    HeartbeatSection,
    ObjectivesSection,
    PolicySchema,
    RetentionSection,
    ScheduleSection,
    WalSection,
)
from drkit.config.secrets import SecretReference
from drkit.config.section import Section
from drkit.config.verification import (
    AssertionSection,
    TimestampsSection,
    VerificationSection,
)
from drkit.errors import PolicyError
from drkit.model.objectives import Objectives
from drkit.model.retention import Retention
from drkit.model.verification import Assertion, TimestampAuthority, VerificationRules
from tests.config.policies import SECTIONS, policies
from tests.config.samples import GOOD, changed, policy

EXAMPLE = Path(__file__).parents[2] / "policies" / "example.yaml"

# Each section, the value that it becomes, and where generated ones are.
PAIRS: dict[type[Section], tuple[Any, str | None]] = {
    ClusterSection: (ClusterAddress, "cluster"),
    RepositorySection: (RepositoryAddress, None),
    S3Section: (S3Access, "s3"),
    KeysSection: (KeyReferences, "keys"),
    BackupSection: (BackupRules, "backup"),
    ScheduleSection: (BackupSchedules, None),
    RetentionSection: (Retention, "retention"),
    ObjectivesSection: (Objectives, "objectives"),
    HeartbeatSection: (HeartbeatRules, "heartbeat"),
    AssertionSection: (Assertion, "assertion"),
    TimestampsSection: (TimestampAuthority, "timestamps"),
    VerificationSection: (VerificationRules, "verification"),
    WalSection: (WalRules, "wal"),
    PolicySchema: (Policy, None),
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"DRKIT_CACHE_DIR": str(tmp_path / "cache")}


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "production.yaml").write_text(EXAMPLE.read_text())
    return str(tmp_path / "production.yaml")


def deep(value: Any) -> Any:
    """Return a value with all that comparing it would pass over."""
    if is_dataclass(value):
        named = {one.name: deep(getattr(value, one.name)) for one in fields(value)}
        return type(value), named
    if isinstance(value, SecretReference):
        return value.scheme, value.target, value.field
    if isinstance(value, tuple):
        return [deep(one) for one in value]
    return type(value), value


def doctor(path: str, environ: dict[str, str], **changes: Any) -> None:
    """Change the values that were kept, to see whether they are what is read next."""
    source = read_source(path, environ)
    compiled, values = map(json.loads, read_entry(source))
    values["policy"][1] |= changes
    write_entry(source, compiled, values)


def recalled(path: str, environ: dict[str, str]) -> bool:
    return recall_policy(path, environ).name == "from-the-cache"


@given(policies())
def test_what_was_kept_is_what_was_read(written: dict[str, Any]) -> None:
    data = json.dumps(written, ensure_ascii=False).encode()
    read = parse_policy(data, "/etc/drkit/policies/x.yaml", {})
    again = decode_policy(json.loads(json.dumps(encode(read))))
    assert again == read
    assert deep(again) == deep(read)


def test_the_generated_policies_have_every_field() -> None:
    sections = {where: section for section, (_, where) in PAIRS.items() if where}
    assert sections.keys() == SECTIONS.keys()
    for where, section in sections.items():
        assert SECTIONS[where].keys() == section.model_fields.keys(), where


def test_every_field_of_the_schema_is_in_the_values() -> None:
    for section, (kind, _) in PAIRS.items():
        known = set(section.model_fields)
        if section is AssertionSection:
            known = known - {"equals", "at_least", "at_most"}
            known |= {"comparison", "expected"}
        if section is PolicySchema:
            known |= {"path", "owner"}  # of the file itself
        assert {one.name for one in fields(kind)} == known, section


def test_no_section_is_left_out_here() -> None:
    def subclasses(kind: type) -> set[type]:
        found: set[type] = set(kind.__subclasses__())
        return found.union(*map(subclasses, found))

    assert subclasses(Section) == PAIRS.keys()


def test_the_second_time_from_the_cache(path: str, environ: dict[str, str]) -> None:
    first = recall_policy(path, environ)
    assert deep(first) == deep(load_policy(path, environ))
    assert deep(recall_policy(path, environ)) == deep(first)
    doctor(path, environ, name="from-the-cache")
    assert recalled(path, environ)


def test_archiving_and_commands_keep_for_each_other(
    path: str, environ: dict[str, str]
) -> None:
    load_compiled(path, environ)
    doctor(path, environ, name="from-the-cache")
    assert recalled(path, environ)


def test_an_unknown_variable_stops_the_start_with_a_warm_cache_too(
    path: str, environ: dict[str, str]
) -> None:
    recall_policy(path, environ)
    with pytest.raises(PolicyError, match="did you mean DRKIT_BACKUP_JOBS"):
        recall_policy(path, environ | {"DRKIT_BACKUP_JOB": "1"})
    assert recall_policy(path, environ | {"DRKIT_BACKUP_JOBS": "7"}).backup.jobs == 7


def test_errors_are_the_loaders_own(path: str, environ: dict[str, str]) -> None:
    recall_policy(path, environ)
    Path(path).write_text(changed("full: 4", "full: 0"))
    with pytest.raises(PolicyError) as loaded:
        load_policy(path, environ)
    with pytest.raises(PolicyError) as found:
        recall_policy(path, environ)
    assert (found.value.message, found.value.hint) == (
        loaded.value.message,
        loaded.value.hint,
    )


def test_the_number_of_cpus_is_looked_at_again(
    path: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(path).write_text(changed("  jobs: 2\n", ""))
    for count in (3, 1, 3):
        cpus = set(range(count))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cpus=cpus: cpus)
        assert recall_policy(path, environ).backup.jobs == count


@pytest.mark.parametrize(
    "policy",
    [
        None,
        [],
        ["Policy", []],
        ["Policy", {}],
        ["Policy", {"name": "x"}],
        ["Retention", {}],
        ["Popen", ["true"]],
        ["timedelta", [1]],
        ["tuple", [["os.system", "true"]]],
    ],
)
def test_other_values_are_not_taken(
    path: str, environ: dict[str, str], policy: object
) -> None:
    good = recall_policy(path, environ)
    source = read_source(path, environ)
    compiled, values = map(json.loads, read_entry(source))
    write_entry(source, compiled, values | {"policy": policy})
    assert deep(recall_policy(path, environ)) == deep(good)
    assert json.loads(read_entry(source)[1]) == values


def test_every_flipped_bit_is_noticed(path: str, environ: dict[str, str]) -> None:
    source = read_source(path, environ)
    recall_policy(path, environ)
    assert source.entry is not None
    place = Path(source.entry)
    good = place.read_bytes()
    for at in range(0, len(good), 7):
        place.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert read_entry(source) == [], at
    for end in range(0, len(good), 101):
        place.write_bytes(good[:end])
        assert read_entry(source) == [], end
    assert recall_policy(path, environ).name == "production"
    assert place.read_bytes() == good


def test_a_zone_that_went_away_is_told(path: str, environ: dict[str, str]) -> None:
    recall_policy(path, environ)
    schedule = json.loads(read_entry(read_source(path, environ))[1])
    backup = schedule["policy"][1]["backup"]
    backup[1]["schedule"][1]["full"][1]["zone"] = ["ZoneInfo", "Mars/Olympus"]
    doctor(path, environ, name="from-the-cache", backup=backup)
    assert not recalled(path, environ)


def test_no_place_for_a_cache_is_no_error(path: str) -> None:
    found = recall_policy(path, {"DRKIT_CACHE_DIR": "/proc/none"})
    assert deep(found) == deep(load_policy(path, {}))


def test_finds_a_name_in_the_cache(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "a.yaml").write_text(policy("staging"))
    (tmp_path / "b.yaml").write_text(GOOD)
    directories = [str(tmp_path)]
    cold = find_policy("production", directories, environ)
    recall_policy(cold, environ)
    assert find_policy("production", directories, environ) == cold
    (tmp_path / "b.yaml").write_text(policy("other"))
    assert find_policy("other", directories, environ) == cold


def test_a_warm_start_imports_nothing_heavy(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    recall_policy(str(tmp_path / "a.yaml"), environ)
    program = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "import os\n"
        "from drkit.config.recalling import find_policy, recall_policy\n"
        "path = find_policy('production', [sys.argv[1]], os.environ)\n"
        "print(recall_policy(path, os.environ).name)\n"
        "print(*sorted(sys.modules))\n"
    )
    root = str(Path(drkit.__file__).parents[1])
    command = [sys.executable, "-I", "-S", "-c", program, str(tmp_path), root]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environ
    )
    name, modules = done.stdout.splitlines()
    assert name == "production"
    heavy = {"pydantic", "pydantic_core", "yaml", "psycopg", "zoneinfo", "difflib"}
    assert heavy.isdisjoint(modules.split())
