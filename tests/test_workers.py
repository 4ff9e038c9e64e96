"""Work beside other work: neither outlives the other, and nothing is swallowed."""

from __future__ import annotations

import threading
from typing import NoReturn

import pytest

from drkit.workers import beside


class Failed(Exception):
    """What the tests raise."""


def never() -> None:
    pytest.fail("interrupted though nothing failed")


def fail() -> NoReturn:
    raise Failed("the task")


def test_the_result_is_waited_for() -> None:
    go = threading.Event()
    with beside(lambda: go.wait(10), never) as result:
        go.set()
        assert result() is True


def test_what_a_task_raises_is_raised_where_its_result_is_asked_for() -> None:
    with beside(fail, never) as result, pytest.raises(Failed, match="the task"):
        result()


def test_a_block_that_fails_interrupts_the_task_and_waits_for_it() -> None:
    interrupted, ended = threading.Event(), threading.Event()

    def task() -> None:
        assert interrupted.wait(10)
        ended.set()

    with pytest.raises(Failed), beside(task, interrupted.set):
        raise Failed("the block")
    assert ended.is_set()
    assert all(thread.name != "beside" for thread in threading.enumerate())


def test_a_task_that_has_ended_is_not_interrupted() -> None:
    with pytest.raises(Failed), beside(lambda: 1, never) as result:
        raise Failed(result())
