"""Every error that users of barrel_p2p can meet.

An error answers three questions: whose fault it is (the class), what is known (the message and its fields), and what to
do next (the message). ``ExitReason`` errors carry the Erlang term that an Erlang developer would see as exit reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from barrel_p2p.shown import shown


class BarrelError(Exception):
    """Base class of all errors raised by barrel_p2p."""


# --- the caller's fault -----------------------------------------------------------------------------------------


class ConfigError(BarrelError):
    """An option, a name or a path given to ``Node`` can't be used; the message says which and why.

    ``option`` is the name of the option at fault, None where it is not one option alone.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class NotInProcess(BarrelError):
    """A function that needs a current process or node was called outside of one."""


class EncodeError(BarrelError, ValueError):
    """A value has no exact form as an Erlang term. Nothing was written."""


class NameTaken(BarrelError):
    """``register`` found the name in use, or the process already has a name."""


class MapClosed(BarrelError):
    """A replicated map was used after it, or its node, was closed on this node."""


# --- the machine's fault ----------------------------------------------------------------------------------------


class StoreError(BarrelError, OSError):
    """The disk did not take a write. It has no effect: nothing has changed in memory, and nobody was told.

    ``corrupt``: the file itself is damaged.
    """

    def __init__(self, message: str, *, corrupt: bool = False) -> None:
        super().__init__(message)
        self.corrupt = corrupt


# --- the peer's fault -------------------------------------------------------------------------------------------


class DecodeError(BarrelError, ValueError):
    """Bytes are no valid external term, or exceed a limit of the decoder; the message says which and at what offset."""


class ProtocolError(BarrelError):
    """A peer broke a protocol rule. Its connection is closed; everything else goes on."""


class AuthError(ProtocolError):
    """The Ed25519 exchange failed. ``reason`` is a short word such as ``key_mismatch``; ``peer`` the claimed name.

    ``details`` holds the values behind the message, for programs: ``presented`` and ``pinned`` (public keys),
    ``clock_offset_ms`` and ``allowed_ms``, ``answered`` (the name of the node that answered instead).
    """

    def __init__(
        self, reason: str, message: str, peer: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.peer = peer
        self.details: Mapping[str, Any] = details or {}


class HandshakeError(ProtocolError):
    """The distribution handshake failed. ``reason`` is a short word such as ``bad_cookie``.

    ``details`` holds the values behind the message, for programs: ``missing_flags`` (their names), ``waiting_for``
    (the message that was due when the peer fell silent: ``status``, ``challenge``, ``ack``, ...), ``answered`` (the
    name of the node that answered instead); and what the key exchange had shown before: ``public_key``,
    ``first_contact``, ``clock_offset_ms``.
    """

    def __init__(
        self, reason: str, message: str, peer: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.peer = peer
        self.details: Mapping[str, Any] = details or {}


# --- what happened to a process, a call or a node ---------------------------------------------------------------


class ExitReason(BarrelError):
    """A process ended, or ends when this is raised inside it: ``reason`` is the Erlang exit reason."""

    def __init__(self, reason: Any, message: str | None = None) -> None:
        super().__init__(message if message is not None else f"exit: {shown(reason)}")
        self.reason = reason

    @property
    def exit_term(self) -> Any:
        """The reason that a process exits with when it does not catch this error."""
        return self.reason


class Exit(ExitReason):
    """Raised by ``exit(reason)`` in the process that ends itself; a normal way to stop with a reason."""


class StartError(ExitReason):
    """A process did not start: ``reason`` is what its ``init`` failed with, or ``(already_started, pid)``."""


class CallError(ExitReason):
    """A call did not get its answer; subclasses say why.

    ``reason`` is the plain Erlang reason (``noproc``, ``timeout``, ``(nodedown, node)``, the exit reason of the
    server), ``call`` what was called. ``gen_server:call`` exits with the pair of both, and so does a process that
    lets this error pass: see ``exit_term``.
    """

    def __init__(self, reason: Any, message: str | None = None, *, call: Any = None) -> None:
        super().__init__(reason, message)
        self.call = call

    @property
    def exit_term(self) -> Any:
        return self.reason if self.call is None else (self.reason, self.call)


class NoProc(CallError):
    """The process that was called, or that was to get a name, does not exist (any more)."""


class NodeDown(CallError):
    """The node of the called process is not reachable, or the connection to it was lost during the call."""


class CallTimeout(CallError, TimeoutError):
    """No answer within the timeout. A late answer is dropped, it never reaches the caller."""


class NotConnected(BarrelError):
    """There is no connection to the node, and none could be made; the message says what was tried.

    ``reason`` is a short word: ``unknown_address`` (no place knows where it listens), ``no_answer`` (silence),
    ``unreachable`` (its host says that nobody listens there), ``transport`` (QUIC or TLS failed, ``code`` is the QUIC
    error code), ``misbehaved`` (it broke the protocol, so we stay away for a while), or another word of
    ``net.connection.CloseKind``; empty where none of these fits.
    """

    def __init__(self, message: str, reason: str = "", code: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code


class ChannelOverflow(BarrelError):
    """More was sent to a busy node without an await point than the hard limit allows; the channel was closed."""


# --- streams and paths --------------------------------------------------------------------------------------------


class NotSupported(BarrelError):
    """This node's carrier has no such thing: streams and paths need QUIC, ``proto_dist="barrel_p2p"``."""


class StreamError(BarrelError):
    """A stream did not do what was asked; subclasses say why."""


class BadTag(StreamError, ValueError):
    """A tag has 1 to 255 bytes and does not begin with ``barrel_p2p:``, which is reserved."""


class StreamClosed(StreamError):
    """This side has ended that half of the stream: it was closed, reset, stopped, or its owner died."""


class StreamReset(StreamError):
    """The peer ended the stream before it was complete. What it had sent before may be lost.

    ``code`` is the number it gave, 0 when the owner of its side died.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class StreamStopped(StreamReset):
    """The peer reads no more of what we write; what it sends may go on. ``code`` is the number it gave."""


class StreamRefused(StreamReset):
    """Nobody accepts the tag over there (code 0x100). Right after a connection came up it may be worth another try."""


class StreamLost(StreamError, NotConnected):
    """The connection to the peer ended, and this stream with it."""


class MigrationError(BarrelError):
    """A connection did not move to a new path; it is where it was before."""


class MigrationTimeout(MigrationError, TimeoutError):
    """Nothing came on the new path in time. The connection went back to the old one."""


class MigrationDisabled(MigrationError):
    """The peer said when the connection was made that it must not move (``disable_active_migration``)."""


class NotDialer(MigrationError):
    """The peer made this connection, so only it can move it, and it can't be asked to."""


class RemoteError(BarrelError):
    """A remote function raised: ``kind`` is error, exit or throw, ``reason`` the term, ``stack`` what came with it."""

    def __init__(self, kind: str, reason: Any, stack: Any = None, message: str | None = None) -> None:
        super().__init__(message if message is not None else f"{kind}: {shown(reason)}")
        self.kind = kind
        self.reason = reason
        self.stack = stack


class InternalError(BarrelError):
    """A bug in barrel_p2p itself. Please report it with the traceback."""


class ReceiveConflict(BarrelError):
    """Two tasks of one process wait in ``receive`` at once; only one may, or messages would go to either by chance."""
