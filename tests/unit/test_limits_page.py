"""The page of limits: one table, with the numbers that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from barrel_p2p.crdt import entry, hlc, keys, seen
from barrel_p2p.crdt import wire as crdt_wire
from barrel_p2p.disk import keys as pins
from barrel_p2p.net import contacts, discovery, dns
from barrel_p2p.node import dispatch, guests, logger_proxy, paths, propagation, readings, rex, rotation, telemetry, user
from barrel_p2p.node.options import Options
from barrel_p2p.proto import (
    conduct,
    connecting,
    endorsement,
    global_core,
    global_partitions,
    global_tables,
    hyparview,
    hyparview_config,
    hyparview_wire,
    leases,
    map_state,
    outflows,
    registry_state,
    routing,
)
from barrel_p2p.proto.plumtree_config import PlumtreeConfig
from barrel_p2p.services import observer, registry, router, service_proxies

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/limits.md").read_text()
ROWS = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]
TREE = PlumtreeConfig()


def of_rust(file: str, name: str) -> int:
    found = re.search(rf"const {name}: \w+ = ([\d_]+);", (ROOT / "rust/src" / file).read_text())
    assert found is not None
    return int(found[1])


def test_all_rows_are_of_one_table() -> None:
    blocks = PAGE.split("\n\n")
    (table,) = [block for block in blocks if "|---|" in block]
    lines = table.splitlines()
    assert all(line.startswith("|") for line in lines) and len(lines) == len(ROWS)
    assert {len(row) for row in ROWS} == {3}


@pytest.mark.parametrize(
    ("what", "bounds"),
    [
        ("unauthenticated inbound connections", (Options().max_unauthenticated,)),
        ("addresses that are counted", (of_rust("budget.rs", "MAX_ADDRESSES"),)),
        ("such peers that are remembered", (conduct.MAX_PEERS,)),
        ("peers let in at the same time", (connecting.MAX_QUEUES,)),
        ("addresses of one look-up", (discovery.MAX_ADDRESSES,)),
        ("dials for one queue", (connecting.MAX_DIALS,)),
        ("pinned keys", (pins.MAX_PINS,)),
        ("links of a chain of endorsements", (endorsement.MAX_LINKS,)),
        ("changes of its key", (rotation.MAX_CHANGES,)),
        ("names in one overlay message", (hyparview_wire.MAX_NAMES, hyparview_wire.MAX_TTL)),
        ("contact nodes", (contacts.MAX_CONTACTS, dns.MAX_RECORDS)),
        ("processes that one peer may have", (guests.MAX_GUESTS,)),
        ("links with processes of one peer", (dispatch.MAX_BONDS,)),
        ("processes of old-style calls", (rex.MAX_BLOCKED,)),
        ("events of Erlang's `logger`", (logger_proxy.MAX_WAITING, logger_proxy.MAX_TEXT)),
        ("requests that wait for `user`", (user.MAX_WAITING, user.MAX_REQUESTS)),
        ("how far a remote stamp", (hlc.MAX_AHEAD_MS // 1000,)),
        ("entries of a replicated map", (map_state.MAX_ENTRIES, registry_state.MAX_SERVICES)),
        ("nesting of a key", (keys.MAX_DEPTH, entry.MAX_NODES)),
        ("entries of one message", (crdt_wire.Rules().max_entries,)),
        ("writers that a replica remembers", (seen.MAX_WRITERS,)),
        ("writers that a replica remembers", (leases.MAX_MEMBERS, registry_state.MAX_GONE)),
        ("peers that a replica is sending to", (outflows.MAX_OUTFLOWS, outflows.MAX_QUEUED)),
        ("our services overruled", (registry_state.MAX_OVERRULED,)),
        ("the active view", (Options().active_size, Options().passive_size)),
        ("peers being won", (hyparview_config.MAX_LOST,)),
        ("names taken from one shuffle", (hyparview_wire.MAX_NAMES, hyparview.MAX_LED_ON, hyparview_wire.MAX_TTL)),
        ("broadcasts known by id", (TREE.max_ids, TREE.max_cached)),
        ("broadcasts announced", (TREE.max_missing, TREE.max_missing // 4, TREE.max_announcers, TREE.max_grafts)),
        ("Erlang nodes outside the view", (TREE.max_strangers,)),
        ("global names", (global_tables.MAX_NAMES, global_tables.MAX_LOCKS, global_core.MAX_KNOWN)),
        ("reports of lost connections", (global_partitions.MAX_REPORTS,)),
        ("requests of one peer to move", (paths.MAX_WAITING, int(paths.MAX_SECONDS))),
        ("sets of attributes of one metric", (telemetry.MAX_SERIES, readings.MAX_PEERS)),
        ("a question through nodes", (observer.MAX_PATH, observer.MAX_PROCESSES, observer.MAX_PEERS)),
        ("services of all nodes", (registry_state.MAX_SERVICES,)),
        ("searches for services", (routing.MAX_SEARCHES, routing.RACE, int(routing.WAIT_S))),
        ("lost nodes whose services", (registry.MAX_LOST,)),
        ("nodes in one request of a search", (routing.MAX_VISITED, router.MAX_ANSWERS)),
        ("messages that wait in a service proxy", (service_proxies.MAX_WAITING,)),
        ("headers of a trace context", (propagation.MAX_HEADERS, propagation.MAX_HEADER)),
    ],
)
def test_a_row_has_the_numbers_of_the_code(what: str, bounds: tuple[int, ...]) -> None:
    (row,) = [row for row in ROWS if row[0].strip().startswith(what)]
    numbers = [word.strip(",;:.") for word in row[1].split()]
    for bound in bounds:
        assert f"{bound:,}" in numbers, f"{what}: {row[1]}, and the code has {bound:,}"
