"""Results as text, JSON, CSV and bare paths. stdout is data."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from search.documents import hit_document
from search.tables import csv_lines

if TYPE_CHECKING:
    from datetime import datetime

    from search.types import (
        Answer,
        Hit,
        Photo,
        Skip,
    )

# Control characters and the marks that reorder text: in a terminal they could rewrite what was said.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str) -> str:
    """Return text that a terminal shows as it is, with control characters escaped."""
    return "".join(repr(char)[1:-1] if unicodedata.category(char) in _HIDDEN else char for char in text)


def emit_json(document: object) -> None:
    """Print one JSON document; names that are not UTF-8 come as surrogate escapes."""
    click.echo(json.dumps(document, ensure_ascii=True, indent=1, allow_nan=False))


def emit_bytes(parts: Iterable[bytes]) -> None:
    """Print bytes as they are, part by part."""
    sys.stdout.flush()
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def emit_lines(lines: Iterable[bytes]) -> None:
    """Print lines, each with its end, as the bytes they are; on a terminal as `printable` shows them."""
    if not sys.stdout.isatty():
        emit_bytes(lines)
        return
    for line in lines:
        text = os.fsdecode(line)
        click.echo(printable(text[:-1]) + text[-1], nl=False)


def emit_paths(paths: Iterable[str], *, end: bytes = b"\n") -> None:
    """Print names as the file system's own bytes."""
    emit_lines(os.fsencode(path) + end for path in paths)


def emit_table(
    rows: Sequence[Sequence[str]],
    *,
    right: Iterable[int] = (),
    header: Sequence[str] = (),
    giving: int | None = None,
) -> None:
    """Print aligned columns; `right` are those set flush right.

    header: stands above them on a terminal.   giving: the column that is shortened if the terminal is too narrow.
    """
    from search.cli.columns import aligned

    columns = terminal_columns()
    lines = aligned(
        [[printable(cell) for cell in row] for row in ([header] if header and columns else []) + list(rows)],
        right=set(right),
        giving=giving,
        columns=columns,
    )
    for number, line in enumerate(lines):
        click.echo(click.style(line, dim=True) if number == 0 and header and columns else line)


def emit_skipped(skipped: Sequence[Skip], *, most: int = 10) -> None:
    """Print skipped files, the first of many, with their reasons."""
    if skipped:
        click.echo("Skipped:")
        emit_table([(f"  {short(skip.path)}", skip.reason, skip.detail) for skip in skipped[:most]])
    if len(skipped) > most:
        click.echo(f"  and {len(skipped) - most} more: --json lists them all")


def terminal_columns() -> int | None:
    """Return how wide the terminal is that stdout is, None if it is none."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def short(path: str) -> str:
    """Return a path relative to the current folder where it lies inside it."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here)


# ---- answers


def emit_answers(answers: Sequence[Answer], output: str) -> None:
    """Print answers as `table`, `paths`, `print0`, `csv` or `html`."""
    if output != "table":
        emit = emit_bytes if output == "html" else emit_lines
        emit(answer_parts(answers, output))
        return
    for answer in answers:
        emit_answer(answer, named=len(answers) > 1)


def answer_parts(answers: Sequence[Answer], output: str) -> Iterator[bytes]:
    """Yield answers as a file's content: `paths`, `print0` (paths ended by NUL), `csv` or `html`.

    Paths are the file system's own bytes. The rest is UTF-8; what is none in a name is escaped with backslashes, and
    csv has its bytes in a column of their own, as JSON has.
    """
    if output in ("paths", "print0"):
        end = b"\n" if output == "paths" else b"\0"
        return (os.fsencode(hit.photo.path) + end for answer in answers for hit in answer.hits)
    if output == "html":
        from search.cli.sheet import contact_sheet, sheet_of

        return (part.encode() for part in contact_sheet(sheet_of(answers)))
    return (line.encode("utf-8", "backslashreplace") for line in _csv(answers))


def why_empty(answer: Answer) -> str:
    """Say what an answer without hits means: nothing was there to look at, or nothing that fits."""
    return "nothing matches" if answer.below else "nothing found"


def how_near(answer: Answer) -> str:
    """Say where nothing matches how near the best came, and how to see it anyway; "" where that is not so."""
    if answer.hits or not answer.below or answer.best is None:
        return ""
    return (
        f"nothing matches {answer.query!r}: the best has a relevance of {answer.best:.0%}, shown is what "
        f"has {answer.cut:.0%}; --min-relevance 0 shows everything"
    )


def emit_answer(answer: Answer, *, named: bool) -> None:
    """Print one answer as a table, its query above it where there are several."""
    if named:
        click.echo(click.style(printable(answer.query), bold=True))
    if not answer.hits:
        click.echo(f"  {printable(how_near(answer)) or why_empty(answer)}")
        return
    paths = [short(hit.photo.path) for hit in answer.hits]
    columns = [
        ("", [str(rank) for rank, _ in enumerate(answer.hits, start=1)]),
        ("score", [f"{hit.score:.3f}" for hit in answer.hits]),
        ("relevance", [f"{hit.relevance:.0%}" for hit in answer.hits]),
    ]
    if answer.clauses:
        columns.append(("clauses", [_held(hit) for hit in answer.hits]))
    beside = sum(2 + max(map(len, (name, *cells))) for name, cells in columns)
    room = (terminal_columns() or 0) - beside - max(map(len, paths))
    if room >= _DATE and any(taken_at(hit.photo) for hit in answer.hits):
        columns.append(("taken", [_day(hit) for hit in answer.hits]))
    columns.append(("photo", paths))
    header, cells = zip(*columns, strict=True)
    emit_table(list(zip(*cells, strict=True)), right=(0, 1, 2), header=header, giving=len(columns) - 1)


_DATE = 12  # columns, with the gap beside it


def taken_at(photo: Photo) -> datetime | None:
    """Return when a photo was taken; a file's date, which may be that of a copy, is not told to people."""
    return photo.info.taken_at if photo.info.taken_at_source != "file" else None


def _day(hit: Hit) -> str:
    taken = taken_at(hit.photo)
    return f"{taken:%Y-%m-%d}" if taken else ""


def _held(hit: Hit) -> str:
    """Return how many clauses of a long text hold, as 2/3."""
    return f"{sum(clause.holds for clause in hit.clauses)}/{len(hit.clauses)}" if hit.clauses else ""


def _csv(answers: Sequence[Answer]) -> Iterator[str]:
    photo = ("path", "width", "height", "taken_at", "camera", "latitude", "longitude", "labels", "path_bytes")
    rows = (
        {"query": answer.query, **hit_document(rank, hit), "labels": "; ".join(hit.photo.labels)}
        for answer in answers
        for rank, hit in enumerate(answer.hits, start=1)
    )
    return csv_lines(("query", "rank", "id", "score", "relevance", *photo), rows)
