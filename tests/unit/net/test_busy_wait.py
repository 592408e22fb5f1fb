"""When the loop is kept from sleeping, by turns of a loop whose clock the test moves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest

from barrel_p2p.net import busy_wait
from barrel_p2p.net.busy_wait import MOST_REST, BusyWait

TURN = 10e-6  # seconds
WAIT_US = 50


class Turns:
    """As much of an event loop as a wait needs; it would sleep when nothing is scheduled."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ready: deque[Callable[[], None]] = deque()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def turn(self) -> None:
        self.now += TURN
        for _ in range(len(self.ready)):
            self.ready.popleft()()

    def turns_until_sleep(self) -> int:
        for number in range(1000):
            if not self.ready:
                return number
            self.turn()
        raise AssertionError("it never sleeps")


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Turns:
    monkeypatch.setattr(busy_wait, "_cores", lambda: 2)
    return Turns()


def wait_of(loop: Turns, microseconds: int = WAIT_US) -> BusyWait:
    return BusyWait(cast(asyncio.AbstractEventLoop, loop), microseconds)


def test_after_messages_the_loop_turns_for_the_whole_wait(loop: Turns) -> None:
    wait = wait_of(loop)
    wait.messages_came()
    assert WAIT_US * 1e-6 / TURN <= loop.turns_until_sleep() <= WAIT_US * 1e-6 / TURN + 3


def test_messages_during_the_wait_begin_it_anew_and_nothing_is_sat_out(loop: Turns) -> None:
    wait = wait_of(loop)
    for _ in range(100):
        wait.messages_came()
        loop.turn()
        loop.turn()
        assert loop.ready, "it may not sleep while messages come"
    loop.turns_until_sleep()
    assert wait.rest == 0
    wait.messages_came()
    assert loop.ready


def test_waits_in_vain_become_rare(loop: Turns) -> None:
    wait, waits = wait_of(loop), 0
    for _ in range(10 * MOST_REST):
        wait.messages_came()
        waits += bool(loop.ready)
        loop.turns_until_sleep()
        loop.now += 1.0
    doublings = MOST_REST.bit_length()
    assert doublings <= waits <= doublings + 10


def test_waits_that_pay_shorten_the_rests_step_by_step(loop: Turns) -> None:
    wait = wait_of(loop)
    while wait.rest < 4:
        wait.messages_came()
        loop.turns_until_sleep()
    rests = []
    while wait.rest:
        for _ in range(wait.rest):
            wait.messages_came()
            assert not loop.ready
        for _ in range(2):
            wait.messages_came()
            loop.turn()
        loop.turns_until_sleep()
        rests.append(wait.rest)
    assert rests == [2, 1, 0]


@pytest.mark.parametrize(("cores", "microseconds"), [(1, WAIT_US), (2, 0)])
def test_on_one_core_or_when_it_is_switched_off_the_loop_sleeps_at_once(
    loop: Turns, monkeypatch: pytest.MonkeyPatch, cores: int, microseconds: int
) -> None:
    monkeypatch.setattr(busy_wait, "_cores", lambda: cores)
    wait = wait_of(loop, microseconds)
    wait.messages_came()
    assert not loop.ready


def test_a_real_loop_sleeps_again(loop: Turns) -> None:
    async def turns_in(seconds: float) -> int:
        count, over = 0, False

        def count_turn(*_: Any) -> None:
            nonlocal count
            count += 1
            if not over:
                running.call_later(seconds / 10, count_turn)

        running = asyncio.get_running_loop()
        wait = BusyWait(running, WAIT_US)
        wait.messages_came()
        count_turn()
        await asyncio.sleep(seconds)
        over = True
        return count

    assert asyncio.run(turns_in(0.05)) <= 15
