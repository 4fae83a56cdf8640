"""Tables of the measurements, for the pages that show them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from search.errors import UsageError

_MEASURED = re.compile(r"(<!-- measured: (.+?) -->\n).*?(<!-- end of measured -->)", re.DOTALL)


def measured_tables(root: Path) -> dict[str, str]:
    """Return every measured table by its title."""
    paths = (root / "bench" / "RESULTS.md", root / "bench" / "ONCE.md")
    return tables_in("".join(path.read_text(encoding="utf-8") for path in paths if path.exists()))


def tables_in(text: str) -> dict[str, str]:
    """Return the tables below each heading by the heading, with and without the command in brackets behind it.

    The first has the heading's name, others have their number behind it: "Speed #2".
    """
    tables: dict[str, str] = {}
    for section in re.split("^##+ ", text, flags=re.MULTILINE)[1:]:
        title, _, below = section.partition("\n")
        for number, found in enumerate(re.findall(r"(?:^\|.*\n)+", below, re.MULTILINE), 1):
            for name in (title.strip(), re.sub(r" \(`.*", "", title.strip())):
                tables[name if number == 1 else f"{name} #{number}"] = found
    return tables


def with_figures(text: str, tables: Mapping[str, str]) -> str:
    """Return a document with every measured table in it as it was measured. Raises UsageError for an unknown one."""

    def table(found: re.Match[str]) -> str:
        if found[2] not in tables:
            raise UsageError(f"no measurement is called {found[2]!r}", hint="its heading is in bench/RESULTS.md")
        return f"{found[1]}\n{tables[found[2]]}\n{found[3]}"

    return _MEASURED.sub(table, text)
