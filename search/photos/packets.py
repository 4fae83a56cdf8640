"""Keywords written into an XMP packet, and taken out again: bytes in, bytes out. No file is opened here.

What is added goes into the three properties that other software reads, and only there:

    digiKam:TagsList         rdf:Seq, levels parted by /      digiKam, immich
    lr:hierarchicalSubject   rdf:Bag, levels parted by |      Lightroom, darktable, digiKam
    dc:subject               rdf:Bag, the last level alone    everybody

Readers differ in which of them they look at, and some stop at the first: so each is made complete, with the keywords
that the photo has already as well. All other bytes of a packet stay as they are. Properties of our own say what was
added and where it comes from, so that it can be told from the user's own and taken out on any machine.

A level may hold the very character that parts levels: it is written as the other of the two, / for | and | for /, as
immich reads it.   The data model and the forms that a property may have: ISO 16684-1, sections 6 and 7.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.errors import PhotoError
from search.photos import keywords
from search.photos.keywords import Levels, alike
from search.photos.markup import Edit, Element, MarkupError, Name, attribute_at, before, edited, parse, text_of
from search.photos.sidecars import MAX_BYTES
from search.photos.xmp import OURS, RDF, SAME, WERE_EMPTY, added_to

NOT_XMP = "not_xmp"
"""Why a sidecar is left as it is: it is no XMP, or not of a form that can be added to safely."""

ROOT = "auto"
"""What labels stand below that nobody has accepted."""

_DC, _LR = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/lightroom/1.0/"
_DIGIKAM = "http://www.digikam.org/ns/1.0/"
_AROUND = "\0 \t\r\n"  # a packet, where it is
_CONTAINERS = ("Bag", "Seq", "Alt")
_SUBJECT = ((RDF, "about"), ("", "about"))
_NOTHING = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="search">\n'
    b' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    b" </rdf:RDF>\n"
    b"</x:xmpmeta>\n"
)
"""A packet of ours with nothing in it."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A label of a photo, as it is written.   root: what it stands below, "" for nothing.

    about: where it comes from, plain values that JSON has.
    """

    label: str
    root: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def levels(self) -> Levels:
        return keywords.levels(self.root, "/") + keywords.levels(self.label, "/")


@dataclass(frozen=True, slots=True)
class _Property:
    """One of the properties that hold keywords: how it is called, and how a keyword stands in it."""

    name: Name
    prefix: str
    container: str
    written: Callable[[Levels], str]
    read: Callable[[str], Levels]

    @property
    def local(self) -> str:
        return self.name[1]


_PROPERTIES = (
    _Property(
        (_DIGIKAM, "TagsList"),
        "digiKam",
        "Seq",
        lambda levels: "/".join(level.replace("/", "|") for level in levels),
        lambda text: keywords.levels(text, "/"),
    ),
    _Property(
        (_LR, "hierarchicalSubject"),
        "lr",
        "Bag",
        lambda levels: "|".join(level.replace("|", "/") for level in levels),
        lambda text: keywords.levels(text, "|"),
    ),
    _Property((_DC, "subject"), "dc", "Bag", lambda levels: levels[-1], lambda text: keywords.levels(text, None)),
)


def render(
    packet: bytes | None, tags: Sequence[Tag], existing: Iterable[str] = (), *, limit: int = MAX_BYTES
) -> bytes | None:
    """Return a packet with these tags in it; what it was where there are none.

    packet: what there was before anything of ours; None for a new one.   existing: the photo's own keywords, wherever
    they stand, by name ("animal/cat").   The same arguments give the same bytes.
    Raises PhotoError (NOT_XMP) for a packet that can't be added to.
    """
    ours = _distinct(tags)
    if not ours:
        return packet
    whole = _Packet.of(_NOTHING if packet is None else packet)
    own = [*(keywords.levels(name, "/") for name in existing)]
    rendered = whole.bytes_of(_Addition(whole).edits(ours, own))
    if len(rendered) > limit:
        raise PhotoError(NOT_XMP, f"it would have more than {limit} bytes")
    return rendered


def strip(packet: bytes, *, written: bytes | None = None) -> bytes | None:
    """Return a packet without anything of ours; None if nothing else is in it.   Raises PhotoError (NOT_XMP).

    written: what was made of it before other software changed it, which tells what is ours where the packet itself
    does not any more: not all software keeps properties it does not know.
    """
    whole = _Packet.of(packet)
    said = [whole] if written is None else [whole, _Packet.of(written)]
    stripped = whole.bytes_of(_removal(whole, said))
    return None if stripped == _NOTHING else stripped


def has_ours(packet: bytes) -> bool:
    """Say whether a packet may hold something of ours; without a look at its structure."""
    return any(OURS.encode(coding) in packet for coding in ("utf-8", "utf-16-le", "utf-16-be"))


def _distinct(tags: Sequence[Tag]) -> list[Tag]:
    """Return tags in the order they are written, without those that have no name or differ in case alone."""
    found: dict[Levels, Tag] = {}
    for tag in sorted(tags, key=lambda tag: (tag.root, tag.label)):
        if keywords.levels(tag.label, "/"):
            found.setdefault(_folded(tag.levels), tag)
    return list(found.values())


def _folded(levels: Levels) -> Levels:
    return tuple(alike(level) for level in levels)


# ---- a packet


@dataclass(frozen=True, slots=True)
class _Packet:
    """A packet taken apart; positions are those in `body`, which is UTF-8.

    head, tail: bytes around it that are no XML: byte order mark, zeros.   coding: what the packet is written in.
    """

    head: bytes
    body: bytes
    tail: bytes
    coding: str
    rdf: Element

    @classmethod
    def of(cls, packet: bytes) -> _Packet:
        """Raises PhotoError."""
        if len(packet) > MAX_BYTES:
            raise PhotoError(NOT_XMP, f"it has more than {MAX_BYTES} bytes")
        head, text, coding = _decoded(packet)
        body = text.strip(_AROUND)
        start = len(text) - len(text.lstrip(_AROUND))
        try:
            root = parse(body.encode())
        except (MarkupError, UnicodeEncodeError) as error:
            raise PhotoError(NOT_XMP, f"it can't be read as XMP: {error}") from error
        found = [element for element in root.walk() if element.name == (RDF, "RDF")]
        if len(found) != 1:
            raise PhotoError(NOT_XMP, "there is no XMP in it" if not found else "there are several packets in it")
        before_it, behind_it = text[:start], text[start + len(body) :]
        return cls(head + before_it.encode(coding), body.encode(), behind_it.encode(coding), coding, found[0])

    def bytes_of(self, edits: Iterable[Edit]) -> bytes:
        """Return the packet with some stretches replaced, in the coding it came in."""
        changed = edited(self.body, edits)
        return (
            self.head + (changed if self.coding == "utf-8" else changed.decode().encode(self.coding)) + self.tail
        )

    @property
    def properties(self) -> Iterator[tuple[Element, Element]]:
        """Yield each property that is an element, behind the description it is in."""
        for description in self.rdf.children:
            for element in description.children:
                yield description, element

    def values(self, name: Name) -> list[str]:
        """Return the values of a property, in whichever form it is written."""
        found = [
            description.attributes[name] for description in self.rdf.children if name in description.attributes
        ]
        for _, element in self.properties:
            if element.name == name:
                holder = _container(element)
                found += [item.text for item in (holder.children if holder else [element])]
        return [text for text in found if text.strip()]


def _decoded(packet: bytes) -> tuple[bytes, str, str]:
    """Return a packet's byte order mark, its text, and the coding.   Raises PhotoError."""
    marks = (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-8"),
    )
    mark, coding = next(pair for pair in marks if packet.startswith(pair[0]))
    try:
        text = packet[len(mark) :].decode(coding)
    except UnicodeDecodeError as error:
        raise PhotoError(NOT_XMP, "it is no UTF-8") from error
    declared = text[: text.find("?>")].lower() if text.startswith("<?xml ") else ""
    if "encoding" in declared and "utf-" not in declared:
        raise PhotoError(NOT_XMP, "it is declared to be something else than UTF-8")
    return mark, text, coding


def _container(element: Element) -> Element | None:
    """Return the Bag, Seq or Alt that a property's values are in, None where it has a single value."""
    return next((one for one in element.children if one.name[0] == RDF and one.name[1] in _CONTAINERS), None)


# ---- adding


class _Addition:
    """What is added to a packet: items where a property is, and a description of ours for all else."""

    def __init__(self, packet: _Packet) -> None:
        self._packet = packet
        self._edits: list[Edit] = []
        self._whole: list[tuple[_Property, list[str]]] = []  # properties that stand in our description
        self._added: dict[str, list[str]] = {}
        self._were_empty: list[str] = []

    def edits(self, tags: Sequence[Tag], own: Sequence[Levels]) -> list[Edit]:
        """own: keywords that the photo has in other places than this packet."""
        present = {one: self._packet.values(one.name) for one in _PROPERTIES}
        kept = _own_keywords(present, own)
        known = _spellings(kept)
        wanted = [*kept, *(_spelled(tag.levels, known) for tag in tags)]
        for one, texts in present.items():
            self._complete(one, texts, wanted)
        self._describe(tags)
        return self._edits

    def _complete(self, one: _Property, texts: list[str], wanted: Iterable[Levels]) -> None:
        """Add to a property what it lacks."""
        said = {alike(text) for text in texts}
        missing: dict[str, str] = {}
        for levels in wanted:
            text = one.written(levels)
            if alike(text) not in said:
                missing.setdefault(alike(text), text)
        if missing:
            self._added[one.local] = list(missing.values())
            self._put(one, list(missing.values()))

    def _put(self, one: _Property, new: list[str]) -> None:
        """Add values to a property where it is; one that is no list becomes one."""
        for description in self._packet.rdf.children:
            value = description.attributes.get(one.name)
            if value is not None:
                self._edits.append((*attribute_at(self._packet.body, description, one.name), b""))
                new = [value, *new] if value.strip() else new
        element = next((found for _, found in self._packet.properties if found.name == one.name), None)
        if element is None:
            self._whole.append((one, new))
        elif (holder := _container(element)) is not None:
            self._extend(one, holder, new)
        elif element.children or element.attributes:
            raise PhotoError(NOT_XMP, f"its {one.prefix}:{one.local} is not written as a list")
        else:
            self._listed(one, element, new)

    def _extend(self, one: _Property, holder: Element, new: list[str]) -> None:
        """Add items behind the last one, set as it is."""
        body, items = self._packet.body, [_item(holder.prefix, text) for text in new]
        if holder.children:
            last = holder.children[-1]
            space = body[before(body, last.start) : last.start]
            self._edits.append((last.end, last.end, b"".join(space + item for item in items)))
            return
        self._were_empty.append(one.local)
        if holder.is_one_tag:
            opened = body[holder.start : holder.opened - 2].rstrip()
            closed = f"</{holder.prefix}{holder.name[1]}>".encode()
            self._edits.append((holder.start, holder.end, opened + b">" + b"".join(items) + closed))
        else:
            self._edits.append((holder.opened, holder.opened, b"".join(items)))

    def _listed(self, one: _Property, element: Element, new: list[str]) -> None:
        """Make a list of a property with a single value."""
        texts = [element.text, *new] if element.text.strip() else new
        if texts is new:
            self._were_empty.append(one.local)
        opened = self._packet.body[element.start : element.opened].rstrip(b"/>").rstrip()
        # The list declares its namespace itself: which prefix stands for it at this place need not be known.
        inner = f'><rdf:{one.container} xmlns:rdf="{RDF}">'.encode()
        items = b"".join(_item("rdf:", text) for text in texts)
        closed = f"</rdf:{one.container}></{element.prefix}{element.name[1]}>".encode()
        self._edits.append((element.start, element.end, opened + inner + items + closed))

    def _describe(self, tags: Sequence[Tag]) -> None:
        """Add a description with the properties that were not there, and with what is ours."""
        body, rdf = self._packet.body, self._packet.rdf
        lines = [
            line for one, texts in self._whole for line in _property(one.prefix, one.local, one.container, texts)
        ]
        about = (json.dumps(_about(tag), ensure_ascii=False, sort_keys=True) for tag in tags)
        lines += _property(_PREFIX, "Labels", "Seq", list(about))
        for local, texts in self._added.items():
            lines += _property(_PREFIX, added_to(local), "Bag", texts)
        if self._were_empty:
            lines += _property(_PREFIX, WERE_EMPTY, "Bag", self._were_empty)
        spaces = {one.prefix: one.name[0] for one, _ in self._whole} | {_PREFIX: OURS}
        declared = "".join(f'\n    xmlns:{prefix}="{space}"' for prefix, space in spaces.items())
        subject = self._subject()
        opened = f'  <rdf:Description rdf:about="{subject}" xmlns:rdf="{RDF}"{declared}>\n'
        block = "".join([opened, *(f"   {line}\n" for line in lines), "  </rdf:Description>"]).encode()
        if rdf.is_one_tag:
            start = body[rdf.start : rdf.opened - 2].rstrip()
            closed = f"</{rdf.prefix}RDF>".encode()
            self._edits.append((rdf.start, rdf.end, start + b">\n" + block + b"\n" + closed))
        else:
            at = rdf.children[-1].end if rdf.children else rdf.opened
            self._edits.append((at, at, b"\n" + block))

    def _subject(self) -> str:
        """Return what the packet is about, as it says itself: descriptions of one packet must agree."""
        for description in self._packet.rdf.children:
            for name in _SUBJECT:
                if said := description.attributes.get(name):
                    return text_of(said).replace('"', "&quot;")
        return ""


_PREFIX = "searchLabels"


def _property(prefix: str, local: str, container: str, texts: Sequence[str]) -> list[str]:
    """Return the lines of a property that is a list."""
    items = [f"  <rdf:li>{text_of(text)}</rdf:li>" for text in texts]
    name = f"{prefix}:{local}"
    return [f"<{name}>", f" <rdf:{container}>", *items, f" </rdf:{container}>", f"</{name}>"]


def _item(prefix: str, text: str) -> bytes:
    return f"<{prefix}li>{text_of(text)}</{prefix}li>".encode()


def _about(tag: Tag) -> dict[str, Any]:
    """Return what is told of a tag, of its texts only what XML can hold."""
    told = {name: value for name, value in tag.about.items() if value is not None}
    told |= {"label": tag.label, "keyword": "/".join(tag.levels)}
    return {name: keywords.printable(v) if isinstance(v, str) else v for name, v in told.items()}


def _own_keywords(present: Mapping[_Property, list[str]], own: Sequence[Levels]) -> list[Levels]:
    """Return the keywords a photo has, in the packet or elsewhere, each in its longest form."""
    written = [one.read(text) for one, texts in present.items() for text in texts]
    named = {alike("/".join(levels)) for levels in written}
    other = (levels for levels in own if alike("/".join(levels)) not in named)
    return keywords.longest([*written, *other])


def _spellings(kept: Iterable[Levels]) -> dict[Levels, Levels]:
    """Return how each keyword, and each above it, is spelled already."""
    known: dict[Levels, Levels] = {}
    for levels in kept:
        for depth in range(1, len(levels) + 1):
            known.setdefault(_folded(levels[:depth]), levels[:depth])
    return known


def _spelled(levels: Levels, known: Mapping[Levels, Levels]) -> Levels:
    """Return a keyword below the one that is there, if that differs in case alone: no "Animal" beside "animal"."""
    for depth in range(len(levels), 0, -1):
        if spelled := known.get(_folded(levels[:depth])):
            return spelled + levels[depth:]
    return levels


# ---- taking out


def _removal(packet: _Packet, said: Sequence[_Packet]) -> Iterator[Edit]:
    """Yield what takes out all that is ours, and nothing where there is none of it.   said: those that tell what is."""
    added = {name: {alike(text) for one in said for text in one.values((OURS, added_to(name)))} for name in SAME}
    were_empty = {name for one in said for name in one.values((OURS, WERE_EMPTY))}
    body = packet.body
    for description in packet.rdf.children:
        left = len(description.children)
        held_ours = False
        inner: list[Edit] = []
        for element in description.children:
            if element.name[0] == OURS:
                held_ours = True
                gone = True
            else:
                gone, items = _emptied(body, element, added, kept=element.name[1] in were_empty)
                inner += [] if gone else items
                held_ours = held_ours or gone
            if gone:
                left -= 1
                inner.append((before(body, element.start), element.end, b""))
        attributes = [name for name in description.attributes if name[0] == OURS]
        inner += [(*attribute_at(body, description, name), b"") for name in attributes]
        held_ours = held_ours or bool(attributes)
        others = set(description.attributes) - set(attributes) - set(_SUBJECT)
        if held_ours and not left and not others:
            yield before(body, description.start), description.end, b""
        else:
            yield from inner


def _emptied(
    body: bytes, element: Element, added: Mapping[str, set[str]], *, kept: bool
) -> tuple[bool, list[Edit]]:
    """Return whether a property was all ours, and what takes out our values.   kept: though it be empty."""
    names = next((added[name] for name, same in SAME.items() if element.name in same), set())
    if not names:
        return False, []
    holder = _container(element)
    if holder is None:  # a value, as some write a list of one, or what is left of a list
        alone = not element.children and not element.attributes
        return alone and not kept and (not element.text.strip() or alike(element.text) in names), []
    ours = [item for item in holder.children if alike(item.text) in names]
    if len(ours) == len(holder.children) and not kept:
        return True, []
    return False, [(before(body, item.start), item.end, b"") for item in ours]
