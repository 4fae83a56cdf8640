from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from search.cli import cli
from search.train.recipe import Recipe


@pytest.fixture
def command():
    return lambda *arguments: CliRunner().invoke(cli, ["train", "contrastive", *map(str, arguments)])


def test_a_file_and_options_make_a_model_and_a_document(command, recipe, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(recipe(steps=5).to_toml())
    out = tmp_path / "out"
    arguments = (file, "--steps", 1, "--held-out-share", 0.25, "--size", "embed_dim=16", "--no-deterministic")
    outcome = command(*arguments, "--out", out, "--device", "cpu", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert {key: document[key] for key in ("name", "finished", "steps", "photos", "captions", "held_out")} == {
        "name": f"dir:{out}",
        "finished": True,
        "steps": 1,
        "photos": 9,
        "captions": 18,
        "held_out": 3,
    }
    assert [one["step"] for one in document["measured"]] == [0, 1]
    assert document["measured"][0]["image_retrieval_recall@5"] == 1
    written = Recipe.read(out / "training.toml")
    assert (written.steps, written.sizes, written.deterministic) == (1, {"embed_dim": 16}, False)
    again = command(file, "--out", out)
    assert again.exit_code == 1
    assert "holds a finished run; --force trains anew" in again.stderr


def test_what_cannot_be_meant_is_one_line(command, data, tmp_path):
    outcome = command("--captions", data / "captions.tsv", "--out", tmp_path / "out")
    assert (outcome.exit_code, outcome.stderr) == (1, "search: give a model or an architecture to begin with\n")
    assert not (tmp_path / "out").exists()
    assert command("--size", "layers", "--out", tmp_path).exit_code == 2
    assert command("--captions", data / "captions.tsv", "--model", "builtin", "--out", "").exit_code == 2


def test_a_model_in_place_of_the_files_architecture(command, recipe, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(recipe().to_toml())
    outcome = command(file, "--model", "dir:/nowhere", "--out", tmp_path / "out")
    assert "/nowhere is no model folder" in outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contrastive", "long-clip"])
def test_two_processes_give_the_weights_of_one(recipe, tmp_path, name):
    file = tmp_path / "recipe.toml"
    file.write_text(recipe(steps=6, batch_size=6, held_out_share=0.25, chunk=2, match_equal=True).to_toml())
    own = ["--components", "3", "--cut-long"] if name == "long-clip" else []
    rest = ["-m", "search", "train", name, str(file), *own, "--device", "cpu", "--json", "--out"]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, before in (("one", []), ("two", several)):
        command = [sys.executable, *before, *rest, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert json.loads(done.stdout)["steps"] == 6  # said once
    one, two = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("one", "two"))
    for (
        name,
        tensor,
    ) in one.items():  # float32: sums in another order, through six steps of a normalising optimiser
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-4)
