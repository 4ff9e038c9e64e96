"""A row is changed in archived WAL: no restore and no verification ever gives it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml

from drkit.cli import app
from drkit.errors import Corrupt
from drkit.model.wal import WalFileName
from tests.attacks.wal_forging import Intruder
from tests.operations.scene import backup, drkit, refused, restore
from tests.pg import give_to, versions_under_test
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.operations.scene import Scene

HONEST, FORGED = "pay 100 to alice", "pay 999 to mallo"
ROWS = 20
CORRUPT = Corrupt.exit_code


def write_rows(protected: Protected) -> str:
    """Write rows behind the backup; return the name of the segment with them."""
    protected.cluster.rows("INSERT INTO orders VALUES ('the page is in WAL now')")
    for _ in range(ROWS):
        protected.cluster.rows(f"INSERT INTO orders VALUES ('{HONEST}')")
    return protected.archive_now()


def rows_of(scene: Scene, target: Path, major: int) -> set[str]:
    """Start what was restored, and return the different rows of the table."""
    server = scene.start(target, major)
    found = {row[0] for row in server.rows("SELECT DISTINCT what FROM orders")}
    server.stop()
    return found


class Archived:
    """A repository with a backup, and a segment with rows behind it.

    Attributes:
        segment: its name.
        own: the first segment that makes the backup consistent.
    """

    def __init__(self, scene: Scene, major: int, *, signed: bool) -> None:
        self.scene, self.major = scene, major
        self.protected = scene.protect(major, signed=signed)
        self.protected.cluster.rows("CREATE TABLE orders (what text)")
        backup(self.protected)
        (commit,) = self.protected.repository().backups()
        size = commit.backup.wal_segment_size
        self.own = f"{commit.backup.timeline:08X}"
        self.own += f"{commit.backup.start_lsn >> 32:08X}"
        self.own += f"{(commit.backup.start_lsn & 0xFFFFFFFF) // size:08X}"
        self.segment = write_rows(self.protected)
        self.protected.cluster.stop()

    def copy(self) -> Protected:
        """A copy of the repository, with its policy and keys, to be spoiled."""
        home, original = self.scene.directory(), self.protected
        for part in ("repository", "keys"):
            shutil.copytree(original.home / part, home / part)
        text = original.policy_path.read_text()
        copied = Protected(original.cluster, home, original.account)
        copied.policy_path.write_text(text.replace(str(original.home), str(home)))
        give_to(original.account, home)
        return copied

    def intruder(self, *, signs: bool = False) -> Intruder:
        return Intruder(self.copy(), signs=signs)


@pytest.fixture(scope="module", params=versions_under_test(), ids="pg{}".format)
def archived(scene: Scene, request: pytest.FixtureRequest) -> Archived:
    return Archived(scene, request.param, signed=True)


@pytest.fixture
def thief(archived: Archived) -> Iterator[Intruder]:
    """Has the keys that encrypt, and has forged the rows."""
    intruder = archived.intruder()
    intruder.forge(archived.segment, HONEST.encode(), FORGED.encode())
    yield intruder
    shutil.rmtree(intruder.protected.home)


def get(protected: Protected, name: str, to: Path, *options: str) -> int:
    words = ["--policy", str(protected.policy_path), *options, name, str(to)]
    return app.run(["wal", "get", *words])


def test_without_signatures_the_attack_works(scene: Scene, newest_version: int) -> None:
    """What is forged here is WAL that PostgreSQL takes: the other tests mean it."""
    unsigned = Archived(scene, newest_version, signed=False)
    intruder = unsigned.intruder()
    intruder.forge(unsigned.segment, HONEST.encode(), FORGED.encode())
    target = scene.target()
    said = restore(intruder.protected, target)
    assert "the WAL is not signed" in said.out
    assert FORGED in rows_of(scene, target, newest_version)


def test_a_restore_refuses_the_forged_row(archived: Archived, thief: Intruder) -> None:
    error = refused(thief.protected, archived.scene.target())
    assert error["exit_code"] == CORRUPT
    assert archived.segment in error["message"]
    assert "is not signed, and must be" in error["message"]


def test_wal_get_never_calls_it_the_end(archived: Archived, thief: Intruder) -> None:
    to = archived.scene.target()
    assert get(thief.protected, archived.segment, to) == 200
    assert get(thief.protected, archived.segment, to, "--absent-exit=79") == 200
    assert not to.exists()


def test_a_verification_names_it(archived: Archived, thief: Intruder) -> None:
    said = drkit(thief.protected, "verify", NAME, "--depth", "data")
    assert said.code == CORRUPT, said.out
    assert archived.segment in said.out


def test_a_recovery_that_meets_it_stops(archived: Archived) -> None:
    """Restored before, and started after the segment was forged."""
    intruder, target = archived.intruder(), archived.scene.target()
    restore(intruder.protected, target)
    intruder.forge(archived.segment, HONEST.encode(), FORGED.encode())
    server = archived.scene.serve(target, archived.major)
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever pg_ctl says
        server.start()
    assert "is not signed, and must be" in server.log_tail()
    assert "archive recovery complete" not in server.log_tail()


def test_a_host_that_archives_can_t_change_a_backup(archived: Archived) -> None:
    """It has both keys of WAL, and changes what makes a backup consistent."""
    intruder = archived.intruder(signs=True)
    file = WalFileName.parse(archived.own)
    honest = intruder.repository.wal.get(file)
    intruder.replace(file, honest[:-1] + bytes([honest[-1] ^ 1]))
    error = refused(intruder.protected, archived.scene.target())
    assert error["exit_code"] == CORRUPT
    assert "are not those that were archived when backup" in error["message"]
    said = drkit(intruder.protected, "verify", NAME, "--depth", "data")
    assert said.code == CORRUPT
    assert "are not those that were archived" in said.out


def test_a_restore_of_what_is_honest_gives_honest_rows(archived: Archived) -> None:
    target = archived.scene.target()
    said = restore(archived.copy(), target)
    assert "unsigned" not in said.out
    assert "note:" not in said.out
    assert rows_of(archived.scene, target, archived.major) >= {HONEST}


def test_from_unsigned_to_signed(scene: Scene, newest_version: int) -> None:
    """An older policy gets the key; what was archived before can be restored still."""
    protected = scene.protect(newest_version, signed=False)
    protected.cluster.rows("CREATE TABLE orders (what text)")
    first = backup(protected)
    old = write_rows(protected)
    checked = drkit(protected, "check", NAME)
    assert "WAL is not signed" in checked.out

    told = drkit(protected, "keys", "sign-wal", NAME)
    assert told.code == 0, told.err
    give_to(protected.account, protected.home / "keys")
    fields = yaml.safe_load(told.out.partition("drkit:\n\n")[2].partition("\n\n")[0])
    protected.change_policy(lambda policy: policy["keys"].update(fields))
    assert "does not yet say that it must be" in drkit(protected, "check", NAME).out
    between = protected.archive_now()
    second = backup(protected)
    state = protected.repository().log.read()
    assert state.wal_signed is not None
    assert old < state.wal_signed[1]
    assert "all WAL must be signed" in drkit(protected, "check", NAME).out
    new = write_rows(protected)
    protected.cluster.stop()

    to = scene.target()
    assert get(protected, between, to) == 0
    assert get(protected, old, to) == 200
    assert get(protected, old, to, f"--unsigned-before={state.wal_signed[1]}") == 0
    assert get(protected, old, to, "--unsigned-before=all") == 0
    assert get(protected, old, to, "--unsigned-before=x") == 200

    target = scene.target()
    said = restore(protected, target, first)
    assert f"--unsigned-before {state.wal_signed[1]}" in said.out
    assert "is older than signatures" in said.out
    assert rows_of(scene, target, newest_version) >= {HONEST}
    target = scene.target()
    assert "is older than signatures" not in restore(protected, target, second).out
    assert rows_of(scene, target, newest_version) >= {HONEST}

    Intruder(protected).forge(new, HONEST.encode(), FORGED.encode())
    assert refused(protected, scene.target(), first)["exit_code"] == CORRUPT


def test_a_backup_whose_wal_another_host_archived_unsigned_is_given_up(
    scene: Scene, newest_version: int
) -> None:
    """The log demands signatures, and the host that archives has an older policy."""
    protected = scene.protect(newest_version)
    policy = yaml.safe_load(protected.policy_path.read_text())
    for name in ("wal_signing", "trusted_wal"):
        del policy["keys"][name]
    older = protected.home / "older" / f"{NAME}.yaml"
    older.parent.mkdir()
    older.write_text(yaml.safe_dump(policy))
    give_to(protected.account, older.parent)
    command = protected.cluster.sql("SHOW archive_command")
    command = command.replace(str(protected.policy_path), str(older))
    protected.cluster.rows(f"ALTER SYSTEM SET archive_command = '{command}'")
    protected.cluster.rows("SELECT pg_reload_conf()")
    said = drkit(protected, "backup", NAME)
    assert said.code == CORRUPT, said.err
    assert "is not signed, and must be" in said.err
    assert protected.labels() == []
    assert get(protected, protected.archive_now(), scene.target()) == 200
    checked = drkit(protected, "check", NAME)
    assert checked.code != 0
    assert "is not signed, and must be" in checked.out


def test_unsigned_wal_can_be_accepted_by_a_person(
    archived: Archived, thief: Intruder
) -> None:
    """Who knows where it came from is not kept from it; the plan says what it is."""
    target = archived.scene.target()
    said = restore(thief.protected, target, "--accept-unsigned-wal")
    assert "the WAL is not signed" in said.out
    assert "--unsigned-before all" in said.out
    assert FORGED in rows_of(archived.scene, target, archived.major)
