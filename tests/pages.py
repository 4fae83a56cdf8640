"""The pages of the documentation as something that runs: their examples, and what each printed.

A page is a Markdown file. Its fenced blocks share a folder, a home and a library, and run in order:

```console   lines that begin with `$ ` are commands, as one would type them; `\\` at the end of one continues it on
             the next line. What stands below a command is what it must print. A command with nothing below it has
             to succeed, and its output is not compared; one that fails has to show what it says. `search ...` is run
             in this process, everything else (pipes, loops, `cp`) by bash with the real program on the PATH, which
             costs seconds. `cd`, `export NAME=VALUE` and `unset NAME` hold for the rest of the page. `search serve`
             is started for the rest of the page on a port that is free, which the page calls 8000.
```python    is executed; names live on in the page's later blocks. A ```text block right behind it is its output.

`<!-- not run: why -->` on the line above a block leaves it out. `<!-- setup: command -->` runs without being shown.

In an output `...` is any text, also over lines. Seconds and rates may be any number, a number with decimals may differ
by two in its last digit or the fourth and a percentage by two, for processors round differently. `/home/you` is
the home.

A page begins in `~/search` with the demo's photographs in `demo/photos`, and an album of one's own in `~/Pictures`.
`pytest tests/test_examples.py --write-examples` puts what came into the pages, in place of what did not match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"^( *)(`{3,})([\w-]*)(.*)$")
_COMMENT = re.compile(r"^\s*<!-- (not run|setup): (.*?) *-->\s*$")
_TOKEN = re.compile(
    r"""(?P<any>\.\.\.)
    | (?P<time>(?<![\w.])\d+(?:\.\d+)?(?=\ (?:s|ms|minutes?|hours?|a\ second)\b))
    | (?P<timed>(?<=seconds":\ )\d+(?:\.\d+)?|(?<=per_second":\ )\d+(?:\.\d+)?)
    | (?P<share>(?<![\w.])\d+(?=\ ?%))
    | (?P<decimal>(?<![\w.])-?\d+\.\d+(?![\w.]*\w))
    | (?P<space>[ \t]+)""",
    re.VERBOSE,
)
_DIGITS = 2  # by how much the last of a number's digits may differ
_DECIMALS = 4  # a number with more of them is compared by so many


@dataclass(frozen=True)
class Step:
    """One thing to run and what the page says it prints; None where it says nothing."""

    kind: str  # console, python or setup
    code: str
    expected: str | None
    start: int  # the lines of the output on the page, end excluded
    end: int


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and its lines without the fences."""

    language: str
    start: int
    lines: tuple[str, ...]
    comment: tuple[str, str] | None = None  # "not run" and why

    @property
    def end(self) -> int:
        return self.start + len(self.lines)


@dataclass
class Page:
    """A page's text, its blocks and its steps."""

    path: Path
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = self.lines or self.path.read_text(encoding="utf-8").splitlines()

    @property
    def exempt(self) -> list[Block]:
        """The blocks that are not run."""
        return [block for block in self.blocks() if block.comment and block.comment[0] == "not run"]

    def blocks(self) -> list[Block]:
        """Return the fenced blocks, and what is set up in comments as blocks of the language "setup"."""
        found, at = [], 0
        while at < len(self.lines):
            comment = _COMMENT.match(self.lines[at])
            fence = _FENCE.match(self.lines[at])
            if comment and comment[1] == "setup":
                found.append(Block("setup", at, (comment[2],)))
            elif fence:
                end = self._closing(at + 1, fence[2])
                before = _COMMENT.match(self.lines[at - 1]) if at else None
                inside = tuple(self.lines[at + 1 : end])
                found.append(Block(fence[3], at + 1, inside, (before[1], before[2]) if before else None))
                at = end
            at += 1
        return found

    def _closing(self, at: int, fence: str) -> int:
        while at < len(self.lines) and self.lines[at].strip() != fence:
            at += 1
        return at

    def steps(self) -> list[Step]:
        """Return what is to be run, in order."""
        steps: list[Step] = []
        previous: Block | None = None
        for block in self.blocks():
            if block.comment and block.comment[0] == "not run":
                previous = None
                continue
            if block.language == "console":
                steps += _commands(block)
            elif block.language in ("python", "setup"):
                steps.append(Step(block.language, "\n".join(block.lines), None, block.end, block.end))
            elif (
                block.language == "text"
                and previous
                and previous.language == "python"
                and self._next(previous, block)
            ):
                code = steps.pop()
                steps.append(Step("python", code.code, "\n".join(block.lines), block.start, block.end))
            previous = block
        return steps

    def _next(self, first: Block, second: Block) -> bool:
        """Whether nothing stands between two blocks."""
        return not any(line.strip() for line in self.lines[first.end + 1 : second.start - 1])


def _commands(block: Block) -> list[Step]:
    """Split a console block into commands and what each printed."""
    steps, at = [], 0
    while at < len(block.lines):
        line = block.lines[at]
        if not line.startswith("$ "):
            if line.strip() and not steps:
                raise ValueError(f"line {block.start + at + 1}: a console block begins with `$ `, not {line!r}")
            at += 1
            continue
        code, at = line[2:], at + 1
        while code.endswith("\\") and at < len(block.lines):
            code, at = f"{code[:-1].rstrip()} {block.lines[at].strip().removeprefix('> ')}", at + 1
        start = at
        while at < len(block.lines) and not block.lines[at].startswith("$ "):
            at += 1
        end = at
        while end > start and not block.lines[end - 1].strip():
            end -= 1
        shown = "\n".join(block.lines[start:end]) if end > start else None
        steps.append(Step("console", code, shown, block.start + start, block.start + end))
    return steps


def matches(expected: str, got: str) -> bool:
    """Whether an output is what a page shows of it."""
    pattern, wanted, at = [], [], 0
    expected, got = _trimmed(expected), _trimmed(got)
    for token in _TOKEN.finditer(expected):
        pattern.append(re.escape(expected[at : token.start()]))
        at = token.end()
        kind = token.lastgroup
        if kind in ("share", "decimal"):
            wanted.append((token[0], kind))
        pattern.append(
            {"any": r".*?", "time": r"\d+(?:\.\d+)?", "timed": r"\d+(?:\.\d+)?", "share": r"(\d+)"}.get(
                kind or "", r"(-?\d+\.\d+)" if kind == "decimal" else r"[ \t]+"
            )
        )
    pattern.append(re.escape(expected[at:]))
    found = re.fullmatch("".join(pattern), got, re.DOTALL)
    return found is not None and all(
        abs(float(number) - float(value))
        <= (_DIGITS + 0.5) * 10.0 ** -min(_DECIMALS, len(number.partition(".")[2]))
        for (number, _), value in zip(wanted, found.groups(), strict=True)
    )


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def rewritten(page: Page, outputs: list[tuple[Step, str]]) -> str:
    """Return the page with other outputs at some steps."""
    lines = list(page.lines)
    for step, output in sorted(outputs, key=lambda pair: -pair[0].start):
        lines[step.start : step.end] = _trimmed(output).splitlines()
    return "\n".join(lines) + "\n"
