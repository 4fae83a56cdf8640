"""Results as text, JSON, CSV and bare paths. stdout is data."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from search.types import (
        Answer,
        Hit,
        IndexReport,
        JobStatus,
        LabelledPhoto,
        Labelling,
        LibraryStatus,
        Photo,
        RootStatus,
        Skip,
        Withheld,
    )

# Control characters and the marks that reorder text: in a terminal they could rewrite what was said.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str) -> str:
    """Return text that a terminal shows as it is, with control characters escaped."""
    return "".join(repr(char)[1:-1] if unicodedata.category(char) in _HIDDEN else char for char in text)


def emit_json(document: object) -> None:
    """Print one JSON document; names that are not UTF-8 come as surrogate escapes."""
    click.echo(json.dumps(document, ensure_ascii=True, indent=1, allow_nan=False))


def emit_paths(paths: Iterable[str], *, end: bytes = b"\n") -> None:
    """Print names as the file system's own bytes."""
    sys.stdout.flush()
    for path in paths:
        sys.stdout.buffer.write(os.fsencode(path) + end)
    sys.stdout.buffer.flush()


def emit_table(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """Print aligned columns; `right` are those set flush right."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = (
            cell.rjust(width) if i in set(right) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(line).rstrip())


def short(path: str) -> str:
    """Return a path relative to the current folder where it lies inside it."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here)


# ---- documents


def path_fields(path: str, name: str = "path") -> dict[str, str]:
    """Return a path for JSON; its bytes too where they are not valid UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        import base64

        return {name: path, f"{name}_bytes": base64.b64encode(os.fsencode(path)).decode()}
    return {name: path}


def photo_document(photo: Photo) -> dict[str, Any]:
    """Return the fields of a photo that every answer has."""
    info = photo.info
    return {
        "id": photo.id,
        **path_fields(photo.path),
        "width": info.width,
        "height": info.height,
        "taken_at": info.taken_at.isoformat() if info.taken_at else None,
        "camera": info.camera,
        "latitude": info.latitude,
        "longitude": info.longitude,
        "labels": list(photo.labels),
    }


def whole_photo_document(photo: Photo) -> dict[str, Any]:
    """Return everything known of a photo."""
    info = photo.info
    return {
        **photo_document(photo),
        "root": photo.root,
        "format": info.format,
        "size_bytes": photo.size_bytes,
        "mtime_ns": photo.mtime_ns,
        "content_hash": photo.content_hash,
        "orientation": info.orientation,
        "taken_at_source": info.taken_at_source,
        "lens": info.lens,
        "rating": info.rating,
        "keywords": list(info.keywords),
        "gone_at": photo.gone_at.isoformat() if photo.gone_at else None,
    }


def hit_document(rank: int, hit: Hit) -> dict[str, Any]:
    return {"rank": rank, "score": hit.score, "relevance": hit.relevance, **photo_document(hit.photo)}


def answer_document(answer: Answer) -> dict[str, Any]:
    return {
        "query": answer.query,
        "encoder": answer.encoder,
        "hits": [hit_document(rank, hit) for rank, hit in enumerate(answer.hits, start=1)],
        "candidates": answer.candidates,
        "truncated_tokens": answer.truncated_tokens,
        "seconds": answer.seconds,
    }


def skip_document(skip: Skip) -> dict[str, str]:
    return {**path_fields(skip.path), "reason": str(skip.reason), "detail": skip.detail}


def withheld_document(withheld: Withheld) -> dict[str, Any]:
    return {**path_fields(withheld.path), "photos": withheld.photos, "reason": withheld.reason}


def job_document(job: JobStatus) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "state": str(job.state),
        "started_at": job.started_at.isoformat(),
        "heartbeat_at": job.heartbeat_at.isoformat(),
        "done": job.done,
        "total": job.total,
        "pid": job.pid,
        "host": job.host,
    }


def report_document(report: IndexReport, library: str) -> dict[str, Any]:
    return {
        "library": library,
        "encoder": report.encoder,
        "photos": report.photos,
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "gone": report.gone,
        "offline": report.offline,
        "withheld": [withheld_document(withheld) for withheld in report.withheld],
        "purged": report.purged,
        "skipped": [skip_document(skip) for skip in report.skipped],
        "encoded": report.encoded,
        "reread": report.reread,
        "not_encoded": report.not_encoded,
        "seconds": report.seconds,
        "images_per_second": report.images_per_second,
        "interrupted": report.interrupted,
        "not_published": report.not_published,
    }


def labelled_document(photo: LabelledPhoto) -> dict[str, Any]:
    labels = [{"label": x.label, "probability": x.probability, "score": x.score} for x in photo.labels]
    return {**path_fields(photo.path), "labels": labels}


def labelling_document(labelling: Labelling) -> dict[str, Any]:
    return {
        "encoder": labelling.encoder,
        "labels": list(labelling.labels),
        "templates": list(labelling.templates),
        "photos": [labelled_document(photo) for photo in labelling.photos],
        "skipped": [skip_document(skip) for skip in labelling.skipped],
        "applied": labelling.applied,
        "truncated_tokens": labelling.truncated_tokens,
    }


def root_document(root: RootStatus) -> dict[str, Any]:
    return {**path_fields(root.path), "state": "online" if root.online else "offline", "photos": root.photos}


def status_document(status: LibraryStatus) -> dict[str, Any]:
    return {
        "library": status.path,
        "photos": status.photos,
        "roots": [root_document(root) for root in status.roots],
        "encoders": [{"name": e.name, "dim": e.dim, "photos": e.photos} for e in status.encoders],
        "index": dict(status.index),
        "skipped": status.skipped,
        "schema": status.schema,
        "job": job_document(status.job) if status.job else None,
    }


# ---- answers


def emit_answers(answers: Sequence[Answer], output: str) -> None:
    """Print answers as `table`, `paths`, `csv` or `html`."""
    if output == "html":
        from search.cli.sheet import contact_sheet

        click.echo(contact_sheet(answers))
    elif output == "paths":
        emit_paths(hit.photo.path for answer in answers for hit in answer.hits)
    elif output == "csv":
        click.echo(_csv(answers), nl=False)
    else:
        for answer in answers:
            _emit_answer(answer, named=len(answers) > 1)


def _emit_answer(answer: Answer, *, named: bool) -> None:
    if named:
        click.echo(click.style(printable(answer.query), bold=True))
    if not answer.hits:
        click.echo("  nothing found")
        return
    rows = [
        (str(rank), f"{hit.score:.3f}", f"{hit.relevance:.0%}", short(hit.photo.path))
        for rank, hit in enumerate(answer.hits, start=1)
    ]
    emit_table(rows, right=(0, 1, 2))


def _csv(answers: Sequence[Answer]) -> str:
    import csv
    import io

    photo = ("path", "width", "height", "taken_at", "camera", "latitude", "longitude", "labels")
    columns = ("query", "rank", "id", "score", "relevance", *photo)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        for rank, hit in enumerate(answer.hits, start=1):
            row = {"query": answer.query, **hit_document(rank, hit)}
            writer.writerow(row | {"labels": "; ".join(hit.photo.labels)})
    return text.getvalue().encode("utf-8", "backslashreplace").decode()
