"""Replicated states of a node: runs a ``proto.replica`` for each over gossip and the channels to neighbours.

Each instance has a name, which is also the tag of its broadcasts and the registered name that other nodes send to.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from barrel_p2p.crdt.hlc import Clock
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.dispatch import Dispatch
from barrel_p2p.node.driver import Driver
from barrel_p2p.node.gossip import Gossip
from barrel_p2p.node.routes import Routes
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto import replica_events as event
from barrel_p2p.proto.hyparview_events import Event, Left, PeerDown, PeerUp
from barrel_p2p.proto.replica import ANTI_ENTROPY_S, Replica
from barrel_p2p.proto.replicated import Replicated
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.replica")

REPLICA = Atom("$barrel_p2p_replica")


class Replication:
    """The instances of one node. The membership's events go to all of them, so it must be made before it starts."""

    def __init__(self, routes: Routes, runtime: Runtime, dispatch: Dispatch, gossip: Gossip) -> None:
        self._routes = routes
        self._runtime = runtime
        self._dispatch = dispatch
        self._gossip = gossip
        self._instances: dict[Atom, Instance] = {}
        self._neighbours: dict[str, bool] = {}  # whether it is a node of this library
        #: Stamps the writes of all instances of this node.
        self.clock = Clock()

    def open(
        self,
        name: Atom,
        state: Replicated,
        *,
        notify: Callable[[Sequence[Any]], None],
        persist: Callable[[Any], None] | None = None,
        forget: Callable[[Sequence[Any]], None] | None = None,
        anti_entropy_s: float = ANTI_ENTROPY_S,
    ) -> Instance:
        """Replicate ``state`` with the instances of the same name on other nodes.

        Args:
            notify: gets the changes that the user sees, in order.
            persist: writes a delta to disk before it is told to anybody.
            forget: deletes parts on disk, as ``Applied.forgotten`` names them.
        """
        assert name not in self._instances, name
        instance = Instance(self, name, state, notify, persist, forget, anti_entropy_s)
        self._instances[name] = instance
        self._dispatch.deliver_to(name, instance.received)
        self._gossip.handle(name, instance.heard)
        instance.begin()
        for peer, python in self._neighbours.items():
            instance.tell(event.PeerUp(Atom(peer), python))
        return instance

    @property
    def names(self) -> list[Atom]:
        """The instances that are open."""
        return list(self._instances)

    def close(self, name: Atom) -> None:
        """Stop replicating here; other nodes go on."""
        instance = self._instances.pop(name, None)
        if instance is not None:
            self._dispatch.deliver_to(name, None)
            self._gossip.handle(name, None)
            instance.stop()

    def stop(self) -> None:
        for instance in self._instances.values():
            instance.stop()

    @property
    def connected(self) -> bool:
        """Whether there is anybody who hears what is broadcast."""
        return bool(self._neighbours)

    @property
    def mixed(self) -> bool:
        """Whether one of the neighbours is an Erlang node."""
        return not all(self._neighbours.values())

    @property
    def kin(self) -> list[Atom]:
        """The neighbours of this library."""
        return [Atom(peer) for peer, python in self._neighbours.items() if python]

    def membership_changed(self, what: Event) -> None:
        """A neighbour came or went."""
        match what:
            case PeerUp(peer, kind):
                self._neighbours[peer] = kind == "python"
                self._tell_all(event.PeerUp(Atom(peer), kind == "python"))
            case PeerDown(peer):
                self._neighbours.pop(peer, None)
                self._tell_all(event.PeerDown(Atom(peer)))
            case Left():
                for peer in list(self._neighbours):
                    self._tell_all(event.PeerDown(Atom(peer)))
                self._neighbours.clear()

    def _tell_all(self, fact: event.Fact) -> None:
        for instance in list(self._instances.values()):
            instance.tell(fact)

    @property
    def sizes(self) -> dict[str, int]:
        """About how many entries each instance has, for those that can tell."""
        return {name: instance.size for name, instance in self._instances.items() if instance.size is not None}

    @property
    def refused(self) -> dict[str, int]:
        """How many parts of messages were refused, by instance and reason."""
        return {
            f"{name}: {reason}": count
            for name, instance in self._instances.items()
            for reason, count in instance.refused.items()
        }


class _Timed:
    """A replica as the driver wants a machine: wall time is added here."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def handle(self, fact: Any, *, now: float) -> list[Any]:
        return self._replica.handle(fact, now=now, wall_ms=wall_ms())


class Instance(Driver):
    """One replicated state on one node."""

    def __init__(
        self,
        owner: Replication,
        name: Atom,
        state: Replicated,
        notify: Callable[[Sequence[Any]], None],
        persist: Callable[[Any], None] | None,
        forget: Callable[[Sequence[Any]], None] | None,
        anti_entropy_s: float,
    ) -> None:
        self._replica = Replica(
            owner._runtime.name,
            state,
            rng=random.Random(random.SystemRandom().getrandbits(64)),
            anti_entropy_s=anti_entropy_s,
            durable=persist is not None,
        )
        super().__init__(_Timed(self._replica), owner._routes, owner._runtime, name)
        self.name = name
        self._state = state
        self._gossip = owner._gossip
        self._notify = notify
        self._persist = persist
        self._forget = forget

    def begin(self) -> None:
        for order in self._replica.start(now=self._loop.time()):
            self._perform(order)

    def write(self, operation: Any) -> None:
        """Apply a write of the user's. What the state raises goes to the caller, and then nothing has changed.

        Raises:
            RuntimeError: it was called by what a merge calls, such as a validator.
        """
        self.check_idle()
        self.tell(event.WriteAsked(operation))

    def check_idle(self) -> None:
        """Raise RuntimeError where ``write`` would."""
        if self._busy:
            raise RuntimeError(f"{self.name}: a write from within a write or a merge, such as one by a validator")

    @property
    def size(self) -> int | None:
        comparable = self._state.comparable()
        return None if comparable is None else comparable.size()

    @property
    def refused(self) -> dict[str, int]:
        return dict(self._replica.refused)

    # --- what arrives -------------------------------------------------------------------------------------------------

    def received(self, channel: Channel, term: Any) -> None:
        """``{'$barrel_p2p_replica', Message}`` of the instance of a peer."""
        match term:
            case (Atom() as tag, message) if tag == REPLICA:
                self.tell(event.DirectReceived(channel.name, message))

    def heard(self, payload: Any, peer: str | None) -> None:
        """A broadcast; ours changes nothing here."""
        if peer is not None:
            self.tell(event.BroadcastReceived(payload))

    # --- what the machine orders --------------------------------------------------------------------------------------

    def _perform(self, order: Any) -> None:
        match order:
            case event.Persist(delta):
                assert self._persist is not None
                self._persist(delta)
            case event.Forget(parts):
                if self._forget is not None:
                    self._forget(parts)
            case event.Broadcast(payload):
                self._gossip.publish(self.name, payload)
            case event.SendTo(peer, message):
                self._send(peer, (REPLICA, message))
            case event.AwaitDrain(peer):
                self._await_drain(peer)
            case event.Notify(changes):
                self._notify(changes)
            case event.StartTimer(timer, at):
                self._start_timer(timer, at)

    def _await_drain(self, peer: Atom) -> None:
        channel = self._routes.up(peer)
        if channel is None:
            self.tell(event.PeerDown(peer))
        elif channel.gate.closed:
            channel.gate.future().add_done_callback(lambda _: self.tell(event.Drained(peer)))
        else:
            self._loop.call_soon(self.tell, event.Drained(peer))

    def _timer_fired(self, timer: Any) -> None:
        self.tell(event.TimerFired(timer))


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


__all__ = ["REPLICA", "Instance", "Replication", "wall_ms"]
