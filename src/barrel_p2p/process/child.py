"""What a supervisor keeps of a child: its specification, and the process that runs at the moment."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ConfigError, ExitReason, StartError
from ..term.types import Atom, Pid
from .api import spawn_link
from .reasons import is_orderly, reason_of

RESTARTS: Final = ("permanent", "transient", "temporary")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a supervisor starts, restarts and ends one child.

    >>> ChildSpec("counter", (Counter, (10,)))
    >>> ChildSpec("ticker", (tick_for_ever, (0.5,)), restart="transient", shutdown="brutal_kill")

    Args:
        id: names the child in its supervisor; any term.
        start: what to start and with which arguments: a ``GenServer`` or ``Supervisor`` class (its ``start_link`` is
            awaited), a class method such as ``Counter.start_link`` that gives a pid of a process linked to its
            caller, or an async function, which is run as a linked process. Without arguments a pair is not needed.
        name: registers the child.
        restart: ``permanent`` (always restarted), ``transient`` (after an abnormal end) or ``temporary`` (never).
        shutdown: seconds to end after ``exit(pid, "shutdown")`` before it is killed; ``"brutal_kill"``: killed at once;
            ``"infinity"``: as long as it takes. Default as in OTP: 5.0 for a worker, infinity for a supervisor.
        type: ``worker`` or ``supervisor``; told by the class when left out.
        significant: its end counts for the ``auto_shutdown`` of its supervisor; not for a permanent child.
    """

    id: Any
    start: Any
    name: Any = None
    restart: str = "permanent"
    shutdown: float | str | None = None
    type: str | None = None
    significant: bool = False

    def __post_init__(self) -> None:
        function, args = self.start if isinstance(self.start, tuple) and len(self.start) == 2 else (self.start, ())
        if not callable(function):
            raise ConfigError(f"child {self.id!r}: {function!r} can't be started: give a class or an async function")
        if inspect.isclass(function) and not hasattr(function, "start_link"):
            raise ConfigError(
                f"child {self.id!r}: {function!r} has no start_link: give a GenServer or Supervisor class"
            )
        if not isinstance(args, (tuple, list)):
            raise ConfigError(f"child {self.id!r}: the arguments of its start must be a tuple, not {args!r}")
        object.__setattr__(self, "start", (function, tuple(args)))
        kind = self.type or ("supervisor" if getattr(function, "is_supervisor", False) else "worker")
        shutdown = self.shutdown
        if shutdown is None:
            shutdown = "infinity" if kind == "supervisor" else 5.0
        object.__setattr__(self, "type", kind)
        object.__setattr__(self, "shutdown", shutdown)
        if self.restart not in RESTARTS:
            raise ConfigError(f"child {self.id!r}: restart must be one of {RESTARTS}, not {self.restart!r}")
        if kind not in ("worker", "supervisor"):
            raise ConfigError(f"child {self.id!r}: type must be worker or supervisor, not {kind!r}")
        if isinstance(shutdown, str) and shutdown not in ("brutal_kill", "infinity"):
            raise ConfigError(f"child {self.id!r}: shutdown must be seconds, brutal_kill or infinity")
        if self.significant and self.restart == "permanent":
            raise ConfigError(f"child {self.id!r}: a permanent child never ends for good, so it can't be significant")

    @property
    def modules(self) -> list[Any]:
        """What ``which_children`` shows as the child's modules."""
        function = self.start[0]
        owner = function if inspect.isclass(function) else getattr(function, "__self__", function)
        return [Atom(getattr(owner, "__name__", type(owner).__name__))]

    def as_map(self) -> dict[Atom, Any]:
        """What ``supervisor:get_childspec`` shows. Arguments without a form as terms go as their text."""
        function, args = self.start
        owner = function if inspect.isclass(function) else getattr(function, "__self__", None)
        module = getattr(owner, "__name__", None) or getattr(function, "__module__", None) or "undefined"
        name = "start_link" if inspect.isclass(function) else getattr(function, "__name__", "undefined")
        shutdown = self.shutdown
        return {
            Atom("id"): self.id,
            Atom("start"): (Atom(module), Atom(name), list(args)),
            Atom("restart"): Atom(self.restart),
            Atom("significant"): self.significant,
            Atom("shutdown"): Atom(shutdown) if isinstance(shutdown, str) else round(float(shutdown or 0) * 1000),
            Atom("type"): Atom(str(self.type)),
            Atom("modules"): self.modules,
        }

    async def launch(self) -> Pid:
        """Start the child, linked with the current process.

        Raises:
            StartError: with the reason it did not start for.
        """
        function, args = self.start
        options = {} if self.name is None else {"name": self.name}
        try:
            if inspect.isclass(function):
                pid = await function.start_link(*args, **options)  # type: ignore[attr-defined]
            elif inspect.ismethod(function):
                pid = await function(*args, **options)
            else:
                pid = spawn_link(function, *args, **options)
        except StartError:
            raise
        except Exception as error:
            reason = error.reason if isinstance(error, ExitReason) else reason_of(error)
            raise StartError(reason, f"child {self.id!r} did not start: {error!r}") from error
        if not isinstance(pid, Pid):
            raise StartError((Atom("bad_return"), pid), f"child {self.id!r}: its start gave {pid!r}, not a pid")
        return pid


@dataclass(slots=True)
class Child:
    """A child and its process; ``pid`` is ``None`` while none runs, ``restarting`` while a restart is being retried."""

    spec: ChildSpec
    pid: Pid | None = None
    restarting: bool = False

    def shown(self) -> Any:
        """The entry of ``which_children``: ``{Id, Child, Type, Modules}``."""
        state: Any = self.pid if self.pid is not None else Atom("restarting" if self.restarting else "undefined")
        return (self.spec.id, state, Atom(str(self.spec.type)), self.spec.modules)

    def wants_restart(self, reason: Any) -> bool:
        """Whether the child's restart type asks for a new process after ``reason``."""
        return self.spec.restart == "permanent" or (self.spec.restart == "transient" and not is_orderly(reason))


__all__ = ["Child", "ChildSpec"]
