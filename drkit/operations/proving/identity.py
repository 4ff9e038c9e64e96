"""Proving that the server that answers is the one that was restored and started."""

from __future__ import annotations

import os
import secrets
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import DrkitError
from drkit.operations.proving.subject import Finding, failed, passed
from drkit.postgres.files import read_text

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.operations.proving.subject import Run, Subject
    from drkit.postgres.connection import Connection

_ANSWER = """
    SELECT system_identifier::text,
        CASE WHEN NOT pg_is_in_recovery()
            THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
        current_setting('data_directory'),
        string_to_array(current_setting('unix_socket_directories'), ','),
        pg_postmaster_start_time()
    FROM pg_control_system()
"""
_CREDENTIALS = struct.Struct("iII")  # process, user and group
_START_SLACK = 2.0  # seconds; the file has whole ones


class _Answer(NamedTuple):
    system_identifier: str
    timeline: str | None
    data_directory: str
    sockets: list[str]
    started: datetime


def check_identity(run: Run) -> Finding:
    """Check who answers: by what it says, by its process, and by the files it reads."""
    subject = run.subject
    with run.session() as connection:
        answer = _Answer(*connection.query(_ANSWER)[0])
        wrong = [
            *_wrong_cluster(subject, answer),
            *_wrong_place(subject, answer),
            *_wrong_process(subject, connection, answer),
        ]
        if not wrong:
            wrong += _wrong_files(subject, connection)
    if wrong:
        return failed(wrong)
    detail = (
        f"system identifier {answer.system_identifier}, timeline {subject.timeline}, "
        f"process {subject.server.pid} in {subject.data_directory}"
    )
    return passed(detail, compared=8)


def _wrong_cluster(subject: Subject, answer: _Answer) -> list[str]:
    wrong = []
    if answer.system_identifier != subject.system_identifier:
        wrong.append(
            f"system identifier {answer.system_identifier} answers, and "
            f"{subject.system_identifier} was restored"
        )
    if answer.timeline is None:
        wrong.append("the server is still in recovery")
    elif int(answer.timeline, 16) != subject.timeline:
        wrong.append(
            f"timeline {int(answer.timeline, 16)} answers, and recovery ended on "
            f"{subject.timeline}"
        )
    return wrong


def _wrong_place(subject: Subject, answer: _Answer) -> list[str]:
    wrong = []
    if os.path.realpath(answer.data_directory) != os.path.realpath(
        subject.data_directory
    ):
        wrong.append(
            f"the data directory {answer.data_directory} answers, and "
            f"{subject.data_directory} was restored"
        )
    sockets = {os.path.realpath(path.strip(' "')) for path in answer.sockets}
    if sockets != {os.path.realpath(subject.server.directory)}:
        wrong.append(
            f"the server listens in {', '.join(answer.sockets) or 'no directory'}, "
            f"not in {subject.server.directory} alone"
        )
    return wrong


def _wrong_process(
    subject: Subject, connection: Connection, answer: _Answer
) -> list[str]:
    """Hold the process that answers against the one that was started."""
    if not subject.server.running:
        return ["the server that was started does not run any more"]
    wrong, report = [], subject.server.report
    listener = _listener(connection)
    if listener != report.process:
        wrong.append(f"process {listener} answers, and {report.process} was started")
    owner, started = _postmaster(subject.data_directory)
    if owner != report.inside:
        wrong.append(
            f"{subject.data_directory} is process {owner}'s, not {report.inside}'s"
        )
    if abs(answer.started.timestamp() - started) > _START_SLACK:
        wrong.append(
            f"a server answers that was started at {answer.started:%Y-%m-%d %H:%M:%S%z}"
        )
    return wrong


def _postmaster(data_directory: str) -> tuple[int, int]:
    """Return whose a data directory is, and since when, in seconds since 1970.

    Raises:
        DrkitError: its `postmaster.pid` says no such thing.
    """
    path = Path(data_directory, "postmaster.pid")
    try:
        lines = read_text(str(path)).splitlines()
        return int(lines[0]), int(lines[2])
    except (ValueError, IndexError):
        raise DrkitError(f"{path} is not as a server writes it") from None


def _wrong_files(subject: Subject, connection: Connection) -> list[str]:
    """Put a secret into the restored directory, and let the server read it."""
    name, nonce = f"drkit.{secrets.token_hex(8)}", secrets.token_hex(16)
    path = Path(subject.data_directory, name)
    with path.open("x") as file:  # follows no link
        os.fchmod(file.fileno(), 0o644)
        file.write(nonce)
    try:
        read = connection.query("SELECT pg_read_file(%s, 0, 64, true)", (name,))
    finally:
        path.unlink()
    if read == [(nonce,)]:
        return []
    return [f"the server does not read the files in {subject.data_directory}"]


def _listener(connection: Connection) -> int | None:
    """Return the process that a session's socket was opened by, by the kernel's word.

    As a number of this process's own namespace, whatever the server takes itself for.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as peer:
        if peer.family != socket.AF_UNIX:
            return None
        found = peer.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
    return int(_CREDENTIALS.unpack(found)[0])
