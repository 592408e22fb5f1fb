"""Three Erlang and three Python nodes that connect, part and register at random agree once they are left in peace."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

from barrel_p2p import Atom, BarrelError, CallTimeout, Node, receive
from harness.erlang import Epmd, Erlang
from harness.erlang_net import ECHO, Net, run, until, until_erlang

NAMES = "xyzuvw"


async def idle() -> None:
    await receive()


async def register(node: Node, name: str) -> None:
    with suppress(CallTimeout):
        await node.global_.register_name(Atom(name), node.runtime.spawn(idle).pid, timeout=15)


async def act(rng: random.Random, who: Node | Erlang, other: str) -> None:
    choice, name = rng.random(), rng.choice(NAMES)
    if isinstance(who, Node):
        if choice < 0.45:
            with suppress(BarrelError):
                await who.connect(other)
        elif choice < 0.55:
            who.disconnect(other)
        else:
            await register(who, name)
    elif choice < 0.45:
        await who.ask(f"net_adm:ping('{other}').")
    elif choice < 0.55:
        await who.ask(f"erlang:disconnect_node('{other}').")
    else:
        await who.ask(f"spawn(fun() -> global:register_name({name}, {ECHO}) end).")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_mixed_cluster_agrees_whatever_happened(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def story(net: Net) -> None:
        erlangs = [await net.erlang(name) for name in ("aerl", "merl", "zerl")]
        nodes = [await net.python(name) for name in ("bpy", "npy", "ypy")]
        everyone: list[Node | Erlang] = [*erlangs, *nodes]
        names = [each.name for each in everyone]
        acting: list[asyncio.Task[None]] = []
        for _ in range(60):
            who, other = rng.sample(everyone, 2)
            if isinstance(who, Node):
                acting.append(asyncio.create_task(act(rng, who, other.name)))
            else:
                await act(rng, who, other.name)
            await asyncio.sleep(rng.random() * 0.1)
        await asyncio.gather(*acting)

        async def together() -> bool:
            for name in names[1:]:
                await erlangs[0].ask(f"net_adm:ping('{name}').")
            known = [len(node.global_.nodes()) for node in nodes]
            for erlang in erlangs:
                known.append(int(await erlang.ask("length(gen_server:call(global_name_server, get_known)).")))
            return known == [5] * 6

        for _ in range(40):  # who was told to part while it joined needs another ping
            if await together():
                break
            await asyncio.sleep(1.0)
        pid = nodes[0].runtime.spawn(idle).pid
        assert await nodes[0].global_.register_name(Atom("last"), pid, timeout=30)
        assert await erlangs[0].ask(f"global:register_name(very_last, {ECHO}).") == "yes"
        tables = []
        for node in nodes:
            table = [(name, node.global_.whereis_name(name)) for name in node.global_.registered_names()]
            tables.append(sorted(f"{name} {pid.node}" for name, pid in table if pid is not None))
        for erlang in erlangs:
            rows = '[io_lib:format("~s ~s", [N, node(global:whereis_name(N))]) || N <- global:registered_names()]'
            table = await erlang.ask(f'lists:flatten(lists:join(",", {rows})).')
            tables.append(sorted(table.strip('"').split(",")))
        assert tables[1:] == tables[:-1]
        for erlang in erlangs:
            await until_erlang(erlang, "ets:tab2list(global_locks) =:= []")
        for node in nodes:
            await until(lambda node=node: not node.global_._driver.machine.locked)  # type: ignore[misc]

    with Epmd() as epmd:
        run(story, epmd, tmp_path)
