"""The measuring scripts of bench/: each says what it does, and a sitting writes what was measured and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
NO_PROGRAMS = {"pictures", "rivals", "sections", "stopwatch", "drawn", "terminal", "clip_retrieval_run"}

# One process for all, because most of the time goes into importing what they share.
ASK = """
import contextlib, io, json, runpy, sys
found = {}
for path in sys.argv[1:]:
    sys.argv, said = [path, "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(path, run_name="__main__")
        found[path] = "it did not end"
    except SystemExit as end:
        found[path] = said.getvalue() if not end.code else f"ended with {end.code}"
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_script_says_what_it_measures_when_asked_for_help():
    scripts = sorted(path for path in BENCH.glob("*.py") if path.stem not in NO_PROGRAMS)
    command = [sys.executable, "-W", "ignore", "-c", ASK, *map(str, scripts)]
    done = subprocess.run(command, cwd=BENCH, env=_with_path(), capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == len(scripts) > 30
    for path, said in answers.items():
        assert said.startswith("usage: "), (path, said)
        assert len(said.splitlines()) > 4, f"{path} says nothing of what it is for"


def test_a_sitting_tells_what_was_measured_what_failed_and_what_is_missing(tmp_path):
    done = _run(
        """
        import sys, run, sections
        from pathlib import Path
        place = Path(sys.argv[1])
        def script(name, lines):
            (place / name).write_text(lines)
            return str(place / name)
        figures = '[{"what": "find", "ours": "1 s", "theirs": "rclip 4 s", "ratio": 4.0}]'
        good = script("good.py", f"import sys; print('| a |'); open(sys.argv[2], 'w').write({figures!r})")
        bad = script("bad.py", "raise SystemExit('no disk')")
        run.SECTIONS = (
            sections.Section("Good", good, has_figures=True),
            sections.Section("Bad", bad),
            sections.Section("Data", "good.py {data}/flowers"),
        )
        run.SUMMARY = (("Good", "find"), ("Bad", "not there"))
        run.CACHE = place
        sys.argv = ["run.py", "--out", str(place / "out.md")]
        run.main()
        """,
        tmp_path,
    )
    assert done.returncode == 1
    assert "failed: Bad" in done.stderr
    written = (tmp_path / "out.md").read_text()
    assert "| find | 1 s | rclip 4 s | 4 × | `bench/" in written
    assert "| not there | not measured | | | |" in written
    assert "## Good\n\n`python bench/" in written
    assert "\n\n| a |\n\nTook " in written
    assert "The script failed: `" in written
    assert "no disk" in written
    assert "## Data\n\n`python bench/good.py DIR/flowers`\n\nNot measured in this sitting: it needs" in written


def test_sections_have_scripts_that_are_there_and_summaries_sections_with_figures():
    done = _run(
        """
        import json
        from sections import SECTIONS, SUMMARY
        print(json.dumps([[[s.title, s.words()[0], s.has_figures] for s in SECTIONS], SUMMARY]))
        """
    )
    sections, summary = json.loads(done.stdout)
    titles = [title for title, _, _ in sections]
    assert len(set(titles)) == len(titles)
    assert all((BENCH / script).is_file() for _, script, _ in sections)
    assert {title for title, _ in summary} <= {title for title, _, has_figures in sections if has_figures}


FOUND = """
def file(lines, taken, branches, branches_taken, missing=()):
    counts = {"num_statements": lines, "covered_lines": taken, "num_branches": branches}
    return {"summary": {**counts, "covered_branches": branches_taken}, "missing_branches": list(missing)}
found = {"files": {
    "search/catalog/a.py": file(100, 99, 60, 59, [[3, 4]]),
    "search/catalog/b.py": file(50, 50, 40, 36, [[5, 6], [7, -1]] * 2),
    "search/indexer/__init__.py": file(10, 9, 20, 19, [[8, 9]]),
    "search/vectors/stores/c.py": file(10, 10, 0, 0),
    "search/catalogue.py": file(10, 0, 10, 0),
}}
"""


def test_branches_are_told_room_by_room_and_fewer_than_95_of_100_fail(tmp_path):
    lines = f"""{FOUND}
import json, sys, branches, pathlib
branches.FOUND = pathlib.Path(sys.argv.pop())
branches.FOUND.write_text(json.dumps(found))
branches.main()
"""
    done = _run(lines, tmp_path / "found.json")
    assert done.stdout == (
        "catalog: 149 of 150 lines (99.3%), 95 of 100 branches (95.0%)\n"
        "indexer: 9 of 10 lines (90.0%), 19 of 20 branches (95.0%)\n"
        "vectors: 10 of 10 lines (100.0%), 0 of 0 branches (100.0%)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    short = _run(
        lines.replace("59, [", "58, [").replace(
            "branches.main()", "sys.argv.append('--missing'); branches.main()"
        ),
        tmp_path / "found.json",
    )
    assert short.returncode == 1
    assert short.stderr == "fewer than 95% of the branches: catalog\n"
    assert "94 of 100 branches (94.0%)\n  search/catalog/a.py: 3 → 4\n  search/catalog/b.py: 5 → 6" in short.stdout


def test_the_tests_that_are_measured_and_tried_on_mutants_are_there():
    done = _run(
        "import branches, mutants; print(*branches.tests(), *mutants.TESTS, *sum(mutants.TESTS.values(), ()))"
    )
    named = done.stdout.split()
    assert len(named) > 50
    assert not [name for name in named if not (BENCH.parent / name).exists()]


def _run(lines: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(lines), *map(str, arguments)]
    return subprocess.run(command, env=_with_path(), capture_output=True, text=True, check=False)


def _with_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCH), str(BENCH.parent)])}
