"""Mailboxes: order, selection, time, names, aliases, timers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    NameTaken,
    NoProc,
    NotInProcess,
    Pid,
    ReceiveConflict,
    alias,
    cancel_timer,
    exit,
    is_alive,
    monitor,
    processes,
    receive,
    register,
    self_pid,
    send,
    send_after,
    spawn,
    unalias,
    unregister,
    whereis,
)
from harness.processes import in_process, mailbox, new_runtime


def test_messages_of_a_sender_arrive_in_order_and_as_they_are() -> None:
    async def test() -> None:
        me = self_pid()
        thing = object()

        async def sender() -> None:
            for number in range(2000):
                send(me, number)
            me.send(thing)

        spawn(sender)
        assert [await receive() for _ in range(2000)] == list(range(2000))
        assert await receive() is thing

    in_process(test)


def test_selective_receive_takes_the_first_match_and_keeps_the_others_in_order() -> None:
    async def test() -> None:
        for message in (1, "a", 2, "b", 3):
            send(self_pid(), message)
        assert await receive(match=lambda m: isinstance(m, str)) == "a"
        assert await receive(match=lambda m: m == 3) == 3
        assert await mailbox() == [1, 2, "b"]

    in_process(test)


def test_selective_receive_waits_past_messages_that_do_not_match() -> None:
    async def test() -> None:
        me = self_pid()
        looked_at: list[int] = []

        async def sender() -> None:
            for number in range(5):
                send(me, number)
                await asyncio.sleep(0)

        def wanted(message: int) -> bool:
            looked_at.append(message)
            return message == 4

        spawn(sender)
        assert await receive(match=wanted) == 4
        assert looked_at == [0, 1, 2, 3, 4]  # each message once, however often the process was woken
        assert await mailbox() == [0, 1, 2, 3]

    in_process(test)


def test_a_match_that_raises_raises_in_the_receiver_and_loses_nothing() -> None:
    async def test() -> None:
        send(self_pid(), 1)
        with pytest.raises(ZeroDivisionError):
            await receive(match=lambda m: m / 0)
        assert await receive() == 1

    in_process(test)


def test_timeouts() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(TimeoutError):
            await receive(timeout=0)
        assert loop.time() - started < 0.01
        with pytest.raises(TimeoutError):
            await receive(timeout=0.02)
        assert loop.time() - started >= 0.02
        send(self_pid(), 1)
        with pytest.raises(TimeoutError):
            await receive(match=lambda m: m == 2, timeout=0.01)
        assert await receive(timeout=0) == 1

    in_process(test)


def test_messages_that_do_not_match_do_not_extend_the_timeout() -> None:
    async def test() -> None:
        me = self_pid()

        async def chatter() -> None:
            while True:
                send(me, "noise")
                await asyncio.sleep(0.001)

        pid = spawn(chatter)
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await receive(match=lambda m: m == "music", timeout=0.05)
        assert asyncio.get_running_loop().time() - started < 1
        exit(pid, "kill")

    in_process(test)


def test_a_busy_receiver_gives_way_to_others() -> None:
    async def test() -> None:
        progress: list[int] = []

        async def greedy() -> None:
            while True:
                send(self_pid(), 0)
                await receive()
                progress.append(1)

        spawn(greedy)
        for _ in range(20):
            await asyncio.sleep(0)
        assert 0 < len(progress) < 20_000

    in_process(test)


def test_two_tasks_of_a_process_may_not_both_wait() -> None:
    async def test() -> None:
        task = asyncio.create_task(receive())
        await asyncio.sleep(0)
        with pytest.raises(ReceiveConflict):
            await receive()
        send(self_pid(), "for the task")
        assert await task == "for the task"

    in_process(test)


def test_a_child_task_works_for_its_process() -> None:
    async def test() -> None:
        me = self_pid()

        async def child() -> None:
            assert self_pid() == me
            send(me, "from the child")

        await asyncio.create_task(child())
        assert await receive() == "from the child"

    in_process(test)


def test_outside_of_a_process() -> None:
    async def main() -> None:
        with pytest.raises(NotInProcess):
            self_pid()
        with pytest.raises(NotInProcess):
            await receive(timeout=0)
        runtime = new_runtime()
        done = asyncio.Event()

        async def body() -> None:
            done.set()

        spawn(body, node=runtime)
        await done.wait()
        await runtime.stop()

    asyncio.run(main())


def test_sending_to_what_is_not_there() -> None:
    async def test() -> None:
        async def body() -> None:
            pass

        pid = spawn(body)
        monitor(pid)
        await receive()
        assert not is_alive(pid)
        send(pid, "into the void")
        with pytest.raises(NoProc):
            send("nobody", 1)
        send(("nobody", "a@127.0.0.1"), 1)
        send(("somebody", "away@127.0.0.1"), 1)
        with pytest.raises(TypeError):
            send(17, 1)

    in_process(test)


def test_names() -> None:
    async def test() -> None:
        async def echo() -> None:
            while True:
                sender, message = await receive()
                send(sender, message)

        pid = spawn(echo, name="echo")
        assert whereis("echo") == pid
        for to in ("echo", Atom("echo"), ("echo", "a@127.0.0.1")):
            send(to, (self_pid(), to))
            assert await receive(timeout=1) == to
        with pytest.raises(NameTaken):
            spawn(echo, name="echo")
        with pytest.raises(NameTaken):
            register("echo")
        with pytest.raises(NameTaken):
            register("other", pid)  # it has a name
        dead = spawn(receive, lambda _: False)
        exit(dead, "kill")
        for nobody in (dead, Pid(Atom("b@127.0.0.1"), dead.id, dead.serial, dead.creation)):
            with pytest.raises(NoProc, match="no live process of this node"):
                register("late", nobody)
        unregister("echo")
        assert whereis("echo") is None
        with pytest.raises(NoProc):
            unregister("echo")
        register("echo2", pid)
        ref = monitor(pid)
        exit(pid, "kill")
        assert (await receive())[1] == ref
        assert whereis("echo2") is None
        assert processes() == [self_pid()]

    in_process(test)


def test_aliases() -> None:
    async def test() -> None:
        lasting, once = alias(), alias(reply=True)
        for number in range(2):
            send(lasting, ("lasting", number))
            send(once, ("once", number))
        assert await mailbox() == [("lasting", 0), ("once", 0), ("lasting", 1)]
        assert unalias(lasting)
        assert not unalias(lasting)
        assert not unalias(once)
        send(lasting, "late")
        assert await mailbox() == []

    in_process(test)


def test_timers() -> None:
    async def test() -> None:
        send_after(0.01, self_pid(), "soon")
        later = send_after(60, self_pid(), "later")
        send_after(0.001, "nobody", "dropped")
        assert await receive(timeout=1) == "soon"
        left = cancel_timer(later)
        assert left is not None and 58 < left < 60
        assert cancel_timer(later) is None
        fired = send_after(0, self_pid(), "now")
        assert await receive() == "now"
        assert cancel_timer(fired) is None
        send_after(60, self_pid(), "left to runtime.stop")

    in_process(test)


def test_a_bounded_mailbox_makes_senders_wait() -> None:
    async def test() -> None:
        sent: list[int] = []
        taken: list[int] = []
        go = asyncio.Event()

        async def slow() -> None:
            await go.wait()
            while len(taken) < 100:
                taken.append(await receive())

        async def sender(to: Any) -> None:
            for number in range(100):
                send(to, number)
                sent.append(number)
                await asyncio.sleep(0)  # any await point will do

        receiver = spawn(slow, max_mailbox=10)
        done = monitor(receiver)
        spawn(sender, receiver)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(sent) == 10
        go.set()
        assert (await receive())[1] == done
        assert taken == list(range(100))

    in_process(test)


def test_a_bounded_mailbox_that_waits_for_one_message_is_not_full() -> None:
    async def test() -> None:
        boss = self_pid()

        async def picky() -> None:
            assert await receive(match=lambda m: m == 50) == 50
            send(boss, "found")

        async def sender(to: Any) -> None:
            for number in range(51):
                send(to, number)
                await asyncio.sleep(0)

        spawn(sender, spawn(picky, max_mailbox=5))
        assert await receive(timeout=1) == "found"

    in_process(test)


def test_two_full_mailboxes_do_not_wait_for_each_other() -> None:
    async def test() -> None:
        boss = self_pid()

        async def player() -> None:
            other = await receive()
            for number in range(50):
                send(other, number)
            await asyncio.sleep(0)
            for _ in range(50):
                await receive()
            send(boss, "done")

        one, two = spawn(player, max_mailbox=5), spawn(player, max_mailbox=5)
        send(one, two)
        send(two, one)
        assert await receive(timeout=2) == "done"
        assert await receive(timeout=2) == "done"

    in_process(test)


def test_a_bounded_mailbox_may_drop_or_exit() -> None:
    async def test() -> None:
        go = asyncio.Event()
        boss = self_pid()

        async def body() -> None:
            await go.wait()
            send(boss, [await receive() for _ in range(3)])

        dropping = spawn(body, max_mailbox=3, when_full="drop")
        exiting = spawn(body, max_mailbox=3, when_full="exit")
        ref = monitor(exiting)
        for number in range(5):
            send(dropping, number)
            send(exiting, number)
        assert await receive() == (Atom("DOWN"), ref, Atom("process"), exiting, Atom("mailbox_full"))
        go.set()
        assert await receive() == [0, 1, 2]

    in_process(test)


def test_gates_hold_a_process_at_any_await_point() -> None:
    async def test() -> None:
        from barrel_p2p.process.current import current_process
        from barrel_p2p.process.gate import Gate

        steps: list[int] = []
        gates = [Gate(), Gate()]

        async def body() -> None:
            for number in range(100):
                steps.append(number)
                if number == 3:
                    for gate in gates:
                        current_process().suspend(gate)
                    assert current_process().busy_on is gates[0]
                await asyncio.sleep(0)

        ref = monitor(spawn(body))
        for _ in range(20):
            await asyncio.sleep(0)
        assert steps == [0, 1, 2, 3]
        gates[0].open()
        for _ in range(20):
            await asyncio.sleep(0)
        assert steps == [0, 1, 2, 3]
        gates[1].open()
        assert (await receive(timeout=1))[1] == ref
        assert len(steps) == 100

        held = Gate()
        current_process().suspend(held)  # the block's own task is held at the library's await points
        asyncio.get_running_loop().call_later(0.02, held.open)
        send(self_pid(), "there already")
        started = asyncio.get_running_loop().time()
        assert await receive() == "there already"
        assert asyncio.get_running_loop().time() - started >= 0.015

        async def stuck() -> None:
            current_process().suspend(held)
            await asyncio.sleep(0)
            raise AssertionError("the gate never opened")

        pid = spawn(stuck)
        ref = monitor(pid)
        await asyncio.sleep(0.01)
        exit(pid, "kill")
        assert (await receive(timeout=1))[4] == "killed"

    in_process(test)
