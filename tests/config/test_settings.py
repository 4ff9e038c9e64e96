from __future__ import annotations

import re
from pathlib import Path

import pytest

from drkit.config.environment import KNOWN, OVERRIDES, PREFIX, PROCESS, SECRETS
from drkit.config.settings import Settings, read_settings
from drkit.errors import PolicyError

ROOT = Path(__file__).parents[2]


def variables() -> dict[str, str]:
    """Every setting's variable, with what it is described as."""
    return {
        PREFIX + name.upper(): str(field.description)
        for name, field in Settings.model_fields.items()
    }


def test_the_light_list_of_names_is_that_of_the_settings() -> None:
    assert variables().keys() == KNOWN
    assert len(OVERRIDES) + len(SECRETS) + len(PROCESS) == len(KNOWN)


def test_the_example_lists_and_explains_every_variable() -> None:
    text = (ROOT / ".env.example").read_text()
    explained = re.findall(r"^# (.+)\n(DRKIT_\w+)=$", text, re.MULTILINE)
    assert {name: words for words, name in explained} == variables()
    assert len(explained) == len(re.findall(r"^[^#\n]", text, re.MULTILINE))


def test_the_example_taken_as_it_is_changes_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = (line.split("=") for line in lines if line and line[0] != "#")
    assert read_settings(dict(pairs)) == Settings()


def test_defaults_and_values() -> None:
    settings = read_settings(
        {"DRKIT_LOG_FORMAT": "JSON", "DRKIT_LOG_LEVEL": "Debug", "PATH": "/bin"}
    )
    assert (settings.log_format, settings.log_level) == ("json", "debug")
    assert read_settings({}).log_format == "text"
    assert read_settings({}).backup_jobs is None


def test_nothing_is_read_behind_the_callers_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRKIT_BACKUP_JOBS", "9")
    (tmp_path / ".env").write_text("DRKIT_BACKUP_JOBS=8\n")
    assert read_settings({}).backup_jobs is None


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"DRKIT_BACKUP_JOBS": "two"}, "DRKIT_BACKUP_JOBS: must be a whole number"),
        ({"DRKIT_BACKUP_JOBS": "2.5"}, "DRKIT_BACKUP_JOBS: must be a whole number"),
        ({"DRKIT_LOG_FORMAT": "xml"}, "DRKIT_LOG_FORMAT: must be 'text' or 'json'"),
        ({"DRKIT_LOG_LEVEL": "loud"}, "DRKIT_LOG_LEVEL: must be 'debug', 'info'"),
        ({"DRKIT_CACHE_DIR": "cache"}, "DRKIT_CACHE_DIR: must be an absolute path"),
        ({"DRKIT_BACKUP_JOB": "2"}, "did you mean DRKIT_BACKUP_JOBS?"),
        ({"DRKIT_DATABSE_URL": "x"}, "did you mean DRKIT_DATABASE_URL?"),
        ({"drkit_backup_jobs": "2"}, "did you mean DRKIT_BACKUP_JOBS?"),
        ({"DRKIT_ZZZ": ""}, "DRKIT_ZZZ: drkit knows no such variable; unset it"),
    ],
)
def test_refuses(environ: dict[str, str], told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_settings(environ)
    assert told in caught.value.message
    assert ".env.example" in str(caught.value.hint)


def test_all_errors_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        read_settings(
            {"DRKIT_X": "1", "DRKIT_BACKUP_JOBS": "x", "DRKIT_LOG_LEVEL": "x"}
        )
    assert len(caught.value.message.splitlines()) == 3


def test_policies_may_refer_to_variables_of_a_reserved_prefix() -> None:
    assert read_settings({"DRKIT_SECRET_WAL_KEY": "x"}) == Settings()


def test_secrets_stay_hidden() -> None:
    environ = dict.fromkeys(SECRETS, "hunter2")
    settings = read_settings(environ)
    assert "hunter2" not in repr(settings) + str(settings.model_dump())
    with pytest.raises(PolicyError) as caught:
        read_settings(
            {**environ, "DRKIT_PASSWORD": "hunter2", "DRKIT_LOG_LEVEL": "hunter2"}
        )
    assert "hunter2" not in caught.value.message
    assert caught.value.__context__ is None
