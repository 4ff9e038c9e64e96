"""Is the chain of evidence whole, and of its time, as the log names it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import Corrupt
from drkit.model.damage import Damage, DamageKind
from drkit.repository.evidence import read_chain

if TYPE_CHECKING:
    from drkit.repository.repository import Repository

_SHOWN = 3


def check_evidence(repository: Repository) -> tuple[Damage | None, tuple[str, ...]]:
    """Read every record; return what is wrong with the chain, and what was passed over.

    Raises:
        RepositoryMissing: the cluster was never set up here.
        StorageError: the store failed in a way that may pass.
    """
    chain = read_chain(repository)
    problems = chain.doubts
    notes = tuple(f"{one}; evidence goes on behind it" for one in chain.passed)
    if not problems:
        return None, notes
    more = len(problems) - _SHOWN
    told = "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    name = repository.layout.evidence().rstrip("/")
    what = f"is no whole chain of evidence: {told}"
    return (
        Damage(name, DamageKind.CONTENT, what, Corrupt.exit_code, needed=False),
        notes,
    )
