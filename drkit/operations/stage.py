"""What a rehearsed recovery works with: its site, its task, and its stage.

A drill's module needs nothing else: it looks at the stage, times what it does there,
and returns an aim.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import DrkitError
from drkit.operations.restore import RestoreRequest, execute_restore, plan_restore
from drkit.operations.stopwatch import Stopwatch
from drkit.postgres.removing import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime, timedelta

    from drkit.model.evidence import Check, RecordKind
    from drkit.model.objectives import Objectives
    from drkit.model.owner import Owner
    from drkit.model.recovery import RecoveryTarget
    from drkit.model.verification import VerificationRules
    from drkit.operations.limited import Limited
    from drkit.operations.restore import RestorePlan
    from drkit.operations.scratch.instance import Recovered, Scratch, ScratchOptions
    from drkit.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Site:
    """Where and by which rules a recovery is rehearsed.

    Attributes:
        overlay: returns the repository as it would be with some objects gone, and
            others damaged; it can only be read.
        scratch: by major version, where scratch instances run, and as whom.
        database: the one that the policy's URL names.
        configuration: SHA-256 of the policy file.
    """

    repository: Repository
    overlay: Callable[[Collection[str], Collection[str]], Repository]
    scratch: Callable[[int], ScratchOptions]
    rules: VerificationRules
    objectives: Objectives
    jobs: int
    database: str
    heartbeat_database: str
    heartbeat_every: timedelta | None
    configuration: str
    host: str


@dataclass(frozen=True, slots=True)
class Aim:
    """What to restore, and from what.

    Attributes:
        label: None lets the target choose.
        chosen: how it was come by, for the record.
        disaster: the moment at which data would have been lost; None: the age of what
            comes back means nothing here.
        proofs: what this aim promises of the recovered cluster, beside the checks.
    """

    repository: Repository
    label: str | None
    target: RecoveryTarget
    chosen: str
    disaster: datetime | None
    proofs: Callable[[Scratch, Recovered], tuple[Check, ...]] | None = None


class Task(NamedTuple):
    """What is rehearsed.

    Attributes:
        aim: finds out what to restore; a drill times its phases `detect` and `decide`
            while it does.
    """

    kind: RecordKind
    scenario: str
    aim: Callable[[Stage], Aim]


class Stage:
    """What a run has to work with while it looks for its aim.

    Attributes:
        random: seeded; the seed is in the record.
        notes: for the record, each a sentence.
    """

    def __init__(
        self, site: Site, scratch: Scratch, owner: Owner | None, progress: Limited
    ) -> None:
        self.site = site
        self.owner = owner
        self.repository = site.repository
        self.scratch = scratch
        self.progress = progress
        self.seed = random.SystemRandom().getrandbits(32)
        self.random = random.Random(self.seed)  # noqa: S311 - not for secrets
        self.notes = [f"random choices are from seed {self.seed}"]
        self.watch = Stopwatch(site.repository.clock, progress)

    def plan(self, aim: Aim) -> RestorePlan:
        """Plan a restore into the scratch instance.

        Raises:
            DrkitError: as `plan_restore` does; NoSpace where the limits forbid it.
        """
        site, scratch = self.site, self.scratch
        request = RestoreRequest(
            label=aim.label,
            target=aim.target,
            to=scratch.data_directory,
            tablespaces={},
            tablespaces_in=os.path.dirname(scratch.tablespace_place(0)),
            jobs=site.jobs,
            restore_command=scratch.restore_command,
            owner=self.owner,
        )
        plan = plan_restore(aim.repository, request)
        scratch.check_room(plan.write_bytes)
        return plan

    def fetch(self, aim: Aim, plan: RestorePlan) -> None:
        """Fill the scratch instance's data directory.

        Raises:
            Corrupt, StorageError, NoSpace: as `execute_restore` does.
        """
        execute_restore(aim.repository, plan, self.progress)

    def refusal(self, aim: Aim) -> DrkitError | None:
        """Say why a restore can't even be planned; None if it can."""
        try:
            self.plan(aim)
        except DrkitError as error:
            self.notes.append(f"passed over: {error.message}")
            return error
        return None

    def empty(self) -> None:
        """Remove what an attempt to restore has left in the scratch instance."""
        scratch = self.scratch
        tablespaces = os.path.dirname(scratch.tablespace_place(0))
        for place in (scratch.data_directory, tablespaces):
            if os.path.lexists(place):
                remove_tree(place)
