"""From a repository's address to its driver, which alone is imported."""

from __future__ import annotations

from drkit.errors import StorageError

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from drkit.protocols import Storage


def open_storage(
    url: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    connections: int = 8,
) -> Storage:
    """Return the store at `file:///directory` or `s3://bucket/prefix`, not retrying.

    The options are for S3, as `S3Storage` explains them.

    Raises:
        StorageError: an address of another form, or the driver is not installed. The
            message does not repeat the address, since people put passwords into them.
    """
    scheme, _, place = url.partition("://")
    if scheme == "file" and place.startswith("/"):
        from drkit.storage.local import LocalStorage  # noqa: PLC0415 - only if used

        return LocalStorage(place)
    if scheme != "s3" or not place.partition("/")[0]:
        raise StorageError(
            "this is no address of a store",
            hint="write file:///absolute/path or s3://bucket/prefix",
        )
    try:
        from drkit.storage.s3 import S3Storage  # noqa: PLC0415 - half a second
    except ModuleNotFoundError as error:
        raise StorageError(
            f"S3 needs a package that is not installed: {error.name}",
            hint="install it with: pip install 'drkit[s3]'",
        ) from error
    bucket, _, prefix = place.partition("/")
    return S3Storage(
        bucket,
        prefix,
        endpoint_url=endpoint_url,
        region=region,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        connections=connections,
    )
