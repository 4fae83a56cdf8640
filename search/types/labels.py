"""Labels on photos: who says so, in which run, and what changing them came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.types.photos import Skip


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
