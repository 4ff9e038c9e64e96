"""A server on this host, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from drkit.model.head import ServerDescription
    from drkit.model.owner import Owner
    from drkit.model.timeline import TimelineHistory
    from drkit.postgres.facts import ServerFacts


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """The server that a backup is read from, and where its files are.

    Attributes:
        facts: of the server that runs on `data_directory`.
        server: the same server, as the manifest describes it.
        history: of the timeline that it is on.
        owner: whom root acts as in `data_directory`; None where this is not root.
        audit_every: how often each file that seems unchanged is compared in full.
    """

    facts: ServerFacts
    server: ServerDescription
    history: TimelineHistory
    data_directory: str
    owner: Owner | None
    audit_every: timedelta
