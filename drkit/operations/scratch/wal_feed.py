"""WAL for a scratch instance, handed in from outside.

The restored cluster runs whatever its catalogs and WAL say, so nothing that opens the
repository may be where it runs: no key, no policy, no drkit. Its `restore_command` is a
line of shell that writes a name into one FIFO, reads the answer from another, and
copies a file. A thread out here fetches what is asked for, and what comes next.

    restore_command              wanted               drkit
    000000010000000000000005  ─────────────▶  fetches, puts the file into the directory
    cp …/0000…05 pg_wal/…     ◀─────────────  000000010000000000000005 here
                                 answers

Everything that comes out is hostile: a name counts only as the name of a WAL file, and
files are made new in a directory that is held open, so that no link leads elsewhere.
Both FIFOs are open here for reading and writing: nobody waits for the other to open
them, and nothing that the server does can block this process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, NotFound, StorageError
from drkit.model.wal import WalFileKind, WalFileName, parse_segment
from drkit.ownership import acting_as
from drkit.postgres.private_directory import owner_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from drkit.postgres.process import Account

    Fetch = Callable[[str], bytes]

_WANTED, _ANSWERS = "wanted", "answers"
_HERE, _ABSENT, _FAILED = "here", "absent", "failed"
_LONGEST = 64  # bytes of a name: none is longer than a backup history file's 40
_READ_AT_ONCE = 4096
_AHEAD_FILES, _AHEAD_BYTES = 3, 64 << 20  # what is fetched before it is asked for
_LOOK_EVERY = 0.1  # seconds between looks whether the feed was closed
_COMMAND = (
    "echo %f >{wanted}; while read -r name answer; do "
    'if [ "$name" = %f ]; then case $answer in '
    "here) cp {directory}/%f %p && exit 0; exit 255;; absent) exit 1;; *) exit 255;; "
    "esac; fi; done <{answers}; exit 255"
)


def feeding_command(directory: str) -> str:
    """Return the `restore_command` that is fed through a directory.

    It ends with 1 only where the file is proven not to be archived: PostgreSQL takes
    that for the end of WAL. Everything else is 255, which ends the recovery.
    """
    wanted, answers, place = (
        shlex.quote(path).replace("%", "%%")
        for path in (asking_place(directory), f"{directory}/{_ANSWERS}", directory)
    )
    return _COMMAND.format(wanted=wanted, answers=answers, directory=place)


def asking_place(directory: str) -> str:
    """Return the one place that the `restore_command` writes to."""
    return f"{directory}/{_WANTED}"


class WalFeed:
    """Answers the `restore_command` of one recovery; a context manager.

    Args:
        directory: is made; one that the server can read. At most one file lies in it.
        account: whose server asks.
        fetch: returns the content of a WAL file by its name; NotFound where it is
            proven not to be archived. Called on several threads.
        segment_size: of the cluster, in bytes.

    Attributes:
        error: the first that a file could not be fetched for, None if there was none.
    """

    def __init__(
        self, directory: str, account: Account, fetch: Fetch, segment_size: int
    ) -> None:
        self.error: DrkitError | None = None
        self._fetch = fetch
        self._account = account
        self._segment_size = segment_size
        self._closed = threading.Event()
        self._coming: dict[str, Future[bytes]] = {}
        self._handed = ""
        self._descriptors = contextlib.ExitStack()
        with acting_as(owner_for(account)):  # whose the place is that it lies in
            self._open(directory)
        self._thread = threading.Thread(target=self._serve, name="wal-feed")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop answering, and take back what was not fetched from the directory.

        What is still being fetched is not waited for.
        """
        self._closed.set()
        self._thread.join()
        self._take_back()
        self._descriptors.close()

    def _open(self, directory: str) -> None:
        os.mkdir(directory, 0o755)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory = self._keep(os.open(directory, flags))
        self._wanted = self._keep(self._fifo(_WANTED))
        self._answers = self._keep(self._fifo(_ANSWERS))

    def _keep(self, descriptor: int) -> int:
        self._descriptors.callback(os.close, descriptor)
        return descriptor

    def _fifo(self, name: str) -> int:
        os.mkfifo(name, 0o600, dir_fd=self._directory)
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=self._directory)

    def _give(self, descriptor: int) -> None:
        if self._account.uid != os.geteuid():
            os.fchown(descriptor, self._account.uid, self._account.gid)

    def _serve(self) -> None:
        """Answer line by line; what is longer than a name can be is dropped."""
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wanted, selectors.EVENT_READ)
            while not self._closed.is_set():
                if not selector.select(_LOOK_EVERY):
                    continue
                with contextlib.suppress(BlockingIOError):
                    rest += os.read(self._wanted, _READ_AT_ONCE)
                *lines, rest = rest.split(b"\n")
                rest = rest[:_LONGEST]
                for line in lines:
                    self._answer(line)

    def _answer(self, line: bytes) -> None:
        try:
            file = WalFileName.parse(line.decode("ascii"))
        except ValueError:
            return  # no server asks for that
        try:
            content = self._content(file.name)
            if content is None:
                return
            self._hand_in(file.name, content)
            answer = _HERE
        except NotFound:
            answer = _ABSENT
        except Exception as error:  # noqa: BLE001  without an answer recovery waits
            self.error = self.error or _told(file.name, error)
            answer = _FAILED
        with contextlib.suppress(BlockingIOError):  # full of what nobody reads
            os.write(self._answers, f"{file.name} {answer}\n".encode())
        if answer == _HERE and file.kind is WalFileKind.SEGMENT:
            self._fetch_ahead(file.name)

    def _content(self, name: str) -> bytes | None:
        """Return a file's content; None where the feed is closed meanwhile."""
        coming = self._coming.pop(name, None) or self._start(name)
        while not self._closed.is_set():
            with contextlib.suppress(TimeoutError):
                return coming.result(_LOOK_EVERY)
        return None

    def _start(self, name: str) -> Future[bytes]:
        """Fetch on a thread of its own, which ends with this process at the latest."""
        coming: Future[bytes] = Future()

        def work() -> None:
            try:
                coming.set_result(self._fetch(name))
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                coming.set_exception(error)

        threading.Thread(target=work, name=f"wal {name}", daemon=True).start()
        return coming

    def _fetch_ahead(self, name: str) -> None:
        """Fetch the segments that recovery asks for next, and forget all others.

        One that was not there when it was fetched ahead is looked for again.
        """
        wanted: list[str] = []
        with contextlib.suppress(ValueError):
            segment = parse_segment(name, self._segment_size)
            for _ in range(min(_AHEAD_FILES, _AHEAD_BYTES // self._segment_size)):
                segment = segment.next()
                wanted.append(segment.name(self._segment_size))
        self._coming = {
            one: coming
            for one, coming in self._coming.items()
            if one in wanted and not (coming.done() and coming.exception())
        }
        for one in wanted:
            if one not in self._coming:
                self._coming[one] = self._start(one)

    def _hand_in(self, name: str, content: bytes) -> None:
        """Put a file into the directory; the one before was copied, or never will be.

        Raises:
            StorageError: it can't be written.
        """
        self._take_back()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, 0o600, dir_fd=self._directory)
            with open(descriptor, "wb", buffering=0) as file:
                self._handed = name
                self._give(descriptor)
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise StorageError(
                f"cannot hand {name} to the scratch instance: {error.strerror}",
                hint="free some room where verification.directory lies",
            ) from error

    def _take_back(self) -> None:
        if self._handed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._handed, dir_fd=self._directory)
        self._handed = ""


def _told(name: str, error: Exception) -> DrkitError:
    if isinstance(error, DrkitError):
        return error
    return DrkitError(f"WAL file {name} can't be fetched: {error!r}")
