"""Clusters of our nodes and of upstream's, whose faults are modelled: ours never set them off."""

from __future__ import annotations

from random import Random

import pytest

from barrel_p2p.proto.hyparview import HyParView
from barrel_p2p.proto.hyparview_events import Disconnect
from barrel_p2p.proto.plumtree import Plumtree
from barrel_p2p.testing import Report, run
from barrel_p2p.testing.member import Member
from barrel_p2p.testing.scenario import Broadcasts, Fault, JoinPlan, Scenario
from harness.erlang_overlay import ErlangMembership, erlang_member, promotions_caused_by


class Mixed:
    """The first ``erlang`` of ``nodes`` are Erlang nodes, also when they start again."""

    def __init__(self, erlang: int, nodes: int, seed: int, **settings: object) -> None:
        self.members: list[Member] = []
        self._erlang = erlang
        plan: dict[str, object] = {
            "name": "mixed",
            "nodes": nodes,
            "seed": seed,
            "duration": 200.0,
            "wire": True,
            "checks": ("bounded",) if erlang == 0 else (),
            "join": JoinPlan(within=nodes * 1.0, contacts=2, settle=60.0),
            "broadcasts": (Broadcasts(label="all", at=60.0, count=20),),
        }
        self.scenario = Scenario(**{**plan, **settings})  # type: ignore[arg-type]

    def run(self) -> Report:
        return run(self.scenario, make=self._make)

    def _make(self, name: str, number: int, rng: Random) -> Member:
        if int(name.removeprefix("n").removesuffix("@sim")) < self._erlang:
            member = erlang_member(name, number, rng, ("n0@sim", "n1@sim"))
        else:
            hyparview = HyParView(name, self.scenario.membership, rng=rng)
            member = Member(name, number, hyparview, Plumtree(name, self.scenario.broadcast))
        self.members.append(member)
        return member

    @property
    def erlang(self) -> list[ErlangMembership]:
        return [member.hyparview for member in self.members if member.kind == "erlang"]

    @property
    def ours(self) -> set[str]:
        return {member.name for member in self.members if member.kind == "python"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("erlang", "nodes"), [(1, 2), (2, 5), (3, 8), (5, 30), (10, 20)])
def test_our_nodes_join_an_erlang_cluster_and_set_off_none_of_its_faults(erlang: int, nodes: int, seed: int) -> None:
    mixed = Mixed(erlang, nodes, seed)
    report = mixed.run()
    for node in mixed.erlang:
        assert promotions_caused_by(node, mixed.ours) == []
        assert [cause for cause in node.evictions if cause.rsplit(" ", 1)[-1] in mixed.ours] == []
    assert report.phases["end"].component == 1.0
    [group] = report.broadcasts
    if erlang <= 5:
        assert group.complete == group.count
    else:  # Erlang nodes that know each other one-sidedly may hear nothing until they speak
        assert group.reliability > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_our_nodes_crash_and_leave_and_set_off_no_fault_by_a_message(seed: int) -> None:
    """The loss of a channel makes an Erlang node look for a replacement as well, and there is no other way to go."""
    faults = (
        Fault(kind="slow", at=5.0, lasts=20.0, share=0.5),
        Fault(kind="leave", at=30.0, share=0.3, restart=10.0),
        Fault(kind="crash", at=50.0, share=0.3, restart=10.0),
    )
    mixed = Mixed(4, 16, seed, faults=faults, broadcasts=())
    mixed.run()
    for node in mixed.erlang:
        assert promotions_caused_by(node, mixed.ours) == []
        assert [peer for kind, peer in node.told if kind == "Disconnect" and peer in mixed.ours] == []


def test_the_model_shows_what_happens_to_those_who_are_told_to_disconnect() -> None:
    """Else the tests above prove nothing: among Erlang nodes alone the fault goes off again and again."""
    mixed = Mixed(20, 20, 1)
    mixed.run()
    assert sum(len(node.crashes) for node in mixed.erlang) >= 10
    assert any(cause.startswith(Disconnect.__name__) for node in mixed.erlang for cause in _causes(node))


def _causes(node: ErlangMembership) -> list[str]:
    return [crash.cause for crash in node.crashes]
