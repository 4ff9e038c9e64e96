"""A directory as a store: one file per object, created once and whole.

A put writes a temporary file under `+tmp/`, fsyncs it, shows it under its name with
link(2), which never overwrites, and fsyncs the directory. `+` is in no object's name,
so nothing below `+tmp/` is ever an object; what a killed process leaves there is
swept by `sweep_temporary`.
"""

from __future__ import annotations

import os
import stat

from drkit.errors import ObjectExists, ObjectNotFound, StorageError
from drkit.storage import files, oserrors
from drkit.storage.names import check_length, check_name, check_prefix, check_range
from drkit.storage.root import Root
from drkit.writing import write_all

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.objects import ObjectInfo
    from drkit.protocols import Buffer
    from drkit.storage.files import Descriptor, Owner


class LocalStorage:
    """Objects as files below `root`; see `drkit.protocols.Storage`.

    The root must exist: a missing one is `RepositoryMissing`, never a missing object,
    so that an unmounted disk doesn't look like an empty repository. The empty
    directory that a disk is mounted on does exist: a caller that must tell the two
    apart reads an object that is always there.

    A name that is a directory of other objects is no object itself. Files are 0640
    and directories 0750 whatever the umask; what root writes is given to the owner of
    the root directory, who would otherwise be locked out.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Root(os.path.abspath(os.fspath(root)))

    @classmethod
    def create(
        cls, root: str | os.PathLike[str], owner: Owner | None = None
    ) -> LocalStorage:
        """Make the root directory, and what lies above it, if they are not there.

        Args:
            owner: uid and gid to give a new root to; only root can.
        """
        storage = cls(root)
        try:
            storage._root.create(owner)
        except OSError as error:
            raise storage._explain(error, "making the directory") from error
        return storage

    @property
    def url(self) -> str:
        """The root's address."""
        return f"file://{self._root.path}"

    def put(self, name: str, data: Buffer) -> None:
        """Create `name`; when it is taken, what is there is durable."""
        check_name(name)
        try:
            with self._root.open() as root, self._root.temporaries(root) as aside:
                self._put(root, aside, name, data)
        except FileExistsError as error:
            raise ObjectExists(
                f"object {name} exists already in {self._root.path}"
            ) from error
        except OSError as error:
            raise self._explain(error, f"writing object {name}") from error

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        """Read a range."""
        check_name(name)
        check_range(name, offset, length)
        directory, _, base = name.rpartition("/")
        try:
            with (
                self._root.enter(directory) as parent,
                files.open_file(parent, base) as file,
            ):
                return self._read(file, name, offset, length, limit)
        except FileNotFoundError:
            raise self._not_found(name) from None
        except OSError as error:
            raise self._explain(error, f"reading object {name}", True) from error

    def size(self, name: str) -> int:
        """Return the length in bytes."""
        check_name(name)
        directory, _, base = name.rpartition("/")
        try:
            with self._root.enter(directory) as parent:
                return self._size(files.status(parent, base), name)
        except FileNotFoundError:
            raise self._not_found(name) from None
        except OSError as error:
            raise self._explain(error, f"looking at object {name}", True) from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects; other things that lie about, such as `lost+found`, are not."""
        check_prefix(prefix)
        return self._list(prefix)

    def delete(self, name: str) -> None:
        """Remove `name` durably; empty directories stay."""
        check_name(name)
        directory, _, base = name.rpartition("/")
        try:
            with self._root.enter(directory) as parent:
                files.remove(parent, base)
                # Also if it was not there: who removed it may not have come this far.
                os.fsync(parent.fd)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._explain(error, f"deleting object {name}") from error

    def hidden(self, prefix: str) -> Sequence[str]:
        """Hide nothing: a file system keeps one version."""
        check_prefix(prefix)
        return []

    def beneath(self, name: str, length: int) -> Sequence[bytes]:  # noqa: ARG002
        """Hide nothing."""
        check_name(name)
        return []

    def sweep_temporary(self, older_than_seconds: float) -> int:
        """Remove what killed puts left; return how many files that were.

        Ages are by the file system's own clock. A put that takes longer than
        `older_than_seconds` fails when its file is swept, so give it a day.
        """
        try:
            with self._root.open() as root, self._root.temporaries(root) as aside:
                return files.sweep(aside, older_than_seconds)
        except OSError as error:
            raise self._explain(error, "sweeping temporary files") from error

    def _put(
        self, root: Descriptor, aside: Descriptor, name: str, data: Buffer
    ) -> None:
        directory, _, base = name.rpartition("/")
        temporary = files.temporary_name()
        try:
            with files.create(aside, temporary, self._root.owner) as file:
                write_all(file.fd, data)
                os.fsync(file.fd)
            with self._root.make(root, directory) as parent:
                try:
                    files.place(aside, temporary, parent, base)
                finally:
                    # Also if the name is taken: whoever created it may not have come
                    # this far, and our caller takes "exists" for "is durable".
                    os.fsync(parent.fd)
        finally:
            files.discard(aside, temporary)

    def _read(
        self,
        file: Descriptor,
        name: str,
        offset: int,
        length: int | None,
        limit: int | None,
    ) -> bytes:
        size = self._size(os.fstat(file.fd), name)
        if length is None:
            check_length(name, self._root.path, size, limit)
        wanted = max(size - offset, 0) if length is None else length
        if offset + wanted > size:
            raise StorageError(
                f"object {name} in {self._root.path} has {size} bytes; bytes {offset}"
                f" to {offset + wanted} were asked for",
                hint="the object is truncated, or not the one that was meant",
            )
        data = files.read_up_to(file, offset, wanted)
        if len(data) != wanted:
            raise StorageError(
                f"object {name} in {self._root.path} ended"
                f" {wanted - len(data)} bytes early"
            )
        return data

    def _size(self, found: os.stat_result, name: str) -> int:
        if stat.S_ISDIR(found.st_mode):
            raise self._not_found(name)
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(
                f"object {name} in {self._root.path} is not a regular file",
                hint="drkit did not put it there; look at it with ls -l",
            )
        return found.st_size

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        from drkit.storage.listing import walk  # noqa: PLC0415 - imports typing

        directory, _, start = prefix.rpartition("/")
        try:
            top = self._root.enter(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._explain(error, f"listing {prefix}*", True) from error
        try:
            with top:
                yield from walk(top, f"{directory}/" if directory else "", start)
        except OSError as error:
            raise self._explain(error, f"listing {prefix}*", True) from error

    def _not_found(self, name: str) -> ObjectNotFound:
        return ObjectNotFound(f"there is no object {name} in {self._root.path}")

    def _explain(self, error: OSError, doing: str, reading: bool = False) -> Exception:
        return oserrors.explain(error, doing, self._root.path, reading=reading)
