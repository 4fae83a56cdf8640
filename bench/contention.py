"""Indexing while other programs want the processor: threads that sleep while they wait against threads that spin.

    python bench/contention.py [--photos 500] [--runs 3]

Each run indexes the same photos with OMP_WAIT_POLICY=PASSIVE, as the command line sets it, and with the OpenMP
library's own default, in turn; first beside as many busy loops as there are processors, then on the quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from incremental import make

# The package's own entry sets the policy; the group behind it does not.
INDEX = "from search.cli import cli; cli.main(standalone_mode=False)"


def rate(photos: Path, policy: str | None) -> float:
    """Return photos a second of one run in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    with tempfile.TemporaryDirectory() as library:
        command = [sys.executable, "-c", INDEX, "--library", f"{library}/l", "index", str(photos)]
        command += ["--model", "builtin", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["images_per_second"])


def compare(photos: Path, runs: int) -> None:
    """Print the medians of interleaved runs and the median of the pairs' ratios."""
    pairs = [(rate(photos, "PASSIVE"), rate(photos, None)) for _ in range(runs)]
    passive, default = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(a / b for a, b in pairs)
    print(f" {passive:.0f} | {default:.0f} | {ratio:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.photos)
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
        try:
            print("| photos a second | threads sleep | threads spin | ratio, pair by pair |\n|---|---|---|---|")
            print("| beside as many busy loops as cores |", end="", flush=True)
            compare(Path(folder), arguments.runs)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        print("| alone |", end="", flush=True)
        compare(Path(folder), arguments.runs)


if __name__ == "__main__":
    main()
