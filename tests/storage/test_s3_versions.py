"""Deleting from buckets that keep versions, and what an object lock keeps."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import ObjectNotFound, Retained, StorageError
from tests.storage.proxy import ForgetRange, Reply, proxying

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.storage.s3 import S3Storage

    MakeS3 = Callable[..., S3Storage]

_numbers = itertools.count()


@pytest.fixture
def bucket(s3_admin: Any) -> str:
    """A bucket with object lock, and so with versions."""
    name = f"locked-{next(_numbers)}"
    s3_admin.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def storage(make_s3: MakeS3, bucket: str) -> S3Storage:
    return make_s3(bucket=bucket, prefix="p")


def versions(s3_admin: Any, bucket: str) -> int:
    found = s3_admin.list_object_versions(Bucket=bucket)
    return len(found.get("Versions", ())) + len(found.get("DeleteMarkers", ()))


def test_every_version_is_deleted(
    storage: S3Storage, s3_admin: Any, bucket: str
) -> None:
    storage.put("a/b", b"first")
    storage.put("a/bc", b"another")
    s3_admin.put_object(Bucket=bucket, Key="p/a/b", Body=b"second")
    s3_admin.delete_object(Bucket=bucket, Key="p/a/b")  # hides both
    assert versions(s3_admin, bucket) == 4
    storage.delete("a/b")
    storage.delete("a/b")
    assert versions(s3_admin, bucket) == 1
    assert storage.get("a/bc") == b"another"
    with pytest.raises(ObjectNotFound):
        storage.get("a/b")


@pytest.mark.parametrize("hold", [False, True], ids=["retention", "legal hold"])
def test_a_locked_object_is_retained_and_still_there(
    storage: S3Storage, s3_admin: Any, bucket: str, hold: bool
) -> None:
    storage.put("a", b"content")
    where = {"Bucket": bucket, "Key": "p/a"}
    if hold:
        s3_admin.put_object_legal_hold(**where, LegalHold={"Status": "ON"})
    else:
        until = datetime.now(UTC) + timedelta(days=1)
        lock = {"Mode": "COMPLIANCE", "RetainUntilDate": until}
        s3_admin.put_object_retention(**where, Retention=lock)
    with pytest.raises(Retained, match="legal hold" if hold else "a lock until"):
        storage.delete("a")
    assert storage.get("a") == b"content"
    if hold:
        s3_admin.put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
        storage.delete("a")
        assert versions(s3_admin, bucket) == 0


def test_missing_rights_are_no_lock(
    make_s3: MakeS3, s3_endpoint: str, s3_admin: Any, bucket: str
) -> None:
    with proxying(s3_endpoint) as proxy:
        storage = make_s3(proxy.url, bucket=bucket)
        storage.put("a", b"content")
        storage.delete("other")  # asks whether there are versions
        # The listing of versions passes as it is; the deletion does not.
        proxy.faults = [ForgetRange(), Reply(403, "AccessDenied")]
        with pytest.raises(StorageError, match="AccessDenied") as caught:
            storage.delete("a")
        assert not isinstance(caught.value, Retained)
        assert storage.get("a") == b"content"


def test_a_store_that_knows_no_versions_deletes_plainly(
    make_s3: MakeS3, s3_endpoint: str, s3_admin: Any
) -> None:
    with proxying(s3_endpoint) as proxy:
        storage = make_s3(proxy.url)
        storage.put("a", b"content")
        proxy.faults.append(Reply(501, "NotImplemented"))
        storage.delete("a")
        with pytest.raises(ObjectNotFound):
            storage.get("a")


def test_what_is_deleted_or_replaced_is_told(
    storage: S3Storage, s3_admin: Any, bucket: str
) -> None:
    for name in ("a/b", "a/c", "a/d"):
        storage.put(name, b"content of " + name.encode())
    assert storage.hidden("a/") == []
    s3_admin.delete_object(Bucket=bucket, Key="p/a/b")
    s3_admin.put_object(Bucket=bucket, Key="p/a/c", Body=b"another")
    s3_admin.delete_object(Bucket=bucket, Key="p/a/never")
    assert storage.hidden("a/") == ["a/b", "a/c"]
    assert storage.hidden("a/c") == ["a/c"]
    assert storage.beneath("a/b", 9) == [b"content o"]
    assert storage.beneath("a/c", 99) == [b"content of a/c"]
    assert storage.beneath("a/d", 99) == []
    s3_admin.put_object(Bucket=bucket, Key="p/a/b", Body=b"second")
    s3_admin.delete_object(Bucket=bucket, Key="p/a/b")
    assert sorted(storage.beneath("a/b", 6)) == [b"conten", b"second"]
    storage.delete("a/b")
    assert storage.hidden("a/b") == []


def test_versions_that_may_not_be_listed_are_not_known(
    make_s3: MakeS3, s3_endpoint: str, bucket: str
) -> None:
    with proxying(s3_endpoint) as proxy:
        storage = make_s3(proxy.url, bucket=bucket)
        storage.put("a", b"content")
        proxy.faults = [Reply(403, "AccessDenied")]
        assert storage.hidden("a") is None
        proxy.faults = [Reply(501, "NotImplemented")]
        assert storage.hidden("a") == []
        proxy.faults = [Reply(503, "SlowDown")]
        with pytest.raises(StorageError):
            storage.hidden("a")
