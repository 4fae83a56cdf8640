"""immich's vectors read from a PostgreSQL that runs, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from search.adoption import AdoptOptions
from search.errors import UsageError
from search.interop.immich import ImmichDatabase

pytestmark = pytest.mark.slow
DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
# Its type of vectors, or what writes them the same where pgvector is not installed.
TYPE = "DO $$ BEGIN CREATE EXTENSION vector; EXCEPTION WHEN OTHERS THEN CREATE DOMAIN vector AS text; END $$"
TABLES = """
CREATE TABLE {table} (id uuid PRIMARY KEY, type varchar NOT NULL, "originalPath" varchar NOT NULL,
  "deletedAt" timestamptz);
CREATE TABLE smart_search ("assetId" uuid PRIMARY KEY REFERENCES {table} (id), embedding vector NOT NULL);
CREATE TABLE system_metadata (key varchar PRIMARY KEY, value jsonb NOT NULL);
INSERT INTO system_metadata VALUES
  ('system-config', '{{"machineLearning": {{"clip": {{"modelName": "ViT-B-16-SigLIP__webli"}}}}}}');
"""


def program(name: str) -> str:
    found = shutil.which(name) or next((str(place / name) for place in DEBIAN if (place / name).exists()), None)
    return found or pytest.skip(f"PostgreSQL's {name} is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that listens on nothing but a socket in a folder of its own."""
    pytest.importorskip("psycopg")
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    if os.getuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    place = Path("/tmp", f"immich-{uuid.uuid4().hex[:8]}")  # a socket's path must be short
    place.mkdir(mode=0o700)
    user = {}
    if os.getuid() == 0:  # it does not run as root
        shutil.chown(place, "postgres")
        user = {"user": "postgres"}
    subprocess.run(
        [initdb, "-D", place / "data", "-A", "trust", "-U", "ann"], check=True, capture_output=True, **user
    )
    options = f"-k {place} -c listen_addresses='' -c fsync=off"
    start = [pg_ctl, "-w", "-D", place / "data", "-l", place / "log", "-o", options, "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **user)
    try:
        yield f"postgresql://ann@/postgres?host={place}"
    finally:
        stop = [pg_ctl, "-D", place / "data", "-m", "immediate", "stop"]
        subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, **user)
        shutil.rmtree(place)


@pytest.fixture(params=["asset", "assets"])
def tables(request, server) -> Iterator[str]:
    """The table of assets, as it is called now and as it was, in a database with no other."""
    import psycopg

    with psycopg.connect(server, autocommit=True) as database:
        database.execute("DROP SCHEMA public CASCADE")
        database.execute("CREATE SCHEMA public")
        database.execute(TYPE)
        database.execute(TABLES.format(table=request.param))
    return request.param


def fill(server: str, table: str, photos, vectors) -> None:
    import psycopg

    with psycopg.connect(server) as database:
        for path, vector in zip(photos, vectors, strict=True):
            id_ = uuid.uuid4()
            type_ = "VIDEO" if str(path).endswith(".mp4") else "IMAGE"
            database.execute(f"INSERT INTO {table} VALUES (%s, %s, %s)", (id_, type_, str(path)))
            text = "[" + ",".join(map(str, vector)) + "]"
            database.execute("INSERT INTO smart_search VALUES (%s, %s)", (id_, text))


def test_a_running_immich_gives_its_photos_and_vectors(server, tables, library, album, builtin):
    from PIL import Image

    photos = sorted(album.rglob("*.png"))
    pixels = np.stack([builtin.preprocessing(Image.open(path).convert("RGB")) for path in photos])
    vectors = builtin.encode_images(pixels)
    inside = [Path("/usr/src/app/upload", path.relative_to(album)) for path in photos]
    fill(server, tables, [*inside, "/usr/src/app/upload/a.mp4"], [*vectors, vectors[0]])
    source = ImmichDatabase(server)
    assert (source.model, source.dim, source.left) == ("ViT-B-16-SigLIP/webli", builtin.dim, {"no picture": 1})
    options = AdoptOptions(moved=(("/usr/src/app/upload", str(album)),))
    report = library.adopt(source, options=options)
    assert (report.adopted, report.index.encoded) == (12, 0)
    assert report.passport.lowest > 0.999
    assert library.adopt(ImmichDatabase(server), options=options).index.unchanged == 12


def test_nothing_can_be_written_while_it_is_read(server, tables):
    from sqlalchemy import text

    fill(server, tables, ["/a.jpg"], [[1.0, 0.0]])
    source = ImmichDatabase(server)
    with pytest.raises(UsageError, match="read-only"), source._reading() as connection:
        connection.execute(text("DELETE FROM smart_search"))
    assert len(ImmichDatabase(server).entries) == 1


def test_a_vector_that_goes_meanwhile_is_none(server, tables):
    import psycopg

    fill(server, tables, ["/a.jpg", "/b.jpg"], [[1.0, 0.0], [0.0, 1.0]])
    source = ImmichDatabase(server)
    with psycopg.connect(server) as database:
        database.execute(
            "DELETE FROM smart_search WHERE embedding::text = '[1,0]' OR embedding::text = '[1.0,0.0]'"
        )
    found = source.vectors([entry.row for entry in source.entries])
    assert sorted(found.tolist()) == [[0, 0], [0, 1]]


def test_a_server_that_refuses_is_told_without_the_password(server, tables):
    with pytest.raises(UsageError, match="can't be read as immich's database") as caught:
        ImmichDatabase(server.replace("ann@/postgres", "ann:geheim@/nothing"))
    assert "geheim" not in str(caught.value)
    with pytest.raises(UsageError, match="holds no vectors yet"):
        ImmichDatabase(server)
