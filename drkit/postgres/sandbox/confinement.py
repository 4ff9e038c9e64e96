"""Starting programs of a restored cluster's so that they reach nothing else.

What they are given is a list: the server's programs and libraries, to be read and run;
the private directory, to be read; some directories in it, to be written. No secret is
among it, and none in the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import sys
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import drkit
from drkit.postgres import process
from drkit.postgres.process import Account
from drkit.postgres.running import processes_of
from drkit.postgres.sandbox import landlock

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from drkit.errors import DrkitError
    from drkit.postgres.binaries import ServerBinaries
    from drkit.postgres.process import Completed

_LAUNCH = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from drkit.postgres.sandbox.launch import main; main(sys.argv[2:])"
)
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_OF_THE_RESTORE_COMMAND = ("/bin/sh", "/bin/cp")
_TO_READ = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share",
    "/var/cache/postgresql",  # Debian's dictionaries
)
_BARE = {"PATH": process.DEFAULT_PATH, "LC_ALL": "C"}
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/zero")
_OF_A_SERVER = ("lib", "lib64", "share")
_PROGRAMS = ("postgres", "psql", "pg_dump")
_LOADED = re.compile(r" => (/.+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_UNUSED = range(0x60000000, 0x7F000000)  # users of none: above those of containers
_SPACE = 1 << 30  # bytes of programs, libraries and locales that are mapped
_LONGEST_REPORT = 1 << 16
_PATIENCE, _POLL = 5.0, 0.01  # seconds
_NAMESPACES = ("mount", "PID", "network", "IPC")
_WITHOUT_NAMESPACE = {
    "mount": "without a file system of its own, the scratch instance could see the "
    "names and the sizes of files, and connect to sockets where seccomp lets it",
    "PID": "without a namespace of processes, what a scratch instance starts is ended "
    "as its descendants, and its signals are kept in by Landlock alone",
    "network": "without a network namespace, sockets of other families than unix are "
    "refused by seccomp alone",
    "IPC": "without an IPC namespace, the scratch instance could reach the System V "
    "shared memory of its user's other programs",
}
_NO_LANDLOCK = (
    "this kernel has no Landlock: what the scratch instance may read and write is "
    "decided by its namespaces alone"
)
_NOTHING_HOLDS_FILES = (
    "this kernel has no Landlock and lets no namespace be made: CREATE TABLESPACE is "
    "stopped in the scratch instance, but it could read and write whatever its user can"
)
_NO_SECCOMP = (
    "this kernel has no seccomp filter that is known here: the scratch instance could "
    "change modes and owners of its user's files, and open sockets"
)
_SAME_USER = (
    "the scratch instance runs as {user}, as other programs do: root alone can give it "
    "a user of its own"
)


class Report(NamedTuple):
    """What a confined program's launcher has told.

    Attributes:
        process: the program's number here; `inside` is what it takes for its own.
        landlock: the version in force, 0 for none.
        namespaces: of which kinds it has its own.
        ended: descendants that had to be killed at the end; None: not told, so that
            it is not known whether any are left.
    """

    process: int = 0
    inside: int = 0
    landlock: int = 0
    seccomp: bool = False
    namespaces: tuple[str, ...] = ()
    ended: int | None = None

    @property
    def told(self) -> bool:
        """Whether it is known what is in force."""
        return bool(self.landlock or self.seccomp or self.namespaces)

    @property
    def sealed(self) -> bool:
        """Whether the kernel itself ends all descendants with the first process."""
        return "PID" in self.namespaces


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a program is given, and nothing else.

    Attributes:
        binaries: whose programs and libraries may be run.
        account: whom it runs as.
        directory: the private one, readable.
        writable: directories in it, and FIFOs; those that there are.
        memory: bytes of private memory for a process.
        shared: bytes of shared memory that it maps on top.
        connect: whether it may connect to the sockets that it sees.
    """

    binaries: ServerBinaries
    account: Account
    directory: str
    writable: tuple[str, ...]
    memory: int
    shared: int = 0
    connect: bool = False

    @property
    def as_a_client(self) -> Confinement:
        """The same for a program that asks the server and writes nothing."""
        return replace(self, writable=(), connect=True)

    def start(self, argv: Sequence[str], output: int) -> Confined:
        """Start a program and return at once; it ends when this thread does.

        Raises:
            DrkitError: it can't be started.
        """
        reports, told = os.pipe()
        try:
            started = process.spawn(
                self._command(argv, told), env=_BARE, output=output, keep=(told,)
            )
        except BaseException:
            os.close(reports)
            raise
        finally:
            os.close(told)
        return Confined(started, reports)

    def run(
        self,
        argv: Sequence[str],
        timeout: float | None,
        raising: type[DrkitError] | None,
    ) -> Completed:
        """Run a program to its end.

        Raises:
            DrkitError: as `process.run`.
        """
        command = self._command(argv, None)
        return process.run(
            command, env=_BARE, timeout=timeout, raising=raising, name=argv[0]
        )

    def lacking(self, report: Report) -> list[str]:
        """Say what this kernel can't do, or this user may not, a sentence each."""
        held = bool(report.landlock) or "mount" in report.namespaces
        told = [] if held else [_NOTHING_HOLDS_FILES]
        if held and not report.landlock:
            told.append(_NO_LANDLOCK)
        elif 0 < report.landlock < landlock.SCOPES_SINCE:
            told.append(
                f"this kernel's Landlock has version {report.landlock}; from version "
                f"{landlock.SCOPES_SINCE} on it also keeps signals in"
            )
        if not report.seccomp:
            told.append(_NO_SECCOMP)
        told += (
            _WITHOUT_NAMESPACE[name]
            for name in _NAMESPACES
            if name not in report.namespaces
        )
        if not self._exclusive:
            told.append(_SAME_USER.format(user=self.account.name))
        return told

    def means(self, report: Report) -> str:
        """Say in a sentence what the program is cut off by."""
        told = [f"Landlock (version {report.landlock})"] if report.landlock else []
        told += ["a seccomp filter"] if report.seccomp else []
        if report.namespaces:
            told.append(f"namespaces ({', '.join(report.namespaces)})")
        who = self.account.name
        told.append(f"user {who} of its own" if self._exclusive else f"user {who}")
        return f"the scratch instance was cut off by {', '.join(told)}"

    def what_is_left(self, report: Report) -> str:
        """Say which process is left of a program that has ended; empty if none is.

        By the word of its launcher, which saw them all end, or of the kernel; and by
        that of `/proc` where the user is its own.
        """
        if report.process and report.ended is None:
            if not report.sealed:
                return "its launcher was killed, so processes of it may be left"
            if not _ends(report.process):
                return f"process {report.process} of it still runs"
        running = processes_of(self.account.uid) if self._exclusive else []
        return f"process {running[0]} of it still runs" if running else ""

    @property
    def _exclusive(self) -> bool:
        return self.account.uid in _UNUSED

    def _command(self, argv: Sequence[str], report: int | None) -> list[str]:
        other = self.account.uid != os.geteuid()
        programs = _programs(self.binaries.directory)
        order = {
            "parent": os.getpid(),
            "report": report,
            "place": self.directory,
            "programs": [*_LIBRARIES, *_OF_THE_RESTORE_COMMAND, *programs],
            "read": [*_TO_READ, self.directory],
            "write": [path for path in self.writable if os.path.exists(path)],
            "devices": list(_DEVICES),
            "account": [self.account.uid, self.account.gid] if other else None,
            "exclusive": self._exclusive,
            "data": self.memory,
            "space": self.memory + self.shared + _SPACE,
            "connect": self.connect,
            "environment": _environment(self.binaries.directory),
            "argv": list(argv),
        }
        above = os.path.dirname(*drkit.__path__)
        launch = [sys.executable, "-I", "-S", "-B", "-c", _LAUNCH, above]
        return [*launch, json.dumps(order)]


class Confined:
    """A program that runs confined.

    Attributes:
        outer: its launcher, which ends as the program does.
    """

    def __init__(self, outer: subprocess.Popen[bytes], reports: int) -> None:
        self.outer = outer
        self._reports: int | None = reports
        self._told = b""
        os.set_blocking(reports, False)

    @property
    def report(self) -> Report:
        """What was told up to now."""
        with contextlib.suppress(BlockingIOError):
            while self._reports is not None and len(self._told) < _LONGEST_REPORT:
                more = os.read(self._reports, _LONGEST_REPORT)
                self._told += more
                if not more:  # the launcher has ended
                    os.close(self._reports)
                    self._reports = None
        found: dict[str, Any] = {}
        for line in self._told.split(b"\n")[:-1]:
            found |= json.loads(line)
        return Report(
            process=found.get("process", 0),
            inside=found.get("inside", 0),
            landlock=found.get("landlock", 0),
            seccomp=found.get("seccomp", False),
            namespaces=tuple(found.get("means", ())),
            ended=found.get("ended"),
        )


def own_account(fallback: Account) -> Account:
    """Return a user whom nobody else is, for root to run a program as.

    Args:
        fallback: whom to take where this is not root, or root of a container that
            knows no such users.
    """
    if os.geteuid() != 0 or not _is_mapped(_UNUSED[-1]):
        return fallback
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    while True:
        uid = _UNUSED[int.from_bytes(os.urandom(4), "little") % len(_UNUSED)]
        if uid not in taken:
            return Account(str(uid), uid, uid)


def _ends(number: int) -> bool:
    """Wait for a process to be gone, for a moment."""
    deadline = time.monotonic() + _PATIENCE
    while os.path.exists(f"/proc/{number}"):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _is_mapped(uid: int) -> bool:
    """Say whether a user exists in this process's user namespace."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        ranges = [[int(word) for word in line.split()] for line in file]
    return any(first <= uid < first + count for first, _, count in ranges)


def _environment(directory: str) -> dict[str, str]:
    """Return the whole environment of a confined program.

    Libraries that programs name relative to their own place are not found that way
    inside, since the linker asks `/proc` for that place.
    """
    places = ":".join(_programs(directory))
    return _BARE | ({"LD_LIBRARY_PATH": places} if places else {})


@lru_cache(maxsize=16)
def _programs(directory: str) -> tuple[str, ...]:
    """Return where a server's programs are, and libraries not of the system's."""
    above = os.path.dirname(directory)
    places = [directory, *(os.path.join(above, name) for name in _OF_A_SERVER)]
    for name in _PROGRAMS:
        places += _libraries(os.path.join(directory, name))
    system = tuple(f"{path}/" for path in _LIBRARIES)
    return tuple(
        path for path in dict.fromkeys(places) if not f"{path}/".startswith(system)
    )


def _libraries(program: str) -> list[str]:
    """Ask the dynamic linker where it finds a program's libraries, as `ldd` does."""
    environment = _BARE | {"LD_TRACE_LOADED_OBJECTS": "1"}
    if not os.path.exists(program):
        return []
    done = process.run([program, "--version"], env=environment, raising=None)
    found = _LOADED.findall(done.stdout.decode("utf-8", "surrogateescape"))
    return [os.path.normpath(os.path.dirname(path)) for path in found]
