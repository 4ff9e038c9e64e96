"""One cluster's part of a repository, opened: what the operations work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import NotFound, RepositoryMissing

if TYPE_CHECKING:
    from drkit.model.log import Commit
    from drkit.protocols import Clock, Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout
    from drkit.repository.log import Log
    from drkit.repository.wal import WalArchive


@dataclass(frozen=True, slots=True)
class Repository:
    """The parts of a repository that belong to one cluster."""

    storage: Storage
    layout: Layout
    lineage: bytes
    keyring: Keyring
    log: Log
    wal: WalArchive
    clock: Clock

    def backups(self) -> list[Commit]:
        """Return the live backups, oldest first.

        Raises:
            RepositoryMissing: this cluster was never set up here.
            RolledBack: it was, as this host knows, and the log is gone.
        """
        state = self.log.read()
        if state.opened is None:
            guard = self.log.guard
            guard.confirm(guard.memory.recall(), self.log)
            raise RepositoryMissing(
                f"cluster {self.layout.cluster} has no log at {self.storage.url}",
                hint="set it up with `drkit init`, or check `repository.url`",
            )
        return list(state.backups.values())

    def find(self, label: str) -> Commit:
        """Return the backup that `label`, a unique prefix of it, or `latest` means.

        Raises:
            NotFound: none or several are meant.
        """
        commits = self.backups()
        if label == "latest":
            meant = commits[-1:]
        else:
            meant = [one for one in commits if one.backup.label.startswith(label)]
        if len(meant) == 1:
            return meant[0]
        known = ", ".join(one.backup.label for one in commits) or "none"
        cluster = self.layout.cluster
        if not meant:
            raise NotFound(
                f"{cluster} has no backup {label!r}", hint=f"the backups are: {known}"
            )
        labels = ", ".join(one.backup.label for one in meant)
        raise NotFound(
            f"{label!r} could be any of {len(meant)} backups of {cluster}: {labels}",
            hint="write out as much of the label as one of them alone has",
        )
