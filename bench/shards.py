"""What shards and Ray cost beside a plain index run: what each starts with, and what each photo takes then.

    python bench/shards.py [--photos 2000] [--few 200] [--size 100] [--rounds 3] [--only NAME]...

The same photos are brought into a new library by each way, a few of them and all; so a photo's share is told from
what a run begins with. Seconds are those of all processors, of all processes: what Ray starts counts with it, of a
cluster that runs already what it takes from the start of the run to its end. The encoder has one thread in every row.
Two machines, both this one, need a network of their own:

    unshare -n sh -c "ip link set lo up; python bench/shards.py"
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from statistics import median

import psutil

from incremental import make
from stopwatch import REPOSITORY, Took, print_head, workshop

WAYS = {
    "plain": {},
    "shards": {"engine": "local"},
    "Ray, one worker": {"engine": "ray", "cpus": 2},
    "Ray, two workers": {"engine": "ray", "cpus": 1},
    "Ray, two machines": {"engine": "ray", "cpus": 1, "nodes": 2},
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "PYTHONPATH": str(REPOSITORY),
    "SEARCH_OFFLINE": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--size", type=int, default=100, help="photos a shard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=list(WAYS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        index(**json.loads(arguments.child))
        return
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what loses its parent stays ours to be counted
    print_head("What shards and Ray cost")
    took: dict[tuple[str, int], list[Took]] = {}
    with workshop() as folder:
        make(folder / "all", arguments.photos)
        make(folder / "few", arguments.few)
        for _ in range(arguments.rounds):
            for name in arguments.only or WAYS:
                for photos in (arguments.few, arguments.photos):
                    source = folder / ("all" if photos == arguments.photos else "few")
                    took.setdefault((name, photos), []).append(one(name, source, arguments.size))
                    last = took[name, photos][-1]
                    said = f"{name}, {photos} photos: {last.wall_s:.1f} s by the clock, {last.cpu_s:.1f} of processors"
                    print(said, file=sys.stderr, flush=True)
    print_rows(took, arguments.few, arguments.photos)


def one(name: str, source: Path, size: int) -> Took:
    """Bring a folder into a new library in one way; return what that took."""
    way = dict(WAYS[name])
    with tempfile.TemporaryDirectory(dir=source.parent) as folder, cluster(way.pop("nodes", 0)) as address:
        said = {"library": f"{folder}/library", "source": str(source), "size": size, **way, "address": address}
        command = [sys.executable, __file__, "--child", json.dumps(said)]
        with Meter() as meter:
            subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)
        return meter.took


def index(
    library: str, source: str, size: int, engine: str | None = None, cpus: float = 1, address: str | None = None
) -> None:
    """Index, in a process of its own."""
    from search import Library
    from search.engines import LocalEngine, RayEngine, RayOptions
    from search.shards.run import ShardOptions

    runs = RayEngine(RayOptions(cpus=cpus, address=address)) if engine == "ray" else nullcontext(LocalEngine())
    with runs as chosen, Library.open(library, model="builtin", offline=True) as opened:
        shards = ShardOptions(chosen, f"{library}-shards", size) if engine else None
        report = opened.index([source], shards=shards)
        assert report.added == report.encoded == len(list(Path(source).rglob("*.jpg")))


class Meter:
    """The processors' seconds of all our descendants, looked at five times a second: what ends takes a little along."""

    def __enter__(self) -> Meter:
        self._seconds: dict[tuple[int, float], float] = {}
        self._look()
        self._before, self._began = sum(self._seconds.values()), time.perf_counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()
        self.took = Took(time.perf_counter() - self._began, sum(self._seconds.values()) - self._before)

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self._look()

    def _look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._seconds[process.pid, process.create_time()] = times.user + times.system


@contextmanager
def cluster(nodes: int) -> Iterator[str | None]:
    """Have a cluster of two machines with a processor each, if any; yield its address."""
    if not nodes:
        yield None
        return
    one_processor = json.dumps({"num_cpus": 1})
    command = [sys.executable, str(REPOSITORY / "tests" / "scale_cluster.py"), one_processor, one_processor]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env={**os.environ, **ENVIRONMENT}, **pipes) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            parts = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for part in parts:
                with suppress(psutil.Error):
                    part.kill()


def print_rows(took: dict[tuple[str, int], list[Took]], few: int, many: int) -> None:
    """Print what a run takes, what of it comes before the first photo, a photo's share, and throughput beside plain."""
    head = ("", "CPU s", "CPU s before the first photo", "CPU ms a photo")
    head += ("throughput", "throughput without the start", "s by the clock")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    plain = None
    for name in dict.fromkeys(name for name, _ in took):
        whole, part = (median(run.cpu_s for run in took[name, photos]) for photos in (many, few))
        share = (whole - part) / (many - few)
        plain = plain or (whole, share)
        ratios = f"{plain[0] / whole:.2f} | {plain[1] / share:.2f}"
        wall = median(run.wall_s for run in took[name, many])
        print(f"| {name} | {whole:.1f} | {part - few * share:.1f} | {1000 * share:.1f} | {ratios} | {wall:.0f} |")


if __name__ == "__main__":
    main()
