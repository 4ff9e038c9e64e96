"""Everything that a program inside could try; run there, imports nothing of drkit.

    python attempts.py INSIDE OUTSIDE PRIVATE VICTIM

Prints what failed, by name, with its error number. Files of the same names lie in both
directories, and belong to the user who runs this, so that nothing fails for other
reasons than the confinement.
"""

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import struct
import sys

inside, outside, private, victim = *sys.argv[1:4], int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
failed = {}


def attempt(name, what, *arguments):
    try:
        what(*arguments)
    except (OSError, ValueError) as error:
        failed[name] = getattr(error, "errno", 0)


def write(path, mode="w"):
    with open(path, mode) as file:
        file.write("x")


def read(path):
    with open(path) as file:
        file.read()


def call(name, *arguments):
    function = getattr(libc, name)
    if function(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def number(which, *arguments):
    call("syscall", ctypes.c_long(which), *arguments)


def connect(path):
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)


def send(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", path)


def send_message(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendmsg([b"x"], [], 0, path)


def listen(address):
    with socket.create_server((address, 0)):
        pass


def run(path):
    child = os.fork()
    if child == 0:
        try:
            os.execv(path, [path])
        except OSError as error:
            os._exit(error.errno)
    status = os.waitpid(child, 0)[1]
    if status:
        raise OSError(os.WEXITSTATUS(status), "not run")


def shared(size):
    which = libc.shmget(0, ctypes.c_size_t(size), 0o600 | 0o1000)
    if which < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    libc.shmctl(which, 0, None)


def shared_of_others():
    which = libc.shmget(victim, ctypes.c_size_t(0), 0)
    if which < 0:
        raise OSError(ctypes.get_errno(), "shmget")


def capable():
    header = struct.pack("Ii", 0x20080522, 0)
    found = ctypes.create_string_buffer(24)
    call("capget", header, found)
    if not any(found.raw):
        raise OSError(errno.EPERM, "no capability")


for name, place in (("inside", inside), ("outside", outside)):
    attempt(f"{name} write", write, f"{place}/new")
    attempt(f"{name} append", write, f"{place}/there", "a")
    attempt(f"{name} truncate", os.truncate, f"{place}/there", 0)
    attempt(f"{name} mkdir", os.mkdir, f"{place}/directory")
    attempt(f"{name} symlink", os.symlink, "x", f"{place}/link")
    attempt(f"{name} fifo", os.mkfifo, f"{place}/fifo")
    attempt(f"{name} rename", os.rename, f"{place}/there", f"{place}/renamed")
    attempt(f"{name} unlink", os.unlink, f"{place}/away")
    attempt(f"{name} rmdir", os.rmdir, f"{place}/empty")
    attempt(f"{name} read", read, f"{place}/read")
    attempt(f"{name} list", os.listdir, place)
    attempt(f"{name} lock", write, f"{place}/read", "r+")
    attempt(f"{name} run", run, f"{place}/script")
    attempt(f"{name} 0700", os.chmod, f"{place}/kept", 0o700)
    attempt(f"{name} 0750", os.chmod, f"{place}/kept", 0o750)
    attempt(f"{name} 0666", os.chmod, f"{place}/own", 0o666)
    attempt(f"{name} chown", os.chown, f"{place}/own", os.geteuid(), os.getegid())
    attempt(f"{name} times", os.utime, f"{place}/own", (0, 0))
    attempt(f"{name} attributes", os.setxattr, f"{place}/own", "user.x", b"y")
    attempt(f"{name} connect", connect, f"{place}/socket")
    attempt(f"{name} send", send, f"{place}/datagrams")
    attempt(f"{name} sendmsg", send_message, f"{place}/datagrams")
attempt("outside stat", os.stat, f"{outside}/own")
attempt("private read", read, f"{private}/read")
attempt("private write", write, f"{private}/new")
attempt("move out", os.rename, f"{inside}/own", f"{outside}/own2")
attempt("null", write, "/dev/null")
attempt("passwords", read, "/etc/passwd")
attempt("proc", read, f"/proc/{victim}/environ")
attempt("signal", os.kill, victim, signal.SIGTERM)
attempt("renice", os.setpriority, os.PRIO_PROCESS, victim, 19)
attempt("trace", call, "ptrace", 16, victim, None, None)
attempt("tcp4", socket.create_connection, ("127.0.0.1", 9), 1)
attempt("tcp6", socket.socket, socket.AF_INET6, socket.SOCK_STREAM)
attempt("listen", listen, "0.0.0.0")
attempt("udp", socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
attempt("netlink", socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)
attempt("vsock", socket.socket, socket.AF_VSOCK, socket.SOCK_STREAM)
attempt("abstract", connect, f"\0drkit-{victim}")
attempt("capabilities", capable)
attempt("user namespace", call, "unshare", 0x10000000)
attempt("mount", call, "mount", b"x", inside.encode(), b"tmpfs", 0, None)
attempt("root", os.setuid, 0)
attempt("ring", number, 425, 8, ctypes.create_string_buffer(120))
attempt("memory file", os.memfd_create, "x")
attempt("bpf", number, 321, 0, None, 0)
attempt("key", number, 250, 0, -3, 1)
attempt("shared memory", shared, 1 << 30)
attempt("shared memory of others", shared_of_others)
attempt("private memory", mmap.mmap, -1, 1 << 31, mmap.MAP_PRIVATE | mmap.MAP_ANON)
attempt("mapped memory", mmap.mmap, -1, 1 << 33, mmap.MAP_SHARED | mmap.MAP_ANON)
attempt("new call", number, 463, -100, None, 0, None, None, 0)
print(json.dumps(failed))
