"""Find your photos by describing them.

from search import Library

library = Library.open("photos.library")
library.index(["~/Pictures"])
for hit in library.search("a red car in the rain", k=5):
    print(f"{hit.score:.3f} {hit.photo.path}")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.duplicates import DuplicateKind, DuplicateOptions, DuplicateReport
    from search.encoders import Encoder, load_encoder
    from search.errors import SearchError
    from search.indexer import IndexOptions
    from search.labels import LabelOptions, LabelSet
    from search.library import Library
    from search.query import Query
    from search.types import Answer, Filter, Hit, IndexReport, LabelledPhoto, Photo

__version__ = "0.1.0"

_HOMES = {
    "Answer": "search.types",
    "DuplicateKind": "search.duplicates",
    "DuplicateOptions": "search.duplicates",
    "DuplicateReport": "search.duplicates",
    "Encoder": "search.encoders",
    "Filter": "search.types",
    "Hit": "search.types",
    "IndexOptions": "search.indexer",
    "IndexReport": "search.types",
    "LabelOptions": "search.labels",
    "LabelSet": "search.labels",
    "LabelledPhoto": "search.types",
    "Library": "search.library",
    "Photo": "search.types",
    "Query": "search.query",
    "SearchError": "search.errors",
    "load_encoder": "search.encoders",
}

__all__ = [
    "Answer",
    "DuplicateKind",
    "DuplicateOptions",
    "DuplicateReport",
    "Encoder",
    "Filter",
    "Hit",
    "IndexOptions",
    "IndexReport",
    "LabelOptions",
    "LabelSet",
    "LabelledPhoto",
    "Library",
    "Photo",
    "Query",
    "SearchError",
    "load_encoder",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import search` alone stays free of numpy, FAISS and torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
