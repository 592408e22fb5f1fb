"""The Python values of Erlang's own types.

Erlang has more types than Python: atoms, pids, ports, references, bit strings, improper lists, exports and
funs. Each has one small immutable class here; everything else is a plain Python value (the table stands in
``docs/reference/terms.md``).

A pid or reference is compared and hashed by its encoding ``_etf``, which the codec also sends as it is.
Whichever side is missing, the encoding or a number, is made from the other when it is first asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from struct import Struct, pack, unpack_from
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p.shown import printable

#: How ``Pid.send`` sends; set by the process layer, which terms must not import.
send_hook: Callable[[Any, Any], None] | None = None


class Atom(str):
    """An Erlang atom: a name that stands for itself.

    ``Atom("ok") == "ok"`` holds, so patterns stay readable; on the wire an ``Atom`` is an atom and a ``str``
    a binary.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Atom({str.__repr__(self)})"


class Pid:
    """The address of a process: ``node`` names the node it lives on.

    ``id``, ``serial`` and ``creation`` are the numbers of the external term format (32 bits each).
    """

    __slots__ = ("_etf", "creation", "id", "node", "serial")

    if TYPE_CHECKING:
        _etf: bytes

    def __init__(self, node: Atom, id: int, serial: int, creation: int) -> None:
        self.node: Final = node
        self.id: Final = id
        self.serial: Final = serial
        self.creation: Final = creation

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "_etf":
                raise AttributeError(name)
            self._etf = b"X" + atom_etf(self.node) + pack(">III", self.id, self.serial, self.creation)
            return self._etf

    def send(self, message: Any) -> None:
        """Send a message to this process: the same as ``send(pid, message)``."""
        if send_hook is None:
            raise RuntimeError("import barrel_p2p before sending to a pid")
        send_hook(self, message)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Pid):
            return NotImplemented
        return self._etf == other._etf

    def __hash__(self) -> int:
        return hash(self._etf)

    def __repr__(self) -> str:
        return f"<{printable(self.node)}.{self.id}.{self.serial}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Pid, (self.node, self.id, self.serial, self.creation))


class Port:
    """An Erlang port, only ever received from Erlang nodes. ``id`` has 64 bits, ``creation`` 32."""

    __slots__ = ("creation", "id", "node")

    def __init__(self, node: Atom, id: int, creation: int) -> None:
        self.node: Final = node
        self.id: Final = id
        self.creation: Final = creation

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Port):
            return NotImplemented
        return (self.node, self.id, self.creation) == (other.node, other.id, other.creation)

    def __hash__(self) -> int:
        return hash((self.node, self.id, self.creation, "port"))

    def __repr__(self) -> str:
        return f"#Port<{printable(self.node)}.{self.id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Port, (self.node, self.id, self.creation))


class Reference:
    """A unique value of a node: ``ids`` are its one to five 32-bit words, most significant last as on the
    wire.
    """

    __slots__ = ("_etf", "creation", "ids", "node")

    if TYPE_CHECKING:
        _etf: bytes

    def __init__(self, node: Atom, creation: int, ids: tuple[int, ...]) -> None:
        self.node: Final = node
        self.creation: Final = creation
        self.ids: Final = ids

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name == "_etf":
                ids = self.ids
                if not 1 <= len(ids) <= 5:
                    raise ValueError(f"a Reference has 1 to 5 ids, not {len(ids)}")
                words = pack(f">I{len(ids)}I", self.creation, *ids)
                self._etf = b"Z" + pack(">H", len(ids)) + atom_etf(self.node) + words
            elif name in ("creation", "ids"):
                etf = object.__getattribute__(self, "_etf")
                count = etf[2]
                self.creation, *ids = unpack_from(f">I{count}I", etf, len(etf) - 4 - 4 * count)
                self.ids = tuple(ids)
            else:
                raise AttributeError(name)
            return object.__getattribute__(self, name)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Reference):
            return NotImplemented
        return self._etf == other._etf

    def __hash__(self) -> int:
        return hash(self._etf)

    def __repr__(self) -> str:
        return f"#Ref<{printable(self.node)}.{'.'.join(map(str, reversed(self.ids)))}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Reference, (self.node, self.creation, self.ids))


def reference_maker(node: Atom, creation: int) -> Callable[[tuple[int, ...]], Reference]:
    """What makes the references of one life of a node, with their encoding, which would cost more to make later."""
    head = b"Z" + pack(">H", 3) + atom_etf(node) + pack(">I", creation)
    words = Struct(">III").pack
    new = Reference.__new__

    def make(ids: tuple[int, ...]) -> Reference:
        reference = new(Reference)
        reference.node, reference.creation, reference.ids = node, creation, ids  # type: ignore[misc]
        reference._etf = head + words(*ids)
        return reference

    return make


class BitString:
    """A bit string whose length is no multiple of 8: ``bits`` (1 to 7) counts the used high bits of the last
    byte.
    """

    __slots__ = ("bits", "data")
    has_parts = True  # ``shown`` looks into it

    def __init__(self, data: bytes, bits: int) -> None:
        if not data or not 1 <= bits <= 7:
            raise ValueError("a BitString needs at least one byte and 1 to 7 bits used in its last byte")
        self.data: Final = data[:-1] + bytes([data[-1] & (0xFF00 >> bits) & 0xFF])
        self.bits: Final = bits

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BitString):
            return NotImplemented
        return self.bits == other.bits and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.data, self.bits))

    def __repr__(self) -> str:
        return f"BitString({self.data!r}, {self.bits})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (BitString, (self.data, self.bits))


class ImproperList:
    """A list whose tail is no list, such as ``[alias|Ref]``: there are ``elements``, ``tail`` is no list."""

    __slots__ = ("elements", "tail")
    has_parts = True  # ``shown`` looks into it

    def __init__(self, elements: tuple[Any, ...], tail: Any) -> None:
        if not elements or isinstance(tail, (list, ImproperList)):
            raise ValueError("an ImproperList needs an element and a tail that is no list")
        self.elements: Final = tuple(elements)
        self.tail: Final = tail

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImproperList):
            return NotImplemented
        return self.elements == other.elements and bool(self.tail == other.tail)

    def __hash__(self) -> int:
        return hash((self.elements, self.tail))

    def __repr__(self) -> str:
        return f"ImproperList({self.elements!r}, {self.tail!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (ImproperList, (self.elements, self.tail))


class Export:
    """``fun Module:Function/Arity``."""

    __slots__ = ("arity", "function", "module")

    def __init__(self, module: Atom, function: Atom, arity: int) -> None:
        self.module: Final = module
        self.function: Final = function
        self.arity: Final = arity

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Export):
            return NotImplemented
        return (self.module, self.function, self.arity) == (other.module, other.function, other.arity)

    def __hash__(self) -> int:
        return hash((self.module, self.function, self.arity))

    def __repr__(self) -> str:
        return printable(f"fun {self.module}:{self.function}/{self.arity}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Export, (self.module, self.function, self.arity))


class Fun:
    """A closure of an Erlang node, opaque: it can be held, compared and sent back, never run. ``data`` is its
    encoding.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data: Final = data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fun):
            return NotImplemented
        return self.data == other.data

    def __hash__(self) -> int:
        return hash((self.data, "fun"))

    def __repr__(self) -> str:
        return f"#Fun<{len(self.data)} bytes>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Fun, (self.data,))


@functools.lru_cache(maxsize=1024)
def atom_etf(name: str) -> bytes:
    """The encoding of the atom ``name``; ValueError if there is no such atom."""
    text = name.encode()
    if len(name) > 255:
        raise ValueError("atom of more than 255 characters")
    return (b"w" + bytes([len(text)]) if len(text) < 256 else b"v" + pack(">H", len(text))) + text


__all__ = [
    "Atom",
    "BitString",
    "Export",
    "Fun",
    "ImproperList",
    "Pid",
    "Port",
    "Reference",
    "atom_etf",
    "reference_maker",
]
