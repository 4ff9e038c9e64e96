"""A timestamp authority for tests: OpenSSL's, behind HTTP."""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONFIG = """\
[tsa]
default_tsa = one
[one]
serial = {place}/serial
signer_cert = {place}/tsa.pem
signer_key = {place}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256
"""
_EXTENSIONS = """\
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
basicConstraints = CA:FALSE
"""


@dataclass
class Authority:
    """A running authority; `answer` replaces what it would say."""

    url: str
    roots: Path
    asked: int = 0
    answer: bytes | None = None


@contextmanager
def authority(place: Path) -> Iterator[Authority]:
    """Serve an authority with a root certificate of its own."""
    place.mkdir()
    _make_certificates(place)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            served.asked += 1
            query = self.rfile.read(int(self.headers["Content-Length"]))
            reply = _reply(place, query) if served.answer is None else served.answer
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Authority(f"http://127.0.0.1:{server.server_port}", place / "ca.pem")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _make_certificates(place: Path) -> None:
    (place / "tsa.cnf").write_text(_CONFIG.format(place=place))
    (place / "extensions").write_text(_EXTENSIONS)
    (place / "serial").write_text("01\n")
    subject = ("-newkey", "rsa:2048", "-nodes", "-subj")
    _openssl(
        place,
        *("req", "-x509", *subject, "/CN=Root of tests"),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    _openssl(
        place,
        *("req", *subject, "/CN=Authority of tests"),
        *("-keyout", "tsa.key", "-out", "tsa.csr"),
    )
    _openssl(
        place,
        *("x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-out", "tsa.pem", "-extfile", "extensions"),
    )


def _reply(place: Path, query: bytes) -> bytes:
    (place / "query").write_bytes(query)
    files = ("-queryfile", "query", "-out", "reply")
    _openssl(place, "ts", "-reply", "-config", "tsa.cnf", "-section", "one", *files)
    return (place / "reply").read_bytes()


def _openssl(place: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)
