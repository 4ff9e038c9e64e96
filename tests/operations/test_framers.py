"""Processes that read changed pages: what they return, and what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from drkit.model.frames import PAGES_AT_ONCE, FilePages
from drkit.model.label import BackupKind
from drkit.model.page import PAGE
from drkit.operations.framers.process import framers
from drkit.operations.framers.serving import Framer
from drkit.postgres.pages import checksums
from drkit.repository.codec import decompress
from drkit.repository.framing import content_digest
from tests.operations.backup_tools import Listener, content, restored, site
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.frames import FilledFrame
    from drkit.operations.framers.process import ProcessFramer
    from tests.operations.scene import Scene
    from tests.protect import Protected

KEY = bytes(range(32))
SEGMENT = 131072


def page_file(path: Path, count: int, first: int = 0) -> bytes:
    """Write a relation's file of so many sound pages; return its content."""
    pages = np.frombuffer(os.urandom(count * PAGE), np.uint8).copy()
    rows = pages.reshape(count, PAGE)
    rows[:, 14:16] = (0, 32)  # pd_upper: none of them is new
    rows[:, 8:10] = checksums(rows.data.cast("B"), first).view(np.uint8).reshape(-1, 2)
    path.write_bytes(rows.tobytes())
    return rows.tobytes()


def asking(file: int, path: Path, blocks: Sequence[int], first: int = 0) -> FilePages:
    return FilePages(
        file,
        os.fsencode(path),
        os.fsencode(path.parent),
        None,
        np.array(blocks, np.int64),
        first,
    )


def holds(frame: FilledFrame | None, contents: dict[int, bytes]) -> list[int]:
    """Compare a frame's runs with files; return the blocks that it holds, in order."""
    assert frame is not None
    plain = decompress("", bytes(frame.payload), frame.plain, frame.codec)
    blocks = []
    for file, position, length, _, offset, digest in frame.runs.tolist():
        data = plain[offset : offset + length]
        assert data == contents[file][position : position + length]
        assert bytes(digest) == content_digest(KEY, data)
        blocks += range(position // PAGE, (position + length) // PAGE)
    return blocks


# -- what is in a frame


def test_a_frame_holds_the_pages_of_several_files(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "1.1"
    contents = {3: page_file(one, 20), 7: page_file(two, 9, SEGMENT)}
    framer = Framer(KEY, 3)
    for _ in range(3):  # the buffers are used again
        pages = [asking(3, one, [0, 2, 3, 19]), asking(7, two, [8], SEGMENT)]
        frame = framer.frame(pages, verify=True)
        assert holds(frame, contents) == [0, 2, 3, 19, 8]
        assert frame is not None
        assert frame.runs["file"].tolist() == [3, 3, 3, 7]
        assert frame.plain == 5 * PAGE


def test_a_frame_is_full_with_as_many_pages_as_may_be_asked_for(tmp_path: Path) -> None:
    contents = {0: page_file(tmp_path / "1", PAGES_AT_ONCE + 1)}
    pages = asking(0, tmp_path / "1", range(1, PAGES_AT_ONCE + 1))
    frame = Framer(KEY, 1).frame([pages], verify=True)
    assert holds(frame, contents) == list(range(1, PAGES_AT_ONCE + 1))


def test_a_wrong_checksum_is_left_to_the_parent(tmp_path: Path) -> None:
    path, framer = tmp_path / "1", Framer(KEY, 3)
    content = bytearray(page_file(path, 4))
    content[2 * PAGE + 5000] ^= 1
    path.write_bytes(content)
    assert framer.frame([asking(0, path, [1, 2])], verify=True) is None
    good = framer.frame([asking(0, path, [1, 3])], verify=True)
    assert holds(good, {0: bytes(content)}) == [1, 3]
    unverified = framer.frame([asking(0, path, [1, 2])], verify=False)
    assert holds(unverified, {0: bytes(content)}) == [1, 2]


def test_a_page_of_another_segment_has_another_checksum(tmp_path: Path) -> None:
    path, framer = tmp_path / "1.1", Framer(KEY, 3)
    page_file(path, 2, SEGMENT)
    assert framer.frame([asking(0, path, [1], SEGMENT)], verify=True)
    assert framer.frame([asking(0, path, [1])], verify=True) is None


def test_what_is_cut_or_gone_or_no_file_is_left_to_the_parent(tmp_path: Path) -> None:
    path, framer = tmp_path / "1", Framer(KEY, 3)
    content = page_file(path, 4)
    for bad in (
        asking(0, path, [3, 4]),
        asking(0, tmp_path / "2", [0]),
        asking(0, tmp_path, [0]),
    ):
        assert framer.frame([asking(1, path, [0]), bad], verify=True) is None
    with path.open("r+b") as file:
        file.truncate(3 * PAGE + 100)
    assert framer.frame([asking(0, path, [3])], verify=True) is None
    frame = framer.frame([asking(0, path, [2])], verify=True)
    assert holds(frame, {0: content}) == [2]


def test_nothing_is_no_frame() -> None:
    assert Framer(KEY, 3).frame([], verify=True) is None


# -- the processes


@contextmanager
def ready(count: int = 2, *, set_up: bool = True) -> Iterator[Sequence[ProcessFramer]]:
    """Run framers; the block begins when all of them serve."""
    with framers(count) as started:
        assert len(started) == count
        until = time.monotonic() + 60
        for framer in started:
            if set_up:
                framer.set_up(KEY, 3)
            while not framer._is_ready():
                assert time.monotonic() < until
                time.sleep(0.02)
        yield started


def group(started: Sequence[ProcessFramer]) -> list[int]:
    """The framers' processes: those that have an end of their pipes open."""
    pipes = {os.readlink(f"/proc/self/fd/{one._answers.fileno()}") for one in started}
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                ends = {os.readlink(one) for one in (process / "fd").iterdir()}
            except OSError:
                continue
            if ends & pipes:
                found.append(int(process.name))
    return sorted(found)


def test_each_serves_by_itself_and_none_is_left(tmp_path: Path) -> None:
    contents = {0: page_file(tmp_path / "1", 8)}
    with ready() as started:
        processes = group(started)
        assert len(processes) == 2
        for block, framer in enumerate(started):
            frame = framer.frame([asking(0, tmp_path / "1", [block])], verify=True)
            assert holds(frame, contents) == [block]
        assert os.getpgid(processes[0]) == processes[0] != os.getpgid(0)
    assert not any(Path(f"/proc/{one}").exists() for one in processes)
    assert not any(framer.lost for framer in started)


def test_a_failing_block_ends_them_as_well() -> None:
    processes: list[int] = []

    def fail() -> None:
        with ready() as started:
            processes.extend(group(started))
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert len(processes) == 2
    assert not any(Path(f"/proc/{one}").exists() for one in processes)


def test_one_that_was_killed_is_done_without(tmp_path: Path) -> None:
    contents = {0: page_file(tmp_path / "1", 8)}
    pages = [asking(0, tmp_path / "1", [5])]
    with ready() as started:
        os.kill(group(started)[0], signal.SIGKILL)
        answers = [framer.frame(pages, verify=True) for framer in started]
        assert sorted(framer.lost for framer in started) == [False, True]
        for framer, answer in zip(started, answers, strict=True):
            assert framer.lost or holds(answer, contents) == [5]
            again = framer.frame(pages, verify=True)
            assert framer.lost == (again is None)


def test_one_that_has_only_begun_is_not_waited_for(tmp_path: Path) -> None:
    page_file(tmp_path / "1", 1)
    with framers(2) as started:
        begun = time.monotonic()
        assert started[0].frame([asking(0, tmp_path / "1", [0])], verify=True) is None
        assert time.monotonic() - begun < 0.05
        assert not started[0].lost


def test_there_are_none_for_one_worker_or_one_processor() -> None:
    with framers(1) as started:
        assert not started
    usable = os.sched_getaffinity(0)
    with framers(64) as started:
        assert len(started) == len(usable)
    os.sched_setaffinity(0, {min(usable)})
    try:
        with framers(4) as started:
            assert not started
    finally:
        os.sched_setaffinity(0, usable)


def test_they_end_with_a_parent_that_was_killed() -> None:
    program = """
import time
from drkit.operations.framers.process import framers
with framers(2) as started:
    while not all(one._is_ready() for one in started):
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout as told:
        assert told.readline() == "ready\n"
        (first,) = children(parent.pid)
        processes = [first, *children(first)]
        assert len(processes) == 2
        parent.kill()
        parent.wait()
    until = time.monotonic() + 10
    while any(map(running, processes)):
        assert time.monotonic() < until
        time.sleep(0.02)


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(one) for one in listed.split()]


def running(process: int) -> bool:
    """Whether a process is there, and not only left to be waited for."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def test_they_import_nothing_from_the_working_directory(tmp_path: Path) -> None:
    """Who runs drkit in a directory of others' must not run others' modules."""
    trap = "import pathlib; pathlib.Path('sprung').touch()\n"
    for name in ("numpy", "pickle", "drkit", "zstandard"):
        (tmp_path / f"{name}.py").write_text(trap)
    program = """
import os, sys
from drkit.operations.framers.process import framers
os.chdir(sys.argv[1])
with framers(2) as started:
    while not all(one._is_ready() for one in started):
        assert not any(one.lost for one in started)
"""
    root = str(Path(__file__).parents[2])
    argv = [sys.executable, "-P", "-c", program, str(tmp_path)]
    done = subprocess.run(
        argv,
        check=False,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "sprung").exists()


# -- in a backup


@pytest.fixture
def protected(scene: Scene) -> Protected:
    made = scene.protect(18, {"summarize_wal": "on"})
    made.cluster.psql("""
        CREATE TABLE big AS
            SELECT n, repeat(md5(n::text), 10) AS text FROM generate_series(1, 40000) n;
        CREATE INDEX ON big (n);
        CHECKPOINT;
    """)
    return made


CHANGE = "UPDATE big SET text = 'other' WHERE n % 37 = 0; CHECKPOINT"


def test_a_backup_with_them_restores_to_the_same(
    scene: Scene, protected: Protected
) -> None:
    protected.backup()
    protected.cluster.psql(CHANGE)
    expected = content(protected.cluster)
    read: list[int] = []
    with ready(set_up=False) as started:
        for framer in started:
            original = framer.frame

            def counting(
                pages: Sequence[FilePages], *, verify: bool, original=original
            ) -> FilledFrame | None:
                frame = original(pages, verify=verify)
                read.append(len(frame.runs) if frame else 0)
                return frame

            framer.frame = counting  # type: ignore[method-assign]
        taken = site(protected, jobs=2, framers=started).taken(
            kind=BackupKind.INCREMENTAL
        )
    assert taken.parent is not None
    assert len(read) > 4
    assert all(read)
    protected.archive_now()
    with restored(scene, protected, taken.summary.label) as cluster:
        assert content(cluster) == expected


def test_a_backup_goes_on_without_them(scene: Scene, protected: Protected) -> None:
    protected.backup()
    protected.cluster.psql(CHANGE)
    expected = content(protected.cluster)
    with ready(set_up=False) as started:
        processes = group(started)

        def kill() -> None:
            for one in processes:
                os.kill(one, signal.SIGKILL)

        listener = Listener(at={"copy": kill})
        taken = site(protected, jobs=2, framers=started).taken(
            listener, BackupKind.INCREMENTAL
        )
    assert taken.parent is not None
    assert [told for told, _ in listener.warnings if "2 of the 2 processes" in told]
    protected.archive_now()
    with restored(scene, protected, taken.summary.label) as cluster:
        assert content(cluster) == expected


def test_a_damaged_page_is_still_reported(protected: Protected) -> None:
    protected.backup()
    protected.cluster.psql(CHANGE)
    file = protected.cluster.sql("SELECT pg_relation_filepath('big')")
    with Path(protected.cluster.data_directory, file).open("r+b") as rotting:
        rotting.seek(3 * PAGE + 4000)
        rotting.write(b"rotten")
    done = protected.drkit("backup", NAME, "--type", "incremental", "--jobs", "2")
    assert done.returncode == 3, done.stderr
    assert b"page 3 of" in done.stderr
