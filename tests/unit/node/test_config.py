"""Options as text: one table, three places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import ConfigError
from barrel_p2p.errors import InternalError
from barrel_p2p.node.config import SETTINGS, check_options, gather, load
from barrel_p2p.node.membership import MEMBERSHIP_OPTIONS
from barrel_p2p.node.options import Options
from barrel_p2p.node.settings import settings_of
from barrel_p2p.proto.hyparview_config import HyParViewConfig

TABLE = {setting.name: setting for setting in SETTINGS}


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def test_every_option_has_a_description_and_its_default_can_be_written() -> None:
    functions = {"discover", "on_address", "on_output"}
    assert set(Options.__dataclass_fields__) - set(TABLE) == functions, "only functions can't be given as text"
    for setting in SETTINGS:
        assert setting.description, setting.name
        if setting.default_text:
            assert setting.kind.from_texts([setting.default_text]) == setting.default, setting.name


def test_arguments_win_over_the_environment_over_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'listen_port = 1\nnet_ticktime_ms = 1000\ncookie = "file"\n')
    environ = {"BARREL_LISTEN_PORT": "2", "BARREL_COOKIE": "environment", "HOME": "/", "BARREL_CONFIG": "ignored"}
    found = gather(file=file, environ=environ, arguments={"listen_port": ["3"]})
    assert {name: (given.value, given.source) for name, given in found.items()} == {
        "listen_port": (3, "--listen-port"),
        "cookie": ("environment", "BARREL_COOKIE"),
        "net_ticktime_ms": (1000, f"{file}: net_ticktime_ms"),
    }


def test_values_of_every_kind(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        'published = true\ndata_dir = "d"\ndiscovery_dir = "none"\ncookie_only_nodes = ["a@*", "b@*"]\ncookie = "c"\n'
        'app = "shop:main"\n[peers]\n"bob@10.0.0.2" = "10.0.0.2:9100"\n"eve@x" = "[::1]:9"\n',
    )
    from_file = load(file, {})
    from_environment = load(
        None,
        {
            "BARREL_PUBLISHED": "yes",
            "BARREL_DATA_DIR": "d",
            "BARREL_DISCOVERY_DIR": "none",
            "BARREL_COOKIE_ONLY_NODES": "a@*, b@*",
            "BARREL_COOKIE": "c",
            "BARREL_PEERS": "bob@10.0.0.2=10.0.0.2:9100,eve@x=[::1]:9",
            "BARREL_APP": "shop:main",
        },
    )
    assert (
        from_file
        == from_environment
        == {
            "published": True,
            "data_dir": Path("d"),
            "discovery_dir": None,
            "cookie_only_nodes": ("a@*", "b@*"),
            "cookie": "c",
            "peers": {"bob@10.0.0.2": ("10.0.0.2", 9100), "eve@x": ("::1", 9)},
        }
    )
    Options.of(from_file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cooky = 1", "there is no option cooky; did you mean cookie?"),
        ("on_address = 1", "there is no option on_address"),
        ("[node]\ncookie = 1", "there is no option node"),
        ('listen_port = "9100"', "listen_port: must be a whole number, not '9100'"),
        ("listen_port = true", "must be a whole number, not True"),
        ("listen_port = 70000", "listen_port: must be a port from 0 to 65535"),
        ('trust_mode = "tofoo"', "trust_mode: must be tofu or strict, not 'tofoo'"),
        ("published = 1", "must be true or false"),
        ("peers = 1", "must be addresses by node name"),
        ('[peers]\n"bob@x" = "10.0.0.2"', "must be addresses by node name"),
        ('[peers]\n"bob@x" = "10.0.0.2:0"', "peers['bob@x'] must be (host, port)"),
        ('cookie_only_nodes = "a@*"', "must be a list of texts"),
        ('cookie_only_nodes = ["a@*"]', "cookie_only_nodes: lets nodes in with the cookie alone"),
        ("send_high_water = 300000000", "send_high_water: (300000000) must be below"),
        ("cookie = ", "is no TOML"),
        ('data_dir = ""', "must not be empty"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    file = toml(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load(file, {})
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value)


def test_a_wrong_variable_is_named() -> None:
    for environ, message in (
        ({"BARREL_LISTEN_PORT": "high"}, "BARREL_LISTEN_PORT: must be a whole number, not 'high'"),
        ({"BARREL_LISTEN_PORT": ""}, "BARREL_LISTEN_PORT: must be a whole number"),
        ({"BARREL_NET_TICK": "1"}, "BARREL_NET_TICK: there is no such variable"),
        ({"BARREL_NET_TICKTIME_MS": "0"}, "BARREL_NET_TICKTIME_MS: must be a whole number above 0"),
    ):
        with pytest.raises(ConfigError) as error:
            load(None, environ)
        assert str(error.value).startswith(message)


def test_a_cookie_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(toml(tmp_path, "cookie = 4711"), {})
    assert "4711" not in str(error.value)
    with pytest.raises(ConfigError) as error:
        load(None, {"BARREL_COOKIE": "s3cret" * 100})
    assert "s3cret" not in str(error.value)


def test_what_kubernetes_sets_for_a_service_is_not_ours() -> None:
    environ = {
        "BARREL_SERVICE_HOST": "10.0.0.1",
        "BARREL_SERVICE_PORT": "4433",
        "BARREL_SERVICE_PORT_QUIC": "4433",
        "BARREL_PORT": "udp://10.0.0.1:4433",
        "BARREL_PORT_4433_UDP": "udp://10.0.0.1:4433",
        "BARREL_PORT_4433_UDP_ADDR": "10.0.0.1",
    }
    assert load(None, environ) == {}


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nothing.toml", {})
    path = tmp_path / "node.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path, {})


def test_an_error_of_two_options_names_the_first(tmp_path: Path) -> None:
    found = gather(environ={"BARREL_SEND_HIGH_WATER": "10"}, arguments={"send_hard_limit": ["5"]})
    with pytest.raises(ConfigError, match=r"BARREL_SEND_HIGH_WATER: .*must be below send_hard_limit"):
        check_options(found)


def test_an_option_of_an_unknown_type_does_not_vanish() -> None:
    @dataclass
    class Strange:
        what: complex = 0j
        """No way to write it."""

    with pytest.raises(InternalError, match=r"settings\.py"):
        settings_of(Strange)


def test_the_options_of_the_membership_have_its_own_defaults() -> None:
    assert len(MEMBERSHIP_OPTIONS) == 13
    options, config = Options.of({}), HyParViewConfig()
    assert {name: getattr(options, name) for name in MEMBERSHIP_OPTIONS} == {
        name: getattr(config, name) for name in MEMBERSHIP_OPTIONS
    }


@pytest.mark.parametrize(
    "options, says",
    [
        ({"contact_nodes": "seed@10.0.0.1"}, "contact_nodes must be a list of texts, not 'seed@10.0.0.1'"),
        ({"cookie": "x", "cookie_only_nodes": "a@b"}, "cookie_only_nodes must be a list of texts, not 'a@b'"),
        ({"peers": [("bob@b", ("b", 1))]}, "peers must be addresses by node name, not "),
        ({"max_message": 10}, "max_message must be at least 65536, not 10"),
        ({"net_ticktime_ms": 60}, "net_ticktime_ms must be at least 100 milliseconds, not 60"),
        ({"lease_ms": 10}, "lease_ms must be at least 100 milliseconds, not 10"),
        ({"setup_timeout_ms": 7}, "setup_timeout_ms must be at least 100 milliseconds, not 7"),
        ({"discover": 5}, "discover must be a function, not 5"),
        ({"on_output": "print"}, "on_output must be a function, not 'print'"),
    ],
)
def test_options_that_only_python_can_get_wrong(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Options.of(options)
