"""Objects that somebody without any key stored must not stop anything.

Whoever can create objects can put what he likes at any name that is free. He must not
stop backups, restores or archiving, nor make two hosts believe two different logs.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.cli.restore import NEWER_IS_GONE
from drkit.errors import (
    Corrupt,
    KeyUnavailable,
    NotFound,
    ObjectExists,
    UsageError,
    WalRefused,
)
from drkit.model.objects import WrappedKey
from drkit.model.wal import WalFileName
from drkit.operations.archived import archived_wal
from drkit.operations.attempts import abandon_dead, leased
from drkit.operations.verifying.evidence import check_evidence
from drkit.repository.evidence import read_chain
from drkit.repository.keyring import StoredKey, encode_key
from drkit.repository.lease import Holder, leases_of
from drkit.storage.memory import MemoryStorage
from tests.builders import (
    CLUSTER,
    EPOCH,
    Keys,
    World,
    back_up,
    begin,
    new_attempt,
    replace_object,
)
from tests.evidence import add
from tests.operations.backup_tools import Listener
from tests.operations.scene import backup, drkit
from tests.operations.scene import refused as real_refused
from tests.operations.scene import restore as real_restore
from tests.pg import give_to, versions_under_test
from tests.protect import NAME
from tests.repository.hosts_scene import TO_THE_END, Scene
from tests.repository.logs import entry_name, refused, two_backups
from tests.vectors.evidence import read_evidence
from tests.vectors.log import read_log
from tests.vectors.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.repository.repository import Repository
    from tests.operations.scene import Said
    from tests.operations.scene import Scene as RealScene
    from tests.protect import Protected
    from tests.repository.hosts import Host

HEAD = 4  # of the log of `world`


@pytest.fixture
def world() -> World:
    return two_backups()


def forged_header(world: World) -> bytes:
    """Name a data key that is not there, in a header that is well made."""
    header = world.storage.get(entry_name(0))[:16] + os.urandom(80)
    return header + os.urandom(300)


def key_that_does_not_unwrap(world: World) -> bytes:
    """Name a data key that is there, wrapped for nobody."""
    stranger = World()
    repository = stranger.repository()
    name = next(iter(stranger.storage.list(f"{CLUSTER}/keys/catalog/"))).name
    data = stranger.storage.get(name)
    world.storage.put(name, data)
    return stranger.storage.get(repository.layout.log_entry(0))


GARBAGE: dict[str, Callable[[World], bytes]] = {
    "nothing": lambda _: b"",
    "text": lambda _: b"no entry",
    "random": lambda _: os.urandom(2000),
    "an unknown key": forged_header,
    "a key for others": key_that_does_not_unwrap,
    "the entry before": lambda world: world.storage.get(entry_name(HEAD)),
    "entry 0": lambda world: world.storage.get(entry_name(0)),
    "a header alone": lambda world: world.storage.get(entry_name(HEAD))[:96],
    "a key object": lambda world: world.storage.get(
        next(iter(world.storage.list(f"{CLUSTER}/keys/catalog/"))).name
    ),
    "another version": lambda world: (
        b"drkitobj\2\0" + world.storage.get(entry_name(0))[10:]
    ),
}


def second_reader(world: World) -> list[int]:
    """Read the log as the document says it; return the numbers of its entries."""
    objects = {one.name: world.storage.get(one.name) for one in world.storage.list("")}
    trusted = {world.keys.signer.public}
    reader = Reader(objects, CLUSTER, world.keys.keks, trusted)
    return [entry["sequence"] for entry in read_log(reader)]


def numbers(repository: Repository) -> list[int]:
    repository.log.read()
    return [one.sequence for one in repository.log.entries]


# -- names below `log/`


@pytest.mark.parametrize(
    "stray", ["Thumbs.db", "0000000001.orig", "99999999999", "x/y"]
)
def test_stray_names_below_the_log_are_passed_over(world: World, stray: str) -> None:
    name = f"{CLUSTER}/log/{stray}"
    world.storage.put(name, b"no entry")
    repository = world.repository(opened=False)
    assert numbers(repository) == list(range(HEAD + 1))
    assert repository.log.strays == (name,)
    begin(repository)
    assert numbers(world.repository()) == list(range(HEAD + 2))


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_garbage_at_a_free_log_name_stops_nobody(
    world: World, kind: str, ahead: int
) -> None:
    remembering = world.repository()
    world.storage.put(entry_name(HEAD + ahead), GARBAGE[kind](world))
    fresh = world.repository(opened=False)
    assert numbers(fresh) == list(range(HEAD + 1))
    assert [one.sequence for one in fresh.log.void] == [HEAD + ahead]
    for repository in (remembering, fresh, world.repository(host="host-b")):
        back_up(repository, {b"PG_VERSION": b"18\n"})
    used = [n for n in range(HEAD + 8) if n != HEAD + ahead][: HEAD + 7]
    assert numbers(world.repository()) == used
    assert numbers(remembering) == used
    assert second_reader(world) == used
    assert not world.repository().log.void


def test_many_void_names_in_a_row_are_one_step(world: World) -> None:
    for number in range(HEAD + 1, HEAD + 301):
        world.storage.put(entry_name(number), b"%d" % number)
    begin(world.repository())
    begin(world.repository(host="host-b"))
    used = [*range(HEAD + 1), HEAD + 301, HEAD + 302]
    assert numbers(world.repository()) == second_reader(world) == used


def test_blocks_that_hold_void_names_are_read_and_written(world: World) -> None:
    """The last name of one block and the first of the next are void, for instance."""
    for number in (7, 8, 255, 256, 300, 511):
        world.storage.put(entry_name(number), b"no entry")
    writer = world.repository()
    while writer.log.head < 600:
        begin(writer)
    blocks = [one.name for one in world.storage.list(f"{CLUSTER}/log-blocks/")]
    assert [name[-3:] for name in blocks] == ["000", "256"]
    by_blocks = world.repository(opened=False)
    assert numbers(by_blocks) == numbers(writer) == second_reader(world)
    for name in blocks:
        world.storage.delete(name)
    one_by_one = world.repository(opened=False)
    assert numbers(one_by_one) == numbers(writer)
    assert one_by_one.log.state == by_blocks.log.state


# -- deleted or changed afterwards


@pytest.mark.parametrize("count", [1, 3])
def test_void_names_that_are_deleted_are_no_hole(world: World, count: int) -> None:
    remembering, late = world.repository(), world.repository()
    for number in range(HEAD + 1, HEAD + 1 + count):
        world.storage.put(entry_name(number), b"no entry")
    begin(remembering)
    for number in range(HEAD + 1, HEAD + 1 + count):
        world.storage.delete(entry_name(number))
    used = [*range(HEAD + 1), HEAD + 1 + count]
    assert numbers(world.repository()) == second_reader(world) == used
    if count == 1:  # it listed the log before
        assert numbers(late) == used
    begin(world.repository())
    assert numbers(remembering) == [*used, HEAD + 2 + count]


def test_an_entry_that_was_called_void_and_comes_back_is_refused(world: World) -> None:
    """Somebody hid garbage from one host and showed it to another."""
    garbage, late = entry_name(HEAD + 1), world.repository()
    world.storage.put(garbage, b"no entry")
    begin(world.repository(host="host-b"))
    written = world.storage.get(entry_name(HEAD + 2))
    world.storage.delete(garbage)
    world.storage.delete(entry_name(HEAD + 2))
    begin(late)
    world.storage.put(entry_name(HEAD + 2), written)
    refused(world, HEAD + 2, "holds none, and it does")
    with pytest.raises(Corrupt):
        begin(late)


def test_an_entry_that_is_replaced_by_garbage_is_missed(world: World) -> None:
    replace_object(world.storage, entry_name(HEAD - 1), b"no entry")
    refused(world, HEAD - 1, "was replaced")
    with pytest.raises(Corrupt):
        begin(world.repository(opened=False))


def test_an_entry_that_is_damaged_is_not_void(world: World) -> None:
    """Its header could be made with the log's key alone: it was an entry."""
    data = bytearray(world.storage.get(entry_name(HEAD)))
    data[200] ^= 1
    replace_object(world.storage, entry_name(HEAD), bytes(data))
    refused(world, HEAD, "does not authenticate")


def test_a_log_whose_key_is_not_here_is_not_void(world: World) -> None:
    other = World(world.storage, clock=world.clock)
    with pytest.raises(KeyUnavailable):
        other.repository(opened=False).log.read()


# -- what is proven in front of an entry that can't be believed


def test_what_is_in_front_of_a_bad_entry_is_read_and_nothing_written(
    world: World,
) -> None:
    replace_object(world.storage, entry_name(3), b"no entry")
    repository = world.repository(opened=False)
    state = repository.log.read_proven()
    assert len(state.backups) == 1
    assert repository.log.head == 2
    assert entry_name(3) in str(repository.log.broken)
    assert repository.log.read() is state
    with pytest.raises(Corrupt, match=entry_name(3)):
        begin(repository)


def test_a_log_is_read_up_to_an_entry(world: World) -> None:
    replace_object(world.storage, entry_name(HEAD), b"no entry")
    repository = world.repository(opened=False)
    repository.log.stop_at(2)
    assert len(repository.backups()) == 1
    assert repository.log.head == 2
    with pytest.raises(Corrupt, match="up to entry 2 only"):
        begin(repository)


# -- evidence


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("ahead", [0, 1, 7])
def test_garbage_at_a_free_name_of_evidence_stops_nobody(
    world: World, kind: str, ahead: int
) -> None:
    repository = world.repository()
    add(repository)
    garbage = f"{CLUSTER}/evidence/{1 + ahead:010d}"
    world.storage.put(garbage, GARBAGE[kind](world))
    assert check_evidence(world.repository())[0] is None
    for host in ("host-b", "host-c", "host-d"):
        add(world.repository(host=host))
    chain = read_chain(world.repository())
    assert (len(chain.records), chain.problems) == (4, ())
    objects = {one.name: world.storage.get(one.name) for one in world.storage.list("")}
    trusted = {world.keys.signer.public}
    assert len(read_evidence(Reader(objects, CLUSTER, world.keys.keks, trusted))) == 4
    world.storage.delete(garbage)
    assert read_chain(world.repository()).problems == ()


def test_a_record_that_is_replaced_by_garbage_is_missed(world: World) -> None:
    for _ in range(3):
        add(world.repository())
    replace_object(world.storage, f"{CLUSTER}/evidence/0000000001", b"no record")
    assert read_chain(world.repository()).problems


# -- keys of WAL

DAY = "20260115"


@pytest.mark.parametrize("kind", ["text", "lost key", "key for others", "too long"])
def test_a_pointer_to_no_key_does_not_stop_archiving(world: World, kind: str) -> None:
    repository = world.repository()
    earlier = repository.keyring.for_wal_day("20260114")
    stranger = World().repository().keyring.create("wal")
    pointed = {"text": b"no key", "too long": b"0" * 5000}
    data = pointed.get(kind, stranger.key_id.hex().encode())
    if kind == "key for others":
        stored = StoredKey("wal", stranger.key_id, 1, (WrappedKey("x", "y", b"z"),))
        name = repository.layout.dek_generation("wal", stranger.key_id, 1)
        world.storage.put(name, encode_key(stored, repository.lineage))
    world.storage.put(f"{CLUSTER}/wal-days/{DAY}", data)
    world.storage.put(f"{CLUSTER}/wal-days/{DAY}-1", b"nor this")
    made = [world.repository().keyring.for_wal_day(DAY) for _ in range(2)]
    assert made[0].key_id == made[1].key_id != earlier.key_id
    assert repository.keyring.for_wal_day("20260114").key_id == earlier.key_id


def test_a_host_with_another_key_for_wal_is_still_refused(world: World) -> None:
    world.repository().keyring.for_wal_day(DAY)
    other = Keys(world.keys.keks | {"wal": os.urandom(32)}, world.keys.seed)
    with pytest.raises(KeyUnavailable, match="is not wrapped for"):
        world.repository(keys=other).keyring.for_wal_day(DAY)


# -- WAL

FILE = WalFileName.parse("000000010000000000000002")
NEXT = WalFileName.parse("000000010000000000000003")


def wal_garbage(world: World, kind: str) -> bytes:
    if kind == "the file before":
        return world.storage.get(world.repository().wal.name(FILE))
    if kind == "an unknown key":
        head = world.storage.get(world.repository().wal.name(FILE))
        return head[:16] + os.urandom(1000)
    return {"nothing": b"", "text": b"no WAL", "long": bytes(40 << 20)}[kind]


@pytest.mark.parametrize(
    "kind", ["nothing", "text", "long", "the file before", "an unknown key"]
)
@pytest.mark.parametrize("objects", [1, 3])
def test_garbage_at_a_name_of_wal_does_not_stop_archiving(
    world: World, kind: str, objects: int
) -> None:
    archive, now = world.repository().wal, world.clock.now()
    archive.push(FILE, b"before", now)
    for number in range(objects):
        world.storage.put(archive.name(NEXT, number), wal_garbage(world, kind))
    assert not archive.has(NEXT)
    with pytest.raises(NotFound, match="is not archived"):
        archive.get(NEXT)
    assert archive.push(NEXT, b"content", now)
    assert not world.repository().wal.push(NEXT, b"content", now)
    with pytest.raises(WalRefused):
        archive.push(NEXT, b"another", now)
    assert world.repository().wal.get(NEXT) == b"content"
    assert archive.has(NEXT)
    world.storage.delete(archive.name(NEXT))
    if objects == 1:
        assert world.repository().wal.get(NEXT) == b"content"


def test_wal_that_is_replaced_in_the_middle_is_no_end(world: World) -> None:
    archive, now = world.repository().wal, world.clock.now()
    archive.push(FILE, b"content", now)
    archive.push(NEXT, b"content", now)
    replace_object(world.storage, archive.name(FILE), b"no WAL")
    with pytest.raises(Corrupt):
        archive.get(FILE)


# -- leases


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_wal_whose_key_is_gone_is_no_end_of_wal(world: World, harm: str) -> None:
    """A recovery that took it for the end would promote with data missing."""
    repository, now = world.repository(), world.clock.now()
    files = [WalFileName.parse(f"00000001000000000000000{one}") for one in "123"]
    for file in files:
        repository.wal.push(file, b"w" * 99, now)
    [key] = [one.name for one in world.storage.list(repository.layout.keys("wal"))]
    sealed = world.storage.get(key)
    world.storage.delete(key)
    if harm == "damaged":
        world.storage.put(key, sealed.replace(b'"lineage"', b'"lineagf"'))
    reader = world.repository(host="reader")
    for file in files:
        assert reader.wal.has(file)
        with pytest.raises(KeyUnavailable, match="is lost or damaged"):
            reader.wal.get(file)
    assert archived_wal(reader).void == ()
    assert len(archived_wal(reader).files) == len(files)


def forged_lease(repository: Repository, attempt: str, **members: object) -> bytes:
    """Return a lease as somebody writes it who knows all but the log's key."""
    now = repository.clock.now()
    lease = {
        "drkit": "lease",
        "format": 1,
        "attempt": attempt,
        "host": "nowhere",
        "boot": "none",
        "pid": 1,
        "until": (now + timedelta(minutes=9)).isoformat(),
        "code": "00" * 32,
    }
    return json.dumps(lease | members).encode()


@pytest.mark.parametrize("hours", [0, 1, 24 * 365 * 1000])
def test_a_forged_lease_holds_nobody_up(world: World, hours: int) -> None:
    repository, attempt = world.repository(), new_attempt()
    until = repository.clock.now() + timedelta(minutes=9, hours=hours)
    data = forged_lease(repository, attempt, until=until.isoformat())
    world.storage.put(f"{CLUSTER}/leases/{attempt}-0000", data)
    with leased(repository, new_attempt(), "host-a", Listener()):
        pass


@pytest.mark.parametrize("how", ["dead here", "long ago", "garbage", "copied"])
def test_a_live_attempt_is_not_given_up_by_a_forged_lease(
    world: World, how: str
) -> None:
    repository = world.repository()
    begun, here = begin(repository), Holder.this("host-a")
    leases = leases_of(repository)
    leases.renew(begun.attempt, here, 0)
    first = world.storage.get(f"{CLUSTER}/leases/{begun.attempt}-0000")
    lies = {"boot": here.boot, "host": "host-a", "pid": 2**22 + 1}
    world.clock.jump(minutes=3)
    forged = {
        "dead here": forged_lease(repository, begun.attempt, **lies),
        "long ago": forged_lease(repository, begun.attempt, until=EPOCH.isoformat()),
        "garbage": b"no lease",
        "copied": first,
    }[how]
    for number in (1, 2):
        world.storage.put(f"{CLUSTER}/leases/{begun.attempt}-{number:04d}", forged)
    for number in (1, 2, 3):
        leases.renew(begun.attempt, here, number)
        world.clock.jump(minutes=12)
    abandon_dead(world.repository(host="host-b"), "host-b", Listener())
    abandon_dead(world.repository(host="host-a"), "host-a", Listener())
    assert begun in world.repository().log.read().running()


# -- the commands, over a real cluster


@pytest.fixture(scope="module", params=versions_under_test())
def protected(scene: RealScene, request: pytest.FixtureRequest) -> Protected:
    made = scene.protect(request.param)
    backup(made)
    made.cluster.rows("CREATE TABLE t AS SELECT 1 AS n")
    made.archive_now()
    return made


def next_wal(protected: Protected, ahead: int = 1) -> str:
    """Return the name of a segment that is not archived yet."""
    wal = protected.repository_root / NAME / "wal"
    newest = max(one for one in wal.rglob("0*") if len(one.name) == 24)
    number = int(newest.name[16:], 16) + ahead
    place = newest.with_name(f"{newest.name[:16]}{number:08X}")
    return str(place.relative_to(protected.repository_root / NAME))


def put(protected: Protected, name: str, data: bytes = b"no object of drkit") -> str:
    """Create an object as somebody without keys can; return its name."""
    path = protected.repository_root / NAME / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert not path.exists()
    path.write_bytes(data)
    give_to(protected.account, path.parent)
    return f"{NAME}/{name}"


def next_in(protected: Protected, folder: str) -> str:
    names = (protected.repository_root / NAME / folder).glob("[0-9]*")
    return f"{folder}/{max((int(one.name) for one in names), default=-1) + 1:010d}"


COMMANDS = {
    "info": ("info", NAME),
    "verify": ("verify", NAME),
    "expire": ("expire", NAME),
    "check": ("check", NAME),
}


def works(scene: RealScene, protected: Protected) -> dict[str, Said]:
    """Run every command, which must succeed; return what each said."""
    target = scene.target()
    said = {
        **{name: drkit(protected, *words) for name, words in COMMANDS.items()},
        "restore": drkit(protected, "restore", NAME, "--to", target),
        "backup": drkit(protected, "backup", NAME),
        "pin": drkit(protected, "pin", NAME, "latest", "--reason", "it counts"),
    }
    assert {name: one.code for name, one in said.items()} == dict.fromkeys(said, 0)
    return said


@pytest.mark.parametrize("stray", ["log/Thumbs.db", "log/next"])
def test_no_command_is_stopped_by_a_stray_object_in_the_log(
    scene: RealScene, protected: Protected, stray: str
) -> None:
    stray = next_in(protected, "log") if stray == "log/next" else stray
    name = put(protected, stray)
    said = works(scene, protected)
    for command in ("restore", "expire"):
        assert name in said[command].err
    for command in ("info", "verify", "check"):
        assert name in said[command].out
    assert drkit(protected, "verify", NAME).code == 0


@pytest.mark.parametrize(
    "kind", ["evidence", "wal day", "next segment", "later segment", "history", "lease"]
)
def test_no_command_is_stopped_by_a_stray_object(
    scene: RealScene, protected: Protected, kind: str
) -> None:
    protected.archive_now()
    today = datetime.now(UTC)
    place = {
        "evidence": next_in(protected, "evidence"),
        "wal day": f"wal-days/{today + timedelta(days=1):%Y%m%d}",
        "next segment": next_wal(protected),
        "later segment": next_wal(protected, 50),
        "history": next_wal(protected).replace(
            next_wal(protected)[-42:], "history/0000000A.history"
        ),
        "lease": f"leases/{new_attempt()}-0000",
    }[kind]
    until = (today + timedelta(minutes=9)).isoformat()
    data = b"no object of drkit"
    if kind == "lease":
        data = forged_lease(World().repository(), place[7:39], until=until)
    put(protected, os.path.normpath(place), data)
    works(scene, protected)
    protected.archive_now()
    works(scene, protected)


def test_a_recovery_ends_in_front_of_what_is_no_wal(
    scene: RealScene, protected: Protected
) -> None:
    protected.cluster.rows("CREATE TABLE IF NOT EXISTS u AS SELECT 1 AS n")
    protected.archive_now()
    put(protected, next_wal(protected))
    target = scene.target()
    real_restore(protected, target)
    copy = scene.start(target, protected.cluster.binaries.major)
    assert copy.rows("SELECT n FROM u")[0][0] == 1
    copy.stop()


def test_a_restore_goes_on_from_what_is_proven(
    scene: RealScene, protected: Protected
) -> None:
    backup(protected)
    log = protected.repository_root / NAME / "log"
    last = sorted(log.glob("[0-9]*"))[-2:]
    sound = last[0].read_bytes()
    last[0].write_bytes(b"no entry any more")
    try:
        error = real_refused(protected, scene.target())
        assert error["exit_code"] == Corrupt.exit_code
        until = str(int(last[0].name) - 1)
        assert f"--log-until {until}" in error["hint"]
        assert drkit(protected, "info", NAME).code == Corrupt.exit_code
        assert last[0].name in drkit(protected, "info", NAME).out
        found = drkit(protected, "verify", NAME)
        assert found.code == Corrupt.exit_code
        assert f"up to entry {until} only" in found.out
        assert drkit(protected, "backup", NAME).code == Corrupt.exit_code
        words = ("--log-until", until)
        target = scene.target()
        said = drkit(protected, "restore", NAME, "--to", target, *words)
        assert said.code == NEWER_IS_GONE  # and all that is proven is restored
        assert (target / "global/pg_control").exists()
        assert f"up to entry {until}" in said.err
        words = ("--to", "x", "--log-until", str(int(until) + 1))
        assert drkit(protected, "restore", NAME, *words).code == UsageError.exit_code
    finally:
        last[0].write_bytes(sound)


# -- two hosts, and somebody who deletes what he stored


def outcome(before: int, between: int, *, back: bool) -> tuple[bool, bool]:
    """Let him delete garbage while one host goes past it, and another comes.

    Args:
        before: calls that the first host has made when the garbage goes.
        between: calls that the second one makes then, before the first ends.
        back: whether the garbage comes back once the second one has gone so far.

    Returns:
        For each whether it took its entry for written; the log agrees with both.
    """
    scene = Scene(MemoryStorage())
    inner = scene.world.storage._inner  # type: ignore[attr-defined]  as its owner
    free = scene.world.repository().log.head + 1
    inner.put(entry_name(free), b"no entry")
    first, second = scene.hosts["a"], scene.hosts["b"]
    try:
        for host, calls in ((first, before), (second, between)):
            host.begin(lambda host=host: begin(host.repository))
            go_on(host, calls)
            inner.delete(entry_name(free)) if host is first else None
        if back:
            with suppress(ObjectExists):
                inner.put(entry_name(free), b"no entry")
        for host in (first, second):
            go_on(host, TO_THE_END)
        return judged(scene, [first, second])
    finally:
        scene.kill_all()


def go_on(host: Host, calls: int) -> None:
    for _ in range(calls):
        if host.busy:
            host.process.step()


def judged(scene: Scene, hosts: list[Host]) -> tuple[bool, bool]:
    wrote = [host.process.error is None for host in hosts]
    assert all(isinstance(h.process.error, Corrupt | None) for h in hosts)
    proven = scene.world.repository(opened=False).log
    proven.read_proven()
    attempts = proven.state.attempts
    there = [
        getattr(host.process.result, "attempt", None) in attempts for host in hosts
    ]
    if all(wrote):
        assert there == [True, True]
        assert proven.broken is None
    else:
        assert proven.broken is not None
    return wrote[0], wrote[1]


@pytest.mark.parametrize("back", [False, True])
def test_hosts_between_which_garbage_goes_fork_nothing(back: bool) -> None:
    seen = {
        outcome(before, between, back=back)
        for before in range(12)
        for between in range(12)
    }
    assert seen <= {(True, True), (True, False), (False, True), (False, False)}
    assert (True, True) in seen
    assert back or len(seen) > 1, "no order shows the race"
