"""What is measured: the works, their rows, their sizes, their targets.

Every system gets the same sizes, so a row compares like with like. ``batch`` is how many messages a Python
sender passes on before it lets its event loop turn; the BEAM preempts its senders by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result table."""

    name: str
    unit: str
    more_is_better: bool
    about: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each work is done in one sample, the same for every system."""

    messages: int = 300_000  # one-way, over all pairs
    rounds: int = 5_000  # ping-pong
    calls_1: int = 5_000
    calls_50: int = 30_000  # over all 50 callers
    big_messages: int = 200  # of 1 MiB
    setups: int = 50
    local_messages: int = 300_000
    local_rounds: int = 50_000
    spawns: int = 50_000
    idle: int = 20_000
    small_terms: int = 100_000
    big_terms: int = 300
    stream_mib: int = 512
    peers: int = 100  # of one node; two fifths of it where each is an OS process of its own
    quiet_s: float = 10.0  # of the idle node
    batch: int = 100
    patience: float = 180.0  # seconds that one work may take

    def part(self, share: float, share_big: float) -> Sizes:
        """What a slower system gets; of each work enough to be a sample."""

        return replace(
            self,
            messages=max(500, int(self.messages * share)),
            rounds=max(50, int(self.rounds * share)),
            calls_1=max(50, int(self.calls_1 * share)),
            calls_50=max(500, int(self.calls_50 * share)),
            big_messages=max(10, int(self.big_messages * share_big)),
            stream_mib=max(4, int(self.stream_mib * share_big)),
        )


FULL: Final = Sizes()
# A tenth: enough to see that everything runs and the order of magnitude, not enough to publish.
QUICK: Final = replace(
    FULL,
    messages=30_000, rounds=500, calls_1=500, calls_50=3_000, big_messages=20, setups=10,
    local_messages=30_000, local_rounds=5_000, spawns=5_000, idle=5_000, small_terms=10_000, big_terms=30,
    stream_mib=64, peers=25, quiet_s=2.0, patience=20.0,
)  # fmt: skip

# Only to see that the programs run: the figures say nothing.
TINY: Final = replace(
    FULL,
    messages=2_000, rounds=50, calls_1=50, calls_50=500, big_messages=4, setups=2,
    local_messages=2_000, local_rounds=200, spawns=500, idle=500, small_terms=150, big_terms=15,
    stream_mib=4, peers=15, quiet_s=0.1, patience=60.0,
)  # fmt: skip

SMALL_BYTES: Final = 64
BIG_BYTES: Final = 1024 * 1024

# A work may give several rows (one ping-pong gives two percentiles).
WORKS: Final[dict[str, tuple[Row, ...]]] = {
    "oneway_1": (Row("oneway_1", "msg/s", True, "64-byte binary in a tuple, one sender, one receiver"),),
    "oneway_10": (Row("oneway_10", "msg/s", True, "the same, ten pairs, total"),),
    "pingpong": (
        Row("pingpong_p50_us", "us", False, "64-byte round trip between two processes, median"),
        Row("pingpong_p99_us", "us", False, "the same, 99th percentile"),
    ),
    "call_1": (Row("call_1", "calls/s", True, "gen_server calls, one caller"),),
    "call_50": (Row("call_50", "calls/s", True, "gen_server calls, 50 callers of one server"),),
    "message_1mib": (Row("message_1mib_mb_s", "MB/s", True, "1 MiB binaries one way, 1 MB = 1,000,000 bytes"),),
    "setup": (Row("setup_p50_ms", "ms", False, "authenticated connection from nothing to usable, median"),),
    "stream": (Row("stream_mb_s", "MB/s", True, "bytes over one stream, 1 MB = 1,000,000 bytes"),),
    "peers": (
        Row("idle_cpu", "% of a core", False, "an idle node with 5 peers"),
        Row("peer_bytes", "bytes", False, "resident memory per connected peer"),
    ),
    "local_flood": (Row("local_flood", "msg/s", True, "one-way between two processes of one node"),),
    "local_pingpong": (Row("local_pingpong", "round trips/s", True, "between two processes of one node"),),
    "spawn": (Row("spawn_s", "spawns/s", True, "processes started, run and gone"),),
    "idle": (Row("idle_bytes", "bytes", False, "resident memory per idle process"),),
    "etf_small": (
        Row("etf_small_enc_us", "us", False, "a `$gen_call` with pid, alias and 64 bytes to bytes"),
        Row("etf_small_dec_us", "us", False, "and back"),
    ),
    "etf_maps1000": (
        Row("etf_maps1000_enc_us", "us", False, "a list of 1,000 maps of five keys to bytes"),
        Row("etf_maps1000_dec_us", "us", False, "and back"),
    ),
}

ROWS: Final = {row.name: row for group in WORKS.values() for row in group}


@dataclass(frozen=True, slots=True)
class Target:
    """What ours has to reach: ``times`` the rival's figure at least, or at most where less is better.

    Without a rival ``times`` is the figure itself.
    """

    row: str
    system: str
    rival: str | None
    times: float

    def text(self) -> str:
        row = ROWS[self.row]
        sign = ">=" if row.more_is_better else "<=" if self.rival else "<"
        return f"{sign} {self.times:g}{f'x {self.rival}' if self.rival else f' {row.unit}'}"

    def met(self, figure: float) -> bool:
        """``figure`` is ours divided by the rival's, or ours where there is none."""
        return figure >= self.times if ROWS[self.row].more_is_better else figure <= self.times


TARGETS: Final = (
    Target("oneway_1", "ours_quic", "otp_tcp", 1.0),
    Target("oneway_10", "ours_quic", "otp_tls", 1.5),
    Target("pingpong_p50_us", "ours_quic", "otp_tls", 1.0),
    Target("pingpong_p99_us", "ours_quic", "otp_tls", 1.5),
    Target("call_50", "ours_quic", "otp_tcp", 1.0),
    Target("message_1mib_mb_s", "ours_quic", "otp_tls", 5.0),
    Target("stream_mb_s", "ours_quic", "aioquic", 15.0),
    Target("setup_p50_ms", "ours_quic", "otp_tls", 1.0),
    Target("idle_cpu", "ours_quic", None, 0.5),
    Target("peer_bytes", "ours_quic", "otp_tls", 0.5),
    Target("local_flood", "ours_local", "asyncio_bare", 0.4),
    Target("local_pingpong", "ours_local", "asyncio_bare", 0.5),
    Target("spawn_s", "ours_local", "asyncio_bare", 0.7),
    Target("idle_bytes", "ours_local", "asyncio_bare", 1.5),
    Target("etf_small_enc_us", "ours_native", "pickle", 1.2),
    Target("etf_small_dec_us", "ours_native", "pickle", 1.2),
    Target("etf_maps1000_enc_us", "ours_native", "pickle", 1.2),
    Target("etf_maps1000_dec_us", "ours_native", "pickle", 1.2),
)

PAIR_WORKS: Final = ("oneway_1", "oneway_10", "pingpong", "call_1", "call_50", "message_1mib", "setup")
LOCAL_WORKS: Final = ("local_flood", "local_pingpong", "spawn", "idle")
CODEC_WORKS: Final = ("etf_small", "etf_maps1000")


def pair_command(work: str, sizes: Sizes) -> str:
    """The line that asks one node of a pair for a work; both languages understand the same lines."""
    match work:
        case "oneway_1" | "oneway_10":
            pairs = 10 if work == "oneway_10" else 1
            return f"oneway {pairs} {sizes.messages // pairs} {SMALL_BYTES} {sizes.batch}"
        case "pingpong":
            return f"pingpong {sizes.rounds} {SMALL_BYTES}"
        case "call_1":
            return f"call 1 {sizes.calls_1} {SMALL_BYTES}"
        case "call_50":
            return f"call 50 {sizes.calls_50 // 50} {SMALL_BYTES}"
        case "message_1mib":
            return f"oneway 1 {sizes.big_messages} {BIG_BYTES} 1"
        case "setup":
            return f"setup {sizes.setups}"
        case "stream":
            return f"stream {sizes.stream_mib}"
    raise ValueError(work)


def local_command(work: str, sizes: Sizes) -> list[str]:
    """The arguments of the one-process programs."""
    match work:
        case "local_flood":
            return [work, str(sizes.local_messages), str(sizes.batch)]
        case "local_pingpong":
            return [work, str(sizes.local_rounds)]
        case "spawn":
            return [work, str(sizes.spawns), str(sizes.batch)]
        case "idle":
            return [work, str(sizes.idle)]
    raise ValueError(work)


def in_row_units(work: str, values: list[float]) -> list[float]:
    """Big messages are counted one by one by the nodes; the table shows bytes."""
    return [v * BIG_BYTES / 1e6 for v in values] if work == "message_1mib" else values
