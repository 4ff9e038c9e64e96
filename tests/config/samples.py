"""Policies for tests: a right one, and ways to make it wrong."""

from __future__ import annotations

GOOD = """\
name: production
cluster:
  url: postgresql://drkit@/postgres?host=/var/run/postgresql&port=5432
  data_directory: /var/lib/postgresql/15/main
  system_identifier: "7412345678901234567"
repository:
  url: file:///srv/drkit
keys:
  provider: local
  backup: file:keys/backup.key
  wal: file:/etc/drkit/keys/wal.key
  dump: env:DRKIT_SECRET_DUMP
  files: credential:files
  catalog: file:/etc/drkit/keys/catalog.key
  signing: file:/etc/drkit/keys/signing.key
  trusted:
    - ed25519:0000000000000000000000000000000000000000000000000000000000000000
backup:
  source: local
  jobs: 2
  schedule: {full: sunday at 02:00, incremental: hourly}
retention:
  full: 4
objectives: {rto: 15 minutes, rpo: 5 minutes}
"""


def line_of(text: str, start: str) -> int:
    """Return the number of the only line that begins so, indentation aside."""
    (found,) = (
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip().startswith(start)
    )
    return found


def changed(old: str, new: str, text: str = GOOD) -> str:
    """Return a policy with one passage replaced, which must be there once."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def policy(name: str, system_identifier: int = 7412345678901234567) -> str:
    """Return a right policy of this name."""
    text = changed("name: production", f"name: {name}")
    return changed("7412345678901234567", str(system_identifier), text)
