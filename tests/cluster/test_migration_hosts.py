"""A host that loses its address for good: the connection moves to the new one and lives on. Real hosts (namespaces)."""

from __future__ import annotations

from pathlib import Path

from harness.python import Python
from harness.wire import Wire

COOKIE = "test cookie"
MOVED = "10.99.0.7"


def node(wire: Wire, directory: Path, side: str, peers: dict[str, tuple[str, int]]) -> Python:
    host = getattr(wire, side)
    options = {
        "name": f"{side}@{host.address}",
        "listen_host": "0.0.0.0",
        "listen_port": 9100,
        "cookie": COOKIE,
        "data_dir": str(directory / side),
        "discovery_dir": None,
        "peers": peers,
        "net_ticktime_ms": 8000,
    }
    return Python(options, host.inside)


def test_the_connection_outlives_the_address_it_was_made_from(tmp_path: Path) -> None:
    with Wire() as wire, node(wire, tmp_path, "right", {}) as right:
        peers = {right.name: (wire.right.address, 9100)}
        with node(wire, tmp_path, "left", peers) as left:
            left.eval(f"await node.connect('{right.name}')")
            right.eval("register('sink', self_pid())")
            left.eval(
                "process_flag('trap_exit', True); sent = 0\n"
                "async def flood():\n"
                "    global sent\n"
                f"    while True: send(('sink', '{right.name}'), sent); sent += 1; await asyncio.sleep(0.001)\n"
                "flooding = spawn(flood); node.monitor_nodes()"
            )
            right.eval("assert await receive(timeout=5) == 0")
            assert wire.left.address in right.eval(f"node.path_stats('{left.name}').peer_address")
            wire.take_address(wire.left)
            move = f"await node.migrate_peer('{right.name}', timeout=6.0)"
            left.eval(f"told = 'moved'\ntry: {move}\nexcept MigrationError as error: told = str(error)")
            assert "no way to the peer" in left.eval("told")
            wire.give_address(wire.left, MOVED)
            left.eval(move)
            assert MOVED in right.eval(f"node.path_stats('{left.name}').peer_address")
            left.eval("await asyncio.sleep(0.5); exit(flooding, 'kill')")
            count = int(left.eval("sent"))
            right.eval(f"assert [await receive(timeout=5) for _ in range(1, {count})] == list(range(1, {count}))")
            assert left.eval("node.nodes()") == f"[Atom('{right.name}')]", "nobody was told anything"
            left.eval("try: raise AssertionError(await receive(timeout=0.2))\nexcept TimeoutError: pass")
