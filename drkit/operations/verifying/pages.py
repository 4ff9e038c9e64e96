"""Verifying the page checksums of what a backup has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.model.page import PAGE
from drkit.postgres.exclusions import Fork, relation_file
from drkit.postgres.pages import failing, page_lsn

if TYPE_CHECKING:
    from drkit.model.manifest import Manifest
    from drkit.postgres.exclusions import RelationFile


class WrongPage(NamedTuple):
    """A page whose checksum is wrong: its run, and its number in its file."""

    run: int
    block: int


class PageTally:
    """What was found of pages; used by one thread.

    Attributes:
        checked: pages whose checksum was verified.
        split: pages that lie in two runs, so that their checksum could not be.
        wrong: pages that fail, and for which there is no excuse.
    """

    def __init__(self) -> None:
        self.checked = 0
        self.split = 0
        self.wrong: list[WrongPage] = []


class PageAudit:
    """The pages of one backup's main forks; free space and visibility maps may be torn.

    A page with an LSN from between the backup's start and its end may be torn, for WAL
    replay writes it anew. A page that was damaged when it was read is known to be.
    """

    def __init__(self, manifest: Manifest) -> None:
        head = manifest.head
        self._paths = manifest.paths
        self._owners = manifest.run_files()
        self._positions = manifest.runs["position"]
        self._segment_blocks = head.server.relation_segment_size
        self._excused = range(head.start.lsn, head.stop.lsn + 1)
        self._known = {(file, block) for file, block in manifest.damaged.tolist()}
        self._applies = page_checksums(manifest)

    def look(self, run: int, data: memoryview, tally: PageTally) -> None:
        """Verify the pages of a run."""
        if not self._applies:
            return
        file = int(self._owners[run])
        relation = relation_file(self._paths[file])
        if relation is None or relation.fork is not Fork.MAIN:
            return
        position = int(self._positions[run])
        first = -(-position // PAGE)
        whole = data[first * PAGE - position :]
        whole = whole[: len(whole) // PAGE * PAGE]
        tally.split += int(first * PAGE > position)
        tally.checked += len(whole) // PAGE
        for index in failing(whole, self._base(relation) + first):
            known = (file, first + index) in self._known
            lsn = page_lsn(whole[index * PAGE : (index + 1) * PAGE])
            if not known and lsn not in self._excused:
                tally.wrong.append(WrongPage(run, first + index))

    def _base(self, relation: RelationFile) -> int:
        return relation.segment * self._segment_blocks


def page_checksums(manifest: Manifest) -> bool:
    """Say whether a backup's pages carry checksums that can be verified."""
    server = manifest.head.server
    return server.data_checksums and server.block_size == PAGE
