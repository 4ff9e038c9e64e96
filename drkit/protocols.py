"""Every seam of drkit on one screen: what a driver, a provider or a fake must do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from drkit.model.copied import BackupEnd, Copied, Started
    from drkit.model.frames import FilePages, FilledFrame
    from drkit.model.log_head import KnownHead
    from drkit.model.manifest import Row
    from drkit.model.objects import ObjectInfo, WrappedKey
    from drkit.model.pagemap import Chain

    Buffer = bytes | bytearray | memoryview


class Storage(Protocol):
    """A flat, durable map from names to write-once bytes.

    Names are `/`-separated parts of `[A-Za-z0-9._-]`, none of them `.` or `..`. Methods
    may be called from several threads. Failures are `StorageError`, with `transient`
    set where the same request may succeed later; `drkit.storage.retry` repeats those.
    """

    @property
    def url(self) -> str:
        """Where the objects are, for messages; never holds a secret."""

    def put(self, name: str, data: Buffer) -> None:
        """Create `name` with exactly `data`, or change nothing.

        Returns only when the object is durable and visible whole. Two puts of one name
        never both succeed.

        Raises:
            ObjectExists: the name is taken, whatever its content.
            NoSpace: the store is full.
        """

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        """Read `length` bytes from `offset`; without a length, to the end.

        Fewer bytes than asked for are an error, never a short answer.

        Args:
            name: of the object.
            offset: where to begin.
            length: how much to read.
            limit: the most that an object of its kind is long. Where all that is left
                of it is read, a longer one is refused before any of it is.

        Raises:
            ObjectNotFound: the store answered that there is no such object.
            TooLong: the object is longer than `limit`.
        """

    def size(self, name: str) -> int:
        """Return the object's length in bytes.

        Raises:
            ObjectNotFound: the store answered that there is no such object.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose names start with `prefix`, in byte order of names.

        A listing may lack objects: presence is proof, absence is not.
        """

    def delete(self, name: str) -> None:
        """Remove `name`; a name that is not there is no error."""

    def hidden(self, prefix: str) -> Sequence[str] | None:
        """Return the names of which the store has bytes that it does not show.

        They were deleted or replaced, and could be brought back. Only names that start
        with `prefix`. None where the store keeps versions, or may, and does not let
        this user look at them; what keeps none hides nothing.
        """

    def beneath(self, name: str, length: int) -> Sequence[bytes]:
        """Return what is hidden of a name: of each version the first `length` bytes."""


class HeadMemory(Protocol):
    """What a host has seen of one log, kept outside of the repository.

    A store that was put back to an older state looks whole; only who remembers can
    tell. No method fails: `problem` says what is wrong.
    """

    @property
    def problem(self) -> str | None:
        """Why nothing can be remembered, or why what is there is not believed."""

    def recall(self) -> KnownHead | None:
        """Return the newest head that was seen; None if none is known."""

    def remember(self, seen: KnownHead) -> None:
        """Keep a head, unless a newer one is known."""

    def replace(self, seen: KnownHead) -> None:
        """Keep a head in place of what is known: a person has said so."""


class ServerSession(Protocol):
    """A session with the server, used for one statement after the other.

    All methods but `alive` and `end` raise PostgresUnreachable where the session is
    lost, and PostgresRefused where the server answers with an error.
    """

    def version(self) -> int:
        """Return the server's version, as in 160004."""

    def query(
        self, statement: str, parameters: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows; parameters are `%s`."""

    def send(self, statement: str, parameters: tuple[str, ...]) -> None:
        """Send a statement, and don't wait; until `received` it takes no other.

        Args:
            statement: of one row with one column; parameters are `$1` and so on.
        """

    def received(self) -> str:
        """Wait for the answer to what was sent; return its text."""

    def alive(self) -> bool:
        """Say whether the session is still there; cheap."""

    def end(self) -> None:
        """Close the session; what it still waits for is cancelled first."""


class KeyProvider(Protocol):
    """Wraps data-encrypting keys for one purpose; the KEK itself never leaves it."""

    @property
    def kek_id(self) -> str:
        """Name the key-encrypting key, as stored beside what it wrapped."""

    def wrap(self, dek: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte DEK, bound to `context`."""

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the DEK.

        Raises:
            KeyUnavailable: wrapped by another KEK, for another context, or changed.
        """


class Clock(Protocol):
    """Time, injected, so that tests can bend it."""

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC, with its zone."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards; only differences mean something."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Progress(Protocol):
    """What a long operation tells whoever watches: a bar, a log, or nobody."""

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin a phase; `total` is in bytes where it is known."""

    def advance(self, count: int) -> None:
        """Count `count` more bytes of this phase; called from several threads."""

    def event(self, name: str, **fields: object) -> None:
        """Tell a fact worth a log line."""

    def warning(self, message: str, **fields: object) -> None:
        """Tell what a person must read, though the work goes on."""


class ContentWriter(Protocol):
    """Where a base backup source puts the bytes it reads; used by one thread."""

    def space(self, unit: int) -> memoryview:
        """Return where the next bytes may be read to: at least `unit` of them."""

    def took(self, file: int, position: int, length: int) -> None:
        """Keep the first `length` bytes of the last `space` as file `file`'s content.

        Args:
            file: a number that the source chose for it.
            position: where in the file the bytes stood.
        """

    def took_all(self, file: int, parts: Sequence[tuple[int, int]]) -> None:
        """Keep stretches that follow each other in the last `space`.

        Args:
            parts: where in the file each stood, and its length, a multiple of 16.
        """

    def add(self, file: int, position: int, data: Buffer) -> None:
        """Keep bytes that are in memory already."""

    def read_pages(self, pages: Sequence[FilePages], *, verify: bool) -> bool:
        """Read pages and keep them, if a `PageFramer` serves this writer.

        Returns False if none does or it did not: the caller reads them then.
        """


class PageFramer(Protocol):
    """Reads pages and fills a frame with them; used by one thread."""

    def frame(self, pages: Sequence[FilePages], *, verify: bool) -> FilledFrame | None:
        """Return a frame with all of these pages.

        None if there is anything unusual about them, such as a file that has gone or
        was cut, a page that fails its checksum, a disk that can't be read: whoever
        knows what that means looks himself.

        Args:
            pages: at most PAGES_AT_ONCE of them.
            verify: whether their checksums are.
        """


class ParentContent(Protocol):
    """The backup that an incremental is compared with; used by several threads."""

    @property
    def chain(self) -> Chain:
        """Its files, and where the bytes of single ones are stored."""

    def unchanged(self, piece: Row, data: Buffer) -> bool:
        """Say whether `data` is what a whole piece of the page map holds.

        Told by the piece's keyed digest, so nothing is fetched; False also where the
        digest is of more than the piece.
        """

    def read(self, number: int, position: int, length: int) -> bytes:
        """Fetch stored bytes of a file; zeros where the backup has none.

        Raises:
            Corrupt: what holds them is missing or damaged.
        """

    def damaged(self, number: int) -> Sequence[tuple[int, int]]:
        """Return the stretches of a file, (start, end), that are known to be lost."""


class BaseBackupSource(Protocol):
    """A running cluster that a backup is read from: begin, start, copy, stop."""

    def begin(self, label: str) -> None:
        """Ask the server to begin a backup, and don't wait until it has.

        A checkpoint takes it a moment, or minutes; until `start` the caller can do
        other things. Parents that end later than it are refused there.
        """

    def start(self, parent: ParentContent | None) -> Started:
        """Return where the backup that was begun starts, and recovery of it with it.

        Args:
            parent: what an incremental leaves out where it has not changed. A source
                that can't tell what changed since begins a full one, and says why.
        """

    def copy(self, writers: Sequence[ContentWriter], progress: Progress) -> Copied:
        """Read what is to be stored into the writers, one thread each."""

    def stop(self) -> BackupEnd:
        """End the backup on the server; recovery must reach the position returned."""

    def close(self) -> None:
        """Let go of the server; without a `stop` before, the backup is given up."""
