"""Whole processes by the clock: how long one takes from its start to its end, and tables of two held together."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
        ratios = [f"{self.ratio(field):.1f} ×" if self.theirs else "–" for field in ("wall_s", "cpu_s")]
        sides = [f"{seconds(side):.3g}" if side else "–" for side in (self.ours, self.theirs)]
        return [self.what, *sides, *ratios, self._wanted()]

    def figure(self, rival: str) -> Figure:
        """The same by the clock, for a summary."""
        theirs = f"{rival} {spoken(seconds(self.theirs))}" if self.theirs else ""
        return Figure(self.what, spoken(seconds(self.ours)), theirs, self.ratio() if self.theirs else None)

    def ratio(self, field: str = "wall_s") -> float:
        """The median over the pairs of theirs by ours."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return median(getattr(their, field) / max(getattr(our, field), 1e-9) for our, their in pairs)

    def _wanted(self) -> str:
        """By the clock, and whether it was held; on a busy machine the processors' seconds say more."""
        wanted = []
        if self.goal:
            wanted.append(f"{self.goal:g} ×{'' if self.ratio() >= self.goal else ', missed'}")
        if self.limit_s:
            missed = seconds(self.ours) > self.limit_s
            wanted.append(f"≤ {self.limit_s:.3g} s{', missed' if missed else ''}")
        return ", ".join(wanted) or "–"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a summary: what was measured, both sides with their units, and how many times better ours is."""

    what: str
    ours: str
    theirs: str = ""
    ratio: float | None = None


def seconds(runs: Sequence[Took]) -> float:
    """The median by the clock."""
    return median(run.wall_s for run in runs)


def spoken(seconds: float) -> str:
    """Name a time in the unit that reads best."""
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"


def save_figures(path: Path | None, figures: Iterable[Figure]) -> None:
    """Write figures for whoever reads them together, if a place is named."""
    if path:
        path.write_text(json.dumps([asdict(figure) for figure in figures], ensure_ascii=False, indent=1) + "\n")


def read_figures(path: Path) -> list[Figure]:
    return [Figure(**figure) for figure in json.loads(path.read_text())]


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


def print_table(rival: str, rows: Iterable[Row]) -> list[Row]:
    """Print a table, a row of Markdown as soon as it is known; return the rows."""
    head = ("", "ours, s", f"{rival}, s", "theirs / ours", "of processor time", "wanted")
    print_row(head)
    print("|---" * len(head) + "|", flush=True)
    shown = []
    for row in rows:
        print_row(row.cells())
        shown.append(row)
    print()
    return shown


def print_row(cells: Iterable[object]) -> None:
    """Print a line of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_rows(*rows: Iterable[object]) -> None:
    """Print a Markdown table whose first row is its head."""
    head, *others = map(list, rows)
    print_row(head)
    print("|---" * len(head) + "|", flush=True)
    for row in others:
        print_row(row)
    print()


@contextmanager
def workshop() -> Iterator[Path]:
    """Make a folder on the repository's own disk for as long as it is needed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="work-") as folder:
        yield Path(folder)


def print_head(title: str, **versions: str) -> None:
    """Say what runs here and what it was started with; the table itself is all of a script's output."""
    command = " ".join(map(_shown, sys.argv))
    print(f"## {title}\n\n`python {command}`, {describe_machine(**versions)}\n", file=sys.stderr, flush=True)


def describe_machine(**versions: str) -> str:
    """Return date, processor, load and versions in a sentence.   versions: more of them, by name."""
    known = {"search": _revision(), **{name: _version(name) for name in ("torch", "faiss-cpu", "numpy", "pillow")}}
    machine = f"{time.strftime('%Y-%m-%d')}, {_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    numbers = ", ".join(f"{name} {number}" for name, number in (known | versions).items())
    return f"{machine}, Python {platform.python_version()}, {numbers}"


def _shown(word: str) -> str:
    return os.path.relpath(word, REPOSITORY) if Path(word).is_absolute() else word


def _revision() -> str:
    git = ["git", "-C", str(REPOSITORY)]
    done = subprocess.run([*git, "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", ".", ":!bench/RESULTS.md"], check=False
    ).returncode
    commit = f"{done.stdout.strip()}{', changed' if changed else ''}"
    return f"{_version('search')} ({commit})" if done.returncode == 0 else _version("search")


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
