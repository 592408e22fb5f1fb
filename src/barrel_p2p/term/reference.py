"""The external term format in plain Python: the readable twin of the native codec.

It has the same limits and raises the same errors; a property test holds the two equal. Nothing in the package
uses it. The format is "External Term Format" of the Erlang/OTP documentation; where that page is silent,
``binary_to_term/1`` of OTP 27 decides. Section numbers would age, so each branch names the tag as the page
does.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from typing import Any

from barrel_p2p.errors import DecodeError, EncodeError
from barrel_p2p.term.maps import TermMap
from barrel_p2p.term.types import Atom, BitString, Export, Fun, ImproperList, Pid, Port, Reference, atom_etf

MAX_INTEGER_BYTES = 65_535 * 8  # OTP 26 and later hold 65,535 words of 64 bits
OLD_FLOAT = re.compile(rb"[+-]?[0-9]+[.,][0-9]+([eE][+-]?[0-9]+)?")


class ReferenceCodec:
    """The same options and methods as :class:`barrel_p2p.term.codec.Codec`, without its caches."""

    def __init__(
        self,
        *,
        none_atom: str = "undefined",
        max_depth: int = 512,
        max_bytes: int = 64 << 20,
        exact_empty_str: bool = False,
    ) -> None:
        self.none_atom = none_atom
        self.max_depth = max_depth
        self.max_bytes = max_bytes
        self.exact_empty_str = exact_empty_str
        self.constants: dict[str, bool | None] = {"true": True, "false": False, none_atom: None}

    def encode(self, term: Any) -> bytes:
        writer = _Writer(self)
        try:
            writer.term(term, self.max_depth)
        except RecursionError:
            raise EncodeError("nested deeper than Python's own stack") from None
        if len(writer.out) > self.max_bytes:
            raise EncodeError(f"term of {len(writer.out)} bytes exceeds max_bytes={self.max_bytes}")
        return b"\x83" + bytes(writer.out)

    def decode(self, data: bytes) -> Any:
        if data[:1] != b"\x83":
            raise DecodeError("at offset 0: an external term starts with the byte 131")
        return self.decode_prefix(data)[0]

    def decode_prefix(self, data: bytes, offset: int = 0, *, version: bool = True) -> tuple[Any, int]:
        reader = _Reader(self, data[: offset + self.max_bytes], offset)
        try:
            return (reader.versioned() if version else reader.term(self.max_depth)), reader.pos
        except RecursionError:
            raise DecodeError("nested deeper than Python's own stack") from None

    def equal_in_erlang(self, keys: list[Any]) -> bool:
        """Whether two of the keys of a map are one term: a ``str`` and the same ``bytes``, for example."""
        seen = set()
        for key in keys:
            writer = _Writer(self, canonical=True)
            writer.term(key, 2**31)
            seen.add(bytes(writer.out))
        return len(seen) < len(keys)


class _Reader:
    def __init__(self, codec: ReferenceCodec, data: bytes, pos: int) -> None:
        self.codec = codec
        self.data = data
        self.pos = pos
        self.funs = 0  # that are being read

    def fail(self, what: str) -> DecodeError:
        return DecodeError(f"at offset {self.pos}: {what}")

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.pos:
            raise self.fail("the bytes end inside a term, or it exceeds max_bytes")
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def versioned(self) -> Any:
        if self.number(1) != 131:
            raise self.fail("an external term starts with the byte 131")
        if self.data[self.pos : self.pos + 1] != b"P":
            return self.term(self.codec.max_depth)
        # COMPRESSED: inflation stops at the claimed size
        self.pos += 1
        size = self.number(4)
        if not 0 < size <= self.codec.max_bytes:
            raise self.fail("compressed term of a size that is not accepted")
        inflater = zlib.decompressobj()
        try:
            inflated = inflater.decompress(self.data[self.pos :], size)
            if not inflater.eof:  # the checksum may still be unread
                inflated += inflater.decompress(inflater.unconsumed_tail, 1)
        except zlib.error as error:
            raise self.fail(f"compressed term: {error}") from None
        if len(inflated) != size or not inflater.eof:
            raise self.fail("compressed term is not of the size it claims, or cut")
        self.pos = len(self.data) - len(inflater.unused_data)
        return _Reader(self.codec, inflated, 0).term(self.codec.max_depth)

    def term(self, room: int) -> Any:
        """One term; ``room`` levels of containers may still be inside of it. One Python frame per level."""
        tag = self.number(1)
        if tag in _CONTAINERS and room == 0:
            raise self.fail(f"nested deeper than max_depth={self.codec.max_depth}")
        match tag:
            case 97:  # SMALL_INTEGER_EXT
                return self.number(1)
            case 98:  # INTEGER_EXT
                return struct.unpack(">i", self.take(4))[0]
            case 104 | 105:  # SMALL_TUPLE_EXT, LARGE_TUPLE_EXT
                items: list[Any] = []
                for _ in range(self.count(1 if tag == 104 else 4)):
                    items.append(self.term(room - 1))  # a comprehension would be one more frame
                return tuple(items)
            case 106:  # NIL_EXT
                return []
            case 107:  # STRING_EXT
                return list(self.take(self.number(2)))
            case 108:  # LIST_EXT: a list as tail continues this one, in a loop
                items = []
                while True:
                    for _ in range(self.count(4)):
                        items.append(self.term(room - 1))
                    match self.data[self.pos : self.pos + 1]:
                        case b"l":
                            self.pos += 1
                        case b"j" | b"k":
                            return items + self.term(room - 1)
                        case _:
                            tail = self.term(room - 1)
                            return ImproperList(tuple(items), tail) if items else tail
            case 116:  # MAP_EXT
                pairs = []
                for _ in range(self.count(4)):
                    key = self.term(room - 1)
                    pairs.append((key, self.term(room - 1)))
                return self.map(pairs)
            case 112 | 117:  # NEW_FUN_EXT, FUN_EXT: kept as they are, but checked
                start = self.pos - 1
                free = self.fun_head(tag)
                self.funs += 1
                for _ in range(free):
                    self.term(room - 1)
                self.funs -= 1
                return Fun(self.data[start : self.pos])
            case _:
                return self.leaf(tag)

    def count(self, size: int) -> int:
        """The number of terms that follow: each needs a byte, so a lie is seen before anything is built for
        it.
        """
        count = self.number(size)
        if count > len(self.data) - self.pos:
            raise self.fail("the bytes end inside a term, or it exceeds max_bytes")
        return count

    def leaf(self, tag: int) -> Any:
        match tag:
            case 70:  # NEW_FLOAT_EXT
                value = struct.unpack(">d", self.take(8))[0]
                if not math.isfinite(value):
                    raise self.fail("float is not finite")
                return value
            case 99:  # FLOAT_EXT: text
                text = self.take(31).split(b"\0")[0]
                value = float(text.replace(b",", b".")) if OLD_FLOAT.fullmatch(text) else math.nan
                if not math.isfinite(value):
                    raise self.fail("FLOAT_EXT holds no finite float")
                return value
            case 110 | 111:  # SMALL_BIG_EXT, LARGE_BIG_EXT
                size = self.number(1 if tag == 110 else 4)
                negative = self.number(1)
                magnitude = self.take(size).rstrip(b"\0")
                if len(magnitude) > MAX_INTEGER_BYTES:
                    raise self.fail("integer is too large")
                number = int.from_bytes(magnitude, "little")
                return -number if negative else number
            case 100 | 115 | 118 | 119:  # ATOM_EXT, SMALL_ATOM_EXT, ATOM_UTF8_EXT, SMALL_ATOM_UTF8_EXT
                name = self.atom_text(tag)
                return self.codec.constants[name] if name in self.codec.constants else Atom(name)
            case 109:  # BINARY_EXT
                return self.take(self.number(4))
            case 77:  # BIT_BINARY_EXT; 8 bits mark the str of a Python node
                size, bits = self.number(4), self.number(1)
                data = self.take(size)
                if 1 <= bits <= 7 and data:
                    return BitString(data, bits)
                # a fun is Erlang's, and is sent again as it came: nothing that Erlang nodes refuse may be in it
                if bits == 8 and (data or (self.codec.exact_empty_str and not self.funs)):
                    try:
                        return data.decode()
                    except UnicodeDecodeError:
                        return data
                raise self.fail(f"bit string of {size} bytes with {bits} bits in the last one")
            case 88 | 103:  # NEW_PID_EXT, PID_EXT
                return self.pid(tag)
            case 89 | 102 | 120:  # NEW_PORT_EXT, PORT_EXT, V4_PORT_EXT
                node = self.name()
                id = self.number(8 if tag == 120 else 4)
                return Port(node, id, self.tiny_creation() if tag == 102 else self.number(4))
            case 101:  # REFERENCE_EXT
                node, id = self.name(), self.number(4)
                return self.old_reference(node, self.tiny_creation(), (id,))
            case 90 | 114:  # NEWER_REFERENCE_EXT, NEW_REFERENCE_EXT
                count = self.number(2)
                if not 1 <= count <= 5:
                    raise self.fail(f"reference of {count} words")
                node = self.name()
                creation = self.number(4) if tag == 90 else self.tiny_creation()
                ids = tuple([self.number(4) for _ in range(count)])
                make = Reference if tag == 90 else self.old_reference
                return make(node, creation, ids)
            case 113:  # EXPORT_EXT
                module, function, arity = self.name(), self.name(), self.plain_integer()
                if not 0 <= arity < 2**32:
                    raise self.fail("arity of an export is negative or too large")
                return Export(module, function, arity)
            case 80:
                raise self.fail("a compressed term may only stand right after the byte 131")
            case 82:
                raise self.fail("atom cache reference without a cached atom")
            case 121:
                raise self.fail("LOCAL_EXT is only for the node that made it")
        raise self.fail(f"unknown tag {tag}")

    def map(self, pairs: list[tuple[Any, Any]]) -> Any:
        if self.codec.equal_in_erlang([key for key, _ in pairs]):
            raise self.fail("duplicate key in a map")
        try:
            plain = dict(pairs)
        except TypeError:  # a key that Python can't hash
            return TermMap(pairs)
        return plain if len(plain) == len(pairs) else TermMap(pairs)

    def atom_text(self, tag: int) -> str:
        data = self.take(self.number(2 if tag in (100, 118) else 1))
        try:
            text = data.decode("latin-1" if tag in (100, 115) else "utf-8")
        except UnicodeDecodeError:
            raise self.fail("atom is no valid UTF-8") from None
        if len(text) > 255:
            raise self.fail("atom has more than 255 characters")
        return text

    def name(self) -> Atom:
        """An atom where only an atom may stand: a node called ``true`` is no truth value."""
        tag = self.number(1)
        if tag not in (100, 115, 118, 119):
            raise self.fail("expected an atom")
        return Atom(self.atom_text(tag))

    def pid(self, tag: int) -> Pid:
        node, id, serial = self.name(), self.number(4), self.number(4)
        return Pid(node, id, serial, self.tiny_creation() if tag == 103 else self.number(4))

    def tiny_creation(self) -> int:
        creation = self.number(1)
        if creation > 3:
            raise self.fail("old creation has more than 2 bits")
        return creation

    def old_reference(self, node: Atom, creation: int, ids: tuple[int, ...]) -> Reference:
        if ids[0] >> 18:
            raise self.fail("old reference whose first word has more than 18 bits")
        return Reference(node, creation, ids)

    def plain_integer(self) -> int:
        tag = self.number(1)
        if tag not in (97, 98, 110) or (tag == 110 and self.data[self.pos : self.pos + 1] > b"\7"):
            raise self.fail("expected an integer of at most 7 bytes")
        if tag == 98:
            return int(struct.unpack(">i", self.take(4))[0])
        return int(self.leaf(tag)) if tag == 110 else self.number(1)

    def fun_head(self, tag: int) -> int:
        """Everything before the free variables; returns their number."""
        if tag == 112:
            self.take(4 + 1 + 16 + 4)  # size (OTP does not look at it either), arity, uniq, index
            free = self.number(4)
            self.name()
            self.plain_integer()
            self.plain_integer()
            self.only_pid()
        else:
            free = self.number(4)
            self.only_pid()
            self.name()
            self.plain_integer()
            self.plain_integer()
        return free

    def only_pid(self) -> None:
        tag = self.number(1)
        if tag not in (88, 103):
            raise self.fail("expected a pid")
        self.pid(tag)


_CONTAINERS = frozenset((104, 105, 108, 112, 116, 117))


class _Writer:
    """``canonical``: the same bytes for all that is ``=:=`` in Erlang: text as binary, maps sorted."""

    def __init__(self, codec: ReferenceCodec, *, canonical: bool = False) -> None:
        self.codec = codec
        self.canonical = canonical
        self.out = bytearray()
        self.path: list[tuple[str, Any]] = []

    def fail(self, what: str) -> EncodeError:
        steps = [form.format(_short(key)) for form, key in self.path]
        path = "".join(steps if len(steps) <= 12 else [*steps[:8], "...", *steps[-4:]])
        return EncodeError(f"at {path}: {what}" if path else what)

    def term(self, value: Any, room: int) -> None:
        """One value; ``room`` levels of containers may still be inside of it. One Python frame per level."""
        out = self.out
        if isinstance(value, tuple):
            self.enter(room)
            out += bytes([104, len(value)]) if len(value) < 256 else struct.pack(">BI", 105, len(value))
            for i, item in enumerate(value):
                self.path.append(("[{}]", i))
                self.term(item, room - 1)
                self.path.pop()
        elif isinstance(value, list):
            if not value:
                out += b"j"
            elif not self.canonical and len(value) < 65_536 and all(map(_is_byte, value)):
                out += struct.pack(">BH", 107, len(value)) + bytes(value)
            else:
                self.enter(room)
                out += struct.pack(">BI", 108, len(value))
                for i, item in enumerate(value):
                    self.path.append(("[{}]", i))
                    self.term(item, room - 1)
                    self.path.pop()
                out += b"j"
        elif isinstance(value, ImproperList):
            self.enter(room)
            out += struct.pack(">BI", 108, len(value.elements))
            for i, item in enumerate([*value.elements, value.tail]):
                self.path.append(("[{}]" if i < len(value.elements) else ".tail", i))
                self.term(item, room - 1)
                self.path.pop()
        elif isinstance(value, (dict, TermMap)):
            self.enter(room)
            out += struct.pack(">BI", 116, len(value))
            start, pairs = len(out), []
            for key, item in value.items():
                at = len(out)
                self.path.append(("<key {}>", key))
                self.term(key, room - 1)
                self.path[-1] = ("[{}]", key)
                self.term(item, room - 1)
                self.path.pop()
                pairs.append(bytes(out[at:]))
            if self.canonical:
                out[start:] = b"".join(sorted(pairs))
            elif self.codec.equal_in_erlang(list(value)):
                raise self.fail("two keys of the map are one term in Erlang")
        else:
            self.leaf(value, room)

    def enter(self, room: int) -> None:
        if room == 0:
            limit = self.codec.max_depth
            raise self.fail(f"nested deeper than max_depth={limit} (or a container holds itself)")

    def leaf(self, value: Any, room: int) -> None:
        out = self.out
        match value:
            case None:
                out += atom_etf(self.codec.none_atom)
            case bool():
                out += atom_etf("true" if value else "false")
            case Atom():
                self.atom(value)
            case str():
                self.text(value)
            case bytes() | bytearray() | memoryview():
                data = bytes(value)
                out += struct.pack(">BI", 109, len(data)) + data
            case int():
                self.integer(int(value))
            case float():
                if not math.isfinite(value):
                    raise self.fail(f"float {value} has no Erlang form")
                out += struct.pack(">Bd", 70, value)
            case Pid() | Reference():
                try:
                    out += value._etf
                except (ValueError, struct.error) as error:
                    raise self.fail(f"{type(value).__name__} has no Erlang form: {error}") from None
            case Port():
                out += b"x"
                self.atom(value.node)
                try:
                    out += struct.pack(">QI", value.id, value.creation)
                except struct.error as error:
                    raise self.fail(f"Port has no Erlang form: {error}") from None
            case BitString():
                out += struct.pack(">BIB", 77, len(value.data), value.bits) + value.data
            case Export():
                out += b"q"
                self.atom(value.module)
                self.atom(value.function)
                if not 0 <= value.arity < 2**32:
                    raise self.fail("arity of an Export is no 32-bit number")
                self.integer(value.arity)
            case Fun():
                self.fun(value, room)
            case _:
                raise self.fail(f"{type(value).__qualname__} has no Erlang form")

    def atom(self, name: str) -> None:
        try:
            self.out += atom_etf(name)
        except UnicodeEncodeError:
            raise self.fail("atom with a surrogate has no Erlang form") from None
        except ValueError as error:
            raise self.fail(f"{error} has no Erlang form") from None

    def text(self, text: str) -> None:
        try:
            data = str.encode(text)
        except UnicodeEncodeError:
            raise self.fail("str with a surrogate has no Erlang form") from None
        if self.canonical or not (data or self.codec.exact_empty_str):
            self.out += struct.pack(">BI", 109, len(data)) + data
        else:
            self.out += struct.pack(">BIB", 77, len(data), 8) + data

    def integer(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += bytes([97, value])
        elif -(2**31) <= value < 2**31:
            self.out += struct.pack(">Bi", 98, value)
        else:
            size = (value.bit_length() + 7) // 8
            if size > MAX_INTEGER_BYTES:
                raise self.fail(f"integer of {size} bytes has no Erlang form")
            self.out += bytes([110, size]) if size < 256 else struct.pack(">BI", 111, size)
            self.out += bytes([value < 0]) + abs(value).to_bytes(size, "little")

    def fun(self, fun: Fun, room: int) -> None:
        if fun.data[:1] != b"p" and not self.canonical:
            raise self.fail("data of a Fun is no NEW_FUN_EXT")
        reader = _Reader(self.codec, fun.data, 0)
        try:
            reader.term(room)
        except DecodeError as error:
            raise self.fail(f"data of a Fun is broken: {error}") from None
        if reader.pos != len(fun.data):
            raise self.fail("data of a Fun has bytes too many")
        self.out += fun.data


def _short(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:  # such as an integer of too many digits; the error to come matters more
        return "?"
    return text if len(text) <= 60 else text[:60] + "..."


def _is_byte(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 256
