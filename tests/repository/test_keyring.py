"""Data keys: made, found, rotated, raced for, and refused when they are not right."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from drkit.crypto.keys import PURPOSES, LocalKeyProvider, new_dek, wrap_context
from drkit.errors import Corrupt, KeyUnavailable, StorageError
from drkit.repository.keyring import Keyring, StoredKey, decode_key, encode_key
from tests.builders import Keys, World, replace_object
from tests.faults import FOREVER, FaultyStorage


def keyring(world: World, **options: object) -> Keyring:
    return world.repository(opened=False, **options).keyring  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_key_is_found_by_another_host(world: World, purpose: str) -> None:
    dek = keyring(world).create(purpose)
    assert keyring(world).get(purpose, dek.key_id) == dek
    assert keyring(world).finder(purpose)(dek.key_id) == dek


def test_a_key_is_looked_for_in_its_own_place_alone(world: World) -> None:
    """A store that has to read a directory for it may hold ten thousand other keys."""
    dek = keyring(world).create("backup")
    storage = FaultyStorage(world.storage)
    keyring(world, storage=storage).get("backup", dek.key_id)
    place = f"alpha/keys/backup/{dek.key_id.hex()}/"
    asked = [("list", place), ("get", f"{place}0001")]
    assert storage.names[-2:] == asked


def test_each_purpose_needs_its_own_kek_only(world: World) -> None:
    dek = keyring(world).create("wal")
    only_wal = Keys({"wal": world.keys.keks["wal"]}, b"\0" * 32)
    assert keyring(world, keys=only_wal).get("wal", dek.key_id) == dek
    with pytest.raises(KeyError):
        keyring(world, keys=only_wal).create("backup")


def test_a_key_of_another_purpose_is_not_found(world: World) -> None:
    dek = keyring(world).create("wal")
    with pytest.raises(KeyUnavailable, match="is not in memory"):
        keyring(world).get("backup", dek.key_id)


def test_another_kek_says_which_one_is_needed(world: World) -> None:
    dek = keyring(world).create("wal")
    right = LocalKeyProvider(world.keys.keks["wal"]).kek_id
    with pytest.raises(KeyUnavailable, match=right) as caught:
        keyring(world, keys=Keys()).get("wal", dek.key_id)
    assert "keys.wal" in (caught.value.hint or "")


def test_a_key_put_under_another_id_is_refused(world: World) -> None:
    first, second = (keyring(world).create("wal") for _ in range(2))
    names = [f"alpha/keys/wal/{dek.key_id.hex()}/0001" for dek in (first, second)]
    replace_object(world.storage, names[0], world.storage.get(names[1]))
    with pytest.raises(Corrupt, match=names[0]):
        keyring(world).get("wal", first.key_id)


# -- generations


def generation(
    world: World, dek_id: bytes, secret: bytes, kek: bytes, number: int
) -> str:
    ring = world.repository(opened=False)
    context = wrap_context(ring.lineage, "wal", dek_id)
    wrapped = LocalKeyProvider(kek).wrap(secret, context)
    stored = StoredKey("wal", dek_id, number, (wrapped,))
    name = ring.layout.dek_generation("wal", dek_id, number)
    world.storage.put(name, encode_key(stored, ring.lineage))
    return name


def test_after_a_rotation_old_and_new_kek_open_the_key(world: World) -> None:
    dek = keyring(world).create("wal")
    new_kek = bytes(range(32))
    generation(world, dek.key_id, dek.secret, new_kek, 2)
    rotated = Keys(world.keys.keks | {"wal": new_kek}, world.keys.seed)
    assert keyring(world, keys=rotated).get("wal", dek.key_id) == dek
    assert keyring(world).get("wal", dek.key_id) == dek


def test_after_a_rotation_the_first_generation_may_be_gone(world: World) -> None:
    dek = keyring(world).create("wal")
    generation(world, dek.key_id, dek.secret, world.keys.keks["wal"], 2)
    world.storage.delete(f"alpha/keys/wal/{dek.key_id.hex()}/0001")
    assert keyring(world).get("wal", dek.key_id) == dek


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000])
def test_a_generation_that_is_junk_does_not_hide_a_good_one(
    world: World, junk: bytes
) -> None:
    dek = keyring(world).create("wal")
    world.storage.put(f"alpha/keys/wal/{dek.key_id.hex()}/0002", junk)
    assert keyring(world).get("wal", dek.key_id) == dek


def test_a_generation_with_another_key_in_it_is_passed_over(world: World) -> None:
    dek = keyring(world).create("wal")
    other = new_dek("wal").secret
    generation(world, dek.key_id, other, world.keys.keks["wal"], 2)
    assert keyring(world).get("wal", dek.key_id) == dek


def test_only_bad_generations_are_an_error_that_names_the_newest(world: World) -> None:
    dek = keyring(world).create("wal")
    first = f"alpha/keys/wal/{dek.key_id.hex()}/0001"
    replace_object(world.storage, first, b"{}")
    newest = first[:-1] + "2"
    world.storage.put(newest, b"[]")
    with pytest.raises(Corrupt, match=newest):
        keyring(world).get("wal", dek.key_id)


def test_a_listing_that_lacks_the_key_does_not_hide_it(world: World) -> None:
    dek = keyring(world).create("wal")
    faulty = FaultyStorage(world.storage)
    faulty.hide(lambda _: True)
    assert keyring(world, storage=faulty).get("wal", dek.key_id) == dek


# -- days of WAL


def test_a_day_has_one_key_for_all_hosts(world: World) -> None:
    first = keyring(world).for_wal_day("20260115")
    assert keyring(world).for_wal_day("20260115") == first
    assert keyring(world).for_wal_day("20260116") != first


def test_of_two_hosts_that_race_for_a_day_one_wins(world: World) -> None:
    faulty = FaultyStorage(world.storage)
    slow, fast = keyring(world, storage=faulty), keyring(world)
    won = []
    # The other host is through just before this one writes its pointer.
    faulty.call(
        "put",
        lambda: won.append(fast.for_wal_day("20260115")),
        times=FOREVER,
        name="alpha/wal-days/20260115",
    )
    assert slow.for_wal_day("20260115") == won[0]
    assert keyring(world).for_wal_day("20260115") == won[0]
    assert len(list(world.storage.list("alpha/keys/wal/"))) == 2


@pytest.mark.parametrize(
    "pointer", [b"", b"00", b"no hex", b"\xff" * 32, b"0" * 33, b"../" + b"0" * 29]
)
def test_a_pointer_that_is_no_key_id_is_passed_over(
    world: World, pointer: bytes
) -> None:
    ring = keyring(world)
    world.storage.put("alpha/wal-days/20260115", pointer)
    with pytest.raises(Corrupt, match="alpha/wal-days/20260115"):
        ring.wal_day_key("alpha/wal-days/20260115")
    made = ring.for_wal_day("20260115")
    assert keyring(world).for_wal_day("20260115") == made
    assert world.storage.get("alpha/wal-days/20260115-1") == made.key_id.hex().encode()


def test_a_pointer_to_no_key_is_passed_over(world: World) -> None:
    world.storage.put("alpha/wal-days/20260115", b"0" * 32)
    made = keyring(world).for_wal_day("20260115")
    assert keyring(world).for_wal_day("20260115") == made


def test_a_store_that_fails_is_no_missing_key(world: World) -> None:
    dek = keyring(world).create("wal")
    faulty = FaultyStorage(world.storage)
    ring = keyring(world, storage=faulty)
    faulty.fail("get", StorageError("timed out"), at=faulty.calls["get"] + 1)
    with pytest.raises(StorageError, match="timed out"):
        ring.get("wal", dek.key_id)
    assert ring.get("wal", dek.key_id) == dek


# -- the object


def test_what_is_stored_is_listed(world: World) -> None:
    ring = keyring(world)
    made = {(p, ring.create(p).key_id) for p in ("wal", "wal", "backup")}
    assert {(one.purpose, one.key_id) for one in ring.stored()} == made
    assert len(list(ring.stored("wal"))) == 2


def test_no_secret_is_in_the_object(world: World) -> None:
    dek = keyring(world).create("wal")
    data = world.storage.get(f"alpha/keys/wal/{dek.key_id.hex()}/0001")
    assert dek.secret.hex().encode() not in data
    assert dek.secret not in data
    assert base64.b64encode(dek.secret)[:40] not in data


def good_key() -> tuple[str, dict[str, Any]]:
    world = World()
    dek = keyring(world).create("wal")
    name = f"alpha/keys/wal/{dek.key_id.hex()}/0001"
    return name, json.loads(world.storage.get(name))


@pytest.mark.parametrize(
    "member",
    ["drkit", "format", "lineage", "purpose", "dek_id", "generation", "recipients"],
)
@pytest.mark.parametrize(
    "value", [None, 2, 1.5, 1e999, "x", "\u0660", [], {}, [1], [[]]]
)
def test_a_malformed_object_is_corrupt(member: str, value: object) -> None:
    name, found = good_key()
    if member == "recipients" and value == []:
        assert decoded(name, found | {member: value})
        return
    with pytest.raises(Corrupt, match=name):
        decoded(name, found | {member: value})
    del found[member]
    with pytest.raises(Corrupt, match=name):
        decoded(name, found)


def decoded(name: str, found: dict[str, Any]) -> StoredKey:
    """Read an object as one of the repository that it says."""
    known = str(found.get("lineage"))
    is_hex = re.fullmatch("[0-9a-f]{32}", known)
    lineage = bytes.fromhex(known) if is_hex else b""
    return decode_key(name, json.dumps(found).encode(), lineage)


def test_an_object_of_another_repository_is_told(world: World) -> None:
    dek = keyring(world).create("wal")
    name = f"alpha/keys/wal/{dek.key_id.hex()}/0001"
    found = json.loads(world.storage.get(name))
    found["lineage"] = bytes(16).hex()
    replace_object(world.storage, name, json.dumps(found).encode())
    with pytest.raises(Corrupt, match=f"{name} belongs to another repository"):
        keyring(world).get("wal", dek.key_id)


def test_a_member_of_a_later_writer_is_no_damage() -> None:
    name, found = good_key()
    assert decoded(name, found | {"later": ["member"]}) == decoded(name, found)


def test_another_spelling_is_refused() -> None:
    name, found = good_key()
    lineage = bytes.fromhex(found["lineage"])
    good = json.dumps(found)
    assert decode_key(name, good.encode(), lineage)
    twice = good.replace('"generation": 1', '"generation": 9, "generation": 1')
    spellings = (json.dumps(found, indent=1), good + " ", good.replace(": ", ":"))
    for other in (*spellings, twice, good.replace("key", "\\u006bey", 1)):
        assert json.loads(other) == found
        with pytest.raises(Corrupt, match=name):
            decode_key(name, other.encode(), lineage)


@pytest.mark.parametrize("wrapped", [None, 1, "not base64!", "AAA", "\u0661"])
def test_a_malformed_recipient_is_corrupt(wrapped: object) -> None:
    name, found = good_key()
    recipient = {"provider": "local", "kek_id": "local:00", "wrapped": wrapped}
    with pytest.raises(Corrupt, match=name):
        decoded(name, found | {"recipients": [recipient]})


def test_every_bit_of_the_object_is_noticed_or_means_nothing(world: World) -> None:
    dek = keyring(world).create("wal")
    name = f"alpha/keys/wal/{dek.key_id.hex()}/0001"
    good = world.storage.get(name)
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        replace_object(world.storage, name, bytes(changed))
        try:
            found = keyring(world).get("wal", dek.key_id)
        except (Corrupt, KeyUnavailable):
            continue
        assert found == dek
