"""What exports share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from search.cli.options import Settings
from search.errors import StorageError
from search.plurals import count_of


@contextmanager
def storing(dest: str) -> Iterator[None]:
    """Name the place in errors of the disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"can't write {dest}: {reason}", hint="what was there before is as it was") from error


def finish(settings: Settings, dest: str, count: int) -> None:
    """Tell what was written."""
    from search.cli.output import emit_json
    from search.documents import path_fields

    if settings.json:
        emit_json({**path_fields(dest), "photos": count})
    else:
        settings.talk(f"{count_of(count, 'photo is', 'photos are')} in {dest}")
