"""A proxy before an S3 server that breaks what it is told to break."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.storage.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "server", "date"}


@dataclass(frozen=True)
class Reply:
    """An answer that the server never gave."""

    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        error = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>"
        return error.encode() if self.code else b""


class Drop:
    """Close the connection; the server hears nothing."""


class LoseReply:
    """Let the server do it, then close the connection."""


class CutBody:
    """Announce the whole body, send half of it, and close the connection."""


class ForgetRange:
    """Ask the server for the whole object, whatever range the client wanted."""


class ShiftRange:
    """Ask the server for the range one byte further on."""


Fault = Reply | Drop | LoseReply | CutBody | ForgetRange | ShiftRange


class Proxy:
    """Forwards requests; each fault in `faults` is used up by one request.

    Attributes:
        requests: (method, headers by their lower-case names) of what came in.
    """

    def __init__(self, target: str) -> None:
        self.target = target.removeprefix("http://")
        self.url = ""
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()

    def next_fault(self, method: str, headers: dict[str, str]) -> Fault | None:
        with self._lock:
            self.requests.append((method, headers))
            return self.faults.pop(0) if self.faults else None

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.target)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


@contextmanager
def proxying(target: str) -> Iterator[Proxy]:
    """Run a proxy before the server at `target` until the block ends."""
    proxy = Proxy(target)

    class Handler(_Handler):
        handled_by = proxy

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        proxy.url = url
        yield proxy


class _Handler(BaseHTTPRequestHandler):
    handled_by: Proxy
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.handled_by.next_fault(
            self.command, {name.lower(): value for name, value in self.headers.items()}
        )
        if isinstance(fault, Drop):
            return
        if isinstance(fault, Reply):
            self._answer(fault.status, list(fault.headers.items()), fault.body)
            return
        headers = self._changed_headers(fault)
        status, answered, content = self.handled_by.forward(
            self.command, self.path, headers, body
        )
        if not isinstance(fault, LoseReply):
            self._answer(status, answered, content, cut=isinstance(fault, CutBody))

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_one  # noqa: N815

    def _changed_headers(self, fault: Fault | None) -> dict[str, str]:
        headers = dict(self.headers.items())
        if isinstance(fault, ForgetRange):
            headers.pop("Range", None)
        if isinstance(fault, ShiftRange):
            first, last = headers["Range"].removeprefix("bytes=").split("-")
            headers["Range"] = f"bytes={int(first) + 1}-{int(last) + 1}"
        return headers

    def _answer(
        self, status: int, headers: list[Any], body: bytes, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet."""
