"""What a restore's target says of the files in it that can't be made."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from drkit.postgres.target_directory import TargetDirectory

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_cannot_be_made_is_named_by_its_whole_path(tmp_path: Path) -> None:
    with closing(TargetDirectory(str(tmp_path / "data"), {}, None)) as target:
        target.begin()
        target.make_directory(b"base", 0o700)
        target.make_directory(b"base/5", 0o700)
        with pytest.raises(IsADirectoryError) as caught:
            target.open(b"base/5", 0o600)
    assert caught.value.filename == b"base/5"
