from __future__ import annotations

from dataclasses import asdict

import pytest

from search.errors import UsageError
from search.train.recipe import LongClipRecipe, Recipe

LEAST = {"captions": "c.tsv", "model": "builtin"}


def test_a_recipe_reads_back_from_what_it_writes(tmp_path):
    sizes = {"vision_cfg.layers": 4, "embed_dim": 64, "vision_cfg.layers_of_each": [1, 2]}
    recipe = Recipe(captions='/a "b"/ü\\c.tsv', architecture="RN50", sizes=sizes, flip=0.5, learning_rate=1e-6)
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.read(file) == recipe


def test_what_is_given_comes_before_the_file_and_paths_are_relative_to_it(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('captions = "sub/c.tsv"\nmodel = "builtin"\nepochs = 3\nseed = 5\n')
    recipe = Recipe.read(file, seed=6)
    assert (recipe.captions, recipe.epochs, recipe.seed) == (str(tmp_path / "sub" / "c.tsv"), 3.0, 6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1.0}, "no 'learning_rat'; did you mean learning_rate"),
        ({"zzz": 1.0}, "no 'zzz'; --help lists"),
        ({"batch_size": "8"}, "batch_size can't be '8'; it is a whole number"),
        ({"seed": True}, "seed can't be True"),
        ({"learning_rate": float("nan")}, "learning_rate can't be nan; it is a finite number"),
        ({"epsilon": float("inf")}, "epsilon can't be inf"),
        ({"tune": "most"}, "tune is one of full, last, heads, text"),
        ({"architecture": "RN50"}, "a model and an architecture are given"),
        ({"model": ""}, "give a model or an architecture"),
        ({"batch_size": 1}, "batch_size is 2 or more"),
        ({"learning_rate": 0}, "learning_rate is above 0"),
        ({"flip": 1.5}, "flip is between 0 and 1"),
        ({"sizes": {"embed_dim": 1}}, "sizes belong to an architecture"),
        ({"captions": ""}, "a table of captions"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(values, message):
    with pytest.raises(UsageError, match=message):
        Recipe.of({**LEAST, **values})


def test_a_file_that_is_no_toml_is_named(tmp_path):
    (tmp_path / "r.toml").write_text("captions = ")
    with pytest.raises(UsageError, match=r"can't read .*r\.toml"):
        Recipe.read(tmp_path / "r.toml")


def test_pace_makes_no_other_run_but_anything_else_does():
    recipe = Recipe.of(LEAST)
    assert recipe.same_run({**LEAST, "workers": 3, "checkpoint_every": 7, "memory_mb": 10})
    assert not recipe.same_run({**LEAST, "seed": 3})
    assert not recipe.same_run(asdict(LongClipRecipe.of(LEAST)))
