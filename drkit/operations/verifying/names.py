"""Objects that nothing refers to: told, and never touched."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from drkit.model.log import AttemptState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drkit.repository.repository import Repository

_ID = "[0-9a-f]{32}"
_KNOWN = (
    r"log(?:-blocks)?/[0-9]{10}",
    rf"keys/(?:backup|wal|dump|files|catalog)/{_ID}/[0-9]{{4}}",
    r"wal-days/[0-9]{8}(?:-[0-9]+)?",
    (
        r"wal/SYSTEM/(?:[0-9A-F]{8}/){2}[0-9A-F]{24}"
        r"(?:\.partial|\.[0-9A-F]{8}\.backup)?(?:-[0-9]+)?"
    ),
    r"wal/SYSTEM/history/[0-9A-F]{8}\.history(?:-[0-9]+)?",
    rf"leases/{_ID}-[0-9]{{4}}",
    rf"probes/{_ID}",
    rf"findings/[0-9]{{8}}-[0-9]{{6}}-{_ID}",
    r"evidence/[0-9]{10}(?:-[0-9]+)?",
)
_BACKUP = re.compile(
    rf"[0-9]{{8}}-[0-9]{{6}}-[a-z]+-({_ID})/"
    r"(?:manifest|(fingerprint)|packs/([0-9]{6}))\Z"
)


def unexpected(repository: Repository, packs: Mapping[str, int]) -> list[str]:
    """Return a note for each kind of object that no backup and no log entry refers to.

    Args:
        packs: by attempt, how many packs its manifest names, where that is known.
    """
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for name, why in _strangers(repository, packs):
        counts[why] += 1
        example.setdefault(why, name)
    return [
        f"{count} object{'s' if count > 1 else ''} {why}: {example[why]}"
        f"{', …' if count > 1 else ''}"
        for why, count in counts.items()
    ]


def _strangers(
    repository: Repository, packs: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    layout, state = repository.layout, repository.log.state
    system = state.opened.system_identifier if state.opened else ""
    known = "|".join(_KNOWN).replace("SYSTEM", re.escape(system))
    expected = re.compile(f"(?:{known})\\Z")
    for info in repository.storage.list(layout.root()):
        rest = info.name.removeprefix(layout.root())
        if rest.startswith("backups/"):
            why = _of_backup(repository, rest.removeprefix("backups/"), packs)
        else:
            why = None if expected.match(rest) else "of names that drkit does not use"
        if why is not None:
            yield info.name, why


def _of_backup(
    repository: Repository, rest: str, packs: Mapping[str, int]
) -> str | None:
    """Say why an object below `backups/` is not expected; None if it is."""
    state, match = repository.log.state, _BACKUP.match(rest)
    if match is not None and match[1] not in state.attempts:
        state = repository.log.read()  # it may have begun just now
    attempt = state.attempts.get(match[1]) if match else None
    if match is None or attempt is None or not rest.startswith(attempt.begin.label):
        return "of backups that the log does not know"
    if attempt.state is AttemptState.ABANDONED:
        return "left over from abandoned backups; the next backup clears them away"
    if attempt.state is AttemptState.RUNNING:
        return None
    commit = state.backups.get(attempt.begin.label)
    if commit is None:
        return "left over from expired backups; `drkit expire` clears them away"
    unnamed = match[2] is not None and commit.backup.fingerprint is None
    if match[3] is not None:
        unnamed = int(match[3]) >= packs.get(match[1], 1 << 20)
    return "that their backup's manifest does not name" if unnamed else None
