"""Reads a table of settings off a dataclass: each field with its type, its default and the text under it."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from barrel_p2p.errors import InternalError

NONE = "none"  # the word for None in a text
_YES = {"true": True, "yes": True, "on": True, "1": True}
_NO = {"false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one type are written.

    Attributes:
        metavar: What stands for a value in a help text.
        allowed: What is allowed, to follow "must be".
        from_texts: From the texts of a variable or of the (possibly repeated) argument. Raises ValueError, with a text
            or without one.
        from_toml: From a TOML value; likewise.
        is_flag: True or false, so that the argument needs no value.
        is_many: The argument can be repeated.
    """

    metavar: str
    allowed: str
    from_texts: Callable[[list[str]], Any]
    from_toml: Callable[[Any], Any]
    is_flag: bool = False
    is_many: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """One option: its name, how its values are written, its default and its description (with rst's ``quotes``)."""

    name: str
    kind: Kind
    default: Any
    description: str

    @property
    def argument(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "BARREL_" + self.name.upper()

    def text(self, quote: str) -> str:
        """The description for readers who write ``none`` for None, with ``quote`` around what is code."""
        return re.sub(r"(?<!`)\bNone\b", NONE, self.description).replace("``", quote)

    @property
    def default_text(self) -> str:
        """The default as it would be written; empty where it is nothing at all."""
        if self.default is None:
            return NONE
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return "" if self.default in ((), {}) else str(self.default)


def settings_of(cls: type) -> tuple[Setting, ...]:
    """The table of a dataclass. Fields that hold functions can be set from Python alone; they are left out."""
    hints = get_type_hints(cls)
    described = _texts_under_fields(cls)
    found = []
    for field in fields(cls):
        kind = _kind(hints[field.name])
        if kind is not None:
            found.append(Setting(field.name, kind, _default(field), described.get(field.name, "")))
    return tuple(found)


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def _texts_under_fields(cls: type) -> dict[str, str]:
    """The string literals that follow the fields in the source; empty where there is no source to read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    texts = {}
    for statement, following in pairwise(body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            texts[statement.target.id] = " ".join(str(following.value.value).split())
    return texts


# --- the kinds of values ----------------------------------------------------------------------------------------------


def _kind(hint: Any) -> Kind | None:
    """The kind of a type, or None for functions. A type that has none is a bug: the table must not hide an option."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is collections.abc.Callable:
        return None
    if origin in (Union, types.UnionType):
        return _union(args)
    if origin is Literal:
        return _choice(tuple(map(str, args)))
    if hint is bool:
        return _BOOLEAN
    if hint is int:
        return _NUMBER
    if hint is str:
        return _TEXT
    if origin is tuple and args == (str, ...):
        return _LIST
    if origin is collections.abc.Mapping and args == (str, tuple[str, int]):
        return _ADDRESSES
    raise InternalError(f"an option of type {hint} can't be written as text: give node/settings.py a kind for it")


def _union(args: tuple[Any, ...]) -> Kind | None:
    rest = tuple(arg for arg in args if arg is not type(None))
    if set(rest) == {str, Path}:
        kind: Kind | None = Kind("PATH", "a path", lambda texts: Path(_filled(texts)), lambda value: Path(_text(value)))
    elif len(rest) == 1:
        kind = _kind(rest[0])
    else:
        raise InternalError(f"an option of type {args} can't be written as text: give node/settings.py a kind for it")
    return kind if kind is None or len(rest) == len(args) else _or_none(kind)


def _or_none(kind: Kind) -> Kind:
    return Kind(
        kind.metavar,
        f"{kind.allowed}, or {NONE}",
        lambda texts: None if texts[-1] == NONE else kind.from_texts(texts),
        lambda value: None if value == NONE else kind.from_toml(value),
        kind.is_flag,
        kind.is_many,
    )


def _choice(words: tuple[str, ...]) -> Kind:
    def check(word: Any) -> str:
        if word not in words:
            raise ValueError
        return str(word)

    allowed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    return Kind("|".join(words), allowed, lambda texts: check(texts[-1]), check)


def _filled(texts: list[str]) -> str:
    return _text(texts[-1])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    if not value:
        raise ValueError("must not be empty")
    return value


def _boolean_of(texts: list[str]) -> bool:
    word = texts[-1].lower()
    if word not in _YES | _NO:
        raise ValueError
    return word in _YES


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _number_of(texts: list[str]) -> int:
    try:
        return int(texts[-1])
    except ValueError:
        raise ValueError from None  # int's own text says nothing to a user


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value


def _list_of(texts: list[str]) -> tuple[str, ...]:
    return tuple(part for text in texts for part in map(str.strip, text.split(",")) if part)


def _list(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ValueError
    return tuple(value)


def _addresses_of(texts: list[str]) -> dict[str, tuple[str, int]]:
    pairs = [part.partition("=") for part in _list_of(texts)]
    return {node: _address(address) for node, _, address in pairs}


def _addresses(value: Any) -> dict[str, tuple[str, int]]:
    if not isinstance(value, Mapping):
        raise ValueError
    return {node: _address(address) for node, address in value.items()}


def _address(text: Any) -> tuple[str, int]:
    """``host:port``, with an IPv6 address in brackets."""
    host, colon, port = str(text).rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not isinstance(text, str) or not colon or not bare or not port.isascii() or not port.isdigit():
        raise ValueError
    return bare, int(port)


_BOOLEAN = Kind("true|false", "true or false", _boolean_of, _boolean, is_flag=True)
_NUMBER = Kind("NUMBER", "a whole number", _number_of, _number)
_TEXT = Kind("TEXT", "a text", _filled, _text)
_LIST = Kind("A,B,...", "a list of texts", _list_of, _list, is_many=True)
_ADDRESSES = Kind(
    "NODE=HOST:PORT",
    'addresses by node name, such as bob@10.0.0.2=10.0.0.2:9100 (in TOML a table of "bob@10.0.0.2" = "10.0.0.2:9100")',
    _addresses_of,
    _addresses,
    is_many=True,
)

__all__ = ["NONE", "Kind", "Setting", "settings_of"]
