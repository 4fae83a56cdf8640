"""How long a text query takes while the same machine indexes: beside a child process, and beside a thread.

    python bench/query_while_indexing.py INDEXED NEW

INDEXED, NEW: folders of photos; the first is in the library, the second is brought in while queries are asked.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np

from search import Library

INDEX = """
import sys
from search import Library

with Library.open(sys.argv[1], model="builtin", offline=True) as library:
    library.index([sys.argv[2]])
"""


def by_child(place: str, photos: str) -> None:
    """Index in a process of its own."""
    subprocess.run([sys.executable, "-c", INDEX, place, photos], check=True)


def by_thread(place: str, photos: str) -> None:
    """Index in this process, with a library and a model of its own."""
    with Library.open(place, model="builtin", offline=True) as library:
        library.index([photos])


def query(library: Library, number: int) -> float:
    """Return the milliseconds that a text takes which was not asked before."""
    started = time.perf_counter()
    library.answer(f"a red flower, number {number}", 10)
    return 1000 * (time.perf_counter() - started)


def while_(index: Callable[[str, str], None], indexed: str, new: str) -> tuple[list[float], list[float]]:
    """Return what queries take before, and while photos are brought in."""
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/library"
        with Library.open(place, model="builtin", offline=True) as library:
            library.index([indexed])
            alone = [query(library, number) for number in range(60)][20:]
            thread = threading.Thread(target=index, args=(place, new))
            thread.start()
            beside = []
            while thread.is_alive():
                beside.append(query(library, 1000 + len(beside)))
                time.sleep(0.05)
            return alone, beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("indexed")
    parser.add_argument("new")
    options = parser.parse_args()
    for name, index in (("child", by_child), ("thread", by_thread)):
        alone, beside = while_(index, options.indexed, options.new)
        half, most = (np.percentile(beside, p) / np.percentile(alone, p) for p in (50, 95))
        print(f"beside a {name}: {half:.1f} times as long in the middle, {most:.1f} times at the 95th percentile")


if __name__ == "__main__":
    main()
