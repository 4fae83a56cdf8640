"""Index generations: every vector and every row of a library in files that never change once they have their name.

A generation is written beside its place, made durable, renamed to `gen/NNNNNN`, and used from the moment the catalog
names it with the SHA-256 of its manifest, which names the SHA-256 of every other file. Readers start from it and
add what was committed since; a generation that is missing or is not what the catalog says costs time, never an
answer. Its rows and vectors are enough to make a lost catalog anew.

    MANIFEST.json       number, catalog, commit, the encoders, every file's size and SHA-256
    rows.db             every table but the vectors, in the catalog's own schema
    gone.i64            (M,) int64: the photos whose file was not found, ascending
    ids-<encoder>.i64   (N,) int64, ascending
    vectors-<encoder>.f16   (N, D) float16, the catalog's bytes

All numbers are little-endian and there are no headers, so that reading them needs no parser that could be led astray.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from search.catalog.rows import EncoderRow, is_unit
from search.errors import StorageError
from search.failpoints import reach
from search.files import atomic_write, fsync_file, fsync_folder, sha256

if TYPE_CHECKING:
    from search.catalog import Catalog, Changes, Writer
    from search.types import Halves, Ids, Publication, Vectors

FORMAT = 1
MANIFEST, ROWS, GONE = "MANIFEST.json", "rows.db", "gone.i64"
MOST_CHANGES = 50_000
"""Changed photos that are read one by one beside a generation before the next one is due."""

_HALF, _ID = np.dtype("<f2"), np.dtype("<i8")
_MAX_MANIFEST_BYTES = 1 << 20
_CHUNK = 16384  # rows that are turned into float32 at a time
_BLOCK = 1 << 20  # bytes hashed at a time
_TRIES = 5


class Unsound(Exception):
    """A generation is not what it should be; the text says in what."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as the manifest has it."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """An encoder that has vectors in a generation, and how many."""

    id: int
    name: str
    fingerprint: str
    dim: int
    count: int

    @property
    def ids(self) -> str:
        return f"ids-{self.id}.i64"

    @property
    def vectors(self) -> str:
        return f"vectors-{self.id}.f16"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation says of itself.

    seq: the commit it reflects.   previous: the generation that the catalog named before, None if none.
    lacks: tells which rows and vectors of the catalog were damaged, 0 for none.   keeps: the generations that stay
    because they have them.
    """

    number: int
    catalog: str
    seq: int
    created_at: str
    encoders: tuple[EncoderFiles, ...]
    files: tuple[File, ...]
    previous: int | None = None
    lacks: int = 0
    keeps: tuple[int, ...] = ()
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """Return the content of its file; `check` is the SHA-256 of the rest, for when no catalog vouches for it."""
        fields = asdict(self)
        check = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
        return json.dumps({**fields, "check": check}, indent=1).encode()

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Read a manifest, trusting nothing in it. Raises Unsound."""
        try:
            found = json.loads(content)
            if found["format"] != FORMAT:
                raise Unsound(f"has format {found['format']!r}, this version knows {FORMAT}")
            found["encoders"] = tuple(EncoderFiles(**row) for row in found["encoders"])
            found["files"] = tuple(File(**row) for row in found["files"])
            del found["check"]  # part of what is compared below
            found["keeps"] = tuple(found.get("keeps", ()))
            manifest = cls(**found)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Unsound("has a manifest that can't be understood") from error
        manifest._check()
        if manifest.to_bytes() != content:
            raise Unsound("has a manifest that is not what was written")
        return manifest

    def _check(self) -> None:
        """Raise Unsound unless types, names and sizes are those of a generation."""
        numbers = [self.number, self.seq, self.previous or 0, self.lacks, *self.keeps]
        numbers += [file.size_bytes for file in self.files]
        numbers += [n for row in self.encoders for n in (row.id, row.dim, row.count)]
        texts = [
            self.catalog,
            self.created_at,
            *(text for file in self.files for text in (file.name, file.sha256)),
        ]
        if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or not all(type(t) is str for t in texts):
            raise Unsound("has a manifest that can't be understood")
        sizes = {file.name: file.size_bytes for file in self.files}
        wanted = {row.ids: row.count * _ID.itemsize for row in self.encoders}
        wanted |= {row.vectors: row.count * row.dim * _HALF.itemsize for row in self.encoders}
        fixed = {ROWS: sizes.get(ROWS), GONE: sizes.get(GONE)}
        if None in fixed.values() or sizes != wanted | fixed or sizes[GONE] % _ID.itemsize:
            raise Unsound("has a manifest that does not fit its files")


class Generation:
    """One generation, open: nobody removes it before it is closed."""

    def __init__(self, folder: Path) -> None:
        """Open a generation. Raises FileNotFoundError if it is not there, Unsound if it can't be used."""
        self.folder = folder
        self.others: tuple[Generation, ...] = ()
        self._lock = _share(folder / MANIFEST)
        try:
            content = self._lock.read(_MAX_MANIFEST_BYTES)
            self.manifest_hash = hashlib.sha256(content).hexdigest()
            self.manifest = Manifest.parse(content)
            self.check_sizes()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the generation and those beside it; arrays that were read stay valid."""
        self._lock.close()
        for other in self.others:
            other.close()

    @property
    def number(self) -> int:
        return self.manifest.number

    @property
    def published(self) -> tuple[int, int, str]:
        """Its number, its commit, and the SHA-256 of its manifest."""
        return self.number, self.manifest.seq, self.manifest_hash

    @property
    def created_at(self) -> datetime:
        """When it was published, UTC."""
        try:
            return datetime.fromisoformat(self.manifest.created_at)
        except ValueError:
            return datetime.fromtimestamp((self.folder / MANIFEST).stat().st_mtime, UTC)

    @property
    def rows_path(self) -> Path:
        """The SQLite file with every row but the vectors."""
        return self.folder / ROWS

    @property
    def gone(self) -> Ids:
        """Ids of the photos whose file was not found, ascending."""
        return self._read_ids(GONE)

    def encoder(self, fingerprint: str) -> EncoderFiles | None:
        """Return what it holds by a model, None if nothing."""
        return next((row for row in self.manifest.encoders if row.fingerprint == fingerprint), None)

    def vectors(self, encoder_id: int) -> tuple[Ids, Halves]:
        """Return ids (N,), ascending, and their float16 rows (N, D), which stay on the disk until they are used."""
        row = next((row for row in self.manifest.encoders if row.id == encoder_id), None)
        if row is None or not row.count:
            return np.empty(0, np.int64), np.empty((0, row.dim if row else 0), np.float16)
        path = self.folder / row.vectors
        halves: Halves = np.memmap(path, _HALF, mode="r", shape=(row.count, row.dim))
        return self._read_ids(row.ids), halves

    def _read_ids(self, name: str) -> Ids:
        ids: Ids = np.fromfile(self.folder / name, _ID)
        return ids

    def restore_catalog(self) -> str | None:
        """Make the library's catalog anew from this; return where the damaged one is now, if there was one.

        Raises LibraryBusy, StorageError.
        """
        from search.catalog import snapshot  # what only writing needs

        return snapshot.restore(
            self.folder.parent.parent,
            self.rows_path,
            ((row.id, *self.vectors(row.id)) for row in self.manifest.encoders),
            number=self.number,
            seq=self.manifest.seq,
            manifest_hash=self.manifest_hash,
        )

    def check_sizes(self) -> None:
        """Raise Unsound unless every file is there and as long as it should be."""
        for file in self.manifest.files:
            try:
                found = (self.folder / file.name).stat().st_size
            except FileNotFoundError:
                raise Unsound(f"lacks {file.name}") from None
            if found != file.size_bytes:
                raise Unsound(f"is damaged: {file.name} has {found} bytes, not {file.size_bytes}")

    def check_content(self, *, skip: Callable[[Path], bool] = lambda _: False) -> None:
        """Raise Unsound unless every file's SHA-256 holds.   skip: files known to be whole."""
        for file in self.manifest.files:
            path = self.folder / file.name
            if not skip(path) and sha256(path) != file.sha256:
                raise Unsound(f"is damaged: {file.name} is not what was written")

    def check_published(self, said: Publication) -> None:
        """Raise Unsound unless this is the generation that a catalog published."""
        if self.manifest.catalog != said.uuid:
            raise Unsound("belongs to another library")
        if self.manifest.seq > said.seq:
            raise Unsound("is newer than the catalog")
        if (self.manifest_hash, self.manifest.seq) != (said.manifest_hash, said.generation_seq):
            raise Unsound("is not the one that the catalog published")


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

    def publish(self, catalog: Catalog, writer: Writer) -> int:
        """Write what the catalog holds as a new generation and switch to it; return its number.

        Only the commit at the end makes readers use it: ended before, it left nothing but files to sweep.
        Raises StorageError if there is not twice the space it takes, or it can't be written.
        """
        said = catalog.publication()
        self._clear()
        try:
            self._check_space(catalog)
            number = max([*self._numbers(), said.number or 0]) + 1
            manifest, manifest_hash = self._write(number, said)
            reach("publish.written")
            self._give_name(number)
            reach("publish.renamed")
            catalog.switch_generation(writer, number, seq=manifest.seq, manifest_hash=manifest_hash)
        except OSError as error:
            shutil.rmtree(self._draft, ignore_errors=True)
            raise StorageError(
                f"can't write the index of {self._library}: {error.strerror or error}",
                hint="free some space or check permissions; everything committed before is kept",
            ) from error
        except StorageError:
            shutil.rmtree(self._draft, ignore_errors=True)
            raise
        reach("publish.switched")
        self.sweep(said.number, keeps=manifest.keeps)
        return number

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

    def _give_name(self, number: int) -> None:
        self._folder.mkdir(exist_ok=True)
        self._draft.rename(self._place(number))
        fsync_folder(self._folder)
        fsync_folder(self._library)

    def _write(self, number: int, said: Publication) -> tuple[Manifest, str]:
        """Write a generation under its temporary name, durably."""
        from search.catalog import snapshot

        self._draft.mkdir(parents=True)
        files = []
        rows = []
        with snapshot.take(self._library, self._draft / ROWS) as view:
            files.append(self._write_file(GONE, [view.gone.astype(_ID).tobytes()]))
            for encoder in view.encoders:
                rows.append(self._write_vectors(encoder, view.vectors(encoder), files))
        files.append(self._note(ROWS))
        created = datetime.now(UTC).isoformat(timespec="seconds")
        lacks, keeps = view.lacks, self._keeps(said, view.lacks)
        manifest = Manifest(
            number, view.uuid, view.seq, created, tuple(rows), tuple(files), said.number, lacks, keeps
        )
        content = manifest.to_bytes()
        self._write_file(MANIFEST, [content])
        fsync_folder(self._draft)
        return manifest, hashlib.sha256(content).hexdigest()

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

    def _write_vectors(
        self, encoder: EncoderRow, parts: Iterable[tuple[Ids, bytes]], files: list[File]
    ) -> EncoderFiles:
        ids: list[Ids] = []

        def blobs() -> Iterator[bytes]:
            for part, blob in parts:
                ids.append(part)
                yield blob

        row = EncoderFiles(encoder.id, encoder.name, encoder.fingerprint, encoder.dim, 0)
        files.append(self._write_file(row.vectors, blobs()))
        together = np.concatenate(ids) if ids else np.empty(0, np.int64)
        files.append(self._write_file(row.ids, [together.astype(_ID).tobytes()]))
        return EncoderFiles(encoder.id, encoder.name, encoder.fingerprint, encoder.dim, len(together))

    def _write_file(self, name: str, parts: Iterable[bytes]) -> File:
        digest = hashlib.sha256()
        size = 0
        with (self._draft / name).open("xb") as file:
            for part in parts:
                file.write(part)
                digest.update(part)
                size += len(part)
            file.flush()
            os.fsync(file.fileno())
        return File(name, size, digest.hexdigest())

    def _note(self, name: str) -> File:
        """Make a file durable that something else wrote, and describe it."""
        path = self._draft / name
        fsync_file(path)
        return File(name, path.stat().st_size, sha256(path))

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
            if _rename_unheld(place, aside):
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
        note = self._folder / "verified.json"
        stamps = {file.name: _stamp(generation.folder / file.name) for file in generation.manifest.files}
        known = _read_json(note)
        if known.get("manifest") != generation.manifest_hash or not isinstance(known.get("files"), dict):
            known = {"files": {}}
        generation.check_content(skip=lambda path: known["files"].get(path.name) == stamps[path.name])
        if known["files"] != stamps:
            with contextlib.suppress(OSError):
                content = {"manifest": generation.manifest_hash, "files": stamps}
                atomic_write(note, json.dumps(content).encode())

    # ---- checking

    def problems(self, catalog: Catalog, *, full: bool = False) -> list[str]:
        """Return what is wrong with the current generation, in words; quickly, or byte by byte and row by row."""
        said = catalog.publication()
        if said.number is None:
            return []
        try:
            with Generation(self._place(said.number)) as generation:
                generation.check_published(said)
                if not full:
                    return []
                generation.check_content()
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
        yield f"has {len(strange)} photos that the catalog never knew, photo {strange[0]} first"
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
        yield f"lacks {missing} vectors of {row.name}"
    if different:
        yield f"has {different} vectors of {row.name} that are not the catalog's"


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


# ---- what a reader starts from


def merged(generation: Generation, encoder_id: int, changes: Changes) -> Iterator[tuple[Ids, Vectors]]:
    """Yield a generation's vectors brought up to date, in chunks: (ids, vectors), ids ascending throughout.

    changes: what was committed after the generation.   The vectors are those the catalog would give, bit for bit.
    """
    ids, halves = generation.vectors(encoder_id)
    new_ids, new = _together(changes.added, halves.shape[1])
    keep = ~np.isin(ids, np.concatenate([generation.gone, changes.gone, new_ids]))
    done = 0
    for start in range(0, len(ids), _CHUNK):
        part = slice(start, start + _CHUNK)
        upto = int(np.searchsorted(new_ids, ids[part][-1], "right"))
        old = np.asarray(halves[part][keep[part]], np.float32)
        yield _sorted(ids[part][keep[part]], old, new_ids[done:upto], new[done:upto])
        done = upto
    yield new_ids[done:], new[done:]


def _together(parts: Iterable[tuple[Ids, Vectors]], dim: int) -> tuple[Ids, Vectors]:
    columns = [(np.empty(0, np.int64), np.empty((0, dim), np.float32)), *parts]
    ids, vectors = zip(*columns, strict=True)
    return np.concatenate(ids), np.concatenate(vectors)


def _sorted(ids: Ids, vectors: Vectors, more: Ids, more_vectors: Vectors) -> tuple[Ids, Vectors]:
    if not len(more):
        return ids, vectors
    all_ids = np.concatenate([ids, more])
    order = np.argsort(all_ids)
    return all_ids[order], np.concatenate([vectors, more_vectors])[order]


# ---- files


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


if sys.platform == "win32":

    def _share(path: Path) -> IO[bytes]:
        """Open a manifest: while it is open, its folder can't be renamed."""
        return path.open("rb")

    def _rename_unheld(place: Path, aside: Path) -> bool:
        place.rename(aside)
        return True

else:
    import fcntl

    def _share(path: Path) -> IO[bytes]:
        """Open a manifest and hold it shared. Raises FileNotFoundError if its generation was just removed."""
        file = path.open("rb")
        try:
            with contextlib.suppress(PermissionError, NotImplementedError):
                _flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                raise FileNotFoundError(path)
        except BaseException:
            file.close()
            raise
        return file

    def _rename_unheld(place: Path, aside: Path) -> bool:
        """Rename a generation unless a reader holds it; tell whether it was done."""
        try:
            file = (place / MANIFEST).open("rb")
        except FileNotFoundError:
            place.rename(aside)  # no reader can hold what has no manifest
            return True
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            place.rename(aside)
        return True

    def _flock(file: IO[bytes], how: int) -> None:
        """Lock, where the file system can; where it can't, what a reader has open outlives its name anyway."""
        with contextlib.suppress(OSError):
            fcntl.flock(file, how)
