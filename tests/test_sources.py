"""Photos in tar files and on object storage, by way of the library, the command line and the web pages."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from object_storage import Place, picture, tar_of
from starlette.testclient import TestClient

from search import Library, objects
from search.cli import cli
from search.engines import LocalEngine
from search.errors import SourceAway, StorageError, UsageError
from search.indexer import IndexOptions
from search.library.model import LibraryModel
from search.photos import sources as reading
from search.photos import tars
from search.photos.object_storage import ObjectStorage
from search.photos.sources import Sources
from search.shards.run import ShardOptions
from search.web import ServeOptions, create_app

ONE = IndexOptions(workers=1)


@pytest.fixture(params=["tar", "memory", pytest.param("memory tar", marks=pytest.mark.slow)])
def place(request, tmp_path) -> Place:
    root = f"{tmp_path}/photos" if request.param == "tar" else f"memory://bucket/{tmp_path.name}/photos"
    is_tar = request.param.endswith("tar")
    place = Place(f"{root}.tar" if is_tar else root, is_tar=is_tar)
    place.put(a=picture(1), day_b=picture(2), day_c=picture(3))
    return place


def counts(report) -> dict[str, int]:
    names = ("added", "updated", "unchanged", "gone", "offline", "encoded")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def test_only_what_changed_costs_anything(place, library):
    assert counts(library.index([place.root], options=ONE)) == {"added": 3, "encoded": 3}
    assert counts(library.index([place.root], options=ONE)) == {"unchanged": 3}
    place.put(a=picture(7) + b"\0", day_c=None, e=picture(8))
    changed = {"added": 1, "updated": 1, "unchanged": 1, "gone": 1, "encoded": 2}
    assert counts(library.index([place.root], options=ONE)) == changed
    assert counts(library.index([place.root], options=ONE)) == {"unchanged": 3}


def test_shards_bring_in_the_same(place, library, tmp_path):
    shards = ShardOptions(LocalEngine(), str(tmp_path / "shards"), 2, 1)
    assert counts(library.index([place.root], options=ONE, shards=shards)) == {"added": 3, "encoded": 3}
    with Library.open(tmp_path / "other", model="builtin", offline=True) as other:
        other.model.loaded = library.model.loaded
        assert other.merge(shards.store, options=ONE).added == 3
        assert counts(other.index([place.root], options=ONE)) == {"unchanged": 3}
        assert [root.path for root in other.status().roots] == [place.root]


def test_photos_are_found_by_their_addresses(place, library):
    library.index([place.root], options=ONE)
    like = library.similar(place.path("a"))
    assert {hit.photo.path for hit in like.hits} == {place.path("day_b"), place.path("day_c")}
    assert library.photo(place.path("day_b")).root == place.root
    (spare,) = [place.path("day_b")]
    assert library.label(["cat", "dog"], paths=[spare]).photos[0].id is not None
    assert library.check_photos(content=True).problems == ()
    place.put(day_b=picture(5) + b"\0")
    assert [problem.path for problem in library.check_photos().problems if "changed" in problem.kind]
    assert library.remove([f"{place.root}/day"]) == 2
    assert library.catalog.count() == 1


@pytest.mark.parametrize("place", ["tar", pytest.param("memory", marks=pytest.mark.slow)], indirect=True)
def test_copies_are_told_across_places(place, library, album, make_photo):
    place.put(f=(album / "day0" / "photo00.png").read_bytes())
    library.index([album, place.root], options=ONE)
    (group,) = [group for group in library.duplicates().groups if group.kind == "exact"]
    assert {group.keep.path, group.others[0].photo.path} == {
        place.path("f"),
        str(album / "day0" / "photo00.png"),
    }
    assert {root.path for root in library.status().roots} == {str(album), place.root}
    assert library.facets().folders


def test_a_place_that_is_lost_is_offline_and_comes_back(place, library):
    library.index([place.root], options=ONE)
    content = dict(place.members)
    place.lose()
    holder = place.is_tar and "://" not in place.root  # the folder that the tar file was in is there
    assert counts(library.index([place.root], options=ONE)) == ({"gone": 3} if holder else {"offline": 3})
    place.put(**{name.removesuffix(".png").replace("/", "_"): data for name, data in content.items()})
    report = library.index([place.root], options=ONE)
    assert (report.encoded, library.catalog.count()) == (0, 3)


def test_a_tar_file_stays_a_root_of_its_own_in_a_folder_that_is_one(tmp_path, album, library):
    (album / "0.tar").write_bytes(tar_of({"x.png": picture(30)}))
    library.index([album / "0.tar"], options=ONE)
    assert counts(library.index([album], options=ONE)) == {"added": 12, "encoded": 12}
    assert counts(library.index([album, album / "0.tar"], options=ONE)) == {"unchanged": 13}
    assert counts(library.index([album / "0.tar" / "x.png"], options=ONE)) == {"unchanged": 1}
    assert [root.photos for root in library.status().roots] == [12, 1]


def test_the_list_of_a_tar_file_far_away_is_kept(library, monkeypatch):
    place = Place("memory://lists/a.tar", is_tar=True)
    place.put(a=picture(1), b=picture(2))
    library.index([place.root], options=ONE)
    read = []
    fetched = ObjectStorage.fetched
    monkeypatch.setattr(ObjectStorage, "fetched", lambda self, *what: read.append(what) or fetched(self, *what))
    del library.sources
    assert counts(library.index([place.root], options=ONE)) == {"unchanged": 2}
    assert read == []
    assert library.sources.read(place.path("b"))[0] == place.members["b.png"]
    ((path, start, end),) = read
    assert (path, end - start) == (place.root, len(place.members["b.png"]))


def test_tar_files_far_away_are_let_go_of_where_they_take_much(monkeypatch):
    monkeypatch.setattr(reading, "_KEPT_BYTES", 25_000)
    places = [Place(f"memory://many/{number}.tar", is_tar=True) for number in range(4)]
    for number, place in enumerate(places):
        place.put(a=picture(number), b=picture(number))
    sources = Sources()
    listed = [file for place in places for file in sources.scan(place.root)]
    assert sum(tar.taken for tar in sources._open.values()) <= 25_000
    for file in listed:
        assert sources.content(file, whole=True)()[1] == file


# ---- tar files of strangers


def hostile() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in (
            ("../../up.png", tarfile.REGTYPE),
            ("/etc/absolute.png", tarfile.REGTYPE),
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
            ("./good.png", tarfile.REGTYPE),
            ("empty.png", tarfile.REGTYPE),
            ("words.png", tarfile.REGTYPE),
        ):
            about = tarfile.TarInfo(name)
            data = {"./good.png": picture(1), "empty.png": b"", "words.png": b"no picture at all"}.get(
                name, picture(2)
            )
            about.type, about.linkname = kind, "/etc/passwd"
            about.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(about, io.BytesIO(data) if kind == tarfile.REGTYPE else None)
    return content.getvalue()


def test_members_that_lead_elsewhere_are_left_out_with_their_reasons(tmp_path, library):
    (tmp_path / "bad.tar").write_bytes(hostile())
    report = library.index([tmp_path / "bad.tar"], options=ONE)
    assert counts(report) == {"added": 1, "encoded": 1}
    told = {Path(skip.path).name: (skip.reason, skip.detail) for skip in report.skipped}
    assert (
        told["up.png"]
        == told["absolute.png"]
        == ("unsupported_format", "its name in the tar file leads elsewhere")
    )
    assert (
        told["link.png"]
        == told["hard.png"]
        == (
            "unsupported_format",
            "a link, which is not followed in a tar file",
        )
    )
    assert told["pipe.png"][0] == "unsupported_format"
    assert told["empty.png"][0] == "empty"
    assert told["words.png"][0] == "unsupported_format"
    assert len(told) == 7
    assert all(skip.path.startswith(f"{tmp_path}/bad.tar/") and ".." not in skip.path for skip in report.skipped)
    again = library.index([tmp_path / "bad.tar"], options=ONE)
    assert (counts(again), len(again.skipped)) == ({"unchanged": 1}, 7)


def test_a_member_without_measure_is_left_out(tmp_path, library, monkeypatch):
    monkeypatch.setattr(tars, "MOST_BYTES", 6000)
    (tmp_path / "large.tar").write_bytes(tar_of({"small.png": picture(1), "large.png": picture(2) + bytes(4000)}))
    (skip,) = library.index([tmp_path / "large.tar"], options=ONE).skipped
    assert (skip.reason, skip.detail[-18:]) == ("too_large", "a tar file is 6000")


@pytest.mark.parametrize("damage", ["cut", "no end", "a header"])
def test_what_lies_before_the_damage_is_taken_and_nothing_counts_as_gone(damage, tmp_path, library):
    place = Place(str(tmp_path / "a.tar"), is_tar=True)
    place.put(a=picture(1), b=picture(2), c=picture(3))
    whole = Path(place.root).read_bytes()
    library.index([place.root], options=ONE)
    second = whole.index(b"b.png")
    broken = {
        "cut": whole[: second + 2000],
        "no end": whole[: whole.index(b"c.png")],
        "a header": whole[:second] + b"\xff" * 512 + whole[second + 512 :],
    }[damage]
    Path(place.root).write_bytes(broken)
    report = library.index([place.root], options=ONE)
    ((path, reason),) = [(skip.path, skip.reason) for skip in report.skipped]
    assert (path, reason, report.gone, library.catalog.count()) == (place.root, "unreadable", 0, 3)
    Path(place.root).write_bytes(whole)
    assert library.index([place.root], options=ONE).skipped == ()


@pytest.mark.parametrize("content", [b"", b"no tar file" * 100, b"x" * 5000])
def test_what_is_no_tar_file_is_told(content, tmp_path, library):
    (tmp_path / "a.tar").write_bytes(content)
    (skip,) = library.index([tmp_path / "a.tar"], options=ONE).skipped
    assert (skip.path, skip.reason) == (str(tmp_path / "a.tar"), "unreadable")


def test_a_header_without_end_is_not_read(tmp_path):
    about = tarfile.TarInfo("././@PaxHeader")
    about.type, about.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "a.tar").write_bytes(about.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(OSError, match="a header of"), (tmp_path / "a.tar").open("rb") as file:
        tars.listed(file, 1 << 41)


def header(name: str, kind: bytes, size: int, content: bytes = b"") -> bytes:
    about = tarfile.TarInfo(name)
    about.type, about.size = kind, size
    return about.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(word: str) -> bytes:
    said = f"{len(word) + 4} {word}\n".encode()
    return header("pax", tarfile.XHDTYPE, len(said), said)


NONSENSE = {
    "back to itself": header("loop.png", tarfile.REGTYPE, -512),
    "back to the photo": header("loop.png", tarfile.REGTYPE, -512 * 16),
    "a name for a name": header("long", tarfile.GNUTYPE_LONGNAME, 512, b"x") * 3000,
    "a map that is none": pax("GNU.sparse.map=no,number") + header("a", tarfile.REGTYPE, 0),
    "a name for nothing": header("long", tarfile.GNUTYPE_LONGNAME, 512, b"x") + b"\xff" * 1024,
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_in_a_tar_file_ends_its_list(nonsense):
    sound = tar_of({"a.png": picture(1)})
    sound = sound[: 512 + -(-len(picture(1)) // 512) * 512]
    content = sound + nonsense + bytes(1024)
    found, trouble = tars.listed(io.BytesIO(content), len(content))
    assert set(found) <= {"a.png", "loop.png"}
    assert found["a.png"].offset == 512
    assert "damaged after" in trouble


def test_a_time_that_is_no_number_is_none():
    content = pax("mtime=nan") + header("a.png", tarfile.REGTYPE, 0) + bytes(1024)
    assert tars.listed(io.BytesIO(content), len(content))[0]["a.png"].mtime_ns == 0


@pytest.mark.parametrize("inside", ["x.png", "folder"])
def test_what_is_asked_for_in_a_tar_file_that_can_not_be_read_is_not_gone(inside, tmp_path, library):
    (tmp_path / "a.tar").write_bytes(tar_of({"x.png": picture(1), "folder/y.png": picture(2)}))
    library.index([tmp_path / "a.tar"], options=ONE)
    (tmp_path / "a.tar").write_bytes(b"no tar file" * 100)
    report = library.index([tmp_path / "a.tar" / inside], options=ONE)
    assert (report.gone, [skip.path for skip in report.skipped]) == (0, [str(tmp_path / "a.tar")])


def test_a_copy_that_has_no_room_ends_the_run():
    resource = pytest.importorskip("resource")
    place = Place("memory://room/a.tar", is_tar=True)
    place.put(a=picture(1), b=picture(2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(StorageError, match="has no room in"):
            list(Sources().scan(place.root))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- what can't be reached


def test_whoever_waited_for_a_tar_file_does_not_try_again(monkeypatch):
    tried = []
    waiting = threading.Barrier(4)

    def away(self, path: str) -> None:
        tried.append(path)
        while sum("a.tar" in name for name in map(str, entered)) < 3:
            time.sleep(0.001)
        raise SourceAway("it is away")

    def read() -> str:
        waiting.wait()
        entered.append("a.tar")
        with pytest.raises(SourceAway, match="it is away"):
            sources._tar("memory://away/a.tar")
        return "told"

    entered: list[str] = []
    sources = Sources()
    monkeypatch.setattr(Sources, "_state", away)
    with ThreadPoolExecutor(3) as pool:
        told = [pool.submit(read) for _ in range(3)]
        waiting.wait()
        assert [one.result() for one in told] == ["told"] * 3
    assert len(tried) < 3
    with pytest.raises(SourceAway):
        sources._tar("memory://away/a.tar")
    assert len(tried) >= 2  # who comes later tries


def test_a_place_that_is_away_is_asked_once_for_all_its_photos(library, tmp_path, monkeypatch):
    place = Place(f"memory://bucket/{tmp_path.name}/photos", is_tar=False)
    place.put(a=picture(1), b=picture(2), c=picture(3))
    library.index([place.root], options=ONE)
    asked = []

    def away(self, path: str) -> None:
        asked.append(path)
        raise SourceAway("it is away")

    monkeypatch.setattr(Sources, "stat", away)
    assert library.check_photos().offline == 3
    assert len(asked) == 1


def test_credentials_that_expired_are_not_told_of_each_photo():
    def call() -> None:
        error = PermissionError("The provided token has expired.")
        error.__cause__ = OSError()
        error.__cause__.response = {"Error": {"Code": code}}
        raise error

    code = "ExpiredToken"
    with pytest.raises(SourceAway, match="token has expired"):
        objects.asked("s3://bucket/a.jpg", call)
    code = "AccessDenied"
    with pytest.raises(PermissionError):
        objects.asked("s3://bucket/a.jpg", call)


# ---- addresses


@pytest.mark.parametrize("address", ["s3://", "s3://a/../b", "simplecache::s3://b/a", "memory://a::zip://b"])
def test_addresses_that_could_mean_anything_are_refused(address, library):
    with pytest.raises(UsageError, match="no address"):
        library.index([address])


def test_an_address_with_a_password_is_refused_and_not_repeated(library):
    for refused in (
        lambda: library.index(["sftp://ann:secret@host/a"]),
        lambda: objects.reach("s3://a:secret@b/c"),
    ):
        with pytest.raises(UsageError, match="a password") as error:
            refused()
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "address", ["file:///etc", "zip://a/b", "nonsense://a/b", "reference://a", "webhdfs://host/a"]
)
def test_protocols_that_are_none_of_object_storage_are_refused(address, library):
    library.model.offline = False
    with pytest.raises(UsageError):
        library.index([address])


@pytest.mark.parametrize("place", ["memory", pytest.param("memory tar", marks=pytest.mark.slow)], indirect=True)
def test_offline_photos_far_away_count_as_such(place, library, monkeypatch):
    library.index([place.root], options=ONE)
    monkeypatch.setattr(objects, "HERE", ())
    report = library.index([place.root], options=ONE)
    assert counts(report) == {"offline": 3}
    assert [root.online for root in library.status().roots] == [False]
    assert library.check_photos().offline == 3
    with pytest.raises(SourceAway):
        library.index(["memory://never/seen"])


# ---- the command line and the pages


@pytest.fixture
def run(tmp_path, builtin, monkeypatch):
    monkeypatch.setattr(LibraryModel, "load", lambda self, name, photos=0: builtin)

    def run_(*arguments: str):
        result = CliRunner().invoke(cli, ["-L", str(tmp_path / "library"), *arguments, "--json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return json.loads(result.stdout)

    return run_


def test_commands_take_and_show_addresses(place, run):
    assert run("index", place.root, "--model", "builtin", "--workers", "1")["added"] == 3
    assert run("find", "a photo", "-k", "1", "--min-relevance", "0")["hits"][0]["path"].startswith(place.root)
    hits = run("find", "--like", place.path("a"), "--folder", f"{place.root}/day")["hits"]
    assert {hit["path"] for hit in hits} == {place.path("day_b"), place.path("day_c")}
    assert len(run("similar", place.path("a"))["hits"]) == 2
    assert run("show", place.path("day_c"))["path"] == place.path("day_c")
    assert run("check", "--photos", "--hash")["ok"]
    assert run("skipped")["skipped"] == []
    assert run("remove", place.root)["removed"] == 3


def test_pages_show_photos_from_anywhere(place, library, builtin):
    library.index([place.root], options=ONE)
    photo = library.photo(place.path("a"))
    app = create_app(library, ServeOptions())
    with TestClient(app, base_url="http://localhost:8000", client=("127.0.0.1", 5000)) as client:
        assert client.get(f"/thumbnails/{photo.id}/320").headers["content-type"] == "image/webp"
        assert client.get(f"/photos/{photo.id}").status_code == 200
        sent = client.get(f"/api/photos/{photo.id}/original")
        assert (sent.status_code, sent.content) == (200, place.members["a.png"])
        place.put(a=picture(6) + b"\0")
        assert client.get(f"/api/photos/{photo.id}/original").status_code == 409
        assert client.get(f"/thumbnails/{photo.id}/640").status_code == 404
