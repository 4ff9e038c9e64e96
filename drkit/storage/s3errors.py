"""What an answer of S3, or the lack of one, means for a repository."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own, not the built-in
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
    SSLError,
)

from drkit.errors import (
    DrkitError,
    NoSpace,
    ObjectExists,
    ObjectNotFound,
    RepositoryMissing,
    StorageError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

BUCKET_HINT = (
    "look for typing errors in the policy's repository URL, region and endpoint, or"
    " create the bucket"
)
UNASKABLE = {"AccessDenied", "MethodNotAllowed", "NotImplemented"}  # of a feature
_FORBIDDEN_HINT = (
    "the keys need s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and"
    " s3:DeleteObject below the prefix; in a bucket that keeps versions also"
    " s3:ListBucketVersions and s3:DeleteObjectVersion. Without s3:ListBucket, S3 also"
    " answers 403 for an object that is not there"
)
_HINTS = {
    "InvalidAccessKeyId": "the store does not know this access key id",
    "SignatureDoesNotMatch": "the secret access key is not the one of this key id",
    "RequestTimeTooSkewed": "this host's clock is off; synchronise it with NTP",
    "PermanentRedirect": "the bucket lives in another region; set it in the policy",
    "AuthorizationHeaderMalformed": (
        "the bucket lives in another region; set it in the policy"
    ),
    "NotImplemented": (
        "the store can't create objects conditionally (If-None-Match), which keeps"
        " backups from being overwritten; use one that can"
    ),
}
_TRANSIENT_CODES = {
    "ConditionalRequestConflict",  # 409: another request for the name is under way
    "OperationAborted",
    "RequestTimeout",  # sent with status 400
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "BadDigest",  # the body was damaged on its way
    "XAmzContentChecksumMismatch",
}
_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
_FULL = {"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}


def code(error: ClientError | BotoCoreError) -> str:
    """Return the store's own word for the error, or its status, or nothing."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def lock(found: HeadObjectOutputTypeDef) -> str | None:
    """Say what keeps a version from being deleted, by the store's own clock."""
    if found.get("ObjectLockLegalHoldStatus") == "ON":
        return "a legal hold"
    until = found.get("ObjectLockRetainUntilDate")
    now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    return f"a lock until {until}" if until is not None and until > now else None


def explain(
    error: ClientError | BotoCoreError, doing: str, name: str, url: str
) -> DrkitError:
    """Return the error that says what `error` means.

    Args:
        doing: a verb, as in "writing".
        url: the repository's address, for messages.
    """
    doing = f"{doing} object {name} in {url}"
    if isinstance(error, ClientError):
        return _answered(error, doing, name, url)
    return _unanswered(error, doing)


def _answered(error: ClientError, doing: str, name: str, url: str) -> DrkitError:
    word = code(error)
    status = _status(error)
    if word == "NoSuchBucket":
        return RepositoryMissing(f"there is no bucket of {url}", hint=BUCKET_HINT)
    if status == 404:
        return ObjectNotFound(f"there is no object {name} in {url}")
    if status == 412:
        return ObjectExists(f"object {name} exists already in {url}")
    message = f"{doing} failed: {status} {word}{_told(error, word)}"
    if word in _FULL or status == 507:
        return NoSpace(message, hint="make room in the bucket, or raise the quota")
    hint = _HINTS.get(word, _FORBIDDEN_HINT if status in {401, 403} else None)
    return StorageError(
        message,
        hint=hint,
        transient=word in _TRANSIENT_CODES or status in _TRANSIENT_STATUS,
    )


def _unanswered(error: BotoCoreError, doing: str) -> StorageError:
    message = f"{doing} failed: {error}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        hint = "name the store's keys in the policy under repository.s3"
        return StorageError(message, hint=hint)
    if isinstance(error, SSLError):
        hint = "the store's certificate does not convince this host; see its CA bundle"
        return StorageError(message, hint=hint)
    lost = (
        ConnectionError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )
    hint = "see whether the endpoint answers from this host, and its proxy settings"
    return StorageError(message, hint=hint, transient=isinstance(error, lost))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _told(error: ClientError, word: str) -> str:
    told = str(error.response.get("Error", {}).get("Message", "")).strip()
    return f" ({told})" if told and told != word else ""
