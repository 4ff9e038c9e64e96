"""A server that is none: asks whoever connects for the password.

Run as a process of its own, with the descriptor of a listening socket and the question
in hexadecimal digits. Writes what it is sent behind the question to standard output.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLEAR = struct.pack(">cII", b"R", 8, 3)
MD5 = struct.pack(">cII4s", b"R", 12, 5, b"salt")
_WRAPPED = (80877103, 80877104)  # a client that asks for TLS or GSS encryption first
_ROOT = Path(__file__).parents[2]


@contextmanager
def impostor(listening: socket.socket, question: bytes) -> Iterator[list[bytes]]:
    """Let one answer; what it heard is in the list behind the block."""
    heard: list[bytes] = []
    number = listening.fileno()
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(number), question.hex()],
        cwd=_ROOT,
        pass_fds=[number],
        stdout=subprocess.PIPE,
    ) as process:
        listening.close()
        try:
            yield heard
        finally:
            process.terminate()
            heard.append(process.communicate()[0])


def _answer(client: socket.socket, question: bytes) -> None:
    code = _WRAPPED[0]
    while code in _WRAPPED:
        length, code = struct.unpack(">II", client.recv(8, socket.MSG_WAITALL))
        client.recv(length - 8, socket.MSG_WAITALL)
        client.sendall(b"N" if code in _WRAPPED else question)
    while more := client.recv(4096):
        os.write(1, more)


def _serve(listening: socket.socket, question: bytes) -> None:
    while True:
        client, _ = listening.accept()
        with client:
            try:
                _answer(client, question)
            except (OSError, struct.error):
                continue


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), bytes.fromhex(sys.argv[2]))
