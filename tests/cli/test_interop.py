"""Import and export at the command line."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from pyarrow import parquet

FIELDS = {"named", "adopted", "left", "not_adopted", "not_encoded", "added", "encoded", "skipped", "seconds"}


@pytest.fixture
def rclip(tmp_path, album, builtin):
    from PIL import Image

    with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as database, database:
        database.execute("CREATE TABLE db_version (version INTEGER)")
        database.execute("INSERT INTO db_version VALUES (4)")
        database.execute(
            "CREATE TABLE images (id INTEGER PRIMARY KEY, deleted BOOLEAN, filepath TEXT NOT NULL UNIQUE, "
            "modified_at DATETIME NOT NULL, size INTEGER NOT NULL, vector BLOB NOT NULL)"
        )
        for path in sorted(album.rglob("*.png")):
            with Image.open(path) as image:
                vector = builtin.encode_images(builtin.preprocessing(image)[None])[0]
            row = (str(path), path.stat().st_mtime, path.stat().st_size, vector.astype("<f4").tobytes())
            database.execute("INSERT INTO images (filepath, modified_at, size, vector) VALUES (?, ?, ?, ?)", row)
    return tmp_path / "db.sqlite3"


def test_import_rclip_tells_the_passport_and_what_was_taken_over(run, rclip, place):
    dry = run("import", "rclip", rclip, "--model", "builtin", "--dry-run", "--json")
    passport = dry.json["passport"]
    assert (dry.code, passport["compared"], passport["agreeing"], passport["orientation"]) == (0, 12, 12, "untold")
    assert passport["model"] == "builtin" and passport["preprocessing"]["size"] and passport["fingerprint"]
    assert not place.exists()
    done = run("import", "rclip", rclip, "--model", "builtin", "--json")
    assert FIELDS | {"passport"} <= done.json.keys()
    assert (done.code, done.json["adopted"], done.json["encoded"], done.json["photos"]) == (0, 12, 0, 12)
    again = run("import", "rclip", rclip, "--model", "builtin")
    assert "taken over 0 of 12 · encoded 0 · unchanged 12" in again.stdout
    assert run("find", "anything", "--json").json["candidates"] == 12


def test_import_refuses_strange_vectors_and_says_how_to_go_on(run, rclip, place, builtin):
    with closing(sqlite3.connect(rclip)) as database, database:
        database.execute("UPDATE images SET vector = ?", [np.ones(builtin.dim, "<f4").tobytes()])
    done = run("import", "rclip", rclip, "--model", "builtin", "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "UntrustedVectors"
    assert "12 of 12 vectors" in done.json["error"]["message"] and "--reencode" in done.json["error"]["hint"]
    assert not place.exists()
    taken = run("import", "rclip", rclip, "--model", "builtin", "--reencode", "--json")
    assert (taken.code, taken.json["passport"], taken.json["encoded"]) == (0, None, 12)


def test_exports_are_written_and_an_embedding_folder_needs_its_model_named(run, album, tmp_path):
    assert run("export", "csv", "photos.csv").code == 1  # no library yet
    assert not (tmp_path / "photos.csv").exists()
    run("index", album, "--model", "builtin")
    assert run("export", "csv", "-").code == 2
    assert not (tmp_path / "-").exists()
    assert run("export", "csv", "photos.csv", "--json").json["photos"] == 12
    rows = list(csv.DictReader((tmp_path / "photos.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == sorted(str(path) for path in album.rglob("*.png"))
    assert rows[0]["width"] == "64"
    assert run("export", "parquet", "photos.parquet", "--vectors").code == 0
    assert parquet.read_metadata(tmp_path / "photos.parquet").num_rows == 12
    assert run("export", "csv", "photos.parquet").code == 2  # nothing but its like is replaced
    assert run("export", "clip-retrieval", "out", "--json").json["photos"] == 12
    done = run("--library", tmp_path / "other", "import", "clip-retrieval", tmp_path / "out")
    assert (done.code, "--model" in done.stderr) == (2, True)
    done = run(
        "--library",
        tmp_path / "other",
        "import",
        "clip-retrieval",
        tmp_path / "out",
        "--model",
        "builtin",
        "--json",
    )
    assert (done.code, done.json["adopted"]) == (0, 12)


def test_import_webdataset_unpacks_and_indexes(run, album, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number, path in enumerate(sorted(album.rglob("*.png"))):
            tar.add(path, f"{number:09}.png")
    done = run("import", "webdataset", "00000.tar", "--to", "out", "--model", "builtin", "--json")
    assert (done.code, done.json["shards"], done.json["pictures"], done.json["added"]) == (0, 1, 12, 12)
    again = run("import", "webdataset", "00000.tar", "--to", "out", "--json").json
    assert (again["shards"], again["shards_unchanged"], again["unchanged"]) == (0, 1, 12)


def test_tar_files_can_be_unpacked_alone_for_vectors_made_of_them(run, place, album, tmp_path):
    import tarfile

    run("index", album, "--model", "builtin")
    run("export", "clip-retrieval", "emb")
    table = parquet.read_table("emb/metadata/metadata_0.parquet")
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number, path in enumerate(table["image_path"].to_pylist()):
            tar.add(path, f"{number:09}.png")
    keys = [f"{number:09}" for number in range(12)]
    table = table.set_column(0, "image_path", [keys])
    parquet.write_table(table, "emb/metadata/metadata_0.parquet")
    done = run("import", "webdataset", "00000.tar", "--to", "out", "--unpack-only", "--json")
    assert (done.code, done.json) == (0, {"shards": 1, "shards_unchanged": 0, "pictures": 12, "skipped": []})
    other = ("--library", tmp_path / "other")
    done = run(*other, "import", "clip-retrieval", "emb", "--model", "builtin")
    assert (done.code, "--pictures" in done.stderr) == (1, True)
    source = ("import", "clip-retrieval", "emb", "--pictures", "out", "--model", "builtin", "--json")
    done = run(*other, *source)
    assert (done.code, done.json["adopted"], done.json["encoded"]) == (0, 12, 0)
    assert run(*other, *source).json["passport"] is None


def test_import_immich_says_what_is_no_dump(run, tmp_path):
    (tmp_path / "dump.sql").write_text("SELECT 1;\n")
    done = run("import", "immich", "dump.sql", "--json")
    assert (done.code, done.json["error"]["type"]) == (1, "UsageError")
