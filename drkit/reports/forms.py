"""The forms that a report is written in, and its files."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from drkit.errors import NoSpace, UsageError
from drkit.reports.as_json import json_text
from drkit.reports.html import html_text
from drkit.reports.markdown import markdown_text
from drkit.reports.pages import document
from drkit.reports.pdf import pdf_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from drkit.reports.report import Report


class Form(StrEnum):
    """A form, by the name that asks for it; they say the same."""

    HTML = "html"
    PDF = "pdf"
    MARKDOWN = "markdown"
    JSON = "json"


_SUFFIXES = {
    Form.HTML: "html",
    Form.PDF: "pdf",
    Form.MARKDOWN: "md",
    Form.JSON: "json",
}


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of a report, and the SHA-256 of its content."""

    form: Form
    path: str
    bytes: int
    sha256: str


def render(report: Report, form: Form) -> bytes:
    """Return a report in a form: for the same report always the same bytes.

    Raises:
        UsageError: a package that the form takes is not installed.
    """
    match form:
        case Form.JSON:
            return json_text(report).encode()
        case Form.HTML:
            return html_text(document(report)).encode()
        case Form.MARKDOWN:
            return markdown_text(document(report)).encode()
        case Form.PDF:
            return pdf_bytes(document(report), report.dated)


def write_report(
    report: Report, directory: str, forms: Collection[Form]
) -> tuple[WrittenFile, ...]:
    """Write a report's files; all forms are made before the first file is.

    A file of the same name, an earlier report of the same clusters and quarter, is
    replaced in one step.

    Raises:
        UsageError: a package is missing, or the directory can't be written to.
        NoSpace: the disk is full.
    """
    stem = file_stem(report)
    made = [(form, render(report, form)) for form in Form if form in forms]
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
        return tuple(
            _write(directory, f"{stem}.{_SUFFIXES[form]}", form, data)
            for form, data in made
        )
    except OSError as error:
        raise _refused(directory, error) from error


def file_stem(report: Report) -> str:
    """Return what the names of all files of a report begin with."""
    names = "-".join(one.cluster for one in report.clusters)
    return f"drill-report-{names[:120]}-{report.quarter}"


def write_beside(directory: str, name: str, data: bytes) -> str:
    """Write a file beside a report's, such as its signature; return its path.

    Raises:
        UsageError: the directory can't be written to.
        NoSpace: the disk is full.
    """
    path = os.path.join(os.path.abspath(directory), name)
    try:
        _replace(path, data)
    except OSError as error:
        raise _refused(directory, error) from error
    return path


def _write(directory: str, name: str, form: Form, data: bytes) -> WrittenFile:
    path = os.path.join(os.path.abspath(directory), name)
    _replace(path, data)
    return WrittenFile(form, path, len(data), hashlib.sha256(data).hexdigest())


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.urandom(4).hex()}.new"  # nobody can have put a link there
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o644), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def _refused(directory: str, error: OSError) -> NoSpace | UsageError:
    what = f"the report can't be written to {directory}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(what, hint="make room, or give another directory with --to")
    return UsageError(what, hint="give a directory that you may write to with --to")
