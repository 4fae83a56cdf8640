"""Whole runs of the smallest model on a dozen pictures."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from search import failpoints, load_encoder
from search.catalog.lock import LOCK_NAME
from search.errors import CheckpointError, ModelError, TrainingBusy, TrainingError, UsageError
from search.train import checkpoints
from search.train.contrastive import _numbers, rate, train
from search.train.folder import RECORD, REPEAT, alone
from search.train.recipe import Recipe

WEIGHTS = "open_clip_model.safetensors"


class Killed(BaseException):
    """Nothing of ours may catch this: the process is gone."""


@pytest.fixture
def kill():
    """Ends the run when a failpoint has been reached so often."""

    def arm(name, times):
        left = [times]

        def act(reached):
            left[0] -= reached == name
            if not left[0]:
                raise Killed

        failpoints.arm(act)

    yield arm
    failpoints.arm(None)


@pytest.fixture(scope="module")
def six(data, tmp_path_factory):
    """The recipe of six steps and the weights they give."""
    recipe = Recipe.of(
        {
            "captions": str(data / "captions.tsv"),
            "architecture": str(data / "arch.json"),
            "sizes": {"vision_cfg.patch_dropout": 0.5},  # draws random numbers at each step
            "batch_size": 4,
            "chunk": 3,
            "steps": 6,
            "warm_up": 2,
            "held_out_share": 0.25,
            "evaluate_every": 2,
            "checkpoint_every": 3,
            "workers": 2,
        }
    )
    out = tmp_path_factory.mktemp("six") / "whole"
    return recipe, train(recipe, out, device="cpu"), load_file(out / WEIGHTS)


def assert_identical(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(("point", "times"), [("train.stepped", 5), ("train.saving", 2)])
def test_a_run_that_was_killed_goes_on_to_identical_weights(six, tmp_path, kill, point, times):
    recipe, whole, weights = six
    kill(point, times)
    with pytest.raises(Killed):
        train(recipe, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / WEIGHTS).exists()
    failpoints.arm(None)
    report = train(recipe, tmp_path / "out", device="cpu")
    assert_identical(load_file(tmp_path / "out" / WEIGHTS), weights)
    assert (report.loss, report.measured, report.steps) == (whole.loss, whole.measured, 6)
    assert not (tmp_path / "out" / checkpoints.FILE).exists()


def test_a_run_that_averages_its_weights_writes_the_average_and_goes_on_with_it(six, tmp_path, kill):
    recipe, _, plain = six
    averaged = replace(recipe, ema=0.999, evaluate_every=0)
    whole = train(averaged, tmp_path / "whole", device="cpu")
    kill("train.stepped", 5)
    with pytest.raises(Killed):
        train(averaged, tmp_path / "cut", device="cpu")
    failpoints.arm(None)
    assert train(averaged, tmp_path / "cut", device="cpu").measured == whole.measured
    written = load_file(tmp_path / "whole" / WEIGHTS)
    assert_identical(load_file(tmp_path / "cut" / WEIGHTS), written)
    assert not torch.equal(written["visual.proj"], plain["visual.proj"])


def test_a_run_that_was_asked_to_stop_saves_and_goes_on_with_other_threads(six, tmp_path):
    recipe, whole, weights = six
    steps = []
    stopped = train(
        recipe,
        tmp_path,
        device="cpu",
        progress=lambda moment: steps.append(moment.step),
        stop=lambda: len(steps) == 4,
    )
    assert (stopped.steps, stopped.planned, stopped.finished) == (4, 6, False)
    again = replace(recipe, workers=1, checkpoint_every=1)
    report = train(again, tmp_path, device="cpu", progress=lambda moment: steps.append(moment.step))
    assert steps == [1, 2, 3, 4, 5, 6]
    assert_identical(load_file(tmp_path / WEIGHTS), weights)
    assert report.measured == whole.measured


def test_the_folder_is_a_model_and_tells_how_it_was_made(six):
    recipe, report, _ = six
    encoder = load_encoder(f"dir:{report.path}", device="cpu")
    assert encoder.encode_texts(["a red wall"]).shape == (1, 32)
    record = json.loads(Path(report.path, RECORD).read_text())
    assert record["data"]["sha256"] == report.data
    assert record["versions"]["torch"] == torch.__version__
    assert [one["step"] for one in record["measured"]] == [0, 2, 4, 6]
    assert Recipe.read(Path(report.path, REPEAT)) == recipe


def test_captions_find_the_photos_they_were_trained_with(data, recipe, tmp_path):
    source = str(data / "captions.tsv")
    colours = ("red", "green", "blue", "white")
    pictures, words = [Image.new("RGB", (40, 48), one) for one in colours], [f"a {one} wall" for one in colours]
    for loss in ("softmax", "sigmoid"):
        options = {"loss": loss, "batch_size": 12, "steps": 26, "learning_rate": 1e-3}
        report = train(recipe(captions=source, **options), tmp_path / loss, device="cpu")
        encoder = load_encoder(f"dir:{report.path}", device="cpu", precision="float32")
        images = encoder.encode_images(np.stack([encoder.preprocess(one) for one in pictures]))
        scores = encoder.encode_texts(words) @ images.T
        assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3], loss
        assert (encoder.logit_bias is not None) == (loss == "sigmoid")


@pytest.mark.parametrize("tune", ["text", "heads"])
def test_what_is_locked_stays_as_it_was(six, recipe, tmp_path, tune):
    _, begun, before = six
    train(recipe(model=f"dir:{begun.path}", tune=tune, batch_size=12), tmp_path / tune, device="cpu")
    after = load_file(tmp_path / tune / WEIGHTS)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "text_projection" in changed
    if tune == "text":
        assert not [name for name in changed if name.startswith("visual.")]
    else:
        assert changed == {"text_projection", "visual.proj", "logit_scale"}


def test_weights_in_half_precision_load(recipe, tmp_path):
    report = train(recipe(save_precision="float16"), tmp_path / "out", device="cpu")
    state = load_file(tmp_path / "out" / WEIGHTS)
    assert {state["visual.proj"].dtype, state["logit_scale"].dtype} == {torch.float16, torch.float32}
    assert load_encoder(f"dir:{report.path}").dim == 32


def test_bfloat16_arithmetic_leaves_weights_in_float32_near_those_of_full_precision(recipe, tmp_path):
    for precision in ("float32", "bfloat16"):
        train(recipe(precision=precision, batch_size=12), tmp_path / precision, device="cpu")
    full, half = (load_file(tmp_path / precision / WEIGHTS) for precision in ("float32", "bfloat16"))
    assert {tensor.dtype for tensor in half.values()} == {torch.float32}
    assert not torch.equal(full["visual.proj"], half["visual.proj"])
    torch.testing.assert_close(half["visual.proj"], full["visual.proj"], rtol=0, atol=2e-3)  # two steps of 5e-4


def test_photos_fit_each_others_captions_where_they_share_the_one_drawn_or_all():
    dog, cat, both = ("a dog", "dog"), ("a cat", "cat"), ("cat", "dog")
    pairs = _numbers(("a dog", "dog", "cat", "cat"), (dog, dog, cat, both))
    fits = (pairs[:, None] == pairs[None]).any(dim=-1)
    assert fits.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_the_scale_is_held_at_a_hundred(recipe, tmp_path, six):
    folder = tmp_path / "hot"
    folder.mkdir()
    save_file({**six[2], "logit_scale": torch.tensor(math.log(150))}, folder / WEIGHTS)
    shutil.copy(f"{six[1].path}/open_clip_config.json", folder)
    train(recipe(model=f"dir:{folder}", steps=1), tmp_path / "out", device="cpu")
    assert load_file(tmp_path / "out" / WEIGHTS)["logit_scale"].exp().item() == pytest.approx(100)


def test_the_callers_random_numbers_and_settings_are_as_before(recipe, tmp_path):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(recipe(), tmp_path, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_pictures_that_cannot_be_read_are_told_and_the_rest_is_trained_with(recipe, data, tmp_path):
    lines = [f"{data}/{name}.png\ta {name} wall" for name in ("red", "green", "blue", "white")]
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (tmp_path / "c.tsv").write_text("\n".join([*lines, "bad.jpg\tx", "gone.jpg\ty"]))
    report = train(recipe(captions=str(tmp_path / "c.tsv"), batch_size=5), tmp_path / "out", device="cpu")
    reasons = [(skip.path.rpartition("/")[2], skip.reason) for skip in report.skipped]
    assert reasons == [("bad.jpg", "decode_error"), ("gone.jpg", "unreadable")]
    assert report.finished


def test_a_loss_that_is_no_number_ends_the_run_and_writes_nothing(recipe, tmp_path):
    wild = recipe(learning_rate=1e30, steps=20, warm_up=0, clip_norm=0.0, checkpoint_every=50)
    with pytest.raises(TrainingError, match=r"at step .*; --force with a lower --learning-rate"):
        train(wild, tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_weights_that_the_last_step_makes_no_numbers_are_not_written(recipe, tmp_path):
    wild = recipe(learning_rate=1e30, weight_decay=1e30, steps=1, warm_up=0)
    with pytest.raises(TrainingError, match="the last step left weights"):
        train(wild, tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_run_killed_before_anything_was_saved_begins_again(recipe, tmp_path, kill):
    kill("train.saving", 1)  # the model itself: there was no checkpoint
    with pytest.raises(Killed):
        train(recipe(), tmp_path, device="cpu")
    assert not (tmp_path / WEIGHTS).exists()
    failpoints.arm(None)
    assert train(recipe(), tmp_path, device="cpu").finished


def test_another_run_in_the_folder_is_kept_unless_forced(six, recipe, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no training run"):
        train(recipe(), tmp_path / "full", device="cpu")
    train(recipe(), tmp_path / "half", device="cpu", stop=lambda: True)
    with pytest.raises(UsageError, match="begun with another recipe"):
        train(recipe(seed=1), tmp_path / "half", device="cpu")
    report = train(recipe(seed=1), tmp_path / "half", device="cpu", anew=True)
    assert report.finished
    with pytest.raises(UsageError, match="holds a finished run"):
        train(recipe(seed=1), tmp_path / "half", device="cpu")


def test_a_second_run_in_a_folder_is_refused_while_the_first_goes_on(recipe, tmp_path):
    refused = []

    def try_again(moment):
        with pytest.raises(TrainingBusy, match=f"is being trained into by process {os.getpid()} on") as error:
            train(recipe(), tmp_path, device="cpu", anew=True)
        refused.append(error)

    report = train(recipe(), tmp_path, device="cpu", progress=try_again)
    assert (len(refused), report.finished) == (2, True)
    assert not (tmp_path / LOCK_NAME).exists()
    assert train(recipe(seed=1), tmp_path, device="cpu", anew=True).finished


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def old(six, tmp_path):
    """A folder with a finished run in it, and what that holds."""
    out = tmp_path / "out"
    shutil.copytree(six[1].path, out)
    return out, contents(out)


def test_a_forced_run_that_fails_or_is_killed_leaves_the_model_that_was_there(old, recipe, kill):
    out, before = old
    for wrong in ({"captions": "/nowhere.tsv"}, {"model": "dir:/nowhere"}, {"learning_rate": 1e30, "warm_up": 0}):
        with pytest.raises((UsageError, ModelError, TrainingError)):
            train(recipe(**{"clip_norm": 0.0, "steps": 9, **wrong}), out, device="cpu", anew=True)
        assert contents(out) == before
    kill("train.saving", 1)  # of the new model itself
    with pytest.raises(Killed):
        train(recipe(steps=1), out, device="cpu", anew=True)
    assert contents(out) == before


def test_a_forced_run_that_was_stopped_goes_on_beside_the_old_model(old, recipe):
    out, before = old
    train(recipe(), out, device="cpu", anew=True, stop=lambda: True)
    assert {**contents(out), **before} == contents(out)
    steps = []
    train(recipe(), out, device="cpu", progress=lambda moment: steps.append(moment.step))
    assert (steps, contents(out).keys()) == ([2], before.keys())
    assert Recipe.read(out / REPEAT) == recipe()


def test_a_model_killed_while_it_took_the_old_ones_place_is_whole_at_the_next_call(old, recipe, kill):
    out, before = old
    kill("train.placing", 1)
    with pytest.raises(Killed):
        train(recipe(steps=1), out, device="cpu", anew=True)
    failpoints.arm(None)
    with pytest.raises(ModelError, match="no model folder"):
        load_encoder(f"dir:{out}", device="cpu")
    with pytest.raises(UsageError, match="holds a finished run"):
        train(recipe(steps=1), out, device="cpu")
    assert contents(out).keys() == before.keys()
    assert json.loads((out / RECORD).read_text())["steps"] == 1
    assert (out / WEIGHTS).read_bytes() != before[WEIGHTS]


def test_a_model_is_not_trained_into_the_folder_it_is_in(old, recipe, tmp_path):
    out, before = old
    (tmp_path / "link").symlink_to(out)
    for anew in (True, False):
        with pytest.raises(UsageError, match="where the model to begin with is; give another --out"):
            train(recipe(model=f"dir:{tmp_path}/link"), out, device="cpu", anew=anew)
    assert contents(out) == before


def test_a_recipe_that_no_run_wrote_is_never_replaced(old, recipe, tmp_path):
    own, (out, _) = tmp_path / "own", old
    own.mkdir()
    (own / REPEAT).write_text("# mine\nseed = 1\n")
    with pytest.raises(UsageError, match="holds no training run"):
        train(recipe(), own, device="cpu", anew=True)
    assert (own / REPEAT).read_text() == "# mine\nseed = 1\n"
    (out / REPEAT).write_text("# changed\n")
    with pytest.raises(UsageError, match=r"training\.toml was written by no run, or changed since"):
        train(recipe(), out, device="cpu", anew=True)


def test_what_is_changed_in_a_recipe_during_a_run_stays(old, recipe):
    out, before = old
    mine = before[REPEAT] + b"# mine\n"
    train(recipe(), out, device="cpu", anew=True, progress=lambda _: (out / REPEAT).write_bytes(mine))
    assert (out / REPEAT).read_bytes() == mine
    assert json.loads((out / RECORD).read_text())["steps"] == 2


def test_a_folder_that_only_a_killed_run_wrote_to_is_as_good_as_empty(recipe, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in (f".{WEIGHTS}.00000000-1-0123abcd.tmp", LOCK_NAME):  # of another machine: nobody may sweep it yet
        (out / name).write_bytes(b"half")
    with alone(out, anew=False):
        pass


def test_a_run_that_can_not_begin_leaves_no_folder(recipe, tmp_path):
    with pytest.raises(UsageError):
        train(recipe(captions="/nowhere.tsv"), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_other_data_are_another_run(data, recipe, tmp_path):
    lines = [f"{data}/{name}.png\ta {name} wall" for name in ("red", "green", "blue", "white")]
    (tmp_path / "c.tsv").write_text("\n".join(lines))
    train(recipe(captions=str(tmp_path / "c.tsv")), tmp_path / "out", device="cpu", stop=lambda: True)
    (tmp_path / "c.tsv").write_text("\n".join([*lines[:3], lines[3] + "s"]))
    with pytest.raises(UsageError, match="begun with other data"):
        train(recipe(captions=str(tmp_path / "c.tsv")), tmp_path / "out", device="cpu")


def test_a_damaged_checkpoint_is_named(recipe, tmp_path):
    (tmp_path / checkpoints.FILE).write_bytes(b"half of one")
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors can't be read"):
        train(recipe(), tmp_path, device="cpu")


def test_the_rate_climbs_in_a_line_and_falls_as_a_cosine(recipe):
    plan = recipe(learning_rate=1.0, warm_up=4, final_rate=0.2)
    rates = [rate(plan, step, 12) for step in (0, 1, 3, 4, 8, 12)]
    assert rates == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.6, 0.2])
