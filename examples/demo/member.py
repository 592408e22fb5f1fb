"""One node of the demo, in an OS process of its own: ``member.py ROLE NAME DIRECTORY``.

What it prints is what its node did. A line that starts with ``@`` is for the script that runs the demo.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from barrel_p2p import (
    Atom,
    AuthError,
    GenServer,
    Node,
    call,
    link,
    monitor,
    process_flag,
    receive,
    register,
    self_pid,
    send,
    spawn,
)


def say(text: str) -> None:
    print(text, flush=True)


class Counter(GenServer):
    async def init(self, start: int = 0) -> None:
        self.n = start

    async def handle_call(self, request: Any, from_: Any) -> int:
        self.n += request
        return self.n


async def echo() -> None:
    while True:
        sender, text = await receive()
        send(sender, ("echo", f"{text}, dear {sender.node} (OS process {os.getpid()} speaking)"))


async def sleeper() -> None:
    await receive(match=lambda message: message == "never sent")


async def bob() -> None:
    register("echo", spawn(echo))
    await Counter.start_link(40, name="counter")
    say("@ready")
    await asyncio.sleep(60)


async def carol() -> None:
    register("sleeper", spawn(sleeper))
    say("@ready")
    await asyncio.sleep(60)


async def alice(node: Node, directory: Path) -> None:
    """Meets bob, then carol, and sees carol die."""
    bob, carol = Atom("bob@127.0.0.1"), Atom("carol@127.0.0.1")
    say("@ready")
    await stdin_line()

    say("@step alice connects to bob")
    await node.connect(bob)

    say("@step a message to a pid on another node, and its answer")
    echo_pid = await node.rpc(bob, "demo", "pid_of", ["echo"])
    say(f"alice asked bob which pid is registered as 'echo': {echo_pid}")
    send(echo_pid, (self_pid(), "hello from alice"))
    _, answer = await receive(timeout=5)
    say(f"alice sent 'hello from alice' to {echo_pid} and got: {answer!r}")

    say("@step a gen_server call")
    total = await call(("counter", bob), 2)
    say(f"alice called the gen_server 'counter' on bob with 2; it counted from 40 to {total}")
    check(total == 42, f"the counter said {total}")

    say("@step a link and a monitor fire when carol is killed with SIGKILL")
    process_flag("trap_exit", True)
    sleeper_pid = await node.rpc(carol, "demo", "pid_of", ["sleeper"])
    link(sleeper_pid)
    reference = monitor(sleeper_pid)
    check(await node.ping(carol), "carol does not answer a ping")
    say(f"alice linked to and monitors {sleeper_pid}")
    say("@kill-carol")
    killed_at = time.monotonic()
    reasons = {}
    while len(reasons) < 2:
        message = await receive(timeout=10)
        after = (time.monotonic() - killed_at) * 1000
        match message:
            case ("EXIT", pid, reason) if pid == sleeper_pid:
                reasons["link"] = reason
                say(f"the link fired after {after:.0f} ms:    ('EXIT', {pid}, {reason!r})")
            case ("DOWN", ref, "process", pid, reason) if ref == reference:
                reasons["monitor"] = reason
                say(f"the monitor fired after {after:.0f} ms: ('DOWN', {ref}, 'process', {pid}, {reason!r})")
    check(set(reasons.values()) == {Atom("noconnection")}, f"wrong reasons: {reasons}")

    say("@step a stranger with another key says it is carol")
    say("@start-impostor")
    await stdin_line()


async def impostor(node: Node) -> None:
    """Has carol's name but not her key."""
    try:
        await node.connect("alice@127.0.0.1")
    except AuthError as error:
        say("the stranger was refused: its key is not the one that alice has pinned for carol")
        check(error.reason == "rejected:key_mismatch", f"refused, but for another reason: {error}")
        say("@refused")
        return
    check(False, "alice let the stranger in")


def pid_of(name: str) -> Any:
    """Which process has this name here? Exported, so that other nodes may ask."""
    from barrel_p2p import whereis

    return whereis(name)


def check(ok: bool, otherwise: str) -> None:
    if not ok:
        say(f"@failed {otherwise}")
        sys.exit(1)


async def stdin_line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


class SayWhatTheNodeDid(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


async def main(role: str, name: str, directory: Path) -> None:
    log = logging.getLogger("barrel_p2p.connect")
    log.setLevel(logging.INFO)
    log.addHandler(SayWhatTheNodeDid())
    log.propagate = False
    async with Node(
        name,
        data_dir=directory / (role if role == "impostor" else name),
        discovery_dir=directory / "discovery",
        cookie="demo",
    ) as node:
        node.export(pid_of, module="demo")
        say(f"@node {name} {node.listen_address[1]} {node.keys.fingerprint} {os.getpid()}")
        match role:
            case "alice":
                await alice(node, directory)
            case "bob":
                await bob()
            case "carol":
                await carol()
            case "impostor":
                await impostor(node)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
