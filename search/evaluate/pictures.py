"""Vectors of photos to measure with, kept from one run to the next in a library of their own for each model.

The user's own library is not touched. A second run reads no photo and, where the text half of the model can be opened
alone, loads neither torch nor the image half.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from search.encoders import canonical_name, recipes
from search.errors import DamagedLibrary, EncoderMismatch, LibraryNotFound, NewerLibrary, OldLibrary, StorageError
from search.library import Library
from search.library.model import AUTO
from search.resources import user_cache
from search.types import Skip, SkipReason
from search.vectors import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog import Catalog, EncoderRow
    from search.encoders import Encoder
    from search.encoders.recipes import TextHalf
    from search.labels.sets import Remember
    from search.relevance import Bank
    from search.types import Progress, Vectors

T = TypeVar("T")

_OUTDATED = (
    EncoderMismatch,
    OldLibrary,
    NewerLibrary,
    DamagedLibrary,
    LibraryNotFound,
)  # the last: cut to nothing


@dataclass(frozen=True, slots=True)
class Seen:
    """Photos with their vectors.

    rows: (M,) the places of those that could be read among those asked for, ascending.   vectors: (M, D) float32 unit
    rows.   skipped: the others, each with its reason.
    """

    rows: npt.NDArray[np.int64]
    vectors: Vectors
    skipped: tuple[Skip, ...]


def default_place() -> Path:
    """Return where vectors are kept: the platform's user cache directory, `search/evaluations`."""
    return user_cache("evaluations")


class Pictures:
    """A model and the vectors of photos by it; a context manager.

    model: what `load_encoder` takes, or "auto": the recommended one if it can be had, else the built-in one.
    place: a folder to keep vectors in; None: they are forgotten at the end.   offline, notify: as in Library.open.
    """

    def __init__(
        self,
        model: str = AUTO,
        *,
        place: Path | None = None,
        offline: bool = False,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self._notify = notify or (lambda _: None)
        self._offline = offline
        self._loaded: Encoder | None = None
        self._name = canonical_name(model) if model != AUTO else self._best()
        self._temporary = None if place else tempfile.TemporaryDirectory(prefix="search-")
        self._place = place or Path(self._temporary.name if self._temporary else "")
        self._library = self._open()

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.close()
        if self._temporary:
            self._temporary.cleanup()

    @property
    def model(self) -> str:
        """The model's name."""
        return self._name

    @property
    def folder(self) -> Path:
        """Where all that is kept of this model lies."""
        digest = hashlib.sha256(self._name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return self._place / f"{re.sub('[^A-Za-z0-9]+', '-', self._name).strip('-')[-40:]}-{digest}"

    def image_vectors(
        self, paths: Sequence[str], *, root: str = "", progress: Callable[[Progress], None] | None = None
    ) -> Seen:
        """Return the vectors of photo files, made for those that are new or changed.

        paths: absolute, without links but those below root.   root: a folder that holds them all, if there is one:
        it is walked at once.   Raises ModelError, StorageError.
        """
        return self._current(lambda: self._image_vectors(paths, root, progress))

    def content_hashes(self, paths: Sequence[str]) -> list[str]:
        """Return the SHA-256 of each of these photos' files; all must have a vector."""
        catalog = self._library.catalog
        known = {photo.path: photo.content_hash for photo in catalog.get(catalog.ids_at(paths))}
        return [known[path] for path in paths]

    def text(self) -> TextHalf | Encoder:
        """Return what encodes texts and knows the model's logit scale: the text half alone where that will do."""
        return self._current(self._text)

    def remember(self) -> Remember | None:
        """Return what keeps the class weights of whole label sets, None where the model has no such memory."""
        half = self.text()
        return half.remember if isinstance(half, recipes.TextHalf) else None

    def bank(self) -> Bank:
        """Return what the model makes of unrelated prompts.   Raises LibraryError before there is a vector."""
        return self._current(lambda: self._library.model.bank(self._library.model.answering()))

    def encoder(self) -> Encoder:
        """Return the whole model."""

        def sure() -> Encoder:
            row = self._library.model.named() if self._library.catalog.exists() else None
            model = self._library.model
            return model.made_sure(row.fingerprint) if row else model.encoder

        return self._current(sure)

    # ----

    def _best(self) -> str:
        """The name of the model that "auto" stands for; none is loaded where it is plain which."""
        from search.encoders import INSTEAD, RECOMMENDED, resolve_auto
        from search.encoders.hub import known_models

        if any(known.cached for known in known_models() if known.name == RECOMMENDED):
            return RECOMMENDED
        if self._offline:
            self._notify(INSTEAD)
            return "builtin"
        self._loaded, warning = resolve_auto()
        if warning:
            self._notify(warning)
        return self._loaded.name

    def _open(self) -> Library:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"can't keep vectors in {self.folder.parent}: {error.strerror}", hint="give another place, or none"
            ) from error
        library = Library.open(self.folder, model=self._name, offline=self._offline, notify=self._notify)
        library.model.loaded = self._loaded
        return library

    def _current(self, action: Callable[[], T]) -> T:
        """Do it; where what is kept is of other weights or another version, or damaged, begin that anew first."""
        try:
            return action()
        except _OUTDATED:
            self._begin_anew()
            return action()

    def _begin_anew(self) -> None:
        self._loaded = self._library.model.loaded
        self._library.close()
        aside = self.folder.with_name(f"{self.folder.name}.{os.getpid()}.old")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self.folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        self._library = self._open()

    def _text(self) -> TextHalf | Encoder:
        model = self._library.model
        row = model.named() if self._library.catalog.exists() else None
        if row is None:
            return model.encoder
        return model.half(row) or model.made_sure(row.fingerprint)

    def _image_vectors(self, paths: Sequence[str], root: str, progress: Callable[[Progress], None] | None) -> Seen:
        self._text()  # raises where the weights are others than those the vectors are of
        known = self._known(paths)
        missing = [path for path in paths if path not in known]
        skipped: dict[str, Skip] = {}
        if missing:
            skipped = self._index(missing, root, progress)
            known = self._known(paths)
        lost = dict.fromkeys(path for path in paths if path not in known)
        rows = [row for row, path in enumerate(paths) if path in known]
        vectors = [known[paths[row]] for row in rows]
        return Seen(
            np.array(rows, np.int64),
            normalize(np.stack(vectors)) if vectors else np.empty((0, self._text_dim()), np.float32),
            tuple(skipped.get(path) or _lost(path) for path in lost),
        )

    def _text_dim(self) -> int:
        return self._library.model.encoder.dim

    def _known(self, paths: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of the photos that are as they were when they were encoded."""
        catalog = self._library.catalog
        row = self._library.model.named() if catalog.exists() else None
        return {path: vector for path, (vector, _) in known(catalog, row, paths).items()} if row else {}

    def _index(
        self, paths: Sequence[str], root: str, progress: Callable[[Progress], None] | None
    ) -> dict[str, Skip]:
        from search.evaluate.datasets import WALK
        from search.indexer import IndexOptions

        sources = [root] if root else [path for path in dict.fromkeys(paths) if os.path.isfile(path)]
        if not sources:
            return {}
        report = self._library.index(sources, options=IndexOptions(scan=WALK), progress=progress, wait=True)
        return {skip.path: skip for skip in report.skipped}


def known(catalog: Catalog, row: EncoderRow, paths: Sequence[str]) -> dict[str, tuple[Vectors, str]]:
    """Return the vector (D,) and the SHA-256 of the photos at these paths that are as they were when encoded."""
    ids, vectors = catalog.embeddings(row, catalog.ids_at(paths))
    return {
        photo.path: (vector, photo.content_hash)
        for photo, vector in zip(catalog.get(ids.tolist()), vectors, strict=True)
        if _state(photo.path) == (photo.size_bytes, photo.mtime_ns)
    }


def _state(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _lost(path: str) -> Skip:
    if not os.path.lexists(path):
        return Skip(path, SkipReason.UNREADABLE, "there is no such file")
    return Skip(path, SkipReason.UNREADABLE, "it can't be read, or changed meanwhile")
