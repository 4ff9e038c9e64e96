"""The grammar of object names; every driver refuses the same names."""

from __future__ import annotations

from drkit.errors import StorageError, TooLong

MAX_NAME = 512  # bytes
MAX_PART = 200  # bytes; file systems allow 255

_ALLOWED = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
)


def check_name(name: str) -> None:
    """Refuse what is no object name, before a driver makes a path or a request of it.

    Raises:
        StorageError: not transient; names the part that is wrong.
    """
    _check(name, name.split("/"))


def check_prefix(prefix: str) -> None:
    """Refuse what no object name can start with; the last part may be unfinished.

    Raises:
        StorageError: not transient.
    """
    *parts, last = prefix.split("/")
    _check(prefix, [*parts, last] if last else parts)


def check_range(name: str, offset: int, length: int | None) -> None:
    """Refuse a negative offset or length.

    Raises:
        StorageError: not transient.
    """
    if offset < 0 or (length is not None and length < 0):
        raise StorageError(
            f"object {name} was asked for {length} bytes from {offset};"
            " neither can be negative"
        )


def check_length(name: str, url: str, size: int, limit: int | None) -> None:
    """Refuse to read an object that is longer than any of its kind.

    Raises:
        TooLong: it has more than `limit` bytes.
    """
    if limit is not None and size > limit:
        raise TooLong(
            f"object {name} in {url} has {size} bytes, and may have {limit} at most",
            hint="drkit did not write it; see who can write to the repository",
        )


def is_name(text: str) -> bool:
    """Say whether `text` is an object name."""
    return len(text) <= MAX_NAME and all(map(is_part, text.split("/")))


def is_part(text: str) -> bool:
    """Say whether `text` can stand between two slashes of a name."""
    return (
        0 < len(text) <= MAX_PART
        and text not in {".", ".."}
        and _ALLOWED.issuperset(text)
    )


def _check(text: str, parts: list[str]) -> None:
    for part in parts:
        if not is_part(part):
            raise StorageError(
                f"refused the object name {text[:MAX_NAME]!r}: {part[:MAX_PART]!r} is"
                f" not 1 to {MAX_PART} letters, digits, '.', '_' or '-'",
                hint=_HINT,
            )
    if len(text) > MAX_NAME:
        raise StorageError(
            f"refused the object name {text[:60]!r}…: longer than {MAX_NAME} bytes",
            hint=_HINT,
        )


_HINT = "a name like this comes from a damaged or hostile repository; run drkit verify"
