"""Node names: what passes, and what people read when theirs does not."""

from __future__ import annotations

import pytest

from barrel_p2p.errors import ConfigError
from barrel_p2p.proto.names import host_of, matches_any, validate_node_name, validate_node_pattern
from barrel_p2p.term.types import Atom


def test_a_good_name_becomes_an_atom() -> None:
    name = validate_node_name("node-b_1@host.example.org")
    assert isinstance(name, Atom) and host_of(name) == "host.example.org"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("alice", "did you mean alice@127.0.0.1?"),
        ("", "name@host, such as alice@127.0.0.1"),
        ("a@b@c", "2 '@'"),
        ("@host", "before the '@'"),
        ("alice@", "no host"),
        ("alice@[::1]", "IPv6"),
        ("älice@host", "'ä'"),
        ("al ice@host", "' '"),
        ("a@host\n", "not allowed"),
        ("-a@host", "start"),
        ("a@.host", "start"),
        ("x" * 250 + "@host.org", "255"),
    ],
)
def test_a_bad_name_is_explained(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_node_name(name)
    assert hint in str(caught.value) and len(str(caught.value)) < 300


def test_bytes_are_no_name() -> None:
    with pytest.raises(ConfigError, match="not bytes"):
        validate_node_name(b"a@b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("cnode@localhost", False),
        ("monitor@*", True),
        ("*@trusted.local", True),
        ("*@*", True),
        ("monitor@trusted.local", True),
        ("mon@*", False),
    ],
)
def test_patterns(pattern: str, fits: bool) -> None:
    assert matches_any((validate_node_pattern(pattern),), "monitor@trusted.local") is fits


@pytest.mark.parametrize("pattern", ["*", "mon*@h", "a@b@*", "@*", "**@h", ""])
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        validate_node_pattern(pattern)
