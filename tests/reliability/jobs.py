"""What the children of a nursery do. Each job returns what JSON can hold; what it says meanwhile goes to a log.

A line is appended to the log by one write: what was said before a SIGKILL is there after it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from reliability import album
from search import failpoints, generations
from search.catalog import Catalog, engines
from search.catalog.scan import ScannedFile, Verdict
from search.catalog.writer import Record, Writer
from search.decoding.pool import close_warm
from search.errors import LibraryNotFound, OldLibrary
from search.generations import Generations
from search.indexer import IndexOptions
from search.library import Library
from search.library.model import LibraryModel
from search.query import Kind, Query, Term
from search.types import FileStat, PhotoInfo

_model = ""
_encoder: Any = None
_log = -1


def prepare(model: str) -> None:
    """Load what every child needs and use it once; no thread is left, so that children may be forked."""
    global _model, _encoder
    import alembic.command
    import alembic.config  # noqa: F401
    import faiss
    import torch

    from search.encoders import load_encoder

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    _model, _encoder = model, load_encoder(model, offline=True)
    LibraryModel.load = lambda self, name: _encoder  # type: ignore[method-assign]  # what loading it again would give
    _warm_up()


def _warm_up() -> None:
    """Index three pictures and look at them: most of what a child would wait for is compiling statements."""
    with tempfile.TemporaryDirectory() as folder:
        album.make(Path(folder, "photos"), range(3))
        library = str(Path(folder, "library"))
        with Library.open(library, model=_model, offline=True) as opened:
            _index(opened, [str(Path(folder, "photos"))], 2)
            opened.remove([str(Path(folder, "photos", "day0"))])
        look(library)
    close_warm()  # threads that are forked hold what nobody lets go of
    while threading.active_count() > 1:
        time.sleep(0.01)


def work(job: str, log: str, arguments: dict[str, Any]) -> None:
    """Do one job and end the process; 0 when it returned, 1 when it raised."""
    global _log
    code = 1
    try:
        os.setsid()
        _log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        random.seed()
        say(result=JOBS[job](**arguments))
        code = 0
    except BaseException:
        say(failed=traceback.format_exc())
    finally:
        os._exit(code)


def say(**event: Any) -> None:
    os.write(_log, (json.dumps(event) + "\n").encode())


# ---- what may be killed


def change(
    library: str,
    *,
    operation: str,
    sources: list[str],
    batch_size: int = 8,
    die_at: str | None = None,
    hit: int = 1,
    publish_every: int = 0,
) -> dict[str, Any]:
    """Do one operation on a library, saying what it acknowledges.

    die_at: a failpoint that ends the process when it is reached for the `hit`th time.   publish_every: photos after
    which a generation is published in the midst of a run; 0: as many as ever.
    """
    generations.MOST_CHANGES = publish_every or generations.MOST_CHANGES
    _watch_failpoints(die_at, hit)
    _watch_commits()
    with _open(library) as opened:
        return OPERATIONS[operation](opened, sources, batch_size)


def _open(library: str) -> Library:
    opened = Library.open(library, model=_model, offline=True)
    opened.model.loaded = _Counted(_encoder)
    return opened


class _Counted:
    """The encoder, saying how many images it is given before it encodes them."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_images(self, images: Any) -> Any:
        say(encoded=len(images))
        return self._encoder.encode_images(images)


def _watch_failpoints(die_at: str | None, hit: int) -> None:
    left = hit

    def reached(name: str) -> None:
        nonlocal left
        say(reached=name)
        if name == die_at:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    failpoints.arm(reached)


def _watch_commits() -> None:
    """Say which photos a commit holds, once it returned."""
    add = Writer.add

    def added(self: Writer, records: Any, *arguments: Any, **named: Any) -> Any:
        ids = add(self, records, *arguments, **named)
        say(acknowledged=[record.file.stat.path for record in records])
        return ids

    Writer.add = added  # type: ignore[method-assign]


def _index(library: Library, sources: list[str], batch_size: int) -> dict[str, Any]:
    report = library.index(sources, options=IndexOptions(batch_size=batch_size, workers=1))
    return {
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "gone": report.gone,
        "offline": report.offline,
        "encoded": report.encoded,
        "photos": report.photos,
        "skipped": [[skip.path, str(skip.reason), skip.detail] for skip in report.skipped],
    }


def _repair(library: Library, sources: list[str], batch_size: int) -> dict[str, Any]:
    library.check(repair=True)
    return _index(library, sources, batch_size)


def _upgrade(library: Library, *_: Any) -> dict[str, Any]:
    return {"from": library.upgrade()}


def _remove(library: Library, sources: list[str], _: int) -> dict[str, Any]:
    return {"removed": library.remove(sources)}


def _rebuild(library: Library, *_: Any) -> dict[str, Any]:
    return {"recovered": library.rebuild().recovered}


OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "index": _index,
    "remove": _remove,
    "repair": _repair,
    "upgrade": _upgrade,
    "rebuild": _rebuild,
}


# ---- what looks at the outcome


def look(library: str, *, repair: bool = True) -> dict[str, Any]:
    """Check a library in full, repair what is damaged, and let every photo search for itself.

    Returns `problems` as found, `remaining` after a repair, and of every photo present: path, content, whether it has
    a vector, and the content its own vector finds first.
    """
    try:
        with Library.open(library, offline=True) as opened:
            problems = _problems(opened)
            if repair and any(not problem.startswith("vector_missing") for problem in problems):
                opened.check(repair=True)
            remaining = _problems(opened) if problems else []
            opened.status()  # what can't be read answers from its newest generation from here on
            return {"problems": problems, "remaining": remaining, "photos": _photos(opened)}
    except OldLibrary:
        return {"problems": [], "remaining": [], "photos": [], "old": True}


def _problems(library: Library) -> list[str]:
    try:
        report = library.check(full=True)
    except LibraryNotFound:
        return ["catalog_missing"]
    return [f"{problem.kind}: {problem.detail}" for problem in report.problems]


def _photos(library: Library) -> list[list[Any]]:
    row = library.catalog.encoder()
    photos = library.catalog.get(library.catalog.all_ids().tolist())
    embedded = set(library.catalog.embeddings(row, [photo.id for photo in photos])[0].tolist()) if row else set()
    found = []
    for photo in photos:
        asked = Query((Term(Kind.PHOTO, str(photo.id)),))
        hits = library.search(asked, 1, examples=True) if photo.id in embedded else []
        first = hits[0].photo.content_hash if hits and hits[0].score > 0.999 else None
        found.append([photo.path, photo.content_hash, photo.id in embedded, first])
    return found


def structure(library: str) -> str:
    """What SQLite says of a catalog of any schema."""
    with closing(sqlite3.connect(Path(library, "catalog.db"))) as connection:
        [[verdict]] = connection.execute("PRAGMA integrity_check").fetchall()
    return verdict


def command(*, arguments: list[str], output: str) -> int:
    """Run the command line in this process, both of its outputs into a file; return its exit code."""
    from search.cli import main

    _watch_commits()
    LibraryModel.load = lambda self, name: _Counted(_encoder)  # type: ignore[method-assign]
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["search", *arguments]
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def together(commands: list[dict[str, Any]]) -> list[int]:
    """Run several commands at the same time, each in a process of its own; return their exit codes."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in [_fork(one) for one in commands]]


def _fork(one: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = command(**one)
    except BaseException:
        say(failed=traceback.format_exc())
    os._exit(code)


# ---- what is written without pictures, for speed


def stream(library: str, *, careless: str = "", batches: int = 20_000, batch_size: int = 64) -> None:
    """Write photos of random vectors and publish now and then, saying the ids of each batch once it is durable.

    careless: what spoils durability, for the trials that must show damage: a pragma, or "no fsync" by Python.
    """
    if careless == "no fsync":
        os.fsync = lambda fd: None
    elif careless:
        engines._WRITER_PRAGMAS += (f"PRAGMA {careless}",)
    catalog = Catalog(library)
    catalog.create()
    publish = Generations(Path(library)).publish
    rng = np.random.default_rng()
    with catalog.writing() as writer:
        encoder_id = writer.register(_encoder)
        scope = writer.add_source("/photos", is_folder=True)
        for start in range(0, batches * batch_size, batch_size):
            records = [_record(scope.root_id, number) for number in range(start, start + batch_size)]
            vectors = rng.standard_normal((batch_size, _encoder.dim), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            ids = writer.add(records, vectors, encoder_id)
            say(written=ids, at=time.monotonic())
            if start // batch_size % 4 == 3:
                publish(catalog, writer)
                say(published=start)


def _record(root_id: int, number: int) -> Record:
    name = f"{number:07}.jpg"
    file = ScannedFile(root_id, name.encode(), FileStat(f"/photos/{name}", 1, 1), Verdict.NEW, None)
    return Record(file, number.to_bytes(32, "big"), PhotoInfo("JPEG", 1, 1))


def tally(library: str) -> dict[str, Any]:
    """Check a library in full; return its problems and the ids of photos whose vector is there and sound."""
    with Library.open(library, offline=True) as opened:
        row = opened.catalog.encoder()
        ids = opened.catalog.all_ids().tolist()
        found = opened.catalog.embeddings(row, ids)[0].tolist() if row else []
        return {"problems": _problems(opened), "ids": found}


# ---- a folder whose file system comes and goes


def away_and_back(library: str, *, folder: str, rounds: int) -> dict[str, Any]:
    """Hide a folder under an empty file system and show it again, indexing each time, in a namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    call(libc.unshare(_NEW_NAMESPACE))
    call(libc.mount(None, b"/", None, _PRIVATE, None))
    reports = []
    with _open(library) as opened:
        for _ in range(rounds):
            call(libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, None))
            reports.append(_index(opened, [folder], 8))
            call(libc.umount(os.fsencode(folder)))
            reports.append(_index(opened, [folder], 8))
    return {"reports": reports}


_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS
_PRIVATE = 0x4000 | 1 << 18  # MS_REC | MS_PRIVATE


JOBS: dict[str, Callable[..., Any]] = {
    "change": change,
    "look": look,
    "structure": structure,
    "command": command,
    "together": together,
    "stream": stream,
    "tally": tally,
    "away_and_back": away_and_back,
}
