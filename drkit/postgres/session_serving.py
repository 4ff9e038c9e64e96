"""The process that holds a session: one request after the other, until there is none.

A request is the name of a method of `_Holder` and its arguments. Each is answered with
whether it failed, and with what it returned or raised.
"""

from __future__ import annotations

import pickle
import traceback
from typing import TYPE_CHECKING, Any

from drkit.errors import DrkitError
from drkit.postgres.connection import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from drkit.postgres.connection import Connection

    # Failed or not, and the value: to know a type of this module, the parent would have
    # to import it.
    Answer = tuple[bool, object]


class _Holder:
    """Does what the parent asks for.

    Args:
        cancels: takes what is to be called if the parent hangs up in a statement.
    """

    def __init__(self, cancels: list[Callable[[], None]]) -> None:
        self._cancels = cancels
        self._connection: Connection | None = None
        self._begun: tuple[bool, Any] = (False, None)

    def log_in(self, url: str, password: str | None, purpose: str) -> None:
        self._connection = connect(url, password, purpose)
        self._cancels.append(self._connection.cancel_running)

    def call(self, method: str, *arguments: object) -> object:
        """Call a method of the connection."""
        return getattr(self._connection, method)(*arguments)

    def begin(self, call: Callable[[], object]) -> None:
        """Call something; `result` tells what came of it."""
        self._begun = outcome(call)

    def result(self) -> object:
        failed, value = self._begun
        if failed:
            raise value
        return value

    def end(self) -> None:
        if self._connection is not None:
            self._connection.end()


def serve(
    requests: BinaryIO, answers: BinaryIO, cancels: list[Callable[[], None]]
) -> None:
    """Answer requests until the other side hangs up, then end the session.

    Args:
        cancels: what is called from another thread if that happens in a statement.
    """
    holder = _Holder(cancels)
    try:
        while True:
            method, *arguments = pickle.load(requests)  # noqa: S301  our own parent's
            answers.write(packed(outcome(getattr(holder, method), *arguments)))
            answers.flush()
    except (EOFError, BrokenPipeError):
        return
    finally:
        holder.end()


def outcome(call: Callable[..., object], *arguments: object) -> Answer:
    """Call something; answer with what it returns or raises."""
    try:
        return False, call(*arguments)
    except DrkitError as error:
        return True, error
    except Exception as error:  # noqa: BLE001  the parent raises it
        # without its text, which may hold a secret
        frames = "".join(traceback.format_tb(error.__traceback__))
        error.add_note(f"in the process that holds the session:\n{frames}")
        return True, error


def packed(answer: Answer) -> bytes:
    """Return an answer as it is sent."""
    try:
        return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001  whatever it is, it must be told
        name = type(answer[1]).__name__
        error = TypeError(f"the process that holds the session can't send a {name}")
        return pickle.dumps((True, error), pickle.HIGHEST_PROTOCOL)
