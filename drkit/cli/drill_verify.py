"""`drkit drill verify`: evidence that was handed over, checked without a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit.cli import render
from drkit.cli.records import measured, outcome, record_json, what
from drkit.cli.session import Session  # noqa: TC001  the signature is evaluated
from drkit.crypto.signing import parse_public
from drkit.errors import Corrupt, KeyUnavailable, UsageError
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.evidence import Check, Record
    from drkit.operations.evidence import ReportVerdict, Verdict, Verdicts
    from drkit.repository.attestation import Signed

EXAMPLES = """
drkit drill verify evidence/*.dsse.json --policy production
drkit drill verify production-evidence-0000000017.dsse.json --trusted ed25519:3d40…
"""
_UNCHECKED = (
    "Nobody vouched for the signer: this proves only that nobody without that key "
    "changed anything. Ask the cluster's owner for `keys.trusted`, and give it with "
    "--trusted."
)


def verify(
    session: Session,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Written by `drkit drill export`."),
    ],
    trusted: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ed25519:HEX", help="A public key to believe; may be repeated."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="Believe the keys that this policy trusts, for its cluster only.",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A report's signature: all that it was made of must be given.",
        ),
    ] = None,
    timestamp_roots: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Whose timestamps beside the files to believe (PEM)."
        ),
    ] = None,
) -> int:
    """Check signed records: who signed them, and that they are whole and in order.

    Needs no repository, no database and no network. Exits with 15 if a file is not what
    was signed, is signed by another key, or if one is missing between those given; that
    the newest ones were left out, or the first, only --report tells. Exits with 13 if
    nobody vouches for the signer, by --trusted or --policy.
    """
    from drkit.operations.evidence import verify_files

    keys, clusters = _keys(trusted or []), set()
    if policy is not None:
        loaded = session.policy(policy)
        keys |= _keys(loaded.keys.trusted)
        clusters = {loaded.name}
    vouched = policy is not None or bool(trusted)
    found = verify_files(
        files, keys if vouched else None, clusters, report, timestamp_roots
    )
    session.show(_text(found, vouched=vouched), _json(found, vouched=vouched))
    if not found.good:
        return Corrupt.exit_code
    return 0 if vouched else KeyUnavailable.exit_code


def _keys(texts: list[str] | tuple[str, ...]) -> set[bytes]:
    try:
        return {parse_public(text) for text in texts}
    except ValueError as error:
        raise UsageError(
            f"--trusted: {error}",
            hint="the policy's `keys.trusted` has it, and `drkit drill list --output "
            "json` shows who signed",
        ) from None


def _text(found: Verdicts, *, vouched: bool) -> str:
    lines = [line for one in found.files for line in (*_file(one), "")]
    lines += _report(found.report)
    lines += [f"✗ {problem}" for problem in found.problems]
    sound = [one.signed for one in found.files if one.signed]
    if sound and not vouched:
        lines.append(_UNCHECKED)
    lines.append(_verdict(found, sound))
    return page(lines)


def _verdict(found: Verdicts, sound: list[Signed]) -> str:
    bad = len(found.files) - len(sound)
    if bad:
        return f"{bad} of {len(found.files)} files can't be relied on"
    if found.report is not None and found.report.signed is None:
        return "the report's signature can't be relied on"
    if found.problems:
        return "each file is as it was signed, but together they are no whole chain"
    count = len(sound)
    told = f"{count} files are as they were signed"
    if count == 1:
        told = "the file is as it was signed"
    if found.report is not None:
        return f"{told}, and none that the report was made of is missing"
    beyond = "that later or earlier ones were left out, only --report tells"
    between = "" if count == 1 else ", and none between is missing"
    return f"{told}{between}; {beyond}"


def _report(found: ReportVerdict | None) -> Iterator[str]:
    if found is None:
        return
    if found.signed is None:
        yield f"✗ {found.problem}"
        if found.hint:
            yield f"  hint: {found.hint}"
        return
    statement = found.signed.statement
    yield f"✓ {found.path}"
    rows = [("report", f"{statement.quarter}, by drkit {statement.drkit}")]
    rows += [
        ("made of", f"{one.records} records of {one.cluster}, the newest {one.head}")
        for one in statement.chains
    ]
    rows += [("as signed", path) for path in found.checked]
    rows.append(("signed by", found.signed.signer))
    yield render.facts(rows)
    yield ""


def _file(one: Verdict) -> Iterator[str]:
    if one.signed is None:
        yield f"✗ {one.problem}"
        if one.hint:
            yield f"  hint: {one.hint}"
        return
    yield f"✓ {one.path}"
    rows = [*_facts(one.signed.record), ("signed by", one.signed.signer)]
    rows.append(("sha256", one.signed.digest))
    if one.timestamp is not None:
        rows.append(("stamped", f"{render.moment(one.timestamp)}, by an authority"))
    yield render.facts(rows)


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    yield "record", f"{record.sequence} of {record.cluster}: {what(record)}"
    yield "system", record.system_identifier
    yield "began", render.moment(record.started)
    yield "outcome", outcome(record)
    if record.failure:
        yield "failure", record.failure
    if record.action is not None:
        yield "action", record.action.text
        yield "owner", f"{record.action.owner}, due {record.action.due}"
        return
    if record.restored is not None:
        yield "restored", f"{record.restored.label}, to {record.restored.target}"
    yield "RTO", measured(record.rto)
    yield "RPO", measured(record.rpo)
    yield from (("check", _check(one)) for one in record.checks)
    yield from (("deviation", one) for one in record.deviations)
    if record.cleanup is not None:
        yield "clean-up", "proven" if record.cleanup.proven else "not proven"


def _check(check: Check) -> str:
    return f"{check.name} {check.state}: {check.detail}"


def _report_json(found: ReportVerdict) -> dict[str, Any]:
    statement = found.signed.statement if found.signed else None
    return {
        "path": found.path,
        "good": found.signed is not None,
        "problem": found.problem or None,
        "quarter": statement.quarter if statement else None,
        "files_checked": list(found.checked),
    }


def _json(found: Verdicts, *, vouched: bool) -> dict[str, Any]:
    return {
        "good": found.good,
        "signers_trusted": vouched,
        "problems": list(found.problems),
        "report": None if found.report is None else _report_json(found.report),
        "files": [
            {
                "path": one.path,
                "good": one.signed is not None,
                "problem": one.problem or None,
                "record": None if one.signed is None else record_json(one.signed),
                "timestamp": one.timestamp.isoformat() if one.timestamp else None,
            }
            for one in found.files
        ],
    }
