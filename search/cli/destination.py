"""The file that answers are written to: its name says what it holds, and nothing but the like of it is replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

import click

from search.errors import StorageError, UsageError

GENERATOR = '<meta name="generator" content="search">'
"""What marks a page as ours."""

_HOLDS = {".html": "html", ".htm": "html", ".csv": "csv", ".txt": "paths", "": "paths"}
_HEAD_BYTES = 4096
_HEADS = {
    "csv": b"query,rank,id,score,",
    "labels": b'{\n "labels": [',
    "labels csv": b"path,label,state,",
    "labels json": b'{"photos": [',
    "photos csv": b"id,path,path_bytes,",
    "parquet": b"PAR1",
}


def format_of(file: str, wanted: str = "table") -> str:
    """Return what a file is to hold by its name; `wanted`, unless that is "table", where the name leaves it open.

    Raises click.UsageError for a name that stands for something else: a photo, given by mistake.
    """
    suffix = os.path.splitext(file)[1].lower()
    holds = _HOLDS.get(suffix)
    if holds is None:
        raise click.UsageError(f"{file} is no name for answers; they go to .html, .csv or .txt")
    if wanted == "table" or holds == wanted:
        return holds
    if holds != "paths":
        raise click.UsageError(f"{file} is a name for {holds}, but what is to be written is {wanted}")
    return wanted


def check(file: str, output: str) -> None:
    """Refuse what can't be written to, and what would be lost: a file that is not an earlier answer of this format.

    Raises click.UsageError; UsageError where the folder is missing.
    """
    if file == "-":
        raise click.UsageError("- is no file's name here: say which file to write, or ./- if it is called so")
    folder = os.path.dirname(os.path.abspath(file))
    if not os.path.isdir(folder):
        raise UsageError(f"there is no folder {folder} to write {file} in")
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise click.UsageError(f"{file} is no file that could be replaced")
        with open(file, "rb") as there:
            head = there.read(_HEAD_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise click.UsageError(f"{file} is there and can't be read, so it stays: {error.strerror}") from None
    if head and not _is_like(head, output):
        raise click.UsageError(
            f"{file} is there and is something else than {output} written by search; it stays, remove it first"
        )


def write(file: str, output: str, parts: Iterable[bytes]) -> None:
    """Write a file whole, or leave what was there.   Raises as `check` does; StorageError, which names the file."""
    from pathlib import Path

    from search.files import atomic_write_parts

    check(file, output)
    try:
        atomic_write_parts(Path(file), parts)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"can't write {file}: {reason}", hint="what was there before is as it was") from error


def _is_like(head: bytes, output: str) -> bool:
    """Whether a file begins as what is written in a format."""
    if output == "html":
        return head.startswith(b"<!doctype html>") and GENERATOR.encode() in head
    if output in _HEADS:
        return head.startswith(_HEADS[output])
    end = b"\0" if output == "print0" else b"\n"
    *whole, last = head.split(end)
    if len(head) < _HEAD_BYTES and last:
        return False
    return all(os.path.isabs(os.fsdecode(path)) and b"\0" not in path for path in whole)
