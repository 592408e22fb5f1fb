"""The distribution handshake on stream 0, unframed, with a reader that takes one read for one message.

``dist_util`` matches whole messages against whatever its reader returns, and the reader returns everything that is
buffered. So two messages of ours in one STREAM frame, or close together before a slow reader, end the handshake: here
by ``ForeignError``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct

from .behaviour import Behaviour
from .wire import CONTROL, ForeignError, Wire


class Handshake:
    """``peer_name``, ``peer_flags`` and ``peer_creation`` stand once it is over; ``flags`` are those of both."""

    def __init__(self, wire: Wire, name: str, cookie: str, behaviour: Behaviour) -> None:
        self.peer_name = ""
        self.peer_flags = 0
        self.peer_creation = 0
        self.status = ""  # what the acceptor told us as dialer
        self._wire = wire
        self._name = (behaviour.dist_name or name).encode("latin-1")
        self._cookie = cookie.encode("latin-1")
        self._behaviour = behaviour
        self._challenge = int.from_bytes(os.urandom(4), "big")

    @property
    def flags(self) -> int:
        return self._behaviour.flags & self.peer_flags

    async def as_dialer(self) -> None:
        own = self._behaviour
        await self._write("name", struct.pack(">cQIH", b"N", own.flags, own.creation, len(self._name)) + self._name)
        if self._stops("name"):
            return
        status = await self._read()
        if not status.startswith(b"s"):
            raise ForeignError(f"expected a status, read {status!r}")
        # dist_util would take a status and a challenge in one read for an unknown status; ours must not be one read
        self.status = status[1:].decode("latin-1")
        if status == b"salive":
            self._wire.write(CONTROL, b"strue")
        elif status not in (b"sok", b"sok_simultaneous"):
            raise ForeignError(f"status {status[1:]!r}")
        theirs = self._take_challenge(await self._read())
        await self._write("reply", struct.pack(">cI", b"r", self._challenge) + self._digest(theirs))
        if self._stops("reply"):
            return
        ack = await self._read()
        if ack != b"a" + digest(self._cookie, self._challenge):
            raise ForeignError(f"expected the ack, read {ack!r}")

    async def as_acceptor(self) -> None:
        own = self._behaviour
        name = await self._read()
        head = struct.calcsize(">cQIH")
        if len(name) < head or name[:1] != b"N":
            raise ForeignError(f"expected a name, read {name!r}")
        _, self.peer_flags, self.peer_creation, length = struct.unpack_from(">cQIH", name)
        if len(name) != head + length:
            raise ForeignError(f"the name came with something else in one read: {name!r}")
        self.peer_name = name[head:].decode("latin-1")
        await self._write("status", b"s" + own.status.encode())
        if self._stops("status"):
            return
        if own.status == "alive":
            answer = await self._read()
            if answer != b"strue":
                raise ForeignError(f"expected strue, read {answer!r}")
        elif own.status not in ("ok", "ok_simultaneous"):
            raise ForeignError(f"told {self.peer_name}: {own.status}")
        challenge = struct.pack(">cQIIH", b"N", own.flags, self._challenge, own.creation, len(self._name))
        await self._write("dist_challenge", challenge + self._name)
        if self._stops("challenge"):
            return
        reply = await self._read()
        if len(reply) != 21 or reply[:1] != b"r" or reply[5:] != digest(self._cookie, self._challenge):
            raise ForeignError(f"bad reply (wrong cookie, or two messages in one read): {reply!r}")
        await self._write("ack", b"a" + self._digest(int.from_bytes(reply[1:5], "big")))

    async def _read(self) -> bytes:
        """One read: everything that is there."""
        if self._behaviour.read_delay:
            await asyncio.sleep(self._behaviour.read_delay)
        while True:
            data = await self._wire.read_all(CONTROL, self._behaviour.timeout)
            if not data.startswith(b"\0\0\0\0"):  # taken for a tick, and the rest is gone with it
                return data

    async def _write(self, what: str, message: bytes) -> None:
        if what in self._behaviour.holds:
            await self._behaviour.holds[what].wait()
        message = self._behaviour.instead.get(what, message)
        self._wire.mute = self._wire.mute or not message
        self._wire.write(CONTROL, message)

    def _take_challenge(self, data: bytes) -> int:
        head = struct.calcsize(">cQIIH")
        if len(data) < head or data[:1] != b"N":
            raise ForeignError(f"expected a challenge, read {data!r}")
        _, self.peer_flags, challenge, self.peer_creation, length = struct.unpack_from(">cQIIH", data)
        if len(data) != head + length:
            raise ForeignError(f"the challenge came with something else in one read: {data!r}")
        self.peer_name = data[head:].decode("latin-1")
        return int(challenge)

    def _digest(self, challenge: int) -> bytes:
        return digest(b"forged" if self._behaviour.forge_digest else self._cookie, challenge)

    def _stops(self, where: str) -> bool:
        return self._behaviour.stop_after == where


def digest(cookie: bytes, challenge: int) -> bytes:
    return hashlib.md5(cookie + str(challenge).encode(), usedforsecurity=False).digest()
