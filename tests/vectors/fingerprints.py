"""The second reader's part for fingerprints, from the document alone."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.vectors.columns import need, parse_json

if TYPE_CHECKING:
    from tests.vectors.reader import Reader

MAX_FINGERPRINT = 1 << 30


def read_fingerprint(reader: Reader, label: str) -> dict[str, Any] | None:
    """Return the fingerprint that was taken with a backup; None if there was none."""
    head = reader.chain(label)[-1].head
    place, listed = head["fingerprint"], reader.live()[label]["backup"]["fingerprint"]
    if place is None:
        need(listed is None, f"{label}: the log names a fingerprint")
        return None
    name = f"{reader.cluster}/backups/{label}-{head['attempt']}/fingerprint"
    need(place["name"] == name, f"{label}: name of the fingerprint")
    need(listed == {of: place[of] for of in ("mode", "lsn")}, f"{name}: the log")
    stored = reader.object(name)
    need(len(stored) == place["size"], f"{name}: size")
    need(hashlib.sha256(stored).hexdigest() == place["sha256"], f"{name}: digest")
    found = parse_json(reader.plain(name, "catalog", MAX_FINGERPRINT), "fingerprint")
    for member in ("mode", "lsn", "restore_point"):
        need(found[member] == place[member], f"{name}: {member}")
    need(found["restore_point"] in (None, f"drkit {label}"), f"{name}: its name")
    need(found["mode"] in ("sampled", "exact"), f"{name}: mode")
    need(datetime.fromisoformat(found["taken_at"]).tzinfo, f"{name}: time")
    for database in found["databases"]:
        _check(name, database)
    return found


def _check(name: str, database: dict[str, Any]) -> None:
    for rows, digest, percent, skipped in database["tables"].values():
        need(rows >= 0 and 0 < percent <= 100, f"{name}: a table")
        need(re.fullmatch("[0-9a-f]{32}", digest), f"{name}: a digest")
        need(skipped == sorted(set(skipped)), f"{name}: blocks left out")
    for sequence in database["sequences"].values():
        need(len(sequence) == 5 and sequence[2] != 0, f"{name}: a sequence")
    for section, changed in database["unstable"]:
        need(section in database["facts"], f"{name}: {changed}")
