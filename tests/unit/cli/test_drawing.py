"""Pictures and views of a cluster, from snapshots that some nodes made up."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from barrel_p2p.cli.crawl import Cluster
from barrel_p2p.cli.drawing import draw, links_of
from barrel_p2p.cli.layout import layout
from barrel_p2p.cli.picture import picture
from barrel_p2p.cli.top_view import View
from barrel_p2p.term.types import Atom, Pid

A, B, C, VISITOR = Atom("a@h"), Atom("b@h"), Atom("c@h"), Atom("barrel@h")


def snapshot(name: Atom, *, eager: tuple[Atom, ...] = (), lazy: tuple[Atom, ...] = (), **more: Any) -> dict[str, Any]:
    peers = more.pop("peers", (*eager, *lazy))
    return {
        "node": name, "version": "0.1.0", "carrier": Atom("barrel_p2p"), "seconds": 100.0, "up": 3_700.0,
        "processes": 4, "waiting": 3, "longest": 2, "lag_ms": 1.25, "active": [*eager, *lazy], "passive": [],
        "eager": list(eager), "lazy": list(lazy), "missing": 0, "dropped": 0, "idle_closed": 0, "replicas": {},
        "peers": [peer(name) for name in peers], "top": [], **more,
    }  # fmt: skip


def peer(name: Atom, **more: Any) -> dict[str, Any]:
    return {
        "node": name, "kind": Atom("python"), "hidden": False, "sent": 0, "received": 0, "sent_bytes": 0,
        "received_bytes": 0, "queued": 0, "busy": False, "round_trip_ms": None, **more,
    }  # fmt: skip


def cluster(*snapshots: dict[str, Any], **unseen: str) -> Cluster:
    return Cluster(VISITOR, {one["node"]: one for one in snapshots}, {Atom(f"{n}@h"): why for n, why in unseen.items()})


# --- the picture ------------------------------------------------------------------------------------------------------


def test_a_link_is_what_both_sides_say() -> None:
    found = links_of(cluster(
        snapshot(A, eager=(B,), lazy=(C,), peers=(B, C)),
        snapshot(B, eager=(A, C)),
        snapshot(C, lazy=(A, B)),
    ))  # fmt: skip
    assert found == {(A, B): "tree", (A, C): "lazy", (B, C): "half"}


def test_a_channel_outside_the_overlay_is_one_on_demand_and_strangers_count_by_one_side() -> None:
    found = links_of(cluster(snapshot(A, peers=(B, C, VISITOR)), snapshot(B, peers=(A,)), c="silent"))
    assert found == {(A, B): "demand", (A, C): "demand"}


@pytest.mark.parametrize("name", ["<script>\"&'@h", "ünï@h", "a]]>@h"])
def test_names_can_t_break_out_of_the_picture(name: str) -> None:
    evil = Atom(name)
    text = draw(cluster(snapshot(A, eager=(evil,)), snapshot(evil, eager=(A,))), f"seen from {name}")
    root = ElementTree.fromstring(text)
    assert {child.tag.rpartition("}")[2] for child in root.iter()} == {"svg", "title", "rect", "text", "line", "circle"}
    assert any(name.partition("@")[0] == (child.text or "") for child in root.iter())


def test_the_same_cluster_is_drawn_the_same_way() -> None:
    one = cluster(snapshot(A, eager=(B, C)), snapshot(B, eager=(A,)), snapshot(C, eager=(A,)))
    assert draw(one, "t") == draw(one, "t")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_nodes_keep_apart_within_the_picture(count: int) -> None:
    nodes = [f"n{i}" for i in range(count)]
    ring = {(nodes[i], nodes[(i + 1) % count]): 1.0 for i in range(count) if count > 1}
    places = layout(nodes, ring)
    assert list(places) == nodes and all(0 <= x <= 1 and 0 <= y <= 1 for x, y in places.values())
    gaps = [math.dist(places[a], places[b]) for a in nodes for b in nodes if a < b]
    assert not gaps or min(gaps) > 0.3 / math.sqrt(count)


# --- the view ---------------------------------------------------------------------------------------------------------


def test_rates_are_those_between_two_looks() -> None:
    before = cluster(snapshot(A, eager=(B,), peers=(), seconds=100.0))
    before.seen[A]["peers"] = [peer(B, sent=100, received=10, sent_bytes=0)]  # type: ignore[index]
    now = cluster(snapshot(A, eager=(B,), seconds=102.0))
    now.seen[A]["peers"] = [  # type: ignore[index]
        peer(B, sent=150, received=10, sent_bytes=40_960, round_trip_ms=0.5, busy=True, queued=3_000_000)
    ]
    lines = View(A).frame(now, before, "12:00:00").splitlines()
    (row,) = [line for line in lines if line.startswith("b@h")]
    assert row.split() == ["b@h", "eager", "0.50", "25", "0.0", "20", "0.0", "2", "MiB", "busy"]
    assert lines[0].startswith("a@h  barrel_p2p 0.1.0 over barrel_p2p, up 1h 1m, 1 nodes") and "12:00:00" in lines[0]


def test_processes_are_sorted_by_mailbox_or_by_wakes() -> None:
    def process(number: int, name: str, mailbox: int, wakes: int) -> dict[str, Any]:
        pid = Pid(A, number, 0, 1)
        return {"pid": pid, "name": name, "mailbox": mailbox, "wakes": wakes, "state": Atom("receiving")}

    before = cluster(snapshot(A, seconds=100.0, top=[process(1, "full", 9, 5), process(2, "busy", 0, 50)]))
    now = cluster(snapshot(A, seconds=101.0, top=[process(1, "full", 9, 5), process(2, "busy", 0, 80)]))
    for sort, first, wakes in (("mailbox", "full", "0"), ("wakes", "busy", "30")):
        lines = View(A, sort=sort).frame(now, before, "").splitlines()
        row = lines[next(i for i, line in enumerate(lines) if line.startswith("PROCESS")) + 1].split()
        assert row[1] == first and row[3] == wakes


def test_a_view_as_a_picture_keeps_its_lines_within_it() -> None:
    now = cluster(snapshot(A, eager=(Atom("<b>&@h"),)))
    text = View(A).frame(now, now, "12:00:00")
    root = ElementTree.fromstring(picture(text, "top"))
    lines = [line for line in text.splitlines() if line.strip()]
    drawn = root.findall("{http://www.w3.org/2000/svg}text")
    assert [line.text for line in drawn] == [line.strip() for line in lines]
    for line in drawn:
        assert float(line.get("x", 0)) + float(line.get("textLength", 0)) <= float(root.get("width", 0)) - 10
        assert float(line.get("y", 0)) <= float(root.get("height", 0)) - 10
    bold = [(line.text or "").split()[0] for line in drawn if line.get("font-weight")]
    assert bold == [A, "PEER", "NODE", "PROCESS"]


def test_no_other_node_moves_the_cursor() -> None:
    bad = Atom("\x1b[2J@h")
    now = cluster(snapshot(A, eager=(bad,), version=b"\x1b]0;title\x07"), b="\x1b[31mgone")
    text = View(A).frame(now, now, "")
    assert "\x1b" not in text and "\x07" not in text and "?[2J@h" in text


def test_lines_are_cut_at_the_width_and_rows_at_the_limit() -> None:
    many = tuple(Atom(f"peer{i}@h") for i in range(30))
    now = cluster(snapshot(A, eager=many))
    lines = View(A, rows=4, width=40).frame(now, now, "").splitlines()
    assert max(map(len, lines)) <= 40 and "... and 26 more" in lines
