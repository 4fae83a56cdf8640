from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from search.train.objectives import sigmoid_loss, softmax_loss

AXES = torch.eye(3)
SCALE, BIAS = torch.tensor(2.0), torch.tensor(-1.0)


def test_softmax_loss_of_orthogonal_pairs_is_what_one_computes_by_hand():
    # each row of logits is 2, 0, 0
    assert float(softmax_loss(AXES, AXES, SCALE)) == pytest.approx(math.log(math.exp(2) + 2) - 2)


def test_softmax_loss_is_the_mean_of_both_directions():
    images, texts = (normalize(torch.randn(5, 4, generator=torch.manual_seed(n)), dim=-1) for n in (1, 2))
    logits = (2 * images @ texts.T).double()
    rows = (logits.exp().sum(1).log() - logits.diagonal()).mean()
    columns = (logits.exp().sum(0).log() - logits.diagonal()).mean()
    assert float(softmax_loss(images, texts, SCALE)) == pytest.approx(float(rows + columns) / 2)


def test_label_smoothing_shares_a_part_among_all():
    # 0.3 of the target evenly over three logits 2, 0, 0
    expected = math.log(math.exp(2) + 2) - (0.7 + 0.1) * 2
    assert float(softmax_loss(AXES, AXES, SCALE, smoothing=0.3)) == pytest.approx(expected)


def test_sigmoid_loss_of_orthogonal_pairs_is_what_one_computes_by_hand():
    pair, stranger = math.log(1 + math.exp(-(2 - 1))), math.log(1 + math.exp(-1))
    assert float(sigmoid_loss(AXES, AXES, SCALE, BIAS)) == pytest.approx((3 * pair + 6 * stranger) / 3)


def test_pairs_alone_are_positive_unless_told():
    images, texts = (normalize(torch.randn(4, 3, generator=torch.manual_seed(n)), dim=-1) for n in (3, 4))
    pairs = torch.eye(4, dtype=torch.bool)
    assert softmax_loss(images, texts, SCALE).allclose(softmax_loss(images, texts, SCALE, positives=pairs))
    told = sigmoid_loss(images, texts, SCALE, BIAS, positives=pairs)
    assert sigmoid_loss(images, texts, SCALE, BIAS).allclose(told)


def test_equal_captions_are_no_strangers():
    same = torch.tensor([[1.0, 0], [1, 0]])
    all_fit = torch.ones(2, 2, dtype=torch.bool)
    assert float(sigmoid_loss(same, same, 10 * SCALE, BIAS, positives=all_fit)) < 1e-6
    assert float(sigmoid_loss(same, same, 10 * SCALE, BIAS)) > 1
    features = same.clone().requires_grad_()
    softmax_loss(features, same, SCALE, positives=all_fit).backward()
    assert features.grad is not None
    assert features.grad.abs().max() < 1e-6  # as good as can be: nothing pulls them apart
