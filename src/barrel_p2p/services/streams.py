"""``node.streams``: who takes the streams that peers open, and streams of our own.

On the wire a stream begins with the length of its tag in one byte, and the tag; then come the bytes of the
application, in both directions. A node that has nobody for a tag resets the stream with code 0x100.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p.errors import BadTag, Exit, NameTaken, NoProc, NotSupported, StreamLost, StreamReset
from barrel_p2p.net.quic import Connection
from barrel_p2p.net.quic_stream import ByteStream
from barrel_p2p.node.channel import Channel
from barrel_p2p.process.api import self_pid
from barrel_p2p.process.current import current
from barrel_p2p.process.reasons import NOPROC
from barrel_p2p.proto.names import validate_node_name
from barrel_p2p.services.stream import Stream
from barrel_p2p.term.types import Atom, Pid

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node
    from barrel_p2p.process.signals import Monitor

log = logging.getLogger("barrel_p2p.streams")

Handler = Callable[[Stream], Coroutine[Any, Any, Any]]
Acceptor = Handler | Pid

RESERVED: Final = b"barrel_p2p:"  # upstream keeps it for itself, and so do we
_MSTREAM: Final = Atom("mstream")
_OPENED: Final = Atom("opened")
_SHUTDOWN: Final = Atom("shutdown")
_STREAM: Final = Atom("stream")


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """The streams of one peer since its connection was made.

    Attributes:
        open: Streams of both sides that have not ended.
        refused: Its streams that nobody took.
        crowded: Those refused because too many waited for the rest of their tag.
        unfinished: Those whose tag was not complete in time, or at their end.
    """

    open: int
    refused: int
    crowded: int
    unfinished: int

    @classmethod
    def of(cls, stats: Mapping[str, int]) -> StreamStatistics:
        names = ("streams", "streams_refused", "preambles_crowded", "preambles_unfinished")
        return cls(*(stats.get(name, 0) for name in names))


class Streams:
    """The streams of one node, as ``node.streams``.

    ::

        async def store(stream):
            async for chunk in stream:
                ...

        node.streams.register_acceptor("backup", store)
    """

    def __init__(
        self,
        node: Node,
        connect: Callable[[Atom], Coroutine[Any, Any, Channel]],
        channels: Callable[[], Mapping[Atom, Channel]],
    ) -> None:
        self._node = node
        self._connect = connect
        self._channels = channels
        self._acceptors: dict[bytes, Acceptor] = {}
        self._monitors: dict[bytes, Monitor] = {}

    # --- accepting --------------------------------------------------------------------------------------------------

    def register_acceptor(self, tag: str | bytes, acceptor: Acceptor) -> None:
        """Take the streams with this tag that any peer opens.

        Args:
            tag: 1 to 255 bytes; a ``str`` is UTF-8.
            acceptor: An async function: each stream runs ``acceptor(stream)`` as a process of its own, which owns it.
                When it returns, the stream ends well; when it raises, the stream is reset and the error logged. Or the
                pid of a process of this node: it gets ``("mstream", stream, "opened", peer)`` and owns the stream. A
                process that dies is unregistered.

        Raises:
            BadTag: The tag is empty, too long or reserved.
            NameTaken: The tag has an acceptor.
            NoProc: The pid is that of no live process of this node.
            TypeError: The tag is no text or bytes, the acceptor neither an async function nor a pid.
        """
        key = _tag(tag)
        if key in self._acceptors:
            raise NameTaken(f"the tag {tag!r} has an acceptor already")
        if isinstance(acceptor, Pid):
            runtime = self._node.runtime
            if runtime.find(acceptor) is None:
                raise NoProc(NOPROC, f"can't register {acceptor!r} for {tag!r}: it is no live process of this node")
            self._acceptors[key] = acceptor
            self._monitors[key] = runtime.monitor(
                runtime.pid, lambda reason: self._forget(key), acceptor, runtime.reference()
            )
        elif callable(acceptor):
            self._acceptors[key] = acceptor
        else:
            raise TypeError(f"an acceptor is an async function or a pid, not {acceptor!r}")

    def unregister_acceptor(self, tag: str | bytes) -> bool:
        """Take no more streams with this tag; those that are open go on. False if nobody did."""
        key = _tag(tag)
        monitor = self._monitors.pop(key, None)
        if monitor is not None:
            self._node.runtime.end_monitor(monitor)
        return self._acceptors.pop(key, None) is not None

    def list_acceptors(self) -> dict[bytes, Acceptor]:
        """Who takes which tag, at this moment."""
        return dict(self._acceptors)

    def statistics(self) -> dict[Atom, StreamStatistics]:
        """Counts of each connected peer, at this moment."""
        return {
            name: StreamStatistics.of(channel.connection.stats())
            for name, channel in self._channels().items()
            if isinstance(channel.connection, Connection)
        }

    def _forget(self, key: bytes) -> None:
        self._monitors.pop(key, None)
        self._acceptors.pop(key, None)

    # --- opening ----------------------------------------------------------------------------------------------------

    async def open(self, tag: str | bytes, peer: str, timeout: float | None = 10.0) -> Stream:
        """Open a stream to ``peer``, connecting to it first if need be. The current process owns it.

        Nothing tells at once whether it is accepted there: reading raises StreamRefused if not, and so may writing.

        Args:
            tag: What it is for; 1 to 255 bytes.
            timeout: Seconds for the connection, and for the peer to allow one more stream.

        Raises:
            BadTag: The tag is empty, too long or reserved.
            NotConnected: There is no way to the peer.
            TimeoutError: The peer did not allow a further stream in time.
        """
        key = _tag(tag)
        name = validate_node_name(peer)
        if name == self._node.name:
            raise NotSupported("a stream leads to another node; processes of one node have queues and pipes")
        async with asyncio.timeout(timeout):
            channel = await self._connect(name)
            connection = _quic(channel)
            opened = await connection.open_stream()
        await opened.write(bytes((len(key),)) + key)
        stream = Stream(opened, self._node.runtime, key, name)
        owner = current.get()
        if owner is not None and owner.runtime is self._node.runtime:
            stream.own(owner)
        return stream

    # --- what the connections report --------------------------------------------------------------------------------

    def opened(self, channel: Channel, opened: ByteStream, tag: bytes) -> None:
        """A peer opened a stream."""
        acceptor = self._acceptors.get(tag)
        if acceptor is None:
            log.debug(
                "%s opened a stream with the tag %r, which nobody takes",
                channel.name,
                tag,
                extra={"peer": channel.name},
            )
            _quic(channel).refuse(opened)
            return
        runtime = self._node.runtime
        stream = Stream(opened, runtime, tag, channel.name)
        if isinstance(acceptor, Pid):
            process = runtime.find(acceptor)
            assert process is not None, "who dies is unregistered at once"
            stream.own(process)
            process.put((_MSTREAM, stream, _OPENED, channel.name))
        else:
            process = runtime.spawn(_serve, (acceptor, stream))
            process.label = ("stream", tag, channel.name)
            stream.own(process)


async def _serve(handler: Handler, stream: Stream) -> None:
    try:
        handled = handler(stream)
        if not isawaitable(handled):
            raise TypeError(f"an acceptor of streams must be an async def, which {handler!r} is not")
        await handled
    except (StreamReset, StreamLost) as error:  # the peer's doing, no fault of the handler
        log.info("the stream %r of %s ended early: %s", stream.tag, stream.peer, error, extra={"peer": stream.peer})
        raise Exit((_SHUTDOWN, _STREAM)) from None
    if stream.owner == self_pid():  # else it was given away
        stream.leave()


def _quic(channel: Channel) -> Connection:
    connection = channel.connection
    if not isinstance(connection, Connection):
        raise NotSupported('streams need QUIC: this node speaks inet_tcp; use proto_dist="barrel_p2p" on both nodes')
    return connection


def _tag(tag: str | bytes) -> bytes:
    if not isinstance(tag, (str, bytes, bytearray, memoryview)):  # bytes(5) would be five zeros
        raise TypeError(f"a tag is a text or bytes, not {tag!r}")
    key = tag.encode() if isinstance(tag, str) else bytes(tag)
    if not 1 <= len(key) <= 255:
        raise BadTag(f"a tag has 1 to 255 bytes, not {len(key)}")
    if key.startswith(RESERVED):
        raise BadTag(f"tags that begin with {RESERVED.decode()!r} are reserved")
    return key


__all__ = ["Acceptor", "Handler", "StreamStatistics", "Streams"]
