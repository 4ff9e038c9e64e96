"""`drkit drill report`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import __version__, wiring
from drkit.cli import render
from drkit.cli.session import Session  # noqa: TC001  the signature is evaluated
from drkit.errors import KeyUnavailable, UsageError
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.config.policy import Policy
    from drkit.crypto.signing import Signer
    from drkit.model.quarter import Quarter
    from drkit.model.standing import ClusterEvidence
    from drkit.reports.forms import Form, WrittenFile
    from drkit.reports.report import Report

EXAMPLES = """
drkit drill report production --quarter 2026-Q1 --to reports
drkit drill report production billing --quarter 2026-Q1 --to reports --format pdf
"""


def report(
    session: Session,
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="POLICY...",
            help="Policies, by name or file; each is a cluster in the same report.",
        ),
    ] = None,
    quarter: Annotated[
        str | None,
        typer.Option(
            metavar="YYYY-Qn", help="The quarter; by default the last that is over."
        ),
    ] = None,
    to: Annotated[
        str, typer.Option(metavar="DIR", help="Where to write it; made if need be.")
    ] = ".",
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT,...",
            help="Any of html, pdf, markdown and json; they say the same.",
        ),
    ] = "html,pdf,markdown,json",
    unsigned: Annotated[
        bool,
        typer.Option(
            "--unsigned", help="Do without a signature, where keys.signing is not."
        ),
    ] = False,
) -> None:
    """Report on a quarter's drills and verifications: RTO, RPO, failures, evidence.

    Reads the repositories only; the databases may be gone. The same records give the
    same files, byte for byte. The policies' signing keys sign the files and how many
    records there were, for `drkit drill verify --report`. Exits with 0 once the report
    is written, whatever it says: a failed drill is told by its own exit code, and in
    the report.
    """
    wanted, forms = _quarter(quarter), _forms(formats)
    names: list[str | None] = [*policies] if policies else [None]
    policies_ = [session.policy(name) for name in names]
    signers = [] if unsigned else [_signer(session, policy) for policy in policies_]
    evidence = [_gather(session, policy, wanted) for policy in policies_]
    _refuse_twice([one.standing.cluster for one in evidence])
    from drkit.reports.forms import write_report
    from drkit.reports.quarter import drill_report

    found = drill_report(evidence, wanted, __version__)
    written = write_report(found, to, forms)
    signature = _sign(found, written, to, signers) if signers else None
    session.show(_text(found, written, signature), _json(found, written, signature))


def _quarter(text: str | None) -> Quarter:
    from drkit.model.quarter import Quarter

    if text is None:
        return Quarter.of(datetime.now(UTC)).back(1)
    try:
        return Quarter.parse(text)
    except ValueError as error:
        raise UsageError(
            f"--quarter: {error}", hint="give a quarter that has begun"
        ) from None


def _forms(text: str) -> frozenset[Form]:
    from drkit.reports.forms import Form

    names = [name.strip().lower() for name in text.split(",")]
    try:
        return frozenset(Form(name) for name in names)
    except ValueError:
        raise UsageError(
            f"--format: {text!r} is not understood",
            hint=f"give one or more of {', '.join(Form)}, with commas between them",
        ) from None


def _signer(session: Session, policy: Policy) -> Signer:
    try:
        return wiring.signing(policy, session.secrets).signer()
    except KeyUnavailable as error:
        raise KeyUnavailable(
            f"the report can't be signed: {error.message}",
            hint="make it where the policy's keys.signing is, or, unsigned, with "
            "--unsigned: then nothing shows that records were left out",
        ) from error


def _sign(
    found: Report, written: tuple[WrittenFile, ...], to: str, signers: list[Signer]
) -> str:
    """Write the signature beside the report's files; return its path."""
    from drkit.reports.forms import file_stem, write_beside
    from drkit.repository.report_attestation import (
        SUFFIX,
        ClusterChain,
        ReportStatement,
        sign_report,
    )

    statement = ReportStatement(
        quarter=str(found.quarter),
        drkit=found.drkit,
        files={os.path.basename(one.path): one.sha256 for one in written},
        chains=tuple(
            ClusterChain(
                one.cluster, one.system_identifier, one.chain.records, one.chain.head
            )
            for one in found.clusters
        ),
    )
    by_key = {signer.public: signer for signer in signers}
    envelope = sign_report(statement, list(by_key.values()))
    return write_beside(to, f"{file_stem(found)}{SUFFIX}", envelope)


def _gather(session: Session, policy: Policy, quarter: Quarter) -> ClusterEvidence:
    from drkit.operations.reporting import gather_evidence

    repository = wiring.open_repository(policy, session.secrets)
    return gather_evidence(repository, wiring.rules(policy), quarter)


def _refuse_twice(clusters: list[str]) -> None:
    twice = sorted({name for name in clusters if clusters.count(name) > 1})
    if twice:
        raise UsageError(
            f"{', '.join(twice)} is named twice", hint="name each policy once"
        )


def _text(
    found: Report, written: tuple[WrittenFile, ...], signature: str | None
) -> str:
    lines = [f"{found.quarter}: {found.headline}"]
    lines += [f"  {one}" for one in found.summary]
    rows = [(str(one.form), f"{one.path}, {render.size(one.bytes)}") for one in written]
    rows.append(("signature", signature or "none: --unsigned"))
    return page([*lines, "", render.facts(rows)])


def _json(
    found: Report, written: tuple[WrittenFile, ...], signature: str | None
) -> dict[str, Any]:
    from drkit.reports.as_json import content_digest

    return {
        "quarter": str(found.quarter),
        "over": found.over,
        "clusters": [one.cluster for one in found.clusters],
        "status": str(found.status),
        "headline": found.headline,
        "summary": list(found.summary),
        "content_sha256": content_digest(found),
        "signature": signature,
        "files": [
            {
                "format": str(one.form),
                "path": one.path,
                "bytes": one.bytes,
                "sha256": one.sha256,
            }
            for one in written
        ],
    }
