"""Finding nodes: the order of the places, upstream's files, and what a failed search says."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.net.discovery import Address, Discovery
from barrel_p2p.net.dns import resolve_host
from barrel_p2p.net.endpoint_files import parse_endpoint

BOB = "bob@host.example"


async def nowhere(host: str) -> list[str]:
    raise OSError(-2, "Name or service not known")


async def two_addresses(host: str) -> list[str]:
    return ["192.0.2.1", "2001:db8::1"]


def find(discovery: Discovery, name: str = BOB) -> list[Address]:
    return asyncio.run(discovery.lookup(name))


def test_the_static_table_wins(tmp_path: Path) -> None:
    (tmp_path / f"{BOB}.endpoint").write_text('{"192.0.2.9",9}.\n')
    discovery = Discovery(static={BOB: ("192.0.2.7", 7)}, directory=tmp_path, resolve=nowhere)
    assert find(discovery) == [("192.0.2.7", 7)]


def test_then_the_file(tmp_path: Path) -> None:
    (tmp_path / f"{BOB}.endpoint").write_text('{"192.0.2.9",9}.\n')
    assert find(Discovery(directory=tmp_path, resolve=two_addresses)) == [("192.0.2.9", 9)]


def test_then_the_host_with_our_own_port() -> None:
    discovery = Discovery(resolve=two_addresses)
    assert find(discovery) == [("192.0.2.1", 4433), ("2001:db8::1", 4433)]
    discovery.own_port = 9100
    assert find(discovery, "bob@192.0.2.5") == [("192.0.2.5", 9100)]


def test_host_names_in_table_and_file_are_resolved(tmp_path: Path) -> None:
    discovery = Discovery(static={BOB: ("bobs.example", 7)}, resolve=two_addresses)
    assert find(discovery) == [("192.0.2.1", 7), ("2001:db8::1", 7)]


def test_a_failed_search_says_what_every_place_said(tmp_path: Path) -> None:
    (tmp_path / f"{BOB}.endpoint").write_text("{oops}.")
    with pytest.raises(NotConnected) as caught:
        find(Discovery(directory=tmp_path, resolve=nowhere))
    assert caught.value.reason == "unknown_address"
    message = str(caught.value)
    assert "the static table does not list it" in message and "does not hold" in message
    assert "host.example does not resolve" in message


def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever(host: str) -> list[str]:
        await asyncio.get_running_loop().create_future()
        return []

    monkeypatch.setattr("barrel_p2p.net.discovery.RESOLVE_TIMEOUT", 0.01)
    with pytest.raises(NotConnected, match="does not resolve"):
        find(Discovery(resolve=for_ever))


def test_the_systems_resolver_knows_localhost() -> None:
    assert "127.0.0.1" in asyncio.run(resolve_host("localhost"))


def test_publishing_writes_upstreams_format(tmp_path: Path) -> None:
    discovery = Discovery(directory=tmp_path)
    discovery.publish("alice@127.0.0.1", 17001)
    path = tmp_path / "alice@127.0.0.1.endpoint"
    assert path.read_bytes() == b'{"127.0.0.1",17001}.\n'
    assert find(discovery, "alice@127.0.0.1") == [("127.0.0.1", 17001)]
    discovery.unpublish("alice@127.0.0.1", 9999)
    assert path.exists(), "the file of a successor on another port stays"
    discovery.unpublish("alice@127.0.0.1", 17001)
    discovery.unpublish("alice@127.0.0.1", 17001)
    assert not path.exists()


def test_a_name_is_published_by_one_living_node(tmp_path: Path) -> None:
    first, second = Discovery(directory=tmp_path), Discovery(directory=tmp_path)
    first.publish("alice@127.0.0.1", 17001)
    with pytest.raises(ConfigError, match=r"another node called alice@127.0.0.1 is running on port 17001"):
        second.publish("alice@127.0.0.1", 17002)
    assert find(second, "alice@127.0.0.1") == [("127.0.0.1", 17001)], "the first can still be found"
    first.unpublish("alice@127.0.0.1", 17001)
    second.publish("alice@127.0.0.1", 17002)
    assert find(first, "alice@127.0.0.1") == [("127.0.0.1", 17002)]


def test_the_file_of_a_killed_node_is_replaced(tmp_path: Path) -> None:
    code = (
        "import sys, os; from barrel_p2p.net.discovery import Discovery\n"
        "Discovery(directory=sys.argv[1]).publish('alice@127.0.0.1', 17001)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    discovery = Discovery(directory=tmp_path)
    assert find(discovery, "alice@127.0.0.1") == [("127.0.0.1", 17001)]
    discovery.publish("alice@127.0.0.1", 17002)
    assert find(discovery, "alice@127.0.0.1") == [("127.0.0.1", 17002)]


def test_names_lists_table_and_files(tmp_path: Path) -> None:
    discovery = Discovery(static={BOB: ("192.0.2.7", 7)}, directory=tmp_path)
    discovery.publish("alice@127.0.0.1", 1)
    (tmp_path / "noname.endpoint").write_text('{"h",1}.')
    (tmp_path / "eve@h.endpoint").write_text("garbage")
    assert discovery.names() == ["alice@127.0.0.1", BOB]


def test_garbage_is_logged_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / f"{BOB}.endpoint").write_bytes(b"\xff" * 100_000)
    with caplog.at_level(logging.WARNING):
        assert find(Discovery(directory=tmp_path, resolve=two_addresses))[0] == ("192.0.2.1", 4433)
    assert "endpoint" in caplog.text


@pytest.mark.parametrize(
    ("data", "entry"),
    [
        (b'{"127.0.0.1",17001}.', ("127.0.0.1", 17001)),
        (b'\n { "bobs.example" , 1 } . \n', ("bobs.example", 1)),
        (b'{<<"10.0.0.1">>,80}.', ("10.0.0.1", 80)),
        (b"{{10,0,0,1},80}.", ("10.0.0.1", 80)),
        (b"{{0,0,0,0,0,0,0,1},80}.", ("::1", 80)),
        (b"{{256,0,0,1},80}.", None),
        (b"{{1,2,3},80}.", None),
        (b'{"h",0}.', None),
        (b'{"h",65536}.', None),
        (b'{"h",1}', None),
        (b'{"",1}.', None),
        (b'{"a\nb",1}.', None),
        (b'{"h",1}. {"i",2}.', None),
        (b"", None),
    ],
)
def test_endpoint_files(data: bytes, entry: Address | None) -> None:
    assert parse_endpoint(data) == entry


@pytest.mark.parametrize("entry", ["10.0.0.1:9", ("10.0.0.1",), ("", 1), ("h", 0), ("h", 65536), ("h", "1"), None])
def test_a_bad_static_entry_is_refused(entry: object) -> None:
    with pytest.raises(ConfigError, match=BOB):
        Discovery(static={BOB: entry})  # type: ignore[dict-item]


def test_a_directory_that_cant_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/discovery: Not a directory; choose another discovery_dir"):
        Discovery(directory=tmp_path / "file" / "discovery")
