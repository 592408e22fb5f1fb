"""Text of a terminal as SVG, for a page that shows what a command prints."""

from __future__ import annotations

from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape

CELL: Final = 8.4  # of a character of 14 px; ``textLength`` holds any font of the reader's to it
LINE: Final = 19
MARGIN: Final = 18
BACKGROUND, EDGE, TEXT, HEADING, FIRST = "#1b1f27", "#4a5261", "#d8dee9", "#8fbcbb", "#ffffff"


def picture(text: str, title: str) -> str:
    """The lines of ``text`` on a background of their own, so that they can be read on a bright page and on a dark one.

    The first line stands out, and so does the first of each table: one of capitals behind an empty line.
    """
    lines = text.splitlines()
    width = 2 * MARGIN + max(map(len, lines), default=0) * CELL
    height = 2 * MARGIN + len(lines) * LINE
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}" font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" '
        'font-size="14">',
        f"<title>{escape(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1}" rx="8" fill="{BACKGROUND}" '
        f'stroke="{EDGE}"/>',
    ]
    for number, (before, line) in enumerate(pairwise(["", *lines])):
        if line.strip():
            heading = not before and line.isupper()
            colour = FIRST if number == 0 else HEADING if heading else TEXT
            drawn.append(_line(line, MARGIN + number * LINE + 14, colour, bold=number == 0 or heading))
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _line(line: str, y: int, colour: str, *, bold: bool) -> str:
    start = len(line) - len(line.lstrip())
    words = line.strip()
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{MARGIN + start * CELL:.1f}" y="{y}" fill="{colour}"{weight} xml:space="preserve" '
        f'textLength="{len(words) * CELL:.1f}" lengthAdjust="spacingAndGlyphs">{escape(words)}</text>'
    )


__all__ = ["picture"]
