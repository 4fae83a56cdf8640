"""Shards on object storage: moto's server on loopback stands for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from search.engines import LocalEngine
from search.errors import StorageError
from search.indexer import IndexOptions
from search.photos.scan import scan
from search.shards import Job, Shard, plan
from search.shards.encoding import done, encode_shard, paths, quarantine, read, remaining
from search.shards.run import ShardOptions
from search.shards.store import open_store

pytestmark = pytest.mark.slow
moto = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(address, monkeypatch, request) -> Iterator[str]:
    for name, value in (
        ("AWS_ENDPOINT_URL", address),
        ("AWS_ACCESS_KEY_ID", "nobody"),
        ("AWS_SECRET_ACCESS_KEY", "nothing"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    name = f"b{len(request.node.name)}"
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}/some/where"
    s3fs.S3FileSystem.clear_instance_cache()


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


def test_of_a_shard_no_more_is_fetched_than_the_names(album, bucket, counting, monkeypatch):
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


def test_a_server_that_is_away_ends_the_run_and_it_goes_on_later(album, bucket, library, counting, monkeypatch):
    shards = ShardOptions(LocalEngine(), bucket, 5)
    s3fs.S3FileSystem.clear_instance_cache()
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        away.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(StorageError, match="s3://"):
            library.index([album], shards=shards)
    s3fs.S3FileSystem.clear_instance_cache()
    assert library.index([album], shards=shards).added == 12
