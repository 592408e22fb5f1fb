"""A process that moves a connection to another path when the one in use is dead.

python examples/relay/watchdog.py
"""

from __future__ import annotations

import asyncio
import tempfile

from relay import Relay

from barrel_p2p import MigrationError, Node, NotConnected, spawn

ALICE, BOB = "alice@127.0.0.1", "bob@127.0.0.1"


async def watch(node: Node, peer: str, every: float = 1.0, patience: float = 2.0) -> None:
    """Ask ``peer`` for an answer every now and then, and move the connection when there is none."""
    while True:
        await asyncio.sleep(every)
        if peer not in node.nodes() or await node.ping(peer, timeout=patience):
            continue
        try:
            await node.migrate_peer(peer, timeout=5.0)
        except (MigrationError, NotConnected) as error:
            print(f"{peer} can't be reached on a new path either: {error}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        setup = {"cookie": "watched", "discovery_dir": None}
        async with Node(BOB, data_dir=f"{directory}/bob", **setup) as bob:
            relays = [Relay(bob.listen_address), Relay(bob.listen_address)]
            doors = [await relay.open() for relay in relays]

            def on_address(name: str, address: tuple[str, int]) -> tuple[str, int]:
                return doors[1 if relays[0].deaf else 0]  # how your program knows better is its affair

            async with Node(ALICE, data_dir=f"{directory}/alice", on_address=on_address, **setup) as alice:
                await alice.connect(BOB, bob.listen_address)
                spawn(watch, alice, BOB, 0.1, 0.3)
                print("connected through the first relay")
                relays[0].deaf = True
                print("the first relay passes nothing any more")
                while not alice.path_stats(BOB).migrations:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.05)
                print("the watchdog moved the connection; bob answers:", await alice.ping(BOB))
                print("it is the same connection as before:", alice.nodes() == [BOB])
            for relay in relays:
                relay.close()


asyncio.run(main())
