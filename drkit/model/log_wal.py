"""What a log says of WAL: which has expired, and which must be signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from drkit.model.wal import timeline_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from drkit.model.lsn import Lsn


@dataclass(frozen=True, slots=True)
class ExpireWal:
    """WAL is gone; deleting it may start, and no attempt that needs it may begin.

    Attributes:
        bounds: timeline and LSN before which nobody can count on its WAL any more.
    """

    TYPE: ClassVar = "expire-wal"

    bounds: tuple[tuple[int, Lsn], ...]


@dataclass(frozen=True, slots=True)
class WalSigners:
    """From here on WAL must be signed.

    Attributes:
        signers: public keys that sign it, `ed25519:` and 64 hexadecimal digits.
        since: the first segment that must be signed, of each timeline that has older
            WAL; of any other timeline all must be.
    """

    TYPE: ClassVar = "wal-signers"

    signers: tuple[str, ...]
    since: tuple[str, ...]


def signed_since(
    known: Mapping[int, str] | None, entry: WalSigners
) -> dict[int, str] | None:
    """Return by timeline the first segment that must be signed, after an entry.

    Of a timeline that is not there all must be. None: nothing must be, or the entry may
    not follow, since it would allow what must be signed not to be.
    """
    since = {timeline_of(name): name for name in entry.since}
    if not entry.signers or len(since) != len(entry.since):
        return None
    if known is None:
        return since
    raised = any(name > known.get(timeline, "") for timeline, name in since.items())
    return None if raised else {**known, **since}


def unsigned_note(since: Mapping[int, str] | None, names: Iterable[str]) -> str | None:
    """Say which of some segments may be unsigned; None if none may.

    Args:
        since: as `signed_since` returns it.
        names: of the segments.
    """
    if since is None:
        return "the WAL is not signed: whoever has its key could have changed it"
    bounds = ((name, since.get(timeline_of(name), "")) for name in names)
    older = {bound for name, bound in bounds if name < bound}
    if not older:
        return None
    return (
        f"WAL from before {', '.join(sorted(older))} is older than signatures: whoever "
        "has its key could have changed it"
    )
