"""`drkit drill action add`, `done` and `drop`."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli.plain import PlainGroup
from drkit.cli.records import action_json
from drkit.cli.session import Session, command
from drkit.errors import UsageError
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.config.policy import Policy
    from drkit.operations.actions import RecordedAction
    from drkit.repository.repository import Repository

_Policy = Annotated[
    str, typer.Argument(metavar="POLICY", help="A policy's name, or its file.")
]
_Number = Annotated[
    int, typer.Argument(metavar="NUMBER", min=1, help="The action's number.")
]
_ADDED = """
drkit drill action add production --text 'backup.jobs from 2 to 4' \
--owner 'Mira Okafor' --due 2026-02-15 --follows 17
"""
_DONE = "drkit drill action done production 3 --note 'backup.jobs is 4 since Monday'"
_DROPPED = (
    "drkit drill action drop production 3 --note 'the new disks made it needless'"
)


def register(drill: typer.Typer) -> None:
    """Add the group to that of drills."""
    group = typer.Typer(
        cls=PlainGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Corrective actions, signed and chained as the drills they follow.",
    )
    command(group, "add", group="drill action", examples=_ADDED)(add)
    command(group, "done", group="drill action", examples=_DONE)(done)
    command(group, "drop", group="drill action", examples=_DROPPED)(drop)
    drill.add_typer(group, name="action")


def add(
    session: Session,
    policy: _Policy,
    text: Annotated[str, typer.Option(metavar="TEXT", help="What is to be done.")],
    owner: Annotated[str, typer.Option(metavar="NAME", help="Who does it.")],
    due: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="Until when.")],
    follows: Annotated[
        int | None,
        typer.Option(
            metavar="RECORD", min=0, help="The drill's or verification's number."
        ),
    ] = None,
) -> None:
    """Record what is to be done after a drill or a verification.

    Reports show it until it is done or dropped.
    """
    from drkit.operations.actions import add_action

    day, loaded = _day(due), session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    recorded = add_action(repository, text, owner, day, follows)
    _show(session, loaded, repository, recorded)


def done(
    session: Session,
    policy: _Policy,
    number: _Number,
    note: Annotated[str, typer.Option(metavar="TEXT", help="What was done.")],
) -> None:
    """Record that an action was done."""
    _settle(session, policy, number, "done", note)


def drop(
    session: Session,
    policy: _Policy,
    number: _Number,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why it is not done.")],
) -> None:
    """Record that an action won't be done."""
    _settle(session, policy, number, "dropped", note)


def _settle(session: Session, policy: str, number: int, state: str, note: str) -> None:
    from drkit.operations.actions import settle_action

    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    recorded = settle_action(repository, number, state, note)
    _show(session, loaded, repository, recorded)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--due: {text!r} is no date", hint="write it as 2026-02-15"
        ) from None


def _show(
    session: Session, policy: Policy, repository: Repository, recorded: RecordedAction
) -> None:
    from drkit.operations.timestamps import stamp

    action, place = recorded
    stamp(repository, place, policy.verification, session.progress)
    told = (
        f"action {action.action} is {action.state}: {action.text} "
        f"({action.owner}, due {action.due})"
    )
    text = page([told, f"signed as record {place.sequence}, sha256 {place.digest}"])
    found: dict[str, Any] = {
        "policy": policy.name,
        "action": action_json(action),
        "record": {"sequence": place.sequence, "sha256": place.digest},
    }
    session.show(text, found)
