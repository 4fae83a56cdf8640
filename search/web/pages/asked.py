"""What an address of the pages asks for, and the addresses that ask for a little more, less, or something beside it.

All there is to a search stands in the address, so that any page of it can be linked to, reloaded and gone back to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from search.errors import QueryError
from search.query import WEIGHT, Kind, Query, Term, weight_of
from search.web import api
from search.web.asking import Parameter, Schema, of_address
from search.web.querying import Asked, filter_of, words

if TYPE_CHECKING:
    from search.types import Filter
    from search.web.pictures import Pictures, Sent

PAGE = 60
"""Photos on one page of results."""

WEIGHTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0, 3.0)
"""What a term's weight goes through, step by step."""

_PICTURE: Schema = {"type": "string", "pattern": r"^-?([0-9]{1,3}(\.[0-9]{1,3})?:)?[0-9a-f]{32}$", "maxLength": 48}
_FLAG: Schema = {"type": "string", "maxLength": 1}
PARAMETERS = (
    next(one for one in api.SEARCH if one.name == "q"),
    *(one for one in api.FILTER if one.name in ("folder", "after", "before", "camera", "near", "tag", "where")),
    Parameter("picture", {"type": "array", "items": _PICTURE, "maxItems": 8}, "A picture that was sent."),
    Parameter("all", _FLAG, "Photos below the usual cut, too."),
    Parameter("apart", _FLAG, "Photos that show the same side by side."),
    Parameter("offset", {"type": "integer", "minimum": 0, "maximum": api.MOST - 1}, "How many to pass over.", 0),
    Parameter(
        "at", {"type": "integer", "minimum": 0, "maximum": api.MOST + PAGE}, "A photo's place in the results."
    ),
)
_FILTERS = ("folder", "after", "before", "camera", "near", "tag", "where")
_WEIGHED = re.compile(f"(?P<sign>-?)(?:{WEIGHT})?(?P<key>[0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Address:
    """The query of an address as pairs, without what says nothing."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, query: QueryParams) -> Address:
        """Return what is known here of a request's query; a form sends empty fields, and others put in their own."""
        known = {one.name for one in PARAMETERS}
        return cls(tuple((name, text) for name, text in query.multi_items() if name in known and text.strip()))

    def but(self, **values: str | Sequence[str] | None) -> Address:
        """Return this with other values of some names; None: without. It begins at the first page again."""
        left = [pair for pair in self.pairs if pair[0] not in values and pair[0] not in ("offset", "at")]
        for name, value in values.items():
            texts = [value] if isinstance(value, str) else value or ()
            left += [(name, text) for text in texts if text]
        return Address(tuple(left))

    def plus(self, name: str, text: str) -> Address:
        """Return this with one more value of a name that may be there several times."""
        return self.but(**{name: [*dict.fromkeys([*self.all(name), text])]})

    def minus(self, name: str, text: str) -> Address:
        """Return this without one of the values of a name."""
        return self.but(**{name: [other for other in self.all(name) if other != text]})

    def all(self, name: str) -> list[str]:
        """Return the values of a name."""
        return [text for other, text in self.pairs if other == name]

    def others(self, *names: str) -> list[tuple[str, str]]:
        """Return the pairs that a form must carry along which has fields of these names."""
        return [pair for pair in self.pairs if pair[0] not in (*names, "offset", "at")]

    def query(self) -> str:
        """Return what stands behind the question mark."""
        return urlencode(self.pairs, errors="replace")

    def url(self, path: str = "/") -> str:
        """Return the address of a page that is asked for this."""
        return f"{path}?{self.query()}" if self.pairs else path


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page as it was asked for.

    terms: what to look for, pictures that were sent as Kind.VECTOR by their keys; none: everything, by time.
    given: of PARAMETERS, by name.   sent: the pictures, by key.
    """

    address: Address
    terms: tuple[Term, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    sent: Mapping[str, Sent] = field(default_factory=dict)

    @classmethod
    def of(cls, address: Address, pictures: Pictures) -> Wanted:
        """Read an address. Raises Problem, QueryError."""
        given = of_address(QueryParams(list(address.pairs)), PARAMETERS)
        terms = [*(words(given["q"]) if given["q"] else ()), *map(_picture, given["picture"])]
        sent = {term.value: pictures.get(term.value) for term in terms if term.kind is Kind.VECTOR}
        if None in sent.values():
            raise QueryError("a picture of this search is not here any more: drop it again")
        return cls(address, tuple(terms), given, {key: one for key, one in sent.items() if one})

    @property
    def filter(self) -> Filter:
        """What photos must be. Raises QueryError, UsageError."""
        return filter_of(dict(self.given))

    @property
    def is_filtered(self) -> bool:
        """Whether photos must be anything."""
        return any(self.given[name] for name in _FILTERS)

    @property
    def offset(self) -> int:
        return int(self.given["offset"])

    def asked(self, *, offset: int, k: int) -> Asked:
        """Return the search for so many photos. Raises QueryError, UsageError."""
        cut = 0.0 if self.given["all"] else None
        given = {**self.given, "offset": offset, "k": k, "min_relevance": cut, "diverse": False}
        vectors = {key: one.vector for key, one in self.sent.items()}
        return Asked.of_terms(self.terms, given, vectors=vectors)

    # ---- addresses of searches beside this one

    def with_terms(self, terms: Sequence[Term]) -> Address:
        """Return where the same is looked for with other terms."""
        spoken = tuple(term for term in terms if term.kind is not Kind.VECTOR)
        pictures = [_spelled(term) for term in terms if term.kind is Kind.VECTOR]
        return self.address.but(q=str(Query(spoken)) if spoken else None, picture=pictures)

    def without(self, place: int) -> Address:
        """Return where a term is not looked for."""
        return self.with_terms([*self.terms[:place], *self.terms[place + 1 :]])

    def weighed(self, place: int, steps: int) -> Address | None:
        """Return where a term weighs a step more or less; None where there is none further."""
        term = self.terms[place]
        beyond = [weight for weight in WEIGHTS if (weight > term.weight if steps > 0 else weight < term.weight)]
        if not beyond:
            return None
        other = Term(term.kind, term.value, beyond[0] if steps > 0 else beyond[-1])
        return self.with_terms([*self.terms[:place], other, *self.terms[place + 1 :]])

    def like(self, id_: int, weight: float) -> Address:
        """Return where photos more like one are looked for, or less with a negative weight."""
        others = [term for term in self.terms if (term.kind, term.value) != (Kind.PHOTO, str(id_))]
        return self.with_terms([*others, Term(Kind.PHOTO, str(id_), weight)])


def _picture(text: str) -> Term:
    found = _WEIGHED.fullmatch(text)
    if found is None:
        raise QueryError("a picture is not named as it should be")
    weight = weight_of(found, "a picture") if found["weight"] else 1.0
    return Term(Kind.VECTOR, found["key"], -weight if found["sign"] else weight)


def _spelled(term: Term) -> str:
    sign = "-" if term.weight < 0 else ""
    return f"{sign}{term.value}" if abs(term.weight) == 1 else f"{sign}{abs(term.weight):g}:{term.value}"
