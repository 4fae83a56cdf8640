"""An index on a real Milvus server that is killed, comes back, is away for good."""

from __future__ import annotations

from time import monotonic, sleep

import numpy as np
import pytest
from servers import Milvus
from vector_stores import Pushed

from search.errors import IndexUnavailable
from search.types import Filter
from search.vectors import normalize
from search.vectors.stores import Store, milvus, open_store

pytestmark = [pytest.mark.milvus, pytest.mark.slow]


def wait_for(store: Store) -> None:
    """Wait until a server that has just started has read its collections again."""
    deadline = monotonic() + 60
    while True:
        try:
            store.ids()
            return
        except IndexUnavailable:
            if monotonic() > deadline:
                raise
            sleep(0.5)


def test_what_was_pushed_survives_a_kill_and_a_start(milvus_server: Milvus, open_library, album):
    server = milvus_server
    rng = np.random.default_rng(0)
    vectors = normalize(rng.standard_normal((6000, 64)))
    store = open_store(f"{server.url}/many")
    index = Pushed(store, 64)
    index.add(np.arange(6000), vectors)
    assert index.stamp.rows == 6000
    url = f"{server.url}/album"
    with open_library() as library:
        library.index([album])
        library.rebuild(index=url)
        before = [(hit.photo.id, hit.score) for hit in library.search("a wall", 12)]
    store.close()

    server.kill()
    told: list[str] = []
    quick = pytest.MonkeyPatch()
    quick.setattr(milvus, "_READ_S", 3)
    with open_library() as library:  # the folder has an index of its own
        library._notify = told.append
        assert [(hit.photo.id, hit.score) for hit in library.search("a wall", 12)] == before
        assert "does not answer" in told[0] and "in the library's folder" in told[0]
    with pytest.raises(IndexUnavailable, match="does not answer"):
        open_store(f"{server.url}/many").stamp()

    quick.undo()
    server.start()
    store = open_store(f"{server.url}/many")
    wait_for(store)
    assert store.stamp() == index.stamp
    assert store.ids().tolist() == list(range(6000))
    assert [some[0] for some in store.search(vectors[:5], 1)] == [0, 1, 2, 3, 4]
    store.close()
    wait_for(open_store(f"{server.url}/album"))
    with open_library() as library:
        with library.catalog.writing() as writer:  # the port may be another: the old one is not free at once
            writer.note_index(url=f"{server.url}/album")
        assert library.check(full=True).ok
        assert [(hit.photo.id, hit.score) for hit in library.search("a wall", 12)] == before
        library.remove([album / "day1"])
        assert len(library.search("a wall", 12)) == 8
        assert library.search("a wall", 12, filter=Filter(camera="none such")) == []
        assert library.vector_index().kind == "milvus"
