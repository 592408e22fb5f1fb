"""The commands read their arguments, and explain what they can't read."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path

import pytest

from barrel_p2p.cli.arguments import Usage, given
from barrel_p2p.cli.logs import JsonFormatter
from barrel_p2p.cli.main import COMMANDS, main


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BARREL_CONFIG", raising=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*name.split(), "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "\nexamples:\n  " in text and f"barrel {name}" in text and "``" not in text


def test_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strat"], "did you mean start?"),
        (["keys"], "keys show, keys list"),
        (["ping"], "NODE"),
        (["ping", "bob"], "did you mean bob@127.0.0.1?"),
        (["ping", "a@h", "b@h"], "does not know 'b@h'"),
        (["start"], "needs a name"),
        (["start", "a@127.0.0.1", "--app", "shop"], "must be module:function"),
        (["start", "a@127.0.0.1", "--app", "math:sqrt"], "must be an `async def sqrt(node)`"),
        (["call", "a@h", "m", "f", "[1"], "argument 1: "),
        (["call", "a@h", "m"], "arguments are required: FUNCTION (`"),
        (["ping", "a@h", "--cookie", ""], "--cookie: must not be empty\n"),
        (["start", "a@127.0.0.1", "--app", "workers:nosuch"], "has no 'nosuch'; there are work, more\n"),
        (["keys", "pin", "a@h", "xyz"], "no hexadecimal number"),
    ],
)
def test_wrong_usage(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "workers.py").write_text(
        "from asyncio import sleep\nfrom barrel_p2p import receive\n"
        "async def work(node): ...\nasync def more(node): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_options_may_stand_anywhere() -> None:
    parser = importlib.import_module("barrel_p2p.cli.call").parser("call")
    for words in (
        ["--cookie", "x", "a@h", "m", "f", "1", ":ok"],
        ["a@h", "--cookie", "x", "m", "f", "1", ":ok"],
        ["a@h", "m", "f", "1", ":ok", "--cookie=x"],
        ["a@h", "m", "f", "1", "--cookie", "x", ":ok"],
    ):
        arguments = parser.read(words)
        assert (arguments.node, arguments.function, arguments.args) == ("a@h", "f", ["1", ":ok"])
        assert given(arguments)["cookie"].value == "x"


def test_a_file_with_the_cookie_is_for_its_owner_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text('cookie = "secret"')
    parser = importlib.import_module("barrel_p2p.cli.ping").parser("ping")
    for mode, word in ((0o644, "chmod 600"), (0o600, "")):
        file.chmod(mode)
        given(parser.read(["a@h", "--config", str(file)]))
        printed = capsys.readouterr().err
        assert word in printed and bool(word) == bool(printed) and "secret" not in printed


def test_flags_and_lists() -> None:
    parser = importlib.import_module("barrel_p2p.cli.start").parser("start")
    found = given(parser.read(["a@h", "--published", "--peers", "b@h=1.2.3.4:5", "--peers", "c@h=1.2.3.4:6"]))
    assert found["published"].value is True
    assert found["peers"].value == {"b@h": ("1.2.3.4", 5), "c@h": ("1.2.3.4", 6)}
    assert given(parser.read(["a@h", "--no-published"]))["published"].value is False
    with pytest.raises(Usage, match="did you mean --trust-mode"):
        parser.read(["a@h", "--trust-mod", "strict"])


def test_json_log_lines() -> None:
    record = logging.makeLogRecord(
        {"name": "barrel_p2p.connect", "levelname": "INFO", "msg": "%s is up", "args": ("bob",), "peer": "bob@h"}
    )
    entry = json.loads(JsonFormatter().format(record))
    assert entry["message"] == "bob is up" and entry["peer"] == "bob@h" and entry["level"] == "info"
    assert "args" not in entry
