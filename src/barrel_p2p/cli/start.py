"""``barrel start NAME``: run a node until SIGINT or SIGTERM, or until its app ends."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import inspect
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from barrel_p2p import Atom, Node, Pid, receive, self_pid, send, spawn_monitor
from barrel_p2p.cli import logs
from barrel_p2p.cli.arguments import Parser, Usage, given
from barrel_p2p.cli.status import FAILED, OK
from barrel_p2p.cli.terms import show
from barrel_p2p.node.config import CommandOptions, check_options, nearest
from barrel_p2p.node.options import DEFAULT_COOKIE, Options
from barrel_p2p.process.current import current_process
from barrel_p2p.services.observer import export_observer

TEXT = """\
Runs a node until Ctrl-C or SIGTERM. With --app it also runs `async def function(node)` of a module of yours, found in
the working directory or among the installed packages, as a process of the node; the node ends when that ends, with
its exit status: 0, the number it returns, or 1 if it crashes.
"""
EXAMPLES = (
    "barrel start bob@127.0.0.1",
    "BARREL_COOKIE=secret barrel start bob@10.0.0.2 --listen-port 9100",
    "barrel start bob@10.0.0.2 --config node.toml --app shop:main --log-level warning",
)
App = Callable[[Node], Awaitable[Any]]

log = logging.getLogger("barrel_p2p.start")
_STOP = Atom("barrel_stop")


def parser(name: str) -> Parser:
    made = Parser(name, TEXT, EXAMPLES)
    made.add_argument("name", metavar="NAME", nargs="?", help="the node's name, such as bob@127.0.0.1")
    made.add_settings(lambda option: option != "name")
    return made


def run(arguments: argparse.Namespace) -> int:
    found = given(arguments)
    options = check_options(found)
    values = {name: entry.value for name, entry in found.items()}
    command = CommandOptions(**{n: v for n, v in values.items() if n in CommandOptions.__dataclass_fields__})
    name = arguments.name or command.name
    if name is None:
        raise Usage("barrel start: the node needs a name: barrel start bob@127.0.0.1")
    node = Node(name, **{n: v for n, v in values.items() if n in Options.__dataclass_fields__})
    app = _find_app(command.app, found["app"].source) if command.app is not None else None
    logs.set_up("warning" if command.log_level in ("debug", "info") else command.log_level, as_json=command.json_logs)
    return asyncio.run(_serve(node, options, command, app))


# --- the app ----------------------------------------------------------------------------------------------------------


def _find_app(path: str, source: str) -> App:
    module_name, colon, function_name = path.partition(":")
    if not colon or not module_name or not function_name:
        raise Usage(f"{source}: {path!r} must be module:function, such as shop:main")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports something that is not
        raise Usage(f"{source}: there is no module {error.name!r} in {os.getcwd()} or among the packages") from None
    function = getattr(module, function_name, None)
    if function is None:
        known = [
            name
            for name, value in vars(module).items()  # what it imports is no app: receive, sleep, ...
            if inspect.iscoroutinefunction(value) and f"{value.__module__}.".startswith(f"{module.__name__}.")
        ]
        hint = nearest(function_name, known) if known else ", nor any async function"
        raise Usage(f"{source}: module {module_name} has no {function_name!r}{hint}")
    if not inspect.iscoroutinefunction(function):
        raise Usage(f"{source}: {path} must be an `async def {function_name}(node)`, not {function!r:.60}")
    found: App = function
    return found


async def _run_app(app: App, node: Node, result: list[Any]) -> None:
    """The app's process. ``sys.exit`` in it ends the app, not the event loop."""
    current_process().label = f"{app.__module__}:{app.__name__}"  # for who watches
    try:
        result.append(await app(node))
    except SystemExit as error:
        result.append(error.code)


def _short(reason: Any) -> str:
    """An exit reason without the stack that the log has shown already."""
    match reason:
        case ((Atom("exception"), str(kind), str(text)), list()):
            return f"{kind}: {text}"
    return show(reason)


def _status(result: Any) -> int:
    if result is None or result is True:
        return OK
    if isinstance(result, int):
        return int(result) & 0xFF if result is not False else FAILED
    if isinstance(result, str):
        print(f"barrel: {result}", file=sys.stderr)  # as sys.exit("text") does
        return FAILED
    return OK


# --- the node ---------------------------------------------------------------------------------------------------------


async def _serve(node: Node, options: Options, command: CommandOptions, app: App | None) -> int:
    data_dir = Path(options.data_dir) if options.data_dir is not None else Path("data") / node.name
    is_new = not (data_dir / "keys" / "node.key").exists()
    async with node:
        current_process().label = "barrel start"
        _catch_signals(self_pid())  # before anybody can read that the node is up, and stop it
        if command.observable:
            export_observer(node)
        _announce(node, options, data_dir, is_new, as_json=command.json_logs)
        _freeze_imports()
        logging.getLogger().setLevel(command.log_level.upper())
        result: list[Any] = []
        app_pid: Pid | None = None
        if app is not None:
            app_pid, _ = spawn_monitor(_run_app, app, node, result)
        while True:
            match await receive():
                case (tag, str(name)) if tag is _STOP:
                    log.info("%s stops: %s", node.name, name)
                    return OK
                case ("DOWN", _, _, pid, reason) if pid == app_pid:
                    if result:
                        return _status(result[0])
                    if reason in ("normal", "shutdown"):
                        return OK
                    log.error("%s stops: its app %s ended with reason %s", node.name, command.app, _short(reason))
                    return FAILED


def _freeze_imports() -> None:
    """The collector need not walk again and again over what the imports made: some 40,000 objects that stay."""
    gc.collect()
    gc.freeze()


def _announce(node: Node, options: Options, data_dir: Path, is_new: bool, *, as_json: bool) -> None:
    host, port = node.listen_address
    transport = "UDP" if options.proto_dist == "barrel_p2p" else "TCP"
    key = node.keys.fingerprint if getattr(node, "keys", None) is not None else None
    if as_json:
        log.setLevel(logging.INFO)
        details = {"node": node.name, "host": host, "port": port, "fingerprint": key, "proto_dist": options.proto_dist}
        log.info("%s is up", node.name, extra=details)
    else:
        print(f"{node.name} is up, carrier {options.proto_dist}")
        print(f"  address  {host}:{port} ({transport})")
        if key is not None:
            print(f"  key      {key}{' (new)' if is_new else ''}")
        print(f"  data     {data_dir}", flush=True)
    if options.cookie == DEFAULT_COOKIE:
        log.warning("the cookie is the public default: set BARREL_COOKIE, so that only your own nodes get in")


def _catch_signals(block: Pid) -> None:
    """The first signal stops the node in order; a second one, while that takes its time, ends it at once."""
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        send(block, (_STOP, number.name))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
