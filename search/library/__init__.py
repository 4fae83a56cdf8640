"""The library: where encoder, index and catalog meet."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import numpy as np

from search.catalog import Catalog
from search.catalog.copies import CatalogCopy
from search.errors import DamagedLibrary, LibraryError, LibraryNotFound, UnknownPhoto, UsageError
from search.generations import Generations
from search.generations.manifest import WISHES
from search.library import answering
from search.library.browsing import Browsing
from search.library.index import LibraryIndex
from search.library.model import AUTO, LibraryModel
from search.library.seams import Seams, real
from search.query import Kind, Query, Term
from search.resources import default_location
from search.types import Answer, CheckReport, Filter, Hit, Labelling, LibraryStatus, RebuildReport, Skip

if TYPE_CHECKING:
    from search.adoption import AdoptOptions, Source
    from search.duplicates import DuplicateGroup, DuplicateOptions, DuplicateReport, MoveReport
    from search.encoders import Encoder
    from search.encoders.preprocessing import Preprocessing
    from search.encoders.quantising import Outcome
    from search.indexer import IndexOptions
    from search.labels import Label, LabelOptions, LabelSet
    from search.library.browsing import Browsed, Facets
    from search.library.tags import Tags
    from search.photos.sources import Sources
    from search.shards.run import ShardOptions
    from search.types import (
        AdoptReport,
        IndexReport,
        MigrationReport,
        Passport,
        Photo,
        Pixels,
        Progress,
        Suggestion,
        Vector,
        Vectors,
    )
    from search.vectors import VectorIndex

P = ParamSpec("P")
T = TypeVar("T")


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
        index_token: str | None = None,
    ) -> None:
        self.catalog = Catalog(location, notify=notify)
        self.index_token = index_token
        self._holding = ExitStack()  # the generation that answers in the catalog's place
        self._told: set[str] = set()
        self._notify = notify or (lambda _: None)
        self.model = LibraryModel(
            self.catalog, model, offline=offline, notify=self._notify, trust_checkpoint=trust_checkpoint
        )
        generations = Generations(self.catalog.folder) if self.catalog.folder else None
        self._index = self._indexed(generations)
        self._lock = threading.Lock()
        self._browsing = Browsing()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        model: str = AUTO,
        offline: bool = False,
        notify: Callable[[str], None] | None = None,
        trust_checkpoint: str | None = None,
        index_token: str | None = None,
    ) -> Library:
        """Open a library; the first `index` makes one that does not exist.

        path: a folder, a SQLAlchemy URL, or None for the user's own.   model: what `load_encoder` takes, or
        "auto": the library's own model, for a new library the recommended one if it can be had.
        offline: never open a network connection.   notify: told, in a sentence, what the user should know.
        trust_checkpoint: the SHA-256 that the model's weights file must have whenever they are loaded.
        index_token: what the server asks for that has the index, if it is one that does.
        """
        location = os.path.expanduser(os.fspath(path or default_location()))
        return cls(
            location,
            model=model,
            offline=offline,
            notify=notify,
            trust_checkpoint=trust_checkpoint,
            index_token=index_token,
        )

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the catalog and forget model and index."""
        self._reopen(Catalog(self.catalog.location, notify=self._notify))
        self.model.forget()

    def _reopen(self, catalog: Catalog) -> None:
        """Go on with this catalog; what was read from the one before is forgotten."""
        self.catalog.close()
        self._holding.close()
        self._index.close()
        self.catalog = self.model.catalog = catalog
        self._index = self._indexed(self._index.generations)

    def _indexed(self, generations: Generations | None) -> LibraryIndex:
        """Have no index yet over the catalog."""
        return LibraryIndex(
            self.catalog, generations, token=self.index_token, notify=self._tell, tell_once=self._tell_once
        )

    def _tell(self, message: str) -> None:
        self._notify(message)

    def _tell_once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._notify(message)

    @property
    def encoder(self) -> Encoder:
        """The model, loaded on first use: the one asked for, else the library's own, else the recommended."""
        return self.model.encoder

    @property
    def _seams(self) -> Seams:
        return Seams(
            self.catalog,
            self._index,
            self.model,
            self._lock,
            notify=self._tell,
            tell_once=self._tell_once,
            sources=lambda: self.sources,
        )

    @functools.cached_property
    def sources(self) -> Sources:
        """What lists and reads the photos, wherever they lie; made on first use."""
        from search.photos.sources import Sources

        folder = self.catalog.folder
        return Sources(offline=self.model.offline, lists=folder and folder / "cache" / "tars")

    # ---- indexing

    def index(
        self,
        sources: Sequence[str | os.PathLike[str]],
        *,
        options: IndexOptions | None = None,
        reencode: bool = False,
        shards: ShardOptions | None = None,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        wait: bool = False,
    ) -> IndexReport:
        """Bring photos into the library; only what is new or changed costs anything.

        sources: folders, files, tar files, addresses such as s3://bucket/folder (search.photos.sources).

        reencode: give every photo of the sources a vector by the model asked for, beside those it has; that model
        answers once all photos have one.   shards: have photos encoded in bulk, by whatever engine; None: here and at
        once (docs/how-to/cluster.md).   stop: set it to end the run after its current batch, or the waiting.
        wait: until no other process writes, instead of raising LibraryBusy.
        A run whose photos are committed does not fail because the index generation could not be written for lack of
        space: the report says so in `not_published`, and the photos are found all the same.
        Raises UsageError, EncoderMismatch, ModelError, LibraryBusy, StorageError; SourceAway where object storage goes
        away in the midst; DamagedLibrary where the catalog is damaged, or is missing but can be made anew.
        """
        from search.indexer import IndexOptions
        from search.library import indexing

        paths = [real(source) for source in sources]
        if not self.catalog.exists() and (missing := [path for path in paths if not self.sources.kind(path)]):
            raise UsageError(f"there is no file or folder {missing[0]}")
        how = indexing.Bringing(options or IndexOptions(), progress, stop, wait)
        return indexing.index(self._seams, paths, how, reencode=reencode, shards=shards)

    def merge(
        self,
        store: str,
        *,
        options: IndexOptions | None = None,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        wait: bool = False,
    ) -> IndexReport:
        """Take in the shards of a store that this library's model made, wherever that was (docs/how-to/cluster.md).

        store: as ShardOptions has it.   In any order and any number of times: what is there already, or was changed
        since it was encoded, is left alone, and the next index run reads the latter.   stop, wait: as in `index`.
        Raises as `index` does.
        """
        from search.indexer import IndexOptions
        from search.library import indexing

        how = indexing.Bringing(options or IndexOptions(), progress, stop, wait)
        return indexing.merge(self._seams, store, how)

    def adopt(
        self,
        source: Source,
        *,
        options: AdoptOptions | None = None,
        indexing: IndexOptions | None = None,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        wait: bool = False,
    ) -> AdoptReport:
        """Take over photos and vectors that other software has (search.interop reads it).

        Vectors are trusted only once some photos were encoded anew and agree; photos that were changed since, or whose
        orientation was not applied, are encoded here. What is there already costs nothing, and a run that is cut short
        goes on with the next.   indexing, progress, stop, wait: as in `index`.
        Raises UntrustedVectors, before anything is written; else as `index` does.
        """
        from search.adoption import AdoptOptions
        from search.indexer import IndexOptions
        from search.library import adopting
        from search.library.indexing import Bringing

        how = Bringing(indexing or IndexOptions(), progress, stop, wait)
        return adopting.adopt(self._seams, source, options or AdoptOptions(), how)

    def compare(
        self,
        source: Source,
        *,
        options: AdoptOptions | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Passport:
        """Return how vectors of other software stand to those of this library's model; nothing is written.

        Raises as `adopt` does.
        """
        from search.adoption import AdoptOptions
        from search.library import adopting

        wanted = options or AdoptOptions()
        return adopting.compare(self._seams, source, wanted, progress or (lambda _: None))

    def quantise(self, name: str, *, force: bool = False) -> Outcome:
        """Export a model in int8, calibrated on photos of this library and held against what it is made of on others.

        It is kept, as `name` with +int8 behind it, if nine of the ten nearest photos stay the same, or by force.
        Raises ModelError, UsageError for too few photos, StorageError; LibraryNotFound.
        """
        from search.library import quantising

        return quantising.quantise(self._seams, name, force=force)

    def remove(self, paths: Iterable[str | os.PathLike[str]]) -> int:
        """Forget photos and folders, with vectors and labels; return how many.

        The files stay: indexing their folder again brings them back as new.
        Raises UsageError for a path that is in no indexed folder.
        """
        from search.library import roots

        return roots.remove(self._seams, paths)

    def rebuild(self, *, index: str | None = None) -> RebuildReport:
        """Write the index anew and compact the catalog; make a catalog that is damaged or missing anew from the
        newest sound generation.

        index: its kind from now on: "exact" scores every vector, "pq" has codes tell which to score, "ivf" has them in
        lists of which a query reads some, "auto" takes codes for more than 50,000 vectors and lists for more than
        2,000,000; a URL is of a server (docs/how-to/cluster.md), which is filled anew. None: as before.

        Nothing is encoded. The damaged catalog stays beside the new one; what was committed after the generation
        is only in there, and the next `index` brings those photos in again.
        Raises LibraryError where there is nothing to rebuild from, LibraryBusy, StorageError.
        """
        from search.library import upkeep

        if index is not None and index not in WISHES:
            self._index.mirroring.checked(index)
        self.close()  # what answers may be a copy, what was read may be damaged
        return upkeep.rebuild(self._seams, index)

    def _fall_back(self, failed: Catalog, error: LibraryError) -> bool:
        """Answer from the newest sound generation from now on; False if there is none, or it failed itself."""
        with self._lock:
            if self.catalog is not failed:
                return True  # another thread did
            generations = self._index.generations
            if generations is None or isinstance(failed, CatalogCopy):
                return False
            kept = generations.newest_sound()
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
        from search.library import roots

        return roots.move(self._seams, old, new, force=force)

    # ---- answering

    def search(
        self,
        query: str | Query,
        k: int = 10,
        *,
        filter: Filter | None = None,
        min_relevance: float | None = 0.0,
        diverse: bool = False,
        examples: bool = False,
    ) -> list[Hit]:
        """Return the k photos that fit a query best, best first.

        query: as `search.grammar.parse_query` reads it ("red car + 2:beach - people"), or a Query of weighted texts,
        images and photos.   filter: conditions a photo must meet.
        min_relevance: what less relevant photos are dropped at; None: the usual cut for words, none for images.
        diverse: photos unlike each other rather than the k best.   examples: whether photos of the library that are
        examples in the query, by id or by file, may be hits.
        """
        found = self.answer(
            query, k, filter=filter, min_relevance=min_relevance, diverse=diverse, examples=examples
        )
        return list(found.hits)

    @_surviving
    def answer(
        self,
        query: str | Query,
        k: int = 10,
        *,
        filter: Filter | None = None,
        min_relevance: float | None = 0.0,
        diverse: bool = False,
        without: Sequence[int] = (),
        templates: Sequence[str] = (),
        examples: bool = False,
        vectors: Mapping[str, Vector] | None = None,
    ) -> Answer:
        """Return what `search` does, with what one must know to trust it.

        without: ids never to return.   templates: prompts that every text is put into, at `{}`, and whose mean counts.
        vectors: (D,) each, by the names that terms of Kind.VECTOR have.
        A text that is too long for the model is split into clauses that every photo should satisfy
        (docs/reference/queries.md).
        Raises QueryError, UsageError for a photo that is not here, PhotoError for a file that can't be read,
        DimensionError for a vector of another model.
        """
        if isinstance(query, str):
            from search.grammar import parse_query

            query = parse_query(query)
        wish = answering.Wish(
            k, filter or Filter(), min_relevance, diverse, without, templates, examples, vectors or {}
        )
        return answering.answer(self._seams, query, wish)

    @_surviving
    def similar(
        self,
        photo: int | str | os.PathLike[str],
        k: int = 10,
        *,
        filter: Filter | None = None,
        min_relevance: float | None = 0.0,
        diverse: bool = False,
    ) -> Answer:
        """Return the photos most like one of the library (id or path) or like any image file, itself left out.

        The rest is as in `search`.
        Raises UsageError for an id that is unknown or gone, PhotoError for a file that can't be read.
        """
        term = Term(Kind.PHOTO, str(photo)) if isinstance(photo, int) else Term(Kind.IMAGE, real(photo))
        return self.answer(Query((term,)), k, filter=filter, min_relevance=min_relevance, diverse=diverse)

    @_surviving
    def vector_index(self) -> VectorIndex:
        """Return the index that answers, brought up to the last commit. Not for two threads at a time."""
        with self._lock:
            return self._index.live.of(self.model.answering())

    @_surviving
    def text_vectors(self, texts: Sequence[str]) -> Vectors:
        """Return texts as the library's model sees them: (N, D) unit rows."""
        row = self.model.answering()
        if not texts:
            return np.empty((0, row.dim), np.float32)
        return self.model.text_tower(row).encode_texts(list(texts))

    @_surviving
    def preprocessing(self) -> Preprocessing:
        """Return how a picture becomes what `image_vectors` takes; loads the model."""
        return self.model.made_sure(self.model.answering().fingerprint).preprocessing

    @_surviving
    def image_vectors(self, images: Pixels) -> Vectors:
        """Return pictures, (N, H, W, 3), as the library's model sees them: (N, D) unit rows."""
        return self.model.made_sure(self.model.answering().fingerprint).encode_images(images)

    @_surviving
    def suggest_queries(self, n: int = 3) -> tuple[Suggestion, ...]:
        """Return up to n queries for everyday things that this library answers well, the surest first.

        They are looked for once, which takes some hundred texts to embed, and kept in the library's folder. None where
        the library holds few photos, or nothing the model is sure of.
        """
        from search.library import suggesting

        known = self.known_suggestions
        return suggesting.look_for(self._seams, n) if known is None else known[:n]

    @property
    @_surviving
    def known_suggestions(self) -> tuple[Suggestion, ...] | None:
        """What `suggest_queries` found before; None where it would look, and for a library on a database server."""
        from search.library import suggesting

        return suggesting.known(self._seams)

    # ---- looking around

    @_surviving
    def browse(self, k: int = 60, *, offset: int = 0, filter: Filter | None = None) -> Browsed:
        """Return photos in order of time, the latest first; needs no model.

        Of very many photos as they were up to 15 s ago while another process writes, `facets` too.
        """
        from search.library import browsing

        overview, selection = self._browsing.overview(self.catalog), self.catalog.select(filter or Filter())
        return browsing.browse(self.catalog, overview, selection, k=k, offset=offset)

    @_surviving
    def facets(self, filter: Filter | None = None) -> Facets:
        """Return what the photos that pass a filter could be filtered by further, with counts."""
        from search.library import browsing

        overview, selection = self._browsing.overview(self.catalog), self.catalog.select(filter or Filter())
        return browsing.facets(overview, selection)

    @_surviving
    def folded(self, photos: Sequence[Photo]) -> list[tuple[int, ...]]:
        """Return photos' ids as groups that show the same, in order, each where its first photo was.

        Told from what is known of them, no file is read: for a page of an answer. `duplicates` is thorough.
        """
        from search.library import browsing

        return browsing.folded(self.catalog, photos)

    # ---- duplicates

    @_surviving
    def duplicates(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        options: DuplicateOptions | None = None,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> DuplicateReport:
        """Return groups of photos that are duplicates, each with the one to keep and why; nothing is changed.

        path: only photos in this folder.   Photos indexed by an older version are hashed first, which reads their
        files once and is kept; without them where another process writes.   stop: set it to end early.
        """
        from search.duplicates import DuplicateKind, DuplicateOptions
        from search.library import duplicates

        wanted, tell = options or DuplicateOptions(), progress or (lambda _: None)
        ids = duplicates.chosen(self._seams, path)
        if wanted.reaches(DuplicateKind.SAME_PICTURE):
            duplicates.hash_lacking(self._seams, ids, progress=tell, stop=stop)
        return duplicates.find(self._seams, ids, wanted, progress=tell, stop=stop)

    def set_aside(
        self,
        groups: Sequence[DuplicateGroup],
        folder: str | os.PathLike[str],
        *,
        spare: bool = True,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> MoveReport:
        """Move all but the kept photo of each group into a folder, at the place they had below their indexed folder.

        XMP sidecars go along. Nothing is overwritten: a second file of a name is numbered. A file stays if it or the
        one that is kept is not what was compared, or can't be taken from its folder. Each move is written down in the
        folder first, and can be cut short at any moment with nothing lost. To the library the photos are gone: moved
        back, they have their vectors and labels again.
        spare: a photo stays also if it has a rating, labels, keywords or pixels that the kept one lacks.
        Raises UsageError for a folder inside an indexed one; LibraryBusy, StorageError.
        """
        from search.library import setting_aside

        roots = [root.path for root in self.catalog.root_status()]
        target = setting_aside.check_folder(folder, roots)
        with self.catalog.writing() as writer:
            report = setting_aside.set_aside(
                groups, target, writer.part_with, spare=spare, progress=progress or (lambda _: None), stop=stop
            )
            self._index.publish(writer)
        return report

    def put_back(
        self,
        moved: str | os.PathLike[str],
        *,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> MoveReport:
        """Move back what `set_aside` moved, the newest first; what is back already is left alone.

        moved: the folder it was moved to, or the list in it.   Nothing is overwritten. The library sees the photos
        again, with their vectors and labels. Raises UsageError where there is no list; LibraryBusy, StorageError.
        """
        from search.library import putting_back

        path = putting_back.find_list(moved)
        roots = [root.path for root in self.catalog.root_status()]
        with self.catalog.writing() as writer:
            report = putting_back.put_back(path, roots, progress=progress or (lambda _: None), stop=stop)
            photos = self.catalog.get(self.catalog.ids_at([one.to for one in report.moved]))
            writer.welcome(putting_back.as_they_were(photos))
            self._index.publish(writer)
        return report

    # ---- labels

    @property
    def tags(self) -> Tags:
        """What is known of the library's labels, and what one can do about them."""
        from search.library.tags import Tags

        return Tags(self._seams)

    @_surviving
    def label(
        self,
        labels: LabelSet | Iterable[str | Label],
        *,
        paths: Sequence[int | str | os.PathLike[str]] | None = None,
        options: LabelOptions | None = None,
        apply: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Labelling:
        """Label photos zero-shot: the whole library, or files and folders in or outside it, and ids of its photos.

        labels: names, or a LabelSet with templates.   apply: write each photo's best label (with `multi` or `k` all
        that are listed) and the model that gave it into the library, for the photos it holds; what an earlier run
        wrote from the same labels is withdrawn. That is a run, which `tags.undo` takes back; what the user accepted or
        rejected stays so. A photo of the library is not given a label that the user rejected on it, but the next best.
        Raises UsageError for a path that does not exist, and where `apply` finds no photo of the library.
        """
        from search.labels import LabelOptions, LabelSet
        from search.library import labelling

        label_set, options = LabelSet.of(labels), options or LabelOptions()

        return labelling.label(
            self._seams, label_set, paths=paths, options=options, apply=apply, progress=progress
        )

    # ---- looking

    @_surviving
    def photo(self, ref: int | str | os.PathLike[str]) -> Photo:
        """Return everything known of one photo, by id or path. Raises UnknownPhoto."""
        known = self._seams.known(ref)
        if known is None:
            name = f"photo {ref}" if isinstance(ref, int) else os.fspath(ref)
            raise UnknownPhoto(f"{name} is not in the library")
        return known

    @_surviving
    def status(self) -> LibraryStatus:
        """Return the library at a glance; loads no model and no index."""
        return LibraryStatus(
            path=self.catalog.shown,
            photos=self.catalog.count(),
            roots=tuple(self.catalog.root_status(self.sources.is_there)),
            encoders=tuple(self.catalog.encoder_status()),
            index=self._index.status(),
            skipped=len(self.catalog.skipped()),
            schema=self.catalog.revision(),
            job=self.catalog.last_job(),
        )

    @_surviving
    def skipped(self) -> list[Skip]:
        """Return every file that could not be indexed, with its reason."""
        return self.catalog.skipped()

    def check(self, *, full: bool | None = None, repair: bool = False) -> CheckReport:
        """Look whether the library is whole; the photos themselves are not touched.

        full: every row, vector and structure; None: if there are no more than 20,000 photos.   repair: restore or
        drop what is damaged, after a copy of the catalog was made beside it.
        """
        from search.library import upkeep

        return upkeep.check(self._seams, full=full, repair=repair)

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
            self.catalog,
            self.sources,
            content=content,
            max_duration_s=max_duration_s,
            progress=progress,
            stop=stop,
        )

    def migrate(
        self, target: Library, *, index: str | None = None, progress: Callable[[Progress], None] | None = None
    ) -> MigrationReport:
        """Give a library that holds nothing, on a disk or a database server, all that this one knows; this one stays.

        All rows arrive, each held against its original, or none does; then the index is made, and asked for the photos
        nearest to a sample.   index: as in `rebuild`.
        Raises UsageError for a library that holds something, DamagedLibrary if this one is damaged, LibraryBusy,
        StorageError; LibraryError if what arrived or is found is not the same.
        """
        from search.library import migrating

        return migrating.migrate(self, target, index=index, progress=progress or (lambda _: None))

    def upgrade(self) -> str:
        """Bring a library of an older version to this one; returns the schema it had."""
        from search.library import upkeep

        return upkeep.upgrade(self._seams)
