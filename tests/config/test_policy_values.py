"""What a right policy turns into, and what replaces what."""

from __future__ import annotations

import json
import os
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from pydantic import ValidationError

from drkit.config.discovery import find_policies, policy_dirs
from drkit.config.document import read_document
from drkit.config.loading import load_policy, parse_policy, policy_schema
from drkit.config.recalling import find_policy
from drkit.config.schema import (
    BackupSection,
    HeartbeatSection,
    PolicySchema,
    WalSection,
)
from drkit.config.secrets import SecretReference
from drkit.config.verification import VerificationSection
from drkit.errors import NotFound, PolicyError
from drkit.model.duration import format_duration
from drkit.model.objectives import Objectives
from drkit.model.retention import Retention
from drkit.model.size import format_size
from tests.config.samples import GOOD, changed, policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.config.policy import Policy

NO_CACHE = {"DRKIT_CACHE_DIR": "/proc/none"}
PATH = "/etc/drkit/policies/production.yaml"
ROOT = Path(__file__).parents[2]


def parse(text: str = GOOD, environ: dict[str, str] | None = None) -> Policy:
    return parse_policy(text.encode(), PATH, environ or {})


def checked(text: str) -> PolicySchema:
    value = read_document(text.encode()).value
    context = {"path": PATH, "folder": str(Path(PATH).parent)}
    return PolicySchema.model_validate(value, context=context)


def test_values_of_a_file() -> None:
    found = parse()
    assert found.name == "production"
    assert found.path == PATH
    assert found.cluster.system_identifier == "7412345678901234567"
    assert found.repository.url == "file:///srv/drkit"
    assert found.retention == Retention(full=4)
    assert found.objectives == Objectives(
        rto=timedelta(minutes=15), rpo=timedelta(minutes=5)
    )
    assert str(found.backup.schedule.full) == "sunday at 02:00"


def test_defaults() -> None:
    text = changed("  jobs: 2\n  schedule: {full: sunday at 02:00,", "  schedule: {")
    found = parse(changed("objectives: {rto: 15 minutes, rpo: 5 minutes}\n", "", text))
    assert found.backup.jobs == min(8, len(os.sched_getaffinity(0)))
    assert found.backup.compression_level == 3
    assert found.backup.wal_timeout == timedelta(minutes=10)
    assert found.backup.timezone == "UTC"
    assert found.backup.schedule.full is None
    assert found.wal.timeout == timedelta(seconds=60)
    assert found.objectives == Objectives()
    assert found.repository.s3 is None


def test_relative_key_paths_begin_at_the_policy_file(tmp_path: Path) -> None:
    assert str(parse().keys.backup) == "file:/etc/drkit/policies/keys/backup.key"
    file = tmp_path / "production.yaml"
    file.write_text(GOOD)
    assert load_policy(file, {}).keys.backup.target == f"{tmp_path}/keys/backup.key"


def test_references_know_their_field() -> None:
    with pytest.raises(PolicyError, match=r"keys\.dump: .* DRKIT_SECRET_DUMP is not"):
        parse().keys.dump.resolve({})


@pytest.mark.parametrize("written", ["7412345678901234567", "'7412345678901234567'"])
def test_a_system_identifier_needs_no_quotes(written: str) -> None:
    found = parse(changed('"7412345678901234567"', written))
    assert found.cluster.system_identifier == "7412345678901234567"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("file:///srv/drkit/", "file:///srv/drkit"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ],
)
def test_repository_addresses_have_one_spelling(written: str, read: str) -> None:
    assert parse(changed("file:///srv/drkit", written)).repository.url == read


def test_schedules_mean_the_clock_of_the_policys_zone() -> None:
    # After `schedule` in the file, to show that the order there does not matter.
    text = changed("retention:\n", "  timezone: Europe/Berlin\nretention:\n")
    full = parse(text).backup.schedule.full
    assert full is not None
    assert full.next_after(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(
        2026, 1, 4, 1, 0, tzinfo=UTC
    )


def test_frozen_throughout() -> None:
    found = parse()
    with pytest.raises(FrozenInstanceError):
        found.name = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        found.backup.jobs = 3  # type: ignore[misc]


def test_a_dump_of_a_policy_is_a_policy_again() -> None:
    read = checked(GOOD)
    dumped = json.loads(json.dumps(read.model_dump(exclude_none=True)))
    again = PolicySchema.model_validate(dumped, context={"path": PATH})
    assert again == read
    assert again.value() == parse()


def test_no_policy_holds_a_secret() -> None:
    environ = {"DRKIT_DATABASE_PASSWORD": "hunter2", "DRKIT_SECRET_DUMP": "hunter2"}
    assert "hunter2" not in repr(parse(GOOD, environ)) + str(parse(GOOD, environ))


def test_a_policy_made_in_python_is_checked_as_a_whole_too() -> None:
    with pytest.raises(ValidationError, match=r"cluster\.data_directory: is missing"):
        checked(changed("  data_directory: /var/lib/postgresql/15/main\n", ""))


# Precedence: defaults, then the file, then the environment.


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("DRKIT_DATABASE_URL", "postgres://h/x", "cluster.url", "postgres://h/x"),
        ("DRKIT_DATABASE_PASSWORD", "hunter2", "cluster.password",
         SecretReference("env", "DRKIT_DATABASE_PASSWORD")),
        ("DRKIT_DATABASE_DIRECTORY", "/data", "cluster.data_directory", "/data"),
        ("DRKIT_REPOSITORY_URL", "s3://bucket/p", "repository.url", "s3://bucket/p"),
        ("DRKIT_BACKUP_SOURCE", "stream", "backup.source", "stream"),
        ("DRKIT_BACKUP_JOBS", "7", "backup.jobs", 7),
        ("DRKIT_BACKUP_COMPRESSION_LEVEL", "9", "backup.compression_level", 9),
        ("DRKIT_BACKUP_WAL_TIMEOUT", "1 hour", "backup.wal_timeout",
         timedelta(hours=1)),
        ("DRKIT_WAL_TIMEOUT", "5 s", "wal.timeout", timedelta(seconds=5)),
    ],
)  # fmt: skip
def test_the_environment_replaces_the_file(
    variable: str, value: str, path: str, expected: object
) -> None:
    found: object = parse(GOOD, {variable: value})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == expected


def test_an_empty_variable_replaces_nothing() -> None:
    assert parse(GOOD, {"DRKIT_BACKUP_JOBS": ""}).backup.jobs == 2


def test_s3_settings_concern_only_policies_that_use_s3() -> None:
    environ = {
        "DRKIT_S3_ENDPOINT_URL": "http://127.0.0.1:9000/",
        "DRKIT_S3_REGION": "eu-central-1",
        "DRKIT_S3_ACCESS_KEY_ID": "AKIA",
        "DRKIT_S3_SECRET_ACCESS_KEY": "hunter2",
    }
    assert parse(GOOD, environ).repository.s3 is None
    s3 = parse(changed("file:///srv/drkit", "s3://bucket"), environ).repository.s3
    assert s3 is not None
    assert s3.endpoint_url == "http://127.0.0.1:9000"
    assert s3.region == "eu-central-1"
    assert s3.access_key_id is not None
    assert s3.access_key_id.resolve(environ).reveal() == "AKIA"
    assert s3.secret_access_key is not None
    assert s3.secret_access_key.resolve(environ).reveal() == "hunter2"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("DRKIT_BACKUP_JOBS", "0", "for backup.jobs: must be at least 1"),
        ("DRKIT_BACKUP_JOBS", "many", "must be a whole number"),
        ("DRKIT_WAL_TIMEOUT", "60", "for wal.timeout: '60' has no unit"),
        ("DRKIT_BACKUP_SOURCE", "x", "for backup.source: must be 'local' or 'stream'"),
        (
            "DRKIT_DATABASE_URL",
            "postgresql://u:hunter2@h/",
            "for cluster.url: must not",
        ),
        ("DRKIT_REPOSITORY_URL", "/srv", "for repository.url: is a bare path"),
    ],
)
def test_a_wrong_value_is_blamed_on_its_variable(
    variable: str, value: str, told: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(GOOD, {variable: value})
    assert caught.value.message.startswith(variable)
    assert told in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_misspelt_variable_stops_the_start() -> None:
    with pytest.raises(PolicyError, match="did you mean DRKIT_BACKUP_JOBS"):
        parse(GOOD, {"DRKIT_BACKUP_JOB": "2"})


# Finding.


def test_directories_in_order_of_precedence(tmp_path: Path) -> None:
    option, variable = tmp_path / "option", tmp_path / "variable"
    option.mkdir()
    variable.mkdir()
    environ = {"DRKIT_POLICY_DIR": str(variable)}
    assert policy_dirs(str(option), environ) == [str(option)]
    assert policy_dirs(None, environ) == [str(variable)]


def test_the_usual_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    local = str(tmp_path / "policies")
    assert local not in policy_dirs(None, {})
    (tmp_path / "policies").mkdir()
    found = policy_dirs(None, {"DRKIT_POLICY_DIR": ""})
    assert (local in found) == (os.geteuid() != 0)


@pytest.mark.parametrize(
    ("option", "environ", "source"),
    [
        ("/absent", {}, "--policy-dir"),
        (None, {"DRKIT_POLICY_DIR": "/absent"}, "DRKIT_POLICY_DIR"),
    ],
)
def test_a_directory_that_was_asked_for_must_be_there(
    option: str | None, environ: dict[str, str], source: str
) -> None:
    with pytest.raises(PolicyError, match=f"{source}: there is no directory /absent"):
        policy_dirs(option, environ)


def write(directory: Path, **files: str) -> list[str]:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return [str(directory)]


def test_finds_policies_and_nothing_else(tmp_path: Path) -> None:
    directories = write(tmp_path, b=GOOD, a=GOOD, example=GOOD)
    for name in (".hidden.yaml", "c.yaml~", "README.md", "d.yml"):
        (tmp_path / name).write_text(GOOD)
    found = [Path(path).name for path in find_policies(directories)]
    assert found == ["a.yaml", "b.yaml", "d.yml"]


def test_finds_by_name_and_not_by_file(tmp_path: Path) -> None:
    directories = write(tmp_path, a=policy("staging"), b=policy("production"))
    assert find_policy("production", directories, NO_CACHE) == f"{tmp_path}/b.yaml"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = f"{tmp_path}/example.yaml"
    assert find_policy(path, [], {}) == path


def test_one_name_in_two_files(tmp_path: Path) -> None:
    directories = write(tmp_path, a=GOOD, b=GOOD)
    with pytest.raises(PolicyError) as caught:
        find_policy("production", directories, NO_CACHE)
    assert f"{tmp_path}/a.yaml and {tmp_path}/b.yaml" in caught.value.message


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    directories = write(tmp_path, a=policy("staging"), b=policy("production"))
    with pytest.raises(NotFound) as caught:
        find_policy("prod", directories, NO_CACHE)
    assert "known are production, staging" in caught.value.message
    assert str(tmp_path) in str(caught.value.hint)


def test_no_policies_at_all(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=f"none was found in {tmp_path}"):
        find_policy("production", [str(tmp_path)], NO_CACHE)


def test_a_broken_neighbour_is_no_obstacle(tmp_path: Path) -> None:
    directories = write(tmp_path, a="name: [", b=GOOD, c="retention: {full: 0}")
    assert find_policy("production", directories, NO_CACHE) == f"{tmp_path}/b.yaml"


def test_a_broken_file_is_found_by_what_it_is_called(tmp_path: Path) -> None:
    directories = write(tmp_path, production="name: [", b=policy("staging"))
    found = find_policy("production", directories, NO_CACHE)
    with pytest.raises(PolicyError, match=r"production\.yaml:2: is no YAML"):
        load_policy(found, {})


# The schema and the example.


def test_the_example_is_right_and_complete() -> None:
    found = checked((ROOT / "policies" / "example.yaml").read_text())

    def unset(section: object, at: str = "") -> Iterator[str]:
        for name in getattr(type(section), "model_fields", {}):
            value = getattr(section, name)
            if value is None:
                yield f"{at}{name}"
            yield from unset(value, f"{at}{name}.")

    assert list(unset(found)) == []


def schema_fields(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every field of every section, with the section's title."""
    sections = [schema, *schema["$defs"].values()]
    return {
        f"{section['title']}.{name}": field
        for section in sections
        for name, field in section["properties"].items()
    }


def definition(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][field["$ref"].rpartition("/")[2]]
    return found


def test_the_schema_explains_every_field() -> None:
    schema = policy_schema()
    fields = schema_fields(schema)
    assert len(fields) > 30
    for name, field in fields.items():
        # A section's own description stands in its definition.
        described = field if "description" in field else definition(schema, field)
        assert described["description"], name
        assert field.get("examples"), name
    assert all(
        section["additionalProperties"] is False
        for section in (schema, *schema["$defs"].values())
    )
    assert "null" not in json.dumps(schema)


def test_defaults_in_the_schema_are_what_the_loader_takes() -> None:
    fields = schema_fields(policy_schema())
    verification = VerificationSection()
    shown = {
        name: field["default"] for name, field in fields.items() if "default" in field
    }
    assert shown == {
        "KeysSection.provider": "local",
        "KeysSection.trusted_wal": [],
        "BackupSection.source": "local",
        "BackupSection.compression_level": 3,
        "BackupSection.audit_every": format_duration(BackupSection().audit_every),
        "BackupSection.wal_timeout": format_duration(BackupSection().wal_timeout),
        "BackupSection.timezone": "UTC",
        "RetentionSection.max_deletions": 100,
        "HeartbeatSection.every": format_duration(HeartbeatSection().every),
        "WalSection.timeout": format_duration(WalSection().timeout),
        "AssertionSection.timeout": "10 minutes",
        "VerificationSection.time_limit": format_duration(verification.time_limit),
        "VerificationSection.memory": format_size(verification.memory),
        "VerificationSection.fingerprint": verification.fingerprint,
        "VerificationSection.choose": list(verification.choose),
        "VerificationSection.checks": list(verification.checks),
        "VerificationSection.allow_missing": list(verification.allow_missing),
        "VerificationSection.assertions": [],
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: production", "name: Production"),
        ("jobs: 2", "jobs: 0"),
        ("jobs: 2", "job: 2"),
        ("jobs: 2", "wal_timeout: 10"),
        ("jobs: 2", "wal_timeout: 10 parsecs"),
        ("full: 4", "full: 0"),
        ("full: sunday at 02:00", "full: sometimes"),
        ("file:/etc/drkit/keys/wal.key", "hunter2"),
        ("retention:\n  full: 4\n", ""),
    ],
)
def test_an_editor_sees_what_the_loader_sees(old: str, new: str) -> None:
    validator = jsonschema.Draft202012Validator(policy_schema())
    example = (ROOT / "policies" / "example.yaml").read_bytes()
    assert list(validator.iter_errors(read_document(example).value)) == []
    assert list(validator.iter_errors(read_document(GOOD.encode()).value)) == []
    broken = read_document(changed(old, new).encode()).value
    assert list(validator.iter_errors(broken)) != []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"full": 0},
        {"full": 3, "daily": -1},
        {"window": timedelta(0)},
        {"full": 3, "wal_window": timedelta(days=-1)},
        {"wal_window": timedelta(days=1)},
    ],
)
def test_a_retention_that_keeps_nothing_is_no_value(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="retention"):
        Retention(**fields)  # type: ignore[arg-type]
