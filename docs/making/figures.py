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
    """Return the first table below each heading, by the heading, with and without the command in brackets behind it."""
    tables: dict[str, str] = {}
    for section in re.split("^##+ ", text, flags=re.MULTILINE)[1:]:
        title, _, below = section.partition("\n")
        if found := re.search(r"(?:^\|.*\n)+", below, re.MULTILINE):
            tables[title.strip()] = tables[re.sub(r" \(`.*", "", title.strip())] = found[0]
    return tables


def with_figures(text: str, tables: Mapping[str, str]) -> str:
    """Return a document with every measured table in it as it was measured. Raises UsageError for an unknown one."""

    def table(found: re.Match[str]) -> str:
        if found[2] not in tables:
            raise UsageError(f"no measurement is called {found[2]!r}", hint="its heading is in bench/RESULTS.md")
        return f"{found[1]}\n{tables[found[2]]}\n{found[3]}"

    return _MEASURED.sub(table, text)
