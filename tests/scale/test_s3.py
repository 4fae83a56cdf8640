"""Photos and shards on object storage: moto's server on loopback stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
from object_storage import Place, Wire, environment, moto_server, picture, tar_of

from search import Library, objects
from search.engines import LocalEngine
from search.errors import SearchError, StorageError
from search.indexer import IndexOptions
from search.photos import sources
from search.photos.scan import scan
from search.shards import Job, Shard, plan
from search.shards.encoding import done, encode_shard, paths, quarantine, read, remaining
from search.shards.run import ShardOptions
from search.shards.store import open_store

pytestmark = pytest.mark.slow

ONE = IndexOptions(workers=1)


@pytest.fixture(scope="module")
def s3fs() -> ModuleType:
    return pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    pytest.importorskip("moto.server")
    with moto_server() as address:
        yield address


@pytest.fixture
def wire(server, monkeypatch) -> Iterator[Wire]:
    """The way to the server, for the test to cut."""
    wire = Wire(*server)
    for name, value in environment(wire.address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "_DELAYS_S", (0.01, 0.02, 0.05))
    objects.forget()
    yield wire
    objects.forget()
    wire.close()


@pytest.fixture
def bucket(wire, request) -> str:
    name = f"b{abs(hash(request.node.name))}"
    objects.reach("s3://")[0].mkdir(name)
    return f"s3://{name}/some/where"


@pytest.fixture
def library(open_library) -> Iterator[Library]:
    with open_library() as library:
        library.model.offline = False
        yield library


@pytest.fixture
def place(bucket) -> Place:
    """Twenty photos on object storage."""
    place = Place(f"{bucket}/photos", is_tar=False)
    place.put(**{f"day{number % 3}_{number:02}": picture(number) for number in range(20)})
    return place


def test_shards_lie_there_as_in_a_folder(album, bucket, tmp_path, counting):
    here, there = (
        Job("builtin", counting.fingerprint, at, "x", workers=1) for at in (str(tmp_path / "s"), bucket)
    )
    shards = list(plan(scan(str(album)), there, size=5))
    assert done(there) == set()
    for job in (here, there):
        for shard in shards:
            encode_shard(shard, job, encoder=counting)
    assert done(there) == done(here) == {shard.name for shard in shards}
    for shard in shards:
        both = [open_store(job.store, job.fingerprint).read(shard.name) for job in (here, there)]
        assert both[0] == both[1]
    assert remaining(shards, there) == []
    with pytest.raises(StorageError, match="s3://"):
        read(open_store(bucket, counting.fingerprint), "none", counting.fingerprint)


def test_of_a_shard_no_more_is_fetched_than_the_names(album, bucket, counting, s3fs, monkeypatch):
    job = Job("builtin", counting.fingerprint, bucket, "x", workers=1)
    (file,) = scan(str(album / "day0" / "photo00.png"))
    shard = Shard.of([file._replace(path=f"{file.path}{number}") for number in range(2000)], job)
    quarantine(shard, job, "a reason that takes some room" * 10)
    store = open_store(bucket, counting.fingerprint)
    sizes = []
    monkeypatch.setattr(
        s3fs.core.S3File,
        "_fetch_range",
        lambda *a, f=s3fs.core.S3File._fetch_range: sizes.append(a[2] - a[1]) or f(*a),
    )
    assert paths(store, shard.name) == [one.path for one in shard.files]
    assert sum(sizes) < len(store.read(shard.name)) / 3


def test_a_library_is_indexed_by_way_of_it(album, bucket, library, counting):
    job = Job("builtin", counting.fingerprint, bucket, "x", workers=1)
    encode_shard(next(plan(scan(str(album)), job, size=5)), job, encoder=counting)  # what another run left there
    report = library.index([album], options=IndexOptions(workers=1), shards=ShardOptions(LocalEngine(), bucket, 5))
    assert (report.added, report.encoded, counting.images) == (12, 7, 12)
    assert library.merge(bucket).added == 0


def test_a_server_that_is_away_ends_the_run_and_it_goes_on_later(album, bucket, wire, library):
    shards = ShardOptions(LocalEngine(), bucket, 5)
    wire.cut()
    with pytest.raises(StorageError, match="s3://"):
        library.index([album], shards=shards)
    wire.mend()
    assert library.index([album], shards=shards).added == 12


def test_a_store_that_is_cut_off_in_the_midst_has_each_shard_once(album, bucket, wire, library, counting):
    shards = ShardOptions(LocalEngine(), bucket, 2, 1)
    wire.cut(after=20_000)
    with pytest.raises(StorageError, match="can't be reached"):
        library.index([album], options=ONE, shards=shards)
    assert wire.is_cut
    before = library.catalog.count()
    assert before < 12
    wire.mend()
    assert library.index([album], options=ONE, shards=shards).added == 12 - before
    everything_once(library, {str(path) for path in album.rglob("*.png")})
    assert len(open_store(bucket, counting.fingerprint).names()) >= 6


# ---- photos there


def everything_once(library: Library, paths: set[str]) -> None:
    found = [photo.path for photo in library.catalog.get(library.catalog.all_ids().tolist())]
    assert (sorted(found), library.status().encoders[0].photos) == (sorted(paths), len(paths))
    assert library.check(full=True).ok


def paths_of(place: Place) -> set[str]:
    return {f"{place.root}/{name}" for name in place.members}


def index_until_cut(library: Library, place: Place, wire: Wire, bytes_: int, shards: ShardOptions | None) -> int:
    """Index while the wire is cut after so many bytes; return how many photos came in."""
    options = IndexOptions(workers=1, batch_size=4)
    wire.cut(after=bytes_)
    with pytest.raises(SearchError, match="can't be reached"):
        library.index([place.root], options=options, shards=shards)
    assert wire.is_cut
    wire.mend()
    return library.catalog.count()


@pytest.mark.parametrize("in_shards", [False, True])
def test_a_source_that_is_cut_off_in_the_midst_is_gone_on_with(
    in_shards, place, wire, library, counting, tmp_path
):
    shards = ShardOptions(LocalEngine(), str(tmp_path / "shards"), 4, 1) if in_shards else None
    library.index([place.root], options=ONE)  # the model and the way there are warm
    library.remove([place.root])
    before = counting.images
    done = index_until_cut(library, place, wire, 90_000, shards)
    assert 0 < done < 20
    report = library.index([place.root], options=IndexOptions(workers=1, batch_size=4), shards=shards)
    assert (report.added, report.skipped) == (20 - done, ())
    assert counting.images - before <= 20 + 4  # a batch at most is encoded again
    everything_once(library, paths_of(place))
    assert library.index([place.root], options=ONE, shards=shards).unchanged == 20


def test_a_tar_file_that_is_cut_off_in_the_midst_is_gone_on_with(bucket, wire, library, monkeypatch):
    monkeypatch.setattr(sources, "_AT_ONCE", 20_000)
    place = Place(f"{bucket}/00001.tar", is_tar=True)
    place.put(**{f"{number:04}": picture(number) for number in range(20)})
    wire.cut(after=60_000)
    with pytest.raises(SearchError, match="can't be reached"):
        library.index([place.root], options=ONE)
    wire.mend()
    assert library.index([place.root], options=ONE).added == 20
    everything_once(library, paths_of(place))
    assert library.index([place.root], options=ONE).unchanged == 20


def test_a_bucket_that_is_away_is_offline_and_nothing_is_gone(place, wire, library, album):
    library.index([place.root, album], options=ONE)
    wire.cut()
    report = library.index([place.root, album], options=ONE)
    assert (report.offline, report.gone, report.unchanged) == (20, 0, 12)
    assert [root.online for root in library.status().roots if root.path == place.root] == [False]
    assert library.check_photos(content=True).offline == 20
    assert len(library.similar(place.path("day0_00")).hits) == 10
    wire.mend()
    assert library.index([place.root], options=ONE).unchanged == 20


def test_what_was_deleted_there_is_gone_and_what_changed_is_encoded(place, library, counting):
    library.index([place.root], options=ONE)
    before = counting.images
    place.put(day0_00=None, day1_01=picture(100), day2_20=picture(101))
    report = library.index([place.root], options=ONE)
    assert (report.gone, report.updated, report.added, counting.images - before) == (1, 1, 1, 2)


def test_a_photo_that_may_not_be_read_is_skipped_and_the_others_are_not(place, library):
    files, key = objects.reach(place.path("day0_00"))
    files.pipe_file(key, b"")
    report = library.index([place.root], options=ONE)
    assert [(skip.path, skip.reason) for skip in report.skipped] == [(place.path("day0_00"), "empty")]
    assert report.added == 19


def test_names_that_no_path_has_are_told_and_nothing_comes_twice(bucket):
    files, key = objects.reach(bucket)
    for name in ("a/", "a//lost.png", "a/a/y.png", "a/z.png", "../up.png"):
        files.pipe_file(f"{key}/{name}", picture(1) if name.endswith("png") else b"")
    told = []
    found = list(sources.Sources().scan(bucket, on_error=lambda path, error: told.append(path)))
    assert [file.path for file in found] == [f"{bucket}/a/a/y.png", f"{bucket}/a/z.png"]
    assert told == [f"{bucket}/%2E", f"{bucket}/a/%2E"]


def test_a_photo_costs_one_request(place, s3fs, monkeypatch):
    there = sources.Sources()
    listed = list(there.scan(place.root))
    asked = []
    call = s3fs.core.S3FileSystem._call_s3
    monkeypatch.setattr(
        s3fs.core.S3FileSystem,
        "_call_s3",
        lambda self, what, *a, **k: asked.append(what) or call(self, what, *a, **k),
    )
    assert [there.content(file)()[1] for file in listed] == listed
    assert asked == ["get_object"] * 20


def test_an_empty_member_of_a_tar_file_is_not_all_of_it(bucket, tmp_path):
    files, key = objects.reach(f"{bucket}/a.tar")
    files.pipe_file(key, tar_of({"a.png": b"", "b.png": picture(1)}))
    listed = list(sources.Sources(lists=tmp_path).scan(f"{bucket}/a.tar"))
    there = sources.Sources(lists=tmp_path)  # knows the list, and reads what it is asked for alone
    assert [there.read(file.path)[0] for file in listed] == [b"", picture(1)]


def test_photos_and_shards_are_there_and_nothing_is_here(place, bucket, library):
    shards = ShardOptions(LocalEngine(), f"{bucket}/shards", 7, 1)
    assert library.index([place.root], options=ONE, shards=shards).encoded == 20
    everything_once(library, paths_of(place))
