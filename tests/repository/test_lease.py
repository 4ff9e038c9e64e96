from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from drkit.repository.layout import Layout
from drkit.repository.lease import LEASE_FOR, Holder, Leases
from tests.builders import CLUSTER, EPOCH, World, new_attempt

HERE = Holder.this("host-a")
ELSEWHERE = Holder("host-b", "another boot", 1)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def leases(world: World) -> Leases:
    return Leases(world.storage, Layout(CLUSTER), world.clock, bytes(32))


def test_a_lease_holds_until_it_lapses(world: World, leases: Leases) -> None:
    attempt = new_attempt()
    until = leases.renew(attempt, ELSEWHERE, 0)
    assert until == world.clock.now() + LEASE_FOR
    assert leases.held(HERE)[attempt].holder == ELSEWHERE
    world.clock.sleep(LEASE_FOR.total_seconds() - 1)
    assert attempt in leases.held(HERE)
    world.clock.sleep(1)
    assert not leases.held(HERE)
    last = leases.last(attempt)
    assert last is not None
    assert last.until == until


def test_a_renewal_holds_longer(world: World, leases: Leases) -> None:
    attempt = new_attempt()
    for number in range(12):
        leases.renew(attempt, ELSEWHERE, number)
        world.clock.sleep(180)
    assert leases.held(HERE)[attempt].until > world.clock.now()


def test_a_released_lease_is_gone(leases: Leases) -> None:
    first, second = new_attempt(), new_attempt()
    for number in range(3):
        leases.renew(first, ELSEWHERE, number)
        leases.renew(second, ELSEWHERE, number)
    leases.release(first)
    leases.release(first)
    assert list(leases.held(HERE)) == [second]
    assert leases.last(first) is None


def test_a_dead_process_of_this_host_holds_nothing(leases: Leases) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    attempt, holder = new_attempt(), Holder("host-a", HERE.boot, child.pid)
    leases.renew(attempt, holder, 0)
    assert attempt in leases.held(HERE)
    child.communicate(b"\n")
    assert attempt not in leases.held(HERE)


def test_nothing_is_known_of_other_hosts_and_boots() -> None:
    dead = 2**22 + 1
    assert Holder("host-a", HERE.boot, dead).gone(HERE)
    assert not Holder("host-b", HERE.boot, dead).gone(HERE)
    assert not Holder("host-a", "an earlier boot", dead).gone(HERE)
    assert not Holder("host-a", "", dead).gone(Holder("host-a", "", os.getpid()))


GOOD = {
    "drkit": "lease",
    "format": 1,
    "attempt": "ab" * 16,
    "host": "host-b",
    "boot": "boot",
    "pid": 1,
    "until": (EPOCH + LEASE_FOR).isoformat(),
}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        json.dumps(GOOD | {"until": "2026-01-15T10:35:00"}).encode(),
        json.dumps(GOOD | {"until": 5}).encode(),
        json.dumps(GOOD | {"pid": "1"}).encode(),
        json.dumps(GOOD | {"pid": 1e999}).encode(),
        json.dumps(GOOD | {"host": None}).encode(),
        json.dumps({"attempt": "x"}).encode(),
    ],
    ids=range(9),
)
def test_a_malformed_lease_counts_for_nothing(
    world: World, leases: Leases, data: bytes
) -> None:
    attempt = new_attempt()
    leases.renew(attempt, ELSEWHERE, 0)
    world.storage.put(f"{CLUSTER}/leases/{'ab' * 16}-0000", data)
    assert list(leases.held(HERE)) == [attempt]
    assert leases.last("ab" * 16) is None


def test_the_good_one_of_these_is_a_sign_of_life_and_holds_nothing(
    world: World, leases: Leases
) -> None:
    """It has no code: an older version wrote it, or somebody without keys."""
    world.storage.put(f"{CLUSTER}/leases/{'ab' * 16}-0000", json.dumps(GOOD).encode())
    last = leases.last("ab" * 16)
    assert last is not None
    assert not last.proven
    assert not leases.held(HERE)


def test_a_lease_from_years_ahead_counts_for_nothing(
    world: World, leases: Leases
) -> None:
    attempt = new_attempt()
    world.clock.jump(days=3650)
    leases.renew(attempt, ELSEWHERE, 0)
    world.clock.jump(days=-3650)
    assert not leases.held(HERE)
    assert leases.attempts() == {attempt}
