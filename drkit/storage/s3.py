"""Amazon S3 and stores that speak its protocol.

Needs conditional writes: `If-None-Match: *` on PutObject, which Amazon S3 has had since
2024. Stores that ignore the header overwrite; callers prove with two puts of one name
that theirs does not.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import IO, TYPE_CHECKING, NoReturn, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from drkit.errors import ObjectNotFound, RepositoryMissing, Retained, StorageError
from drkit.model.objects import ObjectInfo
from drkit.storage import s3errors
from drkit.storage.names import (
    check_length,
    check_name,
    check_prefix,
    check_range,
    is_name,
)
from drkit.storage.viewreader import ViewReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

    from drkit.protocols import Buffer

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class S3Storage:
    """Objects of a bucket below a prefix; see `drkit.protocols.Storage`.

    Makes each request once: `drkit.storage.retry` repeats what is worth repeating.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        connections: int = 8,
        timeouts: tuple[float, float] = (10.0, 60.0),
    ) -> None:
        """Make a client; nothing is asked of the store yet.

        Args:
            prefix: what all names start with in the bucket, without the last slash.
            endpoint_url: None for Amazon's own.
            access_key_id: None for what the AWS SDK finds by itself, such as the
                role of an instance.
            connections: how many requests at most use the network at once.
            timeouts: seconds to connect, and seconds without a byte.
        """
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._versioned: bool | None = None
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            config=Config(
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=connections,
                connect_timeout=timeouts[0],
                read_timeout=timeouts[1],
                # Other stores seldom have a host name per bucket, nor the trailing
                # checksums that newer SDKs add by themselves.
                s3={"addressing_style": "path" if endpoint_url else "auto"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    @property
    def url(self) -> str:
        """Bucket and prefix, as a policy writes them."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def put(self, name: str, data: Buffer) -> None:
        """Create `name` in one conditional request."""
        check_name(name)
        view = memoryview(data).cast("B")
        digest = base64.b64encode(hashlib.sha256(view).digest()).decode()
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + name,
                Body=cast("IO[bytes]", ViewReader(view)),
                ContentLength=len(view),
                ChecksumSHA256=digest,
                IfNoneMatch="*",
            )
        except (ClientError, BotoCoreError) as error:
            self._fail(error, "writing", name)

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        """Read a range."""
        check_name(name)
        check_range(name, offset, length)
        if length == 0:
            return self._nothing(name, offset)
        if offset == 0 and length is None:
            return self._get_whole(name, limit)
        return self._get_range(name, offset, length, limit)

    def size(self, name: str) -> int:
        """Return the length in bytes."""
        check_name(name)
        try:
            found = self._client.head_object(
                Bucket=self._bucket, Key=self._prefix + name
            )
        except (ClientError, BotoCoreError) as error:
            self._fail(error, "looking at", name)
        return found["ContentLength"]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects page by page; keys that are no object names are not ours."""
        check_prefix(prefix)
        return self._list(prefix)

    def delete(self, name: str) -> None:
        """Remove `name`; where the bucket keeps versions, every one of them."""
        check_name(name)
        key = self._prefix + name
        try:
            if not self._keeps_versions():
                self._client.delete_object(Bucket=self._bucket, Key=key)
                return
            for version in _versions(self._client, self._bucket, key):
                self._delete_version(name, version)
        except (ClientError, BotoCoreError) as error:
            self._fail(error, "deleting", name)

    def hidden(self, prefix: str) -> Sequence[str] | None:
        """Return the keys with a version behind the newest or a delete marker."""
        check_prefix(prefix)
        try:
            found = _earlier(self._client, self._bucket, self._prefix + prefix)
        except (ClientError, BotoCoreError) as error:
            raised = s3errors.explain(error, "listing versions of", prefix, self.url)
            if not isinstance(raised, StorageError) or raised.transient:
                raise raised from error
            unknown = s3errors.code(error) in s3errors.UNASKABLE - {"AccessDenied"}
            return [] if unknown else None  # it has no versions, or does not tell
        return sorted(key.removeprefix(self._prefix) for key in found)

    def beneath(self, name: str, length: int) -> Sequence[bytes]:
        """Read the beginnings of a key's earlier versions."""
        check_name(name)
        key = self._prefix + name
        try:
            ids = _earlier(self._client, self._bucket, key).get(key, [])
            return [self._version(name, one, length) for one in ids]
        except (ClientError, BotoCoreError) as error:
            self._fail(error, "reading versions of", name)

    # -- reading

    def _version(self, name: str, version: str, length: int) -> bytes:
        answer = self._client.get_object(
            Bucket=self._bucket, Key=self._prefix + name, VersionId=version
        )
        try:
            return answer["Body"].read(length)
        finally:
            answer["Body"].close()

    def _nothing(self, name: str, offset: int) -> bytes:
        """Read no bytes: HTTP has no empty range, so the length has to do."""
        if offset > (size := self.size(name)):
            raise self._too_short(name, offset, 0, f"it has {size}")
        return b""

    def _get_whole(self, name: str, limit: int | None) -> bytes:
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._prefix + name
            )
            return self._body(answer, name, self._announced(answer, name), limit)
        except (ClientError, BotoCoreError) as error:
            self._fail(error, "reading", name)

    def _get_range(
        self, name: str, offset: int, length: int | None, limit: int | None
    ) -> bytes:
        last = "" if length is None else str(offset + length - 1)
        try:
            answer = self._client.get_object(
                Bucket=self._bucket,
                Key=self._prefix + name,
                Range=f"bytes={offset}-{last}",
            )
            first, end = self._answered_range(answer, name)
            if first != offset or (length is not None and end != offset + length):
                answer["Body"].close()
                raise self._too_short(name, offset, length, f"{first} to {end} came")
            most = limit if length is None else None
            return self._body(answer, name, end - first, most)
        except ClientError as error:
            if s3errors.code(error) != "InvalidRange":
                self._fail(error, "reading", name)
            return self._past_end(name, offset, length)
        except BotoCoreError as error:
            self._fail(error, "reading", name)

    def _past_end(self, name: str, offset: int, length: int | None) -> bytes:
        """Answer for a range that begins at the object's end, or behind it."""
        size = self.size(name)
        if length is None and offset == size:
            return b""
        raise self._too_short(name, offset, length, f"it has {size}")

    def _answered_range(
        self, answer: GetObjectOutputTypeDef, name: str
    ) -> tuple[int, int]:
        """Return the first byte's offset and the end of what the store is sending."""
        match = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if match is None:
            answer["Body"].close()
            raise StorageError(
                f"{self.url} answered a request for a part of object {name} with the"
                " whole object",
                hint="the store, or a proxy before it, does not support range requests",
            )
        return int(match[1]), int(match[2]) + 1

    def _announced(self, answer: GetObjectOutputTypeDef, name: str) -> int:
        """Return the length of the object that the store is sending."""
        length: int | None = answer.get("ContentLength")
        if length is None:
            answer["Body"].close()
            raise StorageError(
                f"{self.url} sends object {name} without saying how long it is",
                hint="the store, or a proxy before it, sends no Content-Length",
            )
        return length

    def _body(
        self,
        answer: GetObjectOutputTypeDef,
        name: str,
        length: int,
        limit: int | None,
    ) -> bytes:
        try:
            check_length(name, self.url, length, limit)
            data = answer["Body"].read(length + 1)  # whatever else it sends
        finally:
            answer["Body"].close()
        if len(data) != length:
            raise StorageError(
                f"{self.url} sent {len(data)} bytes of object {name} and had announced"
                f" {length}",
                transient=True,
            )
        return data

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        last = ""
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    name = item["Key"].removeprefix(self._prefix)
                    if not is_name(name):
                        continue
                    if name <= last:
                        raise self._unordered(last, name)
                    yield ObjectInfo(name, item["Size"])
                    last = name
        except (ClientError, BotoCoreError) as error:
            self._fail(error, "listing", f"{prefix}*")

    def _delete_version(self, name: str, version: str) -> None:
        """Delete a version; a store may answer for a lock as it does for no rights."""
        key = self._prefix + name
        try:
            self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=version)
        except ClientError as error:
            if s3errors.code(error) != "AccessDenied":
                raise
            found = self._client.head_object(
                Bucket=self._bucket, Key=key, VersionId=version
            )
            lock = s3errors.lock(found)
            if lock is None:
                raise
            raise Retained(
                f"object {name} in {self.url} is kept by {lock}",
                hint="it can be deleted when that ends",
            ) from error

    def _keeps_versions(self) -> bool:
        """Say whether a plain delete would only hide an object; asked once.

        Not every store has versions or tells; there a plain delete is right.
        """
        if self._versioned is None:
            try:
                found = self._client.get_bucket_versioning(Bucket=self._bucket)
                self._versioned = bool(found.get("Status"))
            except ClientError as error:
                if s3errors.code(error) not in s3errors.UNASKABLE:
                    raise
                self._versioned = False
        return self._versioned

    # -- errors

    def _fail(
        self, error: ClientError | BotoCoreError, doing: str, name: str
    ) -> NoReturn:
        """Raise what `error` means.

        A 404 counts as "no such object" only if the store says just that, or still
        has the bucket: any misplaced proxy can answer 404.
        """
        raised = s3errors.explain(error, doing, name, self.url)
        if isinstance(raised, ObjectNotFound) and s3errors.code(error) != "NoSuchKey":
            self._require_bucket(name)
        raise raised from error

    def _require_bucket(self, name: str) -> None:
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (ClientError, BotoCoreError) as error:
            raised = s3errors.explain(error, "looking at the bucket of", name, self.url)
            if isinstance(raised, ObjectNotFound):
                raised = RepositoryMissing(
                    f"there is no bucket {self._bucket}", hint=s3errors.BUCKET_HINT
                )
            raise raised from error

    def _too_short(
        self, name: str, offset: int, length: int | None, found: str
    ) -> StorageError:
        wanted = "the rest" if length is None else f"{length} bytes"
        return StorageError(
            f"object {name} in {self.url}: {wanted} from {offset} were asked for;"
            f" {found}",
            hint="the object is truncated, or not the one that was meant",
        )

    def _unordered(self, last: str, name: str) -> StorageError:
        return StorageError(
            f"{self.url} lists object {name} after {last}, which is not in order",
            hint="use a general purpose bucket; directory buckets have no order",
        )


def _versions(client: S3Client, bucket: str, key: str) -> list[str]:
    """Return the ids of an object's versions, those that hide it last."""
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket, Prefix=key
    )
    versions: list[str] = []
    markers: list[str] = []
    for page in pages:
        held, hiding = page.get("Versions", ()), page.get("DeleteMarkers", ())
        versions += [one["VersionId"] for one in held if one["Key"] == key]
        markers += [one["VersionId"] for one in hiding if one["Key"] == key]
    return versions + markers


def _earlier(client: S3Client, bucket: str, prefix: str) -> dict[str, list[str]]:
    """Return by key the ids of versions that a plain read does not find."""
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket, Prefix=prefix
    )
    found: dict[str, list[str]] = {}
    for page in pages:
        for one in page.get("Versions", ()):
            if not one["IsLatest"]:
                found.setdefault(one["Key"], []).append(one["VersionId"])
    return found
