"""The command line as a contract: names, JSON fields, exit codes."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from importlib import util
from pathlib import Path

import click
import pytest

from docs.making.commands import commands
from search.catalog.storage import CATALOG_NAME
from search.catalog.versions import HISTORY
from search.cli import cli
from search.encoders import exports
from search.resources import data_path

HIT = {
    *("rank", "id", "path", "score", "relevance", "width", "height", "taken_at", "camera"),
    *("latitude", "longitude", "labels"),
}


@pytest.fixture
def indexed(run, photographs):
    assert run("index", *photographs.values(), "--model", "builtin").code == 0
    return run


def test_index_reports_what_it_did(run, album, place):
    done = run("index", album, "--model", "builtin", "--json")
    assert done.code == 0
    report = done.json
    fields = (
        "library",
        "encoder",
        "photos",
        "added",
        "updated",
        "moved",
        "unchanged",
        "gone",
        "offline",
        "skipped",
    )
    assert {name: report[name] for name in fields} == {
        "library": str(place),
        "encoder": "builtin",
        "photos": 12,
        "added": 12,
        "updated": 0,
        "moved": 0,
        "unchanged": 0,
        "gone": 0,
        "offline": 0,
        "skipped": [],
    }
    assert report["seconds"] > 0
    assert report["images_per_second"] == pytest.approx(12 / report["seconds"])


def test_index_in_words(run, album):
    (album / "empty.jpg").touch()
    done = run("index", album, "--model", "builtin")
    assert "added 12" in done.stdout
    assert "album/empty.jpg  empty" in done.stdout


def test_skipped_files_are_an_error_only_under_strict(run, album):
    (album / "empty.jpg").touch()
    assert run("index", album, "--model", "builtin").code == 0
    done = run("index", album, "--strict", "--json")
    assert done.code == 3
    [skip] = done.json["skipped"]
    assert (skip["path"], skip["reason"]) == (str(album / "empty.jpg"), "empty")
    assert run("skipped", "--json").json == {"skipped": [skip]}


def test_options_of_index_reach_the_walk(run, album, make_photo):
    make_photo(album / ".hidden" / "h.png", seed=50)
    (album / "link.png").symlink_to(album / "day0" / "photo00.png")
    excluding = run("index", album, "--model", "builtin", "--exclude", "day1", "--exclude", "*00.png", "--json")
    assert excluding.json["photos"] == 7
    assert run("index", album, "--include-hidden", "--json").json["photos"] == 13


ANSWER = {"query", "encoder", "hits", "candidates", "truncated_tokens", "cut", "below", "best", "seconds"}


def test_find_answers_in_json(indexed):
    answer = indexed("find", "a cat", "-k", "2", "--json").json
    assert set(answer) == ANSWER
    assert (answer["query"], answer["encoder"]) == ("a cat", "builtin")
    assert (answer["candidates"], answer["truncated_tokens"]) == (4, 0)
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    first = answer["hits"][0]
    assert set(first) == HIT
    assert first["path"].endswith("chelsea.png")
    assert os.path.isabs(first["path"])
    assert (first["width"], first["height"]) == (451, 300)
    assert 0 <= first["relevance"] <= 1
    assert answer["hits"][0]["score"] > answer["hits"][1]["score"]


def test_find_by_image(indexed, photographs):
    rocket = indexed("show", photographs["rocket"], "--json").json["id"]
    by_file = indexed("find", "--like", photographs["rocket"], "--json").json
    by_id = indexed("find", "--like", rocket, "--json").json
    assert len(by_file["hits"]) == 3
    assert rocket not in [hit["id"] for hit in by_file["hits"]]  # an example is no answer
    assert [hit["id"] for hit in by_file["hits"]] == [hit["id"] for hit in by_id["hits"]]
    assert by_id["query"] == f"like:{rocket}"


def test_more_like_these_and_less_like_that(indexed, photographs):
    cat, rocket = (indexed("show", photographs[name], "--json").json["id"] for name in ("cat", "rocket"))
    near = indexed("find", "a wall", "--like", f"2:{cat}", "--json").json["hits"]
    away = indexed("find", "a wall", "--unlike", f"2:{cat}", "--json")
    assert away.json["query"] == f"a wall - 2:like:{cat}"
    assert {hit["id"] for hit in near} == {hit["id"] for hit in away.json["hits"]}
    assert cat not in {hit["id"] for hit in near}
    score = {hit["id"]: hit["score"] for hit in away.json["hits"]}
    assert all(hit["score"] > score[hit["id"]] for hit in near)
    assert indexed("find", "x", "--like", "99").code == 1
    assert indexed("find", "--unlike", str(rocket)).code == 2


def test_find_without_hits_is_an_answer(indexed):
    done = indexed("find", "a cat", "--camera", "Leica", "--json")
    assert done.code == 0
    assert (done.json["hits"], done.json["candidates"]) == ([], 0)
    assert "nothing found" in indexed("find", "a cat", "--camera", "Leica").stdout


def test_find_formats(indexed, photographs):
    cat = str(photographs["cat"])
    assert indexed("find", "a cat", "-k", "1", "--format", "paths").stdout == f"{cat}\n"
    assert indexed("find", "a cat", "-k", "1", "--print0").stdout == f"{cat}\0"
    csv = indexed("find", "a cat", "-k", "1", "--format", "csv").stdout.splitlines()
    assert csv[0].startswith("query,rank,id,score,relevance,path")
    assert csv[1].startswith("a cat,1,")
    table = indexed("find", "a cat", "-k", "1").stdout
    assert table.startswith("1  0.")
    assert table.endswith(f"{cat}\n")


def test_many_queries_are_answered_each_by_itself(indexed, tmp_path):
    file = tmp_path / "queries.txt"
    file.write_text("a cat\n\na rocket\n")
    answers = indexed("find", "--queries", file, "-k", "1", "--json").json["answers"]
    assert [Path(a["hits"][0]["path"]).stem for a in answers] == ["chelsea", "rocket"]
    assert "a rocket" in indexed("find", "--queries", file, "-k", "1").stdout


def test_a_line_of_many_queries_is_a_whole_query(indexed, tmp_path):
    file = tmp_path / "queries.txt"
    file.write_text('a cat + 2:"a rocket" - people\n')
    [answer] = indexed("find", "--queries", file, "--not", "sea", "--json").json["answers"]
    assert answer["query"] == "a cat + 2:a rocket - people - sea"
    file.write_text("a cat\na cat + \n")
    wrong = indexed("find", "--queries", file, "--json")
    assert (wrong.code, wrong.json["error"]["type"]) == (1, "QueryError")
    assert "line 2: nothing to look for follows the + at column 7" in wrong.stderr


LONG = (
    "A cat looks at the camera. "
    + "It is a very calm cat with long white whiskers, " * 6
    + "and a brick wall is behind."
)


def test_a_long_text_is_answered_clause_by_clause(indexed):
    done = indexed("find", LONG, "-k", "2", "--min-relevance", "0", "--json")
    assert done.stderr == ""
    answer = done.json
    assert (answer["truncated_tokens"], len(answer["clauses"])) == (0, 3)
    assert answer["clauses"][0] == "A cat looks at the camera."
    for hit in answer["hits"]:
        assert [clause["text"] for clause in hit["clauses"]] == answer["clauses"]
        assert hit["relevance"] == min(clause["relevance"] for clause in hit["clauses"])
        assert {type(clause["holds"]) for clause in hit["clauses"]} == {bool}
    held = sum(clause["holds"] for clause in answer["hits"][0]["clauses"])
    assert f"{held}/3" in indexed("find", LONG, "-k", "1", "--min-relevance", "0").stdout.split()


def test_a_template_is_put_around_every_text(indexed):
    plain = indexed("find", "a photo of a cat", "-k", "1", "--json").json["hits"]
    assert indexed("find", "a cat", "--template", "a photo of {}", "-k", "1", "--json").json["hits"] == plain
    assert indexed("find", "a cat", "--template", "a photo", "--json").json["error"]["type"] == "UsageError"


def test_filters_of_find(indexed, photographs):
    folder = photographs["temple"].parent
    hits = indexed("find", "a cat", "--folder", folder, "--json").json["hits"]
    assert [Path(hit["path"]).name for hit in hits] == ["china.jpg"]
    assert indexed("find", "a cat", "--after", "2999", "--json").json["hits"] == []
    assert (
        len(indexed("find", "a cat", "--before", "2999-01-01", "--min-relevance", "0", "--json").json["hits"]) == 4
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["find"],
        ["find", "x", "--after", "yesterday"],
        ["find", "x", "--near", "1,2"],
        ["find", "x", "--near", "91,0,5"],
        ["find", "x", "-k", "0"],
        ["find", "x", "--near", "nan,nan,nan"],
        ["find", "x", "--min-relevance", "nan"],
        ["index", "x", "--max-megapixels", "inf"],
        ["label", "x", "--label", "y", "--threshold", "nan"],
        ["index"],
        ["label"],
        ["nonsense"],
        ["find", "x", "--nonsense"],
    ],
)
def test_wrong_usage_exits_with_2(run, arguments):
    done = run(*arguments)
    assert done.code == 2
    assert "Error:" in done.stderr


@pytest.mark.parametrize("text", ["-dark sky", "-cat", "-kitten"])
def test_a_dash_in_a_text_is_text(indexed, text):
    assert indexed("find", text, "sea", "-k", "2", "--json").json["query"] == f"{text} + sea"
    assert indexed("find", "--json", "--", "-cat", "--json").json["query"] == "-cat + --json"
    assert indexed("find", "sea", "--not", "-night", "-k3", "--json").json["query"] == "sea - -night"


def test_an_option_that_does_not_exist_is_not_a_text(indexed):
    assert indexed("find", "sea", "--folde", "x").code == 2


def test_queries_that_are_no_text_are_wrong_usage(indexed, tmp_path):
    (tmp_path / "q").write_bytes(b"\xff\xfe\n")
    assert indexed("find", "--queries", tmp_path / "q").code == 2


def test_similar_by_path_and_by_id(indexed, photographs):
    cat = indexed("show", photographs["cat"], "--json").json
    by_path = indexed("similar", photographs["cat"], "--json").json
    by_id = indexed("similar", cat["id"], "--json").json
    assert [hit["id"] for hit in by_path["hits"]] == [hit["id"] for hit in by_id["hits"]]
    assert cat["id"] not in [hit["id"] for hit in by_id["hits"]]


def test_rating_and_keywords_are_shown_and_keywords_are_tags(run, tmp_path, make_photo):
    photo = make_photo(tmp_path / "photos" / "a.png", 1)
    photo.with_name("a.png.xmp").write_text(
        '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:x="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:d="http://purl.org/dc/elements/1.1/"><r:Description x:Rating="-1"><d:subject><r:Bag>'
        "<r:li>cat</r:li><r:li>tree</r:li></r:Bag></d:subject></r:Description></r:RDF>"
    )
    assert run("index", photo.parent, "--model", "builtin", "--json").json["reread"] == 0
    shown = run("show", photo, "--json").json
    assert (shown["rating"], shown["keywords"], shown["labels"]) == (-1, ["cat", "tree"], ["cat", "tree"])
    assert "keywords" in run("show", photo).stdout
    assert len(run("find", "anything", "--min-relevance", "0", "--tag", "tree", "--json").json["hits"]) == 1
    sidecar = photo.with_name("a.png.xmp")
    away = sidecar.rename(tmp_path / "away.xmp")
    assert run("index", photo.parent, "--json").json["reread"] == 1
    assert run("show", photo, "--json").json["rating"] is None
    away.rename(sidecar)
    assert "  metadata of 1 photo read again\n" in run("index", photo.parent).stdout
    assert "read again" not in run("index", photo.parent).stdout


def test_show_knows_everything(indexed, photographs):
    shown = indexed("show", photographs["rocket"], "--json").json
    assert (HIT - {"rank", "score", "relevance"}) <= set(shown)
    assert (shown["format"], shown["width"], shown["height"]) == ("jpeg", 640, 427)
    assert shown["taken_at_source"] == "file"
    assert "rocket.jpg" in indexed("show", shown["id"]).stdout


def test_status(indexed, photographs, place):
    status = indexed("status", "--json").json
    assert set(status) == {"library", "photos", "roots", "encoders", "index", "skipped", "schema", "job"}
    assert (status["library"], status["photos"], status["skipped"]) == (str(place), 4, 0)
    assert {root["state"] for root in status["roots"]} == {"online"}
    assert sum(root["photos"] for root in status["roots"]) == 4
    assert status["encoders"] == [{"name": "builtin", "dim": 256, "photos": 4}]
    assert set(status["index"]) == {"kind", "vectors", "bytes", "wanted", "generation", "delta"}
    assert "builtin (4 photos" in indexed("status").stdout


def test_check_says_whether_all_is_well(indexed, place):
    whole = indexed("check", "--json").json
    assert (whole["ok"], whole["problems"], whole["repaired"], whole["level"]) == (True, [], 0, "full")
    assert whole["sqlite"] == sqlite3.sqlite_version
    with closing(sqlite3.connect(place / CATALOG_NAME)) as connection, connection:
        connection.execute("UPDATE embeddings SET crc = 0 WHERE photo_id = 1")
    shutil.rmtree(place / "gen")  # it has a sound copy of the vector
    damaged = indexed("check", "--json")
    assert (damaged.code, damaged.json["ok"]) == (1, False)
    assert [problem["kind"] for problem in damaged.json["problems"]] == ["vector_damaged", "generation_damaged"]
    assert "search check" in indexed("find", "anything").stderr
    repaired = indexed("check", "--repair", "--json")
    assert (repaired.code, repaired.json["repaired"]) == (1, 1)
    assert Path(repaired.json["backup"]).is_file()


def test_check_of_originals(indexed, photographs, album):
    assert indexed("index", album).code == 0
    looked = indexed("check", "--photos", "--json")
    assert (looked.code, looked.json["checked"], looked.json["remaining"], looked.json["offline"]) == (0, 16, 0, 0)
    (album / "day0" / "photo00.png").unlink()
    looked = indexed("check", "--photos", "--hash")
    assert looked.code == 1
    assert "photo_missing (1)" in looked.stdout
    assert "16 photos looked at, 0 left, 0 offline" in looked.stdout
    assert indexed("check", "--hash").code == 2


def test_label_of_files_in_no_library(run, photographs):
    arguments = ("label", photographs["rocket"], "--label", "rocket", "--label", "cat", "--model", "builtin")
    labelling = run(*arguments, "--json").json
    assert (labelling["encoder"], labelling["labels"]) == ("builtin", ["rocket", "cat"])
    assert labelling["templates"] == ["a photo of a {}."]
    [photo] = labelling["photos"]
    assert photo["path"] == str(photographs["rocket"])
    assert [label["label"] for label in photo["labels"]] == ["rocket", "cat"]
    assert sum(label["probability"] for label in photo["labels"]) == pytest.approx(1)
    assert set(photo["labels"][0]) == {"label", "probability", "score"}


def test_labels_can_be_applied_and_asked_for(indexed, photographs):
    done = indexed("label", "--label", "rocket", "--label", "cat", "--apply")
    assert "labels written for 4 photos" in done.stderr
    assert indexed("show", photographs["rocket"], "--json").json["labels"] == ["rocket"]
    hits = indexed("find", "anything", "--tag", "cat", "--json").json["hits"]
    assert str(photographs["cat"]) in [hit["path"] for hit in hits]
    assert str(photographs["rocket"]) not in [hit["path"] for hit in hits]


def test_captions_as_they_stand(run, photographs):
    labelling = run(
        *("label", photographs["cat"], "--label", "a diagram", "--label", "a cat", "--template", "{}"),
        *("--model", "builtin", "--json"),
    ).json
    assert labelling["photos"][0]["labels"][0]["label"] == "a cat"


def test_remove_forgets_and_leaves_the_file(indexed, photographs):
    assert indexed("remove", photographs["cat"], "--json").json == {"removed": 1}
    assert indexed("status", "--json").json["photos"] == 3
    assert photographs["cat"].is_file()


def test_models_are_listed_and_described(run):
    models = {model["name"]: model for model in run("models", "list", "--json").json["models"]}
    assert models["builtin"]["cached"] is True
    assert models["ViT-B-32-256/datacomp_s34b_b86k"]["cached"] is False
    info = run("models", "info", "builtin", "--json").json
    assert (info["dim"], info["context_length"], info["logit_bias"]) == (256, 77, None)
    assert "builtin" in run("models", "list").stdout


def test_exporting_says_how_to_get_the_runtime_where_it_is_not(run, monkeypatch):
    monkeypatch.setattr(exports, "is_possible", lambda: False)
    done = run("models", "export", "builtin", "--json")
    assert done.code == 1
    assert "pip install 'search[fast]'" in done.json["error"]["hint"]


@pytest.mark.skipif(util.find_spec("openvino") is None, reason="openvino is not installed")
def test_an_export_is_reported_and_described_by_info(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "default_cache", lambda: tmp_path / "exports")
    done = run("models", "export", tiny_model, "--json")
    assert done.stderr == f"exporting {tiny_model} to a faster runtime; this happens once\n"
    assert done.json.keys() == {"name", "runtime", "reason", "images_per_second", "agreement", "files"}
    assert done.json["name"] == tiny_model
    assert done.json["agreement"] >= 0.999
    assert {Path(file).suffix for file in done.json["files"]} == {".xml", ".bin"}
    info = run("models", "info", tiny_model, "--json").json
    assert info["runtime"] == info["exported"]["runtime"] == done.json["runtime"]
    assert info["exported"]["images_per_second"] == done.json["images_per_second"]


def test_auto_names_a_model_too(run):
    assert run("--offline", "models", "info", "auto", "--json").json["name"] == "builtin"
    assert run("--offline", "models", "download", "auto").code == 1


def test_a_model_that_must_be_fetched_says_so_without_network(run):
    done = run("--offline", "models", "download", "ViT-B-32-256/datacomp_s34b_b86k", "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "ModelUnavailable"
    assert "--model builtin" in done.json["error"]["hint"]


def test_the_built_in_model_answers_where_the_recommended_one_cannot_be_had(run, album):
    done = run("--offline", "index", album, "--json")
    assert done.json["encoder"] == "builtin"
    assert "ViT-B-32-256/datacomp_s34b_b86k" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert run("--offline", "--quiet", "find", "anything").stderr == ""


def test_an_error_is_one_line_and_under_json_a_document_too(run):
    done = run("find", "a cat", "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "LibraryNotFound"
    assert set(done.json["error"]) == {"type", "message", "hint"}
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_source_that_does_not_exist_makes_no_library(run, tmp_path, place):
    done = run("index", tmp_path / "nowhere", "--model", "builtin")
    assert done.code == 1
    assert "nowhere" in done.stderr
    assert not place.exists()


def test_an_image_that_cannot_be_read_is_named(indexed, tmp_path):
    for name in ("missing.jpg", "empty.jpg"):
        if name == "empty.jpg":
            (tmp_path / name).touch()
        done = indexed("find", "--like", tmp_path / name, "--json")
        assert done.code == 1
        assert done.json["error"]["type"] == "PhotoError"
        assert name in done.stderr
    assert "photo 99 is not in the library" in indexed("show", "99").stderr


def test_many_skipped_files_are_told_by_reason_with_an_example_of_each(run, album):
    for number in range(5):
        (album / f"{number}.jpg").touch()
    (album / "text.jpg").write_bytes(b"no picture" * 50)
    out = run("index", album, "--model", "builtin").stdout
    assert re.search(r"^  5  empty +such as album/0.jpg +no content$", out, re.MULTILINE)
    assert re.search(r"^  1  unsupported_format +such as album/text.jpg ", out, re.MULTILINE)
    assert "1.jpg" not in out
    assert "`search skipped` lists them all" in out


def test_an_older_library_is_upgraded_by_command(run, place):
    place.mkdir()
    with closing(sqlite3.connect(place / CATALOG_NAME)) as connection:
        connection.executescript(data_path("catalogs", "0001.sql").read_text())
    refused = run("status", "--json")
    assert (refused.code, refused.json["error"]["type"]) == (1, "OldLibrary")
    assert "search upgrade" in refused.json["error"]["hint"]
    assert run("upgrade", "--json").json == {"from": "0001", "to": HISTORY[-1]}
    assert run("status", "--json").json["photos"] == 1


def test_f53_a_newer_library_is_searched_if_it_permits_it_and_never_changed(indexed, place, photographs):
    with closing(sqlite3.connect(place / CATALOG_NAME)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = (place / CATALOG_NAME).read_bytes()
    found = indexed("find", "a cat", "--format", "paths")
    assert (found.code, found.stdout.splitlines()[0]) == (0, str(photographs["cat"].resolve()))
    assert found.stderr.count("newer version") == 1
    assert (indexed("status").code, indexed("show", "1").code) == (0, 0)
    for writing in (
        ("index", photographs["cat"]),
        ("remove", photographs["cat"]),
        ("label", "--label", "cat", "--apply"),
        ("root", "move", photographs["cat"].parent, place.parent),
        ("upgrade",),
    ):
        assert indexed(*writing).code == 5, writing
    assert (place / CATALOG_NAME).read_bytes() == before


def test_f53_a_newer_library_that_only_newer_versions_can_read_exits_with_5(indexed, place):
    with closing(sqlite3.connect(place / CATALOG_NAME)) as connection, connection:
        connection.execute("UPDATE state SET format = 4, min_reader = 4")
    before = (place / CATALOG_NAME).read_bytes()
    for command in (("status",), ("find", "a cat"), ("upgrade",), ("index", place.parent)):
        refused = indexed(*command)
        assert refused.code == 5, command
        assert "made by a newer version" in refused.stderr
    assert (place / CATALOG_NAME).read_bytes() == before


def test_names_that_are_not_utf8_come_with_their_bytes(run, tmp_path, make_photo):
    plain = make_photo(tmp_path / "odd" / "plain.png", seed=1)
    odd = os.path.join(os.fsencode(tmp_path), b"odd", b"\xff\n\x1b[31m.png")
    os.rename(plain, odd)
    assert run("index", tmp_path / "odd", "--model", "builtin").code == 0
    done = run("find", "anything", "--min-relevance", "0", "--json")
    [hit] = done.json["hits"]
    assert base64.b64decode(hit["path_bytes"]) == odd
    assert os.fsencode(hit["path"]) == odd
    table = run("find", "anything").stdout
    assert "\x1b" not in table
    assert len(table.splitlines()) == 1
    assert run("find", "anything", "--format", "csv").code == 0
    assert run("find", "anything", "--format", "html").code == 0


def test_shared_options_stand_before_or_after_the_command(run, indexed, place, tmp_path):
    assert indexed("--json", "status").json["photos"] == 4
    elsewhere = run("status", "--library", tmp_path / "elsewhere", "--json")
    assert elsewhere.json["error"]["type"] == "LibraryNotFound"


def test_the_library_can_be_named_by_the_environment(indexed, place, monkeypatch):
    from click.testing import CliRunner

    result = CliRunner(env={"SEARCH_LIBRARY": str(place)}).invoke(cli, ["status", "--json"])
    assert json.loads(result.stdout)["photos"] == 4


@pytest.mark.parametrize("name, command", commands(), ids=[name for name, _ in commands()])
def test_every_command_has_help_with_an_example(name, command):
    help_ = command.get_help(click.Context(command, info_name=name))
    assert f"search {name}" in (command.help or ""), f"{name} has no example"
    assert command.get_short_help_str()
    assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option)), help_


def test_photos_that_may_be_away_are_kept_and_the_way_out_is_named(run, album, tmp_path):
    run("index", album, "--model", "builtin")
    album.rename(tmp_path / "unplugged")
    album.mkdir()
    told = run("index", album)
    assert told.code == 0
    [line] = [line for line in told.stdout.splitlines() if "--confirm-removals" in line]
    assert line.startswith("  12 photos of album not found but kept")
    report = run("index", album, "--json").json
    assert (report["offline"], report["gone"], report["purged"]) == (12, 0, 0)
    assert [(entry["path"], entry["photos"]) for entry in report["withheld"]] == [(str(album), 12)]
    confirmed = run("index", album, "--confirm-removals", "--json").json
    assert (confirmed["offline"], confirmed["gone"], confirmed["withheld"]) == (0, 12, [])


def test_status_shows_the_last_job(run, album):
    run("index", album, "--model", "builtin")
    job = run("status", "--json").json["job"]
    assert set(job) == {"kind", "state", "started_at", "heartbeat_at", "done", "total", "pid", "host"}
    assert (job["kind"], job["state"], job["done"], job["total"]) == ("index", "done", 12, 12)
    [line] = [line for line in run("status").stdout.splitlines() if line.startswith("last job")]
    assert "index, done: 12 of 12 files done" in line


def test_find_says_that_nothing_matches_and_how_to_see_it_anyway(indexed):
    done = indexed("find", "xqzvkj wpfh", "--json")
    assert (done.code, done.json["hits"], done.json["below"]) == (0, [], 4)
    assert done.json["best"] < done.json["cut"]
    assert "--min-relevance 0" in done.stderr
    assert "nothing matches" in indexed("find", "xqzvkj wpfh").stdout
    assert len(indexed("find", "xqzvkj wpfh", "--min-relevance", "0", "--json").json["hits"]) == 4


def test_find_diverse_returns_as_many(indexed):
    assert (
        len(indexed("find", "a cat", "-k", "3", "--diverse", "--min-relevance", "0", "--json").json["hits"]) == 3
    )


def test_a_stretched_model_is_reported_and_described_by_info(run, tiny_model, tmp_path):
    done = run("models", "stretch", tiny_model, tmp_path / "long", "--json")
    assert done.code == 0
    assert done.stderr == ""
    assert done.json == {
        "path": str(tmp_path / "long"),
        "name": f"dir:{tmp_path / 'long'}",
        "context_length": 248,
        "keep": 20,
        "ratio": 4,
        "from": tiny_model,
        "unchanged": 20,
    }
    assert run("models", "info", done.json["name"], "--json").json["context_length"] == 248
    again = run("models", "stretch", tiny_model, tmp_path / "long", "--keep", 30, "--ratio", 3, "--json")
    assert (again.code, again.json["error"]["hint"]) == (1, "--force replaces it")
    forced = run(
        "models", "stretch", tiny_model, tmp_path / "long", "--keep", 30, "--ratio", 3, "--force", "--json"
    )
    assert (forced.json["context_length"], forced.json["unchanged"]) == (171, 30)
    assert run("models", "stretch", tiny_model, tmp_path / "other", "--ratio", 1).code == 2


def test_a_model_that_reads_its_padding_is_stretched_with_a_warning(run, tiny_model, tmp_path):
    file = tmp_path / "tiny" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["text_cfg"]["no_causal_mask"] = True
    file.write_text(json.dumps(config))
    done = run("models", "stretch", tiny_model, tmp_path / "long", "--json")
    assert done.json["unchanged"] == 0
    assert "no text keeps its vector" in done.stderr


def test_find_says_once_that_nothing_matches(indexed):
    done = indexed("find", "xqzvkj wpfh")
    assert (done.stdout + done.stderr).count("nothing matches") == 1
    assert "--min-relevance 0 shows everything" in done.stdout


def test_a_filter_alone_is_told_what_lists_its_photos(indexed):
    tag = indexed("find", "--tag", "brick wall")
    assert (tag.code, tag.stdout) == (2, "")
    assert "`search tags list --photos 'brick wall'`" in tag.stderr
    assert "`search find photo --min-relevance 0 -k 1000`" in indexed("find", "--camera", "Canon").stderr
    assert "--min-relevance" not in indexed("find").stderr


def test_a_label_that_no_photo_has_is_named(indexed):
    done = indexed("find", "a cat", "--tag", "nosuch")
    assert (done.code, done.stdout) == (0, "  nothing found\n")
    assert "no photo has the label 'nosuch'; 'search tags list'" in done.stderr


def test_a_label_that_photos_have_is_not_blamed_for_another_condition(indexed):
    assert indexed("label", "--label", "Animal/Cat", "--apply").code == 0
    none = indexed("find", "a cat", "--tag", "animal", "--before", "1900")
    assert (none.stdout, none.stderr) == ("  nothing found\n", "")
