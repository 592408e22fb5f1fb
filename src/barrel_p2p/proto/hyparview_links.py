"""The links of a node: how peers are won, and how they leave the active view. The theory stands in ``hyparview``."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from barrel_p2p.proto.fact_machine import FactMachine
from barrel_p2p.proto.hyparview_config import FILL_DELAY, HyParViewConfig
from barrel_p2p.proto.hyparview_events import (
    Connect,
    Disconnect,
    DownReason,
    Fact,
    Join,
    JoinFailed,
    Kind,
    Message,
    Neighbor,
    Notify,
    Order,
    PeerDown,
    PeerLingers,
    PeerUp,
    Release,
    Send,
    Shuffle,
    StartTimer,
)
from barrel_p2p.proto.hyparview_pace import Lost, Pace
from barrel_p2p.proto.hyparview_passive import PassiveView

Purpose = Literal["join", "promote", "accept", "rejoin"]

FIRST_CONTACT: Final = 1.0  # seconds until a contact is tried once there is no neighbour (upstream's)
MAX_CONTACT_WAIT: Final = 12  # times ``contact_retry_ms``, which makes it a minute; a guess
NAME_ROUNDS: Final = 3  # requests for names to a full Erlang contact, for each is a few of its many; a guess
NAME_ROUND: Final = 2.0  # seconds for trying the names of one; a guess


@dataclass(slots=True)
class _Pending:
    """An attempt to win a peer. ``asked``: it is connected, and NEIGHBOR was sent."""

    purpose: Purpose
    deadline: float
    asked: bool = False
    rounds: int = 0  # how often an Erlang contact that had no room was asked for names
    names: tuple[str, ...] = ()  # what it told


class Links(FactMachine[Fact, Order]):
    """What the machine knows, and the moves that its handlers have in common."""

    __slots__ = (
        "_active",
        "_contact_wait",
        "_contacted",
        "_contacts",
        "_full",
        "_hints_taken",
        "_joined",
        "_kinds",
        "_left",
        "_lingering",
        "_lost",
        "_neighbor_timeout",
        "_pace",
        "_passive",
        "_pending",
        "_pending_at",
        "_pending_timeout",
        "_refusals",
        "_rng",
        "_round",
        "_sent",
        "_started",
        "_walks_sent",
        "config",
        "name",
    )  # fmt: skip

    def __init__(self, name: str, config: HyParViewConfig, *, rng: Random) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self._rng = rng
        self._full = config.active_size
        self._pending_timeout = config.pending_timeout_ms / 1000
        self._neighbor_timeout = config.neighbor_timeout_ms / 1000
        self._active: dict[str, Kind] = {}
        self._passive = PassiveView(config, rng)
        self._kinds: dict[str, Kind] = {}  # of every peer there is a channel to
        self._pending: dict[str, _Pending] = {}
        self._pending_at: float | None = None  # when the timer ``pending`` fires
        self._lingering: dict[str, None] = {}
        self._joined: dict[str, None] = {}  # Erlang peers that got a JOIN on the channel there is
        self._walks_sent: dict[str, float] = {}  # when walks went out for a connected peer
        self._hints_taken: dict[str, float] = {}  # when a connected stranger was asked because of its traffic
        self._lost = Lost(config, rng)
        self._pace = Pace(config)
        self._contacts = config.contact_nodes
        self._round: list[str] = []  # contacts to be tried one after the other until one answers
        self._contact_wait = 0.0  # seconds until the next attempt to join through one of them
        self._contacted: float | None = None  # since when; a contact was a neighbour since the view was empty last
        self._refusals = 0  # since the last shuffle
        self._sent: list[str] = []  # names in our last shuffle
        self._started = self._left = False

    def needs(self, peer: str) -> bool:
        """Whether the channel to ``peer`` is in use by the membership."""
        return peer in self._active or peer in self._pending or peer in self._lingering

    def overdue(self, now: float) -> list[str]:
        """Peers that we try to win, past their time."""
        return [peer for peer, pending in self._pending.items() if pending.deadline <= now]

    # --- attempts to win a peer ---------------------------------------------------------------------------------------

    def _attempt(self, peer: str, purpose: Purpose) -> None:
        pending = self._pending.get(peer)
        if pending is not None:
            if purpose == "join":
                pending.purpose = "join"
            return
        pending = self._pending[peer] = _Pending(purpose, self._now + self._pending_timeout)
        if peer in self._kinds:
            self._ask(peer, pending)
        else:
            self._out.append(Connect(peer))
            self._wake_at(pending.deadline)

    def _ask(self, peer: str, pending: _Pending) -> None:
        """The channel is up (rule 3): say what we want."""
        if self._kinds[peer] == "python":
            if pending.purpose == "join":
                self._send(peer, Join())
                self._add(peer)
                return
            self._send(peer, Neighbor(high=pending.purpose == "rejoin" or not self._active))
        else:
            self._send(peer, Neighbor(high=False))  # rules 1, 2 and 5
            if peer in self._lingering:
                self._add(peer)
                return
        pending.asked = True
        pending.deadline = self._now + self._neighbor_timeout
        self._wake_at(pending.deadline)

    def _refused(self, peer: str, why: str) -> None:
        """A peer that was asked said no, or nothing."""
        pending = self._pending[peer]
        led_on = any(name in self._active for name in pending.names)
        if pending.purpose == "join" and self._kinds.get(peer) == "erlang" and not led_on:
            if pending.rounds < NAME_ROUNDS:  # rule 1: an answer has as many names as the question
                pending.rounds += 1
                pending.deadline = self._now + NAME_ROUND
                self._wake_at(pending.deadline)
                self._send(peer, Shuffle(0, (self.name,) * self.config.shuffle_length))
                return
            if peer not in self._joined:
                self._joined[peer] = None
                self._send(peer, Join())
                self._add(peer)
                return
        if led_on:
            del self._pending[peer]
            self._contacted = self._now
            self._release(peer)
        else:
            self._attempt_failed(peer, why)

    def _attempt_failed(self, peer: str, why: str) -> None:
        pending = self._pending.pop(peer)
        if pending.purpose == "join":
            self._out.append(Notify(JoinFailed(peer, f"{peer}: {why}")))
            self._next_contact()
        elif pending.purpose == "promote":
            self._passive.failed(peer, self._now)
        elif pending.purpose == "rejoin":
            self._lost.failed(peer, self._now)
        self._release(peer)

    def _wake_at(self, deadline: float) -> None:
        if self._pending_at is None or deadline < self._pending_at:
            self._pending_at = deadline
            self._out.append(StartTimer("pending", deadline))

    def _pending_tick(self) -> None:
        self._pending_at = None
        for peer in self.overdue(self._now):
            if self._pending[peer].asked:
                self._refused(peer, "it does not answer")
            else:
                self._attempt_failed(peer, "it could not be reached in time")
        if self._pending:
            self._wake_at(min(pending.deadline for pending in self._pending.values()))
        self._fill()

    def _fill(self, *, desperate: bool = False) -> None:
        """Try passive peers, as many at a time as there are free places; ``desperate``: also who refused just now."""
        if self._left:
            return
        free = self._full - len(self._active)
        if free <= 0:
            return
        if self._active and self._refusals > free:
            return
        free -= sum(pending.purpose in ("promote", "join") for pending in self._pending.values())
        while free > 0:
            peer = self._passive.candidate(self._now, self._pending, desperate=desperate)
            if peer is None:
                return
            self._attempt(peer, "promote")
            free -= 1

    # --- the active view ----------------------------------------------------------------------------------------------

    def _add(self, peer: str, *, joins: bool = False) -> None:
        """Take a connected peer into the active view; a full one gives up a random member for it, or the youngest."""
        self._pending.pop(peer, None)
        if peer in self._active:
            return
        if len(self._active) >= self._full:
            members = list(self._active)
            self._evict(members[-1] if joins else self._one_of(members))
        kind = self._active[peer] = self._kinds[peer]
        self._passive.discard(peer)
        self._lingering.pop(peer, None)
        self._lost.discard(peer)
        if peer in self._contacts and self._contacted is None:
            self._contacted = self._now
        self._out.append(Notify(PeerUp(peer, kind)))

    def _evict(self, peer: str) -> None:
        if self._active[peer] == "python":
            self._send(peer, Disconnect())
            self._remove(peer, "dropped")
            self._release(peer)
        else:  # rule 5
            self._remove(peer, "dropped")
            self._linger(peer)
        self._passive.add(peer, self._now)
        self._passive.refused(peer, self._now, self._pace.period)

    def _linger(self, peer: str) -> None:
        if peer not in self._lingering:
            self._lingering[peer] = None
            self._out.append(Notify(PeerLingers(peer)))

    def _remove(self, peer: str, reason: DownReason) -> None:
        del self._active[peer]
        self._out.append(Notify(PeerDown(peer, reason)))
        if not self._active:
            self._contacted = None
            self._start_contacts(min(FIRST_CONTACT, self.config.contact_retry_ms / 1000))
            self._out.append(StartTimer("fill", self._now + FILL_DELAY))

    def _next_contact(self) -> None:
        if self._round and not self._left and (not self._active or self._contacted is None):
            self._attempt(self._round.pop(), "join")

    def _start_contacts(self, wait: float) -> None:
        if self.config.contact_nodes and self._started and not self._left:
            self._contact_wait = wait
            self._out.append(StartTimer("contact", self._now + wait * (0.75 + self._rng.random() / 2)))

    # --- small things -------------------------------------------------------------------------------------------------

    def _release(self, peer: str) -> None:
        if peer in self._kinds and not self.needs(peer):
            self._out.append(Release(peer))

    def _not_since(self, times: dict[str, float], peer: str, interval: float) -> bool:
        """Whether it is the first time for a connected peer within ``interval`` seconds; notes it."""
        if self._now - times.get(peer, -interval) < interval:
            return False
        times[peer] = self._now
        return True

    def _send(self, peer: str, message: Message) -> None:
        self._out.append(Send(peer, message))

    def _one_of(self, names: list[str]) -> str:
        return names[int(self._rng.random() * len(names))]


__all__ = ["FIRST_CONTACT", "MAX_CONTACT_WAIT", "NAME_ROUNDS", "Links"]
