"""The feed of a scratch instance: asked by a real shell, and by hostile writers."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt, NotFound
from drkit.operations.scratch.wal_feed import WalFeed, feeding_command
from drkit.postgres.process import current_account

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 1 << 20
FIRST, SECOND = "000000010000000000000001", "000000010000000000000002"
LAST = "000000010000000000000009"


class Archive:
    """Segments 1 to 9 of timeline 1, of which 7 is damaged; counts who asks."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pause = threading.Event()
        self.pause.set()

    def fetch(self, name: str) -> bytes:
        self.asked.append(name)
        self.pause.wait()
        if name.endswith("7"):
            raise Corrupt(f"{name} is damaged")
        if name <= LAST and name.startswith("00000001") and "." not in name:
            return name.encode() * 1000
        raise NotFound(f"{name} is not archived")


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.pause.set()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "w %f'al"


def feed_of(archive: Archive, place: Path) -> WalFeed:
    return WalFeed(str(place), current_account(), archive.fetch, SIZE)


def command(place: Path, name: str, target: Path) -> list[str]:
    """The command as the server's shell gets it."""
    text = feeding_command(str(place)).replace("%%", "\0")
    text = text.replace("%f", name).replace("%p", f"'{target}'").replace("\0", "%")
    return ["/bin/sh", "-c", text]


def ask(place: Path, name: str, target: Path) -> int:
    done = subprocess.run(command(place, name, target), timeout=20, check=False)
    return done.returncode


def test_answers_are_those_that_the_server_knows(
    archive: Archive, place: Path, tmp_path: Path
) -> None:
    target = tmp_path / "RECOVERYXLOG"
    with feed_of(archive, place) as feed:
        for name in (FIRST, FIRST, SECOND, FIRST, LAST):
            assert ask(place, name, target) == 0
            assert target.read_bytes() == name.encode() * 1000
            target.unlink()
        for name in ("00000002.history", "00000001000000000000000A"):
            assert ask(place, name, target) == 1
        assert feed.error is None
        assert ask(place, "000000010000000000000007", target) == 255
        assert not target.exists()
        assert isinstance(feed.error, Corrupt)
    assert sorted(os.listdir(place)) == ["answers", "wanted"]


def test_what_comes_next_is_fetched_before_it_is_asked_for(
    archive: Archive, place: Path, tmp_path: Path
) -> None:
    with feed_of(archive, place):
        assert ask(place, FIRST, tmp_path / "x") == 0
        deadline = time.monotonic() + 5
        while len(archive.asked) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        archive.pause.clear()  # whatever is asked for from now on waits
        assert ask(place, SECOND, tmp_path / "y") == 0
    assert sorted(archive.asked[:4]) == [
        f"00000001000000000000000{n}" for n in (1, 2, 3, 4)
    ]


def test_a_segment_that_comes_late_is_found(
    archive: Archive, place: Path, tmp_path: Path
) -> None:
    there: set[str] = {FIRST}

    def fetch(name: str) -> bytes:
        if name not in there:
            raise NotFound(name)
        return b"x"

    with WalFeed(str(place), current_account(), fetch, SIZE):
        assert ask(place, FIRST, tmp_path / "x") == 0
        assert ask(place, SECOND, tmp_path / "x") == 1
        there.add(SECOND)
        assert ask(place, SECOND, tmp_path / "x") == 0


@pytest.mark.parametrize(
    "said",
    [
        b"../../../etc/passwd\n",
        b"/etc/shadow\n",
        b"\xff\x00\n" * 100,
        b"x" * 200_000,
        b"\n" * 10_000,
        b"000000010000000000000001/../x\n",
    ],
    ids=["dots", "path", "bytes", "endless", "empty lines", "inside"],
)
def test_what_is_no_name_is_not_asked_for(
    archive: Archive, place: Path, tmp_path: Path, said: bytes
) -> None:
    with feed_of(archive, place):
        with open(place / "wanted", "wb", buffering=0) as wanted:
            view = memoryview(said)
            while view:
                view = view[wanted.write(view) :]
            wanted.write(b"\n")
        assert ask(place, LAST, tmp_path / "x") == 0
    assert {name for name in archive.asked if name <= LAST} == {LAST}


def test_answers_that_nobody_reads_stop_nothing(
    archive: Archive, place: Path, tmp_path: Path
) -> None:
    with (
        feed_of(archive, place),
        open(place / "wanted", "wb", buffering=0) as wanted,
    ):
        wanted.writelines(b"00000009.history\n" for _ in range(5000))
        deadline = time.monotonic() + 20
        while len(archive.asked) < 5000:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_links_that_were_planted_lead_nowhere(
    archive: Archive, place: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    with feed_of(archive, place) as feed:
        (place / FIRST).symlink_to(precious)
        assert ask(place, FIRST, tmp_path / "x") == 255
        assert feed.error is not None
        os.rename(place, f"{place} moved")
        os.symlink(tmp_path, place)
        (tmp_path / "wanted").symlink_to(f"{place} moved/wanted")
        with open(f"{place} moved/wanted", "wb", buffering=0) as wanted:
            wanted.write(f"{SECOND}\n".encode())
        deadline = time.monotonic() + 5
        while not Path(f"{place} moved", SECOND).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert precious.read_text() == "kept"
    assert not (tmp_path / SECOND).exists()


def test_an_error_that_nobody_foresaw_is_an_answer(place: Path, tmp_path: Path) -> None:
    def fetch(name: str) -> bytes:
        raise KeyError(name)

    with WalFeed(str(place), current_account(), fetch, SIZE) as feed:
        assert ask(place, FIRST, tmp_path / "x") == 255
    assert feed.error is not None
    assert f"{FIRST} can't be fetched: KeyError" in feed.error.message


def test_a_closed_feed_waits_for_no_store(
    archive: Archive, place: Path, tmp_path: Path
) -> None:
    archive.pause.clear()
    with feed_of(archive, place):
        asking = subprocess.Popen(command(place, FIRST, tmp_path / "x"))
        deadline = time.monotonic() + 5
        while not archive.asked:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    assert asking.wait(5) == 255, "without a feed the shell reads the end and gives up"
