"""What begins before the command line is imported, which takes as long."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.postgres.session_process import SessionProcess

_HELP = {"--help", "-h"}

_started: list[SessionProcess] = []


def start(arguments: list[str]) -> None:
    """Start what the command will need; this process must not have threads yet."""
    if arguments[:1] == ["backup"] and _HELP.isdisjoint(arguments):
        from drkit.postgres.session_process import session_process

        process = session_process()
        if process is not None:
            _started.append(process)


def end() -> None:
    """End what was started and not needed after all."""
    while _started:
        _started.pop().end()


@contextmanager
def session_process(*, wanted: bool) -> Iterator[SessionProcess | None]:
    """Yield the process that gets ready to hold a session, if one was started.

    It ends with the block; at once if it is not wanted.
    """
    if not wanted:
        end()
    process = _started.pop() if _started else None
    try:
        yield process
    finally:
        if process is not None:
            process.end()
