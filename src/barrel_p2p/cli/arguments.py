"""Arguments of the commands: argparse, with the options of the table and errors that name the nearest known word."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from barrel_p2p.node.config import SETTINGS, Given, gather
from barrel_p2p.node.settings import NONE, Setting

_SETTING = "setting:"  # in front of an option's name among the parsed arguments


class Usage(Exception):
    """The command was called in a wrong way."""


class Parser(argparse.ArgumentParser):
    """The arguments of one command.

    Args:
        name: The command, ``"ping"``.
        text: What it does, for its help.
        examples: Lines to copy.
    """

    def __init__(self, name: str, text: str, examples: Sequence[str]) -> None:
        super().__init__(
            prog=f"barrel {name}",
            description=text,
            epilog="\n".join(["examples:", *(f"  {line}" for line in examples)]),
            formatter_class=_Formatter,
            allow_abbrev=False,
        )

    def add_settings(self, wanted: Callable[[str], bool], **texts: str) -> None:
        """Add ``--config`` and the options of the table that ``wanted`` picks by name, some with another text."""
        group = self.add_argument_group("options, which can stand in a file and in BARREL_... variables as well")
        group.add_argument("--config", metavar="FILE", help="read options from a TOML file (BARREL_CONFIG)")
        for setting in SETTINGS:
            if wanted(setting.name):
                self._add_setting(group, setting, texts.get(setting.name) or _help(setting))

    def _add_setting(self, group: Any, setting: Setting, text: str) -> None:
        details: dict[str, Any] = {"dest": _SETTING + setting.name, "help": text}
        if setting.kind.is_flag:
            group.add_argument(setting.argument, action="store_const", const=["true"], **details)
            no = setting.argument.replace("--", "--no-", 1)
            group.add_argument(no, action="store_const", const=["false"], dest=details["dest"], help=argparse.SUPPRESS)
        else:
            action = "append" if setting.kind.is_many else _Once
            group.add_argument(setting.argument, action=action, metavar=setting.kind.metavar, **details)

    def read(self, words: list[str]) -> argparse.Namespace:
        """Parse; options may stand between the other words. Raises Usage."""
        arguments, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            word = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"`{self.prog} --help` lists what there is"
            raise Usage(f"{self.prog} does not know {word!r}: {hint}")
        return arguments

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{self.prog}: {message} (`{self.prog} --help` shows examples)")


def given(arguments: argparse.Namespace) -> dict[str, Given]:
    """What file, environment and arguments give for the options; see ``node.config.gather``."""
    texts = {
        name.removeprefix(_SETTING): value
        for name, value in vars(arguments).items()
        if name.startswith(_SETTING) and value is not None
    }
    file = arguments.config or os.environ.get("BARREL_CONFIG") or None
    found = gather(file=file, environ=os.environ, arguments=texts)
    in_file = file is not None and "cookie" in found and found["cookie"].source.startswith(f"{file}: ")
    if in_file and os.stat(str(file)).st_mode & 0o077:
        print(f"barrel: {file} holds the cookie and other users may read it: chmod 600 {file}", file=sys.stderr)
    return found


class _Once(argparse.Action):
    """Keeps the last value, as a list like that of repeated options."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, [values])


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(110, max(60, _columns() - 2)))

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any = None) -> None:
        """The options of the table are many and all optional: they are listed below, not in the usage line."""
        shown = [action for action in actions if action.dest != "help" and not action.dest.startswith(_SETTING)]
        super().add_usage(usage, shown, groups, prefix)

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        text = super()._format_usage(usage, actions, groups, prefix)
        return text if usage is not None else text.rstrip() + " [OPTIONS]\n\n"


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 112


def _help(setting: Setting) -> str:
    text = setting.text("").replace("%", "%%")
    return f"{text} Default: {setting.default_text}." if setting.default_text not in ("", NONE) else text
