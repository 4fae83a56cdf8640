"""The language of conditions: what it reads, what it says of mistakes, and its page of examples."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from search import Filter
from search.catalog import Catalog
from search.catalog.rows import MAX_PARAMETERS
from search.catalog.scan import ScannedFile, Verdict
from search.catalog.storage import CATALOG_NAME
from search.catalog.writer import Record
from search.conditions import (
    And,
    Called,
    Has,
    InBox,
    InFolder,
    Labelled,
    Measured,
    Named,
    Near,
    Node,
    Not,
    Or,
    Taken,
    condition_of,
    distance_km,
)
from search.errors import QueryError
from search.types import FileStat, LabelledPhoto, LabelScore, Photo, PhotoInfo, TakenAtSource
from search.where import MAX_DEPTH, MAX_TESTS, parse, parse_date, parse_folder

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "filters.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Model:
    name: str = "one"
    fingerprint: str = "1" * 64
    dim: int = 2
    context_length: int = 77
    logit_scale: float = 100.0
    logit_bias: float | None = None


@dataclass(frozen=True)
class Made:
    """A photo for a catalog: its place below /photos and what is known of it."""

    place: str
    info: PhotoInfo
    size_bytes: int = 1
    labels: tuple[str, ...] = ()


def make_catalog(folder: Path, made: list[Made]) -> Catalog:
    catalog = Catalog(str(folder))
    catalog.create()
    with catalog.writing() as writer:
        scope = writer.add_source("/photos", is_folder=True)
        stats = [FileStat(f"/photos/{photo.place}", photo.size_bytes, 1) for photo in made]
        records = [
            Record(
                ScannedFile(scope.root_id, os.fsencode(photo.place), stat, Verdict.NEW, None),
                bytes(32),
                photo.info,
            )
            for photo, stat in zip(made, stats, strict=True)
        ]
        ids = writer.add(records, np.tile(np.float32([1, 0]), (len(made), 1)), writer.register(Model()))
        labelled = [
            LabelledPhoto("", tuple(LabelScore(label, 1, 1) for label in photo.labels), id_)
            for photo, id_ in zip(made, ids, strict=True)
        ]
        labelled = [photo for photo in labelled if photo.labels]
        if labelled:
            writer.put_labels(
                labelled, sorted({s.label for p in labelled for s in p.labels}), source="user", encoder_id=None
            )
    return catalog


# ---- the page of examples


def rows(section: str) -> list[list[str]]:
    """The cells of the table after a mark, without its head."""
    after = PAGE.partition(f"<!-- {section} -->")[2].partition("<!--")[0]
    lines = re.findall(r"^\| (.*) \|$", after, re.MULTILINE)
    return [
        [cell.strip() for cell in f" {line} ".split(" | ")] for line in lines[1:] if not line.startswith("---")
    ]


def pictured(cells: list[str]) -> Made:
    place, taken, camera, lens, gps, pixels, size, format_, rating, labels = cells
    latitude, longitude = map(float, gps.split(",")) if gps else (None, None)
    width, height = map(int, pixels.split("×"))
    info = PhotoInfo(
        format=format_,
        width=width,
        height=height,
        taken_at=parse_date(taken)[0] if taken else None,
        taken_at_source=TakenAtSource.EXIF if taken else None,
        camera=camera or None,
        lens=lens or None,
        latitude=latitude,
        longitude=longitude,
        rating=int(rating) if rating else None,
    )
    return Made(place.strip("`"), info, int(size), tuple(labels.split(", ")) if labels else ())


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Catalog:
    catalog = make_catalog(tmp_path_factory.mktemp("page") / "library", list(map(pictured, rows("photos"))))
    yield catalog
    catalog.close()


def names(catalog: Catalog, where: Node) -> list[str]:
    ids = catalog.select(Filter(where=where))
    assert ids is not None
    return [os.path.basename(photo.path) for photo in catalog.get(ids.tolist())]


@pytest.mark.parametrize("condition, finds", rows("conditions"))
def test_the_examples_of_the_page_find_what_it_says(shown, condition, finds):
    node = parse(condition.strip("`"))
    assert names(shown, node) == ([name.strip() for name in finds.split(",")] if finds else [])
    assert [os.path.basename(p.path) for p in shown.get(shown.all_ids().tolist()) if node.holds(p)] == names(
        shown, node
    )
    assert parse(str(node)) == node


def test_the_page_has_examples_of_every_field_and_every_thing_to_have():
    from search import where

    written = " ".join(condition for condition, _ in rows("conditions"))
    for word in (*where.FIELDS, "near", "box", "has", "not", "and", "or"):
        assert re.search(rf"\b{word}\b", written), word
    assert len(rows("conditions")) > 40


# ---- what it reads


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


CANON, GPS = Called("camera", "canon"), Has("gps")


@pytest.mark.parametrize(
    "text, node",
    [
        ("camera:canon", CANON),
        (" CAMERA : 'canon' ", CANON),
        ("has no gps", Not(GPS)),
        ("not not has gps", Not(Not(GPS))),
        ("has gps and camera:canon or has gps", Or((And((GPS, CANON)), GPS))),
        ("has gps and (camera:canon or has gps)", And((GPS, Or((CANON, GPS))))),
        ("not has gps and has gps", And((Not(GPS), GPS))),
        ("camera in (canon, nikon)", Or((CANON, Called("camera", "nikon")))),
        ('camera = "say ""hi"""', Called("camera", 'say "hi"', True)),
        ("camera:'and'", Called("camera", "and")),
        ("name:a..b", Named("name", "a..b")),
        ("path = C:/x=1.jpg", Named("path", "C:/x=1.jpg", True)),
        ("size > 4.1MB", Measured("size", ">", 4_100_000)),
        ("megapixels >= 4.1", Measured("megapixels", ">=", 4_100_000)),
        ("rating in -1..2", And((Measured("rating", ">=", -1), Measured("rating", "<=", 2)))),
        ("near(-48.2, +16, 250m)", Near(-48.2, 16, 0.25)),
        ("taken <= 9998", Taken("<", at("9999-01-01"))),
        ("taken = 9999", Taken(">=", at("9999-01-01"))),
        ("taken <= 9999-12", Taken(">=", at("0001-01-01"))),
        ("taken > 9999-12-31", Taken("<", at("0001-01-01"))),
        ("taken < 2023", Taken("<", at("2023-01-01"))),
        ("taken <= 2023", Taken("<", at("2024-01-01"))),
        ("taken > 2024-02", Taken(">=", at("2024-03-01"))),
        ("taken >= 2024-02-29Z", Taken(">=", at("2024-02-29T00:00+00:00"))),
        ("taken > 2024-12-31T23:59", Taken(">=", at("2025-01-01"))),
        ("taken > 2024-12-31T23:59:59.5-03:30", Taken(">=", at("2024-12-31T23:59:59.600000-03:30"))),
        ("taken:2023-04", And((Taken(">=", at("2023-04-01")), Taken("<", at("2023-05-01"))))),
    ],
)
def test_conditions_are_read_as_they_are_meant(text, node):
    assert parse(text) == node


@pytest.mark.parametrize(
    "text, column, said",
    [
        ("", 1, "expected a condition"),
        ("camra:canon", 1, "did you mean camera?"),
        ("has gps and haz gps", 13, "did you mean has?"),
        ("has gsp", 5, "did you mean gps?"),
        ("camera", 7, "expected ':', '=' or 'in' after camera, found the end"),
        ("rating ~ 5", 8, "'>='"),
        ("camera >= 5", 8, "found '>='"),
        ("folder = /x", 8, "':'"),
        ("(has gps", 9, "expected ')'"),
        ("has gps)", 8, "found ')'"),
        ("has gps has lens", 9, "expected 'and', 'or' or the end"),
        ("taken >= yesterday", 10, "is no date; write 2023"),
        ("taken = 2023-02-29", 9, "is no date"),
        ("taken = 10000", 9, "is no date"),
        ("taken = 2023-01-01T10:00+24:00", 9, "is no date"),
        ("rating > many", 10, "is no number"),
        ("width = 5MB", 9, "is no number"),
        ("width = " + "9" * 30, 9, "too large"),
        ("size > 5XB", 8, "B, kB, MB or GB"),
        ("near(91, 0, 5km)", 6, "latitude"),
        ("near(1, 181, 5km)", 9, "longitude"),
        ("near(1, 2, 5)", 12, "5km or 500m"),
        ("near(1, 2, -5km)", 12, "5km or 500m"),
        ("box(48, 9, 47, 11)", 12, "south"),
        ("box(nan, 9, 47, 11)", 5, "latitude"),
        ("format in jpeg", 11, "expected '('"),
        ("format in (jpeg heic)", 17, "expected ',' or ')'"),
        ("orientation = tall", 15, "portrait, landscape or square"),
        ('name:"abc', 6, "quote"),
        ("camera:''", 8, "needs a value"),
        ("label:a\0b", 7, "needs a value"),
    ],
)
def test_a_mistake_is_pointed_at_with_what_could_stand_there(text, column, said):
    with pytest.raises(QueryError, match=re.escape(said)) as caught:
        parse(text)
    assert caught.value.column == column
    assert str(caught.value).startswith(f"column {column} of the condition: ")


@pytest.mark.parametrize("text", ["", "rating >= 4 and", "xyzzy:1", "has gps or ("])
def test_a_mistake_is_told_in_a_line_that_names_the_page(text):
    with pytest.raises(QueryError, match=r"docs/reference/filters\.md") as caught:
        parse(text)
    assert len(str(caught.value)) < 160


def test_two_places_are_as_far_apart_as_they_are():
    """A degree of a meridian, a quarter of it, half of it, and two cities by the angle between their vectors."""
    degree = 6371.0088 * np.pi / 180
    assert distance_km(0, 0, 1, 0) == pytest.approx(degree)
    assert distance_km([0, 90], [0, 50], 90, 0).tolist() == pytest.approx([90 * degree, 0], abs=1e-6)
    assert distance_km(0, 0, 0, 180) == pytest.approx(180 * degree)
    places = np.radians([(48.2082, 16.3738), (50.9375, 6.9603)])
    one, other = (np.array([np.cos(n) * np.cos(e), np.cos(n) * np.sin(e), np.sin(n)]) for n, e in places)
    assert distance_km(48.2082, 16.3738, 50.9375, 6.9603) == pytest.approx(6371.0088 * np.arccos(one @ other))


def test_an_expression_can_be_long_and_deep_but_not_without_end():
    assert parse(" or ".join(["has gps"] * MAX_TESTS))
    assert parse("(" * (MAX_DEPTH - 1) + "has gps" + ")" * (MAX_DEPTH - 1)) == GPS
    for text in (" or ".join(["has gps"] * (MAX_TESTS + 1)), "format in (" + "a, " * MAX_TESTS + "b)"):
        with pytest.raises(QueryError, match="more than"):
            parse(text)
    for deep in ("(", "not "):
        with pytest.raises(QueryError, match="within one another"):
            parse(deep * 100_000)


def test_a_folder_is_known_by_where_its_links_lead_and_as_it_stands(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    here = os.path.realpath(tmp_path)
    monkeypatch.chdir(here)
    assert parse("folder:link") == Or((InFolder(f"{here}/link"), InFolder(f"{here}/real")))
    assert (
        parse(f"folder:/{here}/real")
        == parse("folder:real/../real/")
        == parse_folder("real")
        == InFolder(f"{here}/real")
    )
    monkeypatch.setenv("HOME", here)
    assert parse("folder:~/real") == InFolder(f"{here}/real")


def test_the_fields_of_a_filter_and_its_where_are_one_condition():
    noon = at("2023-05-01T12:00+02:00")
    fields = {"folder": "//photos/a/../b", "after": noon, "before": noon, "camera": "canon", "near": (1, 2, 3)}
    assert condition_of(Filter(**fields, labels=("cat", "dog"), where=GPS)) == And(
        (
            *(InFolder("/photos/b"), Taken(">=", noon), Taken("<", noon), CANON, Near(1, 2, 3)),
            *(Labelled("cat"), Labelled("dog"), GPS),
        )
    )


def test_no_condition_is_no_filter_and_one_that_cannot_hold_finds_nothing(shown):
    for everything in (
        Filter(),
        Filter(where=And(())),
        Filter(where=Not(Or(()))),
        Filter(where=parse("folder:/")),
    ):
        assert shown.select(everything) is None
    for nothing in (
        Or(()),
        Not(And(())),
        parse("not folder:/"),
        parse("camera:leica"),
        parse("has gps and label:x"),
    ):
        assert names(shown, nothing) == []


@pytest.mark.parametrize("place", [(48.2166, 16.3957), (50.9413, 6.9583), (-17.8, 179.9), (90, 0)])
def test_what_lies_on_the_edge_of_a_circle_or_box_is_in_it(shown, place):
    latitude, longitude = place
    [name] = names(shown, Near(latitude, longitude, 0))
    assert names(shown, InBox(latitude, longitude, latitude, longitude)) == [name]
    edge = distance_km(latitude, longitude, latitude - 1, longitude) + 1e-6  # a millimetre: rounding
    assert name in names(shown, Near(latitude - 1, longitude, edge))


def test_a_photo_on_the_edge_of_a_circle_is_in_it_without_a_catalog_too():
    info = PhotoInfo("JPEG", 100, 100, latitude=48.2166, longitude=16.3957)
    photo = Photo(1, "/photos", "/photos/a.jpg", 1, 1, "00", info)
    assert Near(48.2166, 16.3957, 0).holds(photo)
    edge = distance_km(48.2166, 16.3957, 48.0, 16.0)
    assert Near(48.0, 16.0, edge).holds(photo)
    assert not Near(48.0, 16.0, edge - 1e-6).holds(photo)


def test_a_pattern_of_many_stars_takes_no_time():
    assert not Named("name", "*a" * 50 + "*b").matches("a" * 5000)


# ---- lists that are too long for a statement


@pytest.fixture(scope="module")
def crowd_folder(tmp_path_factory) -> Path:
    """A library of photos of one day, each with a camera and most with a label of their own."""
    begin, zones = at("2023-05-01"), [None, *(timezone(timedelta(hours=hours)) for hours in (-11, 0, 14))]
    made = [
        Made(
            f"{number}.jpg",
            PhotoInfo(
                *("jpeg", 640, 480 + number % 2),
                taken_at=(begin + timedelta(minutes=number)).replace(tzinfo=zones[number % 4]),
                camera=f"Cam {number}",
                latitude=number / 100,
                longitude=0.0 if number % 3 else None,
            ),
            labels=(f"all/{number}",) if number % 5 else (),
        )
        for number in range(3 * MAX_PARAMETERS)
    ]
    folder = tmp_path_factory.mktemp("crowd") / "library"
    make_catalog(folder, made).close()
    return folder


@pytest.fixture(scope="module")
def crowd_photos(crowd_folder) -> list[Photo]:
    catalog = Catalog(str(crowd_folder))
    photos = catalog.get(catalog.all_ids().tolist())
    catalog.close()
    return photos


@pytest.fixture(scope="module", params=["sqlite3", "sqlalchemy"])
def crowd(request, crowd_folder) -> Catalog:
    location = str(crowd_folder) if request.param == "sqlite3" else f"sqlite:///{crowd_folder / CATALOG_NAME}"
    catalog = Catalog(location)
    yield catalog
    catalog.close()


CROWDED = ["camera:cam", "label:all", "camera:1", "taken >= 2023-05-01T12:00Z", "taken < 2023-05-01T12:00+05:30"]


@pytest.mark.parametrize(
    "text",
    [
        *CROWDED,
        *(f"not ({text})" for text in CROWDED),
        *(f"orientation = square or not ({text} and near(5, 0, 300km)) or rating = 3" for text in CROWDED),
        " and ".join(CROWDED),
        " or ".join(f"(not {text} and has gps)" for text in CROWDED),
        " or ".join(f"camera:{number}" for number in range(100, 150)),
        " or ".join(f"height = {number}" for number in range(281, 481)),
        " and ".join(f"not camera:{number}" for number in range(10, 60)),
    ],
)
def test_lists_longer_than_a_statement_takes_are_joined_exactly(crowd, crowd_photos, text, monkeypatch):
    node, longest = parse(text), [0]
    with crowd._reading() as session:
        original = type(session).rows

    def counted(self, statement, values=None):
        longest.append(len(values or {}))
        return original(self, statement, values or {})

    monkeypatch.setattr(type(session), "rows", counted)
    assert crowd.select(Filter(where=node)).tolist() == [photo.id for photo in crowd_photos if node.holds(photo)]
    assert max(longest) <= MAX_PARAMETERS + 200


def test_a_bound_with_a_zone_at_the_end_of_time_asks_for_no_time_beyond(shown):
    for moment in (datetime.min, datetime.max):  # noqa: DTZ901
        for zone in (UTC, timezone(timedelta(hours=23)), timezone(timedelta(hours=-23))):
            nodes = Taken(">=", moment.replace(tzinfo=zone)), Taken("<", moment.replace(tzinfo=zone))
            for node in nodes:
                photos = shown.get(shown.all_ids().tolist())
                assert names(shown, node) == [os.path.basename(p.path) for p in photos if node.holds(p)]


@pytest.mark.parametrize(
    "text", ["rating < 3 or (camera:nobody and near(0, 0, 5km))", "width > 1 and not lens:nobody"]
)
def test_what_no_photo_can_fulfil_leaves_nothing_behind_in_the_statement(crowd, crowd_photos, text):
    node = parse(text)
    assert crowd.select(Filter(where=node)).tolist() == [photo.id for photo in crowd_photos if node.holds(photo)]
