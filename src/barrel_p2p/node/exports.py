"""What other nodes may run here: nothing, until ``export`` names it.

A table from (module, function) to the Python callable. Names on the wire are atoms; nothing is ever looked up in
``sys.modules`` because a peer asked for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from barrel_p2p.errors import ConfigError, ExitReason
from barrel_p2p.term.types import Atom


class Exports:
    """The exported functions of one node."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], Callable[..., Any]] = {}

    def add(self, what: ModuleType | Callable[..., Any], *, module: str | None = None, name: str | None = None) -> None:
        """Let other nodes call ``what``: a function, or every public function of a module.

        Args:
            what: A function (plain or ``async``), or a module; of a module the functions of ``__all__``, or else
            those it
                defines without a leading underscore.
            module: The name under which other nodes find the module; default: its Python name.
            name: The name of the function; default: its Python name. Not allowed for a module.

        Raises:
            ConfigError: ``what`` is neither, or the name belongs to another function already.
        """
        if isinstance(what, ModuleType):
            if name is not None:
                raise ConfigError("name= is for a single function; a module's functions keep their names")
            for function_name, function in _public_functions(what):
                self._add(module or what.__name__, function_name, function)
        elif callable(what):
            own_name = name or getattr(what, "__name__", None)
            own_module = module or getattr(what, "__module__", None)
            if not own_name or not own_module:
                raise ConfigError(f"{what!r} has no name of its own; pass module= and name=")
            self._add(own_module, own_name, what)
        else:
            raise ConfigError(f"only a module or a function can be exported, not {what!r}")

    def _add(self, module: str, name: str, function: Callable[..., Any]) -> None:
        known = self._functions.setdefault((module, name), function)
        if known is not function:
            raise ConfigError(f"{module}:{name} is exported already, for {known!r}")

    def find(self, module: str, name: str) -> Callable[..., Any] | None:
        return self._functions.get((module, name))

    async def apply(self, module: str, name: str, args: list[Any]) -> Any:
        """Run an exported function. Raises ``Undefined`` when nothing of that name takes these arguments."""
        function = self.find(module, name)
        if function is None or not _takes(function, args):
            raise Undefined(module, name, args)
        result = function(*args)
        if inspect.isawaitable(result):
            result = await result
        return result


class Undefined(ExitReason):
    """``undef``: the function is not exported, or not with so many arguments."""

    def __init__(self, module: str, name: str, args: list[Any]) -> None:
        frame: tuple[Atom, Atom, list[Any], list[Any]] = (Atom(module), Atom(name), args, [])
        super().__init__((Atom("undef"), [frame]), f"{module}:{name}/{len(args)} is not exported by this node")
        self.stack = [frame]


def _takes(function: Callable[..., Any], args: list[Any]) -> bool:
    try:
        inspect.signature(function).bind(*args)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: it judges its arguments itself
        return True
    return True


def _public_functions(module: ModuleType) -> list[tuple[str, Callable[..., Any]]]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and inspect.isroutine(value)
            and getattr(value, "__module__", None) == module.__name__
        ]
    found = [(name, getattr(module, name)) for name in names]
    return [(name, value) for name, value in found if callable(value) and not inspect.isclass(value)]
