"""`drkit policy check` and `drkit policy schema`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit.cli.plain import PlainGroup
from drkit.cli.session import Session, command, write_out
from drkit.errors import NotFound, PolicyError
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.errors import DrkitError


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        cls=PlainGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Check policy files.",
    )
    command(
        group,
        "check",
        group="policy",
        examples="drkit policy check /etc/drkit/policies/*.yaml",
    )(check)
    command(
        group,
        "schema",
        group="policy",
        examples="drkit policy schema > drkit.schema.json",
    )(schema)
    app.add_typer(group, name="policy")


def check(
    session: Session,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Policy files, or names.")
    ],
) -> int:
    """Check policy files and tell everything that is wrong in any of them."""
    checked = [_check_one(session, file) for file in files]
    wrong = [one for one in checked if one["problems"]]
    lines = [
        f"{one['file']}: policy {one['policy']} is right"
        for one in checked
        if not one["problems"]
    ]
    lines += [problem for one in wrong for problem in one["problems"]]
    session.show(page(lines), {"valid": not wrong, "files": checked})
    return PolicyError.exit_code if wrong else 0


def _check_one(session: Session, file: str) -> dict[str, Any]:
    from drkit.config.discovery import policy_dirs
    from drkit.config.loading import load_policy
    from drkit.config.recalling import find_policy

    path = file
    try:
        if not os.path.exists(file):
            dirs = policy_dirs(session.options.policy_dir, session.environ)
            path = find_policy(file, dirs, session.environ)
        name = load_policy(path, session.environ).name
    except (PolicyError, NotFound) as error:
        return {"file": path, "policy": None, "problems": _problems(session, error)}
    return {"file": path, "policy": name, "problems": []}


def _problems(session: Session, error: DrkitError) -> list[str]:
    return session.redactor.text(error.message).splitlines()


def schema(session: Session) -> None:  # noqa: ARG001  every command has one
    """Print the JSON Schema of policy files, for editors that complete and check."""
    from drkit.config.loading import policy_schema

    write_out(json.dumps(policy_schema(), indent=2))
