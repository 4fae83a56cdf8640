"""What holds of photos wherever they lie: in a folder, a tar file, on object storage, in a tar file there."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import pytest
from object_storage import Place, environment, moto_server, picture

from search import objects
from search.errors import PhotoError, SourceAway
from search.photos.scan import ScanOptions
from search.photos.sources import Sources


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with moto_server() as (host, port):
        yield f"http://{host}:{port}"


KINDS = [
    "folder",
    "tar",
    "memory",
    "memory tar",
    pytest.param("s3", marks=pytest.mark.slow),
    pytest.param("s3 tar", marks=pytest.mark.slow),
]


@pytest.fixture(params=KINDS)
def place(request, tmp_path, monkeypatch) -> Iterator[Place]:
    kind, _, tar = request.param.partition(" ")
    if kind in ("folder", "tar"):
        root = f"{tmp_path}/photos"
    elif kind == "memory":
        root = f"memory://bucket/{tmp_path.name}"
    else:
        for name, value in environment(request.getfixturevalue("s3")).items():
            monkeypatch.setenv(name, value)
        objects.forget()
        root = f"s3://bucket/{tmp_path.name}"
        if not objects.reach(root)[0].exists("bucket"):
            objects.reach(root)[0].mkdir("bucket")
    is_tar = bool(tar) or kind == "tar"
    place = Place(f"{root}.tar" if is_tar else root, is_tar=is_tar)
    place.put(a=picture(1), day_b=picture(2), day_c=picture(3))
    yield place
    objects.forget()


@pytest.fixture
def sources(tmp_path) -> Sources:
    return Sources(lists=tmp_path / "lists")


def test_photos_are_listed_in_the_order_of_their_names(place, sources):
    found = list(sources.scan(place.root))
    assert [file.path for file in found] == [place.path(name) for name in ("a", "day_b", "day_c")]
    assert [file.size_bytes for file in found] == [len(place.members[name]) for name in sorted(place.members)]
    assert all(file.ctime_ns is not None for file in found)


def test_a_part_or_a_single_photo_is_listed_alone(place, sources):
    assert [file.path for file in sources.scan(f"{place.root}/day")] == [place.path("day_b"), place.path("day_c")]
    assert [file.path for file in sources.scan(place.path("day_c"))] == [place.path("day_c")]


def test_what_is_left_out_of_folders_is_left_out_everywhere(place, sources):
    place.put(**{".hidden": picture(4), "@eadir_small": picture(5)})
    options = ScanOptions(exclude=("day/c.*",))
    assert [file.path for file in sources.scan(place.root, options)] == [place.path("a"), place.path("day_b")]


def test_kinds_are_told(place, sources):
    assert sources.kind(place.root) == "folder"
    assert sources.kind(f"{place.root}/day") == "folder"
    assert sources.kind(place.path("day_b")) == "file"
    assert sources.kind(f"{place.root}/no") is None
    place.lose()
    assert sources.kind(f"{place.root}/day/b.png") is None


def test_bytes_are_those_that_were_put_there(place, sources):
    for name, content in place.members.items():
        path = f"{place.root}/{name}"
        assert sources.content_hash(path) == hashlib.sha256(content).digest()
        listed = next(sources.scan(path))
        if (read := sources.content(listed, whole=True)) is not None:
            assert read() == (content, listed)
        assert (read is None) == sources.is_plain(path)


def test_a_photo_is_the_same_by_itself_as_in_a_list(place, sources):
    for listed in sources.scan(place.root):
        if not sources.is_plain(listed.path):
            assert sources.stat(listed.path) == listed


def test_a_photo_that_was_replaced_or_added_is_told_by_its_state(place, sources):
    before = {file.path: file for file in sources.scan(place.root)}
    assert {file.path: file for file in sources.scan(place.root)} == before
    place.put(day_b=picture(9) + b"\0", d=picture(10))
    after = {file.path: file for file in sources.scan(place.root)}
    assert after.keys() - before.keys() == {place.path("d")}
    assert after[place.path("day_b")] != before[place.path("day_b")]


def test_a_photo_that_is_not_there_can_not_be_read(place, sources):
    with pytest.raises(PhotoError) as error:
        sources.content_hash(place.path("none"))
    assert error.value.reason == "unreadable"


def test_a_photo_that_changed_since_it_was_listed_is_not_taken_for_it(place, sources):
    listed = next(sources.scan(place.path("a")))
    if sources.content(listed) is None:
        return
    place.put(a=picture(8) + b"\0\0")
    with pytest.raises(PhotoError, match="changed since") if not place.is_tar else contextlib.nullcontext():
        content, now = Sources().content(listed)()
        assert (content, now != listed) == (place.members["a.png"], True)


@pytest.mark.parametrize("address", ["s3://bucket/a", "gs://bucket"])
def test_offline_nothing_is_asked_over_a_network(address):
    sources = Sources(offline=True)
    with pytest.raises(SourceAway, match="is not looked at"):
        sources.kind(address)
    assert not sources.is_there(address)
    assert not sources.is_online(address)
