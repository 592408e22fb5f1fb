"""Time limits of calls that share timers: each fires when it is due, and nothing stays behind."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p.process.deadlines import EXPIRED, MOST_LIMITS, Deadlines, Kept


class Clock:
    """As much of an event loop as timers need, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, int, Timer]] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *args: Any) -> Timer:
        self.made += 1
        timer = Timer(callback, args)
        heapq.heappush(self.timers, (when, self.made, timer))
        return timer

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> Timer:
        return self.call_at(self.now + delay, callback, *args)

    def run_until(self, end: float) -> None:
        while self.timers and self.timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self.timers)
            if timer.callback is not None:
                timer.callback(*timer.args)
        self.now = end


class Timer:
    def __init__(self, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., None] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None


class Answer:
    """As much of a future as a limit needs; notes when it got its result."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.result: Any = None
        self.at: float | None = None

    def done(self) -> bool:
        return self.at is not None

    def set_result(self, result: Any) -> None:
        assert self.at is None
        self.result, self.at = result, self.clock.now


def answer(deadlines: Deadlines, one: Answer, kept: Kept) -> None:
    one.set_result("answer")
    deadlines.remove(cast("asyncio.Future[Any]", one), kept)


def deadlines_of(clock: Clock) -> Deadlines:
    return Deadlines(cast(asyncio.AbstractEventLoop, clock))


def future(clock: Clock) -> asyncio.Future[Any]:
    return cast("asyncio.Future[Any]", Answer(clock))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 50]),  # pause before the call
            st.sampled_from([0, 1, 5, 5, 5, 60]),  # its limit
            st.one_of(st.none(), st.integers(0, 70)),  # when it is answered, after it was made
        ),
        max_size=40,
    )
)
def test_each_call_without_an_answer_expires_exactly_when_it_is_due(calls: list[tuple[int, int, int | None]]) -> None:
    clock = Clock()
    deadlines = deadlines_of(clock)
    made: list[tuple[Answer, int, float, int | None]] = []
    for pause, limit, answered in calls:
        clock.run_until(clock.now + pause)
        one = Answer(clock)
        kept = deadlines.add(cast("asyncio.Future[Any]", one), limit)
        made.append((one, limit, clock.now, answered))
        if answered is not None and answered < limit:
            clock.call_later(
                answered, lambda one=one, kept=kept: (one.set_result("answer"), deadlines.remove(one, kept))
            )
    clock.run_until(clock.now + 1000)
    for one, limit, begun, answered in made:
        if answered is not None and answered < limit:
            assert (one.result, one.at) == ("answer", begun + answered)
        else:
            assert (one.result, one.at) == (EXPIRED, begun + limit)
    assert not clock.timers, "no timer may stay once all calls are over"


def test_calls_with_the_same_limit_share_one_timer() -> None:
    clock = Clock()
    deadlines = deadlines_of(clock)
    for _ in range(1000):
        one = future(clock)
        deadlines.remove(one, deadlines.add(one, 5.0))
    assert len(clock.timers) == 1


def test_limits_that_all_differ_get_timers_that_go_with_their_calls() -> None:
    clock = Clock()
    deadlines = deadlines_of(clock)
    for number in range(10 * MOST_LIMITS):
        one = future(clock)
        deadlines.remove(one, deadlines.add(one, 5.0 + number / 1000))
    assert sum(timer.callback is not None for _, _, timer in clock.timers) == MOST_LIMITS
