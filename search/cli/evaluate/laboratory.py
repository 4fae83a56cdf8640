"""What `search evaluate prompts` found: in words on a terminal, as JSON, and as sections of a page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from search.cli import report
from search.cli.evaluate import results
from search.plurals import count_of

if TYPE_CHECKING:
    from search.evaluate.prompts import ChangeResult, Comparison, PromptEvaluation, WordingResult
    from search.types import Skip

_SHOWN = 40  # classes in a table
_EXAMPLES = 12  # photos that moved, on a page
_ATTRACTED = 4  # classes named of what a label takes
_HEADER = ("", "wording", "accuracy", "mean over classes", "among the five best")
_AGAINST = ("against", "difference", "right by it alone", "by the other alone", "p", "p corrected")


def tell(found: PromptEvaluation, changed: Sequence[ChangeResult], model: str) -> None:
    """Print tables and sentences."""
    from search.cli.output import printable

    click.echo(_about(found, model))
    results.table(_wording_rows(found), header=_HEADER, right=range(2, 5), giving=1)
    click.echo()
    for line in _verdicts(found):
        click.echo(printable(line))
    click.echo()
    results.table(_class_rows(found)[:_SHOWN], header=_class_header(found), right=range(1, len(found.results) + 2))
    if len(found.dataset.folders) > _SHOWN:
        click.echo(
            f"and {count_of(len(found.dataset.folders) - _SHOWN, 'class', 'classes')} more, all better; --json has them"
        )
    for mistake in found.mistakes(found.best)[:3]:
        true, said = (found.dataset.classnames[place] for place in (mistake.true, mistake.said))
        click.echo(printable(f"{mistake.count} of {true} taken for {said}"))
    for one in changed:
        click.echo()
        click.echo(printable(f"{one.change.name}: {_effect(one)}"))
        if rows := _change_rows(found, one)[:_SHOWN]:
            results.table(rows, header=_CHANGED, right=range(1, 6))
        for line in _attracted(found, one):
            click.echo(printable(line))


def _about(found: PromptEvaluation, model: str) -> str:
    dataset = found.dataset
    return f"{model} on {dataset.name}: {len(dataset.paths)} photos, {len(dataset.folders)} classes"


def _wording_rows(found: PromptEvaluation) -> list[tuple[str, ...]]:
    return [
        (
            str(number),
            result.wording.name,
            results.percent(result.accuracy),
            results.percent(result.mean_per_class_recall),
            f"{result.acc5:.1%}" if len(found.dataset.folders) > 5 else "–",
        )
        for number, result in enumerate(found.results, 1)
    ]


def _verdicts(found: PromptEvaluation) -> Iterator[str]:
    """Say which wording is best, and whether that is sure, of each of the others."""
    best = found.best.wording.name
    yield f"Best: “{best}”."
    photos = len(found.dataset.paths)
    for comparison in found.comparisons:
        yield f"Against “{found.results[comparison.other].wording.name}”: {_verdict(comparison, photos)}"


def _verdict(comparison: Comparison, photos: int) -> str:
    both = comparison.paired
    said = f"{_points(both.difference.value)} ({_bounds(comparison)})"
    p = f"corrected p = {comparison.p:.2g}"
    if comparison.is_sure:
        return f"{said}, {p}: better."
    if both.needed is None:
        return f"{said}, {p}: no difference on {photos} photos."
    if both.needed <= photos:  # alone it would be sure, among so many comparisons it is not
        return f"{said}, {p}: not distinguishable among so many comparisons."
    return f"{said}, {p}: not distinguishable on {photos} photos; about {both.needed} would be needed."


def _bounds(comparison: Comparison) -> str:
    difference = comparison.paired.difference
    return f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _class_header(found: PromptEvaluation) -> tuple[str, ...]:
    return ("class", "photos", *(str(number) for number in range(1, len(found.results) + 1)), "best by")


def _class_rows(found: PromptEvaluation) -> list[tuple[str, ...]]:
    """A line a class, those that the best wording does worst at first."""
    counts = found.best.confusion.sum(axis=1)
    order = sorted(range(len(counts)), key=lambda place: found.best.recalls[place].value)
    rows = []
    for place in order:
        recalls = [result.recalls[place].value for result in found.results]
        best = [str(number) for number, recall in enumerate(recalls, 1) if recall == max(recalls)]
        name = found.dataset.classnames[place]
        winners = "all" if len(best) == len(recalls) else ", ".join(best)
        rows.append((name, str(counts[place]), *(f"{recall:.1%}" for recall in recalls), winners))
    return rows


# ---- changed labels

_CHANGED = ("class", "photos", "before", "after", "gained", "lost")


def _effect(one: ChangeResult) -> str:
    """Say what a change does to the photos that still have a right answer."""
    both, photos = one.paired, int(one.counted.sum())
    left_out = len(one.counted) - photos
    of = f"{photos} photos" + (f" ({left_out} have no right answer any more)" if left_out else "")
    sure = "sure" if both.p < 0.05 else "may be chance"
    return (
        f"{_points(both.difference.value)} on {of}, {both.only_first} gained and {both.only_second} lost, "
        f"p = {both.p:.2g}: {sure}; {len(one.moved)} photos are called otherwise"
    )


def _change_rows(found: PromptEvaluation, one: ChangeResult) -> list[tuple[str, ...]]:
    """A line for each class that gains or loses, most affected first; if none does, none."""
    rows = []
    for place, name in enumerate(found.dataset.classnames):
        own = (found.dataset.targets == place) & one.counted
        if not own.any():
            continue
        before, after = one.right_before[own], one.right_after[own]
        gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
        shares = (f"{before.mean():.1%}", f"{after.mean():.1%}")
        rows.append((gained + lost, (name, str(int(own.sum())), *shares, str(gained), str(lost))))
    return [row for moved, row in sorted(rows, key=lambda row: -row[0]) if moved]


def _attracted(found: PromptEvaluation, one: ChangeResult) -> Iterator[str]:
    """Say whose photos new labels take, and where those of a class that is gone go."""
    names, folders = one.change.label_set.names, found.dataset.folders
    for place, name in enumerate(names):
        if name not in folders:
            taken = _largest(one.confusion[:, place].tolist(), found.dataset.classnames)
            yield f"{name} takes {int(one.confusion[:, place].sum())} photos" + (f": {taken}" if taken else "")
    for place, folder in enumerate(folders):
        if place not in one.change.owners:
            went = _largest(one.confusion[place].tolist(), names)
            yield f"photos of {folder} go to {went}"


def _largest(counts: Sequence[int], names: Sequence[str]) -> str:
    order = sorted((place for place, count in enumerate(counts) if count), key=lambda place: -counts[place])
    more = f", {len(order) - _ATTRACTED} more" if len(order) > _ATTRACTED else ""
    return ", ".join(f"{names[place]} {counts[place]}" for place in order[:_ATTRACTED]) + more


# ---- JSON


def document(
    found: PromptEvaluation, changed: Sequence[ChangeResult], model: str, skipped: Sequence[Skip]
) -> dict[str, Any]:
    """Return the best wording's result in CLIP_benchmark's shape, with all wordings' in "results"."""
    from search.documents import skip_document

    return {
        **_result(found, found.best, model),
        "winner": found.best.wording.name,
        "results": [_result(found, result, model) for result in found.results],
        "comparisons": [
            {
                "winner": found.best.wording.name,
                "other": found.results[one.other].wording.name,
                "difference": one.paired.difference.value,
                "interval": [one.paired.difference.low, one.paired.difference.high],
                "only_winner": one.paired.only_first,
                "only_other": one.paired.only_second,
                "p": one.paired.p,
                "p_corrected": one.p,
                "significant": one.is_sure,
                "photos_needed": one.paired.needed,
            }
            for one in found.comparisons
        ],
        "mistakes": [
            {
                "class": found.dataset.folders[one.true],
                "said": found.dataset.folders[one.said],
                "count": one.count,
                "photos": [_photo(found, found.best, row) for row in one.rows],
            }
            for one in found.mistakes(found.best)
        ],
        "changes": [_change(found, one) for one in changed],
        "skipped": [skip_document(skip) for skip in skipped],
    }


def _photo(found: PromptEvaluation, result: WordingResult, row: int) -> dict[str, Any]:
    from search.documents import path_fields

    return {**path_fields(found.dataset.paths[row]), "probability": float(result.probability[row])}


def _result(found: PromptEvaluation, result: WordingResult, model: str) -> dict[str, Any]:
    from search.evaluate.naming import called

    figures = {"acc1": result.accuracy, "mean_per_class_recall": result.mean_per_class_recall}
    counts = result.confusion.sum(axis=1).tolist()
    return results.document(
        found.dataset.name,
        model,
        "zeroshot_classification",
        {**{name: figure.value for name, figure in figures.items()}, "acc5": result.acc5},
        wording=result.wording.name,
        intervals=results.bounds(figures),
        photos=len(found.dataset.paths),
        classnames=[called(label) for label in result.wording.label_set.labels],
        folders=list(found.dataset.folders),
        templates=list(result.wording.label_set.templates),
        per_class=[
            {"class": folder, "photos": count, "recall": one.value, "interval": [one.low, one.high]}
            for folder, count, one in zip(found.dataset.folders, counts, result.recalls, strict=True)
        ],
        confusion=result.confusion.tolist(),
    )


def _change(found: PromptEvaluation, one: ChangeResult) -> dict[str, Any]:
    from search.documents import path_fields

    names = one.change.label_set.names
    return {
        "name": one.change.name,
        "labels": list(names),
        "photos": int(one.counted.sum()),
        "difference": one.paired.difference.value,
        "interval": [one.paired.difference.low, one.paired.difference.high],
        "gained": one.paired.only_first,
        "lost": one.paired.only_second,
        "p": one.paired.p,
        "confusion": one.confusion.tolist(),
        "moved": [
            {
                **path_fields(found.dataset.paths[row]),
                "class": found.dataset.folders[found.dataset.targets[row]],
                "before": found.dataset.folders[one.before[row]],
                "after": names[one.after[row]],
                "probability": float(one.probability[row]),
            }
            for row in one.moved.tolist()
        ],
    }


# ---- a page


def sections(found: PromptEvaluation, changed: Sequence[ChangeResult], model: str) -> list[report.Section]:
    """Return tables, plots, the worst mistakes and the photos that changed labels move."""
    from search.cli.report import plots

    best = found.best
    intervals = plots.accuracy_intervals([(result.wording.name, result.accuracy) for result in found.results])
    rows = _wording_rows(found)
    table = report.Table(_HEADER, rows, words=frozenset((1,)), marked=frozenset((found.winner,)))
    about = f"{_about(found, model)}. Intervals are of 95 %, by resampling photos."
    parts: list[report.Part] = [about, table, intervals]
    if found.comparisons:
        parts += [_versus(found), *_verdicts(found)]
    classes = report.Table(_class_header(found), _class_rows(found)[:_SHOWN], words=frozenset((len(rows) + 2,)))
    recalls = [(found.dataset.classnames[place], one) for place, one in enumerate(best.recalls)]
    worst = sorted(recalls, key=lambda row: row[1].value)[:_SHOWN]
    return [
        report.Section("Wordings", tuple(parts)),
        report.Section("Classes", (classes, plots.accuracy_intervals(worst, what="share said right"))),
        report.Section(
            f"What is taken for what by “{best.wording.name}”",
            (plots.confusion_matrix(best.confusion, found.dataset.classnames), *_mistakes(found)),
        ),
        *(_change_section(found, one) for one in changed),
    ]


def _versus(found: PromptEvaluation) -> report.Table:
    rows = [
        (
            found.results[one.other].wording.name,
            f"{_points(one.paired.difference.value)} ({_bounds(one)})",
            str(one.paired.only_first),
            str(one.paired.only_second),
            f"{one.paired.p:.2g}",
            f"{one.p:.2g}",
        )
        for one in found.comparisons
    ]
    return report.Table(_AGAINST, rows, caption=f"“{found.best.wording.name}” against the others, photo by photo")


def _mistakes(found: PromptEvaluation) -> Iterator[report.Photos]:
    from search.cli.sheet import Tile

    for one in found.mistakes(found.best):
        true, said = (found.dataset.classnames[place] for place in (one.true, one.said))
        tiles = tuple(
            Tile(
                os.fspath(found.dataset.paths[row]),
                badge=said,
                figures=f"{found.best.probability[row]:.0%} sure",
                relevance=float(found.best.probability[row]),
            )
            for row in one.rows
        )
        yield report.Photos(tiles, f"{true} taken for {said}: {one.count}, the surest first")


def _change_section(found: PromptEvaluation, one: ChangeResult) -> report.Section:
    from search.cli.sheet import Tile

    names = one.change.label_set.names
    rows = _change_rows(found, one)[:_SHOWN]
    tiles = tuple(
        Tile(
            found.dataset.paths[row],
            badge=names[one.after[row]],
            figures=f"{one.probability[row]:.0%} sure",
            relevance=float(one.probability[row]),
            details=(f"is {found.dataset.classnames[found.dataset.targets[row]]}",),
            labels=(f"before: {found.dataset.classnames[one.before[row]]}",),
        )
        for row in one.moved[:_EXAMPLES].tolist()
    )
    parts: list[report.Part] = [f"{_effect(one)}.", *_attracted(found, one)]
    if rows:
        parts.append(report.Table(_CHANGED, rows))
    if tiles:
        parts.append(report.Photos(tiles, "Photos that are called otherwise"))
    return report.Section(one.change.name[:1].upper() + one.change.name[1:], tuple(parts))
