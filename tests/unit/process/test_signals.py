"""Links, monitors, exit signals: who hears of a death, with which reason, and how often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    Exit,
    Pid,
    Reference,
    call,
    demonitor,
    exit,
    is_alive,
    link,
    monitor,
    process_flag,
    receive,
    self_pid,
    send,
    spawn,
    spawn_link,
    spawn_monitor,
    unlink,
)
from harness.processes import check_empty, in_process, mailbox, new_runtime

PROCESS = Atom("process")


def down(ref: Reference, pid: Any, reason: Any) -> tuple[Any, ...]:
    return (Atom("DOWN"), ref, PROCESS, pid, reason)


def exited(pid: Pid, reason: Any) -> tuple[Any, ...]:
    return (Atom("EXIT"), pid, reason)


async def idle() -> None:
    await receive(match=lambda _: False)


@pytest.mark.parametrize(
    "body, reason",
    [
        (lambda: None, "normal"),
        (lambda: exit(), "normal"),
        (lambda: exit("bored"), "bored"),
        (lambda: exit((Atom("shutdown"), 1)), ("shutdown", 1)),
        (lambda: exit(self_pid(), "normal"), "normal"),
        (lambda: exit(self_pid(), "kill"), "killed"),
        (lambda: exit(self_pid(), "other"), "other"),
    ],
)
def test_reasons(body: Callable[[], object], reason: Any) -> None:
    async def test() -> None:
        async def process() -> None:
            body()

        pid, ref = spawn_monitor(process)
        assert await receive(timeout=1) == down(ref, pid, reason)

    in_process(test)


def test_a_crash_is_a_reason_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async def crashing() -> None:
            raise ValueError("no such thing")

        pid, ref = spawn_monitor(crashing)
        message = await receive(timeout=1)
        assert message[:4] == (Atom("DOWN"), ref, PROCESS, pid)
        (kind, name, text), stack = message[4]
        assert (kind, name, text) == (Atom("exception"), "ValueError", "no such thing")
        (module, function, arity, location), *_ = stack
        assert (module, function, arity) == ("test_signals", "crashing", 0)
        assert location[0] == ("file", list(b"test_signals.py"))

    with caplog.at_level(logging.INFO):
        in_process(test)
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "in crashing" in caplog.text and 'steps.py"' not in caplog.text, "the traceback is the user's"
    assert len(errors) == 1
    assert errors[0].exc_info is not None and "no such thing" in errors[0].getMessage()


def test_a_call_error_that_nobody_catches_is_the_reason_gen_server_call_exits_with() -> None:
    async def test() -> None:
        async def caller() -> None:
            await call("nobody", "hello")

        spawn_monitor(caller)
        reason = (await receive(timeout=1))[4]
        assert reason == (Atom("noproc"), (Atom("gen_server"), Atom("call"), ["nobody", "hello", 5000]))

    in_process(test)


def test_a_task_cancelled_from_outside_was_killed() -> None:
    async def test() -> None:
        runtime_process: list[Any] = []

        async def body() -> None:
            runtime_process.append(asyncio.current_task())
            await receive()

        pid, ref = spawn_monitor(body)
        await asyncio.sleep(0)
        runtime_process[0].cancel()
        assert await receive(timeout=1) == down(ref, pid, Atom("killed"))

    in_process(test)


def test_links_are_mutual_and_carry_the_reason() -> None:
    async def test() -> None:
        process_flag("trap_exit", True)

        async def parent() -> None:
            spawn_link(idle)
            link(grandparent)
            exit("gone")

        grandparent = self_pid()
        pid = spawn(parent)
        assert await receive(timeout=1) == exited(pid, "gone")
        await asyncio.sleep(0.01)
        from barrel_p2p import processes

        assert processes() == [self_pid()]  # its child went with it

    in_process(test)


def test_normal_ends_do_not_spread_but_are_told_to_who_traps() -> None:
    async def test() -> None:
        async def done() -> None:
            pass

        spawn_link(done)
        assert await mailbox() == []
        process_flag("trap_exit", True)
        pid = spawn_link(done)
        assert await mailbox() == [exited(pid, "normal")]

    in_process(test)


def test_exit_signals() -> None:
    async def test() -> None:
        async def trapping() -> None:
            process_flag("trap_exit", True)
            while True:
                send(boss, await receive())

        boss = self_pid()
        pid, ref = spawn_monitor(trapping)
        await asyncio.sleep(0)
        for reason in ("normal", "shutdown", "anything"):
            exit(pid, reason)
            assert await receive(timeout=1) == exited(boss, reason)
        exit(pid, "kill")
        assert not is_alive(pid)
        assert await receive(timeout=1) == down(ref, pid, "killed")

        pid, ref = spawn_monitor(idle)
        exit(pid, "normal")  # ignored
        exit(pid, "first")
        exit(pid, "second")
        assert await receive(timeout=1) == down(ref, pid, "first")

    in_process(test)


def test_kill_over_a_link_can_be_trapped() -> None:
    async def test() -> None:
        process_flag("trap_exit", True)

        async def killer() -> None:
            exit("kill")

        pid = spawn_link(killer)
        assert await receive(timeout=1) == exited(pid, "kill")
        pid = spawn_link(idle)
        exit(pid, "kill")
        assert await receive(timeout=1) == exited(pid, "killed")

    in_process(test)


def test_an_exit_signal_before_the_first_step() -> None:
    async def test() -> None:
        ran: list[int] = []

        async def body() -> None:
            ran.append(1)

        pid, ref = spawn_monitor(body)
        exit(pid, "early")
        assert await receive(timeout=1) == down(ref, pid, "early")
        assert ran == []

    in_process(test)


def test_except_exception_does_not_stop_an_exit_and_finally_runs() -> None:
    async def test() -> None:
        trace: list[str] = []

        async def body() -> None:
            while True:
                try:
                    await asyncio.sleep(10)
                except Exception:
                    trace.append("swallowed")
                finally:
                    await asyncio.sleep(0.01)  # cleaning up may take its time
                    trace.append("finally")

        pid, ref = spawn_monitor(body)
        await asyncio.sleep(0)
        exit(pid, "over")
        assert await receive(timeout=1) == down(ref, pid, "over")
        assert trace == ["finally"]

    in_process(test)


@pytest.mark.parametrize("reason, told", [("kill", "killed"), ("over", "over")])
def test_a_process_that_swallows_its_exit_does_not_live_on(reason: str, told: str) -> None:
    async def test() -> None:
        dead: list[bool] = []  # lets go of the coroutine in the end, so that closing it succeeds

        async def sleeping() -> None:
            while not dead:
                with suppress(BaseException):
                    await asyncio.sleep(10)

        async def receiving() -> None:
            while not dead:
                with suppress(BaseException):
                    await receive()

        for body in (sleeping, receiving):
            dead.clear()
            pid, ref = spawn_monitor(body)
            await asyncio.sleep(0)
            exit(pid, reason)
            assert await receive(timeout=0.5) == down(ref, pid, told)
            assert not is_alive(pid)
            dead.append(True)

    in_process(test)


def test_a_swallowed_exit_is_given_again_once_and_then_the_process_may_end() -> None:
    async def test() -> None:
        swallowed: list[str] = []

        async def body() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                swallowed.append("once")
            await asyncio.sleep(10)
            swallowed.append("lived on")

        pid, ref = spawn_monitor(body)
        await asyncio.sleep(0)
        exit(pid, "over")
        assert await receive(timeout=1) == down(ref, pid, "over")
        assert swallowed == ["once"]

    in_process(test)


def test_a_cleanup_that_takes_too_long_is_cut_short() -> None:
    async def test() -> None:
        async def body() -> None:
            try:
                await receive()
            finally:
                await asyncio.sleep(60)

        pid, ref = spawn_monitor(body)
        await asyncio.sleep(0)
        exit(pid, "over")
        assert await receive(timeout=2) == down(ref, pid, "over")

    in_process(test, exit_grace=0.05)


def test_what_a_process_waits_for_is_cancelled_with_it() -> None:
    async def test() -> None:
        cancelled: list[int] = []

        async def part(number: int) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(number)
                raise

        async def grouped() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(part(number))

        async def gathered() -> None:
            await asyncio.gather(*(part(number) for number in range(3, 6)))

        for body in (grouped, gathered):
            pid, ref = spawn_monitor(body)
            await asyncio.sleep(0.01)
            exit(pid, "over")
            assert await receive(timeout=1) == down(ref, pid, "over")
        assert sorted(cancelled) == list(range(6))

    in_process(test)


def test_link_to_the_dead_and_unlink() -> None:
    async def test() -> None:
        process_flag("trap_exit", True)
        dead, _ = spawn_monitor(idle)
        exit(dead, "kill")
        await receive()
        link(dead)
        assert await mailbox() == [exited(dead, "noproc")]

        async def linker() -> None:
            link(dead)
            await asyncio.sleep(1)

        pid, ref = spawn_monitor(linker)
        assert await receive(timeout=0.5) == down(ref, pid, "noproc")

        pid = spawn_link(idle)
        unlink(pid)
        exit(pid, "kill")
        assert await mailbox() == []

    in_process(test)


def test_a_signal_counts_even_if_the_process_returns_in_the_same_step() -> None:
    async def test() -> None:
        async def done() -> None:
            pass

        dead, _ = spawn_monitor(done)
        await receive()

        async def linker() -> None:
            link(dead)

        pid, ref = spawn_monitor(linker)
        assert await receive(timeout=1) == down(ref, pid, "noproc")

    in_process(test)


def test_tasks_that_outlive_their_process_receive_nothing() -> None:
    async def test() -> None:
        tasks: list[asyncio.Task[Any]] = []

        async def body() -> None:
            async def later() -> None:
                await go.wait()
                await receive()

            tasks.append(asyncio.create_task(receive()))
            tasks.append(asyncio.create_task(later()))
            await asyncio.sleep(0)

        go = asyncio.Event()
        _, ref = spawn_monitor(body)
        assert (await receive(timeout=1))[1] == ref
        go.set()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 1)

    in_process(test)


def test_monitors() -> None:
    async def test() -> None:
        pid, ref = spawn_monitor(idle, name="idle")
        again = monitor(pid)
        named = monitor("idle")
        away = monitor(("idle", "a@127.0.0.1"))
        removed = monitor(pid)
        assert demonitor(removed)
        exit(pid, "over")
        name = (Atom("idle"), Atom("a@127.0.0.1"))
        assert await mailbox() == [
            down(ref, pid, "over"),
            down(again, pid, "over"),
            down(named, name, "over"),
            down(away, name, "over"),
        ]
        late = monitor(pid)
        assert await mailbox() == [down(late, pid, "noproc")]
        assert await _down_of_name("idle") == down_of(name, "noproc")
        unreachable = monitor(("x", "nowhere@127.0.0.1"))
        assert (await receive())[1:] == (
            unreachable,
            PROCESS,
            (Atom("x"), Atom("nowhere@127.0.0.1")),
            Atom("noconnection"),
        )

    async def _down_of_name(name: str) -> Any:
        ref = monitor(name)
        message = await receive(timeout=0)
        assert message[1] == ref
        return message[3:]

    def down_of(name: Any, reason: str) -> Any:
        return (name, Atom(reason))

    in_process(test)


def test_demonitor_flush_removes_a_down_that_is_there_already() -> None:
    async def test() -> None:
        send(self_pid(), "before")
        pid, ref = spawn_monitor(idle)
        exit(pid, "kill")
        await asyncio.sleep(0.01)
        send(self_pid(), "after")
        assert not demonitor(ref, flush=True)
        assert await mailbox() == ["before", "after"]

    in_process(test)


def test_the_block_is_a_process_that_signals_can_end() -> None:
    async def main() -> None:
        runtime = new_runtime()
        with pytest.raises(Exit) as ended, runtime.block() as process:
            watcher_saw: list[Any] = []

            async def watcher(pid: Pid) -> None:
                monitor(pid)
                watcher_saw.append(await receive())

            async def crash() -> None:
                exit("boom")

            spawn(watcher, process.pid)
            await asyncio.sleep(0)
            crashed = spawn_link(crash)
            await asyncio.sleep(10)
        assert ended.value.reason == "boom"
        assert str(ended.value) == f"exit: Atom('boom'), by an exit signal of {crashed!r}"
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
        assert watcher_saw[0][4] == "boom"
        await runtime.stop()
        check_empty(runtime)

        with pytest.raises(KeyError), runtime.block():
            raise KeyError("the user's own error stays as it is")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                with runtime.block():
                    await receive()
        check_empty(runtime)

    asyncio.run(main())


def test_stop_ends_everything() -> None:
    async def main() -> None:
        runtime = new_runtime()
        ends: list[str] = []

        async def obedient() -> None:
            try:
                await receive()
            finally:
                ends.append("obedient")

        async def trapping() -> None:
            process_flag("trap_exit", True)
            message = await receive()
            ends.append(message[2])
            spawn(obedient)  # even what is started meanwhile ends
            await asyncio.sleep(60)

        with runtime.block():
            spawn(obedient)
            spawn(trapping)
            await asyncio.sleep(0)
            await runtime.stop(timeout=0.1)
        check_empty(runtime)
        assert sorted(ends) == ["obedient", "obedient", "shutdown"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
