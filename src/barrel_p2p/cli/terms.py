"""Values on the command line: JSON, and short forms for what JSON lacks. What is printed can be given back.

============================  ==================================================
``1``, ``2.5``, ``"text"``     as in JSON; ``null`` is ``None``, which is ``undefined`` in Erlang
``[1, 2]``, ``{"a": 1}``       a list, a map; any value may be a key of a map
``:ok``, ``:"two words"``      an atom
``(1, :ok)``                   a tuple
``b"raw"``                     a binary of bytes; in it ``\\xff`` stands for one byte
============================  ==================================================

Pids, references and other values that only a node can make are printed in Erlang's way and can't be given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from barrel_p2p.term.types import Atom

MAX_DEPTH = 100  # nesting of a value on the command line; a guess, far above what anybody types

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r":([a-zA-Z_][\w@.]*[?!]?)")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLAIN_ATOM = re.compile(r"[a-zA-Z_][\w@.]*[?!]?")
_WORDS: dict[str, Any] = {"null": None, "true": True, "false": False}
_BYTE_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "0": b"\0", '"': b'"', "\\": b"\\"}


def parse(text: str) -> Any:
    """The value that ``text`` stands for. Raises ValueError saying what is wrong and where."""
    value, end = _value(text, _skip(text, 0), 0)
    end = _skip(text, end)
    if end != len(text):
        raise ValueError(f"{text[end:]!r:.40} is left over after the value")
    return value


def show(value: Any, width: int = 100, indent: int = 0) -> str:
    """``value`` for people: on one line if it fits in ``width`` characters, else over several."""
    flat = _flat(value)
    if len(flat) + indent <= width or not isinstance(value, (list, tuple, Mapping)) or not value:
        return flat
    if isinstance(value, Mapping):
        opening, closing = "{", "}"
        parts = []
        for key, item in value.items():
            label = f"{_flat(key)}: "
            parts.append(label + show(item, width, indent + 2 + len(label)))
    else:
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        parts = [show(item, width, indent + 2) for item in value]
    inner = " " * (indent + 2)
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"{comma}\n{' ' * indent}{closing}"


def as_json(value: Any) -> str:
    """``value`` as JSON for programs: atoms and binaries become texts, tuples lists, keys and all others texts."""
    return _dumped(_plain(value))


# --- writing ----------------------------------------------------------------------------------------------------------


def _flat(value: Any) -> str:
    match value:
        case None | bool() | int() | float():
            return _dumped(value)
        case Atom():
            return f":{value}" if _PLAIN_ATOM.fullmatch(value) else ":" + _dumped(value)
        case str():
            return _dumped(value)
        case bytes():
            return 'b"' + "".join(map(_byte, value)) + '"'
        case list():
            return "[" + ", ".join(map(_flat, value)) + "]"
        case tuple():
            return "(" + ", ".join(map(_flat, value)) + ("," if len(value) == 1 else "") + ")"
        case Mapping():
            return "{" + ", ".join(f"{_flat(key)}: {_flat(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _dumped(value: Any) -> str:
    """JSON in which all that a terminal might obey is escaped: ``json`` leaves what is not ASCII as it is."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _byte(byte: int) -> str:
    char = chr(byte)
    if char in '"\\':
        return "\\" + char
    return char if 32 <= byte < 127 else f"\\x{byte:02x}"


def _plain(value: Any) -> Any:
    match value:
        case Atom():
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case list() | tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {_key(key): _plain(item) for key, item in value.items()}
    return repr(value)


def _key(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else _flat(key)


# --- reading ----------------------------------------------------------------------------------------------------------


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels of brackets")
    head = text[at : at + 1]
    if head in ("[", "("):
        closing = "]" if head == "[" else ")"
        items, end = _items(text, at + 1, closing, depth)
        return (items if head == "[" else tuple(items)), end
    if head == "{":
        return _map(text, at + 1, depth)
    if head == '"':
        return _string(text, at)
    if head == ":":
        return _atom(text, at)
    if head == "b" and text[at + 1 : at + 2] == '"':
        return _bytes(text, at + 1)
    for word, value in _WORDS.items():
        if text.startswith(word, at) and not text[at + len(word) : at + len(word) + 1].isalnum():
            return value, at + len(word)
    number = _NUMBER.match(text, at)
    if number is not None:
        is_float = number[1] is not None or number[2] is not None
        return (float(number[0]) if is_float else int(number[0])), number.end()
    if at >= len(text):
        raise ValueError("the value ends too early")
    raise ValueError(f'no value begins with {text[at:]!r:.40}; a text stands in quotes ("..."), an atom after a colon')


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _items(text: str, at: int, closing: str, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    at = _skip(text, at)
    while not text.startswith(closing, at):
        value, at = _value(text, at, depth + 1)
        items.append(value)
        at = _comma(text, at, closing)
    return items, at + 1


def _map(text: str, at: int, depth: int) -> tuple[dict[Any, Any], int]:
    found: dict[Any, Any] = {}
    at = _skip(text, at)
    while not text.startswith("}", at):
        key, at = _value(text, at, depth + 1)
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise ValueError(f"':' is missing after the key {_flat(key)}")
        value, at = _value(text, _skip(text, at + 1), depth + 1)
        try:
            found[key] = value
        except TypeError:
            raise ValueError(f"{_flat(key)} can't be a key: lists and maps can't, tuples of plain values can") from None
        at = _comma(text, at, "}")
    return found, at + 1


def _comma(text: str, at: int, closing: str) -> int:
    at = _skip(text, at)
    if text.startswith(",", at):
        return _skip(text, at + 1)
    if not text.startswith(closing, at):
        found = f"not {text[at]!r}" if at < len(text) else "but the value ends"
        raise ValueError(f"',' or {closing!r} is expected at character {at + 1}, {found}")
    return at


def _string(text: str, at: int) -> tuple[str, int]:
    match = _STRING.match(text, at)
    if match is None:
        raise ValueError(f"the text that begins with {text[at : at + 20]!r} has no closing quote")
    try:
        return str(json.loads(match[0], strict=False)), match.end()
    except json.JSONDecodeError as error:
        raise ValueError(f"{match[0]!r:.40} is no JSON text: {error.msg}") from None


def _atom(text: str, at: int) -> tuple[Atom, int]:
    if text.startswith('"', at + 1):
        name, end = _string(text, at + 1)
    else:
        match = _WORD.match(text, at)
        if match is None:
            raise ValueError(f'{text[at : at + 20]!r} is no atom: write :name or :"any text"')
        name, end = match[1], match.end()
    if len(name) > 255:
        raise ValueError("an atom has at most 255 characters")
    return Atom(name), end


def _bytes(text: str, at: int) -> tuple[bytes, int]:
    match = _STRING.match(text, at)
    if match is None:
        raise ValueError(f"the binary that begins with {text[at : at + 20]!r} has no closing quote")
    body, out, i = match[0][1:-1], bytearray(), 0
    while i < len(body):
        if body[i] != "\\":
            out += body[i].encode()
            i += 1
        elif body[i + 1] == "x" and re.fullmatch("[0-9a-fA-F]{2}", body[i + 2 : i + 4]):
            out.append(int(body[i + 2 : i + 4], 16))
            i += 4
        elif body[i + 1] in _BYTE_ESCAPES:
            out += _BYTE_ESCAPES[body[i + 1]]
            i += 2
        else:
            raise ValueError(f"{body[i : i + 4]!r} in a binary means nothing; there are \\xff, \\n, \\r, \\t, \\0")
    return bytes(out), match.end()


__all__ = ["as_json", "parse", "show"]
