"""What a library takes of the disk and its commands of memory, at 100,000 photos.

    python bench/footprint.py [--photos 100000] [--requests 50]

The library is made (bench/synthetic.py): rows and random vectors of 512 dimensions, as those of ViT-B-32-256 are, which
answers with random weights. `index` looks at as many tiny files that it knows and encodes 64 new photographs. Memory is
the most that a command's processes hold by themselves, with their share of what they have in common (PSS). Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from urllib.parse import quote
from urllib.request import urlopen

import psutil

from against_rclip import tree_of
from memory import held_bytes
from pictures import photographs
from rivals import Ours
from search import Library
from serving import served
from stopwatch import print_head, print_rows, workshop
from synthetic import Identity, list_files, make_library

NEW = 64
_KINDS = {".f16": "vectors, for searching", ".pq": "codes of the vectors, the index"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=50, help="what the server is asked")
    arguments = parser.parse_args()
    print_head(f"Disk and memory for {arguments.photos:,} photos")
    with workshop() as work:
        tree, program = tree_of(arguments.photos), Ours(work / "library")
        with Library.open(work / "other", model=program.model, offline=True) as other:
            encoder = Identity.of(other.encoder)
        files = list_files(tree)
        make_library(program.library, len(files), encoder=encoder, root=str(tree), files=files)
        held = memory(program, [tree, new_photos(NEW)], arguments.requests)
        tell(disk(program.library), held)


def tell(disk_bytes: dict[str, int], memory_bytes: dict[str, int]) -> None:
    rows = [(what, f"{size / 1e6:,.0f} MB") for what, size in (*disk_bytes.items(), *memory_bytes.items())]
    print_rows(("", "size"), *rows)


def new_photos(count: int) -> Path:
    return photographs(count, megapixels=(0.2, 1.0))


def disk(library: Path) -> dict[str, int]:
    """Return bytes of disk by what they are for, and their sum."""
    kinds = dict.fromkeys(("catalog.db", *_KINDS.values(), "all else"), 0)
    for path in library.rglob("*"):
        if path.is_file():
            kinds[_kind(path)] += path.stat().st_blocks * 512
    return {f"disk: {kind}": size for kind, size in kinds.items()} | {"disk: together": sum(kinds.values())}


def _kind(path: Path) -> str:
    return _KINDS.get(path.suffix, "catalog.db" if path.name.startswith("catalog.db") else "all else")


def memory(program: Ours, folders: Sequence[Path], requests: int) -> dict[str, int]:
    """Return the most bytes that each command held."""
    start = [sys.executable, "-m", "search", "--library", str(program.library), "--offline"]
    index = most([*start, "index", *map(str, folders), "--json"])
    most([*start, "find", "a first query", "-k", "10"])
    found = {"memory: `search find`, a text query": most([*start, "find", "a red boat at night", "-k", "10"])}
    with served(program.library) as (port, process):
        ask = f"http://127.0.0.1:{port}/api/search?k=10&q="
        for number in range(requests):
            urlopen(ask + quote(f"{number} red boats")).read()
        words = f"memory: `search serve`, {requests} queries answered"
        found[words] = sum(map(held_bytes, (process, *process.children(recursive=True))))
    return found | {f"memory: `search index`, all files known but {NEW}": index}


def most(command: Sequence[str]) -> int:
    """Run a command; return the most bytes that it and its children held."""
    largest = 0
    with running(command) as is_running:
        parent = psutil.Process(is_running.pid)
        while is_running.poll() is None:
            largest = max(largest, held_bytes(parent) + sum(map(held_bytes, _children(parent))))
            sleep(0.02)
    if is_running.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {is_running.returncode}")
    return largest


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield process


def _children(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return parent.children(recursive=True)
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
