"""Fuzz the Rust that reads bytes of the network, with libFuzzer: stable Rust and a C++ compiler are enough.

    .venv/bin/python rust/fuzz/run.py --seconds 60 term frames

Each target gets a corpus of its own in ``corpus/``, which stays for the next run. The seeds are what real nodes sent
(``tests/vectors``). An input that breaks something is kept in ``artifacts/``, and the way to replay it is printed.

``--quick`` makes the same inputs each time, from the seeds alone: a change is never blamed for what luck has found.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "tests/vectors"
TARGETS = ("term", "frames", "fragments", "atoms", "preamble")
# What clang's -fsanitize=fuzzer asks of the compiler; rustc's LLVM does it too. The code is safe Rust, so that no
# sanitizer of memory is missed.
COVERAGE = "-Cpasses=sancov-module -Ccodegen-units=1 --cfg=fuzzing " + " ".join(
    f"-Cllvm-args=-sanitizer-coverage-{what}"
    for what in ("level=4", "inline-8bit-counters", "pc-table", "trace-compares")
)
# Some ten seconds of each target.
QUICK = {"term": 1_000_000, "frames": 250_000, "fragments": 40_000, "atoms": 400_000, "preamble": 400_000}
LIMITS = ("-max_len=8192", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the Rust that reads bytes of the network.")
    parser.add_argument("targets", nargs="*", help=f"some of {', '.join(TARGETS)}; all by default")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=int, default=60, help="for each target")
    length.add_argument("--quick", action="store_true", help="a fixed number of inputs, the same each time")
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    binaries = build()
    seconds = None if arguments.quick else arguments.seconds
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        good = list(pool.map(lambda target: fuzz(binaries / target, seconds), targets))
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


def fuzz(binary: Path, seconds: int | None) -> bool:
    """Run one target, for ``None`` seconds on the inputs of ``--quick``; whether nothing broke."""
    if seconds is not None:
        corpus = HERE / "corpus" / binary.name
        corpus.mkdir(parents=True, exist_ok=True)
        plant(binary.name, corpus)
        return run(binary, [str(binary), f"-max_total_time={seconds}", "."], corpus)
    with tempfile.TemporaryDirectory() as folder:
        # names, arguments and environment of the same length each time: they stand on the stack, and move it. The
        # inputs are a list, since the order of a folder's files is its file system's.
        (Path(folder) / "inputs").write_text(",".join(plant(binary.name, Path(folder))))
        (Path(folder) / "target").symlink_to(binary)
        options = ("-seed=1", f"-runs={QUICK[binary.name]}", "-seed_inputs=@inputs")
        return run(binary, [*steady(), "./target", *options], Path(folder), {"RUST_BACKTRACE": "1"})


def steady() -> tuple[str, ...]:
    """The command that keeps addresses the same: libFuzzer builds inputs of what the target compares, and that may be
    pointers. Not every container allows it, and then runs differ a little.
    """
    setarch = shutil.which("setarch")
    if setarch is None or subprocess.run([setarch, "-R", "true"], check=False).returncode:
        return ()
    return (setarch, "-R")


def plant(target: str, corpus: Path) -> list[str]:
    """Write the seeds of a target into ``corpus``; the names of the files."""
    files = []
    for seed in seeds(target):
        files.append(hashlib.sha1(seed).hexdigest())
        (corpus / files[-1]).write_bytes(seed)
    return files


def run(binary: Path, command: list[str], folder: Path, environment: dict[str, str] | None = None) -> bool:
    """Run a command of libFuzzer in ``folder``, and keep what breaks the target in ``artifacts/``."""
    whole = [*command, *LIMITS, "-artifact_prefix=./"]
    done = subprocess.run(
        whole, check=False, capture_output=True, errors="replace", text=True, cwd=folder, env=environment
    )
    if done.returncode == 0:
        runs = re.findall(r"number_of_executed_units: *(\d+)", done.stderr)
        edges = re.findall(r"cov: (\d+)", done.stderr)
        print(f"{binary.name}: {int(runs[-1]):,} inputs, {edges[-1]} edges, nothing broke", flush=True)
        return True
    print(re.sub(r"^#\d+\t.*\n", "", done.stderr, flags=re.MULTILINE)[-6000:])
    artifacts = HERE / "artifacts"
    artifacts.mkdir(exist_ok=True)
    for name in re.findall(r"Test unit written to \./(\S+)", done.stderr):
        kept = Path(shutil.move(folder / name, artifacts / f"{binary.name}-{name}"))
        print(f"{binary.name} broke on {kept.read_bytes()[:200].hex()}\nreplay: {binary} {kept}", flush=True)
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
        case "preamble":
            for stream in (b"\4echoabc", b"\0\4echo", b"\377" + b"x" * 300, b"\4ech"):
                yield b"\7" + stream


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
