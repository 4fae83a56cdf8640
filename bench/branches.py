"""How many branches of the rooms that must not lose anything the tests take: `make coverage`.

    python bench/branches.py [--missing] [--tests]

Reads what `coverage json` wrote, prints lines and branches of each room, and ends with 1 where a room has fewer than
95 % of its branches: coverage's own limit is for lines and branches together. --missing also lists what is not
taken; --tests instead names the tests that are to run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOUND = ROOT / "build" / "coverage" / "found.json"
LEAST = 0.95
ROOMS = ("catalog", "indexer", "vectors")
FOLDERS = ("catalog", "contracts", "reliability", "vectors")
OF_THE_LIBRARY = (
    *("adoption", "answering", "browsing", "duplicates_library", "exporting", "files", "filters", "generations"),
    *("indexer", "inspection", "library", "migrate", "mounts", "reread", "reviewing", "shards", "sources"),
    *("stores", "suggestions", "tags", "where"),
)
ELSEWHERE = ("tests/cli/test_root.py",)


@dataclass(frozen=True, slots=True)
class Room:
    """missing: of each file the branches that no test took, as the lines from and to which they lead."""

    name: str
    lines: int
    lines_taken: int
    branches: int
    branches_taken: int
    missing: Mapping[str, list[list[int]]]

    @property
    def share(self) -> float:
        return self.branches_taken / self.branches if self.branches else 1.0


def tests() -> list[str]:
    """Return the tests of what these rooms are for; the others would only take time."""
    return [
        *(f"tests/{name}" for name in FOLDERS),
        *(f"tests/test_{name}.py" for name in OF_THE_LIBRARY),
        *ELSEWHERE,
    ]


def rooms(found: Mapping[str, Any]) -> list[Room]:
    """Return the figures of each room from a report of `coverage json`."""
    return [_room(name, found["files"]) for name in ROOMS]


def _room(name: str, files: Mapping[str, Any]) -> Room:
    own = {place: file for place, file in files.items() if f"search/{name}/" in place.replace("\\", "/")}
    sums = [file["summary"] for file in own.values()]

    def total(key: str) -> int:
        return sum(one[key] for one in sums)

    return Room(
        name,
        total("num_statements"),
        total("covered_lines"),
        total("num_branches"),
        total("covered_branches"),
        {place: file["missing_branches"] for place, file in own.items() if file["missing_branches"]},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missing", action="store_true", help="list the branches that are not taken")
    parser.add_argument("--tests", action="store_true", help="name the tests to run instead")
    options = parser.parse_args()
    if options.tests:
        print(*tests())
        return
    found = rooms(json.loads(FOUND.read_text()))
    for room in found:
        lines = f"{room.lines_taken} of {room.lines} lines ({room.lines_taken / room.lines:.1%})"
        print(f"{room.name}: {lines}, {room.branches_taken} of {room.branches} branches ({room.share:.1%})")
        for place, branches in room.missing.items() if options.missing else ():
            print(f"  {place}: {', '.join(f'{start} → {abs(end)}' for start, end in branches)}")
    if short := [room.name for room in found if room.share < LEAST]:
        sys.exit(f"fewer than {LEAST:.0%} of the branches: {', '.join(short)}")


if __name__ == "__main__":
    main()
