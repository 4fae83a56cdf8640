"""What is rebuilt from principal components, and its gradient against finite differences, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from search.train.components import rebuilt


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("rows", "dim", "components"), [(7, 5, 2), (5, 9, 3), (40, 6, 1)])
def test_features_are_rebuilt_as_by_a_decomposition(rows, dim, components):
    features = drawn(rows, dim)
    mean = features.mean(dim=0)
    left, values, right = np.linalg.svd((features - mean).numpy(), full_matrices=False)
    expected = (left[:, :components] * values[:components]) @ right[:components] + mean.numpy()
    np.testing.assert_allclose(rebuilt(features, components).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("rows", "dim", "components"), [(7, 5, 2), (5, 9, 3), (12, 4, 3)])
def test_the_gradient_is_that_of_finite_differences(rows, dim, components):
    assert gradcheck(lambda features: rebuilt(features, components), drawn(rows, dim).requires_grad_())


@pytest.mark.parametrize(("rows", "dim", "components"), [(5, 9, 4), (5, 9, 32), (6, 4, 4)])
def test_enough_components_leave_features_and_their_gradient_as_they_are(rows, dim, components):
    features = drawn(rows, dim).requires_grad_()
    assert gradcheck(lambda one: rebuilt(one, components), features)
    assert torch.equal(rebuilt(features, components), features)  # not as good as: as they are


@pytest.mark.parametrize("components", [2, 3, 4])
def test_with_equal_rows_the_gradient_is_right_too(components):
    """Four different rows have three components: one left out, and none."""
    twice = [0, 1, 2, 3, 0, 1]
    assert gradcheck(lambda rows: rebuilt(rows[twice], components), drawn(4, 6).requires_grad_())
    if components < 3:  # with more, what a change of one twin adds is beyond first order
        assert gradcheck(lambda rows: rebuilt(rows, components), drawn(4, 6)[twice].requires_grad_())


def test_rows_that_are_all_equal_come_back_with_their_gradient():
    features = torch.ones(5, 3, requires_grad=True)
    (rebuilt(features, 1) * torch.arange(3.0)).sum().backward()
    torch.testing.assert_close(features.grad, torch.arange(3.0).expand(5, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_components_of_the_same_length_on_either_side_give_no_wild_gradient(dtype):
    features = torch.eye(4, dtype=dtype, requires_grad=True)  # its three components are equally long
    rebuilt(features, 2).square().sum().backward()
    assert features.grad is not None
    assert features.grad.abs().max() < 3
