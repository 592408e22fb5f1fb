"""What the transports of both carriers have in common."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
from collections.abc import Callable
from typing import Any, Final

from barrel_p2p.errors import ConfigError
from barrel_p2p.net.busy_wait import BusyWait
from barrel_p2p.net.connection import CloseReason, Connection
from barrel_p2p.term.codec import Codec

#: Errors of a process, or a host, that may open no more files.
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)


class Transport:
    """The connections of one node, on the running event loop. Several can live in one OS process."""

    def __init__(self, codec: Codec, exact_codec: Codec | None, busy_wait_us: int, log: logging.Logger) -> None:
        self.loop = asyncio.get_running_loop()
        self.busy_wait = BusyWait(self.loop, busy_wait_us)
        self._codec = codec
        self._exact_codec = exact_codec or codec
        self._log = log

    def codec_for(self, exact_empty_str: bool) -> Codec:
        return self._exact_codec if exact_empty_str else self._codec

    def guard(self, connection: Connection, callback: Callable[..., None], *args: Any) -> None:
        """A bug in a handler costs its connection, not the transport. The handler hears of the end, so that nobody goes
        on counting on the connection.
        """
        try:
            callback(*args)
        except Exception:
            self._log.exception("internal error while handling %r; the connection is closed", connection)
            if not connection.closed:
                connection.close(0, "internal error")
                if connection.handler is not None:
                    self.guard(connection, connection.handler.closed, CloseReason("local", 0, "internal error"))


def listen_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address to listen on. Raises ConfigError."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        text = f"listen address {host!r} is no IP address; give one of this host"
        raise ConfigError(text, "listen_host") from None


def cannot_bind(protocol: str, host: str, port: int, error: OSError) -> ConfigError:
    """What to do about an address that the kernel refuses."""
    where = f"{protocol} {host}:{port}"
    if error.errno == errno.EADDRINUSE:
        text = f"{where} is in use, perhaps by another node; choose another listen_port, or 0 for a free one"
    elif error.errno == errno.EACCES:
        text = f"{where} may not be bound by this user; ports below 1024 need a privilege, choose a higher one"
    elif error.errno == errno.EADDRNOTAVAIL:
        text = f"{where} can't be bound: {host} is no address of this host; choose one that is, or 0.0.0.0"
    else:
        text = f"{where} can't be bound: {os.strerror(error.errno) if error.errno else error}"
    return ConfigError(text, "listen_port")


__all__ = ["NO_DESCRIPTOR", "Transport", "cannot_bind", "listen_ip"]
