"""`drkit init`."""

from __future__ import annotations

import os
import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import render
from drkit.cli.session import Session, command
from drkit.errors import PostgresRefused, UsageError
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.operations.init import InitResult
    from drkit.operations.init_site import InitRequest
    from drkit.postgres.connection import Connection
    from drkit.postgres.needed import Setting

_PASSWORD = "DRKIT_DATABASE_PASSWORD"  # noqa: S105  a variable's name
_SYSTEM_POLICIES = "/etc/drkit/policies"


class Source(StrEnum):
    """What `--source` takes."""

    LOCAL = "local"
    STREAM = "stream"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "init",
        examples="""
        drkit init production --repository file:///srv/drkit \\
            --url 'postgresql://drkit@/postgres?host=/var/run/postgresql'
        drkit init web --url postgresql://drkit@db1/web --repository s3://b/web \\
            --source stream
        """,
    )(init)


def init(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call the cluster.")],
    url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Connection address of the cluster, without a password; see "
            "~/.pgpass and DRKIT_DATABASE_PASSWORD.",
        ),
    ],
    repository: Annotated[
        str,
        typer.Option(
            metavar="URL", help="file:///directory or s3://bucket/prefix; made if new."
        ),
    ],
    keys_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Where keys go; by default keys/NAME beside the policy."
        ),
    ] = None,
    source: Annotated[
        Source,
        typer.Option(
            help="local reads the data directory on this host; stream takes what a "
            "replication connection sends."
        ),
    ] = Source.LOCAL,
) -> None:
    """Set a cluster up: write its policy and keys, and open its repository.

    Nothing that exists is replaced. Prints the SQL that the server still needs.
    """
    from drkit.operations.init import initialise
    from drkit.sites.init import InitSite

    _refuse_password(url)
    directory = _policy_dir(session)
    site = InitSite(name, directory, keys_dir, session.secrets)
    request = _request(session, name, url, repository, source, site.policy_path)
    password = request.password and session.secrets.resolve(request.password)
    with _logged_in(url, password, source) as connection:
        result = initialise(request, connection, site, wiring.SystemClock())
    session.show(_text(result), _json(result))


def _logged_in(url: str, password: str | None, source: Source) -> Connection:
    from psycopg.conninfo import conninfo_to_dict

    from drkit.operations.init_advice import explain_login
    from drkit.postgres.connection import connect

    try:
        return connect(url, password, "init")
    except PostgresRefused as error:
        user = conninfo_to_dict(url).get("user")
        if user in (None, "postgres"):
            raise
        raise explain_login(error, str(user), source.value) from None


def _refuse_password(url: str) -> None:
    from drkit.config.database_url import check_database_url

    try:
        check_database_url(url)
    except ValueError as error:
        raise UsageError(
            f"--url {error}",
            hint="every user of this host can read a command line: put the password "
            f"into ~/.pgpass, or into {_PASSWORD}, which the policy then refers to",
        ) from None


def _policy_dir(session: Session) -> str:
    """Return where the policy goes: where a search will find it."""
    asked = session.options.policy_dir or session.environ.get("DRKIT_POLICY_DIR")
    if asked:
        return asked
    if os.path.isdir("policies") or os.geteuid() != 0:
        return "policies"
    return _SYSTEM_POLICIES


def _request(
    session: Session,
    name: str,
    url: str,
    repository: str,
    source: Source,
    policy_path: str,
) -> InitRequest:
    from drkit.operations.init_site import InitRequest

    return InitRequest(
        name=name,
        url=url,
        repository_url=repository,
        source=source.value,
        password=f"env:{_PASSWORD}" if session.environ.get(_PASSWORD) else None,
        s3=_s3(session) if repository.startswith("s3:") else {},
        archive_command=wiring.archive_command(policy_path),
    )


def _s3(session: Session) -> dict[str, str]:
    """Return what the environment says of S3; secrets as references to it."""
    found = {}
    for field in ("endpoint_url", "region"):
        value = session.environ.get(f"DRKIT_S3_{field.upper()}")
        if value:
            found[field] = value
    for field in ("access_key_id", "secret_access_key"):
        variable = f"DRKIT_S3_{field.upper()}"
        if session.environ.get(variable):
            found[field] = f"env:{variable}"
    return found


def _text(result: InitResult) -> str:
    version = render.server_version(result.server_version)
    rows = [
        ("policy", result.policy_path),
        ("repository", result.repository),
        (
            "server",
            f"PostgreSQL {version}, system identifier {result.system_identifier}",
        ),
        ("signs as", result.public_key),
    ]
    lines = [f"{result.name} is set up", render.facts(rows), "", "files written:"]
    lines += [f"  {path}" for path in result.created]
    if result.kept:
        lines += ["keys that were there already, and are used:"]
        lines += [f"  {path}" for path in result.kept]
    sql = _sql(result)
    if sql:
        lines += ["", "left to do, for a superuser in psql:", "", *sql]
    lines += ["", *(f"IMPORTANT: {text}" for text in result.warnings)]
    # By its path the policy is found from everywhere.
    policy = shlex.quote(result.policy_path)
    lines += ["", f"next: drkit check {policy}; drkit backup {policy}"]
    return page(lines)


def _sql(result: InitResult) -> list[str]:
    """Return what a superuser can paste into psql as it is; words are comments."""
    from drkit.postgres.needed import Need

    needed, suggested = (
        [one for one in result.settings if one.need is need]
        for need in (Need.NEEDED, Need.SUGGESTED)
    )
    lines = []
    if needed:
        lines += ["-- Settings that the server needs:", *map(_statement, needed)]
    if suggested:
        lines += ["-- Settings that are good to have:", *map(_statement, suggested)]
    if result.grants:
        lines += ["-- Rights that the role needs:", *result.grants]
    if result.role:
        lines += [
            "-- drkit logs in as a superuser. This role can do all that it needs:",
            *result.role,
            "-- Name it in the policy's cluster.url. To log in without a password:",
            *(f"--   {line}" for line in result.login),
        ]
    changed = [*needed, *suggested]
    if changed:
        lines.append("SELECT pg_reload_conf();")
        if any(one.restart for one in changed):
            lines.append("-- Then restart the server.")
        lines.append("-- The same settings as lines of postgresql.conf:")
        lines += [f"--   {one.line}" for one in changed]
    return lines


def _statement(one: Setting) -> str:
    takes = "takes a restart; " if one.restart else ""
    return f"{one.statement}  -- {takes}{one.reason}"


def _json(result: InitResult) -> dict[str, Any]:
    return {
        "policy": result.name,
        "policy_path": result.policy_path,
        "repository": result.repository,
        "lineage": result.lineage,
        "system_identifier": result.system_identifier,
        "server_version": result.server_version,
        "public_key": result.public_key,
        "created": list(result.created),
        "kept": list(result.kept),
        "log_opened": result.log_opened,
        "archive_command": result.archive_command,
        "settings": [_setting(one) for one in result.settings],
        "grants": list(result.grants),
        "role": list(result.role),
        "login": list(result.login),
        "warnings": list(result.warnings),
    }


def _setting(one: Setting) -> dict[str, Any]:
    return {
        "name": one.name,
        "state": str(one.need),
        "current": one.current,
        "wanted": one.wanted,
        "restart": one.restart,
        "reason": one.reason,
        "line": one.line,
        "statement": one.statement,
    }
