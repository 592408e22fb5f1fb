"""What is written to the registry, and what its subscribers are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from barrel_p2p.term.types import Atom, Pid

# --- operations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Register:
    """A process of this node offers a service; ``name`` is an ``Atom``, a ``str`` or bytes."""

    name: Any
    pid: Pid
    meta: Mapping[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unregister:
    """This node offers the service no more."""

    name: Any


@dataclass(frozen=True, slots=True)
class ProcessDown:
    """The process that offers the service died, for ``reason``."""

    name: Any
    reason: Any


@dataclass(frozen=True, slots=True)
class NodeAlive:
    """A node has a lease."""

    node: Atom


@dataclass(frozen=True, slots=True)
class NodeDead:
    """The lease of a node has run out. That a node left our view is no reason to say this."""

    node: Atom


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceRegistered:
    """``node`` offers a service, or offers it by another process or with other metadata than before."""

    name: Any
    node: Atom


@dataclass(frozen=True, slots=True)
class ServiceUnregistered:
    """``node`` offers the service no more."""

    name: Any
    node: Atom


@dataclass(frozen=True, slots=True)
class ServiceDown:
    """The process is dead (here), or its node is: then ``reason`` is the atom ``nodedown``."""

    name: Any
    node: Atom
    reason: Any


@dataclass(frozen=True, slots=True)
class Service:
    """A service as it is looked up."""

    name: Any
    pid: Pid
    node: Atom
    meta: Mapping[Any, Any]


__all__ = [
    "NodeAlive",
    "NodeDead",
    "ProcessDown",
    "Register",
    "Service",
    "ServiceDown",
    "ServiceRegistered",
    "ServiceUnregistered",
    "Unregister",
]
