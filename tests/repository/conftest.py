"""Stores on an S3 server, as the drivers' own tests have them."""

from __future__ import annotations

from tests.storage.conftest import (
    contract_s3,
    empty_s3,
    make_s3,
    s3_admin,
    s3_endpoint,
)

__all__ = [
    "contract_s3",
    "empty_s3",
    "make_s3",
    "s3_admin",
    "s3_endpoint",
]
