"""Sizes with infinities: finite where they must be, and differentiable across n = k."""

from __future__ import annotations

import math

import pytest
import torch

from lib.rf_regression.setting import read_eigenvalues, read_power, read_sizes

LIKE = torch.zeros((), dtype=torch.float64)


def test_nothing_but_true_infinities_is_infinite() -> None:
    sizes = read_sizes([3.0, 8.0, 5.0, 5.0, math.inf], [8.0, 3.0, 5.0, math.inf, 5.0], LIKE)
    assert sizes.smaller.tolist() == [3, 3, 5, 5, 5]
    assert sizes.samples_surplus.tolist() == [0, 5, 0, 0, math.inf]
    assert sizes.features_surplus.tolist() == [5, 0, 0, math.inf, 0]
    assert sizes.width_ratio_gap.tolist() == [1 - 3 / 8, 5 / 3, 0, 1, math.inf]
    assert sizes.inverse_k.tolist() == [1 / 8, 1 / 3, 1 / 5, 0, 1 / 5]


@pytest.mark.parametrize(("n", "k"), [(5.0, math.inf), (math.inf, 5.0), (5.0, 5.0), (4.0, 9.0)])
def test_gradients_are_never_nan(n: float, k: float) -> None:
    samples, features = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (n, k))
    sizes = read_sizes(samples, features, LIKE)
    parts = (sizes.smaller, sizes.samples_surplus, sizes.features_surplus, sizes.width_ratio_gap, sizes.inverse_k)
    finite = torch.stack([x for x in parts if x.isfinite()]).sum()
    gradients = torch.autograd.grad(finite, (samples, features), allow_unused=True)
    assert all(g is None or g.isfinite() for g in gradients)


def test_sizes_and_powers_follow_the_spectrum() -> None:
    spectrum = read_eigenvalues(torch.tensor([1.0, 0.5]))
    assert read_power([1.0, 2.0], spectrum).dtype == torch.float32
    assert read_sizes(3, 4, spectrum).smaller.dtype == torch.float32
    assert read_eigenvalues([1, 2]).dtype == torch.float64
