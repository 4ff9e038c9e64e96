"""The process that holds a session: one request after the other, until there is none.

A request is the name of a method of `_Holder` and its arguments. Each is answered with
whether it failed, and with what it returned or raised.
"""

from __future__ import annotations

import pickle
import select
import threading
from typing import TYPE_CHECKING, NamedTuple

from drkit.postgres.connection import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from drkit.postgres.connection import Connection


class Answer(NamedTuple):
    """What came of a request: `value` is what it returned, or the exception."""

    failed: bool
    value: object


class _Holder:
    """Does what the parent asks for."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._begun = Answer(failed=False, value=None)

    def log_in(self, url: str, password: str | None, purpose: str) -> None:
        self._connection = connect(url, password, purpose)

    def call(self, method: str, *arguments: object) -> object:
        """Call a method of the connection."""
        return getattr(self._connection, method)(*arguments)

    def begin(self, call: Callable[[], object]) -> None:
        """Call something; `result` tells what came of it."""
        self._begun = _outcome(call)

    def result(self) -> object:
        if self._begun.failed and isinstance(self._begun.value, Exception):
            raise self._begun.value
        return self._begun.value

    def cancel(self) -> None:
        if self._connection is not None:
            self._connection.cancel_running()

    def end(self) -> None:
        if self._connection is not None:
            self._connection.end()


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the other side hangs up, then end the session."""
    holder = _Holder()
    threading.Thread(target=_watch, args=(requests, holder), daemon=True).start()
    try:
        while True:
            method, *arguments = pickle.load(requests)  # noqa: S301  our own parent's
            # a plain tuple: to know our type the parent would have to import this
            answer = tuple(_outcome(getattr(holder, method), *arguments))
            answers.write(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
            answers.flush()
    except (EOFError, BrokenPipeError):
        return
    finally:
        holder.end()


def _watch(requests: BinaryIO, holder: _Holder) -> None:
    """Cancel what runs when the other side has hung up: nobody waits for it."""
    poll = select.poll()
    poll.register(requests, 0)  # a hang-up is always told
    poll.poll()
    holder.cancel()


def _outcome(call: Callable[..., object], *arguments: object) -> Answer:
    try:
        return Answer(failed=False, value=call(*arguments))
    except Exception as error:  # noqa: BLE001  the parent raises it
        return Answer(failed=True, value=error)
