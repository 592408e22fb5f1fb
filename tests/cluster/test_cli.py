"""The ``barrel`` command as a user runs it: real OS processes on loopback."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.shell import BARREL, Shell, failed, marks

# The same command on a machine whose clock is an hour ahead.
BARREL_IN_AN_HOUR = [
    sys.executable,
    "-c",
    "from barrel_p2p.node import establish; now = establish._wall_ms; establish._wall_ms = lambda: now() + 3_600_000\n"
    "from barrel_p2p.cli.main import main; raise SystemExit(main())",
]
BOB = "bob@127.0.0.1"
APP = """
import asyncio, math

async def serve(node):
    def price(what, count): return {"what": what, "total": count * 2.5}
    def boom(): raise ValueError("no apples")
    node.export(math)
    node.export(price, module="shop")
    node.export(boom, module="shop")
    await asyncio.sleep(3600)

async def seven(node): return 7
async def crash(node): raise RuntimeError("bad day")
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "shop.py").write_text(APP)
    with Shell(tmp_path) as shell:
        yield shell


# --- start, ping, call ------------------------------------------------------------------------------------------------


def test_a_node_starts_says_who_it_is_answers_and_stops(shell: Shell) -> None:
    lines = shell.start(BOB)
    assert lines[BOB].startswith("is up") and lines["key"].startswith("SHA256:") and "(new)" in lines["key"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+ \(UDP\)", lines["address"])
    for _ in range(2):  # the second visit must fit the pins of the first, on both sides
        assert shell.run("ping", BOB).startswith(f"pong from {BOB}")
    pins = list((shell.directory / "data" / BOB / "keys" / "trusted").iterdir())
    assert len(pins) == 1, "a command that visits twice is pinned once"
    assert shell.stop() == 0
    assert "(new)" not in shell.start(BOB)["key"]
    assert shell.stop(signal.SIGINT) == 0
    assert not list((shell.directory / "data" / "discovery").iterdir())


def test_call_prints_results_and_explains_errors(shell: Shell) -> None:
    shell.start(BOB, "--app", "shop:serve")
    assert shell.run("call", BOB, "math", "sqrt", "2") == "1.4142135623730951\n"
    assert shell.run("call", BOB, "shop", "price", '"apples"', "3") == '{"what": "apples", "total": 7.5}\n'
    assert json.loads(shell.run("call", BOB, "shop", "price", "--json", ":apples", "-1")) == {
        "what": "apples",
        "total": -2.5,
    }
    text = shell.run("call", BOB, "shop", "boom", status=1)
    assert "kind    error" in text and "ValueError: no apples" in text and "shop.py:6" in text
    assert "runs only what it exports" in shell.run("call", BOB, "os", "getcwd", status=1)
    assert """write '"apples"'""" in shell.run("call", BOB, "shop", "price", "apples", "3", status=2)


def test_commands_that_run_at_once_have_names_of_their_own(shell: Shell) -> None:
    shell.start(BOB)
    started = [
        subprocess.Popen([*BARREL, "ping", BOB], cwd=shell.directory, env=shell.environ, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]
    for process in started:
        assert process.stdout is not None
        process.stdout.close()


def test_the_status_of_the_app_is_the_status_of_the_command(shell: Shell) -> None:
    shell.run("start", BOB, "--app", "shop:seven", status=7)
    done = subprocess.run(
        [*BARREL, "start", BOB, "--app", "shop:crash"], cwd=shell.directory, env=shell.environ, capture_output=True
    )
    assert done.returncode == 1 and b"RuntimeError: bad day" in done.stderr
    assert "did you mean serve?" in shell.run("start", BOB, "--app", "shop:server", status=2)
    assert "no module 'nope'" in shell.run("start", BOB, "--app", "nope:main", status=2)


def test_json_logs_are_one_object_a_line(shell: Shell) -> None:
    text = shell.run("start", BOB, "--app", "shop:seven", "--json-logs", status=7)
    records: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    (up,) = [record for record in records if record["message"] == f"{BOB} is up"]
    assert up["node"] == BOB and up["port"] > 0 and up["fingerprint"].startswith("SHA256:")


# --- sim --------------------------------------------------------------------------------------------------------------


def test_sim_lists_and_runs_scenarios(shell: Shell) -> None:
    assert "chaos " in shell.run("sim", "--list")
    text = shell.run("sim", "join", "--nodes", "30", "--seed", "5")
    assert text.startswith("join: 30 nodes, seed 5, ") and "100.00% connected" in text
    table = shell.run("sim", "join", "join", "--nodes", "20", "--seeds", "2").splitlines()
    assert len(table) == 5 and table[0].split()[0] == "scenario"
    report = json.loads(shell.run("sim", "join", "--nodes", "20", "--json"))
    assert report["nodes"] == 20 and report["phases"]["end"]["component"] == 1.0


def test_sim_says_what_is_wrong(shell: Shell) -> None:
    assert "nope is no scenario" in shell.run("sim", "nope", status=2)
    assert "from 1 on" in shell.run("sim", "join", "--nodes", "0", status=2)
    (shell.directory / "odd.toml").write_text('nmae = "odd"\n')
    assert "no setting 'nmae'" in shell.run("sim", "odd.toml", status=2)
    (shell.directory / "split.toml").write_text(
        'name = "split"\nnodes = 20\nduration = 70.0\nquiet = 10.0\nchecks = ["connected"]\n'
        '[[fault]]\nkind = "partition"\nat = 0.0\nlasts = 1000.0\nshare = 0.5\n'
    )
    text = shell.run("sim", "split.toml", "--seed", "3", status=1)
    assert text.startswith("FAILED connected:") and "replay: barrel sim split.toml --seed 3 --nodes 20" in text


# --- configuration ----------------------------------------------------------------------------------------------------


def test_options_come_from_file_environment_and_arguments_in_that_order(shell: Shell) -> None:
    (shell.directory / "node.toml").write_text(f'name = "{BOB}"\ndata_dir = "from-file"\ncookie = "from file"\n')
    shell.environ |= {"BARREL_CONFIG": "node.toml"}
    assert shell.start()["data"] == "from-file"
    shell.run("ping", BOB)  # BARREL_COOKIE wins over the file on both sides
    assert failed(shell.run("doctor", BOB, "--cookie", "other", status=3)) == ["cookie"]
    shell.stop()
    shell.environ |= {"BARREL_DATA_DIR": "from-environment"}
    assert shell.start()["data"] == "from-environment"
    shell.stop()
    assert shell.start("--data-dir", "from-argument")["data"] == "from-argument"


def test_a_wrong_option_is_named_with_its_place(shell: Shell) -> None:
    file = shell.directory / "node.toml"
    file.write_text('cooky = "x"\n')
    assert "node.toml: there is no option cooky; did you mean cookie?" in shell.run(
        "start", BOB, "--config", "node.toml", status=2
    )
    file.write_text('listen_port = "high"\n')
    assert "node.toml: listen_port: must be a whole number, not 'high'" in shell.run(
        "start", BOB, "--config", "node.toml", status=2
    )
    assert "BARREL_LISTN_PORT: there is no such variable; did you mean BARREL_LISTEN_PORT?" in shell.run(
        "ping", BOB, status=2, BARREL_LISTN_PORT="1"
    )
    assert "--listen-port: must be" in shell.run("start", BOB, "--listen-port", "70000", status=2)
    assert "did you mean --cookie?" in shell.run("ping", BOB, "--cooky", "x", status=2)


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_finds_all_well(shell: Shell) -> None:
    lines = shell.start(BOB)
    text = shell.run("doctor", BOB)
    assert set(marks(text).values()) == {"✓"} and len(marks(text)) == 8, text
    assert "first seen and pinned now" in text and lines["key"].removesuffix(" (new)") in text
    assert "as pinned" in shell.run("doctor", BOB)


def test_doctor_where_nobody_listens(shell: Shell) -> None:
    text = shell.run("doctor", BOB, "--peers", f"{BOB}=127.0.0.1:9", status=3)
    assert failed(text) == ["transport"] and "not reached: key" in text
    text = shell.run("doctor", BOB, "--peers", f"{BOB}=127.0.0.1:9", status=3, PYTHONIOENCODING="latin-1")
    assert "\n+ address" in text and "\nx transport" in text
    shell.run("ping", BOB, "--peers", f"{BOB}=127.0.0.1:9", status=3)


def test_doctor_with_an_unknown_host(shell: Shell) -> None:
    text = shell.run("doctor", "bob@no-such-host.invalid", status=3)
    assert failed(text) == ["address"] and "does not resolve" in " ".join(text.split())


def test_doctor_at_the_address_of_another_node(shell: Shell) -> None:
    address = shell.start("carol@127.0.0.1")["address"].removesuffix(" (UDP)")
    text = shell.run("doctor", BOB, "--peers", f"{BOB}={address}", status=3)
    assert failed(text) == ["name"] and "it belongs to carol@127.0.0.1" in text


def test_doctor_with_another_cookie(shell: Shell) -> None:
    shell.start(BOB)
    text = shell.run("doctor", BOB, "--cookie", "wrong", status=3)
    assert failed(text) == ["cookie"]
    assert "not seen before, not pinned" in text
    assert shell.run("keys", "list") == ""


def test_doctor_where_the_key_has_changed(shell: Shell) -> None:
    old = shell.start(BOB)["key"].removesuffix(" (new)")
    shell.run("ping", BOB)
    shell.stop()
    shutil.rmtree(shell.directory / "data" / BOB)
    new = shell.start(BOB)["key"].removesuffix(" (new)")

    text = shell.run("doctor", BOB, status=3)
    assert failed(text) == ["key"]
    assert f"pinned     {old}" in text and f"presented  {new}" in text
    remedy = f"barrel keys unpin {BOB}"
    assert remedy in text
    shell.run(*remedy.split()[1:])
    shell.run("doctor", BOB)


def test_doctor_where_our_own_key_has_changed(shell: Shell) -> None:
    shell.start(BOB)
    shell.run("ping", BOB, "--as", "ops@127.0.0.1")
    shutil.rmtree(shell.directory / "xdg")
    text = shell.run("doctor", BOB, "--as", "ops@127.0.0.1", status=3)
    assert failed(text) == ["key"] and "barrel keys unpin ops@127.0.0.1 --data-dir" in text


def test_doctor_in_strict_mode_on_either_side(shell: Shell) -> None:
    shell.start(BOB)
    text = shell.run("doctor", BOB, "--trust-mode", "strict", status=3)
    assert failed(text) == ["key"]
    remedy = re.search(rf"barrel (keys pin {BOB} [0-9a-f]{{64}})$", text, re.MULTILINE)
    assert remedy is not None, text
    shell.run(*remedy[1].split())
    shell.run("doctor", BOB, "--trust-mode", "strict")
    shell.stop()

    shell.directory.joinpath("data", BOB, "keys", "trusted").rename(shell.directory / "forgotten")
    shell.start(BOB, "--trust-mode", "strict")
    text = shell.run("doctor", BOB, status=3)
    assert failed(text) == ["key"]
    remedy = re.search(r"barrel (keys pin \S+ [0-9a-f]{64} --data-dir) ITS_DATA_DIR", text)
    assert remedy is not None, text
    shell.run(*remedy[1].split(), f"data/{BOB}", status=2)  # a running node would not see it
    shell.stop()
    shell.run(*remedy[1].split(), f"data/{BOB}")
    shell.start(BOB, "--trust-mode", "strict")
    shell.run("doctor", BOB)


def test_doctor_with_a_clock_an_hour_off(shell: Shell) -> None:
    shell.start(BOB, command=BARREL_IN_AN_HOUR)
    text = shell.run("doctor", BOB, status=3)
    assert failed(text) == ["clock"] and "3600" in text


def test_doctor_under_a_name_in_use(shell: Shell) -> None:
    alice = "alice@127.0.0.1"
    (shell.directory / "meet.py").write_text(
        f"import asyncio\nasync def main(node):\n    await node.connect('{BOB}')\n"
        "    print('  met', flush=True)\n    await asyncio.sleep(3600)\n"
    )
    shell.start(BOB)
    shell.start(alice, "--app", "meet:main", until="  met")
    assert "in use by another node" in shell.run("doctor", BOB, "--as", alice, "--data-dir", f"data/{alice}", status=2)
    shutil.copytree(shell.directory / "data" / alice, shell.directory / "copy")
    text = shell.run("doctor", BOB, "--as", alice, "--data-dir", "copy", status=3)
    assert failed(text) == ["name"] and f"a live node of our name {alice}" in " ".join(text.split())


# --- keys that change -------------------------------------------------------------------------------------------------


def test_a_stopped_node_gets_a_new_key_and_certificate_and_is_known_again(shell: Shell) -> None:
    data = ("--data-dir", f"data/{BOB}")
    old = shell.start(BOB)["key"].split()[0]
    assert shell.run("ping", BOB).startswith("pong")
    for words in (("keys", "rotate", BOB, *data), ("cert", "rotate", *data)):
        assert "in use by another node" in shell.run(*words, status=2)
    assert shell.stop() == 0
    text = shell.run("keys", "rotate", BOB, *data)
    assert f"old    {old}" in text and "endorsed by the old one" in text
    assert "node.crt is new" in shell.run("cert", "rotate", *data)
    new = shell.start(BOB)["key"].split()[0]
    assert old != new and f"new    {new}" in text
    assert shell.run("ping", BOB).startswith("pong"), "the pin of this user has followed"
    assert new in shell.run("keys", "list") and old not in shell.run("keys", "list")


def test_a_key_can_be_read_aloud_and_carried_to_another_node(shell: Shell) -> None:
    shell.start(BOB)
    assert shell.stop() == 0
    shown = dict(line.split(maxsplit=1) for line in shell.run("keys", "show", "--data-dir", f"data/{BOB}").splitlines())
    assert len(shown["words"].split()) == 16
    command = shell.run("keys", "export", BOB, "--data-dir", f"data/{BOB}").split()
    assert command == ["barrel", "keys", "pin", BOB, shown["public"]]
    assert "is pinned" in shell.run(*command[1:])
    assert shell.run("keys", "export") == " ".join(command) + "\n"
    assert "required" in shell.run("keys", "rotate", BOB, status=2)
    assert "no data directory" in shell.run("keys", "rotate", BOB, "--data-dir", "nowhere", status=2)
