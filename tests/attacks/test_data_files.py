"""The data directory's owner puts something else where drkit reads a file."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.model.label import BackupKind
from drkit.operations.archive import cluster_system_identifier
from drkit.operations.framers.serving import Framer
from drkit.operations.proving.identity import _postmaster
from drkit.postgres.control import read_control
from drkit.postgres.files import NotRegular, open_regular, read_regular
from tests.operations.backup_tools import Listener, content, restored, site
from tests.operations.test_framers import KEY, asking, page_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.model.frames import FilePages
    from tests.operations.scene import Scene

PATIENCE = 60.0  # seconds
SECRET = "what only root may read"


def _in_time(work: Callable[[], object], pipes: list[Path]) -> None:
    """Run something in a thread; fail if it waits for a pipe's other end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    hangs = thread.is_alive()
    for pipe in pipes:
        os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))  # lets whoever waits go on
    thread.join(PATIENCE)
    assert not hangs, "waits for a named pipe"
    if failures:
        raise failures[0]


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


def _replace(data: Path, names: list[str], secret: Path) -> None:
    pipe, door, link, folder = (data / name for name in names)
    for one in (pipe, door, link, folder):
        one.unlink()
    os.mkfifo(pipe)
    _socket(door)
    link.symlink_to(secret)
    folder.mkdir()


@pytest.mark.parametrize("kind", [BackupKind.FULL, BackupKind.INCREMENTAL])
def test_files_that_turn_into_something_else_during_the_copy(
    pg_version: int, kind: BackupKind, scene: Scene
) -> None:
    protected = scene.protect(pg_version)
    cluster = protected.cluster
    data = Path(cluster.data_directory)
    names = ["a pipe", "a socket", "a link", "a folder"]
    for name in names:
        (data / name).write_text("a file")
    secret = scene.directory() / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    if kind is BackupKind.INCREMENTAL:
        site(protected).take()
        for name in names:
            (data / name).write_text("another file")
    listener = Listener({"copy": lambda: _replace(data, names, secret)})
    _in_time(lambda: site(protected, jobs=2).take(listener, kind), [data / "a pipe"])
    told = [text for text, _ in listener.warnings]
    for name in names:
        assert f"{name} is no file any more and was left out" in told
    protected.archive_now()
    with restored(scene, protected) as found:
        there = {one.name for one in Path(found.data_directory).iterdir()}
        assert not there & set(names)
        assert content(found) == content(cluster)


def test_a_pipe_in_the_place_of_changed_pages(tmp_path: Path) -> None:
    """As a framer meets it, which reads pages in a process of its own."""
    page_file(tmp_path / "1", 4)
    os.mkfifo(tmp_path / "2")
    (tmp_path / "3").symlink_to(tmp_path / "1")
    framer = Framer(KEY, 3)
    frames: list[object] = []

    def ask(pages: FilePages) -> None:
        frames.append(framer.frame([pages], verify=True))

    _in_time(lambda: ask(asking(0, tmp_path / "2", [1])), [tmp_path / "2"])
    ask(asking(0, tmp_path / "3", [1]))
    assert frames == [None, None]
    ask(asking(0, tmp_path / "1", [1]))
    assert frames[-1] is not None


def test_small_files_that_are_pipes(tmp_path: Path) -> None:
    (tmp_path / "global").mkdir()
    control = tmp_path / "global/pg_control"
    os.mkfifo(control)
    os.mkfifo(tmp_path / "postmaster.pid")

    def read() -> None:
        assert cluster_system_identifier(str(tmp_path)) is None
        with pytest.raises(Exception, match="no regular file"):
            read_control(str(control))
        with pytest.raises(NotRegular):
            _postmaster(str(tmp_path))

    _in_time(read, [control, tmp_path / "postmaster.pid"])


def test_what_is_opened_is_a_regular_file_or_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    _socket(tmp_path / "socket")
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "link to pipe").symlink_to("pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("pipe", "socket", "link", "", "link to pipe"):
        with pytest.raises(NotRegular):
            open_regular(str(tmp_path / name))
    for name in ("link to pipe", "pipe"):
        with pytest.raises(NotRegular):
            open_regular(str(tmp_path / name), follow=True)
    with pytest.raises(NotRegular):
        open_regular("/dev/null")
    with pytest.raises(FileNotFoundError):
        open_regular(str(tmp_path / "none"))
    assert read_regular(str(tmp_path / "link"), follow=True) == b"content"
    assert read_regular(str(tmp_path / "file")) == b"content"
    assert len(os.listdir("/proc/self/fd")) == before
