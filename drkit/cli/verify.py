"""`drkit verify`."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import render
from drkit.cli.log_head import ExpectHead, read_head, standing_json, standing_lines
from drkit.cli.rehearsed import rehearsed_json, rehearsed_text
from drkit.cli.restorable import restorable_json, restorable_lines
from drkit.cli.session import Session, command
from drkit.errors import Corrupt, UsageError
from drkit.model.depth import Depth
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.config.policy import Policy
    from drkit.model.damage import Damage, PackPlace, Place
    from drkit.model.log_head import LogHead
    from drkit.model.sample import Sample
    from drkit.operations.journal import Journal
    from drkit.operations.verifying.repository import Request, Verification
    from drkit.repository.repository import Repository

_SHOWN = 10  # places of one damaged object, in text


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "verify",
        examples="""
        drkit verify production
        drkit verify production latest --depth objects
        drkit verify production --sample 1/7
        """,
    )(verify)


def verify(
    session: Session,
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A policy's name, or its file.")
    ],
    label: Annotated[
        str | None,
        typer.Argument(
            metavar="[LABEL]",
            help="A backup, with all that it builds on: its label, the beginning of "
            "it, or `latest`; everything if none.",
        ),
    ] = None,
    depth: Annotated[
        Depth,
        typer.Option(
            help="objects: everything is there, with its size. data: its content is "
            "what was stored, and its pages have the right checksums. restore: a "
            "backup is restored into a scratch instance, replayed, checked as the "
            "policy's `verification` says, and the result signed."
        ),
    ] = Depth.DATA,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Look at the content of a share a day; 1/7 covers all in a week.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the same verification that was interrupted."
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Parallel workers; by default the policy's backup.jobs."
        ),
    ] = None,
    expect_head: ExpectHead = None,
) -> int:
    """Verify that what backups need is there and sound, and tell what can be restored.

    Reads the repository only; the database may be gone. Damage is named by file, pages
    and the backups that it touches, and the next backup stores those pages anew.

    Exits with 0 if all is well, with 15 for damage, or if the log's newest entries are
    gone, with 20 if WAL is missing. With
    --depth restore: 3 if an objective was missed, 28 if a check failed.
    """
    _refuse_nonsense(depth, sample, resume=resume)
    expected = read_head(expect_head)
    if depth is Depth.RESTORE:
        return _verify_restore(session, policy, label, expected)
    share = None if sample is None else _share(sample)
    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    if label is not None:
        label = repository.find(label).backup.label
    request = _request(label, depth, share, jobs or loaded.backup.jobs)
    request = replace(request, expected=expected)
    begun = time.monotonic()
    found = _verify(session, loaded, repository, request, resume=resume)
    took = timedelta(seconds=time.monotonic() - begun)
    session.show(_text(found, took, loaded.name), _json(found, took, loaded.name))
    return found.exit_code


def _refuse_nonsense(depth: Depth, sample: str | None, *, resume: bool) -> None:
    if depth is Depth.RESTORE and (sample is not None or resume):
        raise UsageError(
            "--sample and --resume are for content; --depth restore restores all of it",
            hint="leave them out, or give --depth data",
        )
    if depth is Depth.OBJECTS and (sample is not None or resume):
        raise UsageError(
            "--sample and --resume are for content, and --depth objects looks at none",
            hint="leave them out, or give --depth data",
        )


def _verify_restore(
    session: Session, policy: str, label: str | None, expected: LogHead | None
) -> int:
    from drkit.operations.heads import confirm_head
    from drkit.operations.verifying.restore import verify_restore
    from drkit.sites.rehearsal import rehearsal_site

    loaded = session.policy(policy)
    site = rehearsal_site(loaded, session.secrets)
    confirm_head(site.repository, expected)
    done = verify_restore(site, label, session.progress)
    session.show(rehearsed_text(loaded.name, done), rehearsed_json(loaded.name, done))
    return done.exit_code


def _share(text: str) -> Sample:
    from drkit.model.sample import Sample

    try:
        return Sample.parse(text)
    except ValueError as error:
        raise UsageError(f"--sample: {error}", hint="give 1/7, for example") from None


def _request(
    label: str | None, depth: Depth, sample: Sample | None, jobs: int
) -> Request:
    from drkit.operations.verifying.repository import Request

    return Request(label, depth, sample, jobs)


def _verify(
    session: Session,
    policy: Policy,
    repository: Repository,
    request: Request,
    *,
    resume: bool,
) -> Verification:
    from drkit.operations.verifying.repository import verify as verify_all

    journal = None
    if request.depth is Depth.DATA:
        journal = _journal(session, policy, repository, request, resume=resume)
    try:
        return verify_all(repository, request, journal, session.progress)
    except KeyboardInterrupt:
        if journal is not None:
            session.progress.warning("the same command with --resume goes on from here")
        raise
    finally:
        if journal is not None:
            journal.close()


def _journal(
    session: Session,
    policy: Policy,
    repository: Repository,
    request: Request,
    *,
    resume: bool,
) -> Journal | None:
    """Open what an interruption is gone on with; without a place for it, do without."""
    try:
        journal = wiring.verification_journal(
            policy, repository, request, session.environ, resume=resume
        )
    except OSError as error:
        session.progress.warning(
            f"this verification can't be resumed if it is interrupted: {error}"
        )
        journal = None
    if resume and (journal is None or not journal.done):
        session.progress.warning("there is nothing to resume; beginning anew")
    return journal


def _text(found: Verification, took: timedelta, policy: str) -> str:
    lines = [*standing_lines(found.log, policy), _headline(found, took, policy)]
    for one in found.damage:
        lines += ["", *_damage(one)]
    if found.damage:
        lines += ["", _what_next(found, policy)]
    if found.notes:
        lines += ["", *(f"note: {note}" for note in found.notes)]
    if found.restorable is not None:
        lines += ["", *restorable_lines(found.restorable)]
    else:
        lines += [
            "",
            "what can be restored is not known: a timeline history is damaged",
        ]
    return page(lines)


def _headline(found: Verification, took: timedelta, policy: str) -> str:
    checked = found.checked
    lines = [f"{policy}: {_verdict(found)}"]
    rows = [
        ("took", render.duration(took)),
        ("looked for", f"{checked.objects} objects"),
    ]
    if found.request.depth is Depth.DATA:
        share = f", {found.request.sample} of all" if found.request.sample else ""
        told = f"{checked.opened} objects, {render.size(checked.bytes)}{share}"
        rows += [("opened", told), ("page checksums", str(checked.pages))]
    if found.resumed is not None:
        since = render.moment(found.resumed.since)
        told = (
            f"the verification of {since}: {found.resumed.objects} objects were sound"
        )
        rows.append(("went on with", told))
    return page([*lines, render.facts(rows)])


def _verdict(found: Verification) -> str:
    where = f"in {_count(len(found.labels), 'backup')} and their WAL"
    if found.damage:
        return f"{_count(len(found.damage), 'object')} DAMAGED {where}"
    if found.log.alarms:
        return f"THE LOG'S NEWEST ENTRIES ARE GONE; no damage {where}"
    if found.exit_code == Corrupt.exit_code:
        return f"DAMAGED, as found before; no other damage {where}"
    if found.exit_code:
        return f"WAL IS MISSING; no other damage {where}"
    return f"no damage {where}"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _damage(one: Damage) -> list[str]:
    lines = [f"DAMAGED: {one.name} {one.what}"]
    lines += [f"  {_place(place)}" for place in one.places[:_SHOWN]]
    if len(one.places) > _SHOWN:
        lines.append(f"  and {len(one.places) - _SHOWN} more; --output json names all")
    touched = ", ".join(one.backups) or "no backup"
    return [*lines, f"  touches {touched}"]


def _place(place: Place) -> str:
    path = place.path.decode(errors="backslashreplace")
    if place.first == place.last:
        return f"{path}, {place.unit} {place.first}"
    return f"{path}, {place.unit}s {place.first} to {place.last}"


def _what_next(found: Verification, policy: str) -> str:
    if found.findings is None:
        return (
            "next: put the damaged objects back from a copy of the repository, or take "
            f"a new backup: drkit backup {policy} --type full"
        )
    return (
        f"next: drkit backup {policy}, which stores the damaged pages anew; older "
        "backups stay damaged unless a copy of the repository has those objects"
    )


def _json(found: Verification, took: timedelta, policy: str) -> dict[str, Any]:
    request, checked = found.request, found.checked
    resumed = found.resumed
    return {
        "policy": policy,
        "seconds": round(took.total_seconds(), 3),
        "time": found.time.isoformat(),
        "log": standing_json(found.log),
        "sound": found.exit_code == 0,
        "exit_code": found.exit_code,
        "depth": str(request.depth),
        "sample": None if request.sample is None else str(request.sample),
        "backups": list(found.labels),
        "objects": checked.objects,
        "opened": checked.opened,
        "opened_bytes": checked.bytes,
        "page_checksums": checked.pages,
        "resumed": None
        if resumed is None
        else {"since": resumed.since.isoformat(), "objects": resumed.objects},
        "damage": [_damage_json(one) for one in found.damage],
        "findings": found.findings,
        "notes": list(found.notes),
        **(
            _unknown()
            if found.restorable is None
            else restorable_json(found.restorable)
        ),
    }


def _unknown() -> dict[str, Any]:
    return dict.fromkeys(("restorable", "except", "unrestorable", "newest_moment"))


def _damage_json(one: Damage) -> dict[str, Any]:
    return {
        "object": one.name,
        "kind": str(one.kind),
        "what": one.what,
        "exit_code": one.exit_code,
        "backup": one.backup,
        "pack": None if one.pack is None else _pack_json(one.pack),
        "places": [
            {
                "path": place.path.decode(errors="surrogateescape"),
                "unit": place.unit,
                "first": place.first,
                "last": place.last,
            }
            for place in one.places
        ],
        "backups": list(one.backups),
    }


def _pack_json(place: PackPlace) -> dict[str, Any]:
    return {
        "number": place.number,
        "frames": [list(stretch) for stretch in place.frames],
        "lost": [list(stretch) for stretch in place.lost],
    }
