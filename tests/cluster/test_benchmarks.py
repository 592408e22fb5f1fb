"""The programs of the benchmark run, for those systems that are installed: their figures are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.timeout(300)


def measured(program: str, *arguments: str, into: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / program), *arguments, "--json", str(into)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(into.read_text())
    assert document["failures"] == []
    return document


def test_every_system_does_all_its_works_or_is_left_out_by_name(tmp_path: Path) -> None:
    document = measured("run.py", "--tiny", into=tmp_path / "tiny.json")
    rows = {(row["work"], row["system"]) for row in document["rows"]}
    ours = {
        "ours_quic": ["oneway_1", "oneway_10", "pingpong_p99_us", "call_1", "call_50", "message_1mib_mb_s",
                      "setup_p50_ms", "stream_mb_s", "idle_cpu", "peer_bytes"],
        "ours_local": ["local_flood", "local_pingpong", "spawn_s", "idle_bytes"],
        "ours_native": ["etf_small_enc_us", "etf_small_dec_us", "etf_maps1000_enc_us", "etf_maps1000_dec_us"],
    }  # fmt: skip
    assert [(work, system) for system, works in ours.items() for work in works if (work, system) not in rows] == []
    rivals = {"otp_tcp", "otp_tls", "ours_tcp", "asyncio_msgpack", "zmq_aio", "grpc_aio", "ray", "aioquic"}
    assert rivals <= {system for _, system in rows} | set(document["left_out"])
    assert all(reason for reason in document["left_out"].values())


def test_the_curves_have_a_point_for_every_step(tmp_path: Path) -> None:
    document = measured(
        "curves.py", "--quick", "--only", "callers,peers", "--systems", "ours_quic", into=tmp_path / "curves.json"
    )
    points = [(row["work"], row["x"]) for row in document["rows"]]
    assert points == [
        *[("callers_calls_s", callers) for callers in (1, 10, 50)],
        ("peers_msg_s", 5),
        ("peers_cpu_us", 5),
    ]
