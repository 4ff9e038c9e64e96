"""SIGTERM and SIGINT: the first one stops the work, a second one ends the process.

A handler is a function of Python all the while. With `SIG_IGN` or `SIG_DFL` Python
prints a traceback ("ignored due to race condition") for a signal that came before and
was not handled yet.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from drkit.cli.errors import render
from drkit.errors import Interrupted

if TYPE_CHECKING:
    from typing import NoReturn

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_CLEAR_AWAY_WITHIN = 25.0  # seconds from a signal to the end, whatever hangs
_HURRIED = 2.0  # seconds from a second signal to the end
_SAME = 0.5  # seconds; sudo and a terminal both pass one Ctrl-C on
_SHOW_CURSOR = b"\x1b[?25h"  # a bar may have hidden it


def interrupted(name: str) -> Interrupted:
    """Return the error for a signal."""
    return Interrupted(
        f"stopped by {name}; nothing half-done is listed",
        hint="run the same command again",
    )


def end_at_signals(*, as_json: bool) -> None:
    """Let a signal end the process at once, as long as no work has begun."""

    def end(number: int, _frame: object) -> NoReturn:
        _tell(interrupted(signal.Signals(number).name), as_json=as_json)
        os._exit(Interrupted.exit_code)

    for number in _NUMBERS:
        signal.signal(number, end)


class Interruption:
    """Raises KeyboardInterrupt at the first signal in the block, and later none.

    KeyboardInterrupt is no `Exception`, so that no library takes it for a failure of
    its own. While the work clears up after itself a second signal leaves it two seconds
    more; what hangs, such as a store that does not answer, is cut off after 25. What is
    left over then, the next run clears away.

    Attributes:
        name: of the signal that came; None if none has.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.name: str | None = None
        self._as_json = as_json
        self._came = 0.0
        self._hurried = False
        self._working = True
        self._limit: threading.Timer | None = None

    def __enter__(self) -> Interruption:
        self._before = [signal.signal(number, self._receive) for number in _NUMBERS]
        return self

    def __exit__(self, *_: object) -> None:
        if self._limit is not None:
            self._limit.cancel()
        if self.name is not None:
            return  # the process is about to end; another signal changes nothing
        for number, handler in zip(_NUMBERS, self._before, strict=True):
            signal.signal(number, handler)

    def over(self) -> None:
        """Raise no more: what is left to do is to tell how the work ended."""
        self._working = False

    def _receive(self, number: int, _frame: object) -> None:
        if self.name is None:
            self._came = time.monotonic()
            self.name = signal.Signals(number).name
            self._end_within(_CLEAR_AWAY_WITHIN)
            if self._working:
                raise KeyboardInterrupt(self.name)
        elif not self._hurried and time.monotonic() - self._came > _SAME:
            self._hurried = True
            self._end_within(_HURRIED)

    def _end_within(self, seconds: float) -> None:
        limit = threading.Timer(seconds, self._cut_off)
        limit.daemon = True
        limit.start()
        if self._limit is not None:
            self._limit.cancel()
        self._limit = limit

    def _cut_off(self) -> None:
        stop = interrupted(self.name or "")
        stop.hint = "it had no time to clear up; the next run does that"
        _tell(stop, as_json=self._as_json)
        os._exit(Interrupted.exit_code)


def _tell(error: Interrupted, *, as_json: bool) -> None:
    """Write an error past Python's buffers, which may be in use at this moment."""
    name, code = type(error).__name__, error.exit_code
    text = render(name, code, error.message, error.hint, "", as_json=as_json)
    try:
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR + b"\r\n")
        os.write(2, text.encode() + b"\n")
    except OSError:
        return
