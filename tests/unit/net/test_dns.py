"""Service records and contacts, asked of a name server on loopback that answers real DNS messages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.asyncresolver
import dns.message
import dns.rrset
import pytest

from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.net.contacts import Contact, Contacts
from barrel_p2p.net.discovery import Discovery
from barrel_p2p.net.dns import ServiceRecords, in_order
from barrel_p2p.term.types import Atom


class NameServer(asyncio.DatagramProtocol):
    """Answers from a table of name to SRV records; ``None`` never answers, a missing name does not exist."""

    def __init__(self, table: dict[str, list[str] | None]) -> None:
        self.table = table

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text(omit_final_dot=True)
        response = dns.message.make_response(query)
        if name not in self.table:
            response.set_rcode(3)  # NXDOMAIN
        elif (records := self.table[name]) is None:
            return
        elif records:
            response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "SRV", *records))
        self.transport.sendto(response.to_wire(), address)


@asynccontextmanager
async def services(table: dict[str, list[str] | None]) -> AsyncIterator[ServiceRecords]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(table), local_addr=("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    try:
        yield ServiceRecords(resolver, random.Random(1))
    finally:
        transport.close()


async def resolve(host: str) -> list[str]:
    table = {"a.shop.test": ["192.0.2.1"], "b.shop.test": ["192.0.2.2"], "all.shop.test": ["192.0.2.1", "::1"]}
    if host not in table:
        raise OSError(-2, "Name or service not known")
    return table[host]


def test_a_service_record_gives_host_and_port_of_a_node() -> None:
    async def main() -> None:
        async with services(
            {"_barrel-p2p._udp.a.shop.test": ["1 0 9101 b.shop.test.", "0 0 9100 a.shop.test."]}
        ) as srv:
            discovery = Discovery(services=srv, own_port=7, resolve=resolve)
            assert await discovery.lookup("x@a.shop.test") == [("192.0.2.1", 9100), ("192.0.2.2", 9101)]
            assert await discovery.lookup("x@b.shop.test") == [("192.0.2.2", 7)], "no record: by its host, as before"
            assert await discovery.lookup("x@192.0.2.9") == [("192.0.2.9", 7)], "DNS is not asked about an address"

    asyncio.run(main())


def test_records_are_tried_by_priority_and_drawn_by_weight() -> None:
    records = [(1, 0, "spare", 1), (0, 90, "often", 1), (0, 10, "seldom", 1), (0, 0, "hardly", 1)]
    orders = [[host for _, _, host, _ in in_order(records, random.Random(seed))] for seed in range(400)]
    assert all(order[-1] == "spare" and sorted(order) == ["hardly", "often", "seldom", "spare"] for order in orders)
    firsts = [order[0] for order in orders]
    assert 320 < firsts.count("often") < 390 and 10 < firsts.count("seldom") < 80 and "hardly" not in firsts


def test_a_name_without_service_or_server_says_so() -> None:
    async def main() -> None:
        table: dict[str, list[str] | None] = {
            "_barrel-p2p._udp.none.test": ["0 0 0 ."],
            "_barrel-p2p._udp.empty.test": [],
        }
        async with services(table) as srv:
            assert await srv.lookup("_barrel-p2p._udp.none.test") == "offers no service"
            assert await srv.lookup("_barrel-p2p._udp.empty.test") == "is not there"
            assert await srv.lookup("_barrel-p2p._udp.missing.test") == "is not there"
            with pytest.raises(NotConnected, match=r"_barrel-p2p\._udp\.missing\.test is not there"):
                await Discovery(services=srv, resolve=resolve).lookup("x@missing.test")

    asyncio.run(main())


def test_a_name_server_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barrel_p2p.net.dns.LOOKUP_SECONDS", 0.2)

    async def main() -> None:
        async with services({"_barrel-p2p._udp.a.shop.test": None}) as srv:
            discovery = Discovery(services=srv, own_port=7, resolve=resolve)
            answers = [answer async for answer in discovery.ask("x@a.shop.test")]
            assert "can't be looked up" in answers[1].text
            assert answers[2].addresses == (("192.0.2.1", 7),)

    asyncio.run(main())


def test_contacts_are_names_addresses_behind_a_name_and_service_records() -> None:
    async def main() -> None:
        async with services({"_barrel-p2p._udp.shop.test": ["0 0 9100 a.shop.test."]}) as srv:
            entries = [
                "seed@10.0.0.1",
                "dns:shop@all.shop.test",
                "srv:shop@_barrel-p2p._udp.shop.test",
            ]
            contacts = Contacts(entries, services=srv, resolve=resolve)
            assert await contacts.find() == [
                Contact(Atom("seed@10.0.0.1")),
                Contact(Atom("shop@192.0.2.1")),
                Contact(Atom("shop@a.shop.test"), ("a.shop.test", 9100)),
            ]

    asyncio.run(main())


def test_contacts_that_do_not_resolve_are_logged_and_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    known: list[str] = []

    async def later(host: str) -> list[str]:
        if not known:
            raise OSError(-2, "Name or service not known")
        return known

    async def main() -> None:
        contacts = Contacts(["dns:shop@all.shop.test"], resolve=later)
        assert await contacts.find() == []
        assert "all.shop.test: it does not resolve" in caplog.text
        known.append("192.0.2.1")
        assert await contacts.find() == [Contact(Atom("shop@192.0.2.1"))]

    asyncio.run(main())


@pytest.mark.parametrize("entry", ["nonsense", "dns:shop", "srv:@x", "dns:a b@c", "", 7])
def test_a_bad_contact_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="contact_nodes"):
        Contacts([entry])


def test_the_users_own_function_is_asked_after_the_table() -> None:
    async def ask(name: str) -> list[tuple[str, int]] | None:
        return [("192.0.2.5", 5)] if name == "x@a.shop.test" else None

    async def main() -> None:
        discovery = Discovery(static={"y@a.shop.test": ("192.0.2.6", 6)}, backend=ask, own_port=7, resolve=resolve)
        assert await discovery.lookup("x@a.shop.test") == [("192.0.2.5", 5)]
        assert await discovery.lookup("y@a.shop.test") == [("192.0.2.6", 6)]
        assert await discovery.lookup("z@a.shop.test") == [("192.0.2.1", 7)]
        plain = Discovery(backend=lambda name: [("b.shop.test", 5)], resolve=resolve)
        assert await plain.lookup("x@a.shop.test") == [("192.0.2.2", 5)]

    asyncio.run(main())


def test_a_function_that_fails_hangs_or_answers_nonsense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(name: str) -> None:
        await asyncio.get_running_loop().create_future()

    def fails(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr("barrel_p2p.net.discovery.RESOLVE_TIMEOUT", 0.05)
    for backend, text in (
        (hangs, "gave no answer"),
        (fails, "KeyError"),
        (lambda name: ["10.0.0.1"], "pair of host and port"),
    ):
        with pytest.raises(NotConnected, match=f"the discover function.*{text}"):
            asyncio.run(Discovery(backend=backend, resolve=resolve).lookup("x@nowhere.test"))  # type: ignore[arg-type]
