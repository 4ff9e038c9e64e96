"""Faults at the storage seam: errors, lost replies, lies, delays and sudden death.

    storage = FaultyStorage(MemoryStorage())
    storage.fail("put", unavailable(), at=2)        # the 2nd put fails, undone
    storage.lose_reply("put", unavailable(), at=3)  # the 3rd is done, and fails
    storage.kill(at=7)                              # SIGKILL at the 7th call of any

Calls are counted from 1, per method or, for `ANY`, all together.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from drkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from drkit.model.objects import ObjectInfo
    from drkit.protocols import Buffer, Storage

Method = Literal["put", "get", "size", "list", "delete", "any"]
ANY: Method = "any"
FOREVER = 1 << 60
T = TypeVar("T")


def unavailable() -> StorageError:
    """What a driver raises for 503: the same request may succeed later."""
    return StorageError("503 SlowDown", transient=True)


@dataclass(frozen=True)
class Rule:
    """Something that happens around some calls of a method."""

    method: Method
    at: int
    times: int
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    name: str | None = None

    def applies(self, method: str, name: str, number: int, total: int) -> bool:
        if self.method not in {ANY, method} or self.name not in {None, name}:
            return False
        count = total if self.method == ANY else number
        return self.at <= count < self.at + self.times


class FaultyStorage:
    """A `Storage` that does what `inner` does, except where a test says otherwise.

    Attributes:
        calls: how often each method was called, failures included.
        names: what each call was about, in order: (method, name or prefix).
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        self.names: list[tuple[str, str]] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._change_body: Callable[[bytes, str, int, int | None], bytes] | None = None
        self._hidden: Callable[[str], bool] = lambda _: False
        self._listing_stops: tuple[int, BaseException] | None = None

    # -- what a test says

    def fail(
        self,
        method: Method,
        error: BaseException,
        at: int = 1,
        times: int = 1,
        name: str | None = None,
    ) -> None:
        """Raise `error` instead of doing the work; with `name`, only for that name."""
        self._add(Rule(method, at, times, before=_raising(error), name=name))

    def lose_reply(
        self,
        method: Method,
        error: BaseException,
        at: int = 1,
        times: int = 1,
        name: str | None = None,
    ) -> None:
        """Do the work, then raise `error`."""
        self._add(Rule(method, at, times, after=_raising(error), name=name))

    def call(
        self,
        method: Method,
        callback: Callable[[], object],
        at: int = 1,
        times: int = 1,
        name: str | None = None,
    ) -> None:
        """Call back before the work is done."""
        self._add(Rule(method, at, times, before=callback, name=name))

    def kill(self, method: Method = ANY, at: int = 1, *, after: bool = False) -> None:
        """End this process by SIGKILL, before or after the work is done."""
        rule = Rule(method, at, 1, **{"after" if after else "before": _die})
        self._add(rule)

    def delay(self, method: Method, seconds: float) -> None:
        """Wait before each call's work."""
        self._add(Rule(method, 1, FOREVER, before=lambda: time.sleep(seconds)))

    def shorten_bodies(self, missing: int = 1) -> None:
        """Answer every get with `missing` bytes too few, as a broken driver would."""
        self._change_body = lambda body, *_: body[: max(0, len(body) - missing)]

    def ignore_ranges(self) -> None:
        """Answer every range with the whole object."""
        self._change_body = lambda _, name, *__: self.inner.get(name)

    def change_bodies(self, change: Callable[[bytes], bytes]) -> None:
        """Answer every get with what `change` makes of the bytes."""
        self._change_body = lambda body, *_: change(body)

    def hide(self, hidden: Callable[[str], bool]) -> None:
        """Leave names out of listings, though their objects are there."""
        self._hidden = hidden

    def stop_listing(self, after: int, error: BaseException) -> None:
        """Raise `error` once, behind the first `after` objects of a listing."""
        self._listing_stops = (after, error)

    def heal(self) -> None:
        """Forget all faults; counts stay."""
        self._rules.clear()
        self._change_body = None
        self._hidden = lambda _: False
        self._listing_stops = None

    # -- Storage

    @property
    def url(self) -> str:
        return self.inner.url

    def put(self, name: str, data: Buffer) -> None:
        self._around("put", name, lambda: self.inner.put(name, data))

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        read = lambda: self.inner.get(name, offset, length, limit=limit)  # noqa: E731
        body = self._around("get", name, read)
        change = self._change_body
        return change(body, name, offset, length) if change else body

    def size(self, name: str) -> int:
        return self._around("size", name, lambda: self.inner.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = self._around("list", prefix, lambda: self.inner.list(prefix))
        return self._listed(found)

    def delete(self, name: str) -> None:
        self._around("delete", name, lambda: self.inner.delete(name))

    def hidden(self, prefix: str) -> Sequence[str] | None:
        return self.inner.hidden(prefix)

    def beneath(self, name: str, length: int) -> Sequence[bytes]:
        return self.inner.beneath(name, length)

    # -- how

    def _add(self, rule: Rule) -> None:
        self._rules.append(rule)

    def _around(self, method: str, name: str, work: Callable[[], T]) -> T:
        with self._lock:
            self.calls[method] += 1
            self.names.append((method, name))
            number, total = self.calls[method], len(self.names)
        rules = [r for r in self._rules if r.applies(method, name, number, total)]
        for rule in rules:
            if rule.before:
                rule.before()
        result = work()
        for rule in rules:
            if rule.after:
                rule.after()
        return result

    def _listed(self, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        for count, info in enumerate(found):
            if self._listing_stops and self._listing_stops[0] == count:
                error, self._listing_stops = self._listing_stops[1], None
                raise error
            if not self._hidden(info.name):
                yield info


def _raising(error: BaseException) -> Callable[[], object]:
    def throw() -> object:
        raise error

    return throw


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
