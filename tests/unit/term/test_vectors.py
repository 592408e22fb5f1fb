"""Bytes that real nodes (OTP 27) made: both codecs read them as the node does, and write them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p.errors import DecodeError
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.maps import exact_key
from barrel_p2p.term.reference import ReferenceCodec
from barrel_p2p.term.types import Fun, Pid, Port, Reference

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "etf.json").read_text())
CODECS = [pytest.param(Codec, id="native"), pytest.param(ReferenceCodec, id="reference")]


def name(vector: dict[str, Any]) -> str:
    return (vector.get("desc") or f"{vector.get('opts', '')} {vector['term']}").strip()[:40]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("vector", VECTORS["term_to_binary"] + VECTORS["live"], ids=name)
def test_a_term_of_otp_27_comes_back_byte_for_byte(vector: dict[str, Any], codec: type[Codec]) -> None:
    data = bytes.fromhex(vector["hex"])
    term = codec().decode(data)
    assert codec().encode(term) == data


@pytest.mark.parametrize("vector", VECTORS["term_to_binary"] + VECTORS["live"] + VECTORS["options"], ids=name)
def test_both_codecs_read_the_same_value(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    assert exact_key(Codec().decode(data)) == exact_key(ReferenceCodec().decode(data))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("vector", VECTORS["options"], ids=name)
def test_every_form_of_a_term_is_the_same_term(vector: dict[str, Any], codec: type[Codec]) -> None:
    """Old minor versions and compression only change the bytes: the plain form of the term reads the same."""
    plain = [v["hex"] for v in VECTORS["term_to_binary"] + VECTORS["options"] if v["term"] == vector["term"]]
    values = {exact_key(codec().decode(bytes.fromhex(data))) for data in [*plain, vector["hex"]]}
    assert len(values) == 1


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("vector", VECTORS["decode_raw"], ids=name)
def test_hand_made_bytes_are_read_as_binary_to_term_reads_them(vector: dict[str, Any], codec: type[Codec]) -> None:
    data, expected = bytes.fromhex(vector["hex"]), vector["decode"]
    if not expected["ok"]:
        with pytest.raises(DecodeError):
            codec().decode(data)
        return
    term, end = codec().decode_prefix(data)
    assert end == expected["used"]
    if type(term) is str:
        term = term.encode()  # 8 bits mark a str: Erlang writes it back as the binary that it is there
    if type(term) is dict:
        term = dict(sorted(term.items()))  # a map has no order, and we don't make one
    assert codec().encode(term).hex() == expected["reencoded"]


def test_the_live_terms_are_what_they_are_called() -> None:
    kinds = [type(Codec().decode(bytes.fromhex(vector["hex"]))) for vector in VECTORS["live"]]
    assert kinds == [Pid, Reference, Reference, Port, Fun, Fun, Fun]
    pid = Codec().decode(bytes.fromhex(VECTORS["live"][0]["hex"]))
    assert (pid.node, pid.id, pid.serial) == (VECTORS["node"], 10, 0)
    assert pid.creation == VECTORS["creation"]
