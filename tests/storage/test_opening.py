"""From addresses to drivers, and what that costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drkit.errors import StorageError
from drkit.storage.local import LocalStorage
from drkit.storage.opening import open_storage
from drkit.storage.s3 import S3Storage
from tests.storage.conftest import BUCKET, KEYS


def test_local(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}")
    assert isinstance(storage, LocalStorage)
    storage.put("a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_s3(s3_endpoint: str, s3_admin: object) -> None:
    storage = open_storage(
        f"s3://{BUCKET}/opened/", endpoint_url=s3_endpoint, region="us-east-1", **KEYS
    )
    assert isinstance(storage, S3Storage)
    storage.put("a", b"x")
    assert storage.get("a") == b"x"
    assert storage.url == f"s3://{BUCKET}/opened"
    storage.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/srv/drkit",
        "file://host/path",
        "file:relative",
        "s3://",
        "s3:///prefix",
        "ftp://user:secret@host/",
    ],
)
def test_other_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(url)
    assert "s3://bucket/prefix" in (caught.value.hint or "")
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_local_store_imports_next_to_nothing(tmp_path: Path) -> None:
    """`wal push` starts for every segment."""
    script = """
import sys
before = set(sys.modules)
import drkit.storage.retry
from drkit.storage.opening import open_storage
storage = open_storage(sys.argv[1])
storage.put("a", b"x")
storage.get("a")
print(*sorted(m for m in set(sys.modules) - before if not m.startswith("drkit")))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, f"file://{tmp_path}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(ran.stdout.split()) <= {"errno", "stat", "pwd", "__future__"}
