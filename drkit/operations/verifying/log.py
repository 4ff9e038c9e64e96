"""The log's entries, one by one: a reader takes most of them from copies in blocks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, KeyUnavailable, ObjectNotFound, StorageError
from drkit.model.damage import Damage, DamageKind
from drkit.repository import limits
from drkit.repository.objects import unseal

if TYPE_CHECKING:
    from drkit.repository.log_entries import LoggedEntry
    from drkit.repository.repository import Repository


def check_entry(repository: Repository, logged: LoggedEntry) -> Damage | None:
    """Hold an entry's own object against what was read of the log.

    Raises:
        StorageError: the store failed in a way that may pass.
    """
    name = repository.layout.log_entry(logged.sequence)
    find = repository.keyring.finder("catalog")
    code = Corrupt.exit_code
    try:
        data = repository.storage.get(name, limit=limits.sealed(limits.LOG_ENTRY))
        lineage = repository.lineage
        plain = unseal(find, lineage, name, "catalog", data, limits.LOG_ENTRY)
    except ObjectNotFound:
        what = "is missing; the log can still be read by the copy in its block"
        return Damage(name, DamageKind.MISSING, what, code)
    except (Corrupt, KeyUnavailable) as error:
        what = f"can't be used: {error.message}"
        return Damage(name, DamageKind.CONTENT, what, code)
    except StorageError as error:
        if error.transient:
            raise
        what = f"can't be read: {error.message}"
        return Damage(name, DamageKind.UNREADABLE, what, error.exit_code)
    digest = hashlib.sha256(plain).hexdigest()
    if digest != logged.digest:
        what = "is another entry than the one that the next is chained to"
        return Damage(name, DamageKind.CONTENT, what, code)
    return None
