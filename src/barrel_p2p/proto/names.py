"""Node names: the rule every name must pass before it becomes an atom, a file name or a key in a table.

The rule is upstream's (and stricter than OTP's, which takes any bytes): 1 to 255 bytes of ``A-Z a-z 0-9 _ .
-``, exactly one ``@``, both parts non-empty and neither starting with ``.`` or ``-``. A name that passes is
safe as a file name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from barrel_p2p.errors import ConfigError
from barrel_p2p.term.types import Atom

MAX_NAME = 255  # bytes; the length of an atom, and of a name in HELLO and in the dist handshake (OTP's value)

_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(f"{_PART}@{_PART}")


def is_node_name(name: str) -> bool:
    """True when ``name`` keeps the rule at the top of this file."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def validate_node_name(name: str) -> Atom:
    """Return ``name`` as an atom, or say what is wrong with it.

    Example: ``validate_node_name("alice@127.0.0.1")``

    Raises:
        ConfigError: ``name`` breaks the rule; the message shows a name that would do.
    """
    if not isinstance(name, str):
        raise ConfigError(f"a node name is a str such as 'alice@127.0.0.1', not {type(name).__name__}")
    if is_node_name(name):
        return Atom(name)
    raise ConfigError(f"{_shown(name)} is no node name: {_fault(name)}")


def host_of(name: str) -> str:
    """The part of a valid node name after the ``@``."""
    return name.partition("@")[2]


def is_long_name(name: str) -> bool:
    """Whether a valid node name is a long one in Erlang's sense (``-name``): its host has a dot."""
    return "." in host_of(name)


def validate_node_pattern(pattern: str) -> str:
    """Check an entry of ``cookie_only_nodes``: ``name@host`` whose halves are literal or ``*``.

    Raises:
        ConfigError: the pattern has another shape.
    """
    if isinstance(pattern, str):
        alive, at, host = pattern.partition("@")
        if is_node_name(("x" if alive == "*" else alive) + at + ("x" if host == "*" else host)):
            return pattern
    raise ConfigError(
        f"{_shown(pattern)} is no node pattern: write name@host, *@host, name@* or *@* (a half is literal or "
        "a single *)"
    )


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """True when one of the patterns (see ``validate_node_pattern``) fits the valid node name ``name``."""
    alive, _, host = name.partition("@")
    for pattern in patterns:
        wanted_alive, _, wanted_host = pattern.partition("@")
        if wanted_alive in ("*", alive) and wanted_host in ("*", host):
            return True
    return False


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:70]}... ({len(text)} characters)"


def _fault(name: str) -> str:
    example = "a node name is name@host, such as alice@127.0.0.1"
    if not name:
        return f"it is empty; {example}"
    if len(name) > MAX_NAME:
        return f"it has {len(name)} characters, at most {MAX_NAME} are allowed"
    if "@" not in name:
        return f"{example}; did you mean {name}@127.0.0.1?" if is_node_name(f"{name}@h") else example
    if name.count("@") > 1:
        return f"it has {name.count('@')} '@'; {example}"
    alive, _, host = name.partition("@")
    if not alive:
        return f"nothing stands before the '@'; {example}"
    if not host:
        return f"no host stands after the '@'; {example}"
    if ":" in host:
        return "IPv6 addresses can't stand in a node name; use a host name that resolves to it"
    bad = sorted({c for c in name if not re.fullmatch("[A-Za-z0-9_.@-]", c)})
    if bad:
        return f"{', '.join(map(repr, bad[:5]))} not allowed; use letters, digits, '_', '.' and '-'"
    return "neither part may start with '.' or '-'"


__all__ = [
    "MAX_NAME",
    "host_of",
    "is_long_name",
    "is_node_name",
    "matches_any",
    "validate_node_name",
    "validate_node_pattern",
]
