"""The table of metrics in the documentation is that of the code.

``python tests/unit/test_metrics_page.py`` writes it into ``docs/reference/metrics.md``.
"""

from __future__ import annotations

import re
from pathlib import Path

from barrel_p2p.metrics.prometheus import name_of
from barrel_p2p.node.instruments import CATALOGUE, Instrument

SOURCE = Path(__file__).parents[2] / "src" / "barrel_p2p"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
TABLE = re.compile(r"(?<=<!-- table -->\n\n).*?(?=\n\n<!-- end of the table -->)", re.DOTALL)


def row(one: Instrument) -> str:
    attributes = ", ".join(f"`{name}`" for name in one.attributes)
    return f"| `{one.name}` | {one.kind} | {one.unit.strip('{}')} | {attributes} | {one.text} | `{name_of(one)}` |"


def table() -> str:
    head = ["| instrument | kind | unit | attributes | what it says | for Prometheus |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *map(row, CATALOGUE)])


def test_the_table_is_that_of_the_code() -> None:
    found = TABLE.search(PAGE.read_text())
    assert found is not None
    assert found[0] == table(), "run: python tests/unit/test_metrics_page.py"


def test_every_logger_is_in_the_table_of_loggers() -> None:
    used = {name for file in SOURCE.rglob("*.py") for name in re.findall(r'getLogger\("([\w.]+)"\)', file.read_text())}
    assert set(re.findall(r"^\| `(barrel_p2p\.\w+)` \|", PAGE.read_text(), re.MULTILINE)) == used


def test_fields_of_log_lines_have_few_names() -> None:
    """``peer``, ``reason`` and what ``barrel start`` says of its node: who filters can rely on them."""
    used: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for fields in re.findall(r"extra=\{([^}]*)\}", file.read_text()):
            used |= set(re.findall(r'"(\w+)":', fields))
    assert used <= {"peer", "reason"}


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text()))
