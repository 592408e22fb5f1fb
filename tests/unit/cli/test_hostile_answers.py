"""What a node that lies may answer to ``barrel call``, ``top`` and ``graph``: the terminal obeys none of it."""

from __future__ import annotations

from typing import Any

import pytest

from barrel_p2p.cli.call import _told
from barrel_p2p.cli.crawl import _is_snapshot
from barrel_p2p.errors import RemoteError
from barrel_p2p.term.types import Atom, Pid

EVIL = "a\n\x1b[2J\x9b1m\u202e"


@pytest.mark.parametrize(
    "error",
    [
        RemoteError("error", (Atom("exception"), "ValueError", EVIL), []),
        RemoteError("error", (Atom("exception"), EVIL, list(EVIL.encode())), []),
        RemoteError(EVIL, Atom(EVIL), [(Atom(EVIL), Atom(EVIL), 2, [(Atom("file"), EVIL), (Atom("line"), EVIL)])]),
        RemoteError("exit", [EVIL.encode(), Pid(Atom(EVIL), 1, 2, 3)], [EVIL, {EVIL: 1}]),
        RemoteError("throw", 1, (EVIL,)),
    ],
)
def test_an_error_is_told_line_by_line(error: RemoteError) -> None:
    lines = _told(error, "shop:price/2", "bob@127.0.0.1").split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith((" ", "barrel: ")) for line in lines)


def snapshot(**more: Any) -> dict[Any, Any]:
    numbers = ("seconds", "up", "processes", "waiting", "longest", "lag_ms", "missing", "dropped", "idle_closed")
    lists = ("active", "passive", "eager", "lazy", "peers", "top")
    peer = {
        "node": Atom("b@h"), "kind": Atom("python"), "hidden": False, "sent": 0, "received": 0, "sent_bytes": 0,
        "received_bytes": 0, "queued": 0, "busy": False, "round_trip_ms": None,
    }  # fmt: skip
    return {
        "node": Atom("a@h"), "version": "1", "carrier": Atom("barrel_p2p"), "replicas": {Atom("m"): 1},
        **dict.fromkeys(numbers, 1), **{name: [] for name in lists}, "peers": [peer | more.pop("peer", {})], **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    "bent",
    [
        {"active": [Atom("x\x1b[2J@h")]},
        {"eager": [Atom("<script>@h")]},
        {"peer": {"node": Atom("x@h\n")}},
        {"peer": {"sent": 1 << 20_000}},
        {"processes": 1 << 20_000},
        {"up": -(1 << 20_000)},
        {"replicas": {Atom("m"): 1 << 20_000}},
        {"replicas": {1: 1}},
    ],
    ids=str([*range(8)]).strip("[]").split(", "),
)
def test_an_answer_with_names_that_are_none_or_endless_numbers_makes_no_sense(bent: dict[str, Any]) -> None:
    assert _is_snapshot(snapshot())
    assert not _is_snapshot(snapshot(**bent))
