"""Terms <-> bytes: the public face of the native codec.

>>> decode(encode((Atom("ok"), [1, 2.5, "text", b"bytes"])))
(Atom('ok'), [1, 2.5, 'text', b'bytes'])
"""

from __future__ import annotations

from typing import Any

from barrel_p2p._native import Codec

_default: Codec | None = None


def encode(term: Any) -> bytes:
    """The external term of ``term``, byte for byte what ``term_to_binary/1`` of OTP 27 gives (a ``str``
    apart).

    >>> encode({Atom("a"): 1})
    b'\\x83t\\x00\\x00\\x00\\x01w\\x01aa\\x01'

    Args:
        term: any value of the table in ``docs/reference/terms.md``.

    Raises:
        EncodeError: a value in it has no exact Erlang form; the message says where it stands.
    """
    return _codec().encode(term)


def decode(data: bytes | bytearray | memoryview) -> Any:
    """The term at the start of ``data``; like ``binary_to_term/1`` it ignores bytes behind the term.

    Args:
        data: an external term: the byte 131, then the term, maybe compressed. It may come from anybody:
            depth and size are bounded (see :class:`Codec`), and no code is ever loaded.

    Raises:
        DecodeError: the bytes are no term or exceed a limit; the message says which, and at what offset.
    """
    return _codec().decode(data)


def _codec() -> Codec:
    """The codec of this module's functions. A node has its own."""
    global _default
    if _default is None:
        _default = Codec()
    return _default


__all__ = ["Codec", "decode", "encode"]
