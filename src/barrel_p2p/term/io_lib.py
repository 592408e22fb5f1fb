"""Terms and formats as Erlang writes them: ``~w``, ``~p`` and the other directives of ``io_lib:format``.

Another node may ask for text in this form (``io:format`` sends the format and its arguments, not the text), so nothing
here runs foreign code, and every text has a limit: past it comes ``...``. Departures from OTP: ``~p`` never breaks
lines (as ``~0p``), ``~tp`` takes all of Unicode for printable (as ``erl +pc unicode``), pids and references show the
name of their node, and ``~P`` and ``~W`` cut by depth alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from barrel_p2p.shown import shown

from .types import Atom, BitString, Export, ImproperList

MAX_DEPTH: Final = 200  # levels that are written; each is a frame of Python's stack
MAX_TEXT: Final = 1 << 20  # characters of one text; a guess: far above what people read

_PLAIN_ATOM = re.compile(r"[a-zß-öø-ÿ][A-Za-z0-9_@À-ÖØ-öø-ÿ]*")
_RESERVED = re.compile(
    "after|and|andalso|band|begin|bnot|bor|bsl|bsr|bxor|case|catch|cond|div|end|fun|if|let|not|of|or|orelse|receive|"
    "rem|try|when|xor"
)
_ESCAPES = {8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 27: "\\e", 92: "\\\\"}
_NAMES: dict[Any, str] = {None: "undefined", True: "true", False: "false"}
_DIRECTIVE = re.compile(r"~(-?\d+|\*)?(?:\.(-?\d+|\*)?(?:\.(\*|.))?)?([tlkK]*)(.)", re.DOTALL)


class _Full(Exception):
    """The text has reached its limit."""


class _Text:
    """A text under construction, with a limit."""

    __slots__ = ("left", "parts")

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.parts: list[str] = []

    def add(self, text: str) -> None:
        if len(text) > self.left:
            self.parts.append(text[: self.left])
            self.left = 0
            raise _Full
        self.left -= len(text)
        self.parts.append(text)


def write(term: Any, *, strings: bool = False, unicode: bool = False, limit: int = MAX_TEXT, depth: int = -1) -> str:
    """A term as ``~w`` shows it, or with ``strings`` as ``~p``: lists of printable characters as texts.

    Args:
        unicode: the ``t`` of ``~tw`` and ``~tp``: characters past Latin-1 are shown as they are.
        limit: characters, then ``...``.
        depth: levels to show (``~W``, ``~P``); -1 for all.
    """
    text = _Text(limit)
    try:
        _write(text, term, strings, unicode, depth if 0 <= depth < MAX_DEPTH else MAX_DEPTH)
    except _Full:
        text.parts.append("...")
    return "".join(text.parts)


def format(form: Any, args: Sequence[Any], *, limit: int = MAX_TEXT) -> str:
    """The text of an Erlang format and its arguments.

    Raises:
        ValueError: the format has an unknown directive, or the arguments don't fit it (``badarg`` in Erlang).
    """
    source = form if isinstance(form, str) else chars(form, limit=limit)
    text = _Text(limit)
    left = list(reversed(args))
    position = 0
    try:
        while (tilde := source.find("~", position)) >= 0:
            text.add(source[position:tilde])
            match = _DIRECTIVE.match(source, tilde)
            if match is None:
                raise ValueError("a format must not end within a directive")
            text.add(_directive(match, left, text.left))
            position = match.end()
        text.add(source[position:])
    except _Full:
        text.parts.append("...")
        return "".join(text.parts)
    except IndexError:
        raise ValueError("the format asks for more arguments than there are") from None
    except (TypeError, OverflowError) as error:
        raise ValueError(f"an argument does not fit its directive: {error}") from None
    if left:
        raise ValueError(f"{len(left)} arguments are left over")
    return "".join(text.parts)


def chars(data: Any, *, latin1: bool = False, limit: int = MAX_TEXT) -> str:
    """The text of Erlang's chardata: a binary, or a deep list of characters and binaries.

    Raises:
        ValueError: it is none.
    """
    text = _Text(limit)
    todo = [data]
    try:
        while todo:
            item = todo.pop()
            if isinstance(item, list):
                head = item[: text.left + 1]  # no more of a long one will be shown, nor should it be looked at
                if _all_chars(head):
                    text.add("".join(map(chr, head)))
                else:
                    todo += reversed(item)
            elif isinstance(item, ImproperList):
                todo.append(item.tail)
                todo += reversed(item.elements)
            elif isinstance(item, bytes):
                text.add(item[: 4 * text.left + 4].decode("latin-1" if latin1 else "utf-8", "replace"))
            elif type(item) is int and _is_char(item):
                text.add(chr(item))
            elif isinstance(item, str) and not isinstance(item, Atom):
                text.add(item)
            else:
                raise ValueError(f"{shown(item, 100)} is no text")
    except _Full:
        text.parts.append("...")
    return "".join(text.parts)


# --- terms ------------------------------------------------------------------------------------------------------------


def _write(text: _Text, term: Any, strings: bool, unicode: bool, depth: int) -> None:
    """One level of a term; calls itself for the items, so that a level takes one frame."""
    if depth <= 0:
        text.add("...")
    elif term is None or isinstance(term, bool):
        text.add(_NAMES[term])
    elif isinstance(term, Atom):
        text.add(_atom(term, unicode))
    elif isinstance(term, int):
        text.add(str(term) if term.bit_length() < 10_000 else f"16#{term:X}")  # str() of a long one takes for ever
    elif isinstance(term, float):
        text.add(_float(term))
    elif isinstance(term, str):
        _write_binary(text, term.encode("utf-8", "replace"), strings, unicode)
    elif isinstance(term, (bytes, bytearray)):
        _write_binary(text, bytes(term[: text.left + 1]), strings, unicode)
    elif isinstance(term, BitString):
        text.add("<<" + "".join(f"{byte}," for byte in term.data[: text.left][:-1]))
        text.add(f"{term.data[-1] >> (8 - term.bits)}:{term.bits}>>")
    elif isinstance(term, (tuple, list, ImproperList)):
        if strings and isinstance(term, list) and term and _is_text(term[: text.left + 1], unicode):
            text.add(_quote(term[: text.left + 1], '"', unicode))
            return
        items: Any = term.elements if isinstance(term, ImproperList) else term
        opening, closing = "{}" if isinstance(term, tuple) else "[]"
        text.add(opening)
        comma = ""
        for item in items:
            text.add(comma)
            comma = ","
            _write(text, item, strings, unicode, depth - 1)
        if isinstance(term, ImproperList):
            text.add("|")
            _write(text, term.tail, strings, unicode, depth - 1)
        text.add(closing)
    elif isinstance(term, Mapping):
        text.add("#{")
        comma = ""
        for key, value in term.items():
            text.add(comma)
            comma = ","
            _write(text, key, strings, unicode, depth - 1)
            text.add(" => ")
            _write(text, value, strings, unicode, depth - 1)
        text.add("}")
    elif isinstance(term, Export):
        text.add(f"fun {_atom(term.module, unicode)}:{_atom(term.function, unicode)}/{term.arity}")
    else:
        text.add(repr(term)[:1000])  # pids, references, funs; or a value of Python's own


def _write_binary(text: _Text, data: bytes, strings: bool, unicode: bool) -> None:
    if strings and data:
        if unicode and (decoded := _printable_utf8(data)) is not None:
            suffix = "" if decoded.isascii() else "/utf8"
            text.add("<<" + _quote(map(ord, decoded), '"', True) + suffix + ">>")
            return
        if _is_text(data, False):
            text.add("<<" + _quote(data, '"', unicode) + ">>")
            return
    text.add("<<" + ",".join(map(str, data)) + ">>")


def _printable_utf8(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if all(_is_printable(ord(char), True) for char in text) else None


def _atom(name: str, unicode: bool) -> str:
    if _PLAIN_ATOM.fullmatch(name) and not _RESERVED.fullmatch(name):
        return name
    return _quote(map(ord, name), "'", unicode)


def _quote(codes: Any, mark: str, unicode: bool) -> str:
    out = [mark]
    for code in codes:
        if code in _ESCAPES:
            out.append(_ESCAPES[code])
        elif code == ord(mark):
            out.append("\\" + mark)
        elif code < 32 or code == 127:
            out.append(f"\\{code:03o}" if code != 127 else "\\d")
        elif 128 <= code < 160:
            out.append(f"\\{code:o}")
        elif code > 255 and not unicode:
            out.append(f"\\x{{{code:X}}}")
        else:
            out.append(chr(code))
    out.append(mark)
    return "".join(out)


def _float(value: float) -> str:
    """The shortest text that reads back as ``value``, in the shorter of the two notations."""
    digits, _, exponent = f"{value!r}".partition("e")
    sign = "-" if digits.startswith("-") else ""
    whole, _, fraction = digits.lstrip("-").partition(".")
    fraction = "" if fraction == "0" and not exponent else fraction
    power = int(exponent or 0) + len(whole) - 1
    significant = (whole + fraction).lstrip("0")
    if not significant:
        return sign + "0.0"
    power -= len(whole + fraction) - len((whole + fraction).lstrip("0"))
    significant = significant.rstrip("0")
    scientific = f"{significant[0]}.{significant[1:] or '0'}e{power}"
    if power < 0:
        plain = "0." + "0" * (-power - 1) + significant
    else:
        padded = significant.ljust(power + 1, "0")
        plain = f"{padded[: power + 1]}.{padded[power + 1 :] or '0'}"
    return sign + (plain if len(plain) <= len(scientific) and abs(value) < 2**53 else scientific)


def _is_printable(code: int, unicode: bool) -> bool:
    if code < 256:
        return 32 <= code < 127 or code >= 160 or 8 <= code <= 13 or code == 27
    return unicode and (code < 0xD800 or 0xDFFF < code < 0xFFFE or 0xFFFF < code <= 0x10FFFF)


def _is_text(items: Any, unicode: bool) -> bool:
    return all(type(code) is int and code >= 0 and _is_printable(code, unicode) for code in items)


def _is_char(code: int) -> bool:
    return 0 <= code < 0xD800 or 0xDFFF < code <= 0x10FFFF


def _all_chars(items: list[Any]) -> bool:
    return all(type(code) is int and _is_char(code) for code in items)


# --- directives -------------------------------------------------------------------------------------------------------


def _directive(match: re.Match[str], args: list[Any], room: int) -> str:
    """The text of one directive; takes its arguments from the end of ``args``."""
    width = _number(match[1], args)
    precision = _number(match[2], args)
    pad = " " if match[3] is None else chr(args.pop()) if match[3] == "*" else match[3]
    modifiers, what = match[4], match[5]
    unicode = "t" in modifiers
    left_aligned = width is not None and width < 0
    field = None if width is None else min(abs(width), room + 1)
    if precision is not None:
        precision = min(precision, room + 1)
    if what == "~":
        return "~"
    if what == "n":
        return "\n" * (1 if field is None else field)
    term = args.pop()
    if what == "i":
        return ""
    if what == "c":
        code = term if unicode else term & 255
        if not _is_char(code):
            raise ValueError(f"{code} is no character")
        text = chr(code) * (precision if precision is not None else field or 1)
        return _pad(text, field, pad, left_aligned, None)
    if what == "s":
        source = str(term) if isinstance(term, Atom) else _NAMES.get(term) if _is_name(term) else None
        text = chars(term, latin1=not unicode, limit=room + 1) if source is None else source
        if not unicode and any(code > "\xff" for code in text):
            raise ValueError("~s takes Latin-1 only, ~ts any text")
        if precision is None:
            return _pad(text[:field], field, pad, left_aligned, None)
        text = _pad(text[:precision], precision, pad, left_aligned, None)
        return _pad(text[:field], field, pad, left_aligned, None)
    if what in "wpWP":
        depth = args.pop() if what in "WP" else -1
        text = write(term, strings=what in "pP", unicode=unicode, limit=room + 1, depth=depth)
        if what in "pP":
            return text
        return _pad(text, field, pad, left_aligned, precision)
    return _pad(_numeric(what, term, precision, args), field, pad, left_aligned, None)


def _numeric(what: str, term: Any, precision: int | None, args: list[Any]) -> str:
    if what in "feg":
        value = float(term)
        digits = min(6 if precision is None else precision, 250)
        if what == "f":
            return f"{value:.{digits}f}"
        if what == "e":
            mantissa, exponent = f"{value:.{max(digits - 1, 1)}e}".split("e")
            return f"{mantissa}e{int(exponent):+d}"
        if not 0.1 <= abs(value) < 10_000:
            return _numeric("e", value, precision, args)
        places = sum(abs(value) >= power for power in (1, 10, 100, 1000))  # digits before the point count
        return f"{value:.{max(digits - places, 1)}f}"
    if what in "bBxX+#":
        if type(term) is not int:
            raise ValueError(f"~{what} takes an integer, not {shown(term, 100)}")
        base = 10 if precision is None else precision
        prefix = f"{base}#" if what in "+#" else ""
        if what in "xX":
            given = args.pop()
            prefix = str(given) if isinstance(given, Atom) else chars(given)
        digits_ = _in_base(abs(term), base)
        sign = "-" if term < 0 else ""
        return sign + prefix + (digits_ if what in "BX#" else digits_.lower())
    raise ValueError(f"there is no directive ~{what}")


def _in_base(number: int, base: int) -> str:
    if not 2 <= base <= 36:
        raise ValueError(f"no base {base}, only 2 to 36")
    if number.bit_length() > 10_000:
        raise ValueError("the number is too long to be written")
    digits = ""
    while number or not digits:
        number, digit = divmod(number, base)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + digits
    return digits


def _number(text: str | None, args: list[Any]) -> int | None:
    if text is None:
        return None
    number = args.pop() if text == "*" else int(text[:9])
    if type(number) is not int:
        raise ValueError(f"{shown(number, 100)} is no width")
    return number


def _is_name(term: Any) -> bool:
    return term is None or isinstance(term, bool)


def _pad(text: str, field: int | None, pad: str, left_aligned: bool, precision: int | None) -> str:
    """Fill a text up to its field; one that is too long becomes stars."""
    if precision is not None:
        text = text.rjust(precision, pad) if len(text) <= precision else "*" * precision
    if field is None:
        return text
    if len(text) > field:
        return "*" * field
    return text.ljust(field, pad) if left_aligned else text.rjust(field, pad)


__all__ = ["MAX_TEXT", "chars", "format", "write"]
