"""Chains of incremental backups over random work, restored and compared at every link.

A failing run prints the setup and the seed, which together repeat it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.incremental.links import Link, Taken, backup, prove, remember
from tests.incremental.workload import BETWEEN, MEANWHILE, SETTINGS, Workload
from tests.operations.scene import Scene

if TYPE_CHECKING:
    from tests.pg import ClusterFactory
    from tests.protect import Protected


class Setup(NamedTuple):
    """A kind of cluster; with or without WAL summaries."""

    major: int
    checksums: bool
    settings: dict[str, str]


SETUPS = {
    "15 without hints in WAL": Setup(15, False, {"wal_log_hints": "off"}),
    "16 with hints in WAL": Setup(16, False, {"wal_log_hints": "on"}),
    "18 by summaries": Setup(18, True, {"summarize_wal": "on"}),
    "18 by page LSN": Setup(18, True, {"summarize_wal": "off"}),
    "15 with checksums": Setup(15, True, {}),
    "16 without hints in WAL": Setup(16, False, {"wal_log_hints": "off"}),
    "18 by summaries without checksums": Setup(18, False, {"summarize_wal": "on"}),
}
ORDINARY = ["15 without hints in WAL", "18 by summaries"]


@dataclass
class Story:
    """What is done to a cluster: for each link steps before its backup, and during.

    Attributes:
        links: pairs of names of steps.
    """

    links: list[tuple[list[str], list[str]]] = field(default_factory=list)

    @classmethod
    def short(cls, random: Random) -> Story:
        """Do each step there is once, between two backups or meanwhile."""
        steps = random.sample(BETWEEN, len(BETWEEN))
        during = random.sample(MEANWHILE, 8)
        half = len(steps) // 2
        return cls([(steps[:half], during), (steps[half:], [])])

    @classmethod
    def long(cls, random: Random) -> Story:
        """Do steps in any order, any of them often."""
        links = []
        for _ in range(random.randrange(3, 8)):
            before = random.choices(BETWEEN, k=random.randrange(12))
            during = random.choices(MEANWHILE, k=random.randrange(10))
            links.append((before, during))
        return cls(links)


def _run(factory: ClusterFactory, setup: Setup, story: Story, random: Random) -> None:
    with Scene(factory) as scene:
        protected = scene.protect(
            setup.major, SETTINGS | setup.settings, data_checksums=setup.checksums
        )
        work = Workload(protected.cluster, random, scene.directory())
        work.prepare()
        links = [remember(scene, protected, backup(protected, "full"))]
        for before, during in story.links:
            work.run(before)
            taken = _back_up_meanwhile(protected, work, during)
            _must_build_on(taken, links[-1])
            links.append(remember(scene, protected, taken))
        protected.archive_now()
        for link in links[1:]:
            prove(scene, protected, link)


def _back_up_meanwhile(
    protected: Protected, work: Workload, during: list[str]
) -> Taken:
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work.run, during)
        taken = backup(protected)
        working.result(60)
    return taken


def _must_build_on(taken: Taken, before: Link) -> None:
    assert (taken.kind, taken.parent) == ("incr", before.taken.label), taken


@pytest.mark.parametrize("name", ORDINARY)
def test_a_short_chain(name: str, workshop: ClusterFactory) -> None:
    random = Random(name)
    _run(workshop, SETUPS[name], Story.short(random), random)


@pytest.mark.long
@pytest.mark.parametrize("name", SETUPS)
@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(seed=st.integers(0, 1 << 64))
def test_long_chains(name: str, workshop: ClusterFactory, seed: int) -> None:
    random = Random(seed)
    _run(workshop, SETUPS[name], Story.long(random), random)
