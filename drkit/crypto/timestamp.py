"""Timestamps of an authority, by RFC 3161: that bytes were there at a time.

https://www.rfc-editor.org/rfc/rfc3161; a reply is kept as it came, so that others read
it too: `openssl ts -verify -data FILE -in FILE.tsr -CAfile ROOTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import Corrupt, UsageError

if TYPE_CHECKING:
    from datetime import datetime

REPLY_TYPE = "application/timestamp-reply"
QUERY_TYPE = "application/timestamp-query"
MAX_REPLY = 1 << 20
_INSTALL = "install what it takes: pip install 'drkit[timestamps]'"


def query(data: bytes) -> bytes:
    """Return what is asked of an authority, in DER: a digest, and nothing of the data.

    Raises:
        UsageError: the library for it is not installed.
    """
    try:
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder  # noqa: PLC0415
    except ImportError:
        raise UsageError("timestamps take rfc3161-client", hint=_INSTALL) from None
    builder = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256)
    return bytes(builder.build().as_bytes())


def stamped_at(source: str, reply: bytes, data: bytes, roots: bytes) -> datetime:
    """Verify an authority's reply; return its time.

    Args:
        source: where the reply is from, for errors.
        reply: in DER.
        data: what it must be of.
        roots: certificates to believe, in PEM.

    Raises:
        Corrupt: it is no reply, is of other bytes, or of an authority that is not
            believed.
        UsageError: the certificates can't be read, or the library is not installed.
    """
    try:
        from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415
        from rfc3161_client import (  # noqa: PLC0415
            VerificationError,
            VerifierBuilder,
            decode_timestamp_response,
        )
    except ImportError:
        raise UsageError("timestamps take rfc3161-client", hint=_INSTALL) from None
    try:
        believed = load_pem_x509_certificates(roots)
    except ValueError:
        raise UsageError(
            "the timestamp authority's certificates can't be read",
            hint="give a file with its root certificate in PEM",
        ) from None
    try:
        found = decode_timestamp_response(reply)
        VerifierBuilder(roots=believed).build().verify_message(found, data)
        time = found.tst_info.gen_time
    except (ValueError, VerificationError) as error:
        raise Corrupt(
            f"{source} is no timestamp that can be believed: {error}",
            hint="it is of another file, was changed, or is by an authority whose root "
            "certificate is another one",
        ) from None
    return time
