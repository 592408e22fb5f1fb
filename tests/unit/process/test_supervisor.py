"""Supervisors: start, restart by strategy, intensity, orderly ends, and OTP's answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    CallError,
    ChildSpec,
    ConfigError,
    GenServer,
    Pid,
    StartError,
    Supervisor,
    call,
    cast,
    exit,
    is_alive,
    monitor,
    process_flag,
    processes,
    receive,
    self_pid,
    send,
    spawn,
    spawn_monitor,
    stop,
    whereis,
)
from harness.processes import check_empty, in_process, new_runtime


class Worker(GenServer):
    """Tells ``boss`` of its start and its end, and ends when it is told to."""

    async def init(self, boss: Pid, label: str, trap: bool = True) -> None:
        process_flag("trap_exit", trap)
        self.boss, self.label = boss, label
        send(boss, ("started", label))

    async def handle_cast(self, reason: Any) -> None:
        exit(reason)

    async def terminate(self, reason: Any) -> None:
        send(self.boss, ("ended", self.label, reason))


def workers(*labels: str, **options: Any) -> list[ChildSpec]:
    return [ChildSpec(label, (Worker, (self_pid(), label)), name=label, **options) for label in labels]


async def events(number: int) -> list[Any]:
    return [await receive(timeout=2) for _ in range(number)]


async def pids(supervisor: Pid) -> dict[Any, Any]:
    return {child: pid for child, pid, *_ in await Supervisor.which_children(supervisor)}


async def crash(label: str, reason: str = "fault") -> None:
    pid = whereis(label)
    assert pid is not None
    ref = monitor(pid)
    cast(pid, reason)
    await receive(match=lambda message: message[0] == "DOWN" and message[1] == ref)


def test_children_start_in_order_and_end_in_reverse() -> None:
    async def test() -> None:
        supervisor = await Supervisor.start_link(workers("a", "b", "c"), name="sup")
        assert await events(3) == [("started", label) for label in "abc"]
        assert await Supervisor.count_children("sup") == {
            "specs": 3,
            "active": 3,
            "supervisors": 0,
            "workers": 3,
        }
        await stop(supervisor)
        assert await events(3) == [("ended", label, "shutdown") for label in "cba"]
        assert processes() == [self_pid()]

    in_process(test)


@pytest.mark.parametrize(
    "strategy, expected",
    [
        ("one_for_one", [("started", "b")]),
        ("one_for_all", [("ended", "c", "shutdown"), ("ended", "a", "shutdown"), *(("started", x) for x in "abc")]),
        ("rest_for_one", [("ended", "c", "shutdown"), ("started", "b"), ("started", "c")]),
    ],
)
def test_strategies(strategy: str, expected: list[Any]) -> None:
    async def test() -> None:
        supervisor = await Supervisor.start_link(workers("a", "b", "c"), strategy=strategy)
        await events(3)
        before = await pids(supervisor)
        await crash("b")
        assert await events(1) == [("ended", "b", "fault")]
        assert await events(len(expected)) == expected
        after = await pids(supervisor)
        restarted = {what[1] for what in expected if what[0] == "started"}
        assert {label for label in "abc" if before[label] != after[label]} == restarted

    in_process(test)


@pytest.mark.parametrize(
    "restart, reason, comes_back",
    [
        ("permanent", "normal", True),
        ("permanent", "fault", True),
        ("transient", "normal", False),
        ("transient", "shutdown", False),
        ("transient", "fault", True),
        ("temporary", "fault", False),
    ],
)
def test_restart_types(restart: str, reason: str, comes_back: bool) -> None:
    async def test() -> None:
        supervisor = await Supervisor.start_link(workers("a", restart=restart))
        await events(1)
        await crash("a", reason)
        assert await events(1) == [("ended", "a", reason)]
        children = await pids(supervisor)
        if comes_back:
            assert is_alive(children["a"])
        else:
            assert children == ({} if restart == "temporary" else {"a": Atom("undefined")})

    in_process(test)


def test_too_many_restarts_end_the_supervisor() -> None:
    async def test() -> None:
        process_flag("trap_exit", True)
        supervisor = await Supervisor.start_link(workers("a", "b"), intensity=2, period=60)
        await events(2)
        for _ in range(2):
            await crash("a")
            await events(2)
        await crash("a")
        assert await events(3) == [
            ("ended", "a", "fault"),
            ("ended", "b", "shutdown"),
            (Atom("EXIT"), supervisor, Atom("shutdown")),
        ]

    in_process(test)


def test_restarts_long_ago_do_not_count() -> None:
    async def test() -> None:
        await Supervisor.start_link(workers("a"), intensity=1, period=0.02)
        await events(1)
        for _ in range(4):
            await crash("a")
            assert await events(2) == [("ended", "a", "fault"), ("started", "a")]
            await asyncio.sleep(0.03)  # the period itself is what is waited for

    in_process(test)


def test_a_child_that_does_not_start() -> None:
    class Faulty(GenServer):
        async def init(self, *args: Any) -> None:
            exit("no luck")

    async def test() -> None:
        with pytest.raises(StartError) as failed:
            await Supervisor.start_link([*workers("a", "b"), ChildSpec("c", Faulty)])
        assert failed.value.reason == ("shutdown", ("failed_to_start_child", "c", "no luck"))
        assert [what for what, *_ in await events(4)] == ["started", "started", "ended", "ended"]
        assert processes() == [self_pid()]

    in_process(test)


def test_a_restart_that_fails_is_tried_again() -> None:
    tries: list[int] = []

    class Flaky(GenServer):
        async def init(self, *args: Any) -> None:
            tries.append(1)
            if len(tries) == 5:
                send(args[0], "up again")
            if 2 <= len(tries) <= 4:
                exit("not yet")

        async def handle_cast(self, reason: Any) -> None:
            exit(reason)

    async def test() -> None:
        supervisor = await Supervisor.start_link([ChildSpec("f", (Flaky, (self_pid(),)), name="f")], intensity=10)
        cast("f", "fault")
        assert await receive(timeout=2) == "up again"
        assert is_alive((await pids(supervisor))["f"])

    in_process(test)


def test_shutdown_of_the_stubborn() -> None:
    async def test() -> None:
        async def deaf(label: str) -> None:
            process_flag("trap_exit", True)
            while True:
                await receive()

        supervisor = await Supervisor.start_link(
            [
                ChildSpec("late", (deaf, ("late",)), shutdown=0.02),
                ChildSpec("now", (deaf, ("now",)), shutdown="brutal_kill"),
            ]
        )
        await asyncio.sleep(0)
        refs = {monitor(pid): label for label, pid in (await pids(supervisor)).items()}
        await stop(supervisor)
        downs = [await receive(timeout=1) for _ in range(2)]
        assert [(refs[down[1]], down[4]) for down in downs] == [("now", "killed"), ("late", "killed")]

    in_process(test)


def test_changing_the_children() -> None:
    async def test() -> None:
        supervisor = await Supervisor.start_link([])
        spec = workers("a")[0]
        pid = await Supervisor.start_child(supervisor, spec)
        assert await events(1) == [("started", "a")]
        for call_again, reason in (
            (lambda: Supervisor.start_child(supervisor, spec), (Atom("already_started"), pid)),
            (lambda: Supervisor.restart_child(supervisor, "a"), "running"),
        ):
            with pytest.raises(StartError) as refused:
                await call_again()
            assert refused.value.reason == reason
        with pytest.raises(CallError) as running:
            await Supervisor.delete_child(supervisor, "a")
        assert running.value.reason == "running"
        await Supervisor.terminate_child(supervisor, "a")
        assert await pids(supervisor) == {"a": "undefined"}
        again = await Supervisor.restart_child(supervisor, "a")
        assert again != pid
        await Supervisor.terminate_child(supervisor, "a")
        await Supervisor.delete_child(supervisor, "a")
        assert await pids(supervisor) == {}
        with pytest.raises(CallError) as unknown:
            await Supervisor.terminate_child(supervisor, "a")
        assert unknown.value.reason == "not_found"

    in_process(test)


def test_a_class_and_a_tree() -> None:
    class Inner(Supervisor):
        async def init(self, boss: Pid) -> Any:
            return [ChildSpec("w", (Worker, (boss, "w")), name="w")]

    class Outer(Supervisor):
        strategy = "one_for_all"

        async def init(self, boss: Pid) -> Any:
            return [ChildSpec("inner", (Inner, (boss,)))]

    async def test() -> None:
        outer = await Outer.start_link(self_pid(), name="outer")
        assert await events(1) == [("started", "w")]
        (entry,) = await call("outer", Atom("which_children"))
        assert entry[0] == "inner" and entry[2:] == ("supervisor", [Atom("Inner")])
        assert await call("outer", Atom("count_children")) == [
            ("specs", 1),
            ("active", 1),
            ("supervisors", 1),
            ("workers", 0),
        ]
        exit(entry[1], "kill")  # the tree below dies with it, and is rebuilt
        assert await events(2) == [("ended", "w", "killed"), ("started", "w")]
        await stop(outer)
        assert await events(1) == [("ended", "w", "shutdown")]

    in_process(test)


def test_the_parent_of_a_supervisor_takes_it_along() -> None:
    async def test() -> None:
        specs = workers("a")

        async def parent() -> None:
            await Supervisor.start_link(specs)
            await receive()
            exit("gone")

        pid, _ = spawn_monitor(parent)
        assert await events(1) == [("started", "a")]
        send(pid, "end")
        assert {message[0] for message in await events(2)} == {"ended", "DOWN"}
        await asyncio.sleep(0.01)
        assert processes() == [self_pid()]

    in_process(test)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ChildSpec("x", 17),
        lambda: ChildSpec("x", dict),
        lambda: ChildSpec("x", Worker, restart="sometimes"),
        lambda: ChildSpec("x", Worker, shutdown="softly"),
        lambda: ChildSpec("x", Worker, type="boss"),
        lambda: ChildSpec("x", (Worker, "args")),
    ],
)
def test_wrong_specifications(wrong: Callable[[], ChildSpec]) -> None:
    with pytest.raises(ConfigError):
        wrong()


def test_wrong_options(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with pytest.raises(ConfigError):
            await Supervisor.start_link([], strategy="all_for_none")
        with pytest.raises(StartError):
            await Supervisor.start_link([ChildSpec("x", Worker), ChildSpec("x", Worker)])

    with caplog.at_level(logging.ERROR):
        in_process(test)


def test_significant_children_need_a_supervisor_that_minds_them() -> None:
    async def test() -> None:
        plain = [ChildSpec("plain", Worker, restart="temporary", significant=True)]
        with pytest.raises(ConfigError, match="permanent"):
            ChildSpec("a", Worker, significant=True)
        with pytest.raises(ConfigError, match="auto_shutdown"):
            await Supervisor.start_link([], auto_shutdown="always")
        with pytest.raises(StartError, match="auto_shutdown"):
            await Supervisor.start_link(plain)
        supervisor = await Supervisor.start_link([])
        with pytest.raises(StartError) as refused:
            await Supervisor.start_child(supervisor, plain[0])
        assert refused.value.reason == ("bad_combination", [("auto_shutdown", "never"), ("significant", True)])

    in_process(test)


# --- when the node stops ----------------------------------------------------------------------------------------------


class Slow(GenServer):
    """Takes its time to end, as told."""

    async def init(self, label: str, seconds: float, ends: list[str]) -> None:
        process_flag("trap_exit", True)
        self.label, self.seconds, self.ends = label, seconds, ends

    async def terminate(self, reason: Any) -> None:
        self.ends.append(f"{self.label} begins")
        await asyncio.sleep(self.seconds)
        self.ends.append(f"{self.label} ended")


def test_a_tree_ends_in_order_when_the_runtime_stops() -> None:
    ends: list[str] = []

    async def main() -> None:
        runtime = new_runtime()
        with runtime.block():
            inner = [ChildSpec(label, (Slow, (label, 0.01, ends))) for label in ("cache", "pool")]
            specs = [
                ChildSpec("db", (Slow, ("db", 0.01, ends))),
                ChildSpec("inner", (Supervisor.start_link, (inner,)), type="supervisor"),
                ChildSpec("web", (Slow, ("web", 0.01, ends))),
            ]
            await Supervisor.start_link(specs)
            await runtime.stop()
        check_empty(runtime)

    asyncio.run(main())
    labels = ("web", "pool", "cache", "db")
    assert ends == [f"{label} {what}" for label in labels for what in ("begins", "ended")]


def test_when_the_runtime_stops_a_child_has_the_time_of_its_specification() -> None:
    """However little the others have, among them one that would hang for ever in the way of a supervisor."""
    ends: list[str] = []

    class Stuck(GenServer):
        async def init(self, boss: Pid) -> None:
            process_flag("trap_exit", True)
            send(boss, "stuck")
            await asyncio.sleep(3600)

    async def main() -> None:
        runtime = new_runtime()
        async with asyncio.timeout(20):
            with runtime.block():
                patient = ChildSpec("patient", (Slow, ("patient", 0.3, ends)), shutdown=60.0)
                hasty = ChildSpec("hasty", (Slow, ("hasty", 3600, ends)), shutdown=0.05)
                sup = await Supervisor.start_link([patient, hasty])
                spawn(Supervisor.start_child, sup, ChildSpec("stuck", (Stuck, (self_pid(),))))
                assert await receive() == "stuck"
                await runtime.stop(timeout=0.05)
            check_empty(runtime)

    asyncio.run(main())
    assert ends == ["hasty begins", "patient begins", "patient ended"]
