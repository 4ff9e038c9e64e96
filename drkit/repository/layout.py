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

    def root(self) -> str:
        """Return the prefix of everything."""
        return f"{self.cluster}/"

    def log(self) -> str:
        """Return the prefix of the log's entries."""
        return f"{self.cluster}/log/"

    def log_entry(self, sequence: int) -> str:
        """Name an entry of the log."""
        return f"{self.log()}{sequence:010d}"

    def log_blocks(self) -> str:
        """Return the prefix of copies of the log's entries."""
        return f"{self.cluster}/log-blocks/"

    def log_block(self, first: int) -> str:
        """Name the copies of the entries from a sequence number on."""
        return f"{self.log_blocks()}{first:010d}"

    def keys(self, purpose: str = "") -> str:
        """Return the prefix of wrapped DEKs, of one purpose or of all."""
        return f"{self.cluster}/keys/{purpose}/" if purpose else f"{self.cluster}/keys/"

    def dek(self, purpose: str, key_id: bytes) -> str:
        """Return the prefix of a wrapped DEK's generations."""
        return f"{self.keys(purpose)}{key_id.hex()}/"

    def dek_generation(self, purpose: str, key_id: bytes, generation: int) -> str:
        """Name one generation of a wrapped DEK."""
        return f"{self.dek(purpose, key_id)}{generation:04d}"

    def wal_days(self) -> str:
        """Return the prefix of the pointers to the DEKs of WAL."""
        return f"{self.cluster}/wal-days/"

    def wal_day(self, day: str, number: int = 0) -> str:
        """Name the pointer to the DEK of a UTC day, `YYYYMMDD`, or a further one."""
        return f"{self.wal_days()}{day}" + (f"-{number}" if number else "")

    def backup(self, label: str, attempt: str) -> str:
        """Return the prefix of one attempt's backup."""
        return f"{self.backups()}{label}-{attempt}/"

    def backups(self) -> str:
        """Return the prefix of all backups."""
        return f"{self.cluster}/backups/"

    def manifest(self, label: str, attempt: str) -> str:
        """Name a backup's manifest."""
        return f"{self.backup(label, attempt)}manifest"

    def fingerprint(self, label: str, attempt: str) -> str:
        """Name the fingerprint that was taken with a backup."""
        return f"{self.backup(label, attempt)}fingerprint"

    def pack(self, label: str, attempt: str, number: int) -> str:
        """Name a backup's pack."""
        return f"{self.backup(label, attempt)}packs/{number:06d}"

    def wal(self, system_identifier: str) -> str:
        """Return the prefix of one system identifier's WAL."""
        return f"{self.cluster}/wal/{system_identifier}/"

    def wal_history(self, system_identifier: str) -> str:
        """Return the prefix of one system identifier's timeline histories."""
        return f"{self.wal(system_identifier)}history/"

    def wal_file(
        self, system_identifier: str, file: WalFileName, number: int = 0
    ) -> str:
        """Name a WAL file, or its place behind what is not that file."""
        name = file.name + (f"-{number}" if number else "")
        if file.kind is WalFileKind.HISTORY:
            return f"{self.wal_history(system_identifier)}{name}"
        timeline, high = int(file.name[:8], 16), int(file.name[8:16], 16)
        return f"{self.wal_group(system_identifier, timeline, high)}{name}"

    def wal_group(self, system_identifier: str, timeline: int, high: int) -> str:
        """Return the prefix of a timeline's WAL that shares the LSNs' high half."""
        return f"{self.wal(system_identifier)}{timeline:08X}/{high:08X}/"

    def leases(self) -> str:
        """Return the prefix of leases."""
        return f"{self.cluster}/leases/"

    def lease(self, attempt: str, number: int) -> str:
        """Name one renewal of an attempt's lease."""
        return f"{self.leases()}{attempt}-{number:04d}"

    def findings(self) -> str:
        """Return the prefix of what verifications found damaged."""
        return f"{self.cluster}/findings/"

    def finding(self, stamp: str, token: str) -> str:
        """Name what one verification found: a UTC time and 32 hex digits."""
        return f"{self.findings()}{stamp}-{token}"

    def evidence(self) -> str:
        """Return the prefix of the chain of evidence."""
        return f"{self.cluster}/evidence/"

    def evidence_record(self, sequence: int, number: int = 0) -> str:
        """Name a record of evidence, or its place behind what is none."""
        return f"{self.evidence()}{sequence:010d}" + (f"-{number}" if number else "")

    def timestamp(self, sequence: int) -> str:
        """Name an authority's timestamp of a record of evidence."""
        return f"{self.cluster}/timestamps/{sequence:010d}"

    def probes(self) -> str:
        """Return the prefix of proofs that a put creates only."""
        return f"{self.cluster}/probes/"

    def probe(self, token: str) -> str:
        """Name an object that proves that a put creates only."""
        return f"{self.probes()}{token}"
