"""The simulator itself: a run follows from its seed, and a broken promise is found and can be seen again."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from barrel_p2p.errors import ConfigError
from barrel_p2p.proto import hyparview_events as membership
from barrel_p2p.proto import plumtree_events as broadcast
from barrel_p2p.proto.hyparview import HyParView
from barrel_p2p.proto.plumtree import Plumtree
from barrel_p2p.testing import Scenario, SimulationFailed, load, run, standard
from barrel_p2p.testing.cluster import Cluster
from barrel_p2p.testing.member import Member
from barrel_p2p.testing.scenario import Broadcasts, Clocks, JoinPlan, Network

SMALL = Scenario(
    name="small",
    nodes=20,
    duration=60.0,
    quiet=20.0,
    join=JoinPlan(within=2.0, settle=30.0),
    broadcasts=(Broadcasts(label="all", at=10.0, count=5),),
)


# --- a run follows from its seed --------------------------------------------------------------------------------------


def figures(scenario: Scenario) -> Any:
    report = run(scenario)
    return report.events, report.sent, report.phases, report.outcomes


def test_the_same_seed_has_the_same_run_and_another_seed_another() -> None:
    assert figures(SMALL) == figures(SMALL)
    assert figures(SMALL) != figures(dataclasses.replace(SMALL, seed=2))


def test_a_run_does_not_depend_on_the_order_of_sets() -> None:
    code = "from barrel_p2p.testing import run; r = run('chaos', seed=5); print(r.events, r.sent, r.phases)"
    outputs = set()
    for hash_seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_all_can_go_through_the_wire() -> None:
    members: list[Member] = []

    def make(name: str, number: int, rng: Random) -> Member:
        members.append(spoiled()(name, number, rng))
        return members[-1]

    report = run(dataclasses.replace(SMALL, wire=True), make=make)
    assert len(members) == 20
    for member in members:
        assert member.hyparview_wire is not None
        assert member.plumtree_wire is not None
        assert member.hyparview_wire.dropped == member.plumtree_wire.dropped == {}
    assert report.broadcasts[0].complete == 5


def test_wrong_clocks_do_no_harm() -> None:
    report = run(dataclasses.replace(SMALL, clocks=Clocks(offset=1e6, drift_ppm=1000.0)))
    assert report.phases["end"].component == 1.0


def test_progress_is_told() -> None:
    told: list[tuple[float, float, int]] = []
    run(SMALL, progress=lambda now, end, live: told.append((now, end, live)))
    assert told[0] == (0.0, 92.0, 1) or told[0][1] == 92.0
    assert told[-1][2] == 20


# --- broken promises are found ----------------------------------------------------------------------------------------


class Wrong:
    """A machine of ours with a fault: its orders pass through ``spoil``."""

    def __init__(self, machine: Any, spoil: Callable[[Any], bool]) -> None:
        self.machine = machine
        self._spoil = spoil

    def handle(self, fact: Any, *, now: float) -> list[Any]:
        return [order for order in self.machine.handle(fact, now=now) if not self._spoil(order)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)


def sound(order: Any) -> bool:
    return False


def spoiled(
    membership_spoil: Callable[[Any], bool] = sound, broadcast_spoil: Callable[[Any], bool] = sound
) -> Callable[[str, int, Random], Member]:
    def make(name: str, number: int, rng: Random) -> Member:
        hyparview = HyParView(name, SMALL.membership, rng=rng)
        plumtree = Plumtree(name, SMALL.broadcast)
        return Member(name, number, Wrong(hyparview, membership_spoil), Wrong(plumtree, broadcast_spoil))

    return make


def fault_found(make: Callable[[str, int, Random], Member], check: str, scenario: Scenario = SMALL) -> SimulationFailed:
    with pytest.raises(SimulationFailed) as failure:
        run(dataclasses.replace(scenario, checks=(check,)), make=make)
    assert str(failure.value).startswith(f"{check}: ")
    return failure.value


def test_one_sided_links_are_found() -> None:
    silent = spoiled(lambda o: isinstance(o, membership.Send) and isinstance(o.message, membership.Disconnect))
    fault_found(silent, "symmetric")


def test_a_split_overlay_is_found() -> None:
    def make(name: str, number: int, rng: Random) -> Member:
        spoil = (lambda order: True) if number == 7 else sound
        return spoiled(spoil)(name, number, rng)

    fault_found(make, "connected")


def test_a_broadcast_that_misses_somebody_is_found() -> None:
    greedy = spoiled(broadcast_spoil=lambda o: isinstance(o, broadcast.Send) and o.peer == "n3@sim")
    failure = fault_found(greedy, "delivered")
    assert "n3@sim" in str(failure)


def test_a_broadcast_delivered_twice_is_found() -> None:
    class Stutter(Wrong):
        def handle(self, fact: Any, *, now: float) -> list[Any]:
            orders = super().handle(fact, now=now)
            return orders + [order for order in orders if isinstance(order, broadcast.Deliver)]

    def make(name: str, number: int, rng: Random) -> Member:
        plumtree = Stutter(Plumtree(name, SMALL.broadcast), sound)
        return Member(name, number, HyParView(name, SMALL.membership, rng=rng), plumtree)

    assert "twice" in str(fault_found(make, "delivered"))


def test_a_dead_neighbour_that_is_kept_is_found() -> None:
    class Blind(Wrong):
        def handle(self, fact: Any, *, now: float) -> list[Any]:
            return [] if isinstance(fact, membership.PeerLost) else super().handle(fact, now=now)

    def make(name: str, number: int, rng: Random) -> Member:
        hyparview = HyParView(name, SMALL.membership, rng=rng)
        return Member(name, number, Blind(hyparview, sound), Plumtree(name, SMALL.broadcast))

    crash = load("crash").faults
    fault_found(make, "no_dead", dataclasses.replace(SMALL, faults=crash))


def test_a_view_over_its_bound_is_found() -> None:
    def make(name: str, number: int, rng: Random) -> Member:
        roomy = dataclasses.replace(SMALL.membership, active_size=6)
        return Member(name, number, HyParView(name, roomy, rng=rng), Plumtree(name, SMALL.broadcast))

    fault_found(make, "bounded")


def test_a_failure_is_one_line_that_shows_it_again(tmp_path: Path) -> None:
    """Here the promise is too much to ask: a cluster that is cut in two is to be one."""
    path = tmp_path / "impatient.toml"
    path.write_text(
        'name = "impatient"\nnodes = 30\nduration = 30.0\nchecks = ["connected"]\n'
        '[[fault]]\nkind = "partition"\nat = 10.0\nlasts = 30.0\nshare = 0.5\n'
    )
    with pytest.raises(SimulationFailed) as failure:
        run(path, seed=7, nodes=24)
    text = str(failure.value)
    assert "\n" not in text
    assert failure.value.replay == f"barrel sim {path} --seed 7 --nodes 24"
    assert failure.value.replay in text
    again = subprocess.run(
        [sys.executable, "-m", "barrel_p2p.cli", *failure.value.replay.split()[1:]], capture_output=True, text=True
    )
    assert again.returncode == 1
    assert text in again.stdout


# --- scenarios --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", standard())
def test_standard_scenarios_can_be_read(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.about


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 'x'\nnods = 3", "scenario has no setting 'nods'"),
        ("nodes = 3", "name"),
        ("name = 'x'\n[join]\nwithn = 1.0", "join has no setting 'withn'"),
        ("name = 'x'\n[[fault]]\nkind = 'crash'\nshare = 1\nwhen = 3", "fault has no setting 'when'"),
        ("name = 'x'\n[membership]\nactive_size = 0", "active_size"),
        ("name = ", "not TOML"),
    ],
)
def test_a_scenario_that_is_none_says_why(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load(path)


def test_an_unknown_scenario_or_checker_is_named() -> None:
    with pytest.raises(ConfigError, match="nowhere is no scenario"):
        load("nowhere")
    with pytest.raises(ConfigError, match="can't be read"):
        load("/nowhere.toml")
    with pytest.raises(ConfigError, match="no checker 'luck'"):
        run(dataclasses.replace(SMALL, checks=("luck",)))


# --- the network ------------------------------------------------------------------------------------------------------


class Box:
    """Two members a and b that know each other by a channel, and record what they are told."""

    def __init__(self, **network: Any) -> None:
        scenario = Scenario(name="box", nodes=2, network=Network(latency_ms=(10.0, 10.0), **network))
        self.told: list[tuple[int, str, Any]] = []
        self.cluster = Cluster(scenario, 1, self._make)
        self.a, self.b = self.cluster.start("a"), self.cluster.start("b")
        self.cluster.network.connect(self.a, "b")
        self.run(1.0)

    def _make(self, name: str, number: int, rng: Random) -> Member:
        return Member(name, number, Recorder(name, self), Plumtree(name, SMALL.broadcast))

    def run(self, seconds: float) -> None:
        self.cluster.clock.run(self.cluster.clock.ms + int(seconds * 1000))

    def send(self, sender: Member, ttl: int) -> None:
        peer = "b" if sender is self.a else "a"
        self.cluster._perform(sender, [membership.Send(peer, membership.ForwardJoin("x", ttl))])

    def heard(self, name: str) -> list[int]:
        return [fact.message.ttl for _, who, fact in self.told if who == name and hasattr(fact, "message")]

    def lost(self, name: str) -> list[float]:
        return [ms / 1000 for ms, who, fact in self.told if who == name and isinstance(fact, membership.PeerLost)]


class Recorder:
    active: tuple[str, ...] = ()
    passive: tuple[str, ...] = ()

    def __init__(self, name: str, box: Box) -> None:
        self.name, self.box = name, box

    def handle(self, fact: Any, *, now: float) -> list[Any]:
        self.box.told.append((self.box.cluster.clock.ms, self.name, fact))
        return []

    def needs(self, peer: str) -> bool:
        return True


def test_a_channel_keeps_the_order_whatever_the_jitter_and_the_loss() -> None:
    box = Box(jitter_ms=50.0, loss=0.3)
    for number in range(200):
        box.send(box.a, number)
    box.run(60.0)
    assert box.heard("b") == [*range(200)]


def test_datagrams_are_lost_doubled_and_late() -> None:
    box = Box(mode="datagram", loss=0.2, duplicate=0.2, reorder=0.3)
    for number in range(500):
        box.send(box.a, number)
    box.run(60.0)
    heard = box.heard("b")
    assert 350 < len(set(heard)) < 450
    assert len(heard) > len(set(heard))
    assert heard != sorted(heard)


def test_a_death_is_noticed_after_the_detection_time() -> None:
    box = Box(detection=(2.0, 3.0))
    box.cluster.crash(box.b)
    box.send(box.a, 1)
    box.run(10.0)
    [lost] = box.lost("a")
    assert 3.0 <= lost <= 4.1
    assert box.heard("b") == []


def test_a_short_partition_delays_and_a_long_one_breaks() -> None:
    box = Box(detection=(2.0, 3.0))
    box.cluster.cut({"b": 1}, one_way=False)
    box.send(box.a, 1)
    box.run(1.0)
    assert box.heard("b") == []
    box.cluster.heal()
    box.run(1.0)
    assert box.heard("b") == [1]
    box.cluster.cut({"b": 1}, one_way=False)
    box.run(10.0)
    assert len(box.lost("a")) == len(box.lost("b")) == 1
    box.cluster.network.connect(box.a, "b")
    box.run(20.0)
    assert any(isinstance(fact, membership.ConnectFailed) for _, who, fact in box.told if who == "a")


def test_what_is_cut_one_way_still_hears_the_other_until_it_notices() -> None:
    box = Box(detection=(2.0, 3.0))
    box.cluster.cut({"b": 1}, one_way=True)
    box.send(box.a, 1)
    box.send(box.b, 2)
    box.run(1.0)
    assert (box.heard("a"), box.heard("b")) == ([2], [])
    box.run(10.0)
    assert len(box.lost("a")) == len(box.lost("b")) == 1


def test_slow_nodes_get_everything_late() -> None:
    box = Box(jitter_ms=0.0)
    box.b.slow_ms = 500.0
    box.send(box.a, 1)
    box.run(0.4)
    assert box.heard("b") == []
    box.run(0.2)
    assert box.heard("b") == [1]
