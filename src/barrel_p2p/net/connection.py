"""What the node needs of a connection, whatever carries it: ``quic_connection.py`` and ``tcp_connection.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

#: ``local``: closed by this side. ``application``: closed by the peer. ``transport``: QUIC or TLS failed, the
#: text says how. ``timeout``: silence past the idle timeout. ``unreachable``: its process on this host ended.
#: ``reset``: the peer restarted, or its TCP gave up. ``protocol``: the peer broke the framing or sent what is no term.
CloseKind = Literal["local", "application", "transport", "timeout", "unreachable", "reset", "protocol"]
Batch = list[tuple[tuple[Any, ...], Any]]


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a connection ended."""

    kind: CloseKind
    code: int
    text: str

    def __str__(self) -> str:
        return self.text or f"{self.kind} ({self.code})"


class Handler(Protocol):
    """What a connection reports to, on the event loop's thread; an exception closes the connection."""

    def stream_data(self, stream: int, data: bytes, fin: bool) -> None:
        """Bytes of the peer's authentication stream or of stream 0, before ``start_dist``."""

    def messages(self, batch: Batch) -> None:
        """Distribution messages in order: pairs of control tuple and message, or NO_MESSAGE."""

    def writable(self) -> None:
        """``queued`` fell below the low-water mark after it had reached the high one."""

    def closed(self, reason: CloseReason) -> None:
        """The connection ended, and nothing follows. Not called after ``Connection.close``."""


class Connection(Protocol):
    """One connection to a peer.

    Attributes:
        handler: What it reports to; what happened before it was set is reported then.
        closed: True once nothing can be sent or received any more.
        send: ``send(control, message=NO_MESSAGE) -> int`` encodes one message into the send queue and returns its
            depth in bytes. Never blocks. Raises EncodeError before anything is queued; does nothing when closed.
        setup_seconds: How long the dial took.
    """

    __slots__ = ()

    closed: bool
    send: Callable[..., int]
    setup_seconds: float

    @property
    def handler(self) -> Handler | None: ...

    @handler.setter
    def handler(self, handler: Handler) -> None: ...

    @property
    def is_dialer(self) -> bool: ...

    @property
    def peer_address(self) -> tuple[str, int]: ...

    @property
    def local_address(self) -> tuple[str, int]: ...

    @property
    def queued(self) -> int:
        """Bytes of messages that the transport has not taken yet."""

    @property
    def streams(self) -> int:
        """User streams that have not ended, of both sides; none over TCP."""

    def write(self, stream: int, data: bytes) -> None:
        """Queue bytes of a handshake. There is no back-pressure."""

    def start_dist(
        self,
        *,
        fragments: bool,
        atom_cache: bool = False,
        max_frame: int,
        exact_empty_str: bool = False,
        received: bytes = b"",
    ) -> None:
        """The distribution handshake is over: from now on messages are carried, and ``send`` works.

        Args:
            fragments: Whether both sides offered the FRAGMENTS flag, which decides the form of every frame.
            atom_cache: The same of DIST_HDR_ATOM_CACHE.
            max_frame: Largest message taken from the peer, in bytes; a larger one closes the connection.
            exact_empty_str: Send ``""`` so that another Python node gets it back as ``str``.
            received: What came behind the last message of the handshake.
        """

    def pause(self) -> None:
        """Hand out no more messages until ``resume``; the peer is stalled by flow control."""

    def resume(self) -> None: ...

    async def probe(self, timeout: float) -> bool:
        """Whether the peer gives a sign of life within ``timeout`` seconds."""

    def stats(self) -> dict[str, int]:
        """Counters of the transport, ``bytes_sent`` and ``bytes_received`` among them; empty once it is gone."""

    def close(self, code: int, reason: str) -> None:
        """Close the connection; ``handler.closed`` is not called. What is queued is dropped. Idempotent."""

    def __repr__(self) -> str:
        host, port = self.peer_address
        state = " closed" if self.closed else ""
        return f"<Connection {'to' if self.is_dialer else 'from'} {host}:{port}{state}>"


__all__ = ["Batch", "CloseKind", "CloseReason", "Connection", "Handler"]
