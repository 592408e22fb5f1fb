"""A foreign peer for tests: a node as an Erlang node with upstream's carrier looks from outside, on aioquic.

It shares no code with the library's own carrier, authentication and handshake, so a mistake that both ends of our
own make shows here. It has upstream's habits and limits on purpose, also the awkward ones; what it can't stand lands
in ``Link.broken``.

::

    async with ForeignNode("erl@127.0.0.1", cookie="secret") as erl:
        link = await erl.dial("alice@127.0.0.1", ("127.0.0.1", port))  # or: erl.listen(), then erl.accepted()
        link.send((2, Atom(""), pid), "hello")                         # SEND
        control, message = await link.recv_message()
        link.disconnect()                                              # in silence, as Erlang does it

Only ``terms`` are the library's: the reference codec in plain Python, which has tests of its own.
"""

from __future__ import annotations

from .behaviour import ERLANG_FLAGS, FRAGMENTS, Behaviour
from .link import NO_MESSAGE, Link
from .node import ForeignNode
from .wire import ForeignError

__all__ = ["ERLANG_FLAGS", "FRAGMENTS", "NO_MESSAGE", "Behaviour", "ForeignError", "ForeignNode", "Link"]
