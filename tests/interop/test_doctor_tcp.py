"""``barrel ping``, ``call`` and ``doctor`` over TCP: a stock Erlang node, and peers that refuse as none does."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from barrel_p2p import Atom
from barrel_p2p.proto import handshake_messages as wire
from barrel_p2p.proto.flags import DEFAULT, Flags
from harness.erlang import COOKIE, Epmd, Erlang, free_port
from harness.shell import Shell, failed, marks
from harness.tcp_peer import Listener, Peer

ERL = "erl@127.0.0.1"
BOB = Atom("bob@127.0.0.1")


@pytest.fixture(scope="module")
def erlang(epmd: Epmd) -> Iterator[Erlang]:
    with Erlang(epmd, "erl") as erlang:
        yield erlang


@pytest.fixture
def shell(epmd: Epmd, tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        shell.environ |= {
            "ERL_EPMD_PORT": str(epmd.port),
            "BARREL_COOKIE": COOKIE,
            "BARREL_PROTO_DIST": "inet_tcp",
            "COLUMNS": "120",
        }
        yield shell


def doctor(shell: Shell, *words: str) -> tuple[list[str], str]:
    """A visit that fails: the step, and the text with its line breaks taken out."""
    text = shell.run("doctor", *words, status=3)
    return failed(text), " ".join(text.split())


# --- what works -------------------------------------------------------------------------------------------------------


def test_ping_and_call(erlang: Erlang, shell: Shell) -> None:
    assert shell.run("ping", ERL).startswith(f"pong from {ERL}")
    assert shell.run("call", ERL, "lists", "reverse", "[1, 2, 300]") == "[300, 2, 1]\n"
    assert shell.run("call", ERL, "erlang", "node") == f":{ERL}\n"
    text = shell.run("call", ERL, "erlang", "error", ":oops", status=1)
    assert "kind    error" in text and "reason  :oops" in text
    assert shell.run("call", ERL, "no", "such", status=1).startswith(f"barrel: {ERL} has no no:such/0")


def test_all_is_well(erlang: Erlang, shell: Shell) -> None:
    text = shell.run("doctor", ERL)
    assert marks(text) == dict.fromkeys(
        ["address", "epmd", "transport", "name", "flags", "cookie", "round trip"], "✓"
    ), text
    assert "an Erlang node, visible in nodes()" in text and "not reached" not in text
    assert re.search(r"epmd +127\.0\.0\.1:\d+ knows erl: it listens on port \d+$", text, re.MULTILINE)


def test_hidden_and_short_names(epmd: Epmd, shell: Shell) -> None:
    with Erlang(epmd, "lurker", "-hidden") as hidden:
        assert "an Erlang node, hidden" in shell.run("doctor", hidden.name)
    with Erlang(epmd, "shorty", short=True) as short:
        shell.run("doctor", short.name)
        steps, text = doctor(shell, short.name, "--as", "me@127.0.0.1")
        assert steps == ["name"] and "short and with a long name don't talk" in text
        steps, text = doctor(shell, "shorty@127.0.0.1")
        assert steps == ["name"] and "barrel doctor shorty@localhost --proto-dist inet_tcp" in text


# --- epmd and the port ------------------------------------------------------------------------------------------------


def test_a_host_that_does_not_resolve(shell: Shell) -> None:
    steps, text = doctor(shell, "erl@no-such-host.invalid")
    assert steps == ["address"] and "does not resolve" in text and "whose fault: ours" in text


def test_no_epmd_here(shell: Shell) -> None:
    steps, text = doctor(shell, ERL, "--epmd-port", str(free_port()))
    assert steps == ["epmd"] and "Connection refused" in text and "epmd -daemon" in text and "--start-epmd" in text


def test_no_epmd_there(erlang: Erlang, shell: Shell) -> None:
    steps, text = doctor(shell, "erl@127.0.0.2")  # our own listens on 127.0.0.1 alone
    assert steps == ["epmd"] and "no epmd answers at 127.0.0.2" in text and "epmd -names" in text


def test_a_name_that_epmd_does_not_know(erlang: Erlang, shell: Shell) -> None:
    steps, text = doctor(shell, "nobody@127.0.0.1")
    assert steps == ["epmd"] and "does not know nobody it knows erl, on port" in text and "barrel-" in text
    assert "it knows barrel-" not in text, "this command itself is no help"


def test_a_port_where_nobody_listens(shell: Shell) -> None:
    steps, text = doctor(shell, ERL, "--peers", f"{ERL}=127.0.0.1:9")
    assert steps == ["transport"] and "nobody listens there" in text and "- epmd not asked" in text


# --- refusals of a stock node -----------------------------------------------------------------------------------------


def test_another_cookie(erlang: Erlang, shell: Shell) -> None:
    steps, text = doctor(shell, ERL, "--cookie", "wrong")
    assert steps == ["cookie"] and ".erlang.cookie" in text and "not reached: round trip" in text
    assert "its cookie differs from ours" in shell.run("ping", ERL, "--cookie", "wrong", status=3)


def test_the_port_of_another_node(erlang: Erlang, shell: Shell) -> None:
    port = erlang.eval('{ok, Known} = erl_epmd:names({127, 0, 0, 1}), proplists:get_value("erl", Known).')
    steps, text = doctor(shell, BOB, "--peers", f"{BOB}=127.0.0.1:{port}")
    assert steps == ["name"] and f"the node there is called {ERL}" in text
    assert f"barrel doctor {ERL} --proto-dist inet_tcp" in text


def test_a_name_that_is_not_allowed_there(epmd: Epmd, shell: Shell) -> None:
    with Erlang(epmd, "choosy") as choosy:
        assert choosy.eval("net_kernel:allow(['someone@127.0.0.1']).") == "ok"
        steps, text = doctor(shell, choosy.name)
        assert steps == ["name"] and "net_kernel:allow/1 was called there" in text
        shell.run("doctor", choosy.name, "--as", "someone@127.0.0.1")


def test_a_name_in_use(erlang: Erlang, shell: Shell) -> None:
    text = shell.run("doctor", ERL, "--as", ERL, status=2)
    assert "epmd on this host already knows a node erl; choose another name" in text


def test_a_node_that_is_stopped(epmd: Epmd, shell: Shell) -> None:
    with Erlang(epmd, "frozen") as frozen:
        frozen.signal(signal.SIGSTOP)
        steps, text = doctor(shell, frozen.name, "--setup-timeout-ms", "500")
        assert steps == ["name"] and "silent for 0.5 s" in text


def test_a_node_that_speaks_tls(epmd: Epmd, shell: Shell) -> None:
    with Erlang(epmd, "secret", "-proto_dist", "inet_tls") as secret:
        steps, text = doctor(shell, secret.name)
        assert steps == ["name"] and "-proto_dist inet_tls" in text


def test_the_doctor_over_quic_knows_a_stock_node_when_it_sees_one(erlang: Erlang, shell: Shell) -> None:
    steps, text = doctor(shell, ERL, "--proto-dist", "barrel_p2p")
    assert steps == ["transport"] and "add --proto-dist inet_tcp" in text


# --- refusals that no stock node can be brought to --------------------------------------------------------------------


def visit(shell: Shell, *answers: bytes) -> tuple[list[str], str]:
    """Visit a peer that answers each message of ours with one of these, and closes then."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.told()
            peer.writer.write(answer)
        await peer.told()
        peer.close()

    async def main() -> tuple[list[str], str]:
        async with Listener(script) as listener:
            host, port = listener.address
            return await asyncio.to_thread(doctor, shell, BOB, "--peers", f"{BOB}={host}:{port}")

    return asyncio.run(main())


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def test_missing_flags_are_named(shell: Shell) -> None:
    lacking = DEFAULT & ~Flags.MANDATORY_25_DIGEST & ~Flags.UTF8_ATOMS & ~Flags.UNLINK_ID
    steps, text = visit(shell, framed(b"sok") + framed(wire.challenge(lacking, 9, 5, BOB)))
    assert steps == ["flags"] and "missing UTF8_ATOMS missing UNLINK_ID" in text and "OTP 25 or newer" in text


def test_an_old_handshake(shell: Shell) -> None:
    steps, text = visit(shell, framed(b"sok") + framed(b"n\0\x05" + bytes(8) + BOB.encode()))
    assert steps == ["flags"] and "OTP 25 or newer is needed" in text


def test_both_dial_at_once_and_the_other_connection_never_comes(shell: Shell) -> None:
    shell.environ |= {"BARREL_SETUP_TIMEOUT_MS": "300"}
    steps, text = visit(shell, framed(b"snok"))
    assert steps == ["transport"] and "never comes" in text


def test_who_is_still_connected_there_says_that_the_old_connection_is_dead(shell: Shell) -> None:
    """Status ``alive``: we know better, and go on; here up to a wrong cookie."""
    steps, _ = visit(shell, framed(b"salive"), framed(wire.challenge(DEFAULT, 9, 5, BOB)), framed(b"a" + bytes(16)))
    assert steps == ["cookie"]
