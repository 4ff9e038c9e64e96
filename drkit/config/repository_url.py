"""Repository addresses: `file:///srv/drkit` and `s3://bucket/prefix`."""

from __future__ import annotations

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable

_FORMS = "write file:///absolute/path or s3://bucket/prefix"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_BUCKET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")


def split_repository_url(url: str) -> tuple[str, str, str]:
    """Return (`"file"`, path, `""`) or (`"s3"`, bucket, prefix).

    The path is absolute and taken as it stands, without percent-decoding; the prefix
    has no slash at either end and may be empty.

    Raises:
        ValueError: not such an address. The message never repeats it, since people
            put passwords into addresses.
    """
    if url.startswith("file://"):
        return "file", _path(url.removeprefix("file://")), ""
    if url.startswith("s3://"):
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return "s3", _bucket(bucket), _prefix(prefix.rstrip("/"))
    if url.startswith("/"):
        raise ValueError("is a bare path; write it with file:// before it")
    raise ValueError("is no address of a repository; " + _FORMS)


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("needs three slashes, as in file:///srv/drkit")
    bare = path.rstrip("/")
    if not bare:
        raise ValueError("is the root directory; name a directory of its own")
    _refuse(bare[1:].split("/"))
    if not bare.isprintable() or any(mark in bare for mark in "?#%"):
        raise ValueError("has ?, #, % or control characters in its path; avoid them")
    return bare


def _bucket(bucket: str) -> str:
    if "@" in bucket or ":" in bucket:
        raise ValueError(
            "must not hold keys; put references to them under repository.s3"
        )
    fits = 3 <= len(bucket) <= 63 and _BUCKET.issuperset(bucket)
    if not fits or bucket[0] in ".-" or bucket[-1] in ".-":
        raise ValueError("does not name a bucket; write s3://bucket/prefix")
    return bucket


def _prefix(prefix: str) -> str:
    if not prefix:
        return ""
    parts = prefix.split("/")
    _refuse(parts)
    if not all(_NAME.issuperset(part) for part in parts):
        raise ValueError("has more than letters, digits, . _ - and / in its prefix")
    return prefix


def _refuse(parts: Iterable[str]) -> None:
    if any(part in {"", ".", ".."} for part in parts):
        raise ValueError("has an empty part, . or .. in its path; write it plainly")
