"""Keywords into XMP packets and out again: which are added, and that nothing else changes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from other_software import DARKTABLE, DIGIKAM, IMMICH, LIGHTROOM, STYLES

from search.errors import PhotoError
from search.photos import keywords, markup
from search.photos.packets import Tag, has_ours, render, strip
from search.photos.sidecars import MAX_BYTES
from search.photos.xmp import properties

TAGS = (Tag("animal/cat", "auto"), Tag("animal/dog"))
PROPERTIES = ("digiKam:TagsList", "lr:hierarchicalSubject", "dc:subject")
HEAD = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
)
TAIL = "</rdf:Description></rdf:RDF></x:xmpmeta>"

styles = pytest.mark.parametrize("packet", STYLES.values(), ids=list(STYLES))


def packet(inner: str = "", attributes: str = "") -> bytes:
    return f"{HEAD} {attributes}>{inner}{TAIL}".encode()


def written(content: bytes) -> list[list[str]]:
    """What other software reads in the three properties."""
    plain = content.replace(b"http://search.invalid/ns/labels/1.0/", b"http://else.invalid/")
    if content.startswith(b"\xff\xfe"):
        plain = content.decode("utf-16").replace("search.invalid", "else.invalid").encode()
    found = properties(plain)
    return [found.get(name, []) for name in PROPERTIES]


def test_a_new_packet_has_the_tags_in_all_three_properties():
    content = render(None, TAGS)
    assert written(content) == [
        ["animal/dog", "auto/animal/cat"],
        ["animal|dog", "auto|animal|cat"],
        ["dog", "cat"],
    ]


def test_keywords_a_photo_has_elsewhere_are_in_all_three_too():
    """A reader that looks at the first property of a sidecar must not lose those in the photo itself."""
    content = render(None, TAGS[:1], ["holiday/sea", "sun"])
    assert written(content) == [
        ["holiday/sea", "sun", "auto/animal/cat"],
        ["holiday|sea", "sun", "auto|animal|cat"],
        ["sea", "sun", "cat"],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            DARKTABLE,
            [
                ["darktable|format|jpg", "places/Greece/sea", "animal/dog", "auto/animal/cat"],
                ["places|Greece|sea", "darktable/format/jpg", "animal|dog", "auto|animal|cat"],
                ["darktable|format|jpg", "sea", "dog", "cat"],
            ],
        ),
        (
            LIGHTROOM,
            [["animal/dog", "auto/animal/cat"], ["animal|dog", "auto|animal|cat"], ["animal", "dog", "cat"]],
        ),
        (
            DIGIKAM,
            [
                ["Orte/Föhr", "animal/Cat", "animal/dog", "auto/animal/cat"],
                ["Orte|Föhr", "animal|Cat", "animal|dog", "auto|animal|cat"],
                ["Föhr", "Cat", "dog"],
            ],
        ),
        (
            IMMICH,
            [
                ["people/Ann & Bob", "animal/dog", "auto/animal/cat"],
                ["people|Ann & Bob", "animal|dog", "auto|animal|cat"],
                ["Ann & Bob", "dog", "cat"],
            ],
        ),
    ],
    ids=["darktable", "lightroom", "digikam", "immich"],
)
def test_a_packet_gets_what_each_property_lacks(text, expected):
    found = written(render(text.encode(), TAGS))
    assert [sorted(one) for one in found] == [sorted(one) for one in expected]


@styles
def test_nothing_else_in_a_packet_changes(packet):
    """What is written is what was there with stretches put in, none taken out or changed."""
    content = render(packet, TAGS, ["holiday/sea"])
    rest = iter(content)
    assert all(byte in rest for byte in packet)
    assert strip(content) == packet


@styles
def test_writing_twice_gives_the_same_bytes(packet):
    once = render(packet, TAGS, ["holiday/sea"])
    assert render(packet, tuple(reversed(TAGS)), ["holiday/sea"]) == once
    assert render(strip(once), TAGS, ["holiday/sea"]) == once


@styles
def test_no_tags_leave_a_packet_as_it_is(packet):
    assert render(packet, (), ["holiday/sea"]) is packet
    assert render(packet, [Tag(" / "), Tag("\u200b")]) is packet


@styles
def test_our_own_reader_does_not_take_what_we_wrote_for_the_photos_keywords(packet):
    before, after = properties(packet), properties(render(packet, TAGS, ["holiday/sea"]))
    assert {name: values for name, values in after.items() if not name.startswith("ours:")} == before
    new = properties(render(None, TAGS, ["holiday/sea"]))
    assert not [name for name in new if not name.startswith("ours:")]


def test_taking_out_of_a_packet_of_ours_leaves_none():
    assert strip(render(None, TAGS, ["holiday/sea"])) is None


@styles
def test_taking_out_of_a_packet_without_ours_changes_nothing(packet):
    assert strip(packet) == packet
    assert not has_ours(packet)
    assert has_ours(render(packet, TAGS))


@pytest.mark.parametrize(
    "inner",
    [
        "<dc:subject><rdf:Bag/></dc:subject>",
        "<dc:subject><rdf:Bag></rdf:Bag></dc:subject>",
        "<dc:subject>sea</dc:subject>",
        "<dc:subject/>",
        "<dc:subject><rdf:Alt><rdf:li>sea</rdf:li></rdf:Alt></dc:subject>",
    ],
)
def test_every_form_of_a_property_takes_keywords(inner):
    sea = ["sea"] if "sea" in inner else []
    content = render(packet(inner), TAGS)
    assert written(content)[2] == [*sea, "dog", "cat"]
    assert properties(strip(content)).get("dc:subject", []) == sea
    assert properties(content).get("dc:subject") == properties(packet(inner)).get("dc:subject", sea)


def test_a_property_written_as_an_attribute_becomes_a_list():
    content = render(packet(attributes='dc:subject="sea &amp; sun" dc:format="x"'), TAGS)
    assert written(content)[2] == ["sea & sun", "dog", "cat"]
    assert content.count(b'"sea &amp; sun"') == 0
    assert properties(strip(content))["dc:subject"] == ["sea & sun"]
    assert properties(content)["dc:format"] == ["x"]


def test_prefixes_may_be_any():
    text = LIGHTROOM.replace("rdf:", "r:").replace("xmlns:rdf", "xmlns:r").replace("dc:", "d:")
    before = text.replace("xmlns:dc", "xmlns:d").encode()
    content = render(before, TAGS)
    assert written(content)[2] == ["animal", "dog", "cat"]
    assert strip(content) == before


def test_descriptions_of_one_packet_speak_of_the_same_thing():
    content = render(STYLES["rated only"], TAGS)
    assert content.count(b'rdf:about="uuid:f0"') == 2


def test_a_keyword_is_not_written_in_another_case_beside_itself():
    composed, apart = "caf\u00e9", "cafe\u0301"
    inner = f"<dc:subject><rdf:Bag><rdf:li>CAT</rdf:li><rdf:li>{composed}</rdf:li></rdf:Bag></dc:subject>"
    content = render(packet(inner), [Tag("cat"), Tag(apart), Tag("Cat")])
    assert written(content) == [["CAT", composed], ["CAT", composed], ["CAT", composed]]
    assert written(render(DIGIKAM.encode(), [Tag("orte/Sylt")]))[0][-1] == "Orte/Sylt"


def test_a_separator_in_a_level_is_written_as_the_other_one():
    content = render(packet("<dc:subject><rdf:Bag><rdf:li>AC/DC</rdf:li></rdf:Bag></dc:subject>"), [Tag("a|b/c")])
    assert written(content) == [["AC|DC", "a|b/c"], ["AC/DC", "a/b|c"], ["AC/DC", "c"]]


def test_where_a_label_comes_from_is_told():
    about = {"encoder": "builtin", "score": 0.25, "run": 7, "templates": None}
    told = properties(render(None, [Tag("cat", "auto", about)]))["ours:Labels"]
    assert json.loads(told[0]) == {
        "encoder": "builtin",
        "score": 0.25,
        "run": 7,
        "label": "cat",
        "keyword": "auto/cat",
    }


def test_what_other_software_copied_of_ours_is_taken_out_too():
    content = render(DIGIKAM.encode(), TAGS[:1])
    item = b"\n     <rdf:li>auto/animal/cat</rdf:li>"
    copied = content.replace(b"animal/Cat</rdf:li>\n    </rdf:Bag>", b"animal/Cat</rdf:li>" + item + b"</rdf:Bag>")
    assert copied != content
    assert item not in strip(copied)
    assert "auto/animal/cat" not in properties(copied)["MicrosoftPhoto:LastKeywordXMP"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not XML",
        b"<html/>",
        b"\xff\xfe\x00",
        packet("<dc:subject>\xff</dc:subject>").replace("ÿ".encode(), b"\xff"),
        packet()[:-20],
        b'<!DOCTYPE x [<!ENTITY e "cat">]>' + packet("<dc:subject>&e;</dc:subject>"),
        b'<?xml version="1.0" encoding="ISO-8859-1"?>' + packet(),
        packet("<dc:subject rdf:parseType='Resource'><rdf:value>sea</rdf:value></dc:subject>"),
        packet() + b" " * MAX_BYTES,
    ],
)
def test_what_is_no_xmp_is_refused(content):
    with pytest.raises(PhotoError) as caught:
        render(content, TAGS)
    assert caught.value.reason == "not_xmp"


def test_a_packet_of_too_many_elements_is_refused(monkeypatch):
    monkeypatch.setattr(markup, "MAX_ELEMENTS", 99)
    with pytest.raises(PhotoError, match="99 elements"):
        render(packet("<x>" * 98 + "</x>" * 98), TAGS)


def test_a_packet_that_would_grow_beyond_what_is_read_is_refused():
    with pytest.raises(PhotoError):
        render(packet(), TAGS, limit=len(packet()))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([None, *STYLES.values()]),
    st.lists(st.tuples(texts, st.sampled_from(["", "auto", "ä|/b"])), max_size=4),
    st.lists(texts, max_size=3),
)
def test_any_name_is_written_and_taken_out_again(before, named, existing):
    content = render(before, [Tag(label, root) for label, root in named], existing)
    levels = [keywords.levels(label, "/") for label, _ in named]
    if not any(levels):
        assert content is before
        return
    assert strip(content) == before
    tags, trees, leaves = written(content)
    for found, (label, root) in zip(levels, named, strict=True):
        if found:
            whole = [keywords.alike(level) for level in keywords.levels(f"{root}/{label}", "/")]
            assert "/".join(whole) in [keywords.alike(text) for text in tags]
            assert "|".join(part.replace("|", "/") for part in whole) in [keywords.alike(text) for text in trees]
            assert whole[-1] in [keywords.alike(text) for text in leaves]


@pytest.mark.programs
@pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not here")
def test_exiftool_reads_what_is_written_and_keeps_what_is_ours(tmp_path: Path):
    """In what it wrote itself, too; and what it changes later leaves ours to be taken out."""
    tags = [Tag("<a>&\"'|b/ü 猫", "auto"), Tag("animal/dog")]
    readable = {name: content for name, content in STYLES.items() if name != "utf-16"}
    files = {name: tmp_path / f"{number}.xmp" for number, name in enumerate([*readable, "exiftool"])}
    for name, content in readable.items():
        files[name].write_bytes(content)
    _exiftool("-XMP-dc:Subject=sea", "-XMP-dc:Title=x", "-XMP-xmp:Rating=2", str(files["exiftool"]))
    befores = {name: path.read_bytes() for name, path in files.items()}
    for path in files.values():
        path.write_bytes(render(path.read_bytes(), tags))
    names = [str(path) for path in files.values()]
    read = json.loads(_exiftool("-j", "-struct", "-XMP:TagsList", "-XMP:HierarchicalSubject", "-Subject", *names))
    for told in read:
        assert {"animal/dog", "auto/<a>&\"'|b/ü 猫"} <= set(told["TagsList"])
        assert {"animal|dog", "auto|<a>&\"'/b|ü 猫"} <= set(told["HierarchicalSubject"])
        assert {"dog", "ü 猫"} <= set(told["Subject"])
    _exiftool("-overwrite_original", "-XMP-dc:Creator=somebody", *names)
    for name, path in files.items():
        changed = strip(path.read_bytes())
        told = {key: value for key, value in properties(changed).items() if key != "dc:creator"}
        assert told == properties(befores[name])


def _exiftool(*arguments: str) -> str:
    ran = subprocess.run(["exiftool", "-q", *arguments], capture_output=True, text=True, check=True)
    return ran.stdout
