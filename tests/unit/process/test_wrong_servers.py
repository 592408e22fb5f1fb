"""Servers and supervisors that are written wrongly: the error names the class and what it should have."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from barrel_p2p import CallError, ChildSpec, GenServer, StartError, Stop, Supervisor, call, cast, monitor, receive
from harness.processes import in_process


class PlainInit(GenServer):
    def init(self) -> None:  # type: ignore[override]
        self.n = 0


class PlainCall(GenServer):
    def handle_call(self, request: Any, from_: Any) -> Any:
        return request


class Passes(GenServer):
    """A plain function may give what can be awaited."""

    def handle_call(self, request: Any, from_: Any) -> Any:
        return self.answer(request)

    async def answer(self, request: Any) -> Any:
        return request


class Quits(GenServer):
    async def handle_call(self, request: Any, from_: Any) -> Any:
        return Stop(request, reply=None)

    async def handle_cast(self, request: Any) -> Any:
        return Stop(request)


class Shop(Supervisor):
    async def init(self, children: Any) -> Any:
        return children


class PlainShop(Supervisor):
    def init(self) -> Any:
        return []


class Till(GenServer):
    async def init(self) -> None:
        raise ValueError("no change")


def test_an_init_that_is_no_async_def() -> None:
    async def test() -> None:
        with pytest.raises(StartError, match=r"TypeError\('PlainInit.init must be an async def'\)"):
            await PlainInit.start()
        with pytest.raises(StartError, match=r"TypeError\('PlainShop.init must be an async def'\)"):
            await PlainShop.start_link()

    in_process(test)


def test_a_callback_that_is_no_async_def(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with pytest.raises(CallError) as caught:
            await call(await PlainCall.start(), "hello")
        assert caught.value.reason[0][1:] == ("TypeError", "PlainCall.handle_call must be an async def")
        assert await call(await Passes.start(), "hello") == "hello"

    in_process(test)
    assert "PlainCall.handle_call must be an async def" in caplog.text


@pytest.mark.parametrize("children", [None, 5, [Till], [("till", Till)]])
def test_children_that_are_no_list_of_specifications(children: Any) -> None:
    async def test() -> None:
        with pytest.raises(StartError, match="Shop needs a list of ChildSpec, not"):
            await Shop.start_link(children)
        with pytest.raises(StartError, match="Supervisor needs a list of ChildSpec, not"):
            await Supervisor.start_link(children)

    in_process(test)


def test_a_supervisor_says_which_child_did_not_start_and_why() -> None:
    async def test() -> None:
        with pytest.raises(StartError, match=r"Shop did not start: .*Till did not start: ValueError\('no change'\)"):
            await Shop.start_link([ChildSpec("till", Till)])

    in_process(test)


def test_named_arguments_go_to_the_init_of_a_supervisor() -> None:
    async def test() -> None:
        await Shop.start_link(children=[])
        with pytest.raises(StartError, match="unexpected keyword argument 'stratgy'"):
            await Supervisor.start_link([], stratgy="one_for_all")

    in_process(test)


def test_a_stop_with_a_fault_for_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        for reason in ("normal", "shutdown", "out of stock"):
            pid = await Quits.start()
            ref = monitor(pid)
            cast(pid, reason)
            assert (await receive(timeout=5))[1] == ref
        await call(await Quits.start(), "no till")

    with caplog.at_level(logging.ERROR, "barrel_p2p.process"):
        in_process(test)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2 and all("Quits" in text for text in texts)
    assert "stops in handle_cast('out of stock'): Atom('out of stock')" in texts[0]
    assert "stops in handle_call('no till')" in texts[1]
