"""A node changes its key while it runs, and hears of peers that do.

Peers with a channel are told at once: ``{rotated, Chain}`` to the name ``barrel_p2p_keys``, where nodes of this library
listen. The others find out when they connect (``proto.auth``). A handshake that was under way with the old key
ends with it; the peer is told as soon as that channel is up.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from barrel_p2p.errors import BarrelError, ConfigError
from barrel_p2p.node.carrier import Carrier
from barrel_p2p.node.carrier_quic import QuicCarrier
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.dispatch import Dispatch
from barrel_p2p.node.routes import Routes
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto.endorsement import Broken, decode_chain, encode_chain, follow
from barrel_p2p.proto.flags import Flags
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.keys")

NAME = Atom("barrel_p2p_keys")
ROTATED = Atom("rotated")
MAX_CHANGES = 16  # that one channel may bring; a guess. Each costs a write to the disk.


class Rotation:
    """The keys of one node, as far as they change. Without a QUIC carrier there are none."""

    def __init__(self, carrier: Carrier, routes: Routes, runtime: Runtime, dispatch: Dispatch) -> None:
        self._carrier = carrier if isinstance(carrier, QuicCarrier) else None
        self._routes = routes
        self._runtime = runtime
        self._heard: dict[Atom, int] = {}  # by connected peer
        if self._carrier is not None:
            dispatch.deliver_to(NAME, self.received)

    def rotate_identity(self) -> None:
        carrier = self._quic()
        carrier.rotate_identity()
        for channel in self._routes.channels.values():
            self._tell(channel)

    def rotate_certificate(self) -> None:
        self._quic().rotate_certificate()
        log.info("%s has a new TLS certificate", self._runtime.name)

    def node_up(self, channel: Channel) -> None:
        """Tell a peer whose handshake was under way when the key changed."""
        keys = None if self._carrier is None else self._carrier.keys
        if keys is not None and channel.proven is not None and channel.proven.own_key not in (b"", keys.public_key):
            self._tell(channel)

    def node_down(self, name: Atom) -> None:
        self._heard.pop(name, None)

    def received(self, channel: Channel, message: Any) -> None:
        """A peer says that it has a new key: believed if the key that is pinned for it says so."""
        carrier = self._carrier
        if carrier is None or channel.public_key is None:
            return
        match message:
            case (Atom() as what, bytes() as data) if what == ROTATED:
                heard = self._heard.get(channel.name, 0) + 1
                if heard > MAX_CHANGES:
                    return
                self._heard[channel.name] = heard
                why = self._follow(carrier, channel.name, data)
                if why is not None:
                    log.warning(
                        "%s says that it has a new key, but %s; its pin stays",
                        channel.name,
                        why,
                        extra={"peer": channel.name},
                    )

    def _follow(self, carrier: QuicCarrier, name: Atom, data: bytes) -> str | None:
        assert carrier.keys is not None
        pinned = carrier.keys.pins.get(name)
        try:
            chain = decode_chain(data)
            if pinned is None:
                return "none is pinned for it"
            if not chain:
                return "shows no endorsement"
            presented = chain[-1].new
            if presented == carrier.keys.public_key:
                return "shows our own key"
            if presented == pinned:
                return None
            way = follow(chain, name, pinned=pinned, presented=presented, wall_ms=time.time_ns() // 1_000_000)
            if isinstance(way, Broken):
                return f"its endorsement does not count: {way.why}"
            carrier.keys.move(name, way)
        except (BarrelError, ValueError) as error:
            return str(error)
        return None

    def _tell(self, channel: Channel) -> None:
        carrier = self._carrier
        if carrier is None or not channel.flags & Flags.PYTHON or channel.public_key is None:
            return
        try:
            channel.send_to_name(self._runtime.pid, NAME, (ROTATED, encode_chain(carrier.chain)))
        except BarrelError as error:  # the channel is full: it closes, and the peer learns when it comes back
            log.warning("%s could not be told of the new key: %s", channel.name, error)

    def _quic(self) -> QuicCarrier:
        if self._carrier is None:
            raise ConfigError(f"{self._runtime.name} has no keys to change: its carrier is inet_tcp")
        return self._carrier


__all__ = ["Rotation"]
