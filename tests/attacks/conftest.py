"""Fixtures of the tests of backup, restore and stores serve here as well."""

from __future__ import annotations

from tests.operations.conftest import scene, workshop
from tests.storage.conftest import make_s3, s3_admin, s3_endpoint

__all__ = ["make_s3", "s3_admin", "s3_endpoint", "scene", "workshop"]
