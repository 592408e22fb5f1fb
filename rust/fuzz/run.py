"""Fuzz the Rust that reads bytes of the network, with libFuzzer: stable Rust and a C++ compiler are enough.

    .venv/bin/python rust/fuzz/run.py --seconds 60 term frames

Each target gets a corpus of its own in ``corpus/``, which stays for the next run. The seeds are what real nodes sent
(``tests/vectors``). An input that breaks something is kept in ``artifacts/``, and the way to replay it is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "tests/vectors"
TARGETS = ("term", "frames", "fragments", "atoms")
# What clang's -fsanitize=fuzzer asks of the compiler; rustc's LLVM does it too. The code is safe Rust, so that no
# sanitizer of memory is missed.
COVERAGE = "-Cpasses=sancov-module -Ccodegen-units=1 --cfg=fuzzing " + " ".join(
    f"-Cllvm-args=-sanitizer-coverage-{what}"
    for what in ("level=4", "inline-8bit-counters", "pc-table", "trace-compares")
)
LIMITS = ("-max_len=8192", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the Rust that reads bytes of the network.")
    parser.add_argument("targets", nargs="*", help=f"some of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    binaries = build()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        good = list(pool.map(lambda target: fuzz(binaries / target, arguments.seconds), targets))
    return 0 if all(good) else 1


def build() -> Path:
    """Compile the targets; the folder they are in."""
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (.*)$", version, re.MULTILINE)
    assert host is not None
    # with a --target the flags are not for build scripts, which would not link with them
    where = ["--manifest-path", str(HERE / "Cargo.toml"), "--target", host[1]]
    environment = os.environ | {"RUSTFLAGS": COVERAGE}
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *where], check=True, env=environment)
    return HERE / "target" / host[1] / "release"


def fuzz(binary: Path, seconds: int) -> bool:
    """Run one target; whether nothing broke."""
    corpus, artifacts = HERE / "corpus" / binary.name, HERE / "artifacts"
    corpus.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(exist_ok=True)
    for seed in seeds(binary.name):
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    prefix = f"-artifact_prefix={artifacts}/{binary.name}-"
    command = [str(binary), f"-max_total_time={seconds}", *LIMITS, prefix, str(corpus)]
    done = subprocess.run(command, check=False, capture_output=True, errors="replace", text=True)
    if done.returncode == 0:
        runs = re.findall(r"number_of_executed_units: *(\d+)", done.stderr)
        edges = re.findall(r"cov: (\d+)", done.stderr)
        print(f"{binary.name}: {int(runs[-1]):,} inputs, {edges[-1]} edges, nothing broke", flush=True)
        return True
    print(re.sub(r"^#\d+\t.*\n", "", done.stderr, flags=re.MULTILINE)[-6000:])
    for path in re.findall(r"Test unit written to (\S+)", done.stderr):
        print(f"{binary.name} broke on {Path(path).read_bytes()[:200].hex()}\nreplay: {binary} {path}", flush=True)
    return False


# --- seeds ------------------------------------------------------------------------------------------------------------


def seeds(target: str) -> Iterator[bytes]:
    """Inputs to begin with. Their first bytes are the choices that the target takes off the front."""
    terms = sorted(real_terms())
    match target:
        case "term":
            for term in terms:
                yield b"\0" + term
                yield b"\0" + term[1:]
                yield b"\4" + term[1:].replace(b"w\2ok", b"R\0")
        case "frames":
            for one, two in itertools.pairwise(terms):
                yield b"\1\7" + frame(b"\x83D\0" + one[1:] + two[1:])
                yield b"\1\7" + frame(b"\x83E" + ids(9, 2) + b"\0" + one[1:]) + frame(b"\x83F" + ids(9, 1) + two[1:])
                yield b"\0\7" + frame(b"p" + one + two) + bytes(4)
                yield b"\3\7" + frame(b"\x83D\1\x08\7\2ok" + two[1:]) + frame(b"\x83D\1\0\7" + two[1:])
        case "fragments":
            for size in (10, 100, 64 << 8, 200 << 8):
                yield b"\1\7" + size.to_bytes(2, "big") * 3 + b"\2\2ok\3a@b" * 10
                yield b"\0\7" + size.to_bytes(2, "big") * 30
        case "atoms":
            yield b"\2\x88\0\1\2ok\2\1x\2\0\0\1\2"
            yield b"\1\x18\7\4\0" + b"a" * 1024
            yield b"\3\2ok\3a@b\2ok" * 20


def real_terms() -> set[bytes]:
    """What the vectors of real Erlang nodes hold: terms behind the byte 131."""
    found: set[bytes] = set()
    for name in ("etf", "overlay", "crdt"):
        found |= hexes(json.loads((VECTORS / f"{name}.json").read_text()))
    return {data for data in found if data[:1] == b"\x83" and len(data) <= 2048}


def hexes(node: Any) -> set[bytes]:
    if isinstance(node, dict | list):
        inner = node.values() if isinstance(node, dict) else node
        return set[bytes]().union(*map(hexes, inner))
    if isinstance(node, str) and re.fullmatch("(?:[0-9a-f]{2})+", node):
        return {bytes.fromhex(node)}
    return set()


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def ids(sequence: int, number: int) -> bytes:
    return struct.pack(">QQ", sequence, number)


if __name__ == "__main__":
    sys.exit(main())
