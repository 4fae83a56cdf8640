from __future__ import annotations

import pytest
import torch
from torch import nn

from search.train.averages import Average


@pytest.fixture
def line():
    """A layer of one weight and one bias."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 1.0)
    nn.init.constant_(layer.bias, 7.0)
    return layer


def move(layer, value):
    with torch.no_grad():
        layer.weight.fill_(value)


def test_the_average_forgets_the_start_fast_and_then_by_its_decay(line):
    average = Average({"weight": line.weight}, 0.25)
    move(line, 3.0)
    average.follow(1)
    assert average.weights["weight"].item() == pytest.approx(1 + (1 - 2 / 11) * 2)
    before = average.weights["weight"].item()
    move(line, 5.0)
    average.follow(1000)
    assert average.weights["weight"].item() == pytest.approx(0.25 * before + 0.75 * 5)
    assert line.weight.item() == 5


def test_the_average_is_in_place_only_as_long_as_asked_for_and_an_error_ends_that_too(line):
    average = Average({"weight": line.weight}, 0.5)
    move(line, 3.0)
    with pytest.raises(KeyError), average.in_place():
        assert [line(torch.ones(1, 1)).item(), line.state_dict()["weight"].item()] == [8, 1]
        raise KeyError
    assert (line.weight.item(), average.weights["weight"].item()) == (3, 1)


def test_restored_averages_are_those_that_were_kept_and_no_decay_keeps_none(line):
    average = Average({"weight": line.weight}, 0.5)
    average.restore({"weight": torch.full((1, 1), 9.0)})
    assert average.weights["weight"].item() == 9
    none = Average({"weight": line.weight}, 0.0)
    none.follow(1)
    assert not none.weights
