"""Arguments of the wrong type: an error at once that says what is wanted, instead of a wait or an AttributeError."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

import pytest

from barrel_p2p import (
    call,
    exit,
    is_alive,
    link,
    monitor,
    receive,
    register,
    self_pid,
    send_after,
    spawn,
    unlink,
)
from harness.processes import in_process


async def idle() -> None:
    await receive()


@pytest.mark.parametrize(
    "use, says",
    [
        (lambda: receive(5), r"match must be a function of a message, not 5; seconds go by name: timeout="),
        (lambda: link("counter"), r"link needs a pid, not 'counter'; whereis\('counter'\) finds it"),
        (lambda: unlink(None), "unlink needs a pid, not None"),
        (lambda: exit("counter", "shutdown"), r"exit\(pid, reason\) needs a pid, not 'counter'"),
        (lambda: is_alive(5), "is_alive needs a pid, not 5"),
        (lambda: monitor(None), r"monitor needs a pid, a name or a \(name, node\), not None"),
        (lambda: monitor(("counter", 5)), r"monitor needs a pid, a name or a \(name, node\)"),
        (lambda: register(self_pid(), "me"), "a name is a text and belongs to a pid"),
        (lambda: spawn(idle, name=5), "a name is a text and belongs to a pid"),
        (lambda: send_after(self_pid(), 1, "tick"), r"send_after\(seconds, to, message\) begins with a number"),
        (lambda: call(self_pid(), "inc", timeout="5"), "timeout must be seconds or None, not '5'"),
    ],
)
def test_the_error_says_what_is_wanted(use: Callable[[], Awaitable[object] | Any], says: str) -> None:
    async def test() -> None:
        with pytest.raises(TypeError, match=says):
            result = use()
            if isawaitable(result):
                await result

    in_process(test)
