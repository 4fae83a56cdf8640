"""The pages without a browser: what they show and lead to, and that nothing from outside is more than text in them."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from starlette.datastructures import QueryParams
from starlette.testclient import TestClient

from search import Library, suggestions
from search.query import Kind
from search.suggestions import Kept
from search.types import Suggestion
from search.web import create_app
from search.web.pages import searching
from search.web.pages.asked import Address, Wanted
from search.web.pages.rendering import percent, size
from search.web.pages.statics import address
from search.web.pictures import Pictures, Sent


class Page(HTMLParser):
    """The elements of a page: (tag, attributes) in order, and all text that is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


def get(client: TestClient, url: str, *, status: int = 200) -> Page:
    answer = client.get(url)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)


def ids(page: Page) -> list[int]:
    """The photos in a page's grid, those folded away too."""
    return [int(found["data-id"]) for found in page.all("li") if "data-id" in found]


def name_of(shown, id_: int) -> str:
    return next(name for name, photo in shown.items() if photo.id == id_)


# ---- searching


def test_where_nothing_is_asked_it_is_proposed_what_to_ask(serve, library, request):
    row = library.catalog.encoder()
    queries = ("a cat", "snow & ice")
    request.addfinalizer((library.catalog.folder / "suggestions.json").unlink)
    suggested = tuple(Suggestion(query, 0.9) for query in queries)
    suggestions.keep(library.catalog.folder, Kept(row.fingerprint, library.catalog.count(), suggested))
    client = serve()
    links = [found["href"] for found in get(client, "/").all("a") if found.get("class") == "chip"]
    assert [parse_qs(urlsplit(link or "").query)["q"] for link in links] == [["a cat"], ["snow & ice"]]
    for asked in ("/?q=a+cat", "/?after=2000", "/?offset=60"):
        assert not get(client, asked).all("ul", **{"aria-label": "Try"})


def test_all_photos_are_there_the_latest_first(pages, shown):
    page = get(pages, "/")
    assert sorted(ids(page)) == sorted(photo.id for photo in shown.values())
    assert ids(page)[-2:] == [shown["turned.jpg"].id, shown["cat.jpg"].id]  # the others have their files' times
    assert f"{len(shown)} photos" in page.text


@pytest.mark.parametrize(
    ("query", "first"), [("a rocket", "rocket"), ("brick wall", "brick wall"), ("a cat", "cat")]
)
def test_what_is_looked_for_comes_first(pages, shown, query, first):
    page = get(pages, f"/?q={query}")
    assert name_of(shown, ids(page)[0]).startswith(first)
    assert page.all("input", name="q")[0]["value"] == query
    assert re.search(r"Relevance\s*\d+ %", page.text)


def test_photos_that_show_the_same_are_folded_behind_one(pages, shown):
    page = get(pages, "/?q=a rocket")
    [badge] = [found for found in page.all("a") if "data-same" in found]
    three = {photo.id for name, photo in shown.items() if name.startswith("rocket")}
    folded = {int(found["data-id"]) for found in page.all("li") if "hidden" in found}
    assert folded == set(map(int, badge["data-same"].split())) < three
    assert len(folded) == 2
    apart = get(pages, badge["href"])
    assert three <= set(ids(apart))
    assert not [found for found in apart.all("li") if "hidden" in found]


def test_a_filter_holds_and_says_so(pages, shown):
    page = get(pages, "/?camera=leica&q=&after=")
    assert [name_of(shown, id_) for id_ in ids(page)] == ["turned.jpg"]
    assert "leica" in page.text
    assert page.all("a", **{"aria-label": "Remove the filter leica"})[0]["href"] == "/"


def test_filters_are_offered_with_counts_that_hold(pages):
    page = get(pages, "/?q=a rocket")
    chips = re.findall(
        r'<a class="chip plain" href="([^"]+)">(?:<bdi>)?([^<]+)(?:</bdi>)? <span class="count">(\d+)',
        pages.get("/?q=a rocket").text,
    )
    assert {"space", "home", "strange", "space/rocket", "2022", "2021"} <= {name for _, name, _ in chips}
    for href, name, count in chips:
        told = rf"The best of {count} {'photo' if int(count) == 1 else 'photos'}\b"
        assert re.search(told, get(pages, html.unescape(href) + "&all=1").text), name
    assert "Leica M (1)" in page.text


def test_a_place_is_found_without_a_map(pages, shown):
    page = get(pages, f"/photos/{shown['turned.jpg'].id}")
    assert "48.85840° N, 2.29450° E" in page.text
    [around] = [found["href"] for found in page.all("a") if "near=" in (found["href"] or "")]
    assert ids(get(pages, around)) == [shown["turned.jpg"].id]


def test_nothing_matches_is_said_with_what_could_be_done(pages):
    page = get(pages, "/?q=a rocket&folder=/nowhere")
    assert "No photo passes the filters" in page.text
    page = get(pages, "/?q=quarterly tax return form&camera=leica")
    assert "Nothing matches" in page.text
    assert len(ids(get(pages, next(a["href"] for a in page.all("a") if "all=1" in (a["href"] or ""))))) == 1


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("/?q=red car %2B", 400, "follows the + at column 9"),
        ("/?q=- people", 400, "asks for nothing"),
        ("/?q=like:99999", 404, "is not in the library"),
        ("/?near=1,2", 400, "near is no LAT,LON,KM"),
        ("/?after=soon", 400, "after is no date"),
        ("/?where=colour = red", 400, "colour"),
        ("/?offset=x", 400, "offset is no integer"),
        ("/?picture=" + "0" * 32, 400, "not here any more"),
        ("/?q=like:/etc/passwd", 400, "named by their ids"),
    ],
)
def test_what_can_not_be_meant_is_told_on_a_page_with_the_box(pages, url, status, said):
    page = get(pages, url, status=status)
    assert said.lower() in page.text.lower()
    assert page.all("input", name="q")


def test_what_others_put_into_the_address_is_passed_over(pages, shown):
    assert len(ids(get(pages, "/?utm_source=x&q="))) == len(shown)


def test_a_part_is_only_the_photos(pages, shown):
    text = pages.get("/?q=a rocket&all=1&part=hits").text
    assert "<html" not in text
    assert sorted(ids(Page(text))) == sorted(photo.id for photo in shown.values())


def test_the_next_page_follows_without_gap(pages, gallery, monkeypatch):
    from search.web.pages import searching

    monkeypatch.setattr(searching, "PAGE", 4)
    for url in ("/?all=1&apart=1&q=a rocket", "/?apart=1"):
        everything, seen = len(gallery.catalog.all_ids()), []
        while url:
            page = get(pages, url)
            seen += ids(page)
            following = page.all("a", rel="next")
            url = following[0]["href"] if following else None
        assert len(seen) == len(set(seen)) == everything


# ---- terms


def wanted(query: str) -> Wanted:
    pictures = Pictures()
    pictures.keep("a" * 32, Sent(np.ones(4, np.float32), b""))
    return Wanted.of(Address.of(QueryParams(query)), pictures)


def test_terms_are_reweighted_and_removed_by_links():
    given = wanted("q=red+car+-+0.5:people&camera=x&picture=2:" + "a" * 32 + "&offset=60")
    assert [(term.kind, term.weight) for term in given.terms] == [
        (Kind.TEXT, 1.0),
        (Kind.TEXT, -0.5),
        (Kind.VECTOR, 2.0),
    ]
    said = [parse_qs(one.query()) for one in (given.without(1), given.weighed(1, -1), given.weighed(2, 1))]
    assert [one["q"] for one in said] == [["red car"], ["red car - people"], ["red car - 0.5:people"]]
    assert [one["picture"] for one in said] == [[f"2:{'a' * 32}"]] * 2 + [[f"3:{'a' * 32}"]]
    assert all(one["camera"] == ["x"] and "offset" not in one for one in said)
    assert given.weighed(2, 1).url() and wanted("q=3:car").weighed(0, 1) is None


def test_more_and_less_like_a_photo_join_the_query():
    given = wanted("q=red car")
    assert parse_qs(given.like(7, 1.0).query())["q"] == ["red car + like:7"]
    assert parse_qs(given.like(7, -0.5).query())["q"] == ["red car - 0.5:like:7"]
    again = wanted(given.like(7, 1.0).query()).like(7, -0.5)
    assert parse_qs(again.query())["q"] == ["red car - 0.5:like:7"]


def test_more_like_this_leads_to_its_likes(pages, shown):
    page = get(pages, "/?q=a rocket")
    [more] = (
        page.all("a", **{"aria-label": "More like rocket.jpg"}) or page.all("a", title="More like this (m)")[:1]
    )
    liked = get(pages, more["href"])
    assert name_of(shown, ids(liked)[0]).startswith("rocket")
    assert "like this" in liked.text


# ---- pictures that are sent


def sent(pages, picture, **fields):
    token = get(pages, "/").all("meta", name="form-token")[0]["content"]
    data = {"form_token": token, "back": "q=a+wall&offset=60", **fields}
    return pages.post("/pictures", data=data, files={"image": ("x.jpg", picture, "image/jpeg")})


def test_a_picture_that_is_sent_is_searched_by(pages, shown, photo_folder):
    answer = sent(pages, (photo_folder / "home" / "temple.jpg").read_bytes(), back="")
    assert answer.status_code == 303
    page = get(pages, answer.headers["location"])
    assert name_of(shown, ids(page)[0]) == "temple.jpg"
    small = next(found["src"] for found in page.all("img") if (found["src"] or "").startswith("/pictures/"))
    assert pages.get(small).headers["content-type"] == "image/webp"


def test_a_picture_joins_what_was_looked_for(pages, photo_folder):
    location = sent(pages, (photo_folder / "home" / "cat.jpg").read_bytes()).headers["location"]
    assert parse_qs(urlsplit(location).query).keys() == {"q", "picture"}


def test_a_picture_is_refused_without_the_pages_token_and_if_it_is_none(pages):
    assert sent(pages, b"x", form_token="wrong").status_code == 403
    assert sent(pages, b"GIF89a nonsense").status_code in (415, 422)
    assert pages.post("/pictures", data={"form_token": "x"}).status_code == 403


def test_the_oldest_picture_goes_when_there_are_too_many():
    pictures = Pictures(2)
    for key in "abca":
        pictures.keep(key, Sent(np.ones(1, np.float32), key.encode()))
    assert (pictures.get("b"), pictures.get("a").small, pictures.get("c").small) == (None, b"a", b"c")


# ---- a photo's own page


def test_a_photos_page_tells_what_is_known_and_why(pages, shown):
    page = get(pages, f"/photos/{shown['cat.jpg'].id}")
    for said in ("cat.jpg", "Kodak Brownie", "Saturday, 01 May 2021", "JPEG", "proposed by builtin", "% sure"):
        assert said in page.text
    assert [found["href"] for found in page.all("a", **{"class": "button"}) if found["href"].startswith("/api/")]


def test_a_photos_page_shows_its_copies_apart_from_similar_ones(pages, shown):
    text = pages.get(f"/photos/{shown['rocket.jpg'].id}").text
    same = text[text.index("h-same") : text.index("h-similar")]
    others = {f"/photos/{photo.id}" for name, photo in shown.items() if name.startswith("rocket ")}
    assert others == {found["href"] for found in Page(same).all("a")}


def test_neighbours_are_those_of_the_results(pages, shown):
    for results in ("/?q=a rocket&all=1&apart=1", "/?apart=1"):
        order = ids(get(pages, results))
        at = 3
        link = next(
            a["href"] for a in get(pages, results).all("a") if f"/photos/{order[at]}?" in (a["href"] or "")
        )
        page = get(pages, link)
        [before], [after] = page.all("a", rel="prev"), page.all("a", rel="next")
        assert urlsplit(before["href"]).path == f"/photos/{order[at - 1]}"
        assert urlsplit(after["href"]).path == f"/photos/{order[at + 1]}"
        assert page.all("a", id="back")[0]["href"].endswith(f"#photo-{order[at]}")


def test_whoever_opened_a_photo_far_down_gets_back_to_it(pages, monkeypatch):
    monkeypatch.setattr(searching, "PAGE", 3)
    order = ids(get(pages, "/?apart=1&offset=3"))
    photo = get(pages, f"/photos/{order[1]}?apart=1&at=4")
    back = photo.all("a", id="back")[0]["href"]
    there = get(pages, back)
    assert ids(there) == order
    assert back.endswith(f"#photo-{order[1]}")
    assert there.all("a", rel="prev")[0]["href"] == "/?apart=1"
    assert not get(pages, "/?apart=1").all("a", rel="prev")


def test_a_page_behind_the_last_says_so(pages):
    assert "There are no more photos" in get(pages, "/?offset=600").text


def test_another_filter_leaves_conditions_as_they_are(pages):
    page = get(pages, "/?where=width+>+1&where=height+>+1")
    fields = [field["value"] for field in page.all("input", name="where")]
    assert sorted(fields) == ["height > 1", "height > 1", "width > 1", "width > 1"], "of the box and of the panel"


@pytest.mark.parametrize("id_", ["99999", "0", "-1", "x", "9" * 30, "1%2F..%2F..%2Fetc"])
def test_a_photo_that_is_not_here_is_not_found(pages, id_):
    assert get(pages, f"/photos/{id_}", status=404).all("a", href="/")


# ---- a library without photos


def test_an_empty_library_leads_to_indexing(tmp_path, builtin):
    with Library.open(tmp_path / "library", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        with TestClient(create_app(library), base_url="http://localhost:8000") as client:
            for url in ("/", "/?q=x"):
                page = get(client, url)
                assert "no photos here yet" in page.text
                assert page.all("a", **{"class": "button primary"})[-1]["href"] == "/library"


# ---- text stays text


def test_names_are_text_on_every_page(pages, shown):
    urls = [
        "/",
        "/?q=a+rocket&all=1",
        '/?q="><script>alert(1)</script>&all=1',
        '/?where="><script>',
        "/?camera=<b>x",
    ]
    urls += [f"/photos/{photo.id}?q=<script>&at=0" for photo in shown.values()]
    for url in urls:
        text = pages.get(url).text
        page = Page(text)
        assert all("src" in found for found in page.all("script")), url
        assert not page.all("b") and not [found for _, found in page.elements if "onerror" in found], url
        assert "\u202e" not in page.text and "\u202e" not in "".join(
            found.get("alt") or "" for found in page.all("img")
        )
        assert not [found for _, found in page.elements if "style" in found], url


def test_a_name_that_is_no_utf8_is_shown_as_far_as_it_can_be(pages, shown):
    [photo] = [photo for name, photo in shown.items() if name.startswith("d")]
    assert "d\ufffd\ufffd.jpg" in get(pages, f"/photos/{photo.id}").text


def test_pages_run_nothing_but_own_scripts(pages):
    policy = pages.get("/").headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy


# ---- files beside the pages


def test_static_files_are_kept_for_good_under_their_version(pages):
    answer = pages.get(address("app.css"))
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/css")
    assert pages.get("/static/older/app.css").headers["cache-control"] == "no-store"
    for name in ("nothing.css", "../templates/base.html", "..%2f..%2f__init__.py", ""):
        assert pages.get(f"/static/x/{name}").status_code == 404


@pytest.mark.parametrize(
    ("share", "said"), [(0.0, "0 %"), (0.001, "<1 %"), (0.873, "87 %"), (0.999, "99 %"), (1.0, "100 %")]
)
def test_a_share_is_not_rounded_to_all_or_nothing(share, said):
    assert percent(share) == said


def test_bytes_are_said_as_people_do():
    assert [size(n) for n in (999, 1000, 2_500_000, 3e9)] == ["999 bytes", "1.0 kB", "2.5 MB", "3.0 GB"]


def test_a_photo_in_the_grid_has_room_before_it_is_there(pages):
    for found in get(pages, "/").all("img"):
        assert found["width"] and found["height"] and "alt" in found
        if (found["src"] or "").startswith("/thumbnails/"):
            assert [part.split()[1] for part in found["srcset"].split(", ")]
