"""Every object name, once. The grammar is in docs/repository-format.md, "Names"."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.model.wal import WalFileKind

if TYPE_CHECKING:
    from drkit.model.wal import WalFileName

REPOSITORY = "drkit.json"


class Layout(NamedTuple):
    """The names of one cluster's objects."""

    cluster: str

    def log(self) -> str:
        """Return the prefix of the log's entries."""
        return f"{self.cluster}/log/"

    def log_entry(self, sequence: int) -> str:
        """Name an entry of the log."""
        return f"{self.log()}{sequence:010d}"

    def keys(self, purpose: str = "") -> str:
        """Return the prefix of wrapped DEKs, of one purpose or of all."""
        return f"{self.cluster}/keys/{purpose}/" if purpose else f"{self.cluster}/keys/"

    def dek(self, purpose: str, key_id: bytes) -> str:
        """Return the prefix of a wrapped DEK's generations."""
        return f"{self.keys(purpose)}{key_id.hex()}/"

    def dek_generation(self, purpose: str, key_id: bytes, generation: int) -> str:
        """Name one generation of a wrapped DEK."""
        return f"{self.dek(purpose, key_id)}{generation:04d}"

    def wal_day(self, day: str) -> str:
        """Name the pointer to the DEK of a UTC day, `YYYYMMDD`."""
        return f"{self.cluster}/wal-days/{day}"

    def backup(self, label: str, attempt: str) -> str:
        """Return the prefix of one attempt's backup."""
        return f"{self.cluster}/backups/{label}-{attempt}/"

    def manifest(self, label: str, attempt: str) -> str:
        """Name a backup's manifest."""
        return f"{self.backup(label, attempt)}manifest"

    def pack(self, label: str, attempt: str, number: int) -> str:
        """Name a backup's pack."""
        return f"{self.backup(label, attempt)}packs/{number:06d}"

    def wal(self, system_identifier: str) -> str:
        """Return the prefix of one system identifier's WAL."""
        return f"{self.cluster}/wal/{system_identifier}/"

    def wal_history(self, system_identifier: str) -> str:
        """Return the prefix of one system identifier's timeline histories."""
        return f"{self.wal(system_identifier)}history/"

    def wal_file(self, system_identifier: str, file: WalFileName) -> str:
        """Name a WAL file."""
        if file.kind is WalFileKind.HISTORY:
            return f"{self.wal_history(system_identifier)}{file.name}"
        timeline, high = file.name[:8], file.name[8:16]
        return f"{self.wal(system_identifier)}{timeline}/{high}/{file.name}"

    def leases(self) -> str:
        """Return the prefix of leases."""
        return f"{self.cluster}/leases/"

    def lease(self, attempt: str, number: int) -> str:
        """Name one renewal of an attempt's lease."""
        return f"{self.leases()}{attempt}-{number:04d}"

    def probe(self, token: str) -> str:
        """Name an object that proves that a put creates only."""
        return f"{self.cluster}/probes/{token}"
