"""From a TCP connection to a channel: the distribution handshake as stock Erlang nodes have it.

There is no key and no encryption: whoever knows the cookie is let in, and whoever can read the network reads along.
"""

from __future__ import annotations

from barrel_p2p.net.connection import Connection
from barrel_p2p.node.establishing import AcceptEvents, AcceptingRole, DialEvents, DialingRole, Settings
from barrel_p2p.proto.handshake import HandshakeAcceptor
from barrel_p2p.term.types import Atom


class TcpDialing(DialingRole):
    """Our side dialled."""

    def __init__(self, connection: Connection, settings: Settings, peer: Atom, events: DialEvents) -> None:
        super().__init__(connection, settings, peer, events)
        connection.handler = self
        self._open_handshake()
        self._pump()


class TcpAccepting(AcceptingRole):
    """A peer dialled us. Its name is what it says: the cookie is all that it has to know."""

    def __init__(self, connection: Connection, settings: Settings, events: AcceptEvents) -> None:
        super().__init__(connection, settings, events)
        connection.handler = self
        self._open_handshake(None)
        self._arm()

    def ask_if_alive(self) -> None:
        self._answer("alive")

    def yield_to_dial(self) -> None:
        if not self.over and isinstance(self._handshake, HandshakeAcceptor):
            self._handshake.answer("nok", now=self._loop.time())
            self._write_handshake()
        super().yield_to_dial()
