"""What a fingerprint is taken of, and what became of it, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from drkit.model.copied import BackupEnd
    from drkit.model.fingerprint import Fingerprint
    from drkit.model.head import ServerDescription


class Copy(NamedTuple):
    """The copy that a fingerprint is to prove.

    Attributes:
        seconds: that the backup took so far.
    """

    label: str
    server: ServerDescription
    end: BackupEnd
    seconds: float


class Attempted(NamedTuple):
    """A fingerprint before it is stored, or why there is none.

    Attributes:
        ended: whether the WAL segment that holds its moment was ended.
    """

    fingerprint: Fingerprint | None
    seconds: float
    warnings: tuple[str, ...] = ()
    ended: bool = False
