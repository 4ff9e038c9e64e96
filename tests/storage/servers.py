"""HTTP servers for tests, on free ports of this host."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server(Protocol):
    """What `http.server` and werkzeug have in common."""

    server_address: tuple[str, int]

    def serve_forever(self, poll_interval: float) -> None: ...

    def shutdown(self) -> None: ...

    def server_close(self) -> None: ...


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Serve on a thread until the block ends; yield the server's URL."""
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    host, port = server.server_address[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
