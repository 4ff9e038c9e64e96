"""The S3 driver against what stores and networks answer when things go wrong."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from drkit.errors import (
    DrkitError,
    NoSpace,
    ObjectExists,
    ObjectNotFound,
    RepositoryMissing,
    StorageError,
)
from drkit.storage.retry import RetryingStorage
from drkit.storage.s3 import S3Storage
from tests.storage.clock import SleepingClock
from tests.storage.conftest import BUCKET, KEYS
from tests.storage.proxy import (
    CutBody,
    Drop,
    ForgetRange,
    LoseReply,
    Proxy,
    Reply,
    ShiftRange,
    proxying,
)

MakeS3 = Callable[..., S3Storage]


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[Proxy]:
    with proxying(s3_endpoint) as made:
        yield made


@pytest.fixture
def storage(make_s3: MakeS3, proxy: Proxy) -> S3Storage:
    return make_s3(proxy.url, timeouts=(2.0, 5.0))


def error_of(work: Callable[[], object]) -> DrkitError:
    with pytest.raises(DrkitError) as caught:
        work()
    return caught.value


def test_objects_lie_below_the_prefix(make_s3: MakeS3, s3_admin: Any) -> None:
    storage = make_s3(prefix="team/drkit")
    storage.put("a/b", b"x")
    body = s3_admin.get_object(Bucket=BUCKET, Key="team/drkit/a/b")["Body"]
    assert body.read() == b"x"
    assert storage.url == f"s3://{BUCKET}/team/drkit"
    assert make_s3(prefix="").url == f"s3://{BUCKET}"
    assert "team/drkit/a/b" in [info.name for info in make_s3(prefix="").list("")]


def test_a_put_is_one_conditional_checksummed_request(
    storage: S3Storage, proxy: Proxy
) -> None:
    storage.put("a", b"abc")
    [(method, headers)] = proxy.requests
    assert method == "PUT"
    assert headers["if-none-match"] == "*"
    assert headers["content-length"] == "3"
    # The SHA-256 of "abc" (FIPS 180-2, appendix B.1) in base64.
    sha256 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
    assert headers["x-amz-checksum-sha256"] == sha256


@pytest.mark.parametrize(
    ("reply", "expected", "transient"),
    [
        (Reply(412, "PreconditionFailed"), ObjectExists, False),
        (Reply(409, "ConditionalRequestConflict"), StorageError, True),
        (Reply(500, "InternalError"), StorageError, True),
        (Reply(502), StorageError, True),
        (Reply(503, "SlowDown"), StorageError, True),
        (Reply(504), StorageError, True),
        (Reply(429, "TooManyRequests"), StorageError, True),
        (Reply(400, "RequestTimeout"), StorageError, True),
        (Reply(400, "BadDigest"), StorageError, True),
        (Reply(400, "InvalidRequest"), StorageError, False),
        (Reply(403, "AccessDenied"), StorageError, False),
        (Reply(403, "SignatureDoesNotMatch"), StorageError, False),
        (Reply(403, "RequestTimeTooSkewed"), StorageError, False),
        (Reply(501, "NotImplemented"), StorageError, False),
        (Reply(404, "NoSuchBucket"), RepositoryMissing, False),
        (Reply(507, "XMinioStorageFull"), NoSpace, False),
    ],
)
def test_replies_to_a_put(
    storage: S3Storage,
    proxy: Proxy,
    reply: Reply,
    expected: type[DrkitError],
    transient: bool,
) -> None:
    proxy.faults = [reply]
    error = error_of(lambda: storage.put("a/b", b"x"))
    assert type(error) is expected
    assert getattr(error, "transient", False) is transient
    assert len(proxy.requests) == 1
    assert KEYS["secret_access_key"] not in f"{error} {error.hint}"


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("AccessDenied", "s3:ListBucket"),
        ("InvalidAccessKeyId", "access key id"),
        ("SignatureDoesNotMatch", "secret access key"),
        ("RequestTimeTooSkewed", "clock"),
    ],
)
def test_forbidden_says_what_to_do(
    storage: S3Storage, proxy: Proxy, code: str, hint: str
) -> None:
    for ask in (
        lambda: storage.get("a"),
        lambda: storage.put("a", b""),
        lambda: storage.delete("a"),
        lambda: list(storage.list("")),
    ):
        proxy.faults = [Reply(403, code)] * 2  # also to a question that comes first
        error = error_of(ask)
        assert type(error) is StorageError
        assert hint in (error.hint or "")


def test_forbidden_is_no_missing_object(storage: S3Storage, proxy: Proxy) -> None:
    proxy.faults = [Reply(403)]
    error = error_of(lambda: storage.size("a"))
    assert type(error) is StorageError
    assert not error.transient


def test_missing_bucket_is_no_missing_object(make_s3: MakeS3) -> None:
    storage = make_s3(bucket="no-such-bucket")
    for ask in (
        lambda: storage.get("a"),
        lambda: storage.get("a", 3, 5),
        lambda: storage.size("a"),
        lambda: storage.put("a", b""),
        lambda: storage.delete("a"),
        lambda: list(storage.list("")),
    ):
        error = error_of(ask)
        assert type(error) is RepositoryMissing
        assert "no-such-bucket" in str(error)


def test_a_proxys_404_is_no_missing_object(storage: S3Storage, proxy: Proxy) -> None:
    """Without the store's own word, 404 counts only if the bucket is there."""
    storage.put("a", b"x")
    for ask in (lambda: storage.get("a"), lambda: storage.size("a")):
        proxy.faults = [Reply(404), Reply(404)]
        assert type(error_of(ask)) is RepositoryMissing
        proxy.faults = [Reply(404), Reply(503)]
        error = error_of(ask)
        assert type(error) is StorageError
        assert error.transient
    proxy.faults = [Reply(404)]
    assert type(error_of(lambda: storage.size("a"))) is ObjectNotFound


@pytest.mark.parametrize("length", [4, None])
def test_whole_object_for_a_range(
    storage: S3Storage, proxy: Proxy, length: int | None
) -> None:
    storage.put("a", b"0123456789")
    proxy.faults = [ForgetRange()]
    error = error_of(lambda: storage.get("a", 3, length))
    assert "with the whole object" in str(error)
    assert type(error) is StorageError
    assert not error.transient
    assert storage.get("a", 3, 4) == b"3456"


def test_another_range_than_asked_for(storage: S3Storage, proxy: Proxy) -> None:
    storage.put("a", b"0123456789")
    proxy.faults = [ShiftRange()]
    assert "4 to 8 came" in str(error_of(lambda: storage.get("a", 3, 4)))


@pytest.mark.parametrize("asked", [(0, None), (2, 6), (2, None)])
def test_cut_body(
    storage: S3Storage, proxy: Proxy, asked: tuple[int, int | None]
) -> None:
    storage.put("a", b"0123456789")
    proxy.faults = [CutBody()]
    error = error_of(lambda: storage.get("a", *asked))
    assert type(error) is StorageError
    assert error.transient


@pytest.mark.parametrize("fault", [Drop(), LoseReply()])
def test_lost_connection(storage: S3Storage, proxy: Proxy, fault: Any) -> None:
    for ask in (
        lambda: storage.put("a", b"x"),
        lambda: storage.get("a"),
        lambda: storage.size("a"),
        lambda: list(storage.list("")),
        lambda: storage.delete("a"),
    ):
        proxy.faults = [fault]
        error = error_of(ask)
        assert type(error) is StorageError
        assert error.transient


def test_nobody_listens(make_s3: MakeS3) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    storage = make_s3(f"http://127.0.0.1:{port}")
    error = error_of(lambda: storage.get("a"))
    assert type(error) is StorageError
    assert error.transient
    assert error.hint


def test_silence_times_out(make_s3: MakeS3) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        storage = make_s3(f"http://127.0.0.1:{port}", timeouts=(1.0, 0.2))
        error = error_of(lambda: storage.put("a", b"x"))
    assert type(error) is StorageError
    assert error.transient


def test_keys_that_are_no_object_names_are_not_listed(
    make_s3: MakeS3, s3_admin: Any
) -> None:
    storage = make_s3(prefix="shared")
    storage.put("a/b", b"x")
    for key in ("shared/", "shared/a/", "shared/a/b c", "shared/../up", "sharedother"):
        s3_admin.put_object(Bucket=BUCKET, Key=key, Body=b"")
    assert [info.name for info in storage.list("")] == ["a/b"]


def test_lost_reply_to_a_put_is_settled_by_reading(
    storage: S3Storage, proxy: Proxy
) -> None:
    retrying = RetryingStorage(storage, SleepingClock())
    proxy.faults = [LoseReply()]
    retrying.put("a", memoryview(b"content"))
    assert [method for method, _ in proxy.requests] == ["PUT", "PUT", "HEAD", "GET"]
    assert retrying.get("a") == b"content"


def test_a_busy_store_is_asked_again(storage: S3Storage, proxy: Proxy) -> None:
    retrying = RetryingStorage(storage, SleepingClock())
    busy = [Reply(503, "SlowDown"), Reply(409, "ConditionalRequestConflict"), Drop()]
    proxy.faults = list(busy)
    retrying.put("a", b"content")
    proxy.faults = [*busy, CutBody()]
    assert retrying.get("a") == b"content"
    proxy.faults = list(busy)
    assert [info.name for info in retrying.list("")] == ["a"]
    proxy.faults = list(busy)
    retrying.delete("a")
    assert type(error_of(lambda: retrying.get("a"))) is ObjectNotFound
