"""Measure everything in one sitting, and write bench/RESULTS.md anew.

    python bench/run.py [--data DIR] [--only TITLE]... [--quick] [--out FILE]

Each section of the file is a script of this folder, run in a process of its own: its command, what it printed, and what
it took. What is not measured is said to be missing, never kept from before; where a script fails, its section says so,
the others go on, and the exit code is 1. The file is written after each section. `--quick` takes little of everything,
to see that all of it runs. It and `--only` write to build/bench/RESULTS.md unless `--out` names a file, so that
bench/RESULTS.md is always one sitting.

--data: labelled photos, as bench/README.md lays them out; without it, what needs them is left out.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from sections import SECTIONS, SUMMARY, SUMMARY_TITLE, Section
from stopwatch import CACHE, REPOSITORY, Figure, Took, describe_machine, read_figures, timed

RESULTS = REPOSITORY / "bench" / "RESULTS.md"
ASIDE = CACHE / "RESULTS.md"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a section.

    said: the Markdown that its script printed.   why_not: what kept it from being measured.   others: the share of the
    processors that other programs had meanwhile.
    """

    section: Section
    command: str
    said: str = ""
    why_not: str = ""
    failed: bool = False
    took: Took | None = None
    others: float = 0.0
    figures: tuple[Figure, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    titles = [section.title for section in SECTIONS]
    parser.add_argument("--data", type=Path, metavar="DIR", help="labelled photos")
    parser.add_argument(
        "--only", action="append", choices=titles, metavar="TITLE", help="this section; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the figures go")
    arguments = parser.parse_args()
    aside = arguments.quick or arguments.only
    out = arguments.out or (ASIDE if aside else RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    started, machine = time.monotonic(), describe_machine()
    outcomes: list[Outcome] = []
    for outcome in measured(arguments):
        outcomes.append(outcome)
        seconds = time.monotonic() - started
        whole = [*outcomes, *map(missing, SECTIONS[len(outcomes) :])]
        out.write_text(document(whole, machine=machine, seconds=seconds, quick=arguments.quick), encoding="utf-8")
    failed = [outcome.section.title for outcome in outcomes if outcome.failed]
    print(
        f"\n{out}: {seconds / 60:.0f} minutes{''.join(f'; failed: {title}' for title in failed)}", file=sys.stderr
    )
    sys.exit(1 if failed else 0)


def measured(arguments: argparse.Namespace) -> Iterator[Outcome]:
    """Measure section after section, and tell how it goes."""
    for section in SECTIONS:
        outcome = _measure(section, arguments)
        told = outcome.why_not or f"{outcome.took.wall_s:.0f} s" if outcome.took or outcome.why_not else ""
        print(f"{section.title}: {told}", file=sys.stderr, flush=True)
        yield outcome


def missing(section: Section, *, quick: bool = False) -> Outcome:
    """What there is to say of a section that was not run."""
    shown = shlex.join(word.replace("{data}", "DIR") for word in section.words(quick=quick))
    return Outcome(section, shown, why_not="Not measured in this sitting.")


def _measure(section: Section, arguments: argparse.Namespace) -> Outcome:
    left_out = missing(section, quick=arguments.quick)
    if arguments.only and section.title not in arguments.only:
        return left_out
    if section.needs_data and not arguments.data:
        return replace(left_out, why_not="Not measured in this sitting: it needs labelled photos (README.md).")
    if places := [place for place in section.places(arguments.data) if not place.exists()]:
        names = ", ".join(place.relative_to(arguments.data).as_posix() for place in places)
        return replace(left_out, why_not=f"Not measured in this sitting: there is no {names} among the photos.")
    words = section.words(quick=arguments.quick)
    return _run(section, left_out.command, [word.replace("{data}", str(arguments.data)) for word in words])


def _run(section: Section, shown: str, words: Sequence[str]) -> Outcome:
    """Run a script to its end; what it says on stderr is kept for the case that it fails."""
    kept = CACHE / "figures" / f"{section.title}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    command = [sys.executable, REPOSITORY / "bench" / words[0], *words[1:]]
    before, started = _busy_s(), time.perf_counter()
    try:
        took = timed([*command, "--json", kept] if section.has_figures else command, cwd=REPOSITORY)
    except RuntimeError as error:
        took = Took(time.perf_counter() - started, 0.0)
        last = str(error).strip().splitlines()[-1]
        print(error, file=sys.stderr)
        return Outcome(section, shown, why_not=f"The script failed: `{last}`", failed=True, took=took)
    share = (_busy_s() - before - took.cpu_s) / (took.wall_s * (os.cpu_count() or 1))
    figures = tuple(read_figures(kept)) if kept.exists() else ()
    return Outcome(section, shown, said=took.out.strip(), took=took, others=max(0.0, share), figures=figures)


def _busy_s() -> float:
    """Return the seconds that the processors have worked for anyone since the machine started."""
    times = psutil.cpu_times()
    return sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def document(outcomes: Sequence[Outcome], *, machine: str, seconds: float, quick: bool) -> str:
    """Return the whole file."""
    parts = [_head(outcomes, machine=machine, seconds=seconds, quick=quick), _summary(outcomes)]
    parts += [_chapter(outcome) for outcome in outcomes]
    return "\n\n".join(parts) + "\n"


def _head(outcomes: Sequence[Outcome], *, machine: str, seconds: float, quick: bool) -> str:
    ran = [outcome for outcome in outcomes if outcome.took and not outcome.failed]
    whole = sum(outcome.took.wall_s for outcome in ran if outcome.took) or 1.0
    others = sum(outcome.others * outcome.took.wall_s for outcome in ran if outcome.took) / whole
    said = [
        "# Measurements",
        f"{'A quick look, no measurement: ' if quick else ''}Measured in one sitting of {seconds / 60:.0f} minutes by "
        f"`make bench`: {machine}. Other programs had {others:.0%} of the processors meanwhile. Trust ratios within a "
        "table more than times. What takes hours or other machines was measured once: [ONCE.md](ONCE.md). What the "
        "scripts measure and which photos they take is in [README.md](README.md).",
    ]
    return "\n\n".join(said)


def _summary(outcomes: Sequence[Outcome]) -> str:
    """The lines that a reader wants first, out of the sections' figures."""
    found: Mapping[tuple[str, str], tuple[Outcome, Figure]] = {
        (outcome.section.title, figure.what): (outcome, figure)
        for outcome in outcomes
        for figure in outcome.figures
    }
    lines = [f"## {SUMMARY_TITLE}", "", "| | ours | theirs | times better | script |", "|---|---|---|---|---|"]
    for title, what in SUMMARY:
        matching = [pair for (section, name), pair in found.items() if section == title and name.startswith(what)]
        if not matching:
            lines.append(f"| {what} | not measured | | | |")
        for outcome, figure in matching[:1]:
            ratio = f"{figure.ratio:.3g} ×" if figure.ratio else ""
            script = outcome.section.script.split()[0]
            lines.append(f"| {figure.what} | {figure.ours} | {figure.theirs} | {ratio} | `bench/{script}` |")
    return "\n".join(lines)


def _chapter(outcome: Outcome) -> str:
    parts = [f"## {outcome.section.title}", f"`python bench/{outcome.command}`"]
    parts.append(outcome.why_not or outcome.said)
    if outcome.took and not outcome.failed:
        took = outcome.took
        parts.append(
            f"Took {took.wall_s:.0f} s and {took.cpu_s:.0f} s of processors, "
            f"of which other programs had {outcome.others:.0%} meanwhile."
        )
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
