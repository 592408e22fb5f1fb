"""Two nodes that talk through a relay, and go over to another one while they talk.

python examples/relay/swap.py
"""

from __future__ import annotations

import asyncio
import tempfile

from relay import Relay

from barrel_p2p import Node, Stream, receive, register, self_pid, send, spawn

ALICE, BOB = "alice@127.0.0.1", "bob@127.0.0.1"


async def answering() -> None:
    register("answering", self_pid())
    while True:
        sender, number = await receive()
        send(sender, number)


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        setup = {"cookie": "relayed", "discovery_dir": None}
        async with Node(BOB, data_dir=f"{directory}/bob", **setup) as bob:
            bob.streams.register_acceptor("echo", echo)
            spawn(answering)
            relays = [Relay(bob.listen_address), Relay(bob.listen_address)]
            doors = [await relay.open() for relay in relays]
            current = 0

            async def on_address(name: str, address: tuple[str, int]) -> tuple[str, int]:
                """Asked when alice dials, and again when the connection migrates."""
                return doors[current]

            async with Node(ALICE, data_dir=f"{directory}/alice", on_address=on_address, **setup) as alice:
                await alice.connect(BOB, bob.listen_address)
                print("alice is connected to bob through the first relay:", passes(relays))

                stream = await alice.streams.open("echo", BOB)
                sent = 0
                for turn in range(3):
                    if turn == 1:
                        current = 1
                        await alice.migrate_peer(BOB)
                        relays[0].close()
                        print("the connection moved to the second relay, and the first one is gone")
                    for _ in range(100):
                        send(("answering", BOB), (self_pid(), sent))
                        assert await receive(timeout=5) == sent
                        sent += 1
                    await stream.write(bytes(100_000))
                    assert await stream.readexactly(100_000) == bytes(100_000)
                    print(f"{sent} messages came back in order, {(turn + 1) * 100_000} bytes on one stream")
                print("through the second relay:", passes(relays[1:]))
                print("migrations that bob has seen:", bob.path_stats(ALICE).migrations)
            relays[1].close()


def passes(relays: list[Relay]) -> str:
    return "it passes packets" if relays[0].passed else "no packet came by"


asyncio.run(main())
