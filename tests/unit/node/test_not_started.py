"""What a node answers before it is started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import ConfigError, Node

BOB = "bob@127.0.0.1"


@pytest.mark.parametrize(
    "ask",
    [
        lambda node: node.nodes(),
        lambda node: node.listen_address,
        lambda node: node.connect(BOB),
        lambda node: node.disconnect(BOB),
        lambda node: node.rpc(BOB, "lists", "max", [[1]]),
        lambda node: node.peer_info(BOB),
        lambda node: node.path_stats(BOB),
        lambda node: node.migrate_peer(BOB),
        lambda node: node.statistics(),
        lambda node: node.join(BOB),
        lambda node: node.maps,
        lambda node: node.rotate_identity(),
    ],
)
def test_a_node_that_does_not_run_says_so(ask: Callable[[Node], Any], tmp_path: Path) -> None:
    async def main() -> None:
        answer = ask(Node("alice@127.0.0.1", data_dir=tmp_path))
        if asyncio.iscoroutine(answer):
            await answer

    with pytest.raises(ConfigError, match="is not running: use"):
        asyncio.run(main())
