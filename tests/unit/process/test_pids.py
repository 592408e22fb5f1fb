"""Pids of a node that has started more processes than a pid has numbers for."""

from __future__ import annotations

import asyncio

import pytest

from barrel_p2p import Pid, is_alive, receive, self_pid, send, spawn
from barrel_p2p.process import runtime as runtime_module
from harness.processes import in_process


def test_numbers_come_again_with_the_next_serial_and_never_those_of_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "MAX_ID", 4)
    monkeypatch.setattr(runtime_module, "MAX_SERIAL", 1)

    async def waits() -> None:
        await receive()

    async def ends() -> None:
        pass

    async def test() -> None:
        living: list[Pid] = [self_pid(), spawn(waits)]
        seen = set()
        for _ in range(20):
            pid = spawn(ends)
            assert pid not in living and 1 <= pid.id <= 4 and pid.serial in (0, 1)
            seen.add(pid)
            await asyncio.sleep(0)
        assert len(seen) == 2 * 4 - len(living), "every number but those of the living is used"
        assert all(map(is_alive, living))
        send(living[1], "end")

    in_process(test)
