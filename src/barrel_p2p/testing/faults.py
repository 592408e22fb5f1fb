"""What goes wrong in a simulated cluster, as a scenario's ``[[fault]]`` tables say."""

from __future__ import annotations

from typing import Any, Final

from barrel_p2p.testing.cluster import Cluster
from barrel_p2p.testing.member import Member
from barrel_p2p.testing.scenario import Fault

CHAOS_EVERY: Final = (0.5, 5.0)  # seconds between two faults of ``chaos``
CHAOS_LASTS: Final = (2.0, 30.0)  # seconds that each of them lasts
ARRIVALS_EVERY_MS: Final = 60_000


class Faults:
    """Makes the faults of a scenario happen to a cluster; ``ready_ms`` is the time theirs counts from."""

    def __init__(self, cluster: Cluster, ready_ms: int) -> None:
        self._cluster = cluster
        self._random = cluster.rng.random
        self._parted = False
        for fault in cluster.scenario.faults:
            cluster.clock.at(ready_ms + int(fault.at * 1000), self._start, fault)

    def _start(self, fault: Fault, _: Any, __: Any) -> None:
        getattr(self, f"_{fault.kind}")(fault)

    def _some(self, share: float) -> list[Member]:
        live = self._cluster.live
        return self._cluster.rng.sample(live, min(round(share * len(live)), max(len(live) - 1, 0)))

    def _after(self, seconds: float, run: Any, a: Any = None, b: Any = None) -> None:
        self._cluster.clock.at(self._cluster.clock.ms + int(seconds * 1000), run, a, b)

    def _between(self, bounds: tuple[float, float]) -> float:
        return bounds[0] + self._random() * (bounds[1] - bounds[0])

    # --- each kind ----------------------------------------------------------------------------------------------------

    def _crash(self, fault: Fault) -> None:
        for member in self._some(fault.share):
            self._cluster.crash(member)
            if fault.restart:
                self._after(fault.restart * (0.5 + self._random()), self._restart, member)

    def _leave(self, fault: Fault) -> None:
        for member in self._some(fault.share):
            self._cluster.leave(member)
            if fault.restart:
                self._after(2 + fault.restart * (0.5 + self._random()), self._restart, member)

    def _restart(self, member: Member, _: Any, __: Any) -> None:
        if not self._cluster.members[member.name].alive:
            self._cluster.start(member.name, self._contact(member.name))

    def _contact(self, name: str) -> str | None:
        names = [member.name for member in self._cluster.live if member.name != name and member.up_ms >= 0]
        return names[int(self._random() * len(names))] if names else None

    def _partition(self, fault: Fault) -> None:
        if not self._parted:
            self._parted = True
            self._cluster.cut({member.name: 1 for member in self._some(fault.share)}, one_way=fault.one_way)
            self._after(fault.lasts, self._heal)

    def _heal(self, _: Any, __: Any, ___: Any) -> None:
        self._parted = False
        self._cluster.heal()

    def _slow(self, fault: Fault) -> None:
        slow = self._some(fault.share)
        for member in slow:
            member.slow_ms = fault.delay_ms
        self._cluster.disturbed_ms = self._cluster.clock.ms
        self._after(fault.lasts, self._speed_up, slow)

    def _speed_up(self, members: list[Member], _: Any, __: Any) -> None:
        for member in members:
            member.slow_ms = 0.0
        self._cluster.disturbed_ms = self._cluster.clock.ms

    def _churn(self, fault: Fault) -> None:
        changes = round(fault.share * len(self._cluster.live) * fault.lasts / 60)
        for change in range(changes):
            self._after(fault.lasts * (change + self._random()) / changes, self._exchange)

    def _exchange(self, _: Any, __: Any, ___: Any) -> None:
        """A node dies, a new one comes. Contacts that nodes are configured with are not among those who die for good: a
        node that knows nobody else has no way in any more."""
        contacts = self._cluster.contacts
        mortal = [member for member in self._cluster.live if member.name not in contacts]
        if mortal:
            self._cluster.crash(mortal[int(self._random() * len(mortal))])
        self._cluster.start(f"new{self._cluster.made}@sim", self._contact(""))

    def _chaos(self, fault: Fault) -> None:
        end_ms = self._cluster.clock.ms + int(fault.lasts * 1000)
        self._after(0, self._some_chaos, end_ms, fault.share)

    def _some_chaos(self, end_ms: int, share: float, _: Any) -> None:
        """One random fault after the other; all are over by the end."""
        left = (end_ms - self._cluster.clock.ms) / 1000
        if left <= CHAOS_LASTS[0]:
            return
        lasts = min(self._between(CHAOS_LASTS), left)
        some = Fault(kind="crash", share=share * self._random(), restart=lasts / 1.5, lasts=lasts)
        choice = self._random()
        if choice < 0.35:
            self._crash(some)
        elif choice < 0.5:
            self._leave(some)
        elif choice < 0.65:
            self._partition(Fault(kind="partition", share=self._random(), lasts=lasts, one_way=self._random() < 0.3))
        elif choice < 0.8:
            self._slow(some)
        else:
            self._exchange(None, None, None)
        self._after(self._between(CHAOS_EVERY), self._some_chaos, end_ms, share)


__all__ = ["Faults"]
