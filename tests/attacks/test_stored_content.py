"""Who has every encryption key, but can't sign, forges what a backup holds.

Packs are authentic then, frame by frame, and as long as they were. Their SHA-256 is
another, which whoever reads a pack in parts does not see; but the digests of the runs
are in the manifest, and that is covered by a signature.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from drkit.crypto.sealing import Opener, open_whole
from drkit.errors import Corrupt
from drkit.operations.delta import patch_files
from drkit.operations.delta_plan import existing_directory
from drkit.operations.filling import write_files
from drkit.postgres.target_checks import MARKER
from drkit.postgres.target_directory import TargetDirectory
from drkit.repository.chain import ChainContent, read_chain, read_parent
from drkit.repository.codec import FRAME_BYTES
from drkit.repository.unpacking import PackReader
from tests.builders import World, back_up, copy_of, replace_object
from tests.chains import Changed, back_up_over, laid_over
from tests.operations.verify_tools import Quiet
from tests.vectors.forge import Forger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.model.log import Commit
    from drkit.repository.repository import Repository
    from drkit.storage.memory import MemoryStorage
    from tests.chains import Files

PAGE = 8192
FRAMES = 8
CUT, WHOLE = 3, 6  # frames of which something is still needed
FORGED = b"a row that was never there".ljust(64, b".")
# What an incremental leaves of frame CUT, as a stretch of the file: whole pages, with
# an outdated one between them, which a restore writes as well.
LEFT = (CUT * FRAME_BYTES + 40 * PAGE, CUT * FRAME_BYTES + 90 * PAGE)
OUTDATED = CUT * FRAME_BYTES + 60 * PAGE


class Scene:
    """A full backup of a big file, of which an incremental leaves little."""

    def __init__(self) -> None:
        self.world = World()
        repository = self.world.repository()
        big = os.urandom(FRAMES * FRAME_BYTES)  # a frame is stored as it is
        below: Files = {b"big": big, b"small": b"x" * 100}
        self.full = back_up(repository, below, pack_size=64 << 20)
        kept = WHOLE * FRAME_BYTES, (WHOLE + 1) * FRAME_BYTES
        new = [(0, LEFT[0]), (OUTDATED, OUTDATED + PAGE), (LEFT[1], kept[0])]
        runs = [(at, bytes(end - at)) for at, end in [*new, (kept[1], len(big))]]
        changed = {b"big": Changed(len(big), len(big), tuple(runs))}
        self.last = back_up_over(repository, self.full, changed)
        self.files = laid_over(below, changed)

    def forged(self, position: int) -> Repository:
        """Return the repository as a thief of its keys leaves it.

        Args:
            position: where in the big file his bytes stand.
        """
        frame, offset = divmod(position, FRAME_BYTES)
        storage = copy_of(self.world.storage)
        repository = World(storage, self.world.keys).repository()
        backup = self.full.backup.label, self.full.attempt
        forge(repository, storage, repository.layout.pack(*backup, 0), frame, offset)
        return World(storage, self.world.keys).repository()


def forge(
    repository: Repository, storage: MemoryStorage, name: str, frame: int, offset: int
) -> None:
    """Put FORGED into a frame of a pack, and seal it all anew: as long, and authentic.

    All it takes is the keys: frames, tags, index and commitment are right.
    """
    data = storage.get(name)
    find = repository.keyring.finder("backup")
    opener = Opener(find, repository.lineage, name, "backup", data)
    payloads = [(p, row.plain, row.codec) for row, p in open_whole(opener, name, data)]
    plain, length, codec = payloads[frame]
    assert codec == 0
    changed = plain[:offset] + FORGED + plain[offset + len(FORGED) :]
    payloads[frame] = changed, length, codec
    again = Forger(opener.dek.secret, repository.lineage, "backup").seal(name, payloads)
    assert len(again) == len(data)
    replace_object(storage, name, again)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def fill(repository: Repository, commit: Commit, root: Path) -> None:
    page_map = read_chain(repository, commit)
    with closing(TargetDirectory(str(root), {}, None)) as target:
        target.begin()
        write_files(repository, page_map, target, Quiet(), 2)


def patch(repository: Repository, commit: Commit, root: Path) -> None:
    """Restore over a directory in which everything differs."""
    root.mkdir(exist_ok=True)
    (root / MARKER).write_text("{}")
    page_map = read_chain(repository, commit)
    with closing(existing_directory(page_map, str(root), {}, None)) as target:
        target.begin()
        patch_files(repository, page_map, target, Quiet(), 2)


def refused(
    scene: Scene, repository: Repository, restore: Callable[[], object], frame: int
) -> None:
    with pytest.raises(Corrupt) as caught:
        restore()
    full = scene.full
    pack = repository.layout.pack(full.backup.label, full.attempt, 0)
    for named in (pack, f"frame {frame} ", "big"):
        assert named in caught.value.message


PLACES = {
    "a whole run": WHOLE * FRAME_BYTES + 5 * PAGE,
    "a piece that was cut": LEFT[0] + 3 * PAGE,
    "what lies between two pieces and is written as well": OUTDATED + 100,
    "what is outdated of a run": LEFT[1] + PAGE,
}


@pytest.mark.parametrize("restore", [fill, patch])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_nothing_that_was_forged_is_restored(
    scene: Scene,
    tmp_path: Path,
    place: int,
    restore: Callable[[Repository, Commit, Path], None],
) -> None:
    repository, root = scene.forged(place), tmp_path / "restored"
    frame = place // FRAME_BYTES
    refused(scene, repository, lambda: restore(repository, scene.last, root), frame)
    written = root / "big"
    assert not written.exists() or FORGED not in written.read_bytes()
    assert (root / MARKER).exists(), "no server starts in it"


@pytest.mark.parametrize("restore", [fill, patch])
def test_what_nobody_forged_is_restored(
    scene: Scene,
    tmp_path: Path,
    restore: Callable[[Repository, Commit, Path], None],
) -> None:
    root = tmp_path / "restored"
    restore(scene.world.repository(), scene.last, root)
    for path in (b"big", b"small"):
        assert (root / os.fsdecode(path)).read_bytes() == scene.files[path]


def test_a_single_page_is_refused(scene: Scene) -> None:
    """As an incremental fetches pages that it can't tell by a digest."""
    place = PLACES["a piece that was cut"]
    repository = scene.forged(place)
    content = ChainContent(repository, read_parent(repository, scene.last), {})
    number = content.chain.find(b"big")
    assert number is not None
    at = place // PAGE * PAGE
    refused(scene, repository, lambda: content.read(number, at, PAGE), CUT)
    # of the run that it belongs to, every page is; of others, none
    refused(scene, repository, lambda: content.read(number, at + PAGE, PAGE), CUT)
    other = WHOLE * FRAME_BYTES
    expected = scene.files[b"big"]
    assert expected is not None
    assert content.read(number, other, PAGE) == expected[other : other + PAGE]


def test_a_small_file_is_refused(scene: Scene, tmp_path: Path) -> None:
    """As `pg_control`, configuration and attachments are read."""
    storage = copy_of(scene.world.storage)
    repository = World(storage, scene.world.keys).repository()
    files: Files = {b"big": os.urandom(FRAME_BYTES), b"small": os.urandom(PAGE)}
    commit = back_up(repository, files)
    name = repository.layout.pack(commit.backup.label, commit.attempt, 0)
    forge(repository, storage, name, 1, 0)
    again = World(storage, scene.world.keys).repository()
    page_map = read_chain(again, commit)
    reader = PackReader(again, page_map)
    number = page_map.find(b"small")
    assert number is not None
    with pytest.raises(Corrupt, match=f"{name}.*frame 1 .*small"):
        reader.file(number)
