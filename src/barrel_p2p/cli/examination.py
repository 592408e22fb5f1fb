"""What ``barrel doctor`` does over QUIC: one visit to a node, told step by step."""

from __future__ import annotations

import time
from typing import Any

from barrel_p2p.cli.advice import Advice, advise
from barrel_p2p.cli.checklist import Checklist
from barrel_p2p.cli.client import Client
from barrel_p2p.cli.status import NOT_CONNECTED, OK
from barrel_p2p.errors import AuthError, ConfigError, HandshakeError, NotConnected
from barrel_p2p.net.discovery import DEFAULT_PORT
from barrel_p2p.net.epmd import Epmd
from barrel_p2p.node.options import DEFAULT_COOKIE
from barrel_p2p.node.peer_info import PeerInfo
from barrel_p2p.proto.flags import DEFAULT, MANDATORY, Flags, explain
from barrel_p2p.proto.identity import fingerprint

#: The steps in the order in which two nodes take them.
STEPS = ("address", "transport", "key", "clock", "name", "flags", "cookie", "round trip")
PINGS = 5
EPMD_SECONDS = 1.0  # for a question that only makes an advice better; a guess


class Examination:
    """One visit, told step by step. Over TCP it has fewer steps: see ``examination_tcp.py``."""

    steps: tuple[str, ...] = STEPS

    def __init__(self, visitor: Client) -> None:
        self.visitor = visitor
        self.node = visitor.node
        self.target = visitor.target
        self.list = Checklist(self.steps)
        self.address = ("", 0)  # the one that was tried last

    async def run(self) -> int:
        print(f"{self.node.name} visits {self.target} (carrier {self.visitor.options.proto_dist})")
        self._introduce()
        print()
        ok = await self._connect() and await self._round_trip()
        self.list.close()
        return OK if ok else NOT_CONNECTED

    def _introduce(self) -> None:
        print(f"our key {self.node.keys.fingerprint}, trust mode {self.node.keys.trust_mode}")

    # --- the way in ---------------------------------------------------------------------------------------------------

    async def _connect(self) -> bool:
        addresses = await self._find()
        for address in addresses:
            self.address = address
            try:
                await self.visitor.dial(address)
            except NotConnected as error:
                await self._no_transport(error, address, last=address == addresses[-1])
            except AuthError as error:
                self._refused_keys(error)
                return False
            except HandshakeError as error:
                self._refused_handshake(error)
                return False
            else:
                info = self.node.peer_info(self.target)
                assert info is not None
                self._let_in(info)
                return True
        return False

    async def _find(self) -> list[tuple[str, int]]:
        """The addresses to try; none if the search failed, which was told then."""
        addresses = await self.visitor.find()
        said = [f"{answer.place} {answer.text}" for answer in self.visitor.answers]
        if addresses:
            self.list.passed("address", ", ".join(f"{host}:{port}" for host, port in addresses), said)
        else:
            advice = advise("unknown_address", node=self.target)
            self.list.failed("address", f"nobody knows where {self.target} listens", advice, said)
        return addresses

    async def _no_transport(self, error: NotConnected, address: tuple[str, int], *, last: bool) -> None:
        notes = []
        if self._is_guess(address[1]):
            notes.append(
                f"The port {address[1]} is a guess: no place of discovery lists {self.target}, only its host is known. "
                "Run this where the node was started, or give --discovery-dir or --peers."
            )
        if not last:
            notes.append("The next address is tried.")
        elif await listed_by_epmd(self.visitor, address[0]):
            notes.append(
                f"epmd at {address[0]} knows {self.target}: if it is a stock Erlang node, which speaks TCP, "
                "add --proto-dist inet_tcp."
            )
        self.list.failed("transport", str(error), self._advice(error.reason, code=error.code), notes)

    def _is_guess(self, port: int) -> bool:
        found = [answer for answer in self.visitor.answers if answer.addresses]
        return (
            bool(found) and found[0].place == "its name" and port == (self.visitor.options.listen_port or DEFAULT_PORT)
        )

    # --- the key exchange and the distribution handshake --------------------------------------------------------------

    def _refused_keys(self, error: AuthError) -> None:
        advice = self._advice(error.reason, **_told(error.details))
        self._transport_passed()
        if advice.step in ("clock", "name") and "presented" not in error.details:
            self.list.skipped("key", "the exchange did not get so far")
        notes = []
        if error.reason == "key_mismatch":
            notes = [
                f"pinned     {_fingerprint(error.details.get('pinned'))}",
                f"presented  {_fingerprint(error.details.get('presented'))}",
            ]
        elif "presented" in error.details:
            notes = [f"presented  {_fingerprint(error.details['presented'])}"]
        self.list.failed(advice.step, str(error), advice, notes)

    def _refused_handshake(self, error: HandshakeError) -> None:
        details = error.details
        advice = self._advice(error.reason, **_told(details))
        self._transport_passed()
        if "public_key" in details:
            self._key_passed(details["public_key"], details["first_contact"], stored=False)
            self._clock_passed(details["clock_offset_ms"])
        if advice.step in ("flags", "cookie"):
            self.list.passed("name", f"{self.target} takes us as {self.node.name}")
        if advice.step == "cookie":
            self.list.passed("flags", "all that are needed")
        notes = [f"missing    {flag}" for flag in details.get("missing_flags", ())]
        self.list.failed(advice.step, str(error), advice, notes)

    def _let_in(self, info: PeerInfo) -> None:
        self._transport_passed()
        self._key_shown(info)
        self.list.passed("name", f"{self.target} takes us as {self.node.name}")
        lacking = explain(DEFAULT & ~info.flags & ~Flags.PYTHON & ~Flags.PUBLISHED)
        kind = "a node of this library" if info.flags & Flags.PYTHON else "an Erlang node"
        kind += ", visible in nodes()" if info.flags & Flags.PUBLISHED else ", hidden"
        count = len(explain(MANDATORY))
        rest = f"without the optional {', '.join(lacking)}" if lacking else "and every optional one"
        self.list.passed("flags", f"all {count} that are needed {rest}; {kind}")
        public = self.visitor.options.cookie == DEFAULT_COOKIE
        notes = ["It is the public default: set one of your own on all nodes."] if public else []
        self.list.passed("cookie", "the same on both sides", notes)

    def _transport_passed(self) -> None:
        host, port = self.address
        self.list.passed("transport", f"answered by {host}:{port} over UDP; QUIC 1, TLS 1.3, ALPN erlang-dist")

    def _key_shown(self, info: PeerInfo) -> None:
        self._key_passed(info.public_key, info.first_contact, stored=True)
        self._clock_passed(info.clock_offset_ms)

    def _key_passed(self, key: bytes | None, first_contact: bool, *, stored: bool) -> None:
        if key is None:
            self.list.passed("key", "none asked for: both sides list each other in cookie_only_nodes")
        elif first_contact and not stored:
            self.list.passed("key", f"{fingerprint(key)}, not seen before, not pinned as the connection failed")
        elif first_contact:
            notes = ["Compare it with what `barrel keys show --data-dir ...` or the start-up lines say over there."]
            self.list.passed("key", f"{fingerprint(key)}, first seen and pinned now", notes)
        else:
            self.list.passed("key", f"{fingerprint(key)}, as pinned")

    def _clock_passed(self, offset: int | None) -> None:
        if offset is None:
            self.list.skipped("clock", "this exchange does not tell it")
            return
        allowed = 2 * self.visitor.options.auth_timestamp_window_ms / 1000
        self.list.passed("clock", f"{_offset(offset)} ours ({allowed:g} s are allowed)")

    def _advice(self, reason: str, **told: Any) -> Advice:
        """What to do; ``told`` are the details of the error."""
        return advise(
            reason,
            node=self.target,
            own_name=self.node.name,
            own_key=self.node.keys.public_key.hex(),
            ours=f" --data-dir {self.visitor.data_dir}" if self.visitor.data_dir is not None else "",
            **told,
        )

    # --- once connected -----------------------------------------------------------------------------------------------

    async def _round_trip(self) -> bool:
        times = []
        for _ in range(PINGS):
            started = time.perf_counter()
            if not await self.node.ping(self.target):
                text = f"{self.target} let us in, but its net_kernel does not answer"
                self.list.failed("round trip", text, advise("no_pong", node=self.target))
                return False
            times.append((time.perf_counter() - started) * 1000)
        self.list.passed("round trip", f"{min(times):.1f} ms at best, {max(times):.1f} ms at worst of {PINGS}")
        return True


def _told(details: Any) -> dict[str, str]:
    """What an error's details say that an advice may repeat."""
    presented = details.get("presented")
    return {
        "presented": presented.hex() if presented else "HEX",
        "waiting_for": details.get("waiting_for", ""),
        "answered": details.get("answered", ""),
    }


async def listed_by_epmd(visitor: Client, host: str) -> bool:
    """Whether an epmd at that address knows the target."""
    try:
        epmd = Epmd(visitor.options.epmd_port, timeout=EPMD_SECONDS)
        return visitor.target.partition("@")[0] in await epmd.names(host)
    except (NotConnected, ConfigError):
        return False


def _fingerprint(key: bytes | None) -> str:
    return fingerprint(key) if key else "unknown"


def _offset(milliseconds: int) -> str:
    size = abs(milliseconds)
    text = f"{size} ms" if size < 1000 else f"{size / 1000:.1f} s"
    return f"{text} {'ahead of' if milliseconds >= 0 else 'behind'}"


__all__ = ["STEPS", "Examination"]
