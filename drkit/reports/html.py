"""A report as one HTML page that stands alone: no script, no font, nothing fetched."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from drkit.errors import UsageError
from drkit.reports.svg import DARK, LIGHT, style
from drkit.reports.words import visible

if TYPE_CHECKING:
    from drkit.reports.blocks import Document
    from drkit.reports.svg import Drawing


def html_text(document: Document) -> str:
    """Return the page.

    Raises:
        UsageError: the package that it takes is not installed.
    """
    try:
        import jinja2  # noqa: PLC0415  an extra; only this form of a report needs it
        import markupsafe  # noqa: PLC0415
    except ModuleNotFoundError:
        raise missing("HTML", "jinja2") from None
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["svg"] = lambda drawing: _drawn(drawing, markupsafe.Markup)
    template = environment.from_string(read_template("report.html.j2"))
    sheet = markupsafe.Markup(_style())  # noqa: S704  our own, nothing of a record
    return template.render(document=document, style=sheet)


def missing(form: str, package: str) -> UsageError:
    """Return what to tell where a package of the extra `reports` is missing."""
    return UsageError(
        f"a report as {form} needs the Python package {package}, which is not here",
        hint="pip install 'drkit[reports]', or leave that --format out",
    )


def read_template(name: str) -> str:
    """Return a file that comes with this package."""
    place = resources.files("drkit.reports") / "templates" / name
    return place.read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """Escape what can't be seen in all text that is not markup already."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return visible(value)
    return value


def _drawn(drawing: Drawing, markup: Any) -> Any:
    return markup(drawing.inline())


def _style() -> str:
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in colours.items())
        for colours in (LIGHT, DARK)
    )
    by_name = {name: f"var(--{name})" for name in LIGHT}
    return "\n".join(
        (
            f":root{{color-scheme:light dark;{light}}}",
            f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}",
            read_template("report.css"),
            style(by_name, "inherit"),
        )
    )
