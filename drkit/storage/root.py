"""The root directory of a local repository, and the way down from it."""

from __future__ import annotations

import os

from drkit.storage import files, oserrors

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from drkit.storage.files import Descriptor, Owner

_TEMPORARY = "+tmp"


class Root:
    """Opens directories below `path`, and notices when `path` becomes another one.

    Attributes:
        owner: whom to give new files to; None unless this runs as root. Known from
            the first `open` on.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.owner: Owner | None = None
        self._identity: tuple[int, int] | None = None
        # Directories whose own entry in their parent this process has fsynced.
        # Deleting objects leaves directories, so they stay as they were.
        self._durable: set[str] = set()

    def create(self, owner: Owner | None) -> None:
        """Make the directory and what lies above it; one that is there stays as is."""
        above = os.path.dirname(self.path)
        os.makedirs(above, exist_ok=True)
        try:
            os.mkdir(self.path, files.DIRECTORY_MODE)
        except FileExistsError:
            return
        with files.open_directory(self.path) as root:
            files.set_access(root, files.DIRECTORY_MODE, owner)
            os.fsync(root.fd)
        with files.open_directory(above) as parent:
            os.fsync(parent.fd)

    def open(self) -> Descriptor:
        """Open the root.

        Raises:
            RepositoryMissing: it is not there, or another directory than before.
        """
        try:
            root = files.open_directory(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise oserrors.missing(self.path) from None
        found = os.fstat(root.fd)
        identity = (found.st_dev, found.st_ino)
        if self._identity is None:
            self._identity = identity
            self.owner = (found.st_uid, found.st_gid) if os.geteuid() == 0 else None
        elif self._identity != identity:
            os.close(root.fd)
            raise oserrors.replaced(self.path)
        return root

    def enter(self, directory: str) -> Descriptor:
        """Open a directory below the root; `""` is the root.

        Raises:
            FileNotFoundError: there is none.
        """
        here = self.open()
        for part in directory.split("/") if directory else ():
            with here as parent:
                here = files.enter(parent, part)
        return here

    def make(self, root: Descriptor, directory: str) -> Descriptor:
        """Open a directory, made if need be, with the way there durable."""
        here = files.Descriptor(os.dup(root.fd))
        path = ""
        for part in directory.split("/") if directory else ():
            path += part + "/"
            with here as parent:
                here = files.make(parent, part, self.owner)
                self._sync_entry(parent, here, path)
        return here

    def temporaries(self, root: Descriptor) -> Descriptor:
        """Open the directory of files that are no objects yet."""
        return files.make(root, _TEMPORARY, self.owner)

    def _sync_entry(self, parent: Descriptor, child: Descriptor, path: str) -> None:
        # Also for a directory that was there: whoever made it may not have synced it.
        if path in self._durable:
            return
        try:
            os.fsync(parent.fd)
        except BaseException:
            os.close(child.fd)
            raise
        self._durable.add(path)
