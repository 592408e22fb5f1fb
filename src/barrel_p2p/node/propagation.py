"""How a trace context travels with a message: as the trace token of Erlang's control messages.

The ``_TT`` forms of sends and spawns have a field for the token of OTP's sequential tracing. Between Python nodes it
holds ``{barrel_p2p_trace, #{Name => Value}}``, the headers of OpenTelemetry's propagators. A Python node that does not
trace skips it, as it skips the token of an Erlang node; an Erlang node is sent none, which it would take for its own.

Off until ``tracing.propagate`` fills in the two functions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final

from barrel_p2p.node.channel import Channel, Control
from barrel_p2p.node.route import Route
from barrel_p2p.process.call import GEN_CALL, GEN_CAST
from barrel_p2p.process.traced import Traced
from barrel_p2p.proto.control import with_token
from barrel_p2p.proto.flags import Flags
from barrel_p2p.term.types import Atom

TRACE: Final = Atom("barrel_p2p_trace")
MAX_HEADERS: Final = 8  # of a token; OpenTelemetry's usual propagators have three
MAX_HEADER: Final = 8_192  # characters of one; the limit of W3C baggage

Headers = dict[str, str]


class Propagation:
    """Of one node.

    Attributes:
        headers: Gives those of the current context, none if there is nothing to tell; None: nothing is sent.
        within: Enters the context that headers stand for; None: what comes is skipped.
    """

    def __init__(self) -> None:
        self.headers: Callable[[], Headers] | None = None
        self.within: Callable[[Headers], AbstractContextManager[object]] | None = None

    def outgoing(self, route: Route, control: Control) -> Control:
        """The control message with the current context in it, if there is one and the peer may be told."""
        if self.headers is None or (isinstance(route, Channel) and not route.flags & Flags.PYTHON):
            return control
        headers = self.headers()
        return with_token(control, (TRACE, headers)) if headers else control

    def incoming(self, token: Any, message: Any) -> Any:
        """A message as its receiver gets it: a call or a cast with the context in ``token``, if that is one."""
        headers = self._read(token)
        if headers is None or self.within is None or not _is_request(message):
            return message
        return Traced.of(message, partial(self.within, headers))

    def entered(self, token: Any) -> AbstractContextManager[object]:
        """Enter the context in a token, if that is one."""
        headers = self._read(token)
        return nullcontext() if headers is None or self.within is None else self.within(headers)

    def _read(self, token: Any) -> Headers | None:
        if self.within is None or type(token) is not tuple or len(token) != 2 or token[0] != TRACE:
            return None
        headers = token[1]
        if type(headers) is not dict or len(headers) > MAX_HEADERS:
            return None
        if not all(type(text) is str and len(text) <= MAX_HEADER for pair in headers.items() for text in pair):
            return None
        return headers


def _is_request(message: Any) -> bool:
    """Whether it is a call or a cast, which are handled in a context; all else stays the very message that was sent."""
    return type(message) is tuple and bool(message) and type(message[0]) is Atom and message[0] in (GEN_CALL, GEN_CAST)


__all__ = ["Headers", "Propagation"]
