from __future__ import annotations


def test_photos_can_be_encoded_in_shards(run, album, tmp_path):
    done = run("index", album, "--model", "builtin", "--shards", tmp_path / "out", "--shard-size", "5", "--json")
    assert (done.code, done.json["added"]) == (0, 12)
    assert len(list((tmp_path / "out").glob("*/*.parquet"))) == 3
    assert run("index", album, "--shards", tmp_path / "out", "--json").json["unchanged"] == 12


def test_options_of_an_engine_that_does_not_run_are_refused(run, album, tmp_path):
    assert run("index", album, "--gpus", "1").code == 2
    assert run("index", album, "--shard-size", "9").code == 2
    unknown = run("index", album, "--model", "builtin", "--shards", "nowhere://there")
    assert (unknown.code, "nowhere://there" in unknown.stderr) == (1, True)
