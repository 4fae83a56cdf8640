"""Index generations: every vector and every row of a library in files that never change once they have their name.

A generation is written beside its place, made durable, renamed to `gen/NNNNNN`, and used from the moment the catalog
names it with the SHA-256 of its manifest, which names the SHA-256 of every other file. Readers start from it and
add what was committed since; a generation that is missing or is not what the catalog says costs time, never an
answer. Its rows and vectors are enough to make a lost catalog anew; its codes only save time. In the midst of a run one
is written by a thread of its own (search.generations.beside).

    MANIFEST.json       number, catalog, commit, the encoders, every file's size and SHA-256
    rows.db             every table but the vectors, in the catalog's own schema
    gone.i64            (M,) int64: the photos whose file was not found, ascending
    ids-<encoder>.i64   (N,) int64, ascending
    vectors-<encoder>.f16   (N, D) float16, the catalog's bytes
    codes-<encoder>.pq      of large libraries: which rows are worth scoring (search.vectors.coarse)
    codes-<encoder>.ivf     of very large ones: the same in lists, of which a query reads some (search.vectors.lists)

All numbers are little-endian and there are no headers, so that reading them needs no parser that could be led astray.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from search.errors import StorageError
from search.failpoints import reach
from search.files import atomic_write, fsync_folder
from search.generations.generation import Generation, rename_unheld
from search.generations.manifest import AUTO, MANIFEST, ROWS, WISHES, EncoderFiles, Manifest, Unsound
from search.generations.writing import Draft
from search.plurals import count_of

if TYPE_CHECKING:
    from search.catalog import Catalog, Writer
    from search.types import Publication

__all__ = ["AUTO", "MOST_CHANGES", "WISHES", "Generation", "Generations", "Manifest", "Unsound", "Written"]

MOST_CHANGES = 50_000
"""Changed photos that are read one by one beside a generation before the next one is due."""

_TRIES = 5
_Stamps: TypeAlias = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Written:
    """A generation whose files are whole and durable, and which nobody uses yet."""

    manifest: Manifest
    manifest_hash: str


class Generations:
    """The generations of one library folder."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self._folder = library / "gen"
        self._tmp = library / "tmp"

    # ---- publishing

    def is_due(self, catalog: Catalog, *, also: int = 0) -> bool:
        """Whether enough has changed since the last generation for a new one to be worth its writing.

        also: changes beside those of the photos themselves.
        """
        said, photos = catalog.publication(), catalog.count()
        if said.number is None or not (self._place(said.number) / MANIFEST).is_file():
            return photos > 0
        if said.purge_seq > said.generation_seq:
            return True
        changed = catalog.count_changed(said.generation_seq) + also
        return changed > 0 and changed >= min(MOST_CHANGES, photos / 20)

    def publish(self, catalog: Catalog, writer: Writer, *, wish: str | None = None) -> int:
        """Write what the catalog holds as a new generation and switch to it; return its number.

        wish: the kind of index from now on, one of manifest.WISHES; None: as before.
        Only the commit at the end makes readers use it: ended before, it left nothing but files to sweep.
        Raises StorageError if there is not twice the space it takes, or it can't be written.
        """
        return self.switch(self.write(catalog, wish=wish), catalog, writer)

    def write(
        self, catalog: Catalog, *, wish: str | None = None, abandoned: Callable[[], bool] = lambda: False
    ) -> Written:
        """Write what the catalog holds now under a temporary name, durably; nobody knows of it yet.

        For one thread at a time; others may commit meanwhile.   abandoned: asked now and then whether to stop.
        """
        said = catalog.publication()
        with self._undone_by_errors():
            self._clear()
            self._check_space(catalog)
            number = max([*self._numbers(), said.number or 0]) + 1
            written = self._write(number, catalog, said, wish, abandoned)
            reach("publish.written")
        return written

    def switch(self, written: Written, catalog: Catalog, writer: Writer) -> int:
        """Give what was written its place and let readers use it; return its number."""
        manifest = written.manifest
        with self._undone_by_errors():
            stamps = self._give_name(manifest.number, manifest)
            reach("publish.renamed")
            catalog.switch_generation(
                writer, manifest.number, seq=manifest.seq, manifest_hash=written.manifest_hash
            )
        reach("publish.switched")
        self._note_whole(written.manifest_hash, stamps)
        self.sweep(manifest.previous, keeps=manifest.keeps)
        return manifest.number

    @contextlib.contextmanager
    def _undone_by_errors(self) -> Iterator[None]:
        """Remove the draft where the disk or the catalog fails; tell of the disk as StorageError."""
        try:
            yield
        except OSError as error:
            self.discard()
            raise StorageError(
                f"can't write the index of {self._library}: {error.strerror or error}",
                hint="free some space or check permissions; everything committed before is kept",
            ) from error
        except StorageError:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written and not switched to."""
        shutil.rmtree(self._draft, ignore_errors=True)

    def _check_space(self, catalog: Catalog) -> None:
        """Raise StorageError unless twice what a generation can take is free: it has no more in it than the catalog."""
        needed = 2 * catalog.size_bytes()
        free = shutil.disk_usage(self._library).free
        if free < needed:
            raise StorageError(
                f"writing the index of {self._library} needs {_megabytes(needed)} free, there are {_megabytes(free)}",
                hint="free some space; everything committed before is kept and found",
            )

    @property
    def _draft(self) -> Path:
        return self._tmp / "gen-new"

    def _give_name(self, number: int, manifest: Manifest) -> _Stamps:
        """Put the draft in its place; return by what its files, hashed as they were written, are known there."""
        self._folder.mkdir(exist_ok=True)
        self._draft.rename(self._place(number))
        fsync_folder(self._folder)
        fsync_folder(self._library)
        return _stamps(self._place(number), manifest)

    def _write(
        self,
        number: int,
        catalog: Catalog,
        said: Publication,
        wish: str | None,
        abandoned: Callable[[], bool],
    ) -> Written:
        from search.catalog import snapshot

        named = self._manifest(said)
        wish = wish or (named.wish if named else AUTO)
        draft = Draft(self._draft, wish, lambda: self._reusable(catalog), abandoned)
        draft.folder.mkdir(parents=True)
        with snapshot.take(self._library, draft.folder / ROWS) as view:
            draft.fill(view)
        draft.note(ROWS)
        manifest = Manifest(
            number,
            view.uuid,
            view.seq,
            datetime.now(UTC).isoformat(timespec="seconds"),
            tuple(draft.encoders),
            tuple(draft.files),
            said.number,
            view.lacks,
            self._keeps(said, view.lacks),
            wish=draft.wish,
        )
        return Written(manifest, draft.finish(manifest))

    def _reusable(self, catalog: Catalog) -> Generation | None:
        """The published generation, whose codes need not be made again; None if it is not whole."""
        with contextlib.suppress(OSError, Unsound):
            return self.current(catalog)
        return None

    def manifest(self, catalog: Catalog) -> Manifest | None:
        """What the published generation says of itself; its other files are not looked at."""
        return self._manifest(catalog.publication())

    def _keeps(self, said: Publication, lacks: int) -> tuple[int, ...]:
        """The generations to keep for what the next one lacks, oldest first."""
        if not lacks:
            return ()
        named = self._manifest(said)
        if named is None:  # nobody knows which have it
            return tuple(self._numbers())
        return named.keeps if named.lacks == lacks else (*named.keeps, named.number)

    def _manifest(self, said: Publication) -> Manifest | None:
        """What the generation that the catalog names says of itself, None where that can't be told for certain."""
        with contextlib.suppress(OSError, Unsound, ValueError, TypeError):
            content = (self._place(int(said.number or 0)) / MANIFEST).read_bytes()
            if hashlib.sha256(content).hexdigest() == said.manifest_hash:
                return Manifest.parse(content)
        return None

    # ---- removing

    def sweep(self, before: int | None, *, keeps: Iterable[int] = ()) -> None:
        """Remove the generations that are superseded, once the catalog names a newer one than `before`.

        before: the one it named until then; it stays, and so does everything where it named none: what is there may be
        the only copy of what was lost.   keeps: others that stay.   What a reader holds, or can't be removed now, is
        left for the next.
        """
        self._clear()
        for number in self._numbers():
            if before is not None and number < before and number not in keeps:
                self._remove(number)

    def _clear(self) -> None:
        """Remove left-over files, which nobody can have begun to use."""
        shutil.rmtree(self._draft, ignore_errors=True)
        for place in self._tmp.glob("gen-old-*"):
            shutil.rmtree(place, ignore_errors=True)

    def _remove(self, number: int) -> None:
        place, aside = self._place(number), self._tmp / f"gen-old-{number:06}"
        self._tmp.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            if rename_unheld(place, aside):
                shutil.rmtree(aside, ignore_errors=True)

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:06}"

    def _numbers(self) -> list[int]:
        """The numbers of all generations that are there, ascending."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        return sorted(int(name) for name in names if len(name) >= 6 and name.isascii() and name.isdigit())

    # ---- reading

    def current(self, catalog: Catalog) -> Generation | None:
        """Open the generation that the catalog published, checked; None if it published none.

        Raises Unsound if it can't be used.
        """
        for _ in range(_TRIES):  # it may be replaced and removed just now
            said = catalog.publication()
            if said.number is None:
                return None
            with contextlib.suppress(FileNotFoundError):
                generation = Generation(self._place(said.number))
                try:
                    generation.check_published(said)
                    self._verify(generation)
                except BaseException:
                    generation.close()
                    raise
                return generation
        raise Unsound("is missing")

    def newest_sound(self) -> Generation | None:
        """Open the newest generation whose every byte is what its manifest says, whatever the catalog says."""
        return next(self.sound(), None)

    def sound(self) -> Iterator[Generation]:
        """Open each generation whose every byte is what its manifest says, newest first; the taker closes it."""
        for number in reversed(self._numbers()):
            with contextlib.suppress(OSError, Unsound):
                generation = Generation(self._place(number))
                try:
                    generation.check_content()
                except BaseException:
                    generation.close()
                    raise
                yield generation

    def source(self, said: Publication | None) -> Generation | None:
        """Open the newest sound generation of a catalog's own history, with the older ones beside it.

        said: what the catalog says of itself; None where it can't: then the newest sound one has to do.
        """
        if said is None:
            return self.newest_sound()
        own = []
        named = self._manifest(said)
        for generation in self.sound():
            if _is_own(generation, said, named):
                own.append(generation)
            else:
                generation.close()
        if not own:
            return None
        own[0].others = tuple(own[1:])
        return own[0]

    def _verify(self, generation: Generation) -> None:
        """Raise Unsound unless every file is whole; those found whole once are told by inode, size and time."""
        stamps = _stamps(generation.folder, generation.manifest)
        known = _read_json(self._note)
        if known.get("manifest") != generation.manifest_hash or not isinstance(known.get("files"), dict):
            known = {"files": {}}

        def skip(path: Path) -> bool:
            return path.name in stamps and known["files"].get(path.name) == stamps[path.name]

        generation.check_content(skip=skip)
        generation.check_derived(skip=skip)
        whole = {name: stamp for name, stamp in stamps.items() if name not in generation.useless}
        if known["files"] != whole:
            self._note_whole(generation.manifest_hash, whole)

    @property
    def _note(self) -> Path:
        return self._folder / "verified.json"

    def _note_whole(self, manifest_hash: str, stamps: _Stamps) -> None:
        """Remember files that are whole, so that nobody need read them to know."""
        with contextlib.suppress(OSError):
            atomic_write(self._note, json.dumps({"manifest": manifest_hash, "files": stamps}).encode())

    # ---- checking

    def problems(self, catalog: Catalog, *, full: bool = False) -> list[str]:
        """Return what is wrong with the current generation, in words; quickly, or byte by byte and row by row."""
        said = catalog.publication()
        if said.number is None:
            return []
        try:
            with Generation(self._place(said.number)) as generation:
                generation.check_published(said)
                generation.check_sizes(derived=True)
                if not full:
                    return []
                generation.check_content(derived=True)
                wrong = [
                    text
                    for row in generation.manifest.encoders
                    for text in _compare(generation, row, catalog, said)
                ]
        except FileNotFoundError:
            wrong = ["is missing"]
        except Unsound as error:
            wrong = [str(error)]
        return [f"generation {said.number} {text}" for text in wrong]


def _compare(generation: Generation, row: EncoderFiles, catalog: Catalog, said: Publication) -> Iterator[str]:
    """What differs between a generation's vectors and those of the photos that have not changed since."""
    ids, halves = generation.vectors(row.id)
    if np.any(np.diff(ids) <= 0):
        yield f"has ids of {row.name} that do not ascend"
        return
    stays = said.purge_seq <= generation.manifest.seq
    if stays and len(strange := np.setdiff1d(ids, catalog.known_ids())):
        yield f"has {count_of(len(strange), 'photo')} that the catalog never knew, photo {strange[0]} first"
    from search.catalog.rows import is_unit

    seen: list[int] = []
    missing = different = 0
    with catalog.unchanged_vectors(row.id, generation.manifest.seq) as vectors:
        for id_, blob in vectors:
            place = int(np.searchsorted(ids, id_))
            if place == len(ids) or ids[place] != id_:
                missing += blob is not None and is_unit(blob, row.dim)  # a damaged one is left out by design
            else:
                seen.append(id_)
                different += blob is not None and halves[place].tobytes() != blob
    if missing:
        yield f"lacks {count_of(missing, 'vector')} of {row.name}"
    if different:
        yield f"has {count_of(different, 'vector')} of {row.name} other than the catalog's"


def _is_own(generation: Generation, said: Publication, named: Manifest | None) -> bool:
    """Whether a catalog published a generation: after an older catalog was put back, newer ones are another's."""
    if generation.manifest_hash == said.manifest_hash:
        return True
    if generation.manifest.catalog != said.uuid:
        return False
    if named is not None:
        return generation.number in (named.previous, *named.keeps)
    if type(said.number) is not int or type(said.generation_seq) is not int:
        return False
    return generation.number <= said.number and generation.manifest.seq <= said.generation_seq


# ---- files


def _stamps(folder: Path, manifest: Manifest) -> _Stamps:
    """By what files are known again: inode, size and time. One that is not there has none."""
    stamps: _Stamps = {}
    for file in manifest.files:
        with contextlib.suppress(FileNotFoundError):
            found = (folder / file.name).stat()
            stamps[file.name] = [found.st_ino, found.st_size, found.st_mtime_ns]
    return stamps


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"
