"""The fixtures of the tests of backup and restore serve here as well."""

from __future__ import annotations

from tests.operations.conftest import scene, workshop

__all__ = ["scene", "workshop"]
