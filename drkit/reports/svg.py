"""Drawings as SVG: a few shapes with classes, for a style sheet to colour."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from drkit.reports.words import visible

LIGHT = {
    "ink": "#1b2631",
    "soft": "#566370",
    "line": "#d3d9df",
    "paper": "#ffffff",
    "accent": "#2b5f93",
    "tint": "#dbe7f3",
    "good": "#1f6f5c",
    "warn": "#9a6200",
    "bad": "#a3282d",
}
"""The colours by name, on white."""

DARK = {
    "ink": "#e6eaee",
    "soft": "#a3afba",
    "line": "#3a444e",
    "paper": "#14191e",
    "accent": "#7db2e6",
    "tint": "#24384c",
    "good": "#63c3a9",
    "warn": "#e0aa4d",
    "bad": "#f08a85",
}
"""The same colours, on black."""


@dataclass(slots=True)
class Drawing:
    """An SVG drawing in the making; positions and sizes are in CSS pixels.

    Attributes:
        title: says what it shows to those who can't see it.
    """

    width: float
    height: float
    title: str
    _parts: list[str] = field(default_factory=list)

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: str,
        round_: int = 0,
    ) -> None:
        """Draw a rectangle."""
        self._add(
            f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" '
            f'height="{_n(height)}" rx="{round_}"/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draw a straight line."""
        self._add(
            f'<line class="{kind}" x1="{_n(x1)}" y1="{_n(y1)}" '
            f'x2="{_n(x2)}" y2="{_n(y2)}"/>'
        )

    def circle(self, x: float, y: float, radius: float, kind: str) -> None:
        """Draw a circle around a point."""
        self._add(
            f'<circle class="{kind}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"/>'
        )

    def path(self, points: list[tuple[float, float]], kind: str) -> None:
        """Draw lines from point to point, closed where the kind fills them."""
        moves = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        shape = "polygon" if kind.startswith("f-") else "polyline"
        self._add(f'<{shape} class="{kind}" points="{moves}"/>')

    def text(
        self, x: float, y: float, text: str, kind: str = "t", anchor: str = "start"
    ) -> None:
        """Write at a point; anchor is start, middle or end."""
        shown = escape(visible(text))
        self._add(
            f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}" '
            f'text-anchor="{anchor}">{shown}</text>'
        )

    def inline(self) -> str:
        """Return it as an element of an HTML page that has the style."""
        return (
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img" '
            f'aria-label="{escape(visible(self.title))}">{"".join(self._parts)}</svg>'
        )

    def document(self, font: str) -> str:
        """Return it as a document of its own, in light colours."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(self.width)}" '
            f'height="{_n(self.height)}" '
            f'viewBox="0 0 {_n(self.width)} {_n(self.height)}">'
            f"<style>{style(LIGHT, font)}</style>{''.join(self._parts)}</svg>"
        )

    def _add(self, element: str) -> None:
        self._parts.append(element)


def style(colours: dict[str, str], font: str) -> str:
    """Return the style of the classes that drawings use.

    `t`, `t-soft`, `t-bold` and `t-paper` are texts; `f-COLOUR` fills, `s-COLOUR` is a
    line, `d-COLOUR` a dashed one, `o-COLOUR` an outline over paper.
    """
    dashed = "stroke-width:1.5;stroke-dasharray:5 3;fill:none"
    rules = [
        f"text{{font-family:{font};font-size:12px;fill:{colours['ink']}}}",
        f".t-soft{{fill:{colours['soft']}}}",
        ".t-bold{font-weight:bold}",
        f".t-halo{{stroke:{colours['paper']};stroke-width:3px;paint-order:stroke}}",
        f".h-soft{{stroke:{colours['soft']};stroke-width:.8;fill:none}}",
        f".t-paper{{fill:{colours['paper']};font-weight:bold}}",
    ]
    for name, value in colours.items():
        rules += [
            f".f-{name}{{fill:{value}}}",
            f".s-{name}{{stroke:{value};stroke-width:1.5;fill:none}}",
            f".d-{name}{{stroke:{value};{dashed}}}",
            f".o-{name}{{stroke:{value};stroke-width:1.5;fill:{colours['paper']}}}",
        ]
    return "".join(rules)


def cut(text: str, most: int) -> str:
    """Shorten a text that would not fit, visibly."""
    text = visible(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _n(number: float) -> str:
    """Write a coordinate with at most one decimal, always the same way."""
    return f"{number:.1f}".removesuffix(".0").replace("-0", "0", number > -0.05)
