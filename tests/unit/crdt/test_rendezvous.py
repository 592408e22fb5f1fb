"""The hash of terms and the placement of keys, held against outputs of a real node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from barrel_p2p.crdt.phash2 import phash2
from barrel_p2p.crdt.rendezvous import owned, owner, owners, partition
from barrel_p2p.term.codec import decode
from barrel_p2p.term.types import Atom, Reference

VECTORS = Path(__file__).parents[2] / "vectors"
PLACEMENT = json.loads((VECTORS / "placement.json").read_text())


def test_every_recorded_hash_is_met() -> None:
    lines = [line.split() for line in (VECTORS / "phash2.txt").read_text().splitlines() if line[0] != "#"]
    assert len(lines) > 900
    wrong = []
    for text, small, whole in lines:
        term = decode(bytes.fromhex(text))
        if (phash2(term), phash2(term, 1 << 32)) != (int(small), int(whole)):
            wrong.append((term, int(small), phash2(term)))
    assert not wrong


def test_a_str_hashes_as_its_binary() -> None:
    assert phash2("é €") == phash2("é €".encode())


def test_what_has_no_portable_hash_is_refused() -> None:
    for term in (Reference(Atom("a@h"), 1, (1, 2)), object()):
        with pytest.raises(ValueError, match="no portable hash"):
            phash2((1, term))


@pytest.mark.parametrize("case", PLACEMENT["owners"], ids=lambda case: str(len(case["members"])))
def test_partitions_are_owned_as_on_erlang_nodes(case: dict[str, list[str]]) -> None:
    members = [Atom(name) for name in case["members"]]
    assert [owner(members, part) for part in range(64)] == case["owners"]
    assert sorted(part for node in members for part in owned(members, node)) == list(range(64))


@pytest.mark.parametrize("case", PLACEMENT["partitions"], ids=lambda case: case["key"])
def test_keys_fall_into_the_partitions_of_erlang_nodes(case: dict[str, str]) -> None:
    assert partition(decode(bytes.fromhex(case["hex"]))) == case["partition"]


def test_who_takes_over_is_the_next_in_the_list() -> None:
    members = [Atom(f"n{i}@h") for i in range(5)]
    for part in range(64):
        first, second, *_ = owners(members, part, 5)
        assert owner(members, part) == first
        assert owner([node for node in members if node != first], part) == second


def test_nobody_owns_anything_without_members() -> None:
    assert owner([], 3) is None and owners([], 3, 2) == []
