"""GenServer: what each callback may return, how servers start and end, and what OTP's sys asks of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from barrel_p2p import (
    IGNORE,
    NOREPLY,
    Atom,
    CallError,
    CallTimeout,
    ConfigError,
    Exit,
    GenServer,
    ImproperList,
    NoProc,
    Pid,
    Reply,
    StartError,
    Stop,
    alias,
    call,
    cast,
    exit,
    is_alive,
    link,
    monitor,
    process_flag,
    receive,
    self_pid,
    send,
    spawn,
    stop,
    via,
    whereis,
)
from barrel_p2p.process import system
from harness.processes import in_process, mailbox


class Server(GenServer):
    """Does what it is told; tells ``boss`` what was called."""

    async def init(self, boss: Pid | None = None, start: Any = None, trap: bool = False) -> Any:
        self.boss = boss
        self.n = 0
        self.kept: Any = None
        if trap:
            process_flag("trap_exit", True)
        return start() if start is not None else None

    def tell(self, *what: Any) -> None:
        if self.boss is not None:
            send(self.boss, what)

    async def handle_call(self, request: Any, from_: Any) -> Any:
        if callable(request):
            return request(self)
        if request == "keep":
            self.kept = from_
            return NOREPLY
        self.n += 1
        return self.n

    async def handle_cast(self, request: Any) -> Any:
        return request(self) if callable(request) else self.tell("cast", request)

    async def handle_info(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.tell("info", message)

    async def handle_continue(self, argument: Any) -> Any:
        self.tell("continue", argument)

    async def terminate(self, reason: Any) -> None:
        self.tell("terminate", reason)


def raiser(error: BaseException) -> Any:
    def raise_it(*_: Any) -> Any:
        raise error

    return raise_it


def test_calls_casts_and_messages() -> None:
    async def test() -> None:
        pid = await Server.start_link(self_pid())
        assert [await call(pid, "inc") for _ in range(3)] == [1, 2, 3]
        assert await GenServer.call(pid, lambda _: None) is None
        cast(pid, "c")
        send(pid, "i")
        pid.send(("tuple", "of", "three"))
        assert await receive() == ("cast", "c")
        assert await receive() == ("info", "i")
        assert await receive() == ("info", ("tuple", "of", "three"))

    in_process(test)


def test_a_reply_may_come_later_and_from_elsewhere() -> None:
    async def test() -> None:
        pid = await Server.start_link()
        waiting = asyncio.create_task(call(pid, "keep"))
        await asyncio.sleep(0.01)
        assert await call(pid, "inc") == 1  # the server is free meanwhile
        from_ = await call(pid, lambda server: server.kept)
        GenServer.reply(from_, "at last")
        assert await waiting == "at last"
        GenServer.reply(from_, "twice")
        assert await mailbox() == []
        assert await call(pid, lambda _: Reply(NOREPLY)) is NOREPLY

    in_process(test)


def test_stop_values() -> None:
    async def test() -> None:
        process_flag("trap_exit", True)
        for returned, answer in ((Stop("done", "bye"), "bye"), (Stop("done"), None)):
            for use in (lambda value=returned: value, lambda value=returned: raiser(value)()):
                pid = await Server.start_link(self_pid())
                if answer is None:
                    with pytest.raises(CallError) as ended:
                        await call(pid, lambda _, use=use: use())
                    assert ended.value.reason == "done"
                else:
                    assert await call(pid, lambda _, use=use: use()) == answer
                assert await receive() == ("terminate", "done")
                assert await receive() == (Atom("EXIT"), pid, Atom("done"))
        for deliver in (cast, send):
            pid = await Server.start_link(self_pid())
            deliver(pid, lambda _: Stop())
            assert await receive() == ("terminate", "normal")
            assert await receive() == (Atom("EXIT"), pid, Atom("normal"))

    in_process(test)


def test_a_value_that_means_nothing_is_a_fault() -> None:
    async def test() -> None:
        pid, _ = await Server.start_monitor()
        cast(pid, lambda _: "some value")
        assert (await receive(timeout=1))[4] == (Atom("bad_return_value"), "some value")

    in_process(test)


def test_a_crash_ends_the_server_tells_the_caller_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        pid, _ = await Server.start_monitor(self_pid())
        with pytest.raises(CallError) as crash:
            await call(pid, raiser(ValueError("broken")))
        (_, name, text), _ = crash.value.reason
        assert (name, text) == ("ValueError", "broken")
        assert (await receive())[0] == "terminate"
        assert (await receive())[4] == crash.value.reason

    with caplog.at_level(logging.INFO):
        in_process(test)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].exc_info is not None
    assert "in raise_it" in caplog.text and 'server_loop.py"' not in caplog.text, "the traceback is the user's"


def test_start_failures() -> None:
    async def test() -> None:
        for start in (Server.start, Server.start_link, Server.start_monitor):
            for fault, reason in (
                (raiser(Stop("no")), "no"),
                (lambda: Stop((1, 2)), (1, 2)),
                (raiser(Exit("out")), "out"),
                (lambda: IGNORE, "ignore"),
            ):
                with pytest.raises(StartError) as failed:
                    await start(None, fault, name="server")
                assert failed.value.reason == reason
                assert whereis("server") is None
            with pytest.raises(StartError) as crashed:
                await start(None, raiser(ValueError("bad")))
            assert crashed.value.reason[0][1:] == ("ValueError", "bad")
            assert isinstance(crashed.value.__cause__, ValueError)
        assert await mailbox() == []  # the failure is told once

        pid = await Server.start_link(name="server")
        with pytest.raises(StartError) as taken:
            await Server.start(name=("local", "server"))
        assert taken.value.reason == (Atom("already_started"), pid)

    in_process(test)


def test_start_may_time_out_or_be_cancelled() -> None:
    class Slow(GenServer):
        async def init(self, *args: Any) -> None:
            await asyncio.sleep(60)

    async def test() -> None:
        from barrel_p2p import processes

        with pytest.raises(StartError) as late:
            await Slow.start_link(timeout=0.01)
        assert late.value.reason == "timeout"
        task = asyncio.create_task(Slow.start_link())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.01)
        assert processes() == [self_pid()]
        assert await mailbox() == []

        starting = asyncio.create_task(Slow.start(name="slow"))
        await asyncio.sleep(0.01)
        slow = whereis("slow")
        assert slow is not None
        exit(slow, "kill")
        with pytest.raises(StartError) as killed:
            await starting
        assert killed.value.reason == "killed"

    in_process(test)


def test_continue_runs_before_any_message() -> None:
    class Continuing(Server):
        async def init(self, boss: Any = None, *args: Any) -> None:  # type: ignore[override]
            await super().init(boss)
            self.continue_("after init")
            send(self_pid(), "a message")

    async def test() -> None:
        pid = await Continuing.start_link(self_pid())
        assert await receive() == ("continue", "after init")
        assert await receive() == ("info", "a message")
        await call(pid, lambda server: server.continue_("after call"))
        assert await receive() == ("continue", "after call")

    in_process(test)


def test_timeout_of_a_silent_server() -> None:
    async def test() -> None:
        pid = await Server.start_link(self_pid())
        await call(pid, lambda server: server.set_timeout(0.02))
        assert await receive(timeout=1) == ("info", Atom("timeout"))
        await call(pid, lambda server: server.set_timeout(0.02))
        await call(pid, "inc")  # any message ends the wait
        with pytest.raises(TimeoutError):
            await receive(timeout=0.05)

    in_process(test)


def test_exits_and_terminate() -> None:
    async def test() -> None:
        boss = self_pid()

        async def parent(trap: bool) -> None:
            send(boss, await Server.start_link(boss, None, trap))
            await receive()
            exit("parent is gone")

        one = spawn(parent, True)
        server = await receive()
        ref = monitor(server)
        send(one, "end")
        assert await receive() == ("terminate", "parent is gone")
        assert (await receive())[1:5:3] == (ref, "parent is gone")

        one = spawn(parent, False)
        server = await receive()
        ref = monitor(server)
        send(one, "end")
        assert (await receive())[1:5:3] == (ref, "parent is gone")  # not trapping: no terminate

        server = await Server.start(boss, None, True)
        exit(server, "from a stranger")
        assert await receive() == ("info", (Atom("EXIT"), boss, Atom("from a stranger")))
        link(server)
        await stop(server)
        assert await receive() == ("terminate", "normal")

    in_process(test)


def test_stop() -> None:
    async def test() -> None:
        pid = await Server.start(self_pid())
        await stop(pid)
        assert await receive() == ("terminate", "normal")
        assert not is_alive(pid)
        with pytest.raises(NoProc):
            await stop(pid)
        with pytest.raises(NoProc):
            await stop("nobody")
        pid = await Server.start(self_pid(), name="server")
        await GenServer.stop("server", (Atom("shutdown"), "for a reason"))
        assert await receive() == ("terminate", (Atom("shutdown"), "for a reason"))

        class Stubborn(GenServer):
            async def terminate(self, reason: Any) -> None:
                await asyncio.sleep(0.2)

        pid = await Stubborn.start()
        with pytest.raises(CallTimeout):
            await stop(pid, timeout=0.01)

    in_process(test)


def test_sys() -> None:
    async def test() -> None:
        pid = await Server.start_link()
        await call(pid, "inc")
        assert (await system.get_state(pid))["n"] == 1

        def tenfold(state: dict[Any, Any]) -> dict[Any, Any]:
            return {**state, "n": state["n"] * 10}

        assert (await system.replace_state(pid, tenfold))["n"] == 10
        with pytest.raises(CallError):
            await system.replace_state(pid, raiser(ValueError()))
        await system.suspend(pid)
        waiting = asyncio.create_task(call(pid, "inc"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        status, of, (_, module), [dictionary, state, parent, _, _] = await system.get_status(pid)
        assert (status, of, module, state, parent) == ("status", pid, "gen_server", "suspended", self_pid())
        assert dict(dictionary) == {"$initial_call": ("Server", "init", 1), "$ancestors": [self_pid()]}
        await system.resume(pid)
        assert await waiting == 11

    in_process(test)


def test_sys_as_erlang_speaks_it() -> None:
    async def test() -> None:
        pid = await Server.start(self_pid())
        ref = alias()
        from_ = (self_pid(), ImproperList((Atom("alias"),), ref))

        async def ask(request: Any) -> Any:
            send(pid, (Atom("system"), from_, request))
            tag, answer = await receive(timeout=1)
            assert tag == from_[1]
            return answer

        assert await ask(Atom("suspend")) == "ok"
        assert await ask(Atom("resume")) == "ok"
        ok, state = await ask(Atom("get_state"))
        assert ok == "ok" and state["n"] == 0
        assert await ask((Atom("debug"), Atom("no_debug"))) == (
            Atom("error"),
            (Atom("unknown_system_msg"), (Atom("debug"), Atom("no_debug"))),
        )
        watch = monitor(pid)
        assert await ask((Atom("terminate"), Atom("shutdown"))) == "ok"
        assert await receive() == ("terminate", "shutdown")
        assert (await receive())[1:5:3] == (watch, "shutdown")

    in_process(test)


def test_names_of_a_registry_are_given_and_taken_back() -> None:
    class Registry:
        def __init__(self) -> None:
            self.names: dict[Any, Pid] = {}

        async def register_name(self, name: Any, pid: Pid) -> bool:
            return self.names.setdefault(name, pid) == pid

        async def unregister_name(self, name: Any) -> None:
            del self.names[name]

        def whereis_name(self, name: Any) -> Pid | None:
            return self.names.get(name)

    async def test() -> None:
        registry = Registry()
        name = via(registry, "server")
        pid = await Server.start(name=name)
        assert registry.names == {"server": pid}
        with pytest.raises(StartError) as taken:
            await Server.start(name=name)
        assert taken.value.reason == (Atom("already_started"), pid)
        assert await call(name, "inc") == 1
        await stop(name)
        assert registry.names == {}

    in_process(test)


def test_the_default_callbacks(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        pid = await GenServer.start()
        send(pid, "what is this")
        with pytest.raises(CallError):
            await call(pid, "hello")
        pid, ref = await GenServer.start_monitor()
        cast(pid, "hello")
        assert (await receive(timeout=1))[1] == ref

    in_process(test)
    assert "unexpected message: 'what is this'" in caplog.text


def test_a_registry_of_another_node_needs_a_network() -> None:
    async def test() -> None:
        name = via(("Elixir.Registry", "shop@127.0.0.1"), "till")
        assert name.term() == ("via", ("Elixir.Registry", "shop@127.0.0.1"), "till")
        with pytest.raises(ConfigError, match=r"no network to ask shop@127\.0\.0\.1"):
            await call(name, "total")

    in_process(test)
