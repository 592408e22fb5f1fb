"""Whether an Erlang peer still has the channel: asked over the distribution itself, now and then.

QUIC answers for a host and its process, not for the link. An Erlang node that drops a link (``disconnect_node``, its
connection GC, a crash of its controller) leaves the QUIC connection open and throws away what comes: its stack goes on
acknowledging and pinging. It also sends no ticks while QUIC packets flow, so silence proves nothing; only a question
does.

The question is a monitor on a name that nobody has. The VM itself answers it with ``noproc``, whatever its processes
do. A question that still waits behind other messages counts as not asked. Python peers close their connections and are
not asked.

The same check ends a connection that is about to become useless: Erlang's QUIC survives one update of the keys by its
peer and can't read a packet after the second, which quinn starts before 2**23 packets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from barrel_p2p.errors import BarrelError
from barrel_p2p.net.connection import CloseKind
from barrel_p2p.node.channel import Channel
from barrel_p2p.proto.control import Op
from barrel_p2p.proto.flags import Flags
from barrel_p2p.term.types import Atom, Pid, Reference

log = logging.getLogger("barrel_p2p.connect")

NOBODY = Atom("barrel_p2p_nobody")
CHECKS = 4  # within one tick time, as OTP counts its ticks
MAX_PACKETS = 7_000_000  # sent on one connection to an Erlang peer; at 80,000 a second one check more is still in time
MOVING = 4096  # bytes sent between two checks: more than acknowledgements and pings; a guess


class Liveness:
    """Watches one channel from its start until it closes."""

    def __init__(self, channel: Channel, own_pid: Pid, reference: Callable[[], Reference], tick_ms: int) -> None:
        self._channel = channel
        self._own_pid = own_pid
        self._reference = reference
        self._interval = tick_ms / 1000 / CHECKS
        self._seen = 0
        self._unanswered = 0
        self._sent = 0
        self._asked_at = 0  # bytes sent by QUIC when the last question will have left
        self._loop = asyncio.get_running_loop()
        if not channel.flags & Flags.PYTHON:
            self._loop.call_later(self._interval, self._check)

    def _check(self) -> None:
        channel = self._channel
        if channel.connection.closed:
            return
        stats = channel.connection.stats()
        if stats.get("packets_sent", 0) > MAX_PACKETS:
            self._close(
                f"the connection to {channel.name} is used up (its keys can't be renewed again); the next one is new"
            )
            return
        before, self._sent = self._sent, stats.get("bytes_sent", 0)
        if channel.received_messages != self._seen or channel.waiting_for:
            self._seen = channel.received_messages
            self._unanswered = 0
        elif self._unanswered and self._sent < self._asked_at and self._sent - before > MOVING:
            pass  # the question has not left yet
        elif self._unanswered >= CHECKS - 1:
            text = f"{channel.name} no longer has this connection: it answers QUIC, but nothing sent over it"
            self._close(text, "timeout")
            return
        else:
            self._ask()
        self._loop.call_later(self._interval, self._check)

    def _close(self, text: str, kind: CloseKind = "local") -> None:
        log.warning("%s", text, extra={"peer": self._channel.name})
        self._channel.close(text, kind)

    def _ask(self) -> None:
        self._unanswered += 1
        self._asked_at = self._sent + self._channel.connection.queued
        try:
            self._channel.send(None, (int(Op.MONITOR_P), self._own_pid, NOBODY, self._reference()))
        except BarrelError as error:  # the channel overflowed, and was closed for it
            log.debug("could not ask %s for a sign of life: %s", self._channel.name, error)
