"""Layouts of other software: read where they are, written so that others read them."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from pyarrow import parquet
from pyarrow import table as arrow_table

from search.errors import UsageError
from search.interop import clip_retrieval, tables, webdataset
from search.interop.clip_retrieval import EmbeddingFolder
from search.interop.immich import ImmichDatabase, ImmichDump, model_of
from search.vectors import normalize


@pytest.fixture
def indexed(library, album):
    library.index([album])
    return library


def vectors_of(library):
    encoder = library.catalog.encoder()
    return library.catalog.embeddings(encoder, library.catalog.all_ids().tolist())


# ---- clip-retrieval


def write_folder(folder: Path, parts, dtype="float16") -> Path:
    """Embeddings and metadata as clip-retrieval writes them; parts: (paths, vectors)."""
    for number, (paths, vectors) in enumerate(parts):
        for inside in ("img_emb", "metadata"):
            (folder / inside).mkdir(parents=True, exist_ok=True)
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", np.asarray(vectors, dtype))
        captions = [f"caption {i}" for i, _ in enumerate(paths)]
        columns = {"image_path": [str(path) for path in paths], "caption": captions}
        parquet.write_table(arrow_table(columns), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_of_an_embedding_folder_are_counted_through_all_its_parts(tmp_path, dtype):
    vectors = normalize(np.random.default_rng(0).normal(size=(5, 8)))
    folder = write_folder(tmp_path / "e", [("ab", vectors[:2]), ("cde", vectors[2:])], dtype)
    source = EmbeddingFolder(folder)
    assert [(entry.path, entry.row) for entry in source.entries] == list(zip("abcde", range(5), strict=True))
    assert np.allclose(source.vectors([4, 0, 2]), vectors[[4, 0, 2]], atol=1e-3)  # float16
    assert source.dim == 8


def test_a_folder_whose_parts_do_not_match_is_refused(tmp_path):
    folder = write_folder(tmp_path / "e", [("ab", np.eye(3))])
    with pytest.raises(UsageError, match=r"has 3 rows, but .* 2"):
        EmbeddingFolder(folder)
    (folder / "img_emb" / "img_emb_1.npy").write_bytes(b"x")
    with pytest.raises(UsageError, match="img_emb has 2 parts, metadata 1"):
        EmbeddingFolder(folder)
    with pytest.raises(UsageError, match="no folder of clip-retrieval's"):
        EmbeddingFolder(tmp_path)


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    folder = write_folder(tmp_path / "e", [("ab", np.eye(2)), ("cd", np.eye(2)), ("ef", np.eye(2))])
    (folder / "img_emb" / "img_emb_1.npy").unlink()
    (folder / "metadata" / "metadata_2.parquet").unlink()
    with pytest.raises(UsageError, match=r"lacks a part: img_emb_2.npy .* metadata_1.parquet"):
        EmbeddingFolder(folder)


def test_keys_of_tar_files_stand_for_the_pictures_unpacked_of_them(indexed, shards, tmp_path):
    webdataset.unpack([shards], tmp_path / "to")
    ids, vectors = vectors_of(indexed)
    by_content = {
        Path(photo.path).read_bytes(): vector
        for photo, vector in zip(indexed.catalog.get(ids.tolist()), vectors, strict=True)
    }
    unpacked = sorted((tmp_path / "to").rglob("*.png"))
    rows = [by_content[path.read_bytes()] for path in unpacked]
    folder = write_folder(tmp_path / "e", [([*(path.stem for path in unpacked), "000990000"], [*rows, rows[0]])])
    report = indexed.adopt(EmbeddingFolder(folder, pictures=tmp_path / "to"))
    assert (report.named, len(report.passport.spots), report.passport.lowest > 0.999) == (7, 6, True)
    assert [(Path(skip.path).name, skip.reason) for skip in report.index.skipped] == [("000990000", "missing")]
    (tmp_path / "to" / "00001" / unpacked[0].name).write_bytes(b"")
    assert EmbeddingFolder(folder, pictures=tmp_path / "to").left == {"several pictures of one key": 1}
    with pytest.raises(UsageError, match="holds no pictures"):
        EmbeddingFolder(folder, pictures=tmp_path / "shards")


def test_pickled_vectors_are_refused(tmp_path):
    folder = write_folder(tmp_path / "e", [("ab", np.eye(2))])
    np.save(folder / "img_emb" / "img_emb_0.npy", np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(UsageError, match="can't be read"):
        EmbeddingFolder(folder)


def test_an_export_is_whole_and_reads_as_it_was(indexed, tmp_path):
    folder = tmp_path / "out"
    assert clip_retrieval.export(indexed, folder) == 12
    source = EmbeddingFolder(folder)
    ids, vectors = vectors_of(indexed)
    assert [entry.path for entry in source.entries] == [photo.path for photo in indexed.catalog.get(ids.tolist())]
    assert np.array_equal(source.vectors(range(12)), vectors)  # float16, as the library keeps them
    index = faiss.read_index(str(folder / "image.index"))
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    scores, rows, back = index.search_and_reconstruct(normalize(vectors), 1)
    assert rows[:, 0].tolist() == list(range(12))
    assert np.allclose(scores, 1, atol=1e-4) and back.shape == (12, 1, vectors.shape[1])  # fp32 reduction order
    metadata = parquet.read_table(folder / "metadata" / "metadata_0.parquet")
    assert metadata["camera"].to_pylist() == [""] * 12  # a null would be served as NaN
    assert metadata.column_names[:2] == ["image_path", "caption"]
    served = json.loads((folder / "indices_paths.json").read_text())["photos"]
    assert served["indice_folder"] == str(folder)
    assert not any(
        value for name, value in served.items() if name.startswith(("enable", "provide", "use", "reorder"))
    )
    assert "enable_mclip_option" in served  # else its server looks for another model, and does not start
    assert "clip_model" not in served  # the built-in model is none that it could open


def test_an_export_replaces_an_earlier_one_and_nothing_else(indexed, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="no earlier export"):
        clip_retrieval.export(indexed, folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    clip_retrieval.export(indexed, folder)
    indexed.remove([next(iter(indexed.catalog.get([1]))).path])
    assert clip_retrieval.export(indexed, folder) == 11
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))) == ["out"]


def test_an_export_can_be_taken_over_again(indexed, tmp_path, counting):
    from search import Library

    clip_retrieval.export(indexed, tmp_path / "out")
    with Library.open(tmp_path / "other", model="builtin", offline=True) as other:
        other.model.loaded = counting
        report = other.adopt(EmbeddingFolder(tmp_path / "out"))
        assert (report.adopted, report.index.encoded) == (12, 0)
        assert np.array_equal(vectors_of(other)[1], vectors_of(indexed)[1])


# ---- tables


def test_a_parquet_file_has_every_photo_and_its_vector(indexed, tmp_path):
    file = tmp_path / "photos.parquet"
    assert tables.export(indexed, file, vectors=True) == 12
    read = parquet.read_table(file)
    assert read.column_names == [*tables.COLUMNS, "vector"]
    assert read.schema.metadata[b"search.fingerprint"].decode() == indexed.encoder.fingerprint
    ids, vectors = vectors_of(indexed)
    assert read["id"].to_pylist() == ids.tolist()
    assert np.array_equal(np.array(read["vector"].to_pylist(), np.float32), vectors)
    assert read["width"].to_pylist() == [64] * 12


# ---- immich

DUMP = """\
--
COPY public.asset (id, "deviceAssetId", type, "originalPath", "deletedAt") FROM stdin;
a1\tx\tIMAGE\t/data/one\\ttab.jpg\t\\N
a2\tx\tVIDEO\t/data/two.mp4\t\\N
a3\tx\tIMAGE\t/data/three.jpg\t2024-01-01 00:00:00+00
a4\tx\tIMAGE\t/data/four.jpg\t\\N
\\.

COPY public.smart_search ("assetId", embedding) FROM stdin;
a4\t[0,1,0]
a2\t[1,0,0]
a1\t[0.6,0,0.8]
a3\t[0,0,1]
\\.

COPY public.system_metadata (key, value) FROM stdin;
system-config\t{"machineLearning": {"clip": {"modelName": "ViT-B-16-SigLIP__webli"}}}
\\.
"""


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_immich_dump_gives_its_photos_their_vectors_and_the_model(tmp_path, pack):
    (tmp_path / "dump").write_bytes(pack(DUMP.encode()))
    source = ImmichDump(tmp_path / "dump")
    assert source.model == "ViT-B-16-SigLIP/webli"
    assert [entry.path for entry in source.entries] == ["/data/four.jpg", "/data/one\ttab.jpg"]
    assert source.left == {"no picture": 1, "deleted": 1}
    found = source.vectors([entry.row for entry in source.entries])
    assert np.allclose(found, [[0, 1, 0], [0.6, 0, 0.8]])


def test_an_immich_database_gives_the_same(tmp_path):
    place = tmp_path / "immich.db"
    with closing(sqlite3.connect(place)) as database, database:
        database.executescript(
            """
            CREATE TABLE asset (id TEXT, type TEXT, "originalPath" TEXT, "deletedAt" TEXT);
            INSERT INTO asset VALUES ('a1', 'IMAGE', '/data/one.jpg', NULL), ('a2', 'VIDEO', '/data/two.mp4', NULL);
            CREATE TABLE smart_search ("assetId" TEXT, embedding TEXT);
            INSERT INTO smart_search VALUES ('a2', '[1,0]'), ('a1', '[0.6,0.8]');
            CREATE TABLE system_metadata (key TEXT, value TEXT);
            """
        )
    source = ImmichDatabase(f"sqlite:///{place}")
    assert (source.model, source.dim, source.left) == ("ViT-B-32/openai", 2, {"no picture": 1})
    assert np.allclose(source.vectors([source.entries[0].row]), [[0.6, 0.8]])


CUT = DUMP.partition("a1\t[0.6")[0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it has none"),
        (b"no SQL", "it has none"),
        (b"COPY public.smart_search (x) FROM stdin;\n1\n\\.\n", "assetId"),
        (CUT.encode(), "it ends within smart_search"),
        (DUMP.replace("[0,1,0]", "[0,1]").encode(), "widths"),
        (b"PGDMP\1\2", "pg_restore"),
        (gzip.compress(DUMP.encode())[:-30], "ended"),
        (gzip.compress(DUMP.encode())[:30] + b"x" * 300, "no dump"),
    ],
    ids=[
        "empty",
        "no SQL",
        "no column",
        "cut",
        "two widths",
        "custom format",
        "packed and cut",
        "packed and damaged",
    ],
)
def test_what_is_no_whole_dump_of_immichs_is_refused(tmp_path, content, why):
    (tmp_path / "dump").write_bytes(content)
    with pytest.raises(UsageError, match=why):
        ImmichDump(tmp_path / "dump")


@pytest.mark.parametrize("url", ["://", "sqlite:////nowhere/at/all.db", "oracle+nothing://x/y"])
def test_a_database_that_is_not_there_is_told(url):
    with pytest.raises(UsageError):
        ImmichDatabase(url)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (None, "ViT-B-32/openai"),
        ("{}", "ViT-B-32/openai"),
        ('{"machineLearning": {"clip": {"modelName": "immich-app/ViT-L-14__x_y"}}}', "ViT-L-14/x_y"),
        (
            '{"machineLearning": {"clip": {"modelName": "XLM-Roberta-Large-Vit-B-32"}}}',
            None,
        ),  # none of open_clip's
    ],
)
def test_the_model_is_immichs_own_unless_it_was_told_otherwise(config, model):
    assert model_of(config) == model


# ---- tar files


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path, album):
    pictures = [path.read_bytes() for path in sorted(album.rglob("*.png"))]
    for shard in range(2):
        members = {}
        for i in range(3):
            key = f"{shard:05}{i:04}"
            members |= {f"{key}.png": pictures[3 * shard + i], f"{key}.txt": b"a caption", f"{key}.json": b"{}"}
        write_tar(tmp_path / "shards" / f"{shard:05}.tar", members)
    return tmp_path / "shards"


def test_tar_files_become_folders_that_can_be_indexed(shards, tmp_path, library):
    report = webdataset.unpack([shards], tmp_path / "to")
    assert (report.shards, report.photos, report.skipped) == (2, 6, ())
    assert sorted(path.name for path in (tmp_path / "to" / "00001").iterdir())[:3] == [
        *("000010000.json", "000010000.png", "000010000.txt"),
    ]
    assert library.index([tmp_path / "to"]).added == 6
    again = webdataset.unpack([shards], tmp_path / "to")
    assert (again.shards, again.unchanged, again.photos) == (0, 2, 6)
    assert library.index([tmp_path / "to"]).unchanged == 6


def test_members_that_lead_elsewhere_or_hide_stay_in_the_tar_file(tmp_path, album):
    picture = next(album.rglob("*.png")).read_bytes()
    names = (
        "../../out.png",
        "/abs.png",
        ".hidden.png",
        "run.sh",
        "a/b/c.png",
        "d/c.png",
        "shard.json",
        "n" * 240 + ".png",
    )
    write_tar(tmp_path / "in" / "x.tar", dict.fromkeys(names, picture))
    with tarfile.open(tmp_path / "in" / "x.tar", "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    report = webdataset.unpack([tmp_path / "in"], tmp_path / "to")
    there = sorted(str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*.*"))
    assert there == ["x/abs.png", "x/c.png", "x/out.png", "x/shard.json"]
    assert not (tmp_path / "out.png").exists()
    assert [skip.reason for skip in report.skipped] == ["twice", "name"]


def test_a_damaged_tar_file_is_skipped_whole(shards, tmp_path):
    broken = shards / "00000.tar"
    broken.write_bytes(broken.read_bytes()[:1200])
    (shards / "00002.tar").write_bytes(b"no tar file")
    report = webdataset.unpack([shards], tmp_path / "to")
    assert (report.shards, report.photos) == (1, 3)
    assert [(Path(skip.path).name, skip.reason) for skip in report.skipped] == [
        ("00000.tar", "damaged"),
        ("00002.tar", "damaged"),
    ]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["00001"]


def test_a_stopped_run_goes_on_with_the_next_tar_file(shards, tmp_path):
    stop = threading.Event()
    first = webdataset.unpack([shards], tmp_path / "to", progress=lambda _: stop.set(), stop=stop)
    assert (first.shards, first.interrupted) == (1, True)
    second = webdataset.unpack([shards], tmp_path / "to")
    assert (second.shards, second.unchanged) == (1, 1)


def test_a_folder_in_the_way_stays(shards, tmp_path):
    (tmp_path / "to" / "00000").mkdir(parents=True)
    with pytest.raises(UsageError, match="was not made of a tar file"):
        webdataset.unpack([shards], tmp_path / "to")
    with pytest.raises(UsageError, match="no tar file"):
        webdataset.unpack([tmp_path], tmp_path / "to")
    with pytest.raises(UsageError, match="two tar files are called"):
        webdataset.unpack([shards, shards], tmp_path / "to")
