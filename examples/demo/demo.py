"""Three nodes as three OS processes on this machine, shown step by step. Exit status 0 only if every step happened.

Run it with ``make demo``. What the nodes do is in ``member.py``; this script starts them, prints what they print,
kills one when the time has come, and checks that no step is missing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

LIMIT_SECONDS = 60
HERE = Path(__file__).parent


class Failed(Exception):
    pass


class Member:
    """An OS process that runs one node."""

    def __init__(self, role: str, process: asyncio.subprocess.Process) -> None:
        self.role = role
        self.process = process
        self.reached: asyncio.Queue[str] = asyncio.Queue()

    @classmethod
    async def start(cls, role: str, name: str, directory: Path) -> Member:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "member.py"),
            role,
            name,
            str(directory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(role, process)

    async def relay(self, steps: Steps) -> None:
        """Print what the member prints; its ``@`` lines are for us."""
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            line = raw.decode().rstrip()
            word, _, rest = line.partition(" ")
            if word == "@failed":
                raise Failed(f"{self.role}: {rest}")
            if word == "@step":
                steps.next(rest)
            elif word == "@node":
                name, port, key, pid = rest.split()
                print(f"   {name:<18} UDP port {port:<6} key {key}  (OS process {pid})")
            elif word.startswith("@"):
                self.reached.put_nowait(word)
            else:
                print(f"   [{self.role}] {line}")
        self.reached.put_nowait("@gone")

    async def reach(self, mark: str) -> None:
        found = await self.reached.get()
        if found != mark:
            raise Failed(f"{self.role} should have come to {mark}, but is at {found}")

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)


class Steps:
    def __init__(self) -> None:
        self.count = 0

    def next(self, text: str) -> None:
        self.count += 1
        print(f"\n{self.count}. {text[0].upper()}{text[1:]}")


async def run(directory: Path) -> int:
    steps = Steps()
    members: dict[str, Member] = {}

    async with asyncio.TaskGroup() as relays:

        async def start(role: str, name: str) -> Member:
            member = await Member.start(role, name, directory)
            members[role] = member
            relays.create_task(member.relay(steps))
            return member

        try:
            steps.next("three nodes start, each with a key of its own")
            bob = await start("bob", "bob@127.0.0.1")
            await bob.reach("@ready")
            carol = await start("carol", "carol@127.0.0.1")
            await carol.reach("@ready")
            alice = await start("alice", "alice@127.0.0.1")
            await alice.reach("@ready")
            alice.go_on()

            await alice.reach("@kill-carol")
            carol.kill()
            print(f"   kill -9 {carol.process.pid}  (carol's OS process)")
            await alice.reach("@start-impostor")
            impostor = await start("impostor", "carol@127.0.0.1")
            await impostor.reach("@refused")
            await impostor.process.wait()
            alice.go_on()
            if await alice.process.wait() != 0:
                raise Failed(f"alice ended with exit status {alice.process.returncode}")
        finally:
            for member in members.values():
                member.kill()
    return steps.count


async def main() -> int:
    started, failed, steps = time.monotonic(), True, 0
    print("barrel_p2p: Erlang's processes in Python, over one authenticated QUIC connection per peer")
    with tempfile.TemporaryDirectory(prefix="barrel-demo-") as directory:
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                steps = await run(Path(directory))
        except* (Failed, TimeoutError) as group:
            for error in group.exceptions:
                print(f"\nFAILED: {error or f'not done after {LIMIT_SECONDS} s'}", file=sys.stderr)
        else:
            failed = False
    if failed:
        return 1
    print(f"\nAll {steps} steps happened, in {time.monotonic() - started:.1f} s. Next: docs/tutorials/first-cluster.md")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
