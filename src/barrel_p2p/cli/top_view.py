"""What ``barrel top`` shows, as text: a head, and tables of the peers, the cluster and the processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.cli.crawl import Cluster, Snapshot
from barrel_p2p.term.types import Atom

_ORDER: Final = {"eager": 0, "lazy": 1, "active": 2, "on demand": 3, "visitor": 4}


@dataclass(frozen=True, slots=True)
class View:
    """How to show a cluster.

    Attributes:
        rows: Lines of each table.
        sort: Which processes come first: those with the fullest ``mailbox``, or the most ``wakes`` a second.
        width: Columns of the terminal; longer lines are cut.
    """

    target: Atom
    rows: int = 10
    sort: str = "mailbox"
    width: int = 110

    def frame(self, now: Cluster, before: Cluster, clock: str) -> str:
        """One view; rates are taken between two looks at the same node."""
        snapshot, earlier = now.seen[self.target], before.seen.get(self.target, {})
        parts = [
            _head(snapshot, now, clock, self.width),
            *([_sizes(snapshot)] if snapshot["replicas"] else []),
            _table(_PEERS, _peers(snapshot, earlier, now.visitor), self.rows),
            _table(_NODES, _nodes(now, before), self.rows),
            _table(_PROCESSES, _processes(snapshot, earlier, self.sort), self.rows),
        ]
        return "\n\n".join("\n".join(_text(line)[: self.width].rstrip() for line in part) for part in parts)


# --- the head ---------------------------------------------------------------------------------------------------------


def _head(snapshot: Snapshot, now: Cluster, clock: str, width: int) -> list[str]:
    unseen = f", {len(now.unseen)} more that can't be looked at" if now.unseen else ""
    title = (
        f"{snapshot['node']}  barrel_p2p {_text(snapshot['version'])} over {snapshot['carrier']}, "
        f"up {_time(snapshot['up'])}, {len(now.seen)} nodes{unseen}"
    )
    return [
        f"{title:<{max(0, width - len(clock) - 1)}} {clock}",
        f"processes {snapshot['processes']}, their mailboxes {snapshot['waiting']} (longest {snapshot['longest']}), "
        f"event loop {snapshot['lag_ms']:.1f} ms late",
        f"views {len(snapshot['active'])}+{len(snapshot['passive'])}; broadcasts: eager {len(snapshot['eager'])}, "
        f"lazy {len(snapshot['lazy'])}, missing {snapshot['missing']}; malformed {snapshot['dropped']}; "
        f"closed idle {snapshot['idle_closed']}",
    ]


def _sizes(snapshot: Snapshot) -> list[str]:
    sizes = sorted(snapshot["replicas"].items())
    return ["replicated: " + ", ".join(f"{name} {size}" for name, size in sizes)]


# --- the tables -------------------------------------------------------------------------------------------------------

_PEERS = ("PEER", "LINK", "RTT MS", "MSG/S OUT", "IN", "KIB/S OUT", "IN", "QUEUED", "")
_NODES = ("NODE", "UP", "PROCESSES", "MAILBOXES", "LAG MS", "VIEW", "CHANNELS", "MSG/S OUT", "IN")
_PROCESSES = ("PROCESS", "NAME", "MAILBOX", "WAKES/S", "STATE")

_Row = tuple[str, ...]


def _peers(snapshot: Snapshot, earlier: Snapshot, visitor: Atom) -> list[_Row]:
    seconds = _seconds(snapshot, earlier)
    past = {peer["node"]: peer for peer in earlier.get("peers", ())}
    rows = []
    for peer in sorted(snapshot["peers"], key=lambda peer: (_ORDER[_link(peer, snapshot, visitor)], peer["node"])):
        old = past.get(peer["node"], {})
        trip = peer["round_trip_ms"]
        rows.append(
            (
                peer["node"],
                _link(peer, snapshot, visitor),
                "-" if trip is None else f"{trip:.2f}",
                *(_rate(peer, old, what, seconds) for what in ("sent", "received")),
                *(_rate(peer, old, what, seconds, 1024) for what in ("sent_bytes", "received_bytes")),
                _size(peer["queued"]),
                "busy" if peer["busy"] else "",
            )
        )
    return rows


def _link(peer: Any, snapshot: Snapshot, visitor: Atom) -> str:
    name = peer["node"]
    for kind in ("eager", "lazy", "active"):
        if name in snapshot[kind]:
            return kind
    return "visitor" if name == visitor or peer["hidden"] else "on demand"


def _nodes(now: Cluster, before: Cluster) -> list[_Row]:
    rows: list[_Row] = []
    for name, snapshot in now.seen.items():
        earlier = before.seen.get(name, {})
        seconds = _seconds(snapshot, earlier)
        rows.append(
            (
                name,
                _time(snapshot["up"]),
                str(snapshot["processes"]),
                str(snapshot["waiting"]),
                f"{snapshot['lag_ms']:.1f}",
                f"{len(snapshot['active'])}+{len(snapshot['passive'])}",
                str(sum(not peer["hidden"] and peer["node"] != now.visitor for peer in snapshot["peers"])),
                *(_rate(_sum(snapshot, what), _sum(earlier, what), what, seconds) for what in ("sent", "received")),
            )
        )
    return rows + [(name, f"? {why}") for name, why in now.unseen.items()]


def _sum(snapshot: Snapshot, what: str) -> dict[str, int]:
    return {what: sum(peer[what] for peer in snapshot["peers"])} if snapshot else {}


def _processes(snapshot: Snapshot, earlier: Snapshot, sort: str) -> list[_Row]:
    seconds = _seconds(snapshot, earlier)
    past = {process["pid"]: process["wakes"] for process in earlier.get("top", ())}

    def wakes(process: Any) -> int:
        return int(process["wakes"] - past.get(process["pid"], process["wakes"]))

    def key(process: Any) -> tuple[int, ...]:
        first, second = process["mailbox"], wakes(process)
        return (-second, -first) if sort == "wakes" else (-first, -second)

    return [
        (
            str(process["pid"]),
            _text(process["name"])[:40],
            str(process["mailbox"]),
            f"{wakes(process) / seconds:.0f}" if seconds else "-",
            process["state"],
        )
        for process in sorted(snapshot["top"], key=key)
    ]


def _table(titles: Sequence[str], rows: list[_Row], limit: int) -> list[str]:
    """Columns as wide as their longest entry, numbers to the right; what does not fit is counted."""
    shown = [tuple(titles), *rows[:limit]]
    widths = [max((len(row[i]) for row in shown if i < len(row) == len(titles)), default=0) for i in range(len(titles))]
    lines = ["  ".join(_cell(row, i, widths) for i in range(len(row))) for row in shown]
    return lines + ([f"... and {len(rows) - limit} more"] if len(rows) > limit else [])


def _cell(row: _Row, i: int, widths: list[int]) -> str:
    left = i < 2 or i == len(widths) - 1
    return row[i].ljust(widths[i]) if left else row[i].rjust(widths[i])


# --- numbers ----------------------------------------------------------------------------------------------------------


def _seconds(snapshot: Snapshot, earlier: Snapshot) -> float:
    return float(snapshot["seconds"] - earlier["seconds"]) if earlier else 0.0


def _rate(now: Any, old: Any, what: str, seconds: float, unit: int = 1) -> str:
    if what not in old or seconds <= 0:
        return "-"
    rate = max(0, now[what] - old[what]) / seconds / unit
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def _size(size: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s" if minutes else f"{rest}s"


def _text(value: Any) -> str:
    """A text without what could move the cursor: most of it comes from other nodes."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return "".join(letter if letter.isprintable() else "?" for letter in text)


__all__ = ["View"]
