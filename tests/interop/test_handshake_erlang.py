"""Our handshake with real Erlang nodes over TCP: digest, flags and refusals as OTP itself has them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from barrel_p2p.proto.flags import DEFAULT, HIDDEN, MANDATORY, Flags
from barrel_p2p.proto.handshake import (
    Connected,
    Framing,
    HandshakeAcceptor,
    HandshakeConfig,
    HandshakeDialer,
    PeerNamed,
)
from barrel_p2p.proto.machine import Failed
from barrel_p2p.term.types import Atom
from harness.erlang import COOKIE, Epmd, tool
from pairs import events_of

PYTHON = Atom("python@127.0.0.1")
PATIENCE = 20.0  # seconds for one answer of a node on a busy machine


@contextmanager
def erlang_node(epmd: Epmd, alive: str, then: str = "ok") -> Iterator[subprocess.Popen[bytes]]:
    """``erl -name`` that says ready and evaluates ``then``; what it logs comes out of ``stdout``."""
    options = ["-noinput", "-name", f"{alive}@127.0.0.1", "-setcookie", COOKIE]
    options += ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
    node = subprocess.Popen(
        [tool("erl"), *options, "-eval", f'io:format("ready~n"), {then}.'],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=epmd.environment,
    )
    try:
        assert node.stdout is not None
        assert node.stdout.readline() == b"ready\n"
        yield node
    finally:
        node.kill()
        node.wait()
        assert node.stdout is not None
        node.stdout.close()


@pytest.fixture(scope="module")
def erlang(epmd: Epmd) -> Iterator[tuple[Atom, int, subprocess.Popen[bytes]]]:
    with erlang_node(epmd, "erlang") as node:
        yield Atom("erlang@127.0.0.1"), epmd.port_of("erlang"), node


def config(**options: object) -> HandshakeConfig:
    settings = {"name": PYTHON, "cookie": COOKIE, "creation": 5, "framing": Framing.LENGTH16, **options}
    return HandshakeConfig(**settings)  # type: ignore[arg-type]


def drive(
    machine: HandshakeDialer | HandshakeAcceptor, tcp: socket.socket
) -> tuple[list[PeerNamed | Connected | Failed], HandshakeDialer | HandshakeAcceptor]:
    """Move bytes until the handshake ends; answers ``ok`` to a name."""
    seen: list[PeerNamed | Connected | Failed] = []
    tcp.settimeout(PATIENCE)
    while not seen or isinstance(seen[-1], PeerNamed):
        for message in machine.data_to_send():
            tcp.sendall(message)
        data = tcp.recv(4096)
        if data:
            machine.receive_data(data, now=0.0)
        else:
            machine.connection_lost("end of stream")
        for event in events_of(machine):
            seen.append(event)
            if isinstance(event, PeerNamed):
                machine.answer("ok", now=0.0)  # type: ignore[union-attr]
    for message in machine.data_to_send():
        tcp.sendall(message)
    return seen, machine


def dial(port: int, peer: Atom, setup: HandshakeConfig) -> Connected | Failed:
    machine = HandshakeDialer(setup, peer=peer, challenge=os.urandom(4), now=0.0)
    with socket.create_connection(("127.0.0.1", port)) as tcp:
        (event,), _ = drive(machine, tcp)
    assert isinstance(event, Connected | Failed)
    return event


def log_until(node: subprocess.Popen[bytes], word: str) -> str:
    """Read the node's log up to a line with ``word`` (pytest's timeout is the bound)."""
    assert node.stdout is not None
    lines = []
    for line in node.stdout:
        lines.append(line.decode())
        if word in lines[-1]:
            break
    return "".join(lines)


Erlang = tuple[Atom, int, "subprocess.Popen[bytes]"]

# What a node without any of the eleven old flags may send since OTP 25.
DIGEST_ONLY = Flags.MANDATORY_25_DIGEST | Flags.V4_NC | Flags.UNLINK_ID


@pytest.mark.parametrize(
    "flags", [DEFAULT, HIDDEN, MANDATORY, DIGEST_ONLY], ids=["default", "hidden", "least", "digest"]
)
def test_we_dial_erlang(erlang: Erlang, flags: Flags) -> None:
    name, port, _ = erlang
    # A name for each, since a node that just left may still count as connected.
    event = dial(port, name, config(name=Atom(f"python{int(flags)}@127.0.0.1"), flags=flags))
    assert isinstance(event, Connected), event
    assert event.peer == name and event.creation > 0
    assert MANDATORY & ~event.flags == 0 and Flags.PYTHON not in event.flags
    assert event.chosen == flags & event.flags


def test_erlang_refuses_a_wrong_cookie(erlang: Erlang) -> None:
    name, port, node = erlang
    event = dial(port, name, config(name=Atom("thief@127.0.0.1"), cookie="wrong"))
    assert isinstance(event, Failed) and event.reason == "closed" and "cookie differs" in event.message
    assert "thief@127.0.0.1" in log_until(node, "Invalid challenge reply")


def test_erlang_refuses_a_missing_flag_and_names_the_one_we_name(erlang: Erlang) -> None:
    name, port, node = erlang
    offered = DEFAULT & ~(Flags.BIG_CREATION | Flags.MANDATORY_25_DIGEST)
    event = dial(port, name, config(name=Atom("old@127.0.0.1"), flags=offered))
    assert isinstance(event, Failed) and event.reason == "not_allowed" and "flag" in event.message
    assert "old@127.0.0.1" in log_until(node, "BIG_CREATION")


def test_we_notice_that_another_node_answers(erlang: Erlang) -> None:
    _, port, _ = erlang
    event = dial(port, Atom("somebody@127.0.0.1"), config(name=Atom("lost@127.0.0.1")))
    assert isinstance(event, Failed) and event.reason == "name_mismatch" and "erlang@127.0.0.1" in event.message


@pytest.mark.parametrize("cookie", [COOKIE, "wrong"])
def test_erlang_dials_us(epmd: Epmd, cookie: str) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(PATIENCE)
        stack.enter_context(epmd.register("python", listener.getsockname()[1]))
        then = f"io:format(\"~p~n\", [net_kernel:connect_node('{PYTHON}')])"
        node = stack.enter_context(erlang_node(epmd, "caller", then))
        tcp, _ = listener.accept()
        stack.enter_context(tcp)
        machine = HandshakeAcceptor(config(cookie=cookie), challenge=os.urandom(4), now=0.0)
        (named, end), _ = drive(machine, tcp)
        assert isinstance(named, PeerNamed) and named.name == "caller@127.0.0.1"
        if cookie == COOKIE:
            assert isinstance(end, Connected) and MANDATORY & ~end.chosen == 0
            assert "true" in log_until(node, "true")
        else:
            assert isinstance(end, Failed) and end.reason == "bad_cookie"
            tcp.close()
            assert "false" in log_until(node, "false")
