"""Every reason of a refusal that the documentation lists has advice of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from barrel_p2p.cli.advice import _TABLE, advise
from barrel_p2p.cli.advice_tcp import TCP_TABLE
from barrel_p2p.cli.examination import STEPS
from barrel_p2p.cli.examination_tcp import TCP_STEPS
from barrel_p2p.proto.auth_texts import REFUSALS

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "identity.md").read_text()
FIRST_CELLS = re.findall(r"^\| (`[a-z_:]+`[^|]*)\|", PAGE, re.MULTILINE)
NO_REASONS = {"lock", "dynamic_name"}  # a file; a fault that only acceptors meet
REASONS = sorted({word for cell in FIRST_CELLS for word in re.findall(r"`([a-z_:]+)`", cell)} - NO_REASONS)


def test_the_page_was_read() -> None:
    assert {"key_mismatch", "rejected:untrusted_key", "bad_cookie", "missing_flags"} <= set(REASONS)


@pytest.mark.parametrize("reason", [*REASONS, *(f"rejected:{word}" for word in REFUSALS)])
def test_a_refusal_has_advice(reason: str) -> None:
    assert reason in _TABLE or reason.removeprefix("rejected:") in _TABLE
    advice = advise(reason, node="bob@h")
    assert advice.step in STEPS and advice.whose and advice.what
    assert not re.search(r"[{}]", advice.whose + advice.what + " ".join(advice.commands))


@pytest.mark.parametrize("reason", sorted(TCP_TABLE))
def test_a_refusal_over_tcp_has_advice_of_its_own(reason: str) -> None:
    advice = advise(reason, over_tcp=True, node="bob@h")
    assert advice.step in TCP_STEPS and advice.whose and advice.what
    text = advice.whose + advice.what + " ".join(advice.commands)
    assert not re.search(r"[{}]|UDP|QUIC|pin", text)
    assert all("--proto-dist inet_tcp" in line for line in advice.commands if line.startswith("barrel doctor"))


def test_over_tcp_the_other_reasons_have_a_step_that_exists_there() -> None:
    for reason in ("old_version", "missing_flags", "own_name", "bad_name", "nok", "no_pong", "something_new"):
        assert advise(reason, over_tcp=True).step in TCP_STEPS


def test_silence_at_the_last_proof_means_the_cookie() -> None:
    assert advise("closed", waiting_for="ack").step == advise("timeout", waiting_for="ack").step == "cookie"
    assert advise("closed", waiting_for="status").step == "name"
    assert advise("closed").step == "key"


def test_quic_codes_are_told_apart() -> None:
    assert "correct the port" in advise("transport", code=0x178).what
    assert "not yet let in" in advise("transport", code=0x02).what


def test_a_word_of_a_later_version_is_not_fatal() -> None:
    assert advise("something_new").what
