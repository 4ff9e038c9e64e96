"""Servers that go away in the middle of a backup, or keep back the WAL it needs."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.errors import DrkitError, PostgresUnreachable, WalMissing
from drkit.model.log import AttemptState
from tests.operations.backup_tools import (
    MOSTLY_LOCAL,
    SOURCES,
    Listener,
    assert_not_in_backup,
    assert_tidy,
    attempts,
    content,
    restored,
    site,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.operations.scene import Scene
    from tests.protect import Protected

TERMINATE = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE application_name = 'drkit backup'
"""


@pytest.fixture
def protected(scene: Scene, newest_version: int) -> Protected:
    return _protect(scene, newest_version)


def _protect(scene: Scene, version: int) -> Protected:
    made = scene.protect(version)
    made.cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    return made


def _once(act: Callable[[], object], after: int = 0) -> Callable[[int], None]:
    """Act once, when so many bytes have been read; meanwhile everybody waits."""
    lock = threading.Lock()
    left = [after]

    def advance(count: int) -> None:
        with lock:
            before, left[0] = left[0], left[0] - count
            if before >= 0 > left[0]:
                act()

    return advance


def _fails(
    protected: Protected, source: str, listener: Listener, error: type[DrkitError]
) -> DrkitError:
    broken = site(protected, source, wal_timeout=timedelta(seconds=1))
    with pytest.raises(error) as raised:
        broken.take(listener)
    assert protected.labels() == []
    assert attempts(broken) == [AttemptState.ABANDONED]
    assert_tidy(site(protected))
    return raised.value


@pytest.mark.parametrize(
    ("version", "source"),
    [(15, "stream"), (16, "local"), (18, "local"), (18, "stream")],
)
def test_immediate_shutdown_while_it_copies(
    version: int, source: str, scene: Scene
) -> None:
    protected = _protect(scene, version)
    stop = _once(lambda: protected.cluster.stop("immediate"), after=4 << 20)
    listener = Listener(on_advance=stop)
    _fails(protected, source, listener, PostgresUnreachable)
    protected.cluster.start()
    site(protected, source).take()
    with restored(scene, protected) as found:
        assert content(found) == content(protected.cluster)


@pytest.mark.parametrize("source", SOURCES)
def test_session_terminated_while_it_copies(
    source: str, pg_version: int, scene: Scene
) -> None:
    protected = _protect(scene, pg_version)
    terminate = _once(lambda: protected.cluster.rows(TERMINATE), after=4 << 20)
    error = _fails(
        protected, source, Listener(on_advance=terminate), PostgresUnreachable
    )
    assert error.hint is not None
    assert "server's log" in error.hint
    assert_not_in_backup(protected.cluster)


@pytest.mark.parametrize("phase", ["copy", "stop"])
def test_session_terminated_between_two_steps(phase: str, protected: Protected) -> None:
    listener = Listener({phase: lambda: protected.cluster.rows(TERMINATE)})
    _fails(protected, "local", listener, PostgresUnreachable)
    assert_not_in_backup(protected.cluster)


@pytest.mark.parametrize("source", MOSTLY_LOCAL)
def test_shutdown_while_it_waits_for_wal(source: str, protected: Protected) -> None:
    """The backup itself has ended well; its last segment is never archived."""
    protected.cluster.rows("ALTER SYSTEM SET archive_command = '/bin/false'")
    protected.cluster.rows("SELECT pg_reload_conf()")
    listener = Listener({"wal": lambda: protected.cluster.stop("immediate")})
    error = _fails(protected, source, listener, WalMissing)
    assert "the server could not be asked why" in error.message


@pytest.mark.parametrize("source", SOURCES)
def test_wal_that_never_arrives(source: str, protected: Protected) -> None:
    protected.cluster.rows("ALTER SYSTEM SET archive_command = '/bin/false'")
    protected.cluster.rows("SELECT pg_reload_conf()")
    error = _fails(protected, source, Listener(), WalMissing)
    lacking = re.match("WAL segment (\\w{24}) was not archived", error.message)
    assert lacking
    assert protected.cluster.wal_path(f"archive_status/{lacking[1]}.ready").exists()
    failed = protected.cluster.sql("SELECT last_failed_wal FROM pg_stat_archiver")
    assert f"archiving {failed} failed last at 20" in error.message
    assert "archive_command is /bin/false" in error.message
    assert_not_in_backup(protected.cluster)


def test_archiving_that_was_switched_off_by_an_empty_command(
    protected: Protected,
) -> None:
    protected.cluster.rows("ALTER SYSTEM SET archive_command = ''")
    protected.cluster.rows("SELECT pg_reload_conf()")
    error = _fails(protected, "local", Listener(), WalMissing)
    assert "archive_command is empty" in error.message
