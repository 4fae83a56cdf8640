"""Gradients from pieces are those of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from search.encoders.blueprints import open_clip
from search.train.gradcache import Part, backward
from search.train.objectives import Objective, Term, sigmoid_loss, softmax_loss

TEXT = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 16, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}


def gradients(loss, *, chunk, train_images=True, short=False):
    """The loss and all gradients of a small CLIP in double precision on a batch of seven.   short: other texts too."""
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT, init_logit_bias=-2.0).double()
    pixels, tokens = torch.randn(7, 3, 16, 16).double(), torch.randint(1, 50, (7, 8))
    parts = [
        Part(lambda batch: normalize(model.encode_image(batch), dim=-1), pixels, train_images),
        Part(lambda batch: normalize(model.encode_text(batch), dim=-1), tokens),
    ]
    if short:
        parts.append(Part(parts[1].encode, torch.randint(1, 50, (7, 8))))
    value = backward(model, parts, lambda *rows: loss(model, *rows), chunk=chunk)
    return value, {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def softmax(model, images, texts):
    return softmax_loss(images, texts, model.logit_scale.exp())


def sigmoid(model, images, texts):
    return sigmoid_loss(images, texts, model.logit_scale.exp(), model.logit_bias)


def long_and_short(model, images, *texts):
    objective = Objective((Term(), Term(short=True, weight=0.7, components=3)), smoothing=0.1)
    return objective(images, texts, model.logit_scale.exp(), None, (None, None))


@pytest.mark.parametrize("loss", [softmax, sigmoid, long_and_short])
@pytest.mark.parametrize("chunk", [1, 3])
def test_gradients_from_pieces_equal_those_of_one_large_batch(loss, chunk):
    short = loss is long_and_short
    whole, expected = gradients(loss, chunk=7, short=short)
    value, found = gradients(loss, chunk=chunk, short=short)
    assert found.keys() == expected.keys()
    assert {"logit_scale", "visual.proj", "token_embedding.weight"} <= found.keys()
    torch.testing.assert_close(value, whole, rtol=1e-12, atol=1e-12)
    for name, gradient in expected.items():  # in double precision only the order of sums differs
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9, msg=name)


def test_pieces_that_know_only_of_themselves_give_other_gradients():
    """What plain accumulation would do: strangers of other pieces would be missing."""
    _, whole = gradients(softmax, chunk=7)
    _, found = gradients(lambda model, images, texts: softmax(model, images[:3], texts[:3]), chunk=7)
    assert (found["visual.proj"] - whole["visual.proj"]).abs().max() > 1e-3


def test_a_locked_tower_gets_no_gradient_and_the_other_the_same():
    _, expected = gradients(softmax, chunk=7)
    _, found = gradients(softmax, chunk=2, train_images=False)
    assert not [name for name in found if name.startswith("visual.")]
    torch.testing.assert_close(found["text_projection"], expected["text_projection"], rtol=1e-6, atol=1e-9)


def test_dropout_is_the_same_in_both_passes():
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 4)).double()
    inputs, weights = torch.randn(4, 6).double(), torch.randn(4, 4).double()
    seen = []

    def encode(piece):
        seen.append(tower(piece))
        return seen[-1]

    backward(tower, [Part(encode, inputs)], lambda rows: (rows * weights).sum(), chunk=2)
    torch.testing.assert_close(seen[2].detach(), seen[0])
    torch.testing.assert_close(seen[3].detach(), seen[1])


def test_batch_normalisation_counts_each_piece_once():
    tower = nn.BatchNorm1d(3)
    backward(tower, [Part(tower, torch.randn(4, 3))], lambda rows: rows.square().sum(), chunk=2)
    assert int(tower.num_batches_tracked) == 2
    assert tower.track_running_stats
