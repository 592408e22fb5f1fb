"""A clock that can't be right is told, once, with what to do about it."""

from __future__ import annotations

import logging

import pytest

from barrel_p2p.crdt.hlc import Clock
from barrel_p2p.node.clock_watch import ClockWatch
from barrel_p2p.term.types import Atom

WALL_MS = 1_795_337_344_000
HOUR_MS = 3_600_000


class Host:
    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = ClockWatch(Atom("me@h"), self.clock)
        self.passed = 0
        self.wrong_ms = 0

    def look(self) -> None:
        self.passed += 1
        wall_ms = WALL_MS + self.passed * 1000 + self.wrong_ms
        self.clock.now(wall_ms)  # something is written
        self.watch.look(monotonic_s=float(self.passed), wall_ms=wall_ms)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    found = [(record.levelno, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_a_clock_that_runs_and_is_corrected_by_seconds_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    for wrong in (0, 500, -20_000, 30_000, 0):
        host.wrong_ms = wrong
        host.look()
    assert said(caplog) == []


@pytest.mark.parametrize(("hours", "way"), [(5, "ahead by 5:00:00"), (-5, "back by 5:00:00")])
def test_a_jump_is_told_when_it_happens(caplog: pytest.LogCaptureFixture, hours: int, way: str) -> None:
    host = Host()
    host.look()
    host.wrong_ms = hours * HOUR_MS
    host.look()
    [(level, text)] = said(caplog)
    assert level == logging.WARNING and way in text
    host.look()
    assert said(caplog) == []


def test_stamps_that_others_refuse_are_an_error_until_the_clock_has_caught_up(caplog: pytest.LogCaptureFixture) -> None:
    """The clock was two days ahead and was set right: stamps never go back."""
    host = Host()
    host.look()
    host.wrong_ms = 48 * HOUR_MS
    host.look()
    host.wrong_ms = 0
    said(caplog)
    host.look()
    errors = [text for level, text in said(caplog) if level == logging.ERROR]
    assert len(errors) == 1 and "1 day, 23:59:59" in errors[0] and "maps/" in errors[0]
    host.look()
    assert said(caplog) == []
    host.wrong_ms = 25 * HOUR_MS  # a day later
    host.look()
    assert not [text for level, text in said(caplog) if level == logging.ERROR]
