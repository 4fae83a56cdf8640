"""The library: where encoder, index and catalog meet."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import numpy as np

from search import generations
from search import query as queries
from search.catalog import Catalog
from search.catalog.copies import CatalogCopy
from search.encoders import canonical_name, recipes
from search.errors import (
    DamagedLibrary,
    EncoderMismatch,
    LibraryBusy,
    LibraryError,
    LibraryNotFound,
    PhotoError,
    StorageError,
    UsageError,
)
from search.generations import Generations
from search.live import LiveIndex
from search.query import Kind, Query, Term
from search.relevance import relevance
from search.types import (
    Answer,
    CheckReport,
    Filter,
    Hit,
    LabelledPhoto,
    Labelling,
    LibraryStatus,
    Problem,
    RebuildReport,
    Skip,
    SkipReason,
)
from search.vectors import EXACT, cosines, normalize

if TYPE_CHECKING:
    from search.catalog import EncoderRow, Scope, Turn, Writer
    from search.encoders import Encoder, TextTower
    from search.encoders.preprocessing import Preprocessing
    from search.encoders.quantising import Outcome
    from search.encoders.recipes import TextHalf
    from search.generations.beside import Publisher
    from search.indexer import IndexOptions, Model
    from search.labels import Classifier, Label, LabelOptions, LabelSet
    from search.types import FileStat, Ids, IndexReport, Photo, Pixels, Progress, Vectors
    from search.vectors import VectorIndex

P = ParamSpec("P")
T = TypeVar("T")

AUTO = "auto"
_POLL_S = 0.2  # between two tries to get a library that is being written to
_MOVED_SAMPLE = 20  # photos looked at before an indexed folder is taken to be somewhere else
_LABEL_BATCH = 4096  # photos whose scores with every label are in memory at a time


def default_location() -> str:
    """Return the platform's user data directory, `search/library`."""
    from platformdirs import user_data_path

    return str(user_data_path("search", appauthor=False) / "library")


def _surviving(
    method: Callable[Concatenate[Library, P], T],
) -> Callable[Concatenate[Library, P], T]:
    """Let a method that only reads answer from the newest generation where the catalog can't be read."""

    @functools.wraps(method)
    def run(self: Library, /, *args: P.args, **kwargs: P.kwargs) -> T:
        catalog = self.catalog
        try:
            return method(self, *args, **kwargs)
        except (DamagedLibrary, LibraryNotFound) as error:
            if not self._fall_back(catalog, error):
                raise
        return method(self, *args, **kwargs)

    return run


class Library:
    """Owns one collection of photos: opens its encoder, index and catalog and keeps them consistent.

    Nothing is opened before it is needed: `status` loads no model, an index run with nothing new neither.
    """

    def __init__(
        self,
        location: str,
        *,
        model: str = AUTO,
        offline: bool = False,
        notify: Callable[[str], None] | None = None,
        trust_checkpoint: str | None = None,
    ) -> None:
        self.catalog = Catalog(location, notify=notify)
        self._generations = Generations(self.catalog.folder) if self.catalog.folder else None
        self._holding = ExitStack()  # the generation that answers in the catalog's place
        self._told: set[str] = set()
        self._model = model if model == AUTO else canonical_name(model)
        self._offline = offline
        self._notify = notify or (lambda _: None)
        self._pin = trust_checkpoint
        self._encoder: Encoder | None = None
        self._live = LiveIndex(self.catalog, self._generations, self._tell_once)
        self._halves: dict[str, TextHalf | None] = {}  # by fingerprint
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        model: str = AUTO,
        offline: bool = False,
        notify: Callable[[str], None] | None = None,
        trust_checkpoint: str | None = None,
    ) -> Library:
        """Open a library; the first `index` makes one that does not exist.

        path: a folder, a SQLAlchemy URL, or None for the user's own.   model: what `load_encoder` takes, or
        "auto": the library's own model, for a new library the recommended one if it can be had.
        offline: never open a network connection.   notify: told, in a sentence, what the user should know.
        trust_checkpoint: the SHA-256 that the model's weights file must have whenever they are loaded.
        """
        location = os.path.expanduser(os.fspath(path or default_location()))
        return cls(location, model=model, offline=offline, notify=notify, trust_checkpoint=trust_checkpoint)

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the catalog and forget model and index."""
        self._reopen(Catalog(self.catalog.location, notify=self._notify))
        self._encoder = None
        self._halves.clear()

    def _reopen(self, catalog: Catalog) -> None:
        """Go on with this catalog; what was read from the one before is forgotten."""
        self.catalog.close()
        self._holding.close()
        self.catalog = catalog
        self._live = LiveIndex(catalog, self._generations, self._tell_once)

    def _tell_once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._notify(message)

    # ---- the model

    @property
    def encoder(self) -> Encoder:
        """The model, loaded on first use: the one asked for, else the library's own, else the recommended."""
        if self._encoder is None:
            current = self.catalog.encoder() if self._model == AUTO and self.catalog.exists() else None
            self._encoder = self._load(current.name if current else self._model)
        return self._encoder

    def _load(self, name: str, *, photos: int = 0) -> Encoder:
        from search.encoders import load_encoder, resolve_auto

        if name != AUTO:
            return load_encoder(
                name,
                offline=self._offline,
                on_download=self._downloading,
                trust_checkpoint=self._pin,
                photos=photos,
                on_export=self._exporting,
            )
        encoder, warning = resolve_auto(
            offline=self._offline, on_download=self._downloading, trust_checkpoint=self._pin
        )
        if warning:
            self._notify(warning)
        return encoder

    def _downloading(self, name: str) -> None:
        self._notify(f"downloading {name}; this happens once")

    def _exporting(self, name: str) -> None:
        self._notify(f"exporting {name} to a faster runtime; this happens once")

    def _row(self) -> EncoderRow | None:
        """What the catalog knows of the model that answers here; None while the library has no vectors at all.

        Raises EncoderMismatch if the model asked for has none but others have.
        """
        current = self.catalog.encoder()
        if self._model == AUTO or current is None:
            return current
        row = self.catalog.encoder(name=self._model)
        if row is None:
            raise EncoderMismatch(
                f"{self.catalog.location} was indexed with {current.name}",
                hint=f"run 'search index --reencode --model {self._model}' to use {self._model}",
            )
        return row

    def _answering(self) -> EncoderRow:
        row = self._row()
        if row is None:
            raise LibraryError(f"{self.catalog.location} holds no photos yet", hint="run 'search index DIR'")
        return row

    def _encoder_of(self, row: EncoderRow) -> Encoder:
        """Return the loaded model, made sure to be the one that made the library's vectors."""
        return self._encoder_made_sure(row.fingerprint)

    def _encoder_made_sure(self, fingerprint: str, photos: int = 0) -> Encoder:
        """Return the loaded model by the runtime that is worth preparing for so many photos.

        Raises EncoderMismatch if its fingerprint is another.
        """
        from search.encoders.runtimes import is_worth_exporting

        name = self.encoder.name
        if is_worth_exporting(name, photos):
            self._encoder = None  # two in memory are one too many
            self._encoder = self._load(name, photos=photos)
        if self.encoder.fingerprint != fingerprint:
            raise EncoderMismatch(
                f"the weights behind {name} are not those {self.catalog.location} was indexed with",
                hint="run 'search index --reencode' to use them",
            )
        return self.encoder

    def _text_tower(self, row: EncoderRow) -> TextTower:
        """The text half of the library's model: by its recipe without torch where that can be, else the whole model."""
        if half := self._half(row):
            return half
        encoder = self._encoder_of(row)
        self._save_recipe()
        self._halves.clear()
        return encoder

    def _half(self, row: EncoderRow) -> TextHalf | None:
        """The text half by its recipe; None where there is none, or the weights file must be looked into first."""
        if self._pin or self._recipes is None:
            return None
        if row.fingerprint not in self._halves:
            half = recipes.open_half(self._recipes, row.fingerprint, lambda: self._encoder_of(row))
            self._halves[row.fingerprint] = half
        return self._halves[row.fingerprint]

    @property
    def _recipes(self) -> Path | None:
        """The folder of recipes beside the catalog; a database server has none."""
        return self.catalog.folder / "encoders" if self.catalog.folder else None

    def _save_recipe(self) -> None:
        if self._encoder is not None and self._recipes and not self.catalog.is_newer:
            recipes.save(self._encoder, self._recipes, on_export=self._exporting)

    # ---- indexing

    def index(
        self,
        sources: Sequence[str | os.PathLike[str]],
        *,
        options: IndexOptions | None = None,
        reencode: bool = False,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        wait: bool = False,
    ) -> IndexReport:
        """Bring folders and files into the library; only what is new or changed costs anything.

        reencode: give every photo of the sources a vector by the model asked for, beside those it has; that model
        answers once all photos have one.   stop: set it to end the run after its current batch, or the waiting.
        wait: until no other process writes, instead of raising LibraryBusy.
        A run whose photos are committed does not fail because the index generation could not be written for lack of
        space: the report says so in `not_published`, and the photos are found all the same.
        Raises UsageError, EncoderMismatch, ModelError, LibraryBusy, StorageError; DamagedLibrary where the catalog
        is damaged, or is missing but can be made anew.
        """
        from search.indexer import IndexOptions, Run

        paths = [_real(source) for source in sources]
        if not self.catalog.exists() and (missing := [path for path in paths if not os.path.lexists(path)]):
            raise UsageError(f"there is no file or folder {missing[0]}")
        with self._turn(stop, wait=wait) as turn:
            model = self._target(turn, reencode)
            with self._publishing(turn) as beside:
                committed = beside.committed if beside else None
                run = Run(
                    turn, model, options or IndexOptions(), progress=progress, stop=stop, committed=committed
                )
                report = run(paths)
                if beside:
                    beside.finish()
            self._save_recipe()
            if reencode and not report.interrupted:
                report = replace(report, not_encoded=turn.writer.switch_when_complete(model.id))
            if turn.is_writing or self._is_due():
                report = replace(report, not_published=self._publish(turn.writer))
        return replace(report, photos=self.catalog.count())

    @contextmanager
    def _turn(self, stop: threading.Event | None, *, wait: bool) -> Iterator[Turn]:
        """Hold a library for writing that is made if need be, as soon as it is free if one may wait."""
        told = False
        with ExitStack() as stack:
            while True:
                try:
                    self._create()
                    turn = stack.enter_context(self.catalog.turn())
                    break
                except LibraryBusy as busy:
                    if not wait or (stop and stop.is_set()):
                        raise
                    if not told:
                        self._notify(f"{busy.message}; waiting for it")
                        told = True
                (stop or threading.Event()).wait(_POLL_S)
            yield turn

    def _create(self) -> None:
        """Make the catalog if there was none ever; one that was lost must not be begun anew beside its generations."""
        if self._generations and not self.catalog.is_begun() and (kept := self._generations.newest_sound()):
            kept.close()
            raise DamagedLibrary(
                f"the catalog of {self.catalog.location} is missing, but a copy of it is there",
                hint="run 'search rebuild'",
            )
        self.catalog.create()

    def _target(self, turn: Turn, reencode: bool) -> Model:
        """The model to index with; not loaded before a photo needs it, if the library knows it."""
        from search.indexer import Model

        row = None if reencode else self._row()
        if row is None:
            encoder = self.encoder
            load = functools.partial(self._encoder_made_sure, encoder.fingerprint)
            return Model(turn.writer.register(encoder), encoder.name, load)
        return Model(row.id, row.name, functools.partial(self._encoder_made_sure, row.fingerprint))

    def quantise(self, name: str, *, force: bool = False) -> Outcome:
        """Export a model in int8, calibrated on photos of this library and held against what it is made of on others.

        It is kept, as `name` with +int8 behind it, if nine of the ten nearest photos stay the same, or by force.
        Raises ModelError, UsageError for too few photos, StorageError; LibraryNotFound.
        """
        from search.encoders import quantising
        from search.encoders.hub import Fetcher
        from search.labels import load_labels

        def read(preprocessing: Preprocessing) -> Pixels:
            ids = self.catalog.all_ids()
            count = min(len(ids), quantising.CALIBRATED + quantising.COMPARED)
            chosen = np.random.default_rng(0).choice(ids, count, replace=False)
            return _pixels([photo.path for photo in self.catalog.get(chosen.tolist())], preprocessing)

        texts = [f"a photo of {label.name}" for label in load_labels("everyday")]
        fetcher = Fetcher(name, offline=self._offline, on_download=self._downloading, trust_checkpoint=self._pin)
        return quantising.export(name, read, texts, fetcher=fetcher, force=force)

    def remove(self, paths: Iterable[str | os.PathLike[str]]) -> int:
        """Forget photos and folders, with vectors and labels; return how many.

        The files stay: indexing their folder again brings them back as new.
        Raises UsageError for a path that is in no indexed folder.
        """
        with self.catalog.writing() as writer:
            scopes = []
            for path in paths:
                found = [scope for spelling in _spellings(path) if (scope := writer.source(spelling))]
                if not found:
                    raise UsageError(f"{os.fspath(path)} is in no indexed folder")
                scopes += found
            removed = sum(writer.remove(scope) for scope in scopes)
            self._tell_unpublished(self._publish(writer))
        return removed

    # ---- generations of the index

    def _publish(self, writer: Writer, *, always: bool = False, also: int = 0) -> str:
        """Write a generation if one is due; return why it could not be written, "" if all is well.

        also: changes that are not the photos' own, such as labels.
        """
        if self._generations is None:
            return ""
        try:
            if always or self._generations.is_due(self.catalog, also=also):
                self._generations.publish(self.catalog, writer)
        except StorageError as error:
            return str(error)
        return ""

    def _is_due(self) -> bool:
        return self._generations is not None and self._generations.is_due(self.catalog)

    def _publishing(self, turn: Turn) -> AbstractContextManager[Publisher | None]:
        """What publishes in the midst of a long run."""
        if self._generations is None:
            return nullcontext()
        from search.generations.beside import Publisher

        return Publisher(self._generations, self.catalog, turn)

    def _tell_unpublished(self, why: str) -> None:
        if why:
            self._notify(f"warning: {why}")

    def rebuild(self, *, index: str | None = None) -> RebuildReport:
        """Write the index anew and compact the catalog; make a catalog that is damaged or missing anew from the
        newest sound generation.

        index: its kind from now on: "exact" scores every vector, "pq" has codes tell which to score, "auto" takes
        codes for more than 50,000 vectors. None: as before.

        Nothing is encoded. The damaged catalog stays beside the new one; what was committed after the generation
        is only in there, and the next `index` brings those photos in again.
        Raises LibraryError where there is nothing to rebuild from, LibraryBusy, StorageError.
        """
        from search.inspection import rebuild

        started = perf_counter()
        if self._generations is None:
            raise LibraryError(
                f"{self.catalog.location} is kept by a database server, which mends it by its own means"
            )
        self.close()  # what answers may be a copy, what was read may be damaged
        report = rebuild(self.catalog, self._generations, wish=index)
        return replace(report, seconds=perf_counter() - started)

    def _fall_back(self, failed: Catalog, error: LibraryError) -> bool:
        """Answer from the newest sound generation from now on; False if there is none, or it failed itself."""
        with self._lock:
            if self.catalog is not failed:
                return True  # another thread did
            if self._generations is None or isinstance(failed, CatalogCopy):
                return False
            kept = self._generations.newest_sound()
            if kept is None:
                return False
            self._reopen(CatalogCopy(failed.location, kept.rows_path, kept.vectors))
            self._holding.enter_context(kept)
            state = "missing" if isinstance(error, LibraryNotFound) else "damaged"
            self._tell_once(
                f"the catalog is {state}; answering from generation {kept.number} of {kept.created_at:%Y-%m-%d %H:%M}"
                " UTC; run 'search rebuild'"
            )
            return True

    def move_root(self, old: str | os.PathLike[str], new: str | os.PathLike[str], *, force: bool = False) -> int:
        """Tell the library that an indexed folder is somewhere else now; return how many photos it holds.

        Nothing is read again but a sample, by which the photos are recognised.   force: without looking at it.
        Raises UsageError if `old` is no indexed folder, if `new` is none, overlaps with another indexed one or does
        not hold the photos; then nothing is changed.
        """
        target = _real(new)
        if not os.path.isdir(target):
            raise UsageError(f"there is no folder {target}")
        with self.catalog.writing() as writer:
            scope = _whole_root(writer, old)
            photos = [] if force else self.catalog.sample(scope, _MOVED_SAMPLE)
            strange = [photo for photo in photos if not _is_below(photo, target)]
            if strange:
                raise UsageError(
                    f"{len(strange)} of {len(photos)} photos looked at are not below {target} as they were below "
                    f"{scope.root}, the first is {os.path.relpath(strange[0].path, strange[0].root)}",
                    hint="--force moves it all the same",
                )
            moved = writer.move_root(scope, target)
            if (
                self.catalog.publication().number is not None
            ):  # a catalog made anew from it must know the new place
                self._tell_unpublished(self._publish(writer, always=True))
        return moved

    # ---- answering

    def search(
        self,
        query: str | Query,
        k: int = 10,
        *,
        filter: Filter | None = None,
        min_relevance: float = 0.0,
    ) -> list[Hit]:
        """Return the k photos that fit a query best, best first.

        query: a text, or a Query of weighted texts, images and photos.   filter: conditions a photo must meet.
        """
        return list(self.answer(query, k, filter=filter, min_relevance=min_relevance).hits)

    @_surviving
    def answer(
        self,
        query: str | Query,
        k: int = 10,
        *,
        filter: Filter | None = None,
        min_relevance: float = 0.0,
        without: Sequence[int] = (),
    ) -> Answer:
        """Return what `search` does, with what one must know to trust it.   without: ids never to return."""
        started = perf_counter()
        asked = queries.parse([query]) if isinstance(query, str) else query
        row = self._answering()
        with self._lock:
            self._live.of(row).prepare()
        vector = queries.embed(asked, self._vectors_of(row))
        selection = self.catalog.select(filter or Filter())
        with self._lock:  # one thread brings the index up to date or reads it
            index = self._live.of(row)
            candidates = len(index) if selection is None else len(selection)
            wanted = min(k + len(without), max(candidates, 1))
            best, scores = (found[0] for found in index.search(vector, wanted, within=selection))
            background = cosines(self._live.background(row), vector[0])
        found = (best >= 0) & ~np.isin(best, without)
        ids, scores = best[found][:k], scores[found][:k]
        meanings = relevance(scores, background, len(index))
        photos = {photo.id: photo for photo in self.catalog.get(ids.tolist())}
        hits = tuple(
            Hit(float(score), meaning, photos[id_])
            for id_, score, meaning in zip(ids.tolist(), scores, meanings, strict=True)
            if id_ in photos and meaning >= min_relevance
        )
        return Answer(
            query=str(asked),
            encoder=row.name,
            hits=hits,
            candidates=candidates - self._excluded(without, selection),
            truncated_tokens=self._truncated(row, asked),
            seconds=perf_counter() - started,
        )

    @_surviving
    def similar(self, photo: int | str | os.PathLike[str], k: int = 10, *, filter: Filter | None = None) -> Answer:
        """Return the photos most like one of the library (id or path) or like any image file, itself left out.

        Raises UsageError for an id that is unknown or gone, PhotoError for a file that can't be read.
        """
        known = self.photo(photo) if isinstance(photo, int) else self._known(photo)
        if known is None or known.gone_at:
            if isinstance(photo, int):
                raise UsageError(f"photo {photo} is gone: its file was not found by the last run")
            return self.answer(Query((Term(Kind.IMAGE, _real(photo)),)), k, filter=filter)
        return self.answer(Query((Term(Kind.PHOTO, str(known.id)),)), k, filter=filter, without=[known.id])

    def _vectors_of(self, row: EncoderRow) -> dict[Kind, Callable[[list[str]], Vectors]]:
        return {
            Kind.TEXT: lambda texts: self._text_tower(row).encode_texts(texts),
            Kind.IMAGE: lambda paths: self._image_vectors(row, paths),
            Kind.PHOTO: lambda ids: self._photo_vectors(row, ids),
        }

    def _image_vectors(self, row: EncoderRow, paths: list[str]) -> Vectors:
        from search.photos.decode import load

        encoder = self._encoder_of(row)
        images = []
        for path in paths:
            try:
                images.append(encoder.preprocess(load(path).image))
            except PhotoError as error:
                raise PhotoError(error.reason, f"can't read {path}: {error.message}") from error
        return encoder.encode_images(np.stack(images))

    def _photo_vectors(self, row: EncoderRow, ids: list[str]) -> Vectors:
        wanted = [int(id_) for id_ in ids]
        found, vectors = self.catalog.embeddings(row, wanted)
        row_of = {id_: row for row, id_ in enumerate(found.tolist())}
        if missing := [id_ for id_ in wanted if id_ not in row_of]:
            raise UsageError(f"the library has no vector of photo {missing[0]}")
        return normalize(vectors[[row_of[id_] for id_ in wanted]])

    def _truncated(self, row: EncoderRow, asked: Query) -> int:
        texts = [term.value for term in asked.of(Kind.TEXT)]
        if not texts:
            return 0
        tower = self._text_tower(row)
        return sum(max(0, length - tower.context_length) for length in tower.count_tokens(texts))

    def _excluded(self, without: Sequence[int], selection: Ids | None) -> int:
        """How many of the photos to leave out would else have been searched."""
        among = {photo.id for photo in self.catalog.get(without) if not photo.gone_at} if without else set()
        return len(among) if selection is None else int(np.isin(list(among), selection).sum())

    @_surviving
    def vector_index(self) -> VectorIndex:
        """Return the index that answers, brought up to the last commit. Not for two threads at a time."""
        with self._lock:
            return self._live.of(self._answering())

    @_surviving
    def text_vectors(self, texts: Sequence[str]) -> Vectors:
        """Return texts as the library's model sees them: (N, D) unit rows."""
        row = self._answering()
        if not texts:
            return np.empty((0, row.dim), np.float32)
        return self._text_tower(row).encode_texts(list(texts))

    # ---- labels

    @_surviving
    def label(
        self,
        labels: LabelSet | Iterable[str | Label],
        *,
        paths: Sequence[str | os.PathLike[str]] | None = None,
        options: LabelOptions | None = None,
        apply: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Labelling:
        """Label photos zero-shot: the whole library, or files and folders in or outside it.

        labels: names, or a LabelSet with templates.   apply: write each photo's best label (with `multi` or `k` all
        that are listed) and the model that gave it into the library, for the photos it holds; what an earlier run
        wrote from the same labels is withdrawn.
        Raises UsageError for a path that does not exist, and where `apply` finds no photo of the library.
        """
        from search.labels import Classifier, LabelOptions, LabelSet, label_photos

        label_set = LabelSet.of(labels)
        chosen = options or LabelOptions()
        row, encoder = self._labelling(paths)
        remember = encoder.remember if isinstance(encoder, recipes.TextHalf) else None
        classifier = Classifier.build(label_set, encoder, chosen, remember=remember)
        skipped: list[Skip] = []
        ids, strangers = self._whom_to_label(paths, row, skipped)
        known = self._label_known(ids, row, classifier)
        others: list[LabelledPhoto] = []
        if strangers:
            others, unread = label_photos(strangers, classifier, encoder=self.encoder, progress=progress)
            skipped += unread
        if apply:
            written = [replace(photo, labels=chosen.to_apply(photo.labels)) for photo in known]
            self._apply(written, row, label_set.names)
        return Labelling(
            encoder=row.name if row and self._encoder is None else self.encoder.name,
            labels=classifier.names,
            templates=label_set.templates,
            photos=tuple(sorted([*known, *others], key=lambda photo: photo.path)),
            skipped=tuple(skipped),
            applied=len(known) if apply else 0,
            truncated_tokens=classifier.truncated_tokens,
        )

    def _labelling(
        self, paths: Sequence[str | os.PathLike[str]] | None
    ) -> tuple[EncoderRow | None, TextHalf | Encoder]:
        """What labels: the text half where photos' vectors may be known, else the whole model; and its row, if any."""
        if paths is None:
            row = self._answering()
            return row, self._half(row) or self._encoder_of(row)
        if self._encoder is None and self.catalog.exists():
            known = self.catalog.encoder(name=None if self._model == AUTO else self._model)
            if known and (half := self._half(known)):
                return known, half
        return self._own_row(), self.encoder

    def _own_row(self) -> EncoderRow | None:
        """The loaded model as the catalog knows it; None if there is no library or it has no vectors by it."""
        return self.catalog.encoder(fingerprint=self.encoder.fingerprint) if self.catalog.exists() else None

    def _whom_to_label(
        self, paths: Sequence[str | os.PathLike[str]] | None, row: EncoderRow | None, skipped: list[Skip]
    ) -> tuple[list[int], list[str]]:
        """Tell photos whose vectors the library has from files that must be read; note what can't be looked at."""
        if paths is None:
            return self.catalog.all_ids().tolist(), []
        from search.photos.scan import scan

        def unread(path: str, error: OSError) -> None:
            skipped.append(Skip(path, SkipReason.UNREADABLE, error.strerror or str(error)))

        files: dict[str, FileStat] = {}
        for path in map(_real, paths):
            if not os.path.lexists(path):
                raise UsageError(f"there is no file or folder {path}")
            files |= {file.path: file for file in scan(path, on_error=unread)}
        ids = []
        for photo in self._own_photos(list(files), row):
            file = files[photo.path]
            if (photo.size_bytes, photo.mtime_ns) == (file.size_bytes, file.mtime_ns):
                ids.append(photo.id)
                del files[photo.path]
        return ids, list(files)

    def _own_photos(self, paths: list[str], row: EncoderRow | None) -> list[Photo]:
        """Photos of the library among these paths that have a vector by this model."""
        if row is None:
            return []
        ids, _ = self.catalog.embeddings(row, self.catalog.ids_at(paths))
        return self.catalog.get(ids.tolist())

    def _label_known(self, ids: list[int], row: EncoderRow | None, classifier: Classifier) -> list[LabelledPhoto]:
        labelled: list[LabelledPhoto] = []
        if row is None:
            return labelled
        for start in range(0, len(ids), _LABEL_BATCH):
            found, vectors = self.catalog.embeddings(row, ids[start : start + _LABEL_BATCH])
            photos = self.catalog.get(found.tolist())
            labels = classifier.label(normalize(vectors))
            labelled += [LabelledPhoto(p.path, best, p.id) for p, best in zip(photos, labels, strict=True)]
        return labelled

    def _apply(self, labelled: list[LabelledPhoto], row: EncoderRow | None, among: Sequence[str]) -> None:
        if row is None or not labelled:
            raise UsageError("none of these photos is in the library", hint="index them first")
        with self.catalog.writing() as writer:
            writer.put_labels(labelled, among, source="zero-shot", encoder_id=row.id)
            self._tell_unpublished(self._publish(writer, also=len(labelled)))

    # ---- looking

    @_surviving
    def photo(self, ref: int | str | os.PathLike[str]) -> Photo:
        """Return everything known of one photo, by id or path. Raises UsageError for one that is not here."""
        known = self._known(ref)
        if known is None:
            name = f"photo {ref}" if isinstance(ref, int) else os.fspath(ref)
            raise UsageError(f"{name} is not in the library")
        return known

    def _known(self, ref: int | str | os.PathLike[str]) -> Photo | None:
        if isinstance(ref, int):
            return next(iter(self.catalog.get([ref])), None) if 0 < ref < 2**63 else None
        return next(iter(self.catalog.get(self.catalog.ids_at(_spellings(ref)))), None)

    @_surviving
    def status(self) -> LibraryStatus:
        """Return the library at a glance; loads no model and no index."""
        encoders = self.catalog.encoder_status()
        current = self.catalog.encoder()
        vectors = self.catalog.count_vectors(current) if current else 0
        return LibraryStatus(
            path=self.catalog.location,
            photos=self.catalog.count(),
            roots=tuple(self.catalog.root_status()),
            encoders=tuple(encoders),
            index={"vectors": vectors, **self._index_status(current, vectors), **self._generation_status()},
            skipped=len(self.catalog.skipped()),
            schema=self.catalog.revision(),
            job=self.catalog.last_job(),
        )

    def _index_status(self, row: EncoderRow | None, vectors: int) -> dict[str, int | str]:
        """What kind of index answers, what it takes on the disk, and what kind was asked for."""
        manifest = self._generations.manifest(self.catalog) if self._generations else None
        wanted = manifest.wish if manifest else generations.AUTO
        published = manifest.encoder(row.fingerprint) if manifest and row else None
        if published is not None:
            return {"kind": published.kind, "bytes": published.size_bytes, "wanted": wanted}
        return {"kind": EXACT, "bytes": vectors * (4 * row.dim + 8) if row else 0, "wanted": wanted}

    def _generation_status(self) -> dict[str, int | None]:
        """The published generation, and how many photos were changed since."""
        said = self.catalog.publication()
        return {"generation": said.number, "delta": self.catalog.count_changed(said.generation_seq)}

    @_surviving
    def skipped(self) -> list[Skip]:
        """Return every file that could not be indexed, with its reason."""
        return self.catalog.skipped()

    def check(self, *, full: bool | None = None, repair: bool = False) -> CheckReport:
        """Look whether the library is whole; the photos themselves are not touched.

        full: every row, vector and structure; None: if there are no more than 20,000 photos.   repair: restore or
        drop what is damaged, after a copy of the catalog was made beside it.
        """
        from search import inspection

        def misplaced() -> list[Problem]:
            row = self.catalog.encoder()
            with self._lock:
                return self._live.misplaced(row) if row else []

        publish = self._publish_anew if self._generations else None
        repaired, backup = inspection.repair(self.catalog, self._generations, publish) if repair else (0, None)
        report = inspection.inspect(self.catalog, self._generations, full=full or repair or None, more=misplaced)
        facts = {**report.facts, **({"backup": backup} if backup else {})}
        return replace(report, repaired=repaired, facts=facts)

    def _publish_anew(self) -> None:
        with self.catalog.writing() as writer:
            self._tell_unpublished(self._publish(writer, always=True))

    def check_photos(
        self,
        *,
        content: bool = False,
        max_duration_s: float | None = None,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> CheckReport:
        """Look at the originals, those looked at longest ago first; `content`: read each to its end.

        A look cut short, by time or by setting `stop`, goes on where it was the next time. Originals are only read.
        """
        from search.inspection import look_at_photos

        return look_at_photos(
            self.catalog, content=content, max_duration_s=max_duration_s, progress=progress, stop=stop
        )

    def upgrade(self) -> str:
        """Bring a library of an older version to this one; returns the schema it had."""
        before = self.catalog.upgrade()
        with self.catalog.writing() as writer:
            always = before != self.catalog.revision() and self.catalog.publication().number is not None
            self._tell_unpublished(self._publish(writer, always=always))
        return before


def _pixels(paths: Sequence[str], preprocessing: Preprocessing) -> Pixels:
    """Return the photos that can be read as (N, H, W, 3) uint8."""
    from search.decoding.pool import ahead, lend

    with lend() as decoders:
        loaded = ahead(lambda path: decoders.submit(path, preprocessing), paths, 16)
        found = [decoded.pixels for _, decoded in loaded if not isinstance(decoded, Skip)]
    return np.stack(found) if found else np.empty((0, *preprocessing.size, 3), np.uint8)


def _whole_root(writer: Writer, path: str | os.PathLike[str]) -> Scope:
    """Return the scope of an indexed folder, named by itself. Raises UsageError."""
    scope = next(filter(None, map(writer.source, _spellings(path))), None)
    if scope is None:
        raise UsageError(f"{os.fspath(path)} is no indexed folder", hint="'search root list' shows them")
    if scope.relative != ".":
        raise UsageError(f"{os.fspath(path)} is only a part of {scope.root}; only the whole of it can be moved")
    return scope


def _is_below(photo: Photo, folder: str) -> bool:
    """Whether a folder holds this very photo at its place."""
    from search.photos.decode import content_hash

    path = os.path.join(folder, os.path.relpath(photo.path, photo.root))
    try:
        same_size = os.stat(path).st_size == photo.size_bytes
        return same_size and content_hash(path).hex() == photo.content_hash
    except (OSError, PhotoError):
        return False


def _spellings(path: str | os.PathLike[str]) -> list[str]:
    """The names a photo may be known by: where links lead and, where links were followed, the path as it stands."""
    return sorted({_real(path), os.path.abspath(os.path.expanduser(path))})


def _real(path: str | os.PathLike[str]) -> str:
    """Return a path as the catalog knows it: absolute, without links."""
    return os.path.realpath(os.path.expanduser(path))
