"""Show a file in the program that the system has for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.errors import SearchError

if TYPE_CHECKING:
    from search.types import Answer

_PATIENCE_S = 3.0  # what has found no program has said so by then; a viewer may run for as long as it likes


def open_in_viewer(path: str) -> None:
    """Open a file in the system's viewer and leave it running.   Raises SearchError if there is none."""
    if sys.platform == "win32":
        os.startfile(path)  # noqa: S606
        return
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    nowhere = subprocess.DEVNULL
    try:
        process = subprocess.Popen(  # noqa: S603, a path is no option: it begins with a slash
            [opener, path], stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
        )
        code = process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return
    except OSError as error:
        raise SearchError(
            f"{opener} is not on this machine", hint="write a page with --output sheet.html and open that"
        ) from error
    if code:
        raise SearchError(
            f"{opener} found no program for {path}", hint="write a page with --output sheet.html and open that"
        )


def open_sheet(answers: Sequence[Answer]) -> str:
    """Open a contact sheet and return its path: always the same one, so that they do not pile up."""
    from search.cli.output import answer_parts
    from search.files import atomic_write_parts
    from search.resources import user_cache

    folder = user_cache("sheet")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write_parts(folder / "sheet.html", answer_parts(answers, "html"))
    open_in_viewer(str(folder / "sheet.html"))
    return str(folder / "sheet.html")
