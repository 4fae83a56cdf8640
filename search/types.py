"""Frozen values that travel between the rooms, and the array shapes they share.

Paths are `str` with surrogateescape, so that any file name survives; the catalog keeps bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from search.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from search.conditions import Node

    Ids: TypeAlias = npt.NDArray[np.int64]
    """(N,) photo ids."""
    Vectors: TypeAlias = npt.NDArray[np.float32]
    """(N, D) unit rows."""
    Vector: TypeAlias = npt.NDArray[np.floating[Any]]
    """(D,), of any length but none."""
    Halves: TypeAlias = npt.NDArray[np.float16]
    """(N, D) rows as they are kept: unit only to float16's precision."""
    Pixels: TypeAlias = npt.NDArray[np.uint8]
    """(H, W, 3) RGB; batches are (N, H, W, 3)."""


class SkipReason(StrEnum):
    """Why a file is not in the library."""

    DECODE_ERROR = "decode_error"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNREADABLE = "unreadable"
    UNSTABLE = "unstable"
    BAD_VECTOR = "bad_vector"
    MEMORY = "memory"  # decoding it needs more memory than a decoder may take
    TIMEOUT = "timeout"  # decoding it takes more time than a decoder may take
    CRASHED = "crashed"  # its decoder died of it, twice
    QUARANTINED = "quarantined"  # the indexing process died while it was at work on this file alone, twice


class TakenAtSource(StrEnum):
    """Where a photo's date comes from."""

    EXIF = "exif"
    FILE = "file"


class FileStat(NamedTuple):
    """A file as the walk saw it, unopened; ctime_ns: when content or attributes changed last, None if unknown.

    A tuple: a walk makes very many of them.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """A file that was left out, and why."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class PhotoInfo:
    """What one image file says of itself.

    width, height: pixels, upright.   orientation: EXIF 1…8, 1 where absent.
    taken_at: wall-clock time where it was taken, with tzinfo only if the offset is known.
    latitude, longitude: degrees, WGS 84.   rating: 0 to 5 stars, -1 for rejected, None for not rated.
    keywords: sorted, the folders of a hierarchy before it ("animal/cat").
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    taken_at: datetime | None = None
    taken_at_source: TakenAtSource | None = None
    camera: str | None = None
    lens: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    rating: int | None = None
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Photo:
    """What the catalog knows of one image; gone_at (UTC): since when its file is not found."""

    id: int
    root: str
    path: str
    size_bytes: int
    mtime_ns: int
    content_hash: str
    info: PhotoInfo
    labels: tuple[str, ...] = ()
    gone_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """What a photo's pixels come to at a glance: for telling the same picture, and the better one.

    hash: bytes that are alike where pictures look alike; every one of a method has the same length.   quality: of the
    file's compression, None where it has none.   id: of the photo.
    """

    id: int
    hash: bytes
    sharpness: float
    quality: int | None = None


HASH_BYTES = 64
"""Of a picture's perceptual hash."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a picture comes to at a glance, before it is known whose it is: see Picture.

    method: which way the rest was made (search.photos.likeness).
    """

    method: int
    hash: bytes
    sharpness: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on photo fields; every one given must hold.

    folder: absolute path, sub-folders included.   after, before: after <= taken_at < before; one without zone is
    wall-clock time, for one with a zone see search.conditions.Taken.   camera: part of the camera's name, any case.
    near: latitude, longitude, radius in km.   labels: all of them, each with what is below it in a hierarchy.
    where: any other condition, such as `search.where.parse` returns.
    Raises UsageError for an empty text: it would stand for anything.
    """

    folder: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    camera: str | None = None
    near: tuple[float, float, float] | None = None
    labels: tuple[str, ...] = ()
    where: Node | None = None

    def __post_init__(self) -> None:
        for name, texts in (("folder", (self.folder,)), ("camera", (self.camera,)), ("labels", self.labels)):
            if any(text is not None and not text.strip() for text in texts):
                raise UsageError(f"the {name} to look for is empty", hint="leave it out to ask for nothing of it")

    def __bool__(self) -> bool:
        """False when nothing is asked for: every photo passes."""
        return self != Filter()


@dataclass(frozen=True, slots=True)
class ClauseScore:
    """How a photo stands to one clause of a long text; it holds where its relevance reaches the cut."""

    text: str
    score: float
    relevance: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: `score` is the cosine, `relevance` in [0, 1] is calibrated (search.relevance).

    clauses: of a text that is too long for the model, else none; the relevance is the lowest of theirs.
    """

    score: float
    relevance: float
    photo: Photo
    clauses: tuple[ClauseScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first, with what one must know to trust them.

    cut: the relevance below which photos were dropped.   below: how many were.   best: the highest relevance that was
    seen, dropped or not; None where there was no photo.
    clauses: what a text that is too long for the model was split into, else none.   truncated_tokens: none of a query
    are, whatever its length.
    """

    query: str
    encoder: str
    hits: tuple[Hit, ...]
    candidates: int
    seconds: float
    cut: float = 0.0
    below: int = 0
    best: float | None = None
    clauses: tuple[str, ...] = ()
    truncated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label on a photo: `probability` under the label set, `score` the cosine."""

    label: str
    probability: float
    score: float


class LabelSource(StrEnum):
    """Who gave a photo a label."""

    ZERO_SHOT = "zero-shot"  # a model proposes it
    USER = "user"
    IMPORT = "import"  # taken over by the user from files or from a list
    FILE = "file"  # the file's own keyword


class RunKind(StrEnum):
    """What a run did with labels."""

    LABEL = "label"
    ACCEPT = "accept"
    REJECT = "reject"
    REVIEW = "review"
    IMPORT = "import"
    EXPORT = "export"
    PROBE = "probe"
    UNKNOWN = "unknown"  # damage took what was known of it


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """A label on a photo, and where it is from; run: None where it is older than runs or the file's own.

    encoder: the name of the model that proposes it.   rejected: by the user; it is not shown and not found then.
    """

    label: str
    source: str
    probability: float | None = None
    score: float | None = None
    run: int | None = None
    rejected: bool = False
    encoder: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run and what still stands of it; times are in UTC.

    encoder: a model's name.   label_set, templates: what they were called: a built-in set, a file, or "given".
    photos, labels: how many have, and are, what it added.
    """

    id: int
    kind: str
    started_at: datetime
    encoder: str | None = None
    label_set: str | None = None
    templates: str | None = None
    photos: int = 0
    labels: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    undone_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the user said of a label on a photo, and in which run."""

    photo_id: int
    label: str
    accepted: bool
    run: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LabelShare:
    """A label above others: the sum of the probabilities of those below it."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class LabelledPhoto:
    """A photo's labels, best first.   parents: the labels above them, where one label of many is decided."""

    path: str
    labels: tuple[LabelScore, ...]
    id: int | None = None
    parents: tuple[LabelShare, ...] = ()


@dataclass(frozen=True, slots=True)
class Labelling:
    """What `label` did: the set it used, the photos it labelled, the files it could not read.

    applied: photos whose labels were written, as what run.   truncated_tokens: tokens of prompts beyond what the model
    reads.   label_set, templates_name: what provenance calls them.
    """

    encoder: str
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    photos: tuple[LabelledPhoto, ...]
    skipped: tuple[Skip, ...] = ()
    applied: int = 0
    truncated_tokens: int = 0
    label_set: str = ""
    templates_name: str = ""
    run: int | None = None


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """A label of the library: on how many photos it is, who says so, and how good it is.

    proposed: photos that a model proposes it for.   accepted, imported, rejected: by the user.   in_files: photos whose
    file has it as a keyword.   judged: proposals that the user said something of, right: those accepted.
    precision: the share of proposals that are right within its 95 % interval (low, share, high); None while nothing was
    judged.
    """

    label: str
    photos: int
    proposed: int
    accepted: int
    rejected: int
    imported: int
    in_files: int
    judged: int
    right: int
    precision: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class TagReport:
    """What accepting or rejecting labels changed, as what run; None if everything was so already.

    photos: how many were changed; labels: how many on them.   unchanged: labels on photos that were judged so before,
    or that a rule left as the user judged them.   new: labels that were not in the library before.
    """

    run: int | None
    photos: int
    labels: int
    unchanged: int = 0
    new: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What `import_` took over, as what run; None if there was nothing new.

    unchanged: labels that were as the list has them.   left: those that are nobody's word, by state: proposals of a
    model, keywords of files.   skipped: rows that could not be used.
    """

    run: int | None
    photos: int
    accepted: int
    rejected: int
    unchanged: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What undoing a run took back: proposals, verdicts, and on how many photos.

    sidecars: files beside photos that were written anew or removed.   skipped: sidecars that could not be, and why;
    with some of these the run stands, and can be undone again.
    """

    run: int
    kind: str
    labels: int
    verdicts: int
    photos: int
    sidecars: int = 0
    skipped: tuple[Skip, ...] = ()


class Stage(StrEnum):
    """What a run is at."""

    SCAN = "scanning"
    RECOGNISE = "recognising"
    ENCODE = "encoding"
    LABEL = "labelling"
    READ = "reading"  # what photos already indexed say of themselves
    CHECK = "checking"
    HASH = "hashing"
    MOVE = "moving"
    COMPARE = "comparing"
    WRITE = "writing"  # sidecars
    ADOPT = "taking over"  # vectors that other software made
    UNPACK = "unpacking"
    COPY = "copying"  # a catalog's rows
    EXPORT = "exporting"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: files done of `total`, None while that is not known."""

    stage: Stage
    done: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Withheld:
    """Photos of a folder that were not found and are kept as if they were there, and why."""

    path: str
    photos: int
    reason: str


class PassedOver(StrEnum):
    """What the walk through a folder leaves out on purpose."""

    VIDEOS = "videos"
    HIDDEN = "hidden"
    EXCLUDED = "excluded"
    LINKS = "links"
    OTHERS = "others"  # no photos by their names


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run did. Every file seen is in exactly one of added, updated, moved, unchanged, skipped.

    offline: photos not found that stay, because their folder may only be away; `withheld` says where and why.
    purged: photos forgotten because they were gone for too long.   reread: photos whose metadata was read anew, though
    their content is as it was; each counts elsewhere, too.
    not_encoded: after re-encoding, photos that have no vector by the new model yet; while there are any, the old
    model answers.   not_published: why the index generation that was due could not be written, "" if it was; the
    photos are committed and found all the same.   index_behind: why an index on a server could not be brought up to
    date.   passed_over: what lay between the photos and was left out on purpose, a folder as one.
    """

    encoder: str
    photos: int
    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    gone: int = 0
    offline: int = 0
    withheld: tuple[Withheld, ...] = ()
    purged: int = 0
    skipped: tuple[Skip, ...] = ()
    encoded: int = 0
    reread: int = 0
    not_encoded: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    not_published: str = ""
    index_behind: str = ""
    passed_over: Mapping[PassedOver, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """How many files were looked at."""
        return self.added + self.updated + self.moved + self.unchanged + len(self.skipped)

    @property
    def images_per_second(self) -> float:
        """Photos encoded per second of the whole run."""
        return self.encoded / self.seconds if self.seconds else 0.0


class Orientation(StrEnum):
    """What other software did with the orientation that files ask for, told from its vectors."""

    APPLIED = "applied"
    IGNORED = "ignored"  # such photos were encoded lying on their side
    MIXED = "mixed"  # neither fits all that were compared
    UNTOLD = "untold"  # no photo that was compared could tell


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """A stored vector beside new ones: its cosine with that of the photo upright, and as its file has the pixels."""

    path: str
    cosine: float
    as_stored: float


@dataclass(frozen=True, slots=True)
class Passport:
    """What vectors of other software were held against, and how they stood.

    source, place: what made them, and where they are.   model, fingerprint, preprocessing: of the model compared with.
    agreement: the least cosine that counts as the same vector.   spots: the photos compared.
    turned: those compared both ways, since their files ask to be turned.
    """

    source: str
    place: str
    model: str
    fingerprint: str
    preprocessing: Mapping[str, Any]
    agreement: float
    orientation: Orientation
    spots: tuple[SpotCheck, ...]
    turned: tuple[SpotCheck, ...] = ()

    @property
    def agreeing(self) -> int:
        """How many of the photos compared have the vector that the model makes."""
        return sum(spot.cosine >= self.agreement for spot in self.spots)

    @property
    def lowest(self) -> float:
        return min(spot.cosine for spot in self.spots)

    @property
    def median(self) -> float:
        """The cosine that half of the photos compared reach."""
        return sorted(spot.cosine for spot in self.spots)[len(self.spots) // 2]


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """What was taken over from other software.

    passport: None where its vectors were not asked for, or nothing was left to do.   named: photos that it names.
    adopted: those that have its vector now.   left: its rows that are of no use, by reason.   not_adopted: photos that
    were not given the vector it has, by reason.   not_encoded: photos with no vector yet.   index: what the run did,
    files left out in `skipped`.
    """

    passport: Passport | None
    named: int
    adopted: int
    left: Mapping[str, int]
    not_adopted: Mapping[str, int]
    not_encoded: int
    index: IndexReport


@dataclass(frozen=True, slots=True)
class Publication:
    """Where a catalog stands, and the generation it published last; number is None if there is none.

    seq, purge_seq: its last commit, and the last that deleted photos for good.   generation_seq: the commit that
    the generation reflects.   manifest_hash: SHA-256 of its manifest.
    index_url: of the index on a server; "exact" for none at all, None where nobody said.   index_mark tells that it is
    ours, index_seq the commit that was brought there last, -1 if it is to be filled.
    """

    uuid: str
    seq: int
    purge_seq: int
    number: int | None
    generation_seq: int
    manifest_hash: str
    index_url: str | None = None
    index_mark: str = ""
    index_seq: int = -1

    @property
    def on_server(self) -> str | None:
        """The URL of the index on a server, None if there is none."""
        return None if self.index_url in (None, "exact") else self.index_url


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What `rebuild` did; recovered: photos taken over from a generation, None if the catalog was whole.

    backup: where the damaged catalog is now.
    """

    photos: int
    generation: int | None
    recovered: int | None = None
    backup: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What `migrate` moved and compared.

    rows: how many of each table, every one held against its original.   compared: photos whose nearest ones were asked
    for on both sides.   agreement: the share of those that the destination's index finds too, None with none compared.
    """

    photos: int
    vectors: int
    rows: Mapping[str, int]
    compared: int
    agreement: float | None
    seconds: float = 0.0


class ProblemKind(StrEnum):
    """What `check` can find."""

    CATALOG_DAMAGED = "catalog_damaged"
    ROW_DAMAGED = "row_damaged"
    VECTOR_DAMAGED = "vector_damaged"
    VECTOR_MISSING = "vector_missing"
    GENERATION_DAMAGED = "generation_damaged"
    INDEX_DAMAGED = "index_damaged"
    PHOTO_MISSING = "photo_missing"
    PHOTO_CHANGED = "photo_changed"  # its size or time is not as known
    PHOTO_DAMAGED = "photo_damaged"  # size and time are as known, the content is not
    PHOTO_UNREADABLE = "photo_unreadable"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    loss: what repairing it does and loses, in words.   path, id: the photo that it is about, where known.
    """

    kind: ProblemKind
    detail: str
    loss: str = ""
    path: str | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found and still stands, and how much was repaired before.

    facts: what one may want to know beside it: the level, SQLite's version, folders that are offline.
    checked, remaining, offline: photos looked at, left for the next time, and out of reach.
    """

    problems: tuple[Problem, ...]
    repaired: int = 0
    facts: Mapping[str, int | str] = field(default_factory=dict)
    checked: int = 0
    remaining: int = 0
    offline: int = 0
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class RootStatus:
    """One indexed folder."""

    path: str
    online: bool
    photos: int


@dataclass(frozen=True, slots=True)
class EncoderStatus:
    """One model that has vectors in the library."""

    name: str
    dim: int
    photos: int


class JobState(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"  # stopped, or its process is no more
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The last piece of work on a library; times are in UTC, total is None while it is not known."""

    kind: str
    state: JobState
    started_at: datetime
    heartbeat_at: datetime
    done: int
    total: int | None
    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class LibraryStatus:
    """The library at a glance."""

    path: str
    photos: int
    roots: tuple[RootStatus, ...]
    encoders: tuple[EncoderStatus, ...]
    index: Mapping[str, int | str | None] = field(default_factory=dict)
    skipped: int = 0
    schema: str = ""
    job: JobStatus | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a library's photos are, as told of a collection that is met for the first time.

    formats: photos by the kind of their files, most first.   years: the first and the last in which one was taken, by
    what files say of themselves; None where none does.   folders: how many they lie in.
    """

    formats: Mapping[str, int]
    years: tuple[int, int] | None
    folders: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A query worth trying.   relevance: of the photo that fits it best."""

    query: str
    relevance: float


@dataclass(frozen=True, slots=True)
class SidecarChange:
    """What was done, or would be, to a sidecar: "create", "change", or "remove" where nothing is left in it."""

    path: str
    action: str


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export of labels to sidecars did, or taking it back; run: None where nothing was written.

    written: sidecars made or changed.   removed: those that are gone, or as they were before anything of ours.
    changes: each of them, in a dry run what would be done.
    """

    run: int | None = None
    written: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: tuple[Skip, ...] = ()
    changes: tuple[SidecarChange, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False
