"""search tags review"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from search.cli.options import Number, Settings, as_command, completed_by, model_option, not_empty, trust_option
from search.errors import SearchError, UsageError

if TYPE_CHECKING:
    from search.library.reviewing import Item, Learnt, Review, ReviewReport

_KEYS = "y yes · n no · c another label · s skip · u undo · o open · q quit"
_INTERRUPTED = 130

_OPTIONS = (
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="NAME",
        callback=not_empty,
        shell_complete=completed_by("tags"),
        help="Ask about this label, on all photos; may be given often. [default: what is proposed]",
    ),
    click.option("-k", "k", type=click.IntRange(1), default=20, show_default=True, help="Questions, at most."),
    click.option("--precision", type=Number(0.01, 0.99), metavar="P", help="Find where P of a label's are right."),
    click.option("--preview", is_flag=True, help="Draw the photos in the terminal."),
    model_option,
    trust_option,
)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@as_command("review")
@_options
def command(
    settings: Settings,
    *,
    labels: tuple[str, ...],
    k: int,
    precision: float | None,
    preview: bool,
    model: str,
    trust_checkpoint: str | None,
) -> int | None:
    """Answer questions about labels, the most uncertain first; each answer makes its label better.

    Press y or n, c for another label, s to skip, u to undo, o to open the photo, q to end. Where stdin is no terminal,
    a line is an answer: y, n, c LABEL, s, u or q. With --json and no answers the questions are printed.

    \b
    Examples:
      search tags review
      search tags review --label cat --precision 0.9
      printf 'y\\nn\\n' | search tags review --label cat
    """
    from search.cli.output import emit_json
    from search.documents import question_document

    with settings.open_library(model, trust_checkpoint) as library:
        review = library.tags.review(labels, precision=precision)
        if not review.left:
            _tell_none(settings, labels)
            if settings.json:
                emit_json({"items": []})
            return None
        if settings.json and sys.stdin.isatty():
            emit_json({"items": [question_document(item) for item in review.queue(k)]})
            return None
        session = _Session(settings, review, k, preview=preview)
        interrupted = session.run()
        if settings.json and not session.answered:
            emit_json({"items": [question_document(item) for item in review.queue(k)]})
            return None
        report = review.finish()
    if settings.json:
        emit_json(_report_document(report))
    else:
        _tell(settings, report)
    return _INTERRUPTED if interrupted else None


class _Session:
    """Questions on stderr, answers from keys or lines."""

    def __init__(self, settings: Settings, review: Review, k: int, *, preview: bool) -> None:
        self._settings, self._review, self._k, self._preview = settings, review, k, preview
        self._keys = sys.stdin.isatty()
        self.answered = 0

    def run(self) -> bool:
        """Ask until there is nothing more to ask; return whether the user ended it by Ctrl-C."""
        if self._keys and not self._settings.quiet:
            click.echo(_KEYS, err=True)
        asked, item = 0, self._review.next()
        try:
            while item and asked < self._k:
                self._ask(item, asked + 1)
                step, item = self._answered(item)
                asked = max(0, asked + step)
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)
            return True
        return False

    def _ask(self, item: Item, number: int) -> None:
        from search.cli.output import printable, short

        if self._preview:
            self._draw(item)
        count = min(self._k, number - 1 + item.left)
        question = f"{number}/{count}  {short(item.photo.path)}  {item.label}? {item.probability:.2f}"
        click.echo(printable(question), err=True)

    def _draw(self, item: Item) -> None:
        from search.cli.output import emit_bytes
        from search.cli.preview import previews
        from search.cli.terminal import look
        from search.types import Hit

        if sys.stdout.isatty():
            emit_bytes(previews([Hit(0.0, item.probability, item.photo)], look()))

    def _answered(self, item: Item) -> tuple[int, Item | None]:
        """Take answers until one leads on; return how many questions that is forward, and the next one."""
        review = self._review
        while True:
            answer, _, rest = self._read().partition(" ")
            try:
                if answer in ("y", "n"):
                    review.judge(item, answer == "y")
                elif answer == "c":
                    review.correct(item, rest or self._other())
                elif answer == "s":
                    review.skip(item)
                elif answer == "u":
                    before = review.undo()
                    if before:
                        return -1, before
                    self._settings.talk("there is nothing to undo")
                    continue
                elif answer == "o":
                    self._open(item)
                    continue
                elif answer == "q":
                    return 0, None
                else:
                    self._settings.talk(_KEYS if self._keys else f"{answer!r} is no answer: {_KEYS}")
                    continue
            except UsageError as error:
                self._settings.talk(str(error))
                continue
            self.answered += 1
            return 1, review.next()

    def _read(self) -> str:
        """Return the next key, or line; "q" where there are no more."""
        if not self._keys:
            line = sys.stdin.readline()
            return line.strip() or ("q" if not line else "?")
        key = click.getchar()
        return {"\r": "?", "\n": "?", "\x04": "q", "\x1b": "q"}.get(key, key.lower())

    def _other(self) -> str:
        return str(click.prompt("which label", err=True)) if self._keys else ""

    def _open(self, item: Item) -> None:
        from search.cli.viewer import open_in_viewer

        try:
            open_in_viewer(item.photo.path)
        except SearchError as error:
            self._settings.talk(error.message)


def _tell_none(settings: Settings, labels: Sequence[str]) -> None:
    if labels:
        settings.talk(f"there is nothing left to ask about {', '.join(labels)}")
    else:
        settings.talk("no label waits for a verdict; 'search label --labels everyday --apply' proposes some")


def _tell(settings: Settings, report: ReviewReport) -> None:
    from search.cli.output import emit_table

    if report.run is None:
        settings.talk("nothing was judged")
        return
    settings.talk(
        f"run {report.run}: {report.accepted} accepted, {report.rejected} rejected, {report.corrected} corrected; "
        f"'search tags undo {report.run}' takes that back, 'search label' uses what was learnt"
    )
    rows = [(learnt.gain.label, *_gain(learnt), _threshold(learnt)) for learnt in report.learnt]
    header = ("label", "verdicts", "accepted", "average precision", "threshold")
    emit_table(rows, right=(1, 2), header=header)


def _gain(learnt: Learnt) -> tuple[str, str, str]:
    gain = learnt.gain
    if gain.before is None or gain.after is None:
        change = "not enough examples yet"
    else:
        change = f"{gain.before:.2f} → {gain.after:.2f}"
    return str(gain.examples), str(gain.accepted), change


def _threshold(learnt: Learnt) -> str:
    if learnt.precision is None:
        return ""
    if learnt.cut is None:
        return f"{learnt.precision:.0%} right: not enough examples yet"
    return f"{learnt.precision:.0%} right from {learnt.cut.threshold:.2f}"


def _report_document(report: ReviewReport) -> dict[str, Any]:
    return {
        "run": report.run,
        "accepted": report.accepted,
        "rejected": report.rejected,
        "corrected": report.corrected,
        "gain": [_learnt_document(learnt) for learnt in report.learnt],
    }


def _learnt_document(learnt: Learnt) -> dict[str, Any]:
    gain, cut = learnt.gain, learnt.cut
    return {
        "label": gain.label,
        "examples": gain.examples,
        "accepted": gain.accepted,
        "average_precision_before": gain.before,
        "average_precision": gain.after,
        "precision": learnt.precision,
        "threshold": cut.threshold if cut else None,
        "precision_estimate": cut.precision if cut else None,
    }
