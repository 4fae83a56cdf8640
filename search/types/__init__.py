"""Frozen values that travel between the rooms, and the array shapes they share.

    photos      a file as the walk meets it, and what is known of a photo
    answers     what to look for, and what was found
    labels      labels on photos, who says so, and what changing them came to
    runs        what a run is at, and what it did
    library     where a library stands, and what is wrong with it
    arrays      the shapes of arrays; who imports one while the program runs waits for numpy

Paths are `str` with surrogateescape, so that any file name survives; the catalog keeps bytes.

Import from here. A module is loaded with the first of its names: to make all these classes takes longer than most of
what a process needs them for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.types.answers import Answer, ClauseScore, Filter, Hit
    from search.types.arrays import Halves, Ids, Pixels, Vector, Vectors
    from search.types.labels import (
        ExportReport,
        ImportReport,
        LabelledPhoto,
        Labelling,
        LabelRecord,
        LabelScore,
        LabelShare,
        LabelSource,
        LabelSummary,
        RunInfo,
        RunKind,
        SidecarChange,
        TagReport,
        UndoReport,
        Verdict,
    )
    from search.types.library import (
        CheckReport,
        Contents,
        EncoderStatus,
        JobState,
        JobStatus,
        LibraryStatus,
        MigrationReport,
        Problem,
        ProblemKind,
        Publication,
        RebuildReport,
        RootStatus,
        Suggestion,
    )
    from search.types.photos import (
        HASH_BYTES,
        FileStat,
        Likeness,
        Photo,
        PhotoInfo,
        Picture,
        Skip,
        SkipReason,
        TakenAtSource,
    )
    from search.types.runs import (
        AdoptReport,
        IndexReport,
        Orientation,
        PassedOver,
        Passport,
        Progress,
        SpotCheck,
        Stage,
        Withheld,
    )

__all__ = [
    "HASH_BYTES",
    "AdoptReport",
    "Answer",
    "CheckReport",
    "ClauseScore",
    "Contents",
    "EncoderStatus",
    "ExportReport",
    "FileStat",
    "Filter",
    "Halves",
    "Hit",
    "Ids",
    "ImportReport",
    "IndexReport",
    "JobState",
    "JobStatus",
    "LabelRecord",
    "LabelScore",
    "LabelShare",
    "LabelSource",
    "LabelSummary",
    "LabelledPhoto",
    "Labelling",
    "LibraryStatus",
    "Likeness",
    "MigrationReport",
    "Orientation",
    "PassedOver",
    "Passport",
    "Photo",
    "PhotoInfo",
    "Picture",
    "Pixels",
    "Problem",
    "ProblemKind",
    "Progress",
    "Publication",
    "RebuildReport",
    "RootStatus",
    "RunInfo",
    "RunKind",
    "SidecarChange",
    "Skip",
    "SkipReason",
    "SpotCheck",
    "Stage",
    "Suggestion",
    "TagReport",
    "TakenAtSource",
    "UndoReport",
    "Vector",
    "Vectors",
    "Verdict",
    "Withheld",
]

_HOMES = {
    "answers": ("Answer", "ClauseScore", "Filter", "Hit"),
    "arrays": ("Halves", "Ids", "Pixels", "Vector", "Vectors"),
    "labels": (
        "ExportReport",
        "ImportReport",
        "LabelledPhoto",
        "Labelling",
        "LabelRecord",
        "LabelScore",
        "LabelShare",
        "LabelSource",
        "LabelSummary",
        "RunInfo",
        "RunKind",
        "SidecarChange",
        "TagReport",
        "UndoReport",
        "Verdict",
    ),
    "library": (
        "CheckReport",
        "Contents",
        "EncoderStatus",
        "JobState",
        "JobStatus",
        "LibraryStatus",
        "MigrationReport",
        "Problem",
        "ProblemKind",
        "Publication",
        "RebuildReport",
        "RootStatus",
        "Suggestion",
    ),
    "photos": (
        "HASH_BYTES",
        "FileStat",
        "Likeness",
        "Photo",
        "PhotoInfo",
        "Picture",
        "Skip",
        "SkipReason",
        "TakenAtSource",
    ),
    "runs": (
        "AdoptReport",
        "IndexReport",
        "Orientation",
        "PassedOver",
        "Passport",
        "Progress",
        "SpotCheck",
        "Stage",
        "Withheld",
    ),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a value's class on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'search.types' has no attribute {name!r}")
    value = getattr(import_module(f"search.types.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
