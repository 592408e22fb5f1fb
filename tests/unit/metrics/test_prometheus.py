"""The page for Prometheus, read by Prometheus' own client library."""

from __future__ import annotations

from typing import Any

import pytest

from barrel_p2p import Node
from barrel_p2p.metrics import prometheus_text
from barrel_p2p.metrics.prometheus import name_of
from barrel_p2p.node.instruments import (
    AUTH_DURATION,
    BUSY_TIME,
    BYTES,
    CATALOGUE,
    LOOP_LAG,
    MESSAGES,
    PEER_UP,
    QUEUED,
    ROUND_TRIP,
)

parser = pytest.importorskip("prometheus_client.parser")


def read(text: str) -> dict[str, Any]:
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def test_every_instrument_has_its_help_and_type() -> None:
    families = read(prometheus_text(Node("alice@127.0.0.1")))
    assert len(families) == len(CATALOGUE)
    for one in CATALOGUE:
        family = families[name_of(one).removesuffix("_total")]
        assert family.type == one.kind and family.documentation == one.text


def test_names_say_the_unit_once() -> None:
    assert name_of(PEER_UP) == "barrel_p2p_hyparview_peer_up_total"
    assert name_of(BYTES) == "barrel_p2p_channel_bytes_total"
    assert name_of(QUEUED) == "barrel_p2p_channel_queued_bytes"
    assert name_of(BUSY_TIME) == "barrel_p2p_channel_busy_time_seconds_total"
    assert name_of(ROUND_TRIP) == "barrel_p2p_channel_round_trip_seconds"
    assert name_of(AUTH_DURATION) == "barrel_p2p_dist_auth_duration_ms"


@pytest.mark.parametrize("peer", ['say "hi"@host', "back\\slash@host", "two\nlines@host", "\\n@host", "ü{},=@host", ""])
def test_labels_come_back_as_they_were(peer: str) -> None:
    node = Node("alice@127.0.0.1")
    node.telemetry.count(PEER_UP, peer, by=7)
    (sample,) = read(prometheus_text(node))["barrel_p2p_hyparview_peer_up"].samples
    assert sample.labels == {"node": "alice@127.0.0.1", "peer": peer} and sample.value == 7


def test_a_histogram_is_cumulative() -> None:
    node = Node("alice@127.0.0.1")
    for lag in (0.0004, 0.003, 0.003, 60.0):
        node.telemetry.record(LOOP_LAG, lag)
    samples = read(prometheus_text(node))["barrel_p2p_loop_lag_seconds"].samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert buckets["0.001"] == 1 and buckets["0.002"] == 1 and buckets["0.005"] == 3
    assert buckets["10"] == 3 and buckets["+Inf"] == 4
    values = {sample.name: sample.value for sample in samples if not sample.name.endswith("_bucket")}
    assert values["barrel_p2p_loop_lag_seconds_count"] == 4
    assert values["barrel_p2p_loop_lag_seconds_sum"] == pytest.approx(60.0064)


def test_nodes_of_one_program_share_a_page() -> None:
    alice, bob = Node("alice@127.0.0.1"), Node("bob@127.0.0.1")
    alice.telemetry.observe(MESSAGES, lambda: [(("bob@127.0.0.1", "sent"), 5)])
    bob.telemetry.observe(MESSAGES, lambda: [(("alice@127.0.0.1", "received"), 5.5)])
    text = prometheus_text(alice, bob)
    assert text.count("# TYPE barrel_p2p_channel_messages_total counter\n") == 1 and text.endswith("\n")
    samples = read(text)["barrel_p2p_channel_messages"].samples
    assert {(s.labels["node"], s.labels["peer"], s.value) for s in samples} == {
        ("alice@127.0.0.1", "bob@127.0.0.1", 5),
        ("bob@127.0.0.1", "alice@127.0.0.1", 5.5),
    }
