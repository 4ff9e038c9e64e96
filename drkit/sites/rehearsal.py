"""Where a policy's recoveries are rehearsed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from drkit import wiring
from drkit.config.compiled import compile_policy
from drkit.config.database_url import database_of
from drkit.errors import PolicyError
from drkit.operations.scratch.instance import ScratchOptions
from drkit.operations.stage import Site
from drkit.ownership import ROOT, owner_of
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.process import server_account
from drkit.postgres.sandbox.confinement import own_account
from drkit.repository.identity import read_lineage
from drkit.storage.overlay import OverlayStorage

if TYPE_CHECKING:
    from collections.abc import Collection

    from drkit.config.policy import Policy
    from drkit.postgres.process import Account
    from drkit.repository.repository import Repository

_SCRATCH = "/var/tmp"  # noqa: S108  a private directory is made in it


def rehearsal_site(policy: Policy, secrets: wiring.Secrets) -> Site:
    """Return where a policy's recoveries are rehearsed.

    Raises:
        RepositoryMissing: there is no repository.
        PolicyError: scratch instances would stand in production's own directory.
    """
    compiled = compile_policy(policy)
    repository = wiring.open_repository(policy, secrets)
    rules = policy.verification
    directory = rules.directory or _SCRATCH
    database = database_of(policy.cluster.url)
    _refuse_production(policy, directory)

    def overlay(hidden: Collection[str], damaged: Collection[str]) -> Repository:
        store = wiring.storage(compiled, secrets, wiring.LONG_DEADLINE.total_seconds())
        shown = OverlayStorage(store, hidden, damaged)
        lineage = read_lineage(store)
        return wiring.repository_in(shown, lineage, compiled, secrets, remembered=False)

    def scratch(major: int) -> ScratchOptions:
        path = secrets.environ.get("PATH", os.defpath)
        return ScratchOptions(
            directory=directory,
            binaries=ServerBinaries.locate(major, path),
            account=_account(directory),
            memory=rules.memory,
            max_bytes=rules.max_size,
        )

    return Site(
        repository=repository,
        overlay=overlay,
        scratch=scratch,
        rules=rules,
        objectives=policy.objectives,
        jobs=rules.jobs,
        database=database,
        heartbeat_database=policy.heartbeat.database or database,
        heartbeat_every=policy.heartbeat.every,
        configuration=wiring.rules(policy).configuration,
        host=wiring.host_name(),
    )


def _account(directory: str) -> Account:
    """Return whom scratch instances run as: nobody else, where that is possible.

    What belongs to another user is that user's to change, so there the server runs as
    it always does.

    Raises:
        PolicyError: others could put something else into the directory's place.
    """
    server, there = server_account(), directory
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    owner = owner_of(there, raising=PolicyError)
    return own_account(server) if owner in (None, ROOT) else server


def _refuse_production(policy: Policy, directory: str) -> None:
    production = policy.cluster.data_directory
    if production is None:
        return
    places = [os.path.realpath(directory), os.path.realpath(production)]
    if os.path.commonpath(places) == places[1]:
        raise PolicyError(
            f"verification.directory {directory} lies in the cluster's own data "
            "directory",
            hint="name a directory elsewhere, best on another disk",
        )
