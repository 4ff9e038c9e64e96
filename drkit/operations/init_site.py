"""Where a cluster is set up, and what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drkit.model.draft import PolicyDraft
    from drkit.model.owner import Owner
    from drkit.protocols import Storage
    from drkit.repository.repository import Repository

SIGNING, WAL_SIGNING = "signing", "wal_signing"


class Site(Protocol):
    """Where a new policy, its keys and its repository are to be."""

    @property
    def policy_path(self) -> str:
        """Return the absolute path of the policy file."""

    def key_path(self, purpose: str) -> str:
        """Return the absolute path of a key file."""

    def read_key(self, purpose: str, owner: Owner | None) -> str | None:
        """Return what a key file holds; None if there is none.

        Args:
            owner: who may own it beside root and this user.

        Raises:
            KeyUnavailable: it can't be read, or others can, or could have written it.
        """

    def refuse_existing_policy(self) -> None:
        """Raise PolicyError if there is a policy of that name already."""

    def accept(self, draft: PolicyDraft) -> None:
        """Raise PolicyError if the draft would be no valid policy."""

    def create_storage(self, draft: PolicyDraft, owner: Owner | None) -> Storage:
        """Open the repository's store; make its directory if it is one."""

    def open_repository(
        self, draft: PolicyDraft, storage: Storage, lineage: bytes
    ) -> Repository:
        """Open the repository as the draft's policy will."""

    def write_key(self, purpose: str, text: str, owner: Owner | None) -> None:
        """Create a key file that nobody else can read.

        Args:
            owner: the server's user where this is root. Whether the keys become that
                user's says `keeps_keys`.
        """

    def keeps_keys(self) -> bool:
        """Say whether keys stay root's, but for reading what archiving needs."""

    def write_policy(self, draft: PolicyDraft, owner: Owner | None) -> None:
        """Create the policy file."""


@dataclass(frozen=True, slots=True)
class InitRequest:
    """What a person asked for.

    Attributes:
        source: `local` or `stream`.
        password: a reference to where the password is; None if none is needed.
        s3: fields of `repository.s3`, with references for secrets.
        archive_command: what the server will have to run.
    """

    name: str
    url: str
    repository_url: str
    source: str
    password: str | None
    s3: Mapping[str, str]
    archive_command: str
