"""The place of a new policy, its keys and its repository."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from drkit import wiring
from drkit.config.compiled import compile_policy
from drkit.config.environment import OVERRIDES
from drkit.config.loading import parse_policy
from drkit.config.repository_url import split_repository_url
from drkit.config.trust import own_users
from drkit.config.writing import (
    KEY_MODE,
    POLICY_MODE,
    already_there,
    make_directory,
    reach_new,
    render_policy,
    unwritable,
    write_new,
)
from drkit.model.owner import Owner
from drkit.ownership import ROOT, give, only_root_leads_to
from drkit.storage.files import DIRECTORY_MODE
from drkit.storage.local import LocalStorage
from drkit.storage.oserrors import explain

if TYPE_CHECKING:
    from drkit.config.policy import Policy
    from drkit.model.draft import PolicyDraft
    from drkit.protocols import Storage
    from drkit.repository.repository import Repository

_ARCHIVING = frozenset({"wal", "wal_signing"})  # what `wal push` and `wal get` read


class InitSite:
    """The place of a new policy, its keys and its repository, for `init`.

    Args:
        policy_dir: where the policy goes; made if it is not there.
        keys_dir: where its keys go; None for a directory of its own beside it.
    """

    def __init__(
        self, name: str, policy_dir: str, keys_dir: str | None, secrets: wiring.Secrets
    ) -> None:
        folder = os.path.abspath(policy_dir)
        self.policy_path = os.path.join(folder, f"{name}.yaml")
        self._keys_dir = os.path.abspath(keys_dir or os.path.join(folder, "keys", name))
        self._secrets = secrets

    def key_path(self, purpose: str) -> str:
        """Return the absolute path of a key file."""
        return os.path.join(self._keys_dir, f"{purpose.replace('_', '-')}.key")

    def read_key(self, purpose: str, owner: Owner | None) -> str | None:
        """Return what a key file holds; None if there is none."""
        path = self.key_path(purpose)
        if not os.path.lexists(path):
            return None
        users = own_users() | ({owner.uid} if owner else set())
        return self._secrets.resolve(f"file:{path}", users)

    def refuse_existing_policy(self) -> None:
        """Raise PolicyError if there is a policy of that name already."""
        if os.path.lexists(self.policy_path):
            raise already_there(self.policy_path)

    def accept(self, draft: PolicyDraft) -> None:
        """Raise PolicyError if the draft would be no valid policy."""
        self._parse(draft)

    def create_storage(self, draft: PolicyDraft, owner: Owner | None) -> Storage:
        """Open the repository's store; make its directory if it is one."""
        policy = self._parse(draft)
        scheme, path, _ = split_repository_url(policy.repository.url)
        if scheme == "file":
            _make_root(path, owner)
        seconds = policy.wal.timeout.total_seconds()
        return wiring.storage(compile_policy(policy), self._secrets, seconds)

    def open_repository(
        self, draft: PolicyDraft, storage: Storage, lineage: bytes
    ) -> Repository:
        """Open the repository as the draft's policy will."""
        compiled = compile_policy(self._parse(draft))
        return wiring.repository_in(storage, lineage, compiled, self._secrets)

    def keeps_keys(self) -> bool:
        """Say whether keys stay root's: it makes them where nobody else could."""
        places = (os.path.dirname(self.policy_path), self._keys_dir)
        return os.geteuid() == 0 and all(map(only_root_leads_to, places))

    def write_key(self, purpose: str, text: str, owner: Owner | None) -> None:
        """Create a key file that nobody else can read.

        Keys that stay root's are readable for the server's user if archiving needs
        them: whoever takes that user over reads no backup, and signs none.
        """
        path = self.key_path(purpose)
        if owner is None or not self.keeps_keys():
            make_directory(self._keys_dir, 0o700, owner)
            write_new(path, text, KEY_MODE, owner)
            return
        group = Owner(ROOT.uid, owner.gid)
        make_directory(self._keys_dir, 0o750, group)
        shared = purpose in _ARCHIVING
        write_new(path, text, 0o640 if shared else KEY_MODE, group if shared else ROOT)

    def write_policy(self, draft: PolicyDraft, owner: Owner | None) -> None:
        """Create the policy file."""
        if self.keeps_keys():
            owner = ROOT
        make_directory(os.path.dirname(self.policy_path), 0o755, owner)
        write_new(self.policy_path, render_policy(draft), POLICY_MODE, owner)

    def _parse(self, draft: PolicyDraft) -> Policy:
        # What the environment replaces is not what the file will say.
        environ = {
            name: value
            for name, value in self._secrets.environ.items()
            if name not in OVERRIDES
        }
        data = render_policy(draft).encode()
        return parse_policy(data, self.policy_path, environ)


def _make_root(path: str, owner: Owner | None) -> None:
    """Make a repository's directory; root gives its owner one that nobody has used.

    Raises:
        PolicyError: others could put another directory into its place.
        StorageError: it can't be made.
    """
    if os.geteuid() != 0:
        LocalStorage.create(path)
        return
    if os.path.isdir(path) and (owner is None or os.stat(path).st_uid != 0):
        return
    try:
        _give_unused(path, owner)
    except PermissionError as error:
        raise unwritable(path, error, owner) from error
    except OSError as error:
        raise explain(error, "making the directory", path, reading=False) from error


def _give_unused(path: str, owner: Owner | None) -> None:
    opened = reach_new(path, DIRECTORY_MODE, owner)
    try:
        if not os.listdir(opened):
            give(opened, path, owner)
    finally:
        os.close(opened)
