"""XML as the bytes it is: where each element stands, so that a few can be changed and all others stay as they are.

A parser that builds a tree and writes it anew changes quotes, line ends, entities and the order of declarations. This
one only tells positions. It takes neither DTDs nor entities beyond XML's own five, and opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

Name = tuple[str, str]
"""A namespace and a local name."""

MAX_ELEMENTS = 200_000
_TAG = re.compile(rb"""<(?:[^'">]|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=>/]+)\s*=\s*("[^"]*"|'[^']*')""")
_SPACE = b" \t\r\n"


class MarkupError(ValueError):
    """This is no XML, or of a kind that is not taken."""


@dataclass(slots=True)
class Element:
    """An element and where it is: `start` to `opened` its start tag, `closing` to `end` its end tag.

    prefix: with its colon, "" without.   opened == closing == end where one tag is all there is.
    attributes: by name; `raw` has them as they are written, with their prefixes.
    """

    name: Name
    prefix: str
    start: int
    opened: int
    attributes: dict[Name, str]
    raw: dict[Name, str]
    closing: int = 0
    end: int = 0
    text: str = ""
    children: list[Element] = field(default_factory=list)

    @property
    def is_one_tag(self) -> bool:
        return self.closing == self.end

    def walk(self) -> Iterator[Element]:
        """Yield this element and all below it, in the order they stand."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting += reversed(element.children)


def parse(data: bytes) -> Element:
    """Return the root of an XML document, UTF-8.   Raises MarkupError."""
    return _Positions(data).root()


class _Positions:
    """Builds elements from what expat tells, with bounds on how much of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._found: Element | None = None
        self._open: list[Element] = []
        self._count = 0
        self._parser = parser = expat.ParserCreate("utf-8", namespace_separator=" ")
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse

    def root(self) -> Element:
        try:
            self._parser.Parse(self._data, True)
        except expat.ExpatError as error:
            raise MarkupError(str(error)) from error
        assert self._found is not None
        return self._found

    def _refuse(self, *_: object) -> None:
        raise MarkupError("it has a DTD")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise MarkupError(f"it has more than {MAX_ELEMENTS} elements")
        start = self._parser.CurrentByteIndex
        tag = _TAG.match(self._data, start)
        assert tag is not None
        names = {raw: _name(raw) for raw in attributes}
        element = Element(
            *_name(name),
            start,
            tag.end(),
            {named: attributes[raw] for raw, (named, _) in names.items()},
            {named: f"{prefix}{named[1]}" for named, prefix in names.values()},
        )
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._found = element
        self._open.append(element)

    def _end(self, _: str) -> None:
        element = self._open.pop()
        if self._data.endswith(b"/>", element.start, element.opened):
            element.closing = element.end = element.opened
            return
        element.closing = self._parser.CurrentByteIndex
        element.end = self._data.index(b">", element.closing) + 1

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text


def _name(told: str) -> tuple[Name, str]:
    """Return namespace and local name of what expat tells, and the prefix with its colon."""
    space, _, rest = told.rpartition(" ")
    if not space:
        return ("", rest), ""
    if " " in space:
        space, _, local = space.rpartition(" ")
        return (space, local), f"{rest}:"
    return (space, rest), ""


Edit = tuple[int, int, bytes]
"""From, to, and what comes in their place."""


def edited(data: bytes, edits: Iterable[Edit]) -> bytes:
    """Return data with some stretches replaced; of those at one place in the order given."""
    parts, at = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        parts += [data[at:start], new]
        at = max(at, end)
    return b"".join([*parts, data[at:]])


def before(data: bytes, at: int) -> int:
    """Return where the white space begins that stands before a place."""
    while at and data[at - 1] in _SPACE:
        at -= 1
    return at


def attribute_at(data: bytes, element: Element, name: Name) -> tuple[int, int]:
    """Return where an attribute of an element stands, with the white space before it."""
    raw = element.raw[name].encode()
    tag = data[element.start : element.opened]
    at = next(found for found in _ATTRIBUTE.finditer(tag) if found[1] == raw)
    return element.start + at.start(), element.start + at.end()


def text_of(text: str) -> str:
    """Return text as it is written between tags."""
    return escape(text)
