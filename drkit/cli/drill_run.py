"""`drkit drill run`."""

from __future__ import annotations

from typing import Annotated

import typer

from drkit.cli.rehearsed import rehearsed_json, rehearsed_text
from drkit.cli.session import Session  # noqa: TC001  the signature is evaluated

EXAMPLES = """
drkit drill run production
drkit drill run production --scenario operator-error
"""


def run(
    session: Session,
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A policy's name, or its file.")
    ],
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="host-loss, operator-error, corruption or repository-loss-partial; "
            "without it, the one that was drilled longest ago.",
        ),
    ] = None,
) -> int:
    """Play a disaster, recover from it in a scratch instance, and sign what came of it.

    Production is not touched: the disaster is played on what this process sees of the
    repository, and the recovered server can reach nothing outside of its directory.

    Exits with 0 if all objectives are met, 3 if one was missed, and with the failure's
    own code, or 28 for a failed check, if the drill failed. Either way it is recorded.
    """
    from drkit.operations.drills.registry import run_drill
    from drkit.sites.rehearsal import rehearsal_site

    loaded = session.policy(policy)
    site = rehearsal_site(loaded, session.secrets)
    done = run_drill(site, scenario, session.progress)
    session.show(rehearsed_text(loaded.name, done), rehearsed_json(loaded.name, done))
    return done.exit_code
