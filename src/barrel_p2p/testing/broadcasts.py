"""What became of each broadcast: who got it, how often, over how many hops. The messages carry no hops; this does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from barrel_p2p.testing.clock import Clock
from barrel_p2p.testing.member import Member


@dataclass(slots=True)
class Entry:
    """One broadcast that is under way."""

    id: bytes
    number: int
    at_ms: int
    quiet: bool
    born: int  # members with a lower number existed then
    label: str = ""
    hops: bytearray = field(default_factory=bytearray)  # by number of member: hops + 1, 0 if it has not got it
    payloads: int = 0
    last_hop: int = 0
    last_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One broadcast that is over: ``reached`` of ``expected`` nodes, those that lived from then till now.

    ``redundancy`` is the paper's relative message redundancy: payloads per node that got it, less the one it needs.
    """

    label: str
    at: float
    quiet: bool
    expected: int
    reached: int
    redundancy: float
    last_hop: int
    seconds: float

    @property
    def reliability(self) -> float:
        return self.reached / self.expected if self.expected else 1.0


class Ledger:
    """Keeps the broadcasts under way and what became of the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[bytes, Entry] = {}
        self._count = 0
        self.outcomes: list[Outcome] = []
        self.twice: list[str] = []
        """Broken promises: a broadcast delivered again to the same member."""

    def open(self, id: bytes, label: str, born: int, *, quiet: bool) -> Entry:
        """A broadcast starts; ``quiet``: nothing went wrong for some time."""
        entry = Entry(id, self._count, self._clock.ms, quiet, born, label, bytearray(born))
        self._count += 1
        self._open[id] = entry
        return entry

    def count_payload(self, id: bytes) -> None:
        entry = self._open.get(id)
        if entry is not None:
            entry.payloads += 1

    def delivered(self, id: bytes, member: Member, sender: Member | None) -> None:
        entry = self._open.get(id)
        if entry is None:
            return
        hops = entry.hops
        number = member.number
        if number >= len(hops):
            hops.extend(bytes(number + 1 - len(hops)))
        if hops[number]:
            self.twice.append(f"broadcast {entry.number} was delivered twice to {member.name}")
            return
        hop = hops[sender.number] if sender is not None and sender.number < len(hops) else 0
        hops[number] = min(hop + 1, 255)
        if number < entry.born:  # those who came later are told of it, too
            entry.last_hop = max(hop, entry.last_hop)
            entry.last_ms = self._clock.ms

    def close(self, entry: Entry, members: Iterable[Member], *, disturbed_ms: int) -> tuple[Outcome, list[str]]:
        """See what became of a broadcast, and who of those who should have it does not."""
        del self._open[entry.id]
        hops = entry.hops
        expected = [m for m in members if m.alive and m.number < entry.born and 0 <= m.up_ms < entry.at_ms]
        missed = [m.name for m in expected if not hops[m.number]]
        got = sum(1 for hop in hops if hop)
        outcome = Outcome(
            label=entry.label,
            at=entry.at_ms / 1000,
            quiet=entry.quiet and disturbed_ms <= entry.at_ms,
            expected=len(expected),
            reached=len(expected) - len(missed),
            redundancy=entry.payloads / (got - 1) - 1 if got > 1 else 0.0,
            last_hop=entry.last_hop,
            seconds=(entry.last_ms - entry.at_ms) / 1000,
        )
        self.outcomes.append(outcome)
        return outcome, missed


__all__ = ["Entry", "Ledger", "Outcome"]
