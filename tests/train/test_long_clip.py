"""Whole runs with long and short captions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch.nn.functional import normalize

from search.cli import cli
from search.errors import TrainingError, UsageError
from search.train.components import rebuilt
from search.train.contrastive import train
from search.train.objectives import Objective, Term, softmax_loss
from search.train.recipe import LongClipRecipe

WEIGHTS = "open_clip_model.safetensors"
LONG = {"text_cfg.context_length": 90}


@pytest.fixture(scope="module")
def table(data):
    """A long and a short caption of each picture."""
    colours = sorted(path.stem for path in data.glob("*.png"))
    lines = [f"{one}.png\t{one} all over and nothing to be seen but {one}\ta {one} wall" for one in colours]
    (data / "long.tsv").write_text("\n".join(["image\tlong\tshort", *lines]))
    return data / "long.tsv"


@pytest.fixture
def long_recipe(table, data):
    def make(**given):
        values = {"captions": str(table), "architecture": str(data / "arch.json"), "sizes": LONG, "workers": 1}
        values |= {"batch_size": 4, "steps": 3, "warm_up": 1, "components": 2, "held_out_share": 0.0}
        return LongClipRecipe.of({**values, "learning_rate": 1e-3, **given})

    return make


def features(seed):
    return normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_objective_is_the_weighted_sum_of_both_losses():
    images, long, short, scale = features(1), features(2), features(3), torch.tensor(3.0)
    recipe = LongClipRecipe(captions="c", model="m", components=2, long_weight=0.5, short_weight=0.25)
    objective = Objective.of(recipe)
    expected = 0.5 * softmax_loss(images, long, scale, smoothing=0.1)
    expected += 0.25 * softmax_loss(rebuilt(images, 2), short, scale, smoothing=0.1)
    torch.testing.assert_close(objective(images, (long, short), scale, None, (None, None)), expected)


def test_a_kind_of_caption_without_weight_is_left_out():
    recipe = LongClipRecipe(captions="c", model="m", short_weight=0.0)
    assert Objective.of(recipe).terms == (Term(),)
    assert Objective.of(replace(recipe, short_weight=1.0, long_weight=0.0)).terms == (Term(True, 1.0, 32),)
    with pytest.raises(UsageError, match="long_weight or short_weight is above 0"):
        replace(recipe, long_weight=0.0)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(long_recipe, tmp_path):
    recipe = long_recipe(chunk=3, held_out_share=0.25, match_equal=True)
    whole = train(recipe, tmp_path / "whole", device="cpu")
    steps = []
    for stop in (lambda: len(steps) == 2, lambda: False):
        report = train(
            recipe, tmp_path / "cut", device="cpu", progress=lambda one: steps.append(one.step), stop=stop
        )
    assert steps == [1, 2, 3]
    assert report.measured == whole.measured
    assert {"image_retrieval_recall@1", "short_image_retrieval_recall@1"} <= whole.measured[-1].figures.keys()
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "cut"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert LongClipRecipe.read(tmp_path / "whole" / "training.toml") == recipe


def test_a_loss_that_is_no_number_ends_the_run_with_components_too(long_recipe, tmp_path):
    wild = long_recipe(learning_rate=1e30, clip_norm=0.0, steps=6, warm_up=1)
    with pytest.raises(TrainingError, match="at step"):
        train(wild, tmp_path, device="cpu")


def test_what_another_kind_of_run_began_is_not_gone_on_with(long_recipe, recipe, tmp_path):
    train(long_recipe(), tmp_path, device="cpu", stop=lambda: True)
    with pytest.raises(UsageError, match="begun with another recipe"):
        train(recipe(), tmp_path, device="cpu")


def test_a_model_that_reads_no_more_than_clip_is_refused_unless_that_is_wanted(long_recipe, tmp_path):
    with pytest.raises(UsageError, match="reads 77 tokens") as refused:
        train(long_recipe(sizes={}), tmp_path / "no", device="cpu")
    assert "--cut-long" in str(refused.value.hint)
    assert train(long_recipe(sizes={}, cut_long=True, steps=1), tmp_path / "yes", device="cpu").finished


def test_the_command_makes_a_model_and_tells_recall_of_both_kinds(long_recipe, tmp_path):
    def command(name, *arguments):
        return CliRunner().invoke(cli, ["train", name, *map(str, arguments)])

    (tmp_path / "r.toml").write_text(long_recipe().to_toml())
    options = ("--steps", 1, "--held-out-share", 0.25, "--components", 3, "--device", "cpu", "--json")
    outcome = command("long-clip", tmp_path / "r.toml", *options, "--out", tmp_path / "out")
    assert outcome.exit_code == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert document["measured"][-1]["short_image_retrieval_recall@5"] == 1  # of three photos
    assert LongClipRecipe.read(tmp_path / "out" / "training.toml").components == 3
    refused = command("contrastive", tmp_path / "out" / "training.toml", "--out", tmp_path / "other")
    assert (refused.exit_code, "a recipe has no 'components'" in refused.stderr) == (1, True)


def test_gradients_of_processes_sum_up_to_those_of_one():
    """Each has the loss of all rows, and the gradient at its own."""
    objective = Objective((Term(), Term(short=True, components=2)))
    rows = [features(seed).double() for seed in (1, 2, 3)]

    def gradients(own):
        leaves = [one[own].clone().requires_grad_() for one in rows]
        whole = [one.clone() for one in rows]
        for one, leaf in zip(whole, leaves, strict=True):
            one[own] = leaf
        objective(whole[0], whole[1:], torch.tensor(3.0), None, (None, None)).backward()
        return [leaf.grad for leaf in leaves]

    both = zip(gradients(slice(0, 2)), gradients(slice(2, 6)), strict=True)
    for parts, expected in zip(both, gradients(slice(0, 6)), strict=True):
        torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=1e-12)
