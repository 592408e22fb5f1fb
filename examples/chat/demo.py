"""Three nodes, one chat room; its node stops, and the room goes on elsewhere: ``python examples/chat/demo.py``.

The nodes share one program to keep the story short; they talk over QUIC as they would from three machines.
"""

import asyncio
import tempfile
from collections.abc import Callable

from chat import Room, history, member

from barrel_p2p import Node, Pid, spawn

ROOM = "tea"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - several nodes have to get there
            await asyncio.sleep(0.01)


class Demo:
    """The nodes, and the screen of each member."""

    def __init__(self, alice: Node, bob: Node, carol: Node) -> None:
        self.alice, self.bob, self.carol = alice, bob, carol
        self.screens: dict[str, list[str]] = {}

    async def enter(self, nick: str, node: Node) -> Pid:
        """Start a member on a node and wait until it is in the room."""
        screen = self.screens[nick] = []
        pid = spawn(member, node, nick, ROOM, screen.append, node=node)
        await until(lambda: f"*: {nick} joins" in screen)
        return pid

    async def say(self, nick: str, pid: Pid, text: str, heard_by: str) -> None:
        """Let a member say something and wait until the others have heard it."""
        pid.send(("type", text))
        await until(lambda: all(f"{nick}: {text}" in self.screens[name] for name in heard_by.split()))

    async def run(self) -> None:
        alice, bob, carol = self.alice, self.bob, self.carol
        for node in (bob, carol):
            await node.join(alice.name)
        for node in (alice, bob, carol):
            history(node)

        await Room.start(alice, ROOM, node=alice)
        await until(lambda: bool(bob.registry.lookup(ROOM) and carol.registry.lookup(ROOM)))
        print(f"alice keeps the room {ROOM!r}; bob and carol know where it is", flush=True)
        await self.enter("ann", alice)
        ben = await self.enter("ben", bob)
        cleo = await self.enter("cleo", carol)
        await self.say("ben", ben, "is anybody there?", "ann ben cleo")
        await self.say("cleo", cleo, "we are", "ann ben cleo")

        await until(lambda: len(history(bob)) == len(history(carol)) == 5)
        await alice.stop()
        await until(lambda: all("(the room is gone)" in self.screens[name] for name in ("ben", "cleo")))
        print("alice stopped, and the room with her; bob opens it again", flush=True)
        await Room.start(bob, ROOM, node=bob)
        await until(lambda: all("*: cleo joins" in self.screens[name][-2:] for name in ("ben", "cleo")))
        await self.say("cleo", cleo, "nothing is lost", "ben cleo")
        await self.enter("dan", carol)
        for nick, screen in self.screens.items():
            print(f"\nwhat {nick} saw:", *screen, sep="\n  ")


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:

        def node(name: str) -> Node:
            return Node(
                f"{name}@127.0.0.1",
                cookie="chat",
                data_dir=f"{directory}/{name}",
                discovery_dir=f"{directory}/discovery",
            )

        async with node("alice") as alice, node("bob") as bob, node("carol") as carol:
            await Demo(alice, bob, carol).run()


asyncio.run(main())
