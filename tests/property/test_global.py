"""``global`` over a network that delays, cuts, stalls and kills: nodes that know each other agree, locks come free.

Replay a failing example with ``PYTHONPATH=tests:src python tests/property/test_global.py STORY SEED``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from barrel_p2p.term.types import Pid
from harness.global_world import World

seeds = st.integers(0, 2**32 - 1)
NAMES = ["x", "y", "z"]
METHODS = ["exit", "notify", "none"]


def busy_users(world: World, seconds: float) -> None:
    """Register, take away and end processes on all nodes at random times."""
    rng, start = world.rng, world.now
    pids: list[Pid] = []

    def act() -> None:
        member = rng.choice([m for m in world.members.values() if m.running])
        choice = rng.random()
        if choice < 0.5 or not pids:
            pid = member.spawn()
            pids.append(pid)
            member.register(rng.choice(NAMES), pid, rng.choice(METHODS), anew=rng.random() < 0.1)
        elif choice < 0.7:
            member.unregister(rng.choice(NAMES))
        else:
            pid = rng.choice(pids)
            owner = world.members[pid.node]
            if owner.running:
                owner.die(pid)

    for _ in range(rng.randrange(1, 12)):
        world.at(start + rng.random() * seconds, act)


def a_cluster_forms(seed: int) -> World:
    """Nodes with names of their own, some of them twice, join in any order."""
    world = World(seed, "abcde"[: 2 + seed % 4])
    busy_users(world, 5.0)
    members = list(world.members)
    for i, one in enumerate(members[1:], 1):
        other = members[world.rng.randrange(i)]
        world.at(world.rng.random() * 5, lambda one=one, other=other: world.connect(one, other) and None)  # type: ignore[misc]
    world.run(300)
    world.check_settled()
    assert all(len(member.machine.known) == len(members) - 1 for member in world.members.values())
    return world


def links_are_cut(seed: int) -> World:
    """Links are cut and made again while users are busy."""
    world = World(seed, "abcd"[: 2 + seed % 3])
    rng, members = world.rng, list(world.members)
    busy_users(world, 30.0)
    for _ in range(rng.randrange(2, 12)):
        one, other = rng.sample(members, 2)
        act = world.cut if rng.random() < 0.4 else world.connect
        world.at(rng.random() * 30, lambda act=act, one=one, other=other: act(one, other) and None)  # type: ignore[misc]
    world.run(400)
    world.check_settled()
    return world


def nodes_die_and_stall(seed: int) -> World:
    """Nodes are killed, at worst while they hold the lock, and others stop for a while."""
    world = World(seed, "abcd")
    rng, members = world.rng, list(world.members)
    busy_users(world, 40.0)
    for i, one in enumerate(members[1:], 1):
        world.at(rng.random() * 3, lambda one=one, i=i: world.connect(one, members[rng.randrange(i)]) and None)  # type: ignore[misc]
    world.at(rng.random() * 10, lambda: world.stall(rng.choice("abcd"), rng.random() * 45))
    world.at(rng.random() * 20, lambda: world.kill("d"))
    world.run(500)
    world.check_settled()
    return world


def a_bounded_overlay(seed: int) -> World:
    """No mesh: each pair that is connected agrees about the processes of the two."""
    world = World(seed, "abcd", mesh=False)
    rng, members = world.rng, list(world.members)
    busy_users(world, 30.0)
    for _ in range(rng.randrange(2, 12)):
        one, other = rng.sample(members, 2)
        act = world.cut if rng.random() < 0.3 else world.connect
        world.at(rng.random() * 30, lambda act=act, one=one, other=other: act(one, other) and None)  # type: ignore[misc]
    world.run(400)
    world.check_settled()
    return world


STORIES: dict[str, Callable[[int], World]] = {
    story.__name__: story for story in (a_cluster_forms, links_are_cut, nodes_die_and_stall, a_bounded_overlay)
}


def tell(story: str, seed: int) -> None:
    try:
        STORIES[story](seed)
    except Exception as error:
        error.add_note(f"replay it with: PYTHONPATH=tests:src python tests/property/test_global.py {story} {seed}")
        raise


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_nodes_that_join_agree_on_every_name(seed: int) -> None:
    tell("a_cluster_forms", seed)


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_nodes_that_lose_each_other_form_partitions_that_agree(seed: int) -> None:
    tell("links_are_cut", seed)


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_the_dead_and_the_stalled_hold_nobody_up_for_good(seed: int) -> None:
    tell("nodes_die_and_stall", seed)


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_without_a_mesh_neighbours_agree(seed: int) -> None:
    tell("a_bounded_overlay", seed)


if __name__ == "__main__":
    tell(sys.argv[1], int(sys.argv[2]))
