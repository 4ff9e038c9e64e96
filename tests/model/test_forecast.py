"""Forecasts: what earlier restores took, put together for today's amounts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.evidence import Measure, Outcome, Phase, Record
from drkit.model.forecast import (
    NEWEST,
    Amounts,
    Run,
    forecast,
    forecast_by,
    measured_runs,
)
from tests.evidence import RESTORED, bare, record

MIB = 1 << 20
TODAY = Amounts(1000 * MIB, 250 * MIB, 40)

seconds = st.floats(0.01, 1e5)
sizes = st.integers(1, 1 << 50)
counts = st.integers(0, 1 << 20)
amounts = st.builds(Amounts, sizes, sizes, counts)


def made(amounts: Amounts, fetch: float, replay: float, rest: float) -> Run:
    return Run(amounts, fetch, replay if amounts.wal_segments else 0.0, rest)


runs = st.builds(made, amounts, seconds, st.floats(0, 1e5), st.floats(0, 1e5))


def steady(amounts: Amounts = TODAY, slower: float = 1.0) -> Run:
    """A run at 100 MiB written and 25 MiB read a second, 8 segments a second."""
    fetch = amounts.written_bytes / (100 * MIB) * slower
    return Run(amounts, fetch, amounts.wal_segments / 8 * slower, 2.0)


def drill(fetch: float, replay: float, rto: float | None) -> Record:
    phases = (Phase("plan", 0, 1), Phase("fetch", 1, fetch), Phase("replay", 9, replay))
    return replace(
        record(), phases=phases, rto=Measure(None, rto, "said"), restored=RESTORED
    )


def test_nothing_measured_is_no_forecast() -> None:
    failed = bare(0, "0" * 64)
    unready = replace(drill(3, 1, None), outcome=Outcome.FAILED)
    assert measured_runs([failed, unready]) == []
    assert forecast([failed, unready], 1, 1, 1) is None
    assert forecast([], 1, 1, 1) is None


def test_one_record_says_what_it_took_and_is_not_sure() -> None:
    found = forecast(
        [drill(12.5, 62.5, 80.0)],
        RESTORED.bytes,
        RESTORED.fetched_bytes,
        RESTORED.wal_segments,
    )
    assert found is not None
    assert found.seconds == pytest.approx(80.0)
    assert found.error == pytest.approx(80.0)


def test_a_replay_of_no_segments_counts_as_it_is() -> None:
    restored = replace(RESTORED, wal_segments=0)
    found = measured_runs([replace(drill(10.0, 3.0, 20.0), restored=restored)])
    assert [(one.replay, one.rest) for one in found] == [(0.0, 10.0)]


def test_rates_carry_over_to_other_amounts() -> None:
    known = [steady(Amounts(n * 500 * MIB, n * 125 * MIB, n * 20)) for n in (1, 2, 4)]
    found = forecast_by(known, TODAY)
    assert found is not None
    assert found.seconds == pytest.approx(10 + 5 + 2)


def test_a_run_on_a_busy_machine_moves_little() -> None:
    calm = [steady() for _ in range(6)]
    with_one = forecast_by([*calm, steady(slower=20)], TODAY)
    without = forecast_by(calm, TODAY)
    assert with_one is not None
    assert without is not None
    assert with_one.seconds == pytest.approx(without.seconds)
    assert with_one.error < 0.2 * with_one.seconds


def test_the_error_holds_what_the_records_spread() -> None:
    known = [steady(slower=slower) for slower in (0.8, 1.0, 1.2, 0.9, 1.1)]
    found = forecast_by(known, TODAY)
    assert found is not None
    off = [abs(run.seconds - found.seconds) for run in known]
    assert found.error >= sorted(off)[-2]


def test_only_the_newest_count() -> None:
    old = [drill(100.0, 1.0, 110.0)] * NEWEST
    new = [drill(10.0, 1.0, 20.0)] * NEWEST
    assert {run.fetch for run in measured_runs([*old, *new])} == {10.0}
    assert {run.fetch for run in measured_runs([*new, *old])} == {100.0}


def test_wal_that_no_record_replayed_makes_it_less_sure() -> None:
    known = [steady(Amounts(1000 * MIB, 250 * MIB, 0))] * 4
    calm = forecast_by(known, replace(TODAY, wal_segments=0))
    busy = forecast_by(known, replace(TODAY, wal_segments=1024))
    assert calm is not None
    assert busy is not None
    assert busy.error >= calm.error + busy.seconds * 0.9


@given(st.lists(runs, min_size=1, max_size=8), amounts)
def test_never_negative_and_always_with_an_error(
    known: list[Run], wanted: Amounts
) -> None:
    found = forecast_by(known, wanted)
    assert found is not None
    assert found.seconds > 0
    assert found.error >= found.seconds / len(known) * 0.999


@given(st.lists(runs, min_size=1, max_size=6), amounts, st.integers(2, 1000))
def test_units_do_not_matter(known: list[Run], wanted: Amounts, factor: int) -> None:
    """Sizes in other units give the same seconds; seconds in others scale along."""

    def sized(one: Amounts) -> Amounts:
        return replace(
            one,
            written_bytes=one.written_bytes * factor,
            fetched_bytes=one.fetched_bytes * factor,
        )

    plain = forecast_by(known, wanted)
    larger = [replace(run, amounts=sized(run.amounts)) for run in known]
    slower = [
        Run(run.amounts, run.fetch * 8, run.replay * 8, run.rest * 8) for run in known
    ]
    assert plain is not None
    for found, times in (
        (forecast_by(larger, sized(wanted)), 1),
        (forecast_by(slower, wanted), 8),
    ):
        assert found is not None
        assert found.seconds == pytest.approx(plain.seconds * times)
        assert found.error == pytest.approx(plain.error * times)


@given(runs, st.integers(1, 10))
def test_the_error_shrinks_with_each_run_that_agrees(run: Run, count: int) -> None:
    fewer = forecast_by([run] * count, run.amounts)
    more = forecast_by([run] * (count + 1), run.amounts)
    assert fewer is not None
    assert more is not None
    assert more.seconds == pytest.approx(fewer.seconds) == pytest.approx(run.seconds)
    assert more.error < fewer.error


@given(st.lists(runs, min_size=1, max_size=6), amounts)
def test_more_to_restore_never_takes_less(known: list[Run], wanted: Amounts) -> None:
    plain = forecast_by(known, wanted)
    more = forecast_by(
        known,
        Amounts(
            wanted.written_bytes * 2, wanted.fetched_bytes + 1, wanted.wal_segments + 1
        ),
    )
    assert plain is not None
    assert more is not None
    assert more.seconds >= plain.seconds


@given(st.lists(runs, min_size=1, max_size=8), amounts, st.randoms())
def test_the_order_of_runs_does_not_matter(
    known: list[Run], wanted: Amounts, random: object
) -> None:
    shuffled = list(known)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = forecast_by(known, wanted), forecast_by(shuffled, wanted)
    assert first is not None
    assert second is not None
    assert second.seconds == pytest.approx(first.seconds)
    assert second.error == pytest.approx(first.error)
