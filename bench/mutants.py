"""What the tests see: small changes to the code of the contracts, and whether some test fails for each.

    python bench/mutants.py [--seed 1] [--each 5] [FILE ...]

A mutant is one change of a kind that a hand slips into: a comparison turned or made strict, + for -, `and` for `or`, a
`not` lost, a number off by one, min for max, a condition that always holds the other way. Of each file's mutants some
are drawn by the seed. Each is put into a copy of the tree, and the tests for that file run in a process forked from
one that has imported the heavy libraries. Prints a table, and the line of every mutant that no test saw.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("search", "tests", "data", "migrations", "pyproject.toml", "README.md", "CHANGELOG.md", "docs")
LIMIT_S = 240  # a mutant that makes the tests go on for ever is seen by that

CATALOG = ("tests/contracts/test_catalog.py", "tests/test_filters.py", "tests/test_where.py")
VECTORS = ("tests/contracts/test_vectors.py", "tests/vectors")
TESTS = {
    "search/indexer/__init__.py": ("tests/test_indexer.py", "tests/test_reread.py", "tests/test_library.py"),
    "search/where.py": ("tests/test_where.py", "tests/test_filters.py"),
    "search/conditions.py": ("tests/test_where.py", "tests/test_clauses.py", "tests/test_filters.py"),
    "search/clauses.py": ("tests/test_clauses.py", "tests/test_where.py", "tests/test_filters.py"),
    "search/catalog/filters.py": CATALOG,
    "search/relevance.py": ("tests/test_relevance.py", "tests/test_answering.py"),
    "search/labels/classifier.py": ("tests/test_labels.py", "tests/test_label_sources.py"),
    "search/heads.py": ("tests/test_heads.py", "tests/test_reviewing.py"),
    "search/encoders/stretching.py": ("tests/encoders/test_stretching.py",),
    "search/train/components.py": ("tests/train/test_components.py", "tests/train/test_long_clip.py"),
    "search/train/long_captions.py": ("tests/train/test_long_captions.py",),
    "search/vectors/__init__.py": VECTORS,
    "search/vectors/exact.py": VECTORS,
    "search/vectors/coarse.py": VECTORS,
    "search/vectors/lists.py": VECTORS,
    "search/duplicates.py": ("tests/test_duplicates.py", "tests/test_duplicates_library.py"),
    "search/generations/manifest.py": ("tests/test_generations.py",),
}

TURNED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*",
    ast.And: "or", ast.Or: "and",
}  # fmt: skip
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    line: int
    start: int
    end: int
    new: str

    def applied(self, code: bytes) -> bytes:
        return code[: self.start] + self.new.encode() + code[self.end :]


def mutants(code: bytes) -> list[Mutant]:
    """Return every mutant of a file: of what its functions do, not of what they are called with by default."""
    starts = [0]
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for function in ast.walk(ast.parse(code)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in function.body:
                for node in ast.walk(statement):
                    found += [
                        Mutant(line, starts[line - 1] + column, starts[end_line - 1] + end, new)
                        for line, column, end_line, end, new in _changes(node)
                    ]
    return sorted(set(found), key=lambda one: (one.start, one.new))


Change = tuple[int, int, int, int, str]


def _changes(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            yield _between(left, right, TURNED[type(operator)])
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in TURNED and not _is_text(node):
            yield _between(left, right, TURNED[type(operator)])
        case ast.BoolOp(op=operator, values=[left, right]):
            yield _between(left, right, TURNED[type(operator)])
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            yield node.lineno, node.col_offset, inner.lineno, inner.col_offset, ""
        case ast.Constant(value=bool(value)):
            yield *_place(node), str(not value)
        case ast.Constant(value=int(value)):
            yield *_place(node), str(value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in SWAPPED:
            yield *_place(node.func), SWAPPED[name]
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(
            test, ast.Compare | ast.BoolOp | ast.UnaryOp
        ):
            yield *_place(test), f"(not ({ast.unparse(test)}))"


def _place(node: ast.expr) -> tuple[int, int, int, int]:
    assert node.end_lineno is not None and node.end_col_offset is not None
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


def _between(left: ast.expr, right: ast.expr, operator: str) -> Change:
    """Put an operator in the place of the one between two operands; brackets that stand there break it, see `main`."""
    return *_place(left)[2:], right.lineno, right.col_offset, f" {operator} "


def _is_text(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(isinstance(side, ast.JoinedStr | ast.Constant) and not _is_number(side) for side in sides)


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def compiles(code: bytes) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def run(tree: Path, tests: tuple[str, ...]) -> str:
    """Run tests in a forked process, to the first that fails: 'failed', 'out of time' or 'passed'."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(tree)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.path.insert(0, str(tree))
        import pytest

        options = [
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "not slow and not milvus and not int8 and not programs",
        ]
        os._exit(int(pytest.main([*options, *tests])))
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "passed" if status == 0 else "failed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "out of time"


def prepare(folder: Path) -> Path:
    """Copy the tree, and import what takes long and does not change."""
    for name in COPIED:
        place = ROOT / name
        (shutil.copytree if place.is_dir() else shutil.copy2)(place, folder / name)
    os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "SEARCH_OFFLINE": "1"}
    sys.path[:] = [path for path in sys.path if path not in ("", str(ROOT), str(ROOT / "bench"))]
    import faiss  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sqlalchemy.orm  # noqa: F401
    import torch  # noqa: F401

    assert not [name for name in sys.modules if name.partition(".")[0] == "search"]
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=5, help="how many mutants of each file")
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(TESTS)}")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        tree = prepare(Path(temporary))
        files = options.files or list(TESTS)
        for tests in dict.fromkeys(TESTS[name] for name in files):
            if run(tree, tests) != "passed":
                raise SystemExit(f"these do not pass as things are: {' '.join(tests)}")
        for name in files:
            counts[name] = try_file(tree, name, random.Random(f"{options.seed} {name}"), options.each)
    print("\n| file | mutants | a test failed | ran out of time | no test saw |\n|---|---|---|---|---|")
    for name, found in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        row = (found.total(), found["failed"], found["out of time"], found["passed"])
        print(f"| `{name}` | {' | '.join(map(str, row))} |")


def try_file(tree: Path, name: str, chance: random.Random, most: int) -> Counter[str]:
    """Try some mutants of a file and print each; the file is then as it was."""
    place = tree / name
    code, stat = place.read_bytes(), place.stat()
    every = [one for one in mutants(code) if compiles(one.applied(code))]
    drawn = sorted(chance.sample(every, min(most, len(every))), key=lambda one: one.start)
    found: Counter[str] = Counter()
    try:
        for number, one in enumerate(drawn, start=1):
            place.write_bytes(one.applied(code))
            moment = stat.st_mtime_ns + number * 10**10  # else what was compiled of another would be taken for it
            os.utime(place, ns=(moment, moment))
            outcome = run(tree, TESTS[name])
            found[outcome] += 1
            was, now = (some.splitlines()[one.line - 1].decode().strip() for some in (code, one.applied(code)))
            print(f"{outcome:11} {name}:{one.line}: {was}   ->   {now}", flush=True)
    finally:
        place.write_bytes(code)
        os.utime(place, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return found


if __name__ == "__main__":
    main()
