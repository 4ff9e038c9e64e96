"""Keys: listed with what they belong to, and every way in which one can be wrong."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml

from drkit import wiring
from drkit.config.compiled import compile_policy
from drkit.config.loading import load_policy
from drkit.crypto.keys import format_kek
from drkit.crypto.signing import format_signing_key
from drkit.model.finding import Finding, State
from drkit.model.log import Open
from drkit.model.wal import WalFileName
from drkit.operations.keys import KeyList, Use, check_keys, list_keys
from drkit.repository.identity import create_identity
from drkit.repository.keyring import StoredKey, encode_key
from drkit.storage.local import LocalStorage
from tests.builders import CLUSTER, SEGMENT, SYSTEM, back_up, replace_object
from tests.pg import run_drkit
from tests.protect import make_keys

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.repository.repository import Repository

SEGMENT_FILE = WalFileName.parse("000000010000000000000002")


@dataclass
class Home:
    """A policy, its keys, and a repository with one backup and one WAL segment."""

    path: Path
    label: str = ""
    day: str = ""

    @property
    def policy_path(self) -> Path:
        return self.path / f"{CLUSTER}.yaml"

    def key(self, purpose: str) -> Path:
        return self.path / "keys" / f"{purpose}.key"

    def repository(self) -> Repository:
        policy = load_policy(self.policy_path, {})
        return wiring.open_repository(policy, wiring.Secrets({}))

    def list(self) -> KeyList:
        policy = load_policy(self.policy_path, {})
        signing = wiring.signing(policy, wiring.Secrets({}))
        return list_keys(self.repository(), signing)

    def check(self) -> dict[str, Finding]:
        policy = load_policy(self.policy_path, {})
        signing = wiring.signing(policy, wiring.Secrets({}))
        findings = check_keys(self.repository(), signing)
        named = {one.name: one for one in findings}
        assert len(named) == len(findings), "a thing is told twice"
        return named

    def failures(self) -> dict[str, Finding]:
        found = self.check().items()
        return {name: one for name, one in found if one.state is State.FAILED}

    def data_key(self, purpose: str, kind: str) -> str:
        """Return the id of the DEK of that purpose and use."""
        (found,) = (
            one.key_id
            for one in self.list().data_keys
            if one.purpose == purpose and any(use.kind == kind for use in one.uses)
        )
        return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    root = tmp_path / "repository"
    policy = {
        "name": CLUSTER,
        "cluster": {
            "url": "postgresql://nobody@/postgres?host=/nowhere",
            "system_identifier": SYSTEM,
        },
        "repository": {"url": f"file://{root}"},
        "keys": make_keys(tmp_path / "keys"),
        "backup": {"source": "stream"},
        "retention": {"full": 2},
    }
    made.policy_path.write_text(yaml.safe_dump(policy))
    LocalStorage.create(str(root))
    loaded = load_policy(made.policy_path, {})
    store = wiring.storage(compile_policy(loaded), wiring.Secrets({}), 10)
    create_identity(store, wiring.SystemClock().now())
    repository = made.repository()
    repository.log.append(lambda _: Open(CLUSTER, SYSTEM, SEGMENT))
    made.label = back_up(repository, {b"PG_VERSION": b"18\n"}).backup.label
    now = repository.clock.now()
    repository.wal.push(SEGMENT_FILE, b"not looked at here", now)
    made.day = now.strftime("%Y%m%d")
    return made


def stored_name(home: Home, purpose: str, key_id: str, generation: int = 1) -> str:
    return f"{CLUSTER}/keys/{purpose}/{key_id}/{generation:04d}"


def test_every_key_is_listed_with_what_it_belongs_to(home: Home) -> None:
    repository = home.repository()
    unused = repository.keyring.create("wal")

    found = home.list()

    assert found.problems == ()
    assert [one.purpose for one in found.policy_keys] == [
        *("backup", "wal", "dump", "files", "catalog", "signing", "wal_signing")
    ]
    keys = load_policy(home.policy_path, {}).keys
    pinned = [*keys.trusted, *keys.trusted_wal]
    assert [one.key_id for one in found.policy_keys[-2:]] == pinned
    uses = {one.uses: one.purpose for one in found.data_keys}
    assert uses == {
        (Use("backup", home.label),): "catalog",
        (Use("log"),): "catalog",
        (Use("wal", home.day),): "wal",
        (): "wal",
    }
    backup_keys = [one for one in found.data_keys if one.purpose == "backup"]
    assert [one.uses for one in backup_keys] == [(Use("backup", home.label),)]
    assert [one.key_id for one in found.data_keys if not one.uses] == [
        unused.key_id.hex()
    ]
    kek = repository.keyring.provider("backup").kek_id
    assert backup_keys[0].recipients == (kek,)


def test_right_keys_pass(home: Home) -> None:
    found = home.check()
    assert {one.state for one in found.values()} == {State.OK}
    assert len(found) == 7 + 1 + 4  # the policy's, the log, the DEKs


def test_a_new_key_in_the_place_of_the_old_opens_nothing(home: Home) -> None:
    home.key("wal").write_text(format_kek("wal", os.urandom(32)))
    name = f"wal {home.data_key('wal', 'wal')}"
    (failure,) = home.failures().items()
    assert failure[0] == name
    assert "is not wrapped for" in failure[1].detail
    assert failure[1].hint is not None
    assert f"WAL of {home.day}" in failure[1].hint


def test_swapped_purposes_are_named(home: Home) -> None:
    backup, wal = home.key("backup").read_text(), home.key("wal").read_text()
    home.key("backup").write_text(wal)
    home.key("wal").write_text(backup)
    found = home.check()
    for name, other in (("backup", "wal"), ("wal", "backup")):
        assert found[f"keys.{name}"].state is State.FAILED
        assert (
            f"holds a key for {other}, not for {name}" in found[f"keys.{name}"].detail
        )
    skipped = {name for name, one in found.items() if one.state is State.SKIPPED}
    assert {name.partition(" ")[0] for name in skipped} == {"backup", "wal"}


def test_a_key_that_others_can_read_is_refused(home: Home) -> None:
    home.key("backup").chmod(0o644)
    failure = home.failures()["keys.backup"]
    assert "mode 0644" in failure.detail
    assert "chmod 600" in failure.detail


def test_a_missing_key_file_is_named(home: Home) -> None:
    home.key("dump").unlink()
    assert str(home.key("dump")) in home.failures()["keys.dump"].detail


def test_one_key_for_two_purposes_is_refused(home: Home) -> None:
    secret = home.key("files").read_text().strip().rpartition(":")[2]
    home.key("dump").write_text(f"drkit-kek-1:dump:{secret}\n")
    assert "same key as keys.dump" in home.failures()["keys.files"].detail


def test_a_signing_key_that_nobody_trusts_fails(home: Home) -> None:
    home.key("signing").write_text(format_signing_key(os.urandom(32)))
    assert "keys.trusted lacks" in home.failures()["keys.signing"].detail


def test_a_wrong_catalog_key_fails_at_the_log(home: Home) -> None:
    home.key("catalog").write_text(format_kek("catalog", os.urandom(32)))
    assert home.failures()["log"].exit_code == 13
    # the keys are listed all the same; what they belong to can't be known
    listed = home.list()
    assert len(listed.data_keys) == 4
    assert "what keys belong to is not known" in listed.problems[0]


@pytest.mark.parametrize(
    ("purpose", "kind", "lost"),
    [
        ("backup", "backup", "backup "),
        ("catalog", "backup", "backup "),
        ("wal", "wal", "WAL of "),
    ],
)
def test_a_missing_data_key_names_what_is_lost(
    home: Home, purpose: str, kind: str, lost: str
) -> None:
    key_id = home.data_key(purpose, kind)
    home.repository().storage.delete(stored_name(home, purpose, key_id))
    (failure,) = home.failures().items()
    assert failure[0] == f"{purpose} {key_id}"
    assert "is not in file://" in failure[1].detail
    assert f"nobody can read {lost}" in str(failure[1].hint)


def test_a_flipped_byte_in_a_wrapped_key_is_found(home: Home) -> None:
    key_id = home.data_key("backup", "backup")
    name = stored_name(home, "backup", key_id)
    storage = home.repository().storage
    content = json.loads(storage.get(name))
    blob = bytearray(base64.b64decode(content["recipients"][0]["wrapped"]))
    blob[40] ^= 1
    content["recipients"][0]["wrapped"] = base64.b64encode(blob).decode()
    replace_object(storage, name, json.dumps(content).encode())
    (failure,) = home.failures().items()
    assert failure[0] == f"backup {key_id}"
    assert home.label in str(failure[1].hint)


def test_a_key_object_of_another_key_is_found(home: Home) -> None:
    """What unwraps must be the key that the name says, not just any."""
    repository = home.repository()
    key_id = home.data_key("wal", "wal")
    other = repository.keyring.create("wal")
    stolen = json.loads(
        repository.storage.get(stored_name(home, "wal", other.key_id.hex()))
    )
    stolen["dek_id"] = key_id
    name = stored_name(home, "wal", key_id)
    replace_object(repository.storage, name, json.dumps(stolen).encode())
    assert list(home.failures()) == [f"wal {key_id}"]


def test_a_damaged_generation_beside_a_good_one_is_a_warning(home: Home) -> None:
    repository = home.repository()
    key_id = home.data_key("backup", "backup")
    (first,) = (
        one for one in repository.keyring.stored("backup") if one.key_id.hex() == key_id
    )
    recipient = first.recipients[0]._replace(blob=bytes(80))
    second = StoredKey("backup", first.key_id, 2, (recipient,))
    name = stored_name(home, "backup", key_id, 2)
    repository.storage.put(name, encode_key(second, repository.lineage))
    found = home.check()[f"backup {key_id}"]
    assert found.state is State.WARNING
    assert "generation 0002" in found.detail


def test_what_is_no_key_object_is_told(home: Home) -> None:
    name = stored_name(home, "wal", "ab" * 16)
    home.repository().storage.put(name, b"{}")
    assert name in home.failures()["objects"].detail


def test_the_command_exits_with_13_and_names_the_key(home: Home) -> None:
    arguments = ("keys", "check", CLUSTER, "--policy-dir", home.path)
    right = run_drkit(*arguments, "--output", "json")
    assert right.returncode == 0, right.stderr.decode()
    assert json.loads(right.stdout)["passed"] is True

    home.key("wal").chmod(0o640)
    wrong = run_drkit(*arguments)
    assert wrong.returncode == 13
    assert f"chmod 600 {home.key('wal')}" in wrong.stdout.decode()

    listed = run_drkit("keys", "list", CLUSTER, "--policy-dir", home.path)
    assert listed.returncode == 0, listed.stderr.decode()
    assert f"backup {home.label}" in listed.stdout.decode()
    secret = home.key("backup").read_text().strip().rpartition(":")[2]
    assert secret not in listed.stdout.decode()
