"""Names of servers beyond the local ones: ``global_(name)`` and ``via(registry, name)``.

The services that keep such names stand in ``Runtime.name_resolvers``; this layer only asks them.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ConfigError
from ..term.types import Atom, Pid

if TYPE_CHECKING:
    from .runtime import Runtime


class Resolver(Protocol):
    """A service that keeps names.

    Its answers may be awaitables; then ``call`` and ``start`` can use it, ``send`` can't. One that takes the names of
    the dead away by itself may say so by an attribute ``forgets_the_dead = True``.
    """

    def register_name(self, name: Any, pid: Pid) -> bool | Awaitable[bool]:
        """Give ``pid`` the name; false when another process has it."""
        ...

    def unregister_name(self, name: Any) -> object:
        """Take the name away."""
        ...

    def whereis_name(self, name: Any) -> Pid | Awaitable[Pid | None] | None:
        """Who has the name."""
        ...


class ServerName:
    """A name that a resolver keeps. Made by ``global_`` and ``via``."""

    __slots__ = ("name", "registry")

    def __init__(self, registry: Any, name: Any) -> None:
        self.registry = registry
        self.name = name

    def resolver(self, runtime: Runtime) -> Resolver:
        """The service behind this name.

        Raises:
            ConfigError: this node has no such service.
        """
        if isinstance(self.registry, tuple):
            if runtime.far_resolver is None:
                raise ConfigError(f"{self!r}: this runtime has no network to ask {self.registry[1]} by")
            return runtime.far_resolver(*self.registry)
        if isinstance(self.registry, str):
            try:
                return runtime.name_resolvers[self.registry]
            except KeyError:
                raise ConfigError(f"{self!r}: this node has no registry called {self.registry!r}") from None
        resolver: Resolver = self.registry
        return resolver

    def whereis_now(self, runtime: Runtime) -> Pid | None:
        """Who has the name, without waiting.

        Raises:
            TypeError: this registry only answers to ``await``.
        """
        found = self.resolver(runtime).whereis_name(self.name)
        if found is not None and not isinstance(found, Pid):
            if inspect.iscoroutine(found):
                found.close()
            raise TypeError(f"{self!r} has to be looked up with await first: its registry asks other nodes")
        return found

    async def whereis(self, runtime: Runtime) -> Pid | None:
        """Who has the name, asked of other nodes if the registry does so."""
        found = self.resolver(runtime).whereis_name(self.name)
        return found if found is None or isinstance(found, Pid) else await found

    async def register(self, runtime: Runtime, pid: Pid) -> bool:
        """Give ``pid`` the name; false when another process has it."""
        done = self.resolver(runtime).register_name(self.name, pid)
        return done if isinstance(done, bool) else await done

    async def unregister(self, runtime: Runtime) -> None:
        """Take the name away."""
        done = self.resolver(runtime).unregister_name(self.name)
        if inspect.isawaitable(done):
            await done

    def forgets_the_dead(self, runtime: Runtime) -> bool:
        """Whether a process that ends loses its name without asking: then nobody needs to take it away."""
        return bool(getattr(self.resolver(runtime), "forgets_the_dead", False))

    def term(self) -> Any:
        """What Erlang calls it in an exit reason: ``{global, Name}`` or ``{via, Registry, Name}``."""
        if self.registry == "global":
            return (Atom("global"), self.name)
        registry: Any = self.registry
        if not isinstance(registry, tuple):
            registry = Atom(registry) if isinstance(registry, str) else Atom(type(registry).__name__)
        return (Atom("via"), registry, self.name)

    def __repr__(self) -> str:
        return f"global_({self.name!r})" if self.registry == "global" else f"via({self.registry!r}, {self.name!r})"


def global_(name: Any) -> ServerName:
    """A name known to all connected nodes (Erlang's ``global``)."""
    return ServerName("global", name)


def via(registry: Any, name: Any) -> ServerName:
    """A name in ``registry``.

    >>> await call(via(("Elixir.Registry", "shop@127.0.0.1"), (Atom("Elixir.Shop.Names"), b"till")), "total")

    Args:
        registry: an object with the methods of ``Resolver``; the name of one the node knows; or ``(module, node)``, an
            Erlang module with ``whereis_name/1`` on another node, which is asked by a remote call. Such a name works
            where it can be awaited (``call``, ``stop``, names of servers), not in ``send``.
        name: what that registry takes for a name.
    """
    if isinstance(registry, tuple):
        module, node = registry
        registry = (Atom(module), Atom(node))
    return ServerName(registry, name)


__all__ = ["Resolver", "ServerName", "global_", "via"]
