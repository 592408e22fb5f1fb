"""Options as text: the same table for a TOML file, the environment and the arguments of a command.

The table is made from dataclasses such as ``Options``: a field's name, type, default and the text under it are all
there is to say about it, and ``settings_of`` reads them. From one name come three::

    listen_port  ->  listen_port = 9100   BARREL_LISTEN_PORT=9100   --listen-port 9100

Arguments win over the environment, which wins over the file, which wins over the default. Every error names the place
where the value stands and what is allowed there. ``none`` stands for Python's ``None`` where an option takes it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from barrel_p2p.errors import ConfigError
from barrel_p2p.node.options import Options
from barrel_p2p.node.settings import Setting, settings_of

PREFIX = "BARREL_"
SECRETS = frozenset({"cookie"})  # never shown in an error
# Kubernetes sets these for a service that is called "barrel"; they are not meant for us.
_KUBERNETES = re.compile(r"BARREL(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOptions:
    """What the ``barrel`` command takes beside the options of ``Node``."""

    name: str | None = None
    """The node's name, for ``barrel start`` without NAME."""
    app: str | None = None
    """``module:function`` that ``barrel start`` runs as a process of the node: ``async def function(node)``. The node
    ends with it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important log lines that ``barrel start`` shows. Other commands show none unless ``--log-level`` is
    given."""
    json_logs: bool = False
    """Write each log line as one JSON object."""
    observable: bool = False
    """Let other nodes look at the node that ``barrel start`` runs, as ``barrel top`` and ``barrel graph`` do. They see
    names and numbers, and can change nothing."""


def load(file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The options for ``Node`` from a TOML file and the environment, as ``barrel start`` would read them.

    ::

        async with Node("alice@127.0.0.1", **load("node.toml")) as node: ...

    Args:
        file: A TOML file. What only the command uses (``app``, ``log_level``, ...) is checked and left out.
        environ: By default the environment of this OS process.

    Raises:
        ConfigError: An unknown key, or a value that is not allowed; says where it stands.
    """
    found = gather(file=file, environ=os.environ if environ is None else environ)
    check_options(found)
    return {name: given.value for name, given in found.items() if name in Options.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it stands, such as ``node.toml: listen_port``, ``BARREL_LISTEN_PORT`` or ``--listen-port``."""

    value: Any
    source: str


def gather(
    *,
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, list[str]] | None = None,
) -> dict[str, Given]:
    """What is given for each setting, by name; what is not given is not there.

    Args:
        file: A TOML file, or None.
        environ: Variables; only those that start with ``BARREL_`` are looked at. ``BARREL_CONFIG`` is skipped.
        arguments: The texts given on the command line, by setting name.

    Raises:
        ConfigError: An unknown key or variable, or a value that does not fit; names it and what is allowed.
    """
    table = {setting.name: setting for setting in SETTINGS}
    found: dict[str, Given] = {}
    if file is not None:
        found |= _from_file(table, Path(file))
    if environ is not None:
        found |= _from_environment(table, environ)
    for name, texts in (arguments or {}).items():
        found[name] = _from_texts(table[name], texts, f"--{name.replace('_', '-')}")
    return found


def check_options(given: Mapping[str, Given]) -> Options:
    """The node's options among what was gathered; an error of theirs names the place of the value."""
    known = Options.__dataclass_fields__
    try:
        return Options.of({name: entry.value for name, entry in given.items() if name in known})
    except ConfigError as error:
        option = error.option or ""
        place = given.get(option)
        text = str(error)
        if place is not None:
            text = f"{place.source}: {text.removeprefix(f'{option} ').removeprefix(f'{option}: ')}"
        raise ConfigError(text, error.option) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` with the known name nearest to ``name``, or else all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"


# --- the places -------------------------------------------------------------------------------------------------------


def _from_file(table: Mapping[str, Setting], path: Path) -> dict[str, Given]:
    try:
        text = path.read_bytes().decode()
        content = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text, as TOML must be") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    found = {}
    for key, value in content.items():
        setting = table.get(key)
        if setting is None:
            raise ConfigError(f"{path}: there is no option {key}{nearest(key, table)}", key)
        source = f"{path}: {key}"
        try:
            found[key] = Given(setting.kind.from_toml(value), source)
        except ValueError as error:
            raise _refused(setting, source, value, error) from None
    return found


def _from_environment(table: Mapping[str, Setting], environ: Mapping[str, str]) -> dict[str, Given]:
    variables = {PREFIX + name.upper(): setting for name, setting in table.items()}
    found = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        setting = variables.get(variable)
        if setting is None:
            if _KUBERNETES.fullmatch(variable) or (variable.endswith("_PORT") and "://" in text):
                continue
            raise ConfigError(f"{variable}: there is no such variable{nearest(variable, variables)}")
        found[setting.name] = _from_texts(setting, [text], variable)
    return found


def _from_texts(setting: Setting, texts: list[str], source: str) -> Given:
    try:
        return Given(setting.kind.from_texts(texts), source)
    except ValueError as error:
        raise _refused(setting, source, ", ".join(texts), error) from None


def _refused(setting: Setting, source: str, value: object, error: ValueError) -> ConfigError:
    allowed = str(error) or f"must be {setting.kind.allowed}"
    shown = "" if setting.name in SECRETS or value == "" else f", not {value!r:.80}"
    return ConfigError(f"{source}: {allowed}{shown}", setting.name)


#: The whole table: every option that can be given as text.
SETTINGS: tuple[Setting, ...] = settings_of(CommandOptions) + settings_of(Options)

__all__ = ["PREFIX", "SETTINGS", "CommandOptions", "Given", "check_options", "gather", "load", "nearest"]
