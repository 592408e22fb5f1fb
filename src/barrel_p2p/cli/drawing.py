"""The overlay of a cluster as SVG: nodes, and between them the links of each kind.

An SVG file is text; this writes it without help. Colours and dashes both tell the kinds apart, names come from other
nodes and are escaped, and the legend is part of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from barrel_p2p.cli.crawl import Cluster, linked
from barrel_p2p.cli.layout import Point, layout
from barrel_p2p.term.types import Atom

MARGIN: Final = 90
HEAD: Final = 46
LEGEND: Final = 92


@dataclass(frozen=True, slots=True)
class _Style:
    text: str
    colour: str
    width: float
    dashes: str
    weight: float  # how much the link pulls its ends together


#: From the strongest to the weakest.
_STYLES: Final = {
    "tree": _Style("branch of the broadcast tree (eager on both sides)", "#1b6ca8", 3.0, "", 1.0),
    "half": _Style("eager on one side only", "#1b6ca8", 1.6, "7 4", 1.0),
    "lazy": _Style("link of the overlay, lazy: announcements only", "#8a8a8a", 1.4, "", 0.8),
    "demand": _Style("channel on demand, outside the overlay", "#d08a2e", 1.2, "2 4", 0.15),
}


def draw(cluster: Cluster, title: str) -> str:
    """The picture as the text of an SVG file."""
    links = links_of(cluster)
    nodes = [*cluster.seen, *cluster.unseen]
    side = max(420, min(1600, 150 * round(len(nodes) ** 0.5 + 1)))
    places = layout(nodes, {pair: _STYLES[kind].weight for pair, kind in links.items()})
    at = {name: (MARGIN + x * side, HEAD + 40 + y * side) for name, (x, y) in places.items()}
    width, height = side + 2 * MARGIN, side + HEAD + 80 + LEGEND
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{width / 2:.0f}" y="30" text-anchor="middle" font-size="17" fill="#222222">{escape(title)}</text>',
        *_links(links, at),
        *(line for name in nodes for line in _node(name, at[name], cluster, links)),
        *_legend(links, cluster, height - LEGEND),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def links_of(cluster: Cluster) -> dict[tuple[Atom, Atom], str]:
    """Each pair of linked nodes in alphabetical order, and the kind of its link: what both sides say, as far as both
    can be asked."""
    said: dict[tuple[Atom, Atom], list[str]] = {}
    for name, snapshot in cluster.seen.items():
        for peer in linked(snapshot):
            if peer in cluster.seen or peer in cluster.unseen:
                pair = (name, peer) if name < peer else (peer, name)
                kind = "eager" if peer in snapshot["eager"] else "lazy" if peer in snapshot["active"] else "none"
                said.setdefault(pair, []).append(kind)
    return {pair: _kind(words) for pair, words in sorted(said.items())}


def _kind(words: list[str]) -> str:
    if all(word == "eager" for word in words):
        return "tree"
    if "eager" in words:
        return "half"
    return "lazy" if "lazy" in words else "demand"


def _links(links: dict[tuple[Atom, Atom], str], at: dict[str, Point]) -> Iterator[str]:
    for kind in reversed(_STYLES):  # the strongest on top
        for (a, b), found in links.items():
            if found == kind:
                (x1, y1), (x2, y2) = at[a], at[b]
                yield (
                    f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {_stroke(_STYLES[kind])}>'
                    f"<title>{escape(f'{a} - {b}: {_STYLES[kind].text}')}</title></line>"
                )


def _node(name: Atom, place: Point, cluster: Cluster, links: dict[tuple[Atom, Atom], str]) -> Iterator[str]:
    x, y = place
    snapshot = cluster.seen.get(name)
    count = sum(name in pair for pair in links)
    fill, dashes = ("#ffffff", ' stroke-dasharray="3 3"') if snapshot is None else ("#e8f1f8", "")
    if next(iter(cluster.seen)) == name:
        fill = "#ffe9b8"
    tip = cluster.unseen[name] if snapshot is None else f"{snapshot['processes']} processes, {count} channels"
    short, _, host = name.partition("@")
    yield (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="15" fill="{fill}" stroke="#1b4965" stroke-width="1.5"{dashes}>'
        f"<title>{escape(f'{name}: {tip}')}</title></circle>"
    )
    yield f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" font-size="11" fill="#1b4965">{count}</text>'
    yield from _label(x, y + 30, 13, "#222222", short)
    yield from _label(x, y + 43, 10, "#666666", host)


def _label(x: float, y: float, size: int, colour: str, text: str) -> Iterator[str]:
    """A text with a white rim, in two strokes: not every viewer paints the rim first when it is told to."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="{size}"'
    yield f'<text {place} fill="none" stroke="#ffffff" stroke-width="4">{escape(text)}</text>'
    yield f'<text {place} fill="{colour}">{escape(text)}</text>'


def _legend(links: dict[tuple[Atom, Atom], str], cluster: Cluster, top: float) -> Iterator[str]:
    used = [style for kind, style in _STYLES.items() if kind in links.values()]
    for i, style in enumerate(used):
        y = top + 22 + 16 * i
        yield f'<line x1="20" y1="{y:.0f}" x2="60" y2="{y:.0f}" {_stroke(style)}/>'
        count = sum(_STYLES[kind] is style for kind in links.values())
        yield f'<text x="68" y="{y + 4:.0f}" font-size="12" fill="#444444">{count} × {escape(style.text)}</text>'
    if cluster.unseen:
        y = top + 22 + 16 * len(used)
        yield f'<circle cx="40" cy="{y:.0f}" r="6" fill="#ffffff" stroke="#1b4965" stroke-dasharray="3 3"/>'
        text = f"{len(cluster.unseen)} × does not let itself be looked at"
        yield f'<text x="68" y="{y + 4:.0f}" font-size="12" fill="#444444">{text}</text>'


def _stroke(style: _Style) -> str:
    dashes = f" stroke-dasharray={quoteattr(style.dashes)}" if style.dashes else ""
    return f'stroke="{style.colour}" stroke-width="{style.width}"{dashes}'


__all__ = ["draw", "links_of"]
