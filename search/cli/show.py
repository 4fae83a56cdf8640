"""search show"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from search.cli.options import Settings, as_command, completed_by
from search.cli.similar import photo_ref


@as_command("show")
@click.argument("photo", shell_complete=completed_by("files"), metavar="PATH|ID")
def command(settings: Settings, *, photo: str) -> None:
    """Show everything known of one photo.

    \b
    Example:
      search show ~/Pictures/holiday.jpg
    """
    from search.cli.output import emit_json, emit_table, printable
    from search.documents import record_document, whole_photo_document

    with settings.open_library() as library:
        found = library.photo(photo_ref(photo))
        records = library.tags.of([found.id])[found.id]
        document = whole_photo_document(found)
        document["label_records"] = [record_document(record) for record in records]
    if settings.json:
        emit_json(document)
    else:
        click.echo(click.style(printable(document["path"]), bold=True))
        emit_table([(f"  {name}", value) for name, value in _told(document)])


def _told(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known, in words, what belongs together on one line; what has no words yet under its own name."""
    known = {name: value for name, value in document.items() if value not in (None, [], "")}
    yield (
        "picture",
        f"{known['width']} × {known['height']} pixels, {known['format']}, {_bytes(known['size_bytes'])}",
    )
    if "taken_at" in known:
        yield "taken", f"{_moment(known['taken_at'])}{_SOURCES.get(known['taken_at_source'], '')}"
    if camera := [known[name] for name in ("camera", "lens") if name in known]:
        yield "camera", ", ".join(camera)
    if "latitude" in known:
        yield "place", f"{known['latitude']:.5f}, {known['longitude']:.5f}"
    for record in document["label_records"]:
        yield ("rejected" if record["rejected"] else "label"), f"{record['label']}, {_whose(record)}"
    for name in (name for name in known if name not in _ELSEWHERE):
        yield name.replace("_", " "), _text(known[name])
    if "gone_at" in known:
        yield "gone", f"not found since {_moment(known['gone_at'])}"
    yield "file", f"of {_date(known['mtime_ns'])}, SHA-256 {known['content_hash']}"
    yield "library", f"photo {known['id']}, found in {known['root']}"


_SOURCES = {"file": ", as the file's date has it"}
_ELSEWHERE = {
    *("id", "path", "path_bytes", "root", "width", "height", "format", "size_bytes", "mtime_ns", "content_hash"),
    *("taken_at", "taken_at_source", "camera", "lens", "latitude", "longitude", "gone_at"),
    *("labels", "label_records", "keywords"),
}


def _whose(record: dict[str, Any]) -> str:
    """Say who gave a photo a label, and in which run."""
    if record["source"] == "user" and record["rejected"]:
        said = "by you"
    elif record["source"] == "zero-shot":
        said = f"proposed by {record['encoder']}" + (
            f" at {record['probability']:.2f}" if record["probability"] is not None else ""
        )
    else:
        said = _WHOSE.get(record["source"], record["source"])
    return said + (f" in run {record['run']}" if record["run"] is not None else "")


_WHOSE = {"user": "accepted by you", "import": "imported by you", "file": "a keyword of the file"}


def _bytes(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    power = min(3, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}"


def _date(mtime_ns: int) -> str:
    return f"{datetime.fromtimestamp(mtime_ns / 1e9, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _moment(iso: str) -> str:
    return datetime.fromisoformat(iso).isoformat(" ", "seconds")


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
