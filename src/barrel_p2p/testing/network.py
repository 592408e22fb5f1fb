"""The simulated network: connections that take time and fail, channels that delay, lose and break, partitions.

A channel is a pair of ``End``. What is sent arrives after the latency of the channel and a jitter, in order, while
both ends are open; see ``scenario.Network`` for the modes. An end whose peer died, or is cut off by a partition,
notices after the detection time; until then it sends into the void (into the partition: what is sent arrives if that
ends before somebody noticed).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from barrel_p2p.testing.clock import Clock
from barrel_p2p.testing.member import End, Member
from barrel_p2p.testing.scenario import Network

Arrive = Callable[[Any, Any, Any], None]  # (end it arrives at, message, nothing)


class SimulatedNetwork:
    """Moves messages between members; tells ``connected``, ``failed`` and ``lost`` to who runs them.

    Args:
        members: the current member of each name.
    """

    def __init__(
        self,
        settings: Network,
        clock: Clock,
        rng: Random,
        members: dict[str, Member],
        *,
        connected: Callable[[Member, Member], None],
        failed: Callable[[Member, str], None],
        lost: Callable[[Member, str], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = rng.random
        self._members = members
        self._connected = connected
        self._failed = failed
        self._lost = lost
        self._jitter = settings.jitter_ms
        self._plain = settings.plain
        self._cut: Callable[[Member, Member], bool] | None = None  # whether nothing gets from one to the other

    # --- messages -----------------------------------------------------------------------------------------------------

    def send(self, end: End, message: Any, arrive: Arrive) -> None:
        """Let ``message`` arrive at the other end."""
        clock = self._clock
        ms = int(clock.ms + end.latency + self._random() * self._jitter)
        if not self._plain:
            self._send_through_trouble(end, message, arrive, ms)
            return
        slow = end.peer.slow_ms
        if slow:
            ms += int(slow)
        if ms < end.last_ms:
            ms = end.last_ms
        else:
            end.last_ms = ms
        clock.at(ms, arrive, end.other, message)

    def _send_through_trouble(self, end: End, message: Any, arrive: Arrive, ms: int) -> None:
        settings = self._settings
        ms += int(end.peer.slow_ms)
        cut = self._cut is not None and self._cut(end.member, end.peer)
        if settings.mode == "channel":
            if cut:
                if end.held is None:
                    end.held = []
                end.held.append((message, arrive))
                return
            while self._random() < settings.loss:
                ms += int(settings.resend_ms)
            end.last_ms = max(ms, end.last_ms)
            self._clock.at(end.last_ms, arrive, end.other, message)
        elif not cut and self._random() >= settings.loss:
            if self._random() < settings.reorder:
                ms += int(self._random() * settings.resend_ms)
            self._clock.at(ms, arrive, end.other, message)
            if self._random() < settings.duplicate:
                self._clock.at(ms + int(self._random() * settings.resend_ms), arrive, end.other, message)

    # --- channels -----------------------------------------------------------------------------------------------------

    def connect(self, member: Member, peer: str) -> None:
        """Try to make a channel: three times the latency for the handshakes, or a failure after a while."""
        end = member.ends.get(peer)
        if end is not None and end.open and end.other.open:
            self._clock.at(self._clock.ms, self._tell_again, member, end)
            return
        low, high = self._settings.latency_ms
        latency = low + self._random() * (high - low)
        target = self._members.get(peer)
        reachable = target is not None and target.alive and not self._apart(member, target)
        if reachable and self._random() >= self._settings.connect_failure:
            self._clock.at(int(self._clock.ms + 3 * latency), self._connect_done, member, target, latency)
        else:
            refused = self._random() < self._settings.refused and (target is None or not self._apart(member, target))
            wait = 2 * latency if refused else self._settings.connect_timeout * 1000
            self._clock.at(int(self._clock.ms + wait), self._connect_failed, member, peer)

    def _connect_done(self, member: Member, target: Member, latency: float) -> None:
        if not member.alive:
            return
        if not target.alive or self._apart(member, target):
            self._connect_failed(member, target.name, None)
            return
        for near, far in ((member, target), (target, member)):
            old = near.ends.get(far.name)
            if old is not None:
                if old.open and old.other.open:
                    return  # both dialled; the other connection is in use already
                self._break(old, None, None)
        end, other = End(member, target, latency), End(target, member, latency)
        end.other, other.other = other, end
        member.ends[target.name] = end
        target.ends[member.name] = other
        self._connected(target, member)
        self._connected(member, target)

    def _tell_again(self, member: Member, end: End, _: Any) -> None:
        if member.alive and end.open:
            self._connected(member, end.peer)

    def _connect_failed(self, member: Member, peer: str, _: Any) -> None:
        if member.alive:
            self._failed(member, peer)

    def close(self, end: End, *, politely: bool) -> None:
        """Close a channel once what was sent has arrived; ``politely``: unless somebody needs it by then."""
        if politely:
            self._clock.at(self._clock.ms + int(self._settings.idle_close * 1000), self._close_unused, end)
        else:
            self._clock.at(max(end.last_ms, self._clock.ms) + int(end.latency), self._break, end.other)
            self._break(end, None, None)

    def _close_unused(self, end: End, _: Any, __: Any) -> None:
        other = end.other
        if end.open and other.open:
            if end.member.hyparview.needs(end.peer.name) or other.member.hyparview.needs(other.peer.name):
                return
            self._break(end, None, None)
            self._break(other, None, None)

    def _break(self, end: End, _: Any, __: Any) -> None:
        """The owner of ``end`` notices that the channel is gone."""
        if end.open:
            end.open = False
            member = end.member
            if member.ends.get(end.peer.name) is end:
                del member.ends[end.peer.name]
            if member.alive:
                self._lost(member, end.peer.name)

    def detach(self, member: Member) -> None:
        """``member`` died: its peers notice some time later."""
        for end in list(member.ends.values()):
            end.open = False
            self._clock.at(self._detection(), self._break, end.other)
        member.ends.clear()

    def _detection(self) -> int:
        low, high = self._settings.detection
        return int(self._clock.ms + 1000 * (low + self._random() * (high - low)))

    # --- partitions ---------------------------------------------------------------------------------------------------

    def cut(self, cut: Callable[[Member, Member], bool]) -> None:
        """From now on nothing gets from ``a`` to ``b`` if ``cut(a, b)``."""
        self._cut = cut
        self._plain = False
        for member in self._members.values():
            for end in member.ends.values():
                if cut(end.member, end.peer):
                    self._clock.at(self._detection(), self._break_if_cut, end, cut)

    def _break_if_cut(self, end: End, cut: Callable[[Member, Member], bool], _: Any) -> None:
        """One direction is enough: the receiver hears nothing, the sender no acknowledgement."""
        if self._cut is cut and cut(end.member, end.peer):
            self._break(end, None, None)
            self._break(end.other, None, None)

    def heal(self) -> None:
        """Nothing is cut any more; what channels held up arrives."""
        self._cut = None
        self._plain = self._settings.plain
        for member in self._members.values():
            for end in list(member.ends.values()):
                held, end.held = end.held, None
                for message, arrive in held or ():
                    self.send(end, message, arrive)

    def _apart(self, a: Member, b: Member) -> bool:
        return self._cut is not None and (self._cut(a, b) or self._cut(b, a))


__all__ = ["SimulatedNetwork"]
