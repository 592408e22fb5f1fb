"""Tells when the clock of this host can't be right: other nodes then refuse what we say, and nobody here would notice.

Three things depend on wall time: nodes of which the clocks differ by more than a minute refuse each other when they
connect; writes to maps and the registry are stamped with it, and refused if they are more than a day ahead; so is the
word of a node that it lives. A clock that was far ahead for a while leaves its mark after it was set right: stamps only
grow.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Final

from barrel_p2p.crdt import hlc
from barrel_p2p.crdt.wire import MAX_AHEAD_MS
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.clock")

JUMP_MS: Final = hlc.MAX_AHEAD_MS  # a minute: what nodes that connect allow each other, too


class ClockWatch:
    """Looks at the clocks whenever it is told to::

        watch = ClockWatch(name, clock)
        watch.look(monotonic_s=loop.time(), wall_ms=wall_ms())

    Args:
        name: our node name.
        clock: what stamps our writes.
    """

    def __init__(self, name: Atom, clock: hlc.Clock) -> None:
        self._name = name
        self._clock = clock
        self._offset_ms: int | None = None  # of wall time from the monotonic one, at the last look
        self._ahead = False  # and told so

    def look(self, *, monotonic_s: float, wall_ms: int) -> None:
        offset_ms = wall_ms - int(monotonic_s * 1000)
        moved_ms = 0 if self._offset_ms is None else offset_ms - self._offset_ms
        self._offset_ms = offset_ms
        if abs(moved_ms) > JUMP_MS:
            log.warning(
                "the clock of this host moved %s by %s: it was set, or the host slept. Nodes whose clocks differ by "
                "more than a minute refuse each other: see that it is right, and that NTP keeps it so",
                "ahead" if moved_ms > 0 else "back",
                _span(abs(moved_ms)),
            )
        ahead_ms = hlc.wall_ms(self._clock.last) - wall_ms
        if ahead_ms <= MAX_AHEAD_MS:
            self._ahead = False
        elif not self._ahead:
            self._ahead = True
            until = time.strftime("%Y-%m-%d %H:%M", time.gmtime((wall_ms + ahead_ms - MAX_AHEAD_MS) / 1000))
            log.error(
                "the stamps of %s are %s ahead of this host's clock, which was wrong before or is wrong now: until %s "
                "UTC other nodes refuse what is written here to maps and the registry. If the clock is right now, stop "
                "the node, delete the files in maps/ of its data_dir, and start it: its maps come back from the "
                "other nodes, without what was written here while the clock was wrong",
                self._name,
                _span(ahead_ms),
                until,
            )


def _span(ms: int) -> str:
    return str(timedelta(seconds=ms // 1000))


__all__ = ["ClockWatch"]
