"""``barrel doctor`` over TCP: who knows the node's port is epmd, and there are no keys and no clocks to compare."""

from __future__ import annotations

from typing import Any

from barrel_p2p.cli.advice import Advice, advise
from barrel_p2p.cli.checklist import Checklist
from barrel_p2p.cli.examination import Examination
from barrel_p2p.cli.status import NOT_CONNECTED
from barrel_p2p.errors import NotConnected
from barrel_p2p.net.epmd import Epmd
from barrel_p2p.node.peer_info import PeerInfo
from barrel_p2p.proto.names import host_of, is_long_name

TCP_STEPS = ("address", "epmd", "transport", "name", "flags", "cookie", "round trip")
SHOWN = 20  # names of one epmd


class TcpExamination(Examination):
    steps = TCP_STEPS

    def _introduce(self) -> None:
        print("this carrier is not encrypted and proves no keys: who knows the cookie is let in")

    async def _find(self) -> list[tuple[str, int]]:
        if is_long_name(self.target) != is_long_name(self.node.name):
            text = f"{self.target} and {self.node.name}: nodes with a short and with a long name don't talk"
            self.list.failed("name", text, self._advice("name_form"))
            return []
        epmd = Epmd(self.visitor.options.epmd_port, timeout=self.visitor.options.setup_timeout_ms / 1000)
        given = self.visitor.options.peers.get(self.target)
        try:
            addresses = await epmd.resolve(given[0] if given else host_of(self.target), given[1] if given else 0)
        except NotConnected as error:
            self.list.failed("address", str(error), self._advice("unknown_host"))
            return []
        if given:
            self.list.passed("address", f"{addresses[0][0]}:{given[1]}, as peers says")
            self.list.skipped("epmd", "not asked, as the port is given")
            return addresses
        self.list.passed("address", ", ".join(host for host, _ in addresses))
        return await self._ask_epmd(epmd, [host for host, _ in addresses])

    async def _ask_epmd(self, epmd: Epmd, hosts: list[str]) -> list[tuple[str, int]]:
        alive = self.target.partition("@")[0]
        text = ""
        for host in hosts:
            try:
                known = await epmd.names(host)
            except NotConnected as error:
                text = text or str(error)
                continue
            if alive in known:
                self.list.passed("epmd", f"{host}:{epmd.port} knows {alive}: it listens on port {known[alive]}")
                return [(host, known[alive])]
            others = [f"{name}, on port {port}" for name, port in sorted(known.items()) if not self._is_ours(name)]
            more = [f"and {len(others) - SHOWN} more"] if len(others) > SHOWN else []
            notes = [f"it knows   {line}" for line in others[:SHOWN]] + more or ["it knows   nobody"]
            self.list.failed("epmd", f"{host}:{epmd.port} does not know {alive}", self._advice("not_in_epmd"), notes)
            return []
        self.list.failed("epmd", text, self._advice("no_epmd_there"))
        return []

    def _is_ours(self, alive: str) -> bool:
        return alive == self.node.name.partition("@")[0]

    async def _no_transport(self, error: NotConnected, address: tuple[str, int], *, last: bool) -> None:
        notes = [] if last else ["The next address is tried."]
        self.list.failed("transport", str(error), self._advice(error.reason), notes)

    def _transport_passed(self) -> None:
        host, port = self.address
        self.list.passed("transport", f"answered by {host}:{port} over TCP")

    def _key_shown(self, info: PeerInfo) -> None:
        """There is none."""

    def _advice(self, reason: str, **told: Any) -> Advice:
        return advise(reason, over_tcp=True, node=self.target, own_name=self.node.name, **told)


def without_own_epmd(error: NotConnected) -> int:
    """Say that this command can't be a node here; returns the exit status."""
    steps = Checklist(TCP_STEPS)
    steps.failed("epmd", str(error).partition(": start one")[0], advise("no_own_epmd", over_tcp=True))
    steps.close()
    return NOT_CONNECTED


__all__ = ["TCP_STEPS", "TcpExamination", "without_own_epmd"]
