"""What `search` says without a command: what to do next, by what is there."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

import click

from search.cli.options import Settings, error_document
from search.errors import LibraryNotFound, SearchError
from search.plurals import count_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from search.catalog import Catalog

_THINGS = ("a dog on the beach", "a birthday cake", "snow in the mountains")
_TRIED = 3


def start(settings: Settings) -> None:
    """Say what to do next. Without a library little is imported, and a server is not asked."""
    from search.resources import default_location

    place = os.path.expanduser(settings.library or default_location())
    found = _of_server(settings, place) if "://" in place else _of_folder(settings, os.path.abspath(place))
    if settings.json:
        from search.cli.output import emit_json

        emit_json(found)
    else:
        _tell(found)


def command_line(settings: Settings, *words: str) -> str:
    """Return a command as one types it for the library that was meant."""
    given = settings.library
    if not given or given == os.environ.get("SEARCH_LIBRARY"):
        return " ".join(["search", *words])
    if "://" in given:
        from search.catalog.places import shown

        given = shown(given)  # without its password
    named = ["-L", shlex.quote(given)]
    return " ".join(["search", *named, *words])


def find_commands(settings: Settings, queries: Iterable[str]) -> list[str]:
    """Return commands that ask some queries."""
    return [command_line(settings, "find", f'"{query}"') for query in queries]


# ---- what is there


def _of_server(settings: Settings, url: str) -> dict[str, Any]:
    """A server may be away, and is not waited for."""
    from search.catalog.places import shown

    return {"library": shown(url), "next": [command_line(settings, "status"), *find_commands(settings, _THINGS)]}


def _of_folder(settings: Settings, place: str) -> dict[str, Any]:
    first = [command_line(settings, "index", _pictures())]
    nothing = {"library": place, "photos": 0, "next": [*first, *find_commands(settings, _THINGS[:1])]}
    try:
        if not os.listdir(place):
            return nothing
    except FileNotFoundError:
        return nothing
    except OSError as error:
        return {"library": place, "error": error_document(SearchError(str(error))), "next": []}
    from search.catalog import Catalog

    told: list[str] = []
    catalog = Catalog(place, notify=told.append)
    try:
        found = _of_catalog(settings, catalog)
    except SearchError as error:
        if isinstance(error, LibraryNotFound) and not catalog.has_copies():
            return nothing
        return {"library": place, "error": error_document(error), "next": []}
    finally:
        catalog.close()
    return {**found, "notes": told} if found["photos"] else {**found, "notes": told, "next": nothing["next"]}


def _of_catalog(settings: Settings, catalog: Catalog) -> dict[str, Any]:
    from search.addresses import is_remote
    from search.documents import job_document, path_fields, suggestion_document
    from search.suggestions import kept

    job = catalog.last_job()
    away = [
        root
        for root in catalog.root_status(lambda path: is_remote(path) or os.path.exists(path))
        if not root.online
    ]
    assert catalog.folder is not None
    known = kept(catalog.folder)
    suggestions = known.suggestions[:_TRIED] if known else ()
    return {
        "library": catalog.shown,
        "photos": catalog.count(),
        "job": job and job_document(job),
        "offline": [{**path_fields(root.path), "photos": root.photos} for root in away],
        "skipped": len(catalog.skipped()),
        "suggestions": [suggestion_document(one) for one in suggestions],
        "next": find_commands(settings, [one.query for one in suggestions] or _THINGS),
    }


def _pictures() -> str:
    """The folder that the platform keeps pictures in, as one types it."""
    from search.resources import pictures_folder

    folder, home = pictures_folder(), os.path.expanduser("~")
    inside = folder.removeprefix(home + os.sep)
    return shlex.quote(folder) if inside == folder else "~/" + shlex.quote(inside)


# ---- in words


def _tell(found: dict[str, Any]) -> None:
    from search.cli.output import printable

    for line in _lines(found):
        click.echo(printable(line))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield from found.get("notes", ())
    commands = [f"  {command}" for command in found["next"]]
    if "error" in found:
        error = found["error"]
        yield f"{error['message']}; {error['hint']}" if error["hint"] else error["message"]
    elif "photos" not in found:
        yield f"Your library is {found['library']}. Try:"
        yield from ("", *commands)
    elif found["photos"]:
        yield from _of_photos(found)
        yield from ("", "Try:", *commands)
    else:
        index, find = commands
        yield "There are no photos to search yet. Index a folder of them:"
        yield from ("", index, "")
        yield "Every photo is looked at once and stays where it is. The first run fetches a model, if it may use the"
        yield "network; stop it at any time, the next one does the rest. Then describe what you look for:"
        yield from ("", find)
    yield from ("", "`search --help` lists all commands.")


def _of_photos(found: dict[str, Any]) -> Iterator[str]:
    yield f"{count_of(found['photos'], 'photo')} in {found['library']}{_last_run(found['job'])}"
    for root in found["offline"]:
        yield f"  {root['path']} is not within reach, with {root['photos']} of them"
    if found["skipped"]:
        yield f"  {count_of(found['skipped'], 'file')} could not be indexed: `search skipped` says why"


def _last_run(job: dict[str, Any] | None) -> str:
    from datetime import datetime

    if job is None or job["kind"] != "index":
        return ""
    when = f"{datetime.fromisoformat(job['heartbeat_at']).astimezone():%Y-%m-%d %H:%M}"
    if job["state"] == "running":
        return f", being indexed now: {count_of(job['done'], 'file')} done"
    if job["state"] == "done":
        return f", last indexed {when}"
    return f"; the last run was cut short on {when}, and the same command again does the rest"
