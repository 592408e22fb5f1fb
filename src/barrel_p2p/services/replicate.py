"""``node.replicate``: a data type of the user's own, replicated as the maps of this library are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from barrel_p2p.errors import ConfigError, EncodeError
from barrel_p2p.node.replication import Instance, Replication
from barrel_p2p.proto.replicated import Applied, Comparable, Replicated
from barrel_p2p.shown import Shown
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.replica")

PREFIX: Final = "barrel_p2p_replica$"

Notify = Callable[[Sequence[Any]], object]


class Replica:
    """A state of the user's on one node; ``node.replicate`` makes one.

    ::

        visits = node.replicate("visits", Counter(node.name))
        visits.write(1)
        print(visits.state.value)
    """

    def __init__(
        self,
        replication: Replication,
        codec: Codec,
        name: str,
        state: Replicated,
        notify: Notify | None,
        anti_entropy_ms: int,
    ) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= 255 - len(PREFIX):
            raise ConfigError(
                f"the name of a replica is a text of 1 to {255 - len(PREFIX)} characters, not {name!r:.300}"
            )
        if anti_entropy_ms.__class__ is not int or anti_entropy_ms < 0:
            raise ConfigError(
                f"anti_entropy_ms must be a whole number, 0 for never, not {anti_entropy_ms!r}", "anti_entropy_ms"
            )
        self.name = Atom(name)
        self.state = state
        self._replication = replication
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._tag = Atom(PREFIX + name)
        if self._tag in replication.names:
            raise ConfigError(f"{name} is replicated on this node already: close it first")
        self._instance: Instance | None = replication.open(
            self._tag, _Guarded(state, name, codec), notify=self._tell, anti_entropy_s=anti_entropy_ms / 1000
        )

    def write(self, operation: Any) -> None:
        """Apply an operation: ``state.write`` is asked, and the deltas it wants broadcast go to all nodes.

        Raises:
            Exception: Whatever ``state.write`` raises; nothing was sent then.
            EncodeError: What it wants broadcast is no term. It is applied here, and not sent.
            RuntimeError: It was called from within the state itself.
            ConfigError: The replica is closed.
        """
        if self._instance is None:
            raise ConfigError(f"the replica {self.name} is closed")
        self._instance.write(operation)

    @property
    def refused(self) -> dict[str, int]:
        """What came from other nodes and was not taken in, by reason."""
        return {} if self._instance is None else self._instance.refused

    def close(self) -> None:
        """Stop replicating here; the state stays as it is, and other nodes go on."""
        if self._instance is not None:
            self._instance = None
            self._replication.close(self._tag)

    def _tell(self, changes: Sequence[Any]) -> None:
        if self._notify is not None:
            self._loop.call_soon(self._notify, changes)  # so that it may write


class _Guarded:
    """A state of the user's, so that what it raises on the input of others is counted, and stops nothing."""

    def __init__(self, state: Replicated, name: str, codec: Codec) -> None:
        self._state = state
        self._name = name
        self._codec = codec
        self._told = False

    def write(self, operation: Any, wall_ms: int) -> Applied:
        applied = self._state.write(operation, wall_ms)
        try:  # what is kept to be sent again must not change with the state
            applied.broadcast = [self._codec.decode(self._codec.encode(delta)) for delta in applied.broadcast]
            applied.custom = [self._codec.decode(self._codec.encode(term)) for term in applied.custom]
        except EncodeError as error:
            error.add_note(f"the deltas of {self._name} must be terms")
            raise
        return applied

    def merge(self, delta: Any, wall_ms: int) -> Applied:
        return self._try(self._state.merge, delta, wall_ms)

    def merge_custom(self, term: Any, wall_ms: int) -> Applied:
        return self._try(self._state.merge_custom, term, wall_ms)

    def _try(self, merge: Callable[[Any, int], Applied], term: Any, wall_ms: int) -> Applied:
        try:
            return merge(term, wall_ms)
        except Exception as error:
            if not self._told:
                self._told = True
                log.exception("%s: merging raised, which is counted from now on: %s", self._name, Shown(term))
            return Applied(refused={f"raised {type(error).__name__}": 1})

    def snapshot(self, wall_ms: int, *, python: bool) -> Iterator[Any]:
        return self._state.snapshot(wall_ms, python=python)

    def tidy(self, wall_ms: int) -> Applied:
        return self._state.tidy(wall_ms)

    def comparable(self) -> Comparable | None:
        return self._state.comparable()


__all__ = ["Replica"]
