"""Whole processes by the clock: how long one takes from its start to its end, and tables of two held together."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = REPOSITORY / "build" / "bench"
"""What takes long to make and is the same every time stays here between runs."""


@dataclass(frozen=True, slots=True)
class Took:
    """What a process took: seconds by the clock, seconds of all processors, its children's included; and said."""

    wall_s: float
    cpu_s: float
    out: str = ""
    errors: str = ""

    def __add__(self, other: Took) -> Took:
        return Took(
            self.wall_s + other.wall_s,
            self.cpu_s + other.cpu_s,
            self.out + other.out,
            self.errors + other.errors,
        )

    def __sub__(self, other: Took) -> Took:
        return Took(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: what was measured, ours and the rival's runs in pairs, and what they are held to.

    goal: how many times faster ours is to be.   limit_s: what ours is to take at most.   theirs: empty where there is
    no rival.
    """

    what: str
    ours: Sequence[Took]
    theirs: Sequence[Took] = ()
    goal: float | None = None
    limit_s: float | None = None

    def cells(self) -> list[str]:
        wall, cpu = self._sides("wall_s"), self._sides("cpu_s")
        return [self.what, *wall, *cpu, self._wanted(), self._held()]

    def ratio(self, field: str = "wall_s") -> float:
        """The median over the pairs."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return median(getattr(their, field) / max(getattr(our, field), 1e-9) for our, their in pairs)

    def _sides(self, field: str) -> list[str]:
        ours = f"{median(getattr(run, field) for run in self.ours):.3g}"
        if not self.theirs:
            return [ours, "–", "–"]
        return [ours, f"{median(getattr(run, field) for run in self.theirs):.3g}", f"{self.ratio(field):.2f}"]

    def _wanted(self) -> str:
        goal = [f"{self.goal:g} ×"] if self.goal else []
        limit = [f"≤ {self.limit_s:.3g} s"] if self.limit_s else []
        return ", ".join(goal + limit) or "–"

    def _held(self) -> str:
        """By the clock; on a busy machine the processors' seconds say more."""
        verdicts = []
        if self.goal:
            verdicts.append(self.ratio() >= self.goal)
        if self.limit_s:
            verdicts.append(median(run.wall_s for run in self.ours) <= self.limit_s)
        return "" if not verdicts else "yes" if all(verdicts) else "no"


def timed(
    command: Sequence[object], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, code: int = 0
) -> Took:
    """Run a process to its end and say what it took. Raises RuntimeError unless it ends with this exit code."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=cwd, env=env)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), errors.seek(0)
        said, complained = (file.read().decode(errors="replace") for file in (out, errors))
    if process.returncode != code:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {complained.strip()[-2000:]}")
    return Took(wall_s, used.ru_utime + used.ru_stime, said, complained)


def in_turn(
    ours: Callable[[int], Took], theirs: Callable[[int], Took], rounds: int
) -> tuple[list[Took], list[Took]]:
    """Run both, each round in the other order; they are told the number of the round."""
    found: tuple[list[Took], list[Took]] = [], []
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            found[side].append((ours, theirs)[side](number))
    return found


def print_table(rival: str, rows: Iterable[Row]) -> None:
    """Print a table, a row of Markdown as soon as it is known."""
    head = ("", "ours, s", f"{rival}, s", "ratio", "ours, CPU s", f"{rival}, CPU s", "ratio", "wanted", "held")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    for row in rows:
        print("| " + " | ".join(row.cells()) + " |", flush=True)
    print()


@contextmanager
def workshop() -> Iterator[Path]:
    """Make a folder on the repository's own disk for as long as it is needed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="work-") as folder:
        yield Path(folder)


def print_head(title: str, **versions: str) -> None:
    """Print what runs here and what it was started with."""
    known = {"search": _revision(), **{name: _version(name) for name in ("torch", "faiss-cpu", "numpy", "pillow")}}
    print(f"## {title}\n")
    print(f"`python {' '.join(_shown(word) for word in sys.argv)}`, {time.strftime('%Y-%m-%d')},", end=" ")
    print(
        f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()},"
    )
    print(", ".join(f"{name} {number}" for name, number in (known | versions).items()) + "\n", flush=True)


def _shown(word: str) -> str:
    return os.path.relpath(word, REPOSITORY) if Path(word).is_absolute() else word


def _revision() -> str:
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=8"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return f"{_version('search')} ({done.stdout.strip()})" if done.returncode == 0 else _version("search")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
