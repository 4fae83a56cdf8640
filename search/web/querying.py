"""A search as it was asked for → a query, a filter, a page of the answer. No file is named by any of it but by id."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from search.addresses import is_remote
from search.conditions import And
from search.errors import QueryError
from search.grammar import parse_query
from search.query import WEIGHT, Kind, Query, Term, asking, weight_of
from search.types import Filter
from search.where import parse, parse_date, parse_folder

if TYPE_CHECKING:
    from search.conditions import Node
    from search.library import Library
    from search.types import Answer, Pixels, Vector

_MOST_TERMS, _MOST_PROMPTS, _MOST_CHARACTERS = 32, 64, 3000
_EXAMPLE = re.compile(f"(?:{WEIGHT})?(?P<id>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """A search.

    pictures: what was sent along, (H, W, 3) each, by the names of the query's terms.   vectors: (D,) each, likewise.
    """

    query: Query
    filter: Filter
    k: int
    offset: int
    min_relevance: float | None
    diverse: bool
    templates: tuple[str, ...] = ()
    pictures: tuple[tuple[str, Pixels], ...] = ()
    vectors: tuple[tuple[str, Vector], ...] = ()

    @classmethod
    def of(cls, given: dict[str, Any], *, pictures: int = 0) -> Asked:
        """Return what parameters ask for.   pictures: how many come along. Raises QueryError, UsageError."""
        terms = [
            *(words(given["q"]) if given["q"] is not None else ()),
            *(_example(text) for text in given["like"]),
            *_shown(pictures, given.get("image_weights", [])),
            *(Term(Kind.TEXT, text.strip(), -1.0) for text in given["not"] if text.strip()),
            *(_example(text, -1) for text in given["unlike"]),
        ]
        return cls.of_terms(terms, given, templates=tuple(given["template"]))

    @classmethod
    def of_terms(
        cls,
        terms: Sequence[Term],
        given: dict[str, Any],
        *,
        templates: tuple[str, ...] = (),
        vectors: Mapping[str, Vector] | None = None,
    ) -> Asked:
        """Return what terms and the other parameters ask for.   vectors: of terms, by name. Raises QueryError."""
        query = asking(terms)
        _refuse_labour(query, templates)
        return replace(cls._of(query, given, templates=templates), vectors=tuple((vectors or {}).items()))

    @classmethod
    def like(cls, id_: int, given: dict[str, Any]) -> Asked:
        """Return what asks for photos like one."""
        return cls._of(Query((Term(Kind.PHOTO, str(id_)),)), given)

    @classmethod
    def _of(cls, query: Query, given: dict[str, Any], *, templates: tuple[str, ...] = ()) -> Asked:
        if given["diverse"] and given["offset"]:
            raise QueryError(
                "a diverse answer is one page: what comes after it can't be told", hint="leave offset out"
            )
        return cls(
            query,
            filter_of(given),
            given["k"],
            given["offset"],
            given["min_relevance"],
            given["diverse"],
            templates,
        )

    def showing(self, pictures: list[Pixels]) -> Asked:
        """Return this with the pictures that came along."""
        return replace(self, pictures=tuple((_name(at), one) for at, one in enumerate(pictures)))

    def answered(self, library: Library) -> Answer:
        """Ask the library for one photo more than this page ends with, which says whether there is another page."""
        vectors = dict(self.vectors)
        if self.pictures:
            names, images = zip(*self.pictures, strict=True)
            vectors |= dict(zip(names, library.image_vectors(np.stack(images)), strict=True))
        more = 0 if self.diverse else 1
        return library.answer(
            self.query,
            self.offset + self.k + more,
            filter=self.filter,
            min_relevance=self.min_relevance,
            diverse=self.diverse,
            templates=self.templates,
            vectors=vectors,
        )

    def page(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the page of an answer's document that was asked for."""
        end = self.offset + self.k
        more = len(document["hits"]) > end
        return {
            **document,
            "hits": document["hits"][self.offset : end],
            "offset": self.offset,
            "next_offset": end if more else None,
        }


def _refuse_labour(query: Query, templates: tuple[str, ...]) -> None:
    """Refuse a query that would keep the model busy for seconds: others wait for it."""
    texts = [term.value for term in query.of(Kind.TEXT)]
    prompts = len(texts) * max(1, len(templates))
    characters = sum(
        len(template) + template.count("{}") * len(text) for text in texts for template in templates or ("{}",)
    )
    if len(query.terms) > _MOST_TERMS or prompts > _MOST_PROMPTS or characters > _MOST_CHARACTERS:
        raise QueryError(
            f"the query is too long: it may have {_MOST_TERMS} terms, and its texts put into its templates may be "
            f"{_MOST_PROMPTS} prompts of {_MOST_CHARACTERS} characters together"
        )


def words(text: str) -> list[Term]:
    """Return the terms of a query in words. Raises QueryError for one that names a file."""
    terms = parse_query(text).terms
    if any(term.kind is Kind.IMAGE for term in terms):
        raise QueryError("photos are named by their ids here: like:12", hint="send other pictures along")
    return list(terms)


def _example(text: str, sign: int = 1) -> Term:
    found = _EXAMPLE.fullmatch(text)
    if found is None:
        raise QueryError(f"{text!r} is no id of a photo")
    weight = weight_of(found, text) if found["weight"] else 1.0
    return Term(Kind.PHOTO, found["id"], sign * weight)


def _shown(pictures: int, weights: list[float]) -> list[Term]:
    if len(weights) > pictures:
        raise QueryError(f"there are {len(weights)} image_weights for {pictures} pictures")
    weights = [*weights, *[1.0] * (pictures - len(weights))]
    if not all(weights):
        raise QueryError("an image_weight is 0", hint="leave the picture out")
    return [Term(Kind.VECTOR, _name(at), weight) for at, weight in enumerate(weights)]


def _name(at: int) -> str:
    return f"image-{at + 1}"


# ---- conditions


def filter_of(given: dict[str, Any]) -> Filter:
    """Return the filter that parameters ask for. Raises QueryError, UsageError."""
    parts: list[Node] = [parse(text) for text in given["where"]]
    if (folder := given["folder"]) is not None:
        if not os.path.isabs(folder) and not is_remote(folder):
            raise QueryError("folder is no absolute path")
        parts.append(parse_folder(folder))
    return Filter(
        after=_date("after", given["after"]),
        before=_date("before", given["before"]),
        camera=given["camera"],
        near=_place(given["near"]),
        labels=tuple(given["tag"]),
        where=And(tuple(parts)) if parts else None,
    )


def _date(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_date(text)[0]
    except ValueError:
        raise QueryError(f"{name} is no date; write 2024, 2024-05, 2024-05-01 or 2024-05-01T18:30+02:00") from None


def _place(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        latitude, longitude, km = map(float, text.split(","))
    except ValueError:
        raise QueryError("near is no LAT,LON,KM") from None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 <= km < float("inf")):
        raise QueryError("near is not on Earth")
    return latitude, longitude, km
