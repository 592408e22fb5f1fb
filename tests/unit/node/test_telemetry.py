"""Instruments: counts stay bounded, and what fails to be read or told costs only itself."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from barrel_p2p.errors import AuthError, HandshakeError, InternalError, NotConnected
from barrel_p2p.node import handshake_counts
from barrel_p2p.node.establishing import DialYielded
from barrel_p2p.node.handshake_counts import HandshakeCounts, reason_of
from barrel_p2p.node.instruments import (
    ACTIVE,
    AUTH_ATTEMPTS,
    AUTH_DURATION,
    CATALOGUE,
    CHANNELS,
    HANDSHAKES,
    JOINED,
    LOOP_LAG,
    MESSAGES,
    PEER_DOWN,
    PEER_UP,
)
from barrel_p2p.node.telemetry import MAX_SERIES, Distribution, Telemetry
from barrel_p2p.proto.auth_texts import REFUSALS

PROTO = Path(handshake_counts.__file__).parents[1] / "proto"


def test_every_name_is_unique_and_the_catalogue_is_in_order_of_the_file() -> None:
    assert len({one.name for one in CATALOGUE}) == len(CATALOGUE)
    assert CATALOGUE[0] is PEER_UP and CATALOGUE[-1] is LOOP_LAG


def test_peers_past_the_bound_count_together() -> None:
    telemetry = Telemetry()
    for number in range(MAX_SERIES + 10):
        telemetry.count(PEER_DOWN, f"peer{number}@host", "nodedown")
    telemetry.count(PEER_DOWN, "peer0@host", "nodedown")
    metric = telemetry.metrics()[PEER_DOWN.name]
    assert len(metric.series) == MAX_SERIES + 1
    assert metric.series["other", "nodedown"] == 10 and metric.series["peer0@host", "nodedown"] == 2
    assert metric.value == MAX_SERIES + 11, "nothing is lost"


def test_a_source_of_too_many_peers_is_cut_off_as_well() -> None:
    telemetry = Telemetry()
    telemetry.observe(MESSAGES, lambda: [((f"peer{number}@host", "sent"), 1) for number in range(MAX_SERIES + 5)])
    series = telemetry.metrics()[MESSAGES.name].series
    assert len(series) == MAX_SERIES + 1 and series["other", "sent"] == 5


def test_a_source_may_give_a_value_in_parts() -> None:
    telemetry = Telemetry()
    telemetry.observe(MESSAGES, lambda: [(("bob@host", "sent"), 3), (("bob@host", "sent"), 4)])
    assert telemetry.metrics()[MESSAGES.name].series == {("bob@host", "sent"): 7}


def test_counters_without_attributes_begin_at_zero() -> None:
    metrics = Telemetry().metrics()
    assert metrics[JOINED.name].series == {(): 0} and metrics[ACTIVE.name].series == {}


def test_a_source_that_fails_is_logged_once_and_the_others_are_read(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    telemetry.observe(CHANNELS, lambda: [((), 1 / 0)])
    telemetry.observe(ACTIVE, lambda: [((), 4)])
    for _ in range(3):
        metrics = telemetry.metrics()
    assert metrics[CHANNELS.name].series == {} and metrics[ACTIVE.name].series == {(): 4}
    assert len(caplog.records) == 1 and "barrel_p2p.channel.count can't be read" in caplog.text


def test_values_fall_into_the_bucket_whose_bound_they_reach() -> None:
    telemetry = Telemetry()
    for value in (0.5, 1.0, 1.5, 10_000.0, 10_001.0):
        telemetry.record(AUTH_DURATION, value, "incoming", "ok")
    found = telemetry.metrics()[AUTH_DURATION.name].series["incoming", "ok"]
    assert isinstance(found, Distribution)
    assert found.buckets[:2] == (2, 1) and found.buckets[-2:] == (1, 1)
    assert found.count == 5 and found.total == 20_004.0


def test_a_listener_that_fails_is_logged_once_and_the_value_counts(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    heard: list[float] = []

    def bad(*_: object) -> None:
        raise OSError("the exporter's host is gone")

    telemetry.listen(bad)
    end = telemetry.listen(lambda instrument, value, values: heard.append(value))
    telemetry.record(LOOP_LAG, 0.1)
    telemetry.record(LOOP_LAG, 0.2)
    end()
    end()
    telemetry.record(LOOP_LAG, 0.3)
    assert heard == [0.1, 0.2]
    assert telemetry.metrics()[LOOP_LAG.name].value == 3
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


# --- handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (AuthError("key_mismatch", "..."), "auth_key_mismatch"),
        (AuthError("rejected:untrusted_key", "..."), "auth_rejected"),
        (AuthError("what the peer made up", "..."), "auth_other"),
        (HandshakeError("bad_cookie", "..."), "bad_cookie"),
        (HandshakeError("<script>", "..."), "other"),
        (NotConnected("...", "unknown_address"), "unknown_address"),
        (NotConnected("the node stops"), "given_up"),
        (DialYielded("..."), "yielded"),
        (InternalError("..."), "internal_error"),
        (ConnectionRefusedError("..."), "unreachable"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_end_of_an_attempt_is_one_of_few_words(error: Exception, word: str) -> None:
    assert reason_of(error) == word


def test_no_reason_of_our_own_counts_as_other() -> None:
    ours = set(re.findall(r'_fail\(\s*"([a-z_]+)"', (PROTO / "handshake.py").read_text()))
    assert len(ours) > 5
    assert not [word for word in ours if reason_of(HandshakeError(word, "")) == "other"]
    machine = (PROTO / "auth.py").read_text() + (PROTO / "auth_exchange.py").read_text()
    ours = set(re.findall(r'(?:_fail|Failed|Bad)\(\s*"([a-z_]+)"', machine))
    ours |= set(re.findall(r'Bad\(\s*"([a-z_]+)"', (PROTO / "auth_frames.py").read_text())) | set(REFUSALS)
    ours |= set(re.findall(r'return "([a-z_]+)", \(', (PROTO / "auth_texts.py").read_text()))
    assert len(ours) > 15
    assert not [word for word in ours if reason_of(AuthError(word, "")) == "auth_other"]


def test_a_failed_key_exchange_counts_in_both_metrics_a_wrong_cookie_in_one() -> None:
    telemetry = Telemetry()
    counts = HandshakeCounts(telemetry)
    counts.failed("incoming", AuthError("clock_skew", "..."), 0.2)
    counts.authenticated("outgoing", 0.1)
    counts.failed("outgoing", HandshakeError("bad_cookie", "..."), 0.3)
    metrics = telemetry.metrics()
    assert metrics[AUTH_ATTEMPTS.name].series == {("incoming", "fail"): 1, ("outgoing", "ok"): 1}
    assert metrics[HANDSHAKES.name].series == {("incoming", "auth_clock_skew"): 1, ("outgoing", "bad_cookie"): 1}
