"""Root logs in as the server's user; what other threads do meanwhile is root's."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from drkit.postgres.peer import acting_as

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.postgres.process import Account


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_one_thread_alone_becomes_somebody_else(
    tmp_path: Path, postgres_user: Account
) -> None:
    owned = tmp_path / "owned"
    owned.touch()
    os.chown(owned, postgres_user.uid, postgres_user.gid)
    meanwhile, seen = threading.Event(), []

    def look() -> None:
        meanwhile.wait(10)
        seen.append((os.geteuid(), os.getegid()))

    other = threading.Thread(target=look)
    other.start()
    own = (os.geteuid(), os.getegid())
    with acting_as(owned.stat()):
        meanwhile.set()
        other.join()
        assert (os.geteuid(), os.getegid()) == (postgres_user.uid, postgres_user.gid)
    assert seen == [own]
    assert (os.geteuid(), os.getegid()) == own
