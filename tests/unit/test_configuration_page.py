"""The option tables of the documentation are those of the code.

``python tests/unit/test_configuration_page.py`` writes the table into ``docs/reference/configuration.md``.
"""

from __future__ import annotations

import re
from pathlib import Path

from barrel_p2p.cli.main import COMMANDS
from barrel_p2p.node.config import SETTINGS
from barrel_p2p.node.options import Options
from barrel_p2p.node.settings import Setting

DOCS = Path(__file__).parents[2] / "docs" / "reference"
PAGE = DOCS / "configuration.md"
TABLE = re.compile(r"(?<=<!-- table -->\n\n).*?(?=\n\n<!-- end of the table -->)", re.DOTALL)


def row(setting: Setting) -> str:
    kind = setting.kind
    allowed = kind.allowed.partition(", such as")[0].replace("|", "\\|")
    default = f"`{setting.default_text}`" if setting.default_text else "empty"
    text = setting.text("`").replace("|", "\\|")
    return f"| `{setting.name}` | {allowed} | {default} | {text} |"


def table() -> str:
    return "\n".join(["| option | values | default | what it does |", "|---|---|---|---|", *map(row, SETTINGS)])


def test_the_table_is_that_of_the_code() -> None:
    found = TABLE.search(PAGE.read_text())
    assert found is not None
    assert found[0] == table(), "run: python tests/unit/test_configuration_page.py"


def test_the_page_of_the_node_has_every_option() -> None:
    section = (DOCS / "node.md").read_text().partition("## Options")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(Options.__dataclass_fields__)


def test_the_page_of_the_command_has_every_command() -> None:
    page = (DOCS / "cli.md").read_text()
    assert all(f"barrel {name}" in page for name in COMMANDS)


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text()))
