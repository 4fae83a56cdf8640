"""Markdown that pages share."""

from __future__ import annotations

from collections.abc import Iterable

MADE = "<!-- made by `make docs`: what stands here is changed in the code -->"


def table(*columns: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table, its cells on one line each."""
    head, *lines = [f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in (columns, *rows)]
    return "".join([head, "|---" * len(columns), "|\n", *lines])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
