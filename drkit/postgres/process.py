"""The one runner of other programs, and how they become another user.

Arguments are always lists, the environment is always given in full, and nothing secret
belongs in either the arguments (any user sees them in `ps`) or in messages.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from drkit.errors import DrkitError, PostgresRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_ENVIRONMENT = {"PATH": DEFAULT_PATH, "LC_ALL": "C"}

_TAIL_LINES = 12
_TAIL_BYTES = 4000


class Account(NamedTuple):
    """An operating-system user, as a child process needs to know it."""

    name: str
    uid: int
    gid: int


class Identity(NamedTuple):
    """How a child process gets the identity it runs under.

    Attributes:
        prefix: words that go before the command's own.
        account: whom `subprocess` itself switches to before it executes the command.
    """

    prefix: tuple[str, ...] = ()
    account: Account | None = None

    def popen_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `subprocess.Popen` that switch the user."""
        if self.account is None:
            return {}
        return {
            "user": self.account.uid,
            "group": self.account.gid,
            "extra_groups": [],
        }


SAME_USER = Identity()


class Completed(NamedTuple):
    """A finished command; output as bytes, since file names need not be UTF-8."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str],
    *,
    identity: Identity = SAME_USER,
    env: Mapping[str, str] = DEFAULT_ENVIRONMENT,
    stdin: bytes = b"",
    timeout: float | None = None,
    cwd: str | None = None,
    raising: type[DrkitError] | None = DrkitError,
    name: str = "",
) -> Completed:
    """Run a command to its end.

    Args:
        argv: the program and its arguments; never a secret among them.
        name: of the program for messages; by default the first of `argv`.
        identity: whom to run it as, from `drop_to`.
        env: the whole environment of the command.
        stdin: what it reads from its standard input.
        timeout: seconds; then the command's process group is killed.
        cwd: its working directory; by default `/`, which every user may enter.
        raising: the error for a failure; None returns failures to the caller.

    Raises:
        DrkitError: the command can't be executed, ran too long, or (as `raising`)
            failed; the message holds the end of its standard error.
    """
    failure, name = raising or DrkitError, os.path.basename(name or argv[0])
    process = spawn(argv, identity=identity, env=env, cwd=cwd)
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except BaseException as error:
            kill_group(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _timed_out(name, timeout, process, failure) from None
            raise
    done = Completed(tuple(argv), process.returncode, stdout, stderr)
    if raising is not None and done.returncode != 0:
        raise raising(f"{name} {_ending(done.returncode)}{tail(stderr)}")
    return done


def spawn(
    argv: Sequence[str],
    *,
    identity: Identity = SAME_USER,
    env: Mapping[str, str] = DEFAULT_ENVIRONMENT,
    cwd: str | None = None,
    output: int = subprocess.PIPE,
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own and return at once.

    Args:
        argv: the program and its arguments; never a secret among them.
        identity: whom to run it as, from `drop_to`.
        env: the whole environment of the command.
        cwd: its working directory; by default `/`.
        output: a file descriptor for both its outputs; by default two pipes, and a
            third one to its standard input.
        keep: other file descriptors that it inherits.

    Raises:
        DrkitError: the program can't be executed.
    """
    piped = output == subprocess.PIPE
    try:
        return subprocess.Popen(
            [*identity.prefix, *argv],
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=output,
            stderr=output if piped else subprocess.STDOUT,
            env=dict(env),
            cwd=cwd or "/",
            start_new_session=True,
            pass_fds=tuple(keep),
            **identity.popen_options(),
        )
    except OSError as error:
        raise DrkitError(
            f"cannot run {argv[0]}: {error.strerror}",
            hint="check that the program is installed and may be executed",
        ) from error


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and whatever it started in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def tail(output: bytes) -> str:
    """Return the last lines of a program's output, set off for use in a message."""
    text = output[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
    if not text:
        return ""
    return ":\n  " + "\n  ".join(text.splitlines()[-_TAIL_LINES:])


def current_account() -> Account:
    """Return the account this process runs under."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under a number that has no entry
        name = str(uid)
    return Account(name, uid, os.getegid())


def find_account(name: str) -> Account:
    """Look up an account by name.

    Raises:
        DrkitError: there is no such account.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise DrkitError(f"there is no operating-system user {name!r}") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def server_account() -> Account:
    """Return whom a PostgreSQL server can run as: it refuses to run as root.

    Raises:
        DrkitError: this is root, and there is neither `postgres` nor `nobody`.
    """
    if os.geteuid() != 0:
        return current_account()
    for name in ("postgres", "nobody"):
        with contextlib.suppress(DrkitError):
            return find_account(name)
    raise DrkitError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody",
        hint="create a user for the server, or run drkit as an ordinary user",
    )


def drop_to(account: Account, reach: Iterable[str] = ()) -> Identity:
    """Return how a child of this process runs as `account`.

    Args:
        account: whom to become; the account of this process changes nothing.
        reach: programs and files that the child must be able to read. When root has
            them where `account` can't go (root's own home, say), the child also gets
            the right to read every file.

    That right, the capability `dac_read_search`, goes on to what the child starts, so
    that a server can run an `archive_command` out of root's home. It is for throw-away
    servers of drkit's own data only: what somebody else's data runs in, such as a
    scratch instance, is started by `drkit.postgres.sandbox` and has no capability.

    Raises:
        PostgresRefused: this process is neither root nor `account`.
    """
    if account.uid == os.geteuid():
        return SAME_USER
    if os.geteuid() != 0:
        raise PostgresRefused(
            f"only root can run a program as user {account.name}",
            hint=f"run drkit as {account.name} or as root",
        )
    if all(_can_read(account, path) for path in reach):
        return Identity(account=account)
    capability = "+dac_read_search"
    return Identity(
        prefix=(
            "setpriv",
            f"--reuid={account.uid}",
            f"--regid={account.gid}",
            "--clear-groups",
            f"--inh-caps={capability}",
            f"--ambient-caps={capability}",
        )
    )


@lru_cache(maxsize=64)
def _can_read(account: Account, path: str) -> bool:
    """Ask the kernel, as that user: access lists and mounts count as well as modes."""
    flag = "-x" if os.access(path, os.X_OK) else "-r"
    probe = ["test", flag, path]
    return run(probe, identity=Identity(account=account), raising=None).returncode == 0


def _timed_out(
    name: str,
    timeout: float | None,
    process: subprocess.Popen[bytes],
    failure: type[DrkitError],
) -> DrkitError:
    _, stderr = process.communicate()
    return failure(f"{name} did not end within {timeout:g} s{tail(stderr)}")


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"failed with exit code {returncode}"
