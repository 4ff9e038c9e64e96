"""The four forms of a report: the same content, safe, whole, and always the same."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from drkit.errors import UsageError
from drkit.model.evidence import Check, CheckState, Measure, Phase
from drkit.reports.as_json import content_digest
from drkit.reports.blocks import Chart
from drkit.reports.forms import Form, render, write_report
from drkit.reports.html import html_text
from drkit.reports.markdown import escaped
from drkit.reports.pages import document
from drkit.reports.pdf import printable
from drkit.reports.quarter import drill_report
from tests.reports.history import LAST, evidence_of, history, standing

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.reports.report import Report

REPORT = drill_report(
    [history(), history("billing", seed=5, troubled=False, verification=None)],
    LAST,
    "0.1.0",
)
EMPTY = drill_report(
    [evidence_of(standing("production", datetime(2026, 4, 2, tzinfo=UTC)))],
    LAST,
    "0.1.0",
)
HOSTILE = (
    "<script>alert(1)</script> \"'&amp; [a](javascript:b) ![i](http://e/) `c` | * _x_ "
    "#let y = $z$ \\u{41} @me www.evil.example {{ 7 * 7 }} \x1b[31m \u202egnp.exe "
    "\udcff 中文 \U0001f4a9 e\u0301"
)
VOID = {"meta", "col", "link", "br", "img", "input"}


class Page(HTMLParser):
    """An HTML page's elements, attributes and text; refuses what is not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def hostile() -> Report:
    """A report whose every free text is an attack."""
    evidence = history()
    records = []
    for record in evidence.records:
        action = record.action and replace(
            record.action, text=HOSTILE, owner=HOSTILE, due=HOSTILE, note=HOSTILE
        )
        measure = Measure(900.0, None, HOSTILE)
        records.append(
            replace(
                record,
                scenario=HOSTILE if record.scenario else "",
                chosen=HOSTILE,
                failure=HOSTILE,
                rpo=measure,
                phases=(Phase(HOSTILE, 0.0, 5.0),),
                checks=(Check(HOSTILE, CheckState.FAILED, HOSTILE, 1.0),),
                deviations=(HOSTILE,),
                restored=record.restored
                and replace(record.restored, label=HOSTILE, target=HOSTILE),
                actor=record.actor and replace(record.actor, host=HOSTILE),
                cleanup=record.cleanup
                and replace(record.cleanup, proven=False, detail=HOSTILE),
                action=action,
            )
        )
    found = replace(evidence.standing, repository=HOSTILE)
    return drill_report([evidence_of(found, records)], LAST, HOSTILE)


@pytest.mark.parametrize("form", Form)
def test_the_same_records_give_the_same_bytes(form: Form) -> None:
    """Also in another process, where sets and hashes have another order."""
    program = (
        "import sys; from tests.reports.test_forms import *; "
        f"print(hashlib.sha256(render(REPORT, Form({str(form)!r}))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "HOME": "/"},
        capture_output=True,
        check=True,
    )
    digest = hashlib.sha256(render(REPORT, form)).hexdigest()
    assert done.stdout.decode().strip() == digest


def test_all_forms_carry_the_digest_of_the_content() -> None:
    digest = content_digest(REPORT)
    data = render(REPORT, Form.JSON)
    assert hashlib.sha256(data).hexdigest() == digest
    assert digest in html_text(document(REPORT))
    assert digest.encode() in render(REPORT, Form.MARKDOWN)


def test_the_json_holds_what_was_measured() -> None:
    found = json.loads(render(REPORT, Form.JSON))
    assert (found["drkit"], found["version"]) == ("drill report file", 1)
    assert found["drkit_version"] == "0.1.0"
    assert (found["quarter"], found["status"]) == ("2026-Q1", "attention")
    rto = found["clusters"][0]["rto"]
    assert (rto["target"], rto["worst"], rto["verdict"]) == (900.0, 1103.4, "missed")
    records = found["clusters"][0]["exercises"]
    (drill, _) = [record for record in records if record["kind"] == "drill"]
    assert drill["phases"][3]["name"] == "fetch"


def test_the_page_stands_alone() -> None:
    text = render(REPORT, Form.HTML).decode()
    page = Page(text)
    fetching = {"src", "href", "srcset", "data", "action", "poster", "background"}
    assert not {name for _, name, _ in page.attributes} & fetching
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import|@font-face|javascript:", text)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "https:" not in text
    assert "http:" not in text


def test_the_page_can_be_heard() -> None:
    """Headings in order, charts with words, tables with headers."""
    text = render(REPORT, Form.HTML).decode()
    page = Page(text)
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    labels = [value for tag, name, value in page.attributes if name == "aria-label"]
    assert len(labels) == page.tags.count("svg")
    assert all(labels)
    scopes = [value for tag, name, value in page.attributes if name == "scope"]
    assert len(scopes) == page.tags.count("th")
    assert ("html", "lang", "en") in page.attributes


def test_charts_say_without_colour_what_they_show() -> None:
    text = render(REPORT, Form.HTML).decode()
    for mark in ("✓", "!", "✗", "D", "gap", "target", "worst", "median"):
        assert mark in Page(text).texts or f"{mark} D" in Page(text).texts


def test_charts_are_well_formed_on_their_own() -> None:
    for report in (REPORT, EMPTY, hostile()):
        charts = [one for one in document(report).blocks if isinstance(one, Chart)]
        assert charts
        for chart in charts:
            drawing = ET.fromstring(chart.drawing.document("serif"))
            _inside(drawing, chart.drawing.width, chart.drawing.height)


def _inside(drawing: ET.Element, width: float, height: float) -> None:
    """Nothing is drawn outside of the drawing."""
    for element in drawing.iter():
        for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(element.get(name, 0)) <= most, ET.tostring(element)


def test_without_records_everything_is_said_to_be_not_measured() -> None:
    page = Page(render(EMPTY, Form.HTML).decode())
    for told in (
        "○ not measured",
        "No drill was run in this quarter.",
        "No restore was measured.",
        "No recovery time was measured in the 12 quarters up to this one.",
        "There is no record of an exercise that could have failed.",
        "There is no record of an exercise.",
        "○ no record in this quarter",
        "RTO was not measured. RPO was not measured.",
    ):
        assert told in page.text
    for claim in ("✓ met", "✓ Proven", "✓ passed"):
        assert claim not in page.text
    markdown = render(EMPTY, Form.MARKDOWN).decode()
    assert "✓" not in markdown
    assert render(EMPTY, Form.PDF).startswith(b"%PDF-1.7")


def test_hostile_text_is_only_text() -> None:
    report = hostile()
    page = Page(render(report, Form.HTML).decode())
    assert set(page.tags) == set(Page(render(REPORT, Form.HTML).decode()).tags)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\\x1b[31m \\u202egnp.exe \\udcff 中文" in page.text
    markdown = render(report, Form.MARKDOWN).decode()
    assert not re.search(r"(?<!\\)<|(?<!\\)`c`|(?<!\\)\]\(|[^\\]\| \*", markdown)
    assert "\x1b" not in markdown
    assert json.loads(render(report, Form.JSON))["drkit_version"] == HOSTILE
    assert render(report, Form.PDF).startswith(b"%PDF-1.7")


def test_markdown_shows_text_as_it_is() -> None:
    assert escaped("1. x") == "1\\. x"
    assert escaped("- x") == "\\- x"
    assert escaped("36.8 s, 2026-01-15") == "36.8 s, 2026-01-15"
    assert escaped("    code\n# no") == "code \\# no"
    assert escaped("http://e") == "http\\://e"
    lines = render(REPORT, Form.MARKDOWN).decode().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    bars = [re.sub(r"\\.", "", line).count("|") for line in tables]
    assert len(tables) > 50
    assert set(bars) <= {3, 5, 6, 7, 8, 9}


def streams(pdf: bytes) -> bytes:
    """What a PDF's compressed streams hold."""
    found = b""
    for match in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            found += zlib.decompress(match[1])
        except zlib.error:
            found += match[1]
    return found


def test_the_pdf_is_for_archives_and_for_screen_readers() -> None:
    pdf = render(REPORT, Form.PDF)
    inside = streams(pdf)
    assert b"<pdfaid:part>2</pdfaid:part>" in inside
    assert b"<pdfaid:conformance>A</pdfaid:conformance>" in inside
    assert b"<pdfuaid:part>1</pdfuaid:part>" in inside
    assert b"2026-03-31T00:00:00" in inside
    for active in (b"/JavaScript", b"/Launch", b"/URI", b"/EmbeddedFile"):
        assert active not in pdf + inside


def test_the_pdf_prints_what_its_fonts_have() -> None:
    assert printable("Zoë, Łódź, Ελλάδα, Київ → ✓") == "Zoë, Łódź, Ελλάδα, Київ → ✓"
    assert printable("e\u0301 中\x07") == "é [U+4E2D]\\x07"
    known = [chr(code) for code in range(0x20, 0x3000)]
    kept = "".join(one for one in known if printable(one) == one)
    report = replace(
        REPORT, summary=tuple(kept[at : at + 50] for at in range(0, len(kept), 50))
    )
    assert render(report, Form.PDF).startswith(b"%PDF-1.7")


def test_files(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "reports"
    written = write_report(REPORT, str(place), {Form.HTML, Form.JSON})
    stem = "drill-report-production-billing-2026-Q1"
    names = sorted(path.name for path in place.iterdir())
    assert names == [f"{stem}.html", f"{stem}.json"]
    for one in written:
        data = (place / one.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one.bytes, one.sha256)
    assert write_report(REPORT, str(place), {Form.HTML, Form.JSON}) == written


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UsageError, match="can't be written") as raised:
        write_report(REPORT, str(file), {Form.JSON})
    assert "--to" in str(raised.value.hint)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(("form", "package"), [("html", "jinja2"), ("pdf", "typst")])
def test_a_missing_package_is_told_with_what_to_install(
    form: str, package: str
) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from tests.reports.test_forms import *\n"
        "try: render(EMPTY, Form(sys.argv[1]))\n"
        "except UsageError as error: print(error.message, error.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, form], capture_output=True, check=True
    )
    told = done.stdout.decode()
    assert f"needs the Python package {package}" in told
    assert "pip install 'drkit[reports]'" in told
    assert render(EMPTY, Form.JSON)
