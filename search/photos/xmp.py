"""An XMP packet -> the properties that matter here, as text. No file is opened here.

Packets come from anybody: they are parsed without DTDs, entities or anything external, and one that is no XML says
nothing. The data model: ISO 16684-1; the properties: XMP specification part 2, Exif 3.0 for XMP, and those of
Lightroom, digiKam and Windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from search.photos.keywords import alike
from search.photos.sidecars import MAX_BYTES

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RDF = f"{{{RDF}}}"
_CONTAINERS = frozenset(_RDF + name for name in ("Bag", "Seq", "Alt"))
_MAX_ITEMS = 1000  # of one property

OURS = "http://search.invalid/ns/labels/1.0/"
"""The namespace of what `search.photos.packets` says of the keywords it added."""
WERE_EMPTY = "WereEmpty"
"""The property there that names those which were there without a value."""

_PREFIXES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://cipa.jp/exif/1.0/": "exifEX",
    "http://ns.adobe.com/exif/1.0/aux/": "aux",
    "http://ns.adobe.com/lightroom/1.0/": "lr",
    "http://www.digikam.org/ns/1.0/": "digiKam",
    "http://ns.microsoft.com/photo/1.0/": "MicrosoftPhoto",
    "http://ns.microsoft.com/photo/1.0": "MicrosoftPhoto",
    OURS: "ours",
}

# Where else software writes the keywords that it reads in one of the properties we write, in the same form.
SAME = {
    "TagsList": (
        ("http://www.digikam.org/ns/1.0/", "TagsList"),
        ("http://ns.microsoft.com/photo/1.0/", "LastKeywordXMP"),
        ("http://ns.microsoft.com/photo/1.0", "LastKeywordXMP"),
    ),
    "hierarchicalSubject": (
        ("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject"),
        ("http://ns.adobe.com/lightroom/1.0/", "HierarchicalSubject"),
        ("http://ns.iview-multimedia.com/mediapro/1.0/", "CatalogSets"),
    ),
    "subject": (("http://purl.org/dc/elements/1.1/", "subject"),),
}


def added_to(local: str) -> str:
    """Return the name of our property that lists what was added to another."""
    return f"Added{local[0].upper()}{local[1:]}"


Properties = Mapping[str, list[str]]
"""What a packet says, by names such as "dc:subject"; a property without a list has one value."""


def properties(packet: bytes) -> Properties:
    """Return the properties of a packet; none of one that is no XMP."""
    root = _parsed(packet)
    found: dict[str, list[str]] = {}
    if root is None:
        return found
    for rdf in root.iter(_RDF + "RDF"):
        for description in rdf:
            for name, values in _of(description):
                if known := _short(name):
                    found.setdefault(known, values)
    return _without_ours(found)


def _without_ours(found: dict[str, list[str]]) -> Properties:
    """Return properties without the keywords that this package wrote: they are labels, not the file's own keywords."""
    if not any(name.startswith("ours:") for name in found):
        return found
    were_empty = found.get(f"ours:{WERE_EMPTY}", ())
    for local, places in SAME.items():
        ours = {alike(text) for text in found.get(f"ours:{added_to(local)}", ())}
        for space, name in places:
            known = _short(f"{{{space}}}{name}")
            if ours and known in found:
                found[known] = [text for text in found[known] if alike(text) not in ours]
                if not found[known] and name not in were_empty:
                    del found[known]
    return found


def _parsed(packet: bytes) -> Element | None:
    """Return the root of a packet; text that is not the encoding it should be costs only its own characters."""
    if not packet or len(packet) > MAX_BYTES:
        return None
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    stripped = packet.strip(b"\0 \t\r\n")
    for text in (stripped, stripped.decode("utf-8", "replace").replace("\0", "")):
        try:
            root: Element = fromstring(text, forbid_dtd=True)
        except DefusedXmlException:
            return None
        except (ParseError, ValueError, LookupError):
            continue
        return root
    return None


def _of(description: Element) -> Iterator[tuple[str, list[str]]]:
    """Yield the properties of a description, written as attributes or as elements."""
    for name, value in description.attrib.items():
        yield name, [value]
    for element in description:
        lists = [child for child in element if child.tag in _CONTAINERS]
        items = lists[0] if lists else (element,)
        yield element.tag, [item.text for item in list(items)[:_MAX_ITEMS] if item.text]


def _short(name: str) -> str | None:
    space, _, local = name[1:].partition("}")
    prefix = _PREFIXES.get(space)
    return f"{prefix}:{local}" if prefix else None
