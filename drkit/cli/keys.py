"""`drkit keys list` and `drkit keys check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import render
from drkit.cli.check import findings_json, render_findings
from drkit.cli.plain import PlainGroup
from drkit.cli.session import Session, command
from drkit.errors import KeyUnavailable
from drkit.model.finding import State
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.config.policy import Policy
    from drkit.operations.keys import DataKey, KeyAtHand, KeyList
    from drkit.sites.wal_signing import WalSigningKey

_PolicyArgument = Annotated[str, typer.Argument(help="A policy's name, or its file.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        cls=PlainGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        help="List the keys of a cluster, and try whether they open what they should; "
        "make the one that signs WAL.",
    )
    command(group, "list", group="keys", examples="drkit keys list production")(list_)
    command(group, "check", group="keys", examples="drkit keys check production")(check)
    command(group, "sign-wal", group="keys", examples="drkit keys sign-wal production")(
        sign_wal
    )
    app.add_typer(group, name="keys")


def list_(session: Session, policy: _PolicyArgument) -> None:
    """List the policy's keys and every data key, with what it belongs to."""
    from drkit.operations.keys import list_keys

    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    found = list_keys(repository, wiring.signing(loaded, session.secrets))
    for problem in found.problems:
        session.progress.warning(problem)
    session.show(_text(found), {"policy": loaded.name, **_json(found)})


def check(session: Session, policy: _PolicyArgument) -> int:
    """Try every key: it is there, it is the right one, it opens what it should.

    Exits with 13 if any does not.
    """
    from drkit.operations.keys import check_keys

    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    findings = check_keys(repository, wiring.signing(loaded, session.secrets))
    failures = sum(one.state is State.FAILED for one in findings)
    verdict = f"{failures} of {len(findings)} failed" if failures else "all keys work"
    session.show(
        page([render_findings(findings), "", f"{loaded.name}: {verdict}"]),
        {
            "policy": loaded.name,
            "passed": not failures,
            "checks": findings_json(findings),
        },
    )
    return KeyUnavailable.exit_code if failures else 0


def sign_wal(
    session: Session,
    policy: _PolicyArgument,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Where to write the key; by default beside the policy's key of WAL.",
        ),
    ] = None,
) -> None:
    """Make the key that signs WAL, for a policy from before WAL was signed.

    Tells what to add to the policy. A key file that is there is kept.
    """
    from drkit.sites.wal_signing import make_wal_signing_key

    loaded = session.policy(policy)
    made = make_wal_signing_key(loaded, to, session.secrets)
    session.show(
        page(_next_steps(loaded, made)),
        {
            "policy": loaded.name,
            "path": made.path,
            "public_key": made.public_key,
            "created": made.created,
        },
    )


def _next_steps(policy: Policy, made: WalSigningKey) -> Iterator[str]:
    yield f"{made.path} {'written' if made.created else 'was there, and is kept'}."
    yield ""
    yield f"Add this to `keys` in {policy.path}, on every host of the repository, once"
    yield "all of them have this version of drkit:"
    yield ""
    yield f"  wal_signing: file:{made.path}"
    yield "  trusted_wal:"
    yield f"    - {made.public_key}"
    yield ""
    yield "WAL is signed from then on. The first backup whose WAL is all signed says so"
    yield "in the log; from there on WAL that is not signed is refused."
    yield "Keep a copy of the key with the others, away from this host."


def _text(found: KeyList) -> str:
    rows = [
        (one.purpose, one.key_id or f"— {one.problem}") for one in found.policy_keys
    ]
    lines = ["keys of the policy:", render.facts(rows), "", "data keys:"]
    if not found.data_keys:
        return page([*lines, "  none"])
    head = ("purpose", "id", "generation", "wrapped for", "belongs to")
    table = [
        (
            one.purpose,
            one.key_id,
            f"{one.generation:04d}",
            ", ".join(one.recipients),
            ", ".join(str(use) for use in one.uses) or "nothing that is known",
        )
        for one in found.data_keys
    ]
    return page([*lines, render.table(head, table)])


def _json(found: KeyList) -> dict[str, Any]:
    return {
        "policy_keys": [_policy_key(one) for one in found.policy_keys],
        "data_keys": [_data_key(one) for one in found.data_keys],
        "problems": list(found.problems),
    }


def _policy_key(one: KeyAtHand) -> dict[str, Any]:
    return {
        "purpose": one.purpose,
        "key_id": one.key_id or None,
        "problem": one.problem,
    }


def _data_key(one: DataKey) -> dict[str, Any]:
    return {
        "purpose": one.purpose,
        "key_id": one.key_id,
        "generation": one.generation,
        "recipients": list(one.recipients),
        "belongs_to": [{"kind": use.kind, "name": use.name} for use in one.uses],
    }
