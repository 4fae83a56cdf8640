"""How long functions and files are, how many parameters functions take, and how much of it is typed, room by room.

    python bench/tree.py [FOLDER]

A function's lines are all of it but its decorators and docstring: from `def` to its end, blank lines and comments
counted. Parameters are all but `self` and `cls`. Typed is a parameter, or what is returned, that has an annotation.
"""

from __future__ import annotations

import argparse
import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "search"
LONG = 50  # lines


@dataclass(frozen=True, slots=True)
class Function:
    """lines: without decorators and docstring.   typed, typeable: of its parameters and what it returns."""

    file: Path
    name: str
    lines: int
    parameters: int
    typed: int
    typeable: int


@dataclass(frozen=True, slots=True)
class File:
    path: Path
    lines: int
    functions: tuple[Function, ...]


def read(folder: Path) -> list[File]:
    """Return every Python file below a folder, by its path in there."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        place = path.relative_to(folder)
        found.append(File(place, source.count("\n"), tuple(functions(ast.parse(source), place))))
    return found


def functions(tree: ast.AST, file: Path) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            every = [*given.posonlyargs, *given.args, *filter(None, (given.vararg,)), *given.kwonlyargs]
            own = [argument for argument in (*every, *filter(None, (given.kwarg,))) if not is_receiver(argument)]
            typed = [argument.annotation for argument in own] + [node.returns]
            parameters, known = len(own), sum(annotation is not None for annotation in typed)
            yield Function(file, node.name, lines_of(node), parameters, known, len(typed))


def is_receiver(argument: ast.arg) -> bool:
    return argument.arg in ("self", "cls") and argument.annotation is None


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a function's lines, less those of its docstring."""
    first = node.body[0]
    says = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if says else 0)


def percentile(values: Sequence[int], part: float) -> int:
    """Return the least of the values that so large a part of them does not pass."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else 0


HEADER = ("room", "files", "lines: p50", "p95", "max", "functions", "lines: p50", "p95", "max")
HEADER += (f"over {LONG}", "parameters: p50", "p95", "typed")


def row(name: str, files: Sequence[File]) -> tuple[str, ...]:
    every = [function for file in files for function in file.functions]
    lengths, parameters = [one.lines for one in every], [one.parameters for one in every]
    typed, typeable = sum(one.typed for one in every), sum(one.typeable for one in every)
    sizes = [file.lines for file in files]
    return (
        name,
        *map(str, (len(files), percentile(sizes, 0.5), percentile(sizes, 0.95), max(sizes))),
        *map(str, (len(every), percentile(lengths, 0.5), percentile(lengths, 0.95), max(lengths, default=0))),
        share(sum(length > LONG for length in lengths), len(every)),
        *map(str, (percentile(parameters, 0.5), percentile(parameters, 0.95))),
        share(typed, typeable),
    )


def share(part: int, whole: int) -> str:
    if part in (0, whole):
        return "0" if not part else "100 %"
    return f"{100 * part / whole:.1f} %"


def table(files: Sequence[File]) -> list[tuple[str, ...]]:
    """Return a row for all, for each folder, and for the files that lie beside the folders."""
    rooms: dict[str, list[File]] = {}
    for file in files:
        rooms.setdefault(f"`{file.path.parts[0]}/`" if len(file.path.parts) > 1 else "single files", []).append(
            file
        )
    single = rooms.pop("single files", None)
    rows = [row("all", files), *(row(name, rooms[name]) for name in sorted(rooms))]
    return rows + ([row("single files", single)] if single else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE, metavar="FOLDER")
    files = read(parser.parse_args().folder)
    print("| " + " | ".join(HEADER) + " |")
    print("|---" + "|---:" * (len(HEADER) - 1) + "|")
    for line in table(files):
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
