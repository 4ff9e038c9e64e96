"""Handing evidence over, and checking what was handed over, without a repository."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto.timestamp import stamped_at
from drkit.errors import Corrupt, NoSpace, NotFound, UsageError
from drkit.model.clock import CLOCKS_DIFFER
from drkit.operations.timestamps import stored_timestamp, timestamp_path
from drkit.repository.attestation import MAX_ENVELOPE, Signed, breaks, open_record
from drkit.repository.evidence import read_chain
from drkit.repository.report_attestation import lacking, open_report

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from drkit.repository.evidence import Chain
    from drkit.repository.report_attestation import ReportStatement, SignedReport
    from drkit.repository.repository import Repository


class ExportedFile(NamedTuple):
    """A record in a file of its own: the envelope, byte for byte."""

    path: str
    record: Signed


class Export(NamedTuple):
    """What was written, and what is wrong with the chain it is from."""

    files: tuple[ExportedFile, ...]
    problems: tuple[str, ...]


class Verdict(NamedTuple):
    """What a file turned out to be.

    Attributes:
        signed: None where `problem` says why.
        hint: what to do about the problem, if that is known.
        timestamp: an authority's time of it; None where there is none, or whom to
            believe was not said.
    """

    path: str
    signed: Signed | None
    problem: str = ""
    hint: str | None = None
    timestamp: datetime | None = None


class ReportVerdict(NamedTuple):
    """What a report's signature turned out to be.

    Attributes:
        signed: None where `problem` says why.
        hint: what to do about the problem, if that is known.
        checked: the report's files that lie beside it, and are as they were signed.
    """

    path: str
    signed: SignedReport | None
    problem: str = ""
    hint: str | None = None
    checked: tuple[str, ...] = ()


class Verdicts(NamedTuple):
    """What came of files that were handed over.

    Attributes:
        problems: of the chain that the sound files should make, and of what the report
            says that it was made of; empty if all is there.
        report: None if none was given to hold the files against.
    """

    files: tuple[Verdict, ...]
    problems: tuple[str, ...]
    report: ReportVerdict | None = None

    @property
    def good(self) -> bool:
        """Whether every file is sound, all make a chain, and the report says so."""
        report = self.report is None or self.report.signed is not None
        return report and not self.problems and all(one.signed for one in self.files)


def list_evidence(repository: Repository) -> Chain:
    """Return the chain of evidence, and whatever is wrong with it.

    Raises:
        RepositoryMissing: this cluster was never set up here.
        Corrupt: the log is damaged.
    """
    return read_chain(repository)


def export_evidence(
    repository: Repository, directory: str, sequence: int | None, *, every: bool
) -> Export:
    """Write records to files that `drkit drill verify` checks anywhere.

    A file that is there with the same content is left as it is.

    Args:
        repository: of the cluster.
        directory: where they go; made if need be.
        sequence: of one record; None: the newest.
        every: all of them.

    Raises:
        NotFound: there is no such record that could be read.
        UsageError: a file is there with other content, or can't be written.
        NoSpace: the disk is full.
    """
    chain = read_chain(repository)
    records = chain.records if every else (_one(repository, chain, sequence),)
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
        files = tuple(_write(directory, repository, one) for one in records)
    except OSError as error:
        raise _refused(directory, error) from error
    return Export(files, chain.doubts)


def verify_files(
    paths: Sequence[str],
    trusted: Collection[bytes] | None,
    clusters: Collection[str] = (),
    report: str | None = None,
    roots: str | None = None,
) -> Verdicts:
    """Check records in files: signatures, structure, and the chain they make.

    Without a report nothing tells that the newest records, or the first, were left out.

    Args:
        paths: of the files, in any order.
        trusted: public keys to believe; None takes the keys that the files name.
        clusters: whose records they must be; any, if empty.
        report: path of a report's signature: all that it was made of must be there, and
            its own files, where they lie beside it, must be as they were signed.
        roots: path of the certificates, in PEM, of authorities whose timestamps, beside
            the files, are believed; None: timestamps are not looked at.

    Raises:
        NotFound, UsageError: a file is not there, or can't be read.
    """
    verdicts = tuple(_verify(path, trusted, clusters) for path in paths)
    if roots is not None:
        believed = _read(roots)
        verdicts = tuple(_stamped(one, believed) for one in verdicts)
    sound = {one.signed.digest: one.signed for one in verdicts if one.signed}
    problems = list(_chain_problems(sound.values()))
    if report is None:
        return Verdicts(verdicts, tuple(problems))
    told, wrong = _verify_report(report, trusted)
    problems += wrong
    if told.signed is not None:
        statement = _only(told.signed.statement, clusters)
        problems += lacking(statement, sound.values())
    return Verdicts(verdicts, tuple(problems), told)


def _one(repository: Repository, chain: Chain, sequence: int | None) -> Signed:
    for one in reversed(chain.records):
        if sequence is None or one.record.sequence == sequence:
            return one
    which = "no record of evidence" if sequence is None else f"no record {sequence}"
    problems = "; ".join(chain.problems)
    raise NotFound(
        f"{repository.layout.cluster} has {which}",
        hint=problems or "`drkit drill list` shows which records there are",
    )


def _write(directory: str, repository: Repository, signed: Signed) -> ExportedFile:
    """Write a record, and beside it an authority's timestamp, if it has one."""
    record = signed.record
    name = f"{record.cluster}-evidence-{record.sequence:010d}.dsse.json"
    path = os.path.join(os.path.abspath(directory), name)
    _place(path, signed.envelope)
    stamp = stored_timestamp(repository, record.sequence)
    if stamp is not None:
        _place(timestamp_path(path), stamp)
    return ExportedFile(path, signed)


def _place(path: str, content: bytes) -> None:
    """Create a file; one that is there with this content is left as it is."""
    if os.path.lexists(path):
        _refuse_other(path, content)
        return
    temporary = f"{path}.{os.urandom(4).hex()}.new"  # nobody can have put a link there
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _refuse_other(path: str, content: bytes) -> None:
    with open(path, "rb") as file:
        if file.read(len(content) + 1) == content:
            return
    raise UsageError(
        f"{path} is there already, with other content",
        hint="`drkit drill verify` tells what it is; give another directory with --to",
    )


def _refused(directory: str, error: OSError) -> NoSpace | UsageError:
    what = f"the evidence can't be written to {directory}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(what, hint="make room, or give another directory with --to")
    return UsageError(what, hint="give a directory that you may write to with --to")


def _verify(
    path: str, trusted: Collection[bytes] | None, clusters: Collection[str]
) -> Verdict:
    data = _read(path)
    if len(data) > MAX_ENVELOPE:
        return Verdict(path, None, f"{path} is larger than any record of evidence")
    try:
        signed = open_record(path, data, trusted)
    except Corrupt as error:
        return Verdict(path, None, error.message, error.hint)
    if clusters and signed.record.cluster not in clusters:
        what = f"{path} is of cluster {signed.record.cluster}"
        return Verdict(path, None, what, "check it with that cluster's policy")
    return Verdict(path, signed)


def _verify_report(
    path: str, trusted: Collection[bytes] | None
) -> tuple[ReportVerdict, list[str]]:
    """Return what a report's signature is, and which of its files were changed."""
    try:
        signed = open_report(path, _read(path), trusted)
    except Corrupt as error:
        return ReportVerdict(path, None, error.message, error.hint), []
    checked, changed = [], []
    for name, digest in signed.statement.files.items():
        beside = os.path.join(os.path.dirname(path), os.path.basename(name))
        found = _digest(beside)
        if found == digest:
            checked.append(beside)
        elif found is not None:
            changed.append(f"{beside} was changed after the report was signed")
    return ReportVerdict(path, signed, checked=tuple(checked)), changed


def _only(statement: ReportStatement, clusters: Collection[str]) -> ReportStatement:
    """Return what a report says of some clusters; of all, if none is named."""
    if not clusters:
        return statement
    chains = tuple(one for one in statement.chains if one.cluster in clusters)
    return replace(statement, chains=chains)


def _digest(path: str) -> str | None:
    """Return a file's SHA-256 in hex; None if it is not there."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}",
            hint="the report's files must be readable, or lie elsewhere",
        ) from error


def _stamped(verdict: Verdict, roots: bytes) -> Verdict:
    """Hold a record against the timestamp beside it; without one it stays as it is."""
    path, signed = timestamp_path(verdict.path), verdict.signed
    if signed is None or not os.path.exists(path):
        return verdict
    try:
        time = stamped_at(path, _read(path), signed.envelope, roots)
    except Corrupt as error:
        return Verdict(verdict.path, None, error.message, error.hint)
    if abs(time - signed.record.finished) > CLOCKS_DIFFER:
        what = (
            f"{verdict.path} says that it ended at {signed.record.finished}, and was "
        )
        return Verdict(verdict.path, None, f"{what}stamped at {time}")
    return verdict._replace(timestamp=time)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_ENVELOPE + 1)
    except FileNotFoundError:
        raise NotFound(
            f"there is no file {path}",
            hint="`drkit drill export` writes them where there is the repository",
        ) from None
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}",
            hint="give files that `drkit drill export` wrote",
        ) from error


def _chain_problems(records: Iterable[Signed]) -> Iterator[str]:
    ordered = sorted(records, key=lambda one: (_cluster(one), one.record.sequence))
    for cluster, links in groupby(ordered, key=_cluster):
        for problem in breaks(links):
            yield f"{cluster}: {problem}"


def _cluster(one: Signed) -> str:
    return one.record.cluster
