"""Running the state machines of the tests beside this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

if TYPE_CHECKING:
    from hypothesis.stateful import RuleBasedStateMachine


def run(machine: type[RuleBasedStateMachine], examples: int, steps: int) -> None:
    """Try a machine with so many examples of so many steps."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None
        ),
    )
