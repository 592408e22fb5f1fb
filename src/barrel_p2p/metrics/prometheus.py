"""The text that Prometheus reads (exposition format 0.0.4).

Names follow its habits: ``barrel_p2p.dist.auth.attempts`` is ``barrel_p2p_dist_auth_attempts_total``, seconds and bytes
are in the name. Every line has the label ``node``, so that the nodes of one OS process can share a page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from barrel_p2p.node.instruments import CATALOGUE, Instrument
from barrel_p2p.node.node import Node
from barrel_p2p.node.telemetry import Distribution, Values

#: What the HTTP response should say.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_UNITS: Final = {"s": "_seconds", "By": "_bytes"}


def prometheus_text(*nodes: Node) -> str:
    """Everything the nodes measure, as a page for Prometheus; call it where the nodes run, in their event loop.

    ::

        async def metrics(request):           # of the HTTP framework at hand
            return Response(prometheus_text(node), content_type=CONTENT_TYPE)

    Args:
        nodes: Nodes that run, most often one.
    """
    measured = [(str(node.name), node.telemetry.metrics()) for node in nodes]
    lines: list[str] = []
    for instrument in CATALOGUE:
        name = name_of(instrument)
        lines.append(f"# HELP {name} {_escaped(instrument.text)}")
        lines.append(f"# TYPE {name} {instrument.kind}")
        for node, metrics in measured:
            for values, number in metrics[instrument.name].series.items():
                lines += _lines(name, _labels(instrument, node, values), number)
    return "\n".join(lines) + "\n"


def name_of(instrument: Instrument) -> str:
    """The name that Prometheus knows an instrument by."""
    name = instrument.name.replace(".", "_")
    unit = _UNITS.get(instrument.unit, "")
    if not name.endswith(unit):
        name += unit
    return f"{name}_total" if instrument.kind == "counter" else name


def _lines(name: str, labels: list[tuple[str, str]], number: float | Distribution) -> Iterator[str]:
    if not isinstance(number, Distribution):
        yield f"{name}{_in_braces(labels)} {_number(number)}"
        return
    bounds = [*map(_number, number.bounds), "+Inf"]
    for bound, count in zip(bounds, accumulate(number.buckets), strict=True):
        yield f"{name}_bucket{_in_braces([*labels, ('le', bound)])} {count}"
    yield f"{name}_sum{_in_braces(labels)} {_number(number.total)}"
    yield f"{name}_count{_in_braces(labels)} {number.count}"


def _labels(instrument: Instrument, node: str, values: Values) -> list[tuple[str, str]]:
    return [("node", node), *zip(instrument.attributes, values, strict=True)]


def _in_braces(labels: Iterable[tuple[str, str]]) -> str:
    inside = ",".join(f'{name}="{_escaped(value, quote=True)}"' for name, value in labels)
    return f"{{{inside}}}"


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(float(number))


__all__ = ["CONTENT_TYPE", "name_of", "prometheus_text"]
