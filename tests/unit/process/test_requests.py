"""Requests that are awaited later, and one request to many nodes: answers, every way they fail, nothing left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from barrel_p2p import (
    NOREPLY,
    Atom,
    CallError,
    CallTimeout,
    GenServer,
    NodeDown,
    NoProc,
    NotInProcess,
    Pid,
    Request,
    abcast,
    exit,
    global_,
    multi_call,
    receive,
    receive_response,
    register,
    reply,
    self_pid,
    send,
    send_request,
    spawn,
    wait_response,
)
from barrel_p2p.process.current import current_process
from harness.processes import check_empty, in_process, mailbox, new_runtime

A = Atom("a@127.0.0.1")
FAR = Atom("far@127.0.0.1")


class Slow(GenServer):
    """Answers when it is told to."""

    async def init(self) -> None:
        self.asked: list[Any] = []

    async def handle_call(self, request: Any, from_: Any) -> Any:
        if request == "crash":
            exit("burnt")
        self.asked.append((from_, request))
        return NOREPLY

    async def handle_cast(self, request: Any) -> None:
        if isinstance(request, Pid):
            send(request, "cast")
            return
        for from_, question in self.asked:
            reply(from_, ("answer", question))
        self.asked.clear()


def held() -> tuple[int, int]:
    """Aliases and monitors of all requests."""
    runtime = current_process().runtime
    return len(runtime.aliases), sum(len(process.monitored_by or ()) for process in runtime.processes.values())


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_answers_are_awaited_in_any_order_and_more_than_once() -> None:
    async def test() -> None:
        await Slow.start(name="slow")
        requests = [send_request("slow", number) for number in range(3)]
        assert held() == (3, 3) and not any(request.done() for request in requests)
        GenServer.cast("slow", "answer")
        assert await requests[2] == ("answer", 2)
        assert await asyncio.gather(*requests) == [("answer", number) for number in range(3)]
        assert await wait_response(requests[0], 0) == await receive_response(requests[0], 0) == ("answer", 0)
        assert requests[0].done() and held() == (0, 0)
        assert await mailbox() == []

    in_process(test)


def test_an_answer_that_nobody_waits_for_frees_what_the_request_held() -> None:
    async def test() -> None:
        await Slow.start(name="slow")
        request = send_request(("slow", A), 1)
        GenServer.cast("slow", "answer")
        await turns()
        assert request.done() and held() == (0, 0)
        assert await request == ("answer", 1)

    in_process(test)


def test_the_names_that_a_request_may_have() -> None:
    async def test() -> None:
        pid = await Slow.start(name="slow")
        for to in ("slow", ("local", "slow"), ("slow", A), pid):
            request = send_request(to, "hello")
            GenServer.cast(pid, "answer")
            assert await request == ("answer", "hello")
        with pytest.raises(TypeError, match="no pid"):
            send_request(17, 1)

    in_process(test)


def test_failures_are_told_by_the_request() -> None:
    async def test() -> None:
        class Nobody:
            def whereis_name(self, name: Any) -> None: ...

        current_process().runtime.name_resolvers["global"] = Nobody()  # type: ignore[assignment]
        await Slow.start(name="slow")
        for to in ("nobody", ("nobody", A), Pid(A, 999, 0, 7), global_("nobody")):
            request = send_request(to, 1)
            assert request.done()
            with pytest.raises(NoProc):
                await request
        with pytest.raises(NodeDown) as down:
            await send_request(("slow", FAR), 1)
        assert down.value.reason == ("nodedown", FAR)
        request = send_request("slow", "crash")
        with pytest.raises(CallError) as crash:
            await request
        assert crash.value.reason == "burnt"
        assert crash.value.exit_term == ("burnt", ("gen_server", "send_request", ["slow", "crash"]))
        assert await mailbox() == []

    in_process(test)


def test_a_wait_that_is_over_keeps_the_request_and_receive_gives_it_up() -> None:
    async def test() -> None:
        await Slow.start(name="slow")
        kept, given_up = send_request("slow", 1), send_request("slow", 2)
        for wait in (wait_response(kept, 0), wait_response(kept, 0.01), receive_response(given_up, 0.01)):
            with pytest.raises(CallTimeout) as late:
                await wait
            assert isinstance(late.value, TimeoutError)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wait_response(kept)
        await turns()
        assert held() == (1, 1)
        GenServer.cast("slow", "answer")
        assert await kept == ("answer", 1)
        with pytest.raises(CallTimeout, match="abandoned"):
            await given_up
        assert await mailbox() == []

    in_process(test)


def test_abandoned_requests_leave_nothing_behind() -> None:
    async def test() -> None:
        await Slow.start(name="slow")
        send_request("slow", "forgotten at once")
        forgotten = send_request("slow", "forgotten")
        given_up = send_request("slow", "given up")
        cancelled = asyncio.create_task(receive_response(send_request("slow", "cancelled")))
        await turns()
        assert held() == (3, 3)
        del forgotten
        given_up.abandon()
        cancelled.cancel()
        await asyncio.wait([cancelled])
        del cancelled
        await turns()
        assert held() == (0, 0)
        GenServer.cast("slow", "answer")
        assert await mailbox() == []

        async def forgetful() -> None:
            request = send_request("slow", "its process ends")
            await receive()
            await request

        exit(spawn(forgetful), "kill")
        await turns()
        assert held() == (0, 0)

    in_process(test)


def test_a_request_outside_of_processes_names_its_node() -> None:
    async def main() -> None:
        runtime = new_runtime()
        await Slow.start(name="slow", node=runtime)
        request: Request = send_request("slow", 1, node=runtime)
        GenServer.cast("slow", "answer", node=runtime)
        assert await request == ("answer", 1)
        assert await multi_call([A, FAR], "nobody", 1, 1.0, node=runtime) == ([], [A, FAR])
        abcast([A, FAR], "slow", "answer", node=runtime)
        with pytest.raises(NotInProcess):
            send_request("slow", 1)
        await runtime.stop()
        check_empty(runtime)

    asyncio.run(main())


def test_multi_call_tells_who_is_bad_in_the_order_of_the_nodes() -> None:
    async def test() -> None:
        await Slow.start(name="slow")
        asking = asyncio.create_task(multi_call([A, FAR, A, "no_name_of_a_node"], "slow", 1, 5.0))
        await turns()
        GenServer.cast("slow", "answer")
        assert await asking == ([(A, ("answer", 1))] * 2, [FAR, "no_name_of_a_node"])
        assert await multi_call([], "slow", 1) == ([], [])
        assert await multi_call([A], "nobody", 1) == ([], [A])
        assert await multi_call([A], "slow", "crash") == ([], [A])
        assert held() == (0, 0) and await mailbox() == []

    in_process(test)


def test_late_replies_of_a_multi_call_reach_nobody() -> None:
    async def test() -> None:
        await Slow.start(name="slow")
        assert await multi_call([A], "slow", 1, 0.01) == ([], [A])
        cancelled = asyncio.create_task(multi_call([A], "slow", 2))
        await turns()
        cancelled.cancel()
        await turns()
        assert held() == (0, 0)
        GenServer.cast("slow", "answer")
        assert await mailbox() == []

    in_process(test)


def test_a_process_that_asks_itself_is_bad() -> None:
    async def test() -> None:
        register("me", self_pid())
        assert await multi_call([A], "me", 1) == ([], [A])
        assert await mailbox() == []
        assert await multi_call([A], "me", 1, 0.01) == ([], [A])
        [(kind, _, request)] = await mailbox()
        assert (kind, request) == ("$gen_call", 1), "as in OTP"

    in_process(test)


def test_abcast_reaches_those_who_are_there() -> None:
    async def test() -> None:
        await Slow.start(name="slow")
        abcast([FAR, A], "slow", self_pid())
        abcast([FAR, A], "nobody", self_pid())
        assert await mailbox() == ["cast"]

    in_process(test)


def test_one_name_is_no_list_of_nodes() -> None:
    async def test() -> None:
        for wrong in ((A, "slow"), ([A], 17)):
            with pytest.raises(TypeError):
                await multi_call(*wrong, 1)
            with pytest.raises(TypeError):
                abcast(*wrong, 1)

    in_process(test)
