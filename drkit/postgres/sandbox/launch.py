"""Becomes a program that is cut off. Run by `confinement`, never imported by drkit.

Two processes. The outer one stays as it was started, passes signals on, and at the end
kills whatever is left of the inner one's descendants: where there is a namespace of
processes the kernel has done so already, elsewhere they come to it as to a subreaper.
The inner one gives up everything and becomes the program.

It reports by lines of JSON on a descriptor: `process`, the program's number outside;
`means`, what it is cut off by; `ended`, how many descendants were left to be killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from drkit.postgres.sandbox import kernel, landlock, namespaces, seccomp

if TYPE_CHECKING:
    from types import FrameType

_PATIENCE = 5  # seconds for a server that was asked to stop
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_BOUNDING_SET_DROP, _AMBIENT, _AMBIENT_CLEAR_ALL = 24, 47, 4
_LAST_CAPABILITY = 63
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522
_MOST_PROCESSES = 1024


def main(arguments: list[str]) -> NoReturn:
    """Do as the first argument says, an object that `confinement` writes.

    Raises:
        SystemExit: the process that wanted this is gone.
    """
    order: dict[str, Any] = json.loads(arguments[0])
    kernel.prctl(kernel.PARENT_DEATH_SIGNAL, int(signal.SIGQUIT))
    if os.getppid() != order["parent"]:
        sys.exit("sandbox: the process that wanted this is gone")
    kernel.prctl(kernel.SUBREAPER, 1)
    if order["report"] is not None:
        os.set_inheritable(order["report"], False)
    alone = namespaces.of_processes()
    alive, mine = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child == 0:
        os.close(mine)
        _become(order, alive, alone=alone)
    _report(order, {"process": child, "inside": 1 if alone else child})
    _watch(order, child)


def _watch(order: dict[str, Any], child: int) -> NoReturn:
    """Pass signals on until the program ends; end its descendants; end as it did."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        if number == signal.SIGQUIT:
            signal.alarm(_PATIENCE)

    def kill(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    status = _wait_for(child)
    for number in (*_PASSED_ON, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    _report(order, {"ended": _end_descendants()})
    if os.WIFSIGNALED(status):
        _die_by(os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _wait_for(child: int) -> int:
    while True:
        found, status = os.waitpid(-1, 0)
        if found == child:
            return status


def _end_descendants() -> int:
    """Kill children until there is none: those of a child that is dead come to us."""
    ended = 0
    while True:
        with open("/proc/thread-self/children", "rb") as file:
            children = [int(word) for word in file.read().split()]
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return ended
        ended += 1


def _die_by(number: int) -> NoReturn:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _become(order: dict[str, Any], alive: int, *, alone: bool) -> NoReturn:
    """Give everything up and become the program."""
    try:
        _confine(order, alone=alone)
        # changing who we are has cleared it, so this comes late
        kernel.prctl(kernel.PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
        if select.select([alive], [], [], 0)[0]:
            os._exit(1)  # the outer process is gone
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        _filter(order)
        argv = order["argv"]
        # there is no shell, on purpose
        os.execve(argv[0], argv, order["environment"])  # noqa: S606
    except BaseException as error:  # noqa: BLE001  nothing may go on from here
        with contextlib.suppress(OSError):
            os.write(2, f"sandbox: {error}\n".encode(errors="replace"))
        os._exit(1)


def _confine(order: dict[str, Any], *, alone: bool) -> None:
    means = [namespaces.PROCESSES] if alone else []
    means += namespaces.of_the_program() if alone or os.geteuid() == 0 else []
    allowed = _allowed(order)
    _offer_to_be_killed()
    if namespaces.MOUNTS in means and not _own_root(order):
        means.remove(namespaces.MOUNTS)
    _limit(order)
    rules = landlock.ruleset(allowed)
    _drop(order["account"])
    kernel.prctl(kernel.NO_NEW_PRIVILEGES, 1)
    if rules is not None:
        landlock.restrict(rules)
    found = {"means": means, "landlock": 0 if rules is None else landlock.version()}
    order["found"] = found


def _offer_to_be_killed() -> None:
    """Where the host's memory runs out, let this end before production does."""
    with contextlib.suppress(OSError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"1000")
        finally:
            os.close(descriptor)


def _filter(order: dict[str, Any]) -> None:
    """Put the filter of calls in force, the last of all, and tell what is in force."""
    found = order["found"]
    found["seccomp"] = seccomp.refuse_calls(connect=order["connect"])
    if not (found["seccomp"] or found["landlock"] or found["means"]):
        raise OSError(
            "this kernel has neither Landlock, nor seccomp filters that are known "
            "here, nor namespaces: a restored cluster can't be run safely"
        )
    _report(order, found)


def _allowed(order: dict[str, Any]) -> list[tuple[str, int]]:
    return [
        *((path, landlock.RUN) for path in order["programs"]),
        *((path, landlock.READ) for path in order["read"]),
        *((path, landlock.WRITE) for path in order["write"]),
        *((path, landlock.DEVICE) for path in order["devices"]),
    ]


def _own_root(order: dict[str, Any]) -> bool:
    """Have a root with nothing but what is allowed; say whether that can be."""
    flags = {
        "programs": namespaces.READ_ONLY,
        "read": namespaces.READ_ONLY_DATA,
        "write": namespaces.DATA,
        "devices": namespaces.DEVICE,
    }
    chosen = {path: flags[kind] for kind in flags for path in order[kind]}
    real, links = namespaces.resolved(chosen)
    try:
        root = namespaces.Root(order["place"])
    except OSError:
        return False
    places = {place: chosen[path] for path, place in real.items()}
    for place in sorted(places):  # what is above comes first
        root.put(place, places[place])
    for link, target in links.items():
        root.link(link, target)
    root.close()
    return True


def _limit(order: dict[str, Any]) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: order["data"],
        resource.RLIMIT_AS: order["space"],
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if order["exclusive"]:  # or it counts what that user runs elsewhere
        limits[resource.RLIMIT_NPROC] = _MOST_PROCESSES
    for limit, most in limits.items():
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))


def _drop(account: list[int] | None) -> None:
    """Become another user, and have no capability, nor any way to get one."""
    with contextlib.suppress(OSError):  # none to clear, or no right to drop any
        kernel.prctl(_AMBIENT, _AMBIENT_CLEAR_ALL)
        for capability in range(_LAST_CAPABILITY + 1):
            kernel.prctl(_BOUNDING_SET_DROP, capability)
    if account is not None:
        uid, gid = account
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    number = _CAPSET.get(os.uname().machine)
    if number is not None:
        header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
        kernel.call(number, header, bytes(24))


def _report(order: dict[str, Any], found: dict[str, Any]) -> None:
    """Write a line, at once: it is shorter than what a pipe takes whole."""
    if order["report"] is not None:
        with contextlib.suppress(OSError):
            os.write(order["report"], json.dumps(found).encode() + b"\n")
