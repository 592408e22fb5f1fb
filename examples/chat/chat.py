"""A chat on a cluster: a room is a service, a member is a process, and what was said is a replicated map."""

from collections.abc import Callable
from typing import Any

from barrel_p2p import CallError, GenServer, Node, Pid, ReplicatedMap, call, cast, monitor, receive, self_pid, send

Show = Callable[[str], None]


def history(node: Node) -> ReplicatedMap:
    """``(room, number) -> (who, text)``, on every node."""
    return node.maps.open("chat history")


class Room(GenServer):
    """A room. It runs on the node that opened it; what was said in it is on all nodes, and outlives it."""

    async def init(self, node: Node, name: str) -> None:
        self.name = name
        self.members: dict[Pid, str] = {}
        self.history = history(node)
        self.said = sum(1 for room, _ in self.history if room == name)
        node.registry.register(name)

    async def handle_call(self, request: Any, from_: Any) -> Any:
        match request:
            case ("join", nick, pid):
                monitor(pid)
                lines = [self.history[self.name, number] for number in range(self.said)]
                self.members[pid] = nick
                self.say("*", f"{nick} joins")
                return lines

    async def handle_cast(self, request: Any) -> None:
        match request:
            case ("say", pid, text) if pid in self.members:
                self.say(self.members[pid], text)

    async def handle_info(self, message: Any) -> None:
        match message:
            case ("DOWN", _, _, pid, _):
                self.say("*", f"{self.members.pop(pid)} leaves")

    def say(self, who: str, text: str) -> None:
        self.history[self.name, self.said] = (who, text)
        self.said += 1
        for pid in self.members:
            send(pid, ("line", who, text))


async def member(node: Node, nick: str, room: str, show: Show) -> None:
    """Somebody in a room: shows what is said there, and says what it is sent as ``("type", text)``."""
    node.registry.subscribe(room)
    keeper = await enter(node, room, nick, show)
    while True:
        match await receive():
            case ("line", who, text):
                show(f"{who}: {text}")
            case ("type", text) if keeper is not None:
                cast(keeper, ("say", self_pid(), text))
            case ("DOWN", _, _, pid, _) if pid == keeper:
                show("(the room is gone)")
                keeper = await enter(node, room, nick, show)
            case ("barrel_p2p_service_event", ("service_registered", _, _)) if keeper is None:
                keeper = await enter(node, room, nick, show)


async def enter(node: Node, room: str, nick: str, show: Show) -> Pid | None:
    """Enter a room, wherever it is: hear what was said before, and be told when the room ends."""
    for service in node.registry.lookup(room):
        try:
            lines = await call(service.pid, ("join", nick, self_pid()))
        except CallError:
            continue  # it has just ended, and the registry doesn't know it yet
        monitor(service.pid)
        for who, text in lines:
            show(f"({who}: {text})")
        return service.pid
    return None


__all__ = ["Room", "history", "member"]
