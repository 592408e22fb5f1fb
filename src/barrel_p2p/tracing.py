"""Trace contexts across nodes: what a handler does on another node belongs to the trace of who called it.

::

    propagate(alice); propagate(bob)      # each node in its own program

    with tracer.start_as_current_span("order"):                     # on alice
        await call(("shop", "bob@127.0.0.1"), "apples")

    async def handle_call(self, request, from_):                    # on bob
        with tracer.start_as_current_span("price"): ...             # a child of "order"

Needs the extra ``otel``. No spans are made by the library; calls, casts and remote calls between Python nodes carry the
context of their sender. Erlang nodes are sent nothing unusual.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from barrel_p2p.errors import ConfigError
from barrel_p2p.node.node import Node
from barrel_p2p.node.propagation import Headers

log = logging.getLogger("barrel_p2p.tracing")


def propagate(node: Node, on: bool = True) -> None:
    """Send the current OpenTelemetry context along with what processes of ``node`` send, and enter what comes.

    It is entered by servers for ``handle_call`` and ``handle_cast``, and by exported functions for the whole call. The
    propagators are those set in OpenTelemetry (W3C trace context and baggage by default). Peers that are let in may
    name any trace: what they say is for looking at, never for deciding.

    Raises:
        ConfigError: ``opentelemetry-api`` is not installed.
    """
    if not on:
        node.propagation.headers = node.propagation.within = None
        return
    try:
        import opentelemetry.context as context
        import opentelemetry.propagate as propagators
    except ImportError as error:
        raise ConfigError("propagate() needs OpenTelemetry: pip install 'barrel-p2p[otel]'") from error

    def headers() -> Headers:
        found: Headers = {}
        try:
            propagators.inject(found)
        except Exception:  # a propagator's fault is no reason not to send
            log.exception("OpenTelemetry could not give the headers of a trace")
            return {}
        return {str(name): str(value) for name, value in found.items()}

    @contextmanager
    def within(found: Headers) -> Iterator[None]:
        try:
            token = context.attach(propagators.extract(found))
        except Exception:
            log.exception("OpenTelemetry could not read the headers of a trace")
            yield
            return
        try:
            yield
        finally:
            context.detach(token)

    node.propagation.headers, node.propagation.within = headers, within


__all__ = ["propagate"]
