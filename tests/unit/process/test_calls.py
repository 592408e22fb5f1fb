"""Calls: answers, every way they fail, and that nothing of a call outlives it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    CallError,
    CallTimeout,
    ImproperList,
    NodeDown,
    NoProc,
    NotInProcess,
    Pid,
    call,
    cast,
    exit,
    global_,
    receive,
    register,
    reply,
    self_pid,
    send,
    spawn,
    via,
)
from barrel_p2p.process.current import current_process
from harness.processes import check_empty, in_process, mailbox, new_runtime


async def echo() -> None:
    """A server by hand, as an Erlang process would write it."""
    while True:
        kind, from_, request = await receive()
        assert kind == "$gen_call"
        reply(from_, request)


async def mute() -> None:
    await receive(match=lambda _: False)


def test_the_request_has_the_form_of_otp() -> None:
    async def test() -> None:
        boss = self_pid()

        async def server() -> None:
            send(boss, await receive())

        with pytest.raises(CallError):
            await call(spawn(server), "hello")
        kind, (pid, tag), request = await receive()
        assert (kind, pid, request) == (Atom("$gen_call"), boss, "hello")
        assert isinstance(tag, ImproperList) and tag.elements == (Atom("alias"),)

    in_process(test)


def test_failures_carry_the_reasons_of_erlang() -> None:
    async def test() -> None:
        async def crashing() -> None:
            await receive()
            exit((Atom("bad"), 1))

        location = (Atom("gen_server"), Atom("call"))
        with pytest.raises(NoProc) as noproc:
            await call("nobody", 1)
        assert noproc.value.reason == "noproc"
        assert noproc.value.exit_term == (Atom("noproc"), (*location, ["nobody", 1, 5000]))
        with pytest.raises(NoProc):
            await call(Pid(Atom("a@127.0.0.1"), 999, 0, 7), 1)
        with pytest.raises(CallError) as crash:
            await call(spawn(crashing), 1)
        assert crash.value.reason == (Atom("bad"), 1)
        with pytest.raises(CallTimeout) as late:
            await call(spawn(mute), 1, timeout=0.01)
        assert late.value.reason == "timeout" and isinstance(late.value, TimeoutError)
        with pytest.raises(NodeDown) as away:
            await call(("x", "far@127.0.0.1"), 1)
        assert away.value.reason == (Atom("nodedown"), Atom("far@127.0.0.1"))
        register("me", self_pid())
        for me in (self_pid(), "me", ("me", "a@127.0.0.1")):
            with pytest.raises(CallError) as self_call:
                await call(me, 1, timeout=0.1)
            assert self_call.value.reason == "calling_self"
        assert current_process().runtime.aliases == {}
        assert await mailbox() == []

    in_process(test)


def test_a_late_reply_reaches_nobody() -> None:
    async def test() -> None:
        kept: list[Any] = []

        async def slow() -> None:
            kept.append((await receive())[1])
            await receive()
            reply(kept[0], "late")
            send(boss, "sent")

        boss = self_pid()
        pid = spawn(slow)
        with pytest.raises(CallTimeout):
            await call(pid, 1, timeout=0.01)
        send(pid, "now")
        assert await mailbox() == ["sent"]

    in_process(test)


@pytest.mark.parametrize("nested", [False, True])
def test_tags_of_otp_are_answered_as_gen_reply_does(nested: bool) -> None:
    async def test() -> None:
        from barrel_p2p import alias

        ref = alias()
        inner = ImproperList((Atom("alias"),), ref)
        tag: Any = ImproperList((inner,), "label") if nested else inner
        nowhere = Pid(Atom("a@127.0.0.1"), 999, 0, 7)
        reply((nowhere, tag), "by alias")
        assert await mailbox() == [(tag, "by alias")]
        plain = current_process().runtime.reference()
        reply((self_pid(), plain), "by pid")
        assert await mailbox() == [(plain, "by pid")]

    in_process(test)


def test_casts_are_silent() -> None:
    async def test() -> None:
        cast(self_pid(), "hello")
        cast("nobody", "hello")
        cast(("nobody", "far@127.0.0.1"), "hello")
        assert await mailbox() == [(Atom("$gen_cast"), "hello")]

    in_process(test)


def test_a_coroutine_that_is_no_process_can_call() -> None:
    async def main() -> None:
        runtime = new_runtime()
        spawn(echo, node=runtime, name="echo")
        assert await call("echo", 1, node=runtime) == 1
        with pytest.raises(NotInProcess):
            await call("echo", 1)
        await runtime.stop()
        check_empty(runtime)

    asyncio.run(main())


def test_a_thousand_calls_at_once_a_tenth_of_them_cancelled() -> None:
    async def test() -> None:
        rng = random.Random(1)
        runtime = current_process().runtime

        async def shuffling() -> None:
            """Answers in random order, some of it after the callers gave up."""
            pending: list[Any] = []
            while True:
                try:
                    pending.append(await receive(timeout=0.01))
                except TimeoutError:
                    rng.shuffle(pending)
                    for _, from_, request in pending[: len(pending) // 2 + 1]:
                        reply(from_, ("answer", request))
                    del pending[: len(pending) // 2 + 1]

        server = spawn(shuffling)
        tasks = [asyncio.create_task(call(server, number, timeout=20)) for number in range(1000)]
        await asyncio.sleep(0)
        victims = set(rng.sample(range(1000), 100))
        for place, victim in enumerate(sorted(victims, key=lambda _: rng.random())):
            if place % 10 == 0:
                await asyncio.sleep(0)
            tasks[victim].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if number in victims:
                assert isinstance(result, asyncio.CancelledError) or result == ("answer", number)
            else:
                assert result == ("answer", number)
        assert sum(isinstance(result, asyncio.CancelledError) for result in results) > 50
        assert runtime.aliases == {}
        process = runtime.find(server)
        assert process is not None and not process.monitored_by
        assert await mailbox() == []

    in_process(test)


def test_global_and_via_names() -> None:
    class Registry:
        def __init__(self) -> None:
            self.names: dict[Any, Pid] = {}

        def register_name(self, name: Any, pid: Pid) -> bool:
            return self.names.setdefault(name, pid) == pid

        def unregister_name(self, name: Any) -> None:
            self.names.pop(name, None)

        def whereis_name(self, name: Any) -> Pid | None:
            return self.names.get(name)

    class Slow(Registry):
        async def whereis_name(self, name: Any) -> Pid | None:  # type: ignore[override]
            await asyncio.sleep(0)
            return self.names.get(name)

    async def test() -> None:
        registry, slow = Registry(), Slow()
        current_process().runtime.name_resolvers["global"] = registry
        pid = spawn(echo)
        registry.names["echo"] = slow.names["echo"] = pid
        assert await call(global_("echo"), 1) == 1
        assert await call(via(registry, "echo"), 2) == 2
        assert await call(via(slow, "echo"), 3) == 3
        with pytest.raises(TypeError):
            send(via(slow, "echo"), "can't wait for the registry")
        for name in (global_("x"), via(registry, "x")):
            with pytest.raises(NoProc):
                await call(name, 1)
            with pytest.raises(NoProc):
                send(name, 1)
            cast(name, 1)

    in_process(test)
