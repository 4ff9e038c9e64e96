from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

import drkit
from drkit.config.cache import cache_dir, read_entry, read_source, write_entry
from drkit.config.choosing import choose_compiled, list_compiled, load_compiled
from drkit.config.compiled import compile_policy
from drkit.config.loading import load_policy
from drkit.errors import NotFound, PolicyError, UsageError
from tests.config.samples import GOOD, changed, policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    return folder


@pytest.fixture
def environ(tmp_path: Path, folder: Path) -> dict[str, str]:
    return {
        "DRKIT_CACHE_DIR": str(tmp_path / "cache" / "drkit"),
        "DRKIT_POLICY_DIR": str(folder),
    }


def write(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{name}.yaml")


def entry(environ: dict[str, str]) -> Path:
    (found,) = Path(environ["DRKIT_CACHE_DIR"]).iterdir()
    return found


def doctor(path: str, environ: dict[str, str]) -> None:
    """Change the cached policy, to see whether it is what is read next."""
    source = read_source(path, environ)
    compiled, values = map(json.loads, read_entry(source))
    write_entry(source, compiled | {"name": "from-the-cache"}, values)


def cached(path: str, environ: dict[str, str]) -> bool:
    return load_compiled(path, environ)["name"] == "from-the-cache"


def test_what_archiving_needs(folder: Path, environ: dict[str, str]) -> None:
    path = write(folder, "a", changed("file:///srv/drkit", "s3://bucket/p"))
    environ |= {
        "DRKIT_S3_REGION": "eu-central-1",
        "DRKIT_S3_ACCESS_KEY_ID": "AKIA",
        "DRKIT_S3_SECRET_ACCESS_KEY": "hunter2",
    }
    found = load_compiled(path, environ)
    assert found == compile_policy(load_policy(path, environ))
    assert found == {
        "name": "production",
        "path": path,
        "system_identifier": "7412345678901234567",
        "data_directory": "/var/lib/postgresql/15/main",
        "repository_url": "s3://bucket/p",
        "s3": {
            "region": "eu-central-1",
            "access_key_id": "env:DRKIT_S3_ACCESS_KEY_ID",
            "secret_access_key": "env:DRKIT_S3_SECRET_ACCESS_KEY",
        },
        "key_provider": "local",
        "keys": {
            "backup": f"file:{folder}/keys/backup.key",
            "wal": "file:/etc/drkit/keys/wal.key",
            "dump": "env:DRKIT_SECRET_DUMP",
            "files": "credential:files",
            "catalog": "file:/etc/drkit/keys/catalog.key",
            "signing": "file:/etc/drkit/keys/signing.key",
        },
        "trusted": ["ed25519:" + "0" * 64],
        "trusted_wal": [],
        "compression_level": 3,
        "wal_timeout": 60.0,
        "owner": os.geteuid(),
    }


def test_read_from_the_cache_the_second_time(
    folder: Path, environ: dict[str, str]
) -> None:
    path = write(folder, "a", GOOD)
    first = load_compiled(path, environ)
    assert load_compiled(path, environ) == first
    doctor(path, environ)
    assert cached(path, environ)


def test_whatever_the_policy_depends_on_is_noticed(
    folder: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder, "a", GOOD)
    load_compiled(path, environ)
    doctor(path, environ)
    assert cached(path, environ)
    changed_level = {**environ, "DRKIT_BACKUP_COMPRESSION_LEVEL": "9"}
    assert load_compiled(path, changed_level)["compression_level"] == 9
    assert cached(path, environ)  # each in an entry of its own
    write(folder, "a", GOOD + "# a comment\n")
    assert not cached(path, environ)
    doctor(path, environ)
    monkeypatch.setattr(drkit, "__version__", "999")
    assert not cached(path, environ)


def test_a_cached_policy_does_not_hide_an_error(
    folder: Path, environ: dict[str, str]
) -> None:
    path = write(folder, "a", GOOD)
    load_compiled(path, environ)
    with pytest.raises(PolicyError, match="DRKIT_BACKUP_JOBS"):
        load_compiled(path, {**environ, "DRKIT_BACKUP_JOB": "1"})
    write(folder, "a", changed("full: 4", "full: 0"))
    with pytest.raises(PolicyError, match=r"a\.yaml:23: retention\.full"):
        load_compiled(path, environ)
    os.unlink(path)
    with pytest.raises(NotFound):
        load_compiled(path, environ)


def test_no_secret_reaches_the_cache_not_even_digested(
    folder: Path, environ: dict[str, str]
) -> None:
    path = write(folder, "a", GOOD)
    environ |= {"DRKIT_DATABASE_PASSWORD": "hunter2", "DRKIT_SECRET_DUMP": "hunter2"}
    load_compiled(path, environ)
    content = entry(environ).read_text()
    assert "hunter2" not in content
    environ |= {"DRKIT_DATABASE_PASSWORD": "other", "DRKIT_SECRET_DUMP": "other"}
    load_compiled(path, environ)
    assert entry(environ).read_text() == content


def test_the_cache_is_closed_to_others_whatever_the_umask(
    folder: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    path = write(folder, "a", GOOD)
    before = os.umask(0)
    try:
        load_compiled(path, environ)
    finally:
        os.umask(before)
    modes = {
        place.stat().st_mode & 0o777
        for place in (tmp_path / "cache", tmp_path / "cache" / "drkit")
    }
    assert modes == {0o700}
    assert entry(environ).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_entry_that_others_can_write_is_ignored(
    folder: Path, environ: dict[str, str], mode: int
) -> None:
    path = write(folder, "a", GOOD)
    load_compiled(path, environ)
    doctor(path, environ)
    entry(environ).chmod(mode)
    assert not cached(path, environ)


def test_a_directory_that_others_can_write_is_not_used(
    folder: Path, environ: dict[str, str]
) -> None:
    path = write(folder, "a", GOOD)
    load_compiled(path, environ)
    doctor(path, environ)
    Path(environ["DRKIT_CACHE_DIR"]).chmod(0o777)
    assert not cached(path, environ)
    assert "from-the-cache" in entry(environ).read_text()  # nor written


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away takes root")
def test_an_entry_of_another_user_is_ignored(
    folder: Path, environ: dict[str, str]
) -> None:
    path = write(folder, "a", GOOD)
    load_compiled(path, environ)
    doctor(path, environ)
    os.chown(entry(environ), 65534, 65534)
    assert not cached(path, environ)


def test_a_link_in_the_place_of_an_entry_is_ignored(
    folder: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    path = write(folder, "a", GOOD)
    load_compiled(path, environ)
    doctor(path, environ)
    place = entry(environ)
    os.rename(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert not cached(path, environ)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", "\x00", '{"path": 1}']
)
def test_a_damaged_entry_is_replaced(
    folder: Path, environ: dict[str, str], content: str
) -> None:
    path = write(folder, "a", GOOD)
    load_compiled(path, environ)
    good = entry(environ).read_text()
    entry(environ).write_text(content)
    assert load_compiled(path, environ)["name"] == "production"
    assert entry(environ).read_text() == good


def test_works_without_a_place_for_a_cache(
    folder: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    path = write(folder, "a", GOOD)
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "/proc/x"):
        environ["DRKIT_CACHE_DIR"] = place
        assert load_compiled(path, environ)["name"] == "production"
    assert load_compiled(path, {})["name"] == "production"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"DRKIT_CACHE_DIR": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/drkit"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/drkit"),
        ({"HOME": "/h"}, "/h/.cache/drkit"),
        ({"HOME": ""}, f"{pwd.getpwuid(os.geteuid()).pw_dir}/.cache/drkit"),
        ({}, f"{pwd.getpwuid(os.geteuid()).pw_dir}/.cache/drkit"),
    ],
)
def test_where_the_cache_is(environ: dict[str, str], expected: str | None) -> None:
    assert cache_dir(environ) == expected


# Which policy `wal push` means.


def test_the_only_policy_serves(folder: Path, environ: dict[str, str]) -> None:
    write(folder, "a", policy("production"))
    write(folder, "example", policy("example", 5))
    assert choose_compiled(None, None, environ)["name"] == "production"


def test_the_policy_of_the_cluster(folder: Path, environ: dict[str, str]) -> None:
    write(folder, "a", policy("production", 11))
    write(folder, "b", policy("staging", 12))
    assert choose_compiled(None, "12", environ)["name"] == "staging"
    assert [each["name"] for each in list_compiled(environ)] == [
        "production",
        "staging",
    ]


def test_by_name_and_by_path(folder: Path, environ: dict[str, str]) -> None:
    write(folder, "a", policy("production", 11))
    path = write(folder, "b", policy("staging", 12))
    assert choose_compiled("staging", None, environ)["path"] == path
    assert choose_compiled(path, "11", environ)["name"] == "staging"


def test_another_directory(
    folder: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    write(folder, "a", policy("production"))
    other = tmp_path / "other"
    other.mkdir()
    write(other, "b", policy("staging"))
    chosen = choose_compiled(None, None, environ, policy_dir=str(other))
    assert chosen["name"] == "staging"


def test_no_choice_is_made_by_chance(folder: Path, environ: dict[str, str]) -> None:
    with pytest.raises(NotFound, match=f"there is no policy in {folder}"):
        choose_compiled(None, "11", environ)
    write(folder, "a", policy("production", 11))
    write(folder, "b", policy("second-copy", 11))
    for identifier in ("11", None):
        with pytest.raises(UsageError, match="production, second-copy"):
            choose_compiled(None, identifier, environ)
    with pytest.raises(NotFound, match="known are production, second-copy"):
        choose_compiled(None, "13", environ)
    with pytest.raises(NotFound, match="known are production, second-copy"):
        choose_compiled("staging", "11", environ)
    write(folder, "c", policy("production", 12))
    with pytest.raises(PolicyError, match="2 policies are named production"):
        choose_compiled("production", None, environ)


def test_a_broken_policy_stops_only_its_own_cluster(
    folder: Path, environ: dict[str, str]
) -> None:
    write(folder, "a", policy("production", 11))
    write(folder, "b", changed("full: 4", "full: 0", policy("staging", 12)))
    assert choose_compiled(None, "11", environ)["name"] == "production"
    assert choose_compiled("production", None, environ)["name"] == "production"
    for name, identifier in ((None, "12"), ("staging", None), (None, None)):
        with pytest.raises(PolicyError, match=r"b\.yaml:23: retention\.full"):
            choose_compiled(name, identifier, environ)


def test_a_cache_hit_imports_nothing_heavy(
    folder: Path, environ: dict[str, str]
) -> None:
    path = write(folder, "a", GOOD)
    load_compiled(path, environ)
    program = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "import os, json, hashlib\n"
        "before = set(sys.modules)\n"
        "from drkit.config.choosing import choose_compiled\n"
        "from drkit.config.secrets import SecretReference\n"
        "found = choose_compiled(None, None, os.environ)\n"
        "SecretReference.parse(found['keys']['wal'])\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    root = str(Path(drkit.__file__).parents[1])
    command = [sys.executable, "-I", "-S", "-c", program, path, root]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environ
    )
    ours = ("cache", "choosing", "discovery", "environment", "secrets")
    ours += ("compiled", "repository_url", "trust")
    # Standard library modules that the interpreter has frozen or built in are free.
    assert set(done.stdout.split()) <= {
        "drkit",
        "drkit.errors",
        "drkit.config",
        "drkit.rights",
        *(f"drkit.config.{name}" for name in ours),
        "__future__",
        "errno",
        "pwd",
    }
