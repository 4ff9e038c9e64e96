"""What begins before the command line is imported, which takes as long."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.postgres.session_process import SessionProcess

_started: list[SessionProcess] = []


def start(arguments: list[str]) -> None:
    """Start what the command will need; nothing is lost if it turns out not to.

    This process must not have another thread yet.
    """
    if "backup" in arguments:
        from drkit.postgres.session_process import session_process

        process = session_process()
        if process is not None:
            _started.append(process)


@contextmanager
def session_process(*, wanted: bool) -> Iterator[SessionProcess | None]:
    """Yield the process that gets ready to hold a session, if one was started.

    It ends with the block; at once if it is not wanted.
    """
    process = _started.pop() if _started else None
    if process is not None and not wanted:
        process.end()
        process = None
    try:
        yield process
    finally:
        if process is not None:
            process.end()
