"""The frames of the Ed25519 exchange against bytes from real Erlang nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from barrel_p2p.proto.auth_frames import (
    Bad,
    Challenge,
    Fail,
    Hello,
    Ok,
    Response,
    decode,
    encode,
    signed_text,
)
from barrel_p2p.proto.identity import fingerprint, fingerprint_hex
from barrel_p2p.proto.names import is_node_name
from barrel_p2p.term.types import Atom

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "auth.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda v: v["node"])
def test_frames_are_upstreams_bytes(vector: dict[str, str]) -> None:
    public, nonce = bytes.fromhex(vector["public_key"]), bytes.fromhex(vector["nonce"])
    binding, timestamp = bytes.fromhex(vector["binding_sha256"]), int(vector["timestamp_ms"])
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed"]))
    text = signed_text(nonce, timestamp, public, binding)
    assert text.hex() == vector["signed_message"]
    assert private.sign(text).hex() == vector["signature"]
    assert fingerprint_hex(public) == vector["fingerprint_sha256"]
    frames = {
        "hello": Hello(Atom(vector["node"]), public),
        "challenge": Challenge(nonce, timestamp),
        "response": Response(private.sign(text)),
        "ok": Ok(),
        "fail": Fail("key_mismatch"),
    }
    for name, frame in frames.items():
        assert encode(frame).hex() == vector[f"{name}_len_prefixed"]
        assert decode(bytes.fromhex(vector[name])) == frame


@pytest.mark.parametrize("vector", VECTORS["decode"], ids=lambda v: v["hex"][:24] or "empty")
def test_decoding_agrees_with_upstream(vector: dict[str, str]) -> None:
    frame, result = decode(bytes.fromhex(vector["hex"])), vector["result"]
    if not result.startswith("{error"):
        assert type(frame).__name__.lower() == result.strip("{").split(",")[0]
        return
    assert isinstance(frame, Bad)
    if "unsupported_version" in result:
        # Upstream matches the length of a HELLO before its version only for complete ones; the reason is the
        # same.
        assert frame.reason == "unsupported_version"
    elif "invalid_node_name" in result:
        assert frame.reason == "bad_name"
    else:
        assert frame.reason == "malformed"


@pytest.mark.parametrize("vector", VECTORS["node_names"], ids=lambda v: v["name"])
def test_node_names_agree_with_upstream(vector: dict[str, object]) -> None:
    assert is_node_name(bytes.fromhex(str(vector["name"])).decode("latin-1")) is vector["ok"]


def test_published_example() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes_raw()
    text = signed_text(b"\x11" * 32, 1700000000000, public, b"\x22" * 32)
    assert len(text) == 104
    assert private.sign(text).hex() == (
        "ec95fdd8106b55d1cda04a0a3c6d756f95a5e85ca04e564ef05de0b2def3a6c4"
        "b9a35b296c838c9e4b9a24c7f9251860e35b305bcf8a67f2ddf0e64541d3b509"
    )


def test_a_fail_reason_cant_draw_on_a_terminal() -> None:
    assert decode(b"\x05\x00\x03a\x1bb") == Fail("a?b")


def test_fingerprint_is_short_and_stable() -> None:
    assert fingerprint(bytes(32)) == "SHA256:Zmh6rfhivXdsj8GLjp+OIAiXFIVu4jOzkCpZHQ1fKSU"
