"""The minimisability gap of a finite world, from its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lib.h_consistency import minimizability_gap


def test_a_classifier_that_may_do_as_it_likes_at_each_point_leaves_none(device: str) -> None:
    """A set of three scores at two points: all pairs of choices leave no gap, one choice for both does."""
    risks = np.array([[0.9, 0.1, 0.4], [0.2, 0.8, 0.3]])
    share = np.array([0.25, 0.75])
    on = [torch.tensor(z, device=device) for z in (risks.min(1), share)]
    free = min(share @ [risks[0, i], risks[1, j]] for i in range(3) for j in range(3))
    assert minimizability_gap(free, *on).item() == pytest.approx(0.0, abs=1e-16)
    tied = min(share @ risks[:, i] for i in range(3))
    assert minimizability_gap(tied, *on).item() == pytest.approx(tied - share @ risks.min(1), rel=1e-14)


def test_batches_dtypes_and_derivatives() -> None:
    best, risk = torch.rand(5, dtype=torch.float64), torch.rand(2, 1, 4, dtype=torch.float64)
    weight = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    got = minimizability_gap(best, risk, weight)
    assert got.shape == (2, 5)
    torch.testing.assert_close(got[1, 3], best[3] - risk[1, 0] @ weight)
    assert minimizability_gap(best.float(), risk.float(), weight.float()).dtype == torch.float32
    assert minimizability_gap(1, [1, 2], [0.5, 0.5]).item() == -0.5
    leaves = best.requires_grad_(), risk.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: minimizability_gap(a, b, weight), leaves)


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    got = minimizability_gap(
        torch.empty(3, device=fake_gpu), torch.empty(2, 3, 7, device=fake_gpu), torch.empty(7, device=fake_gpu)
    )
    assert str(got.device) == fake_gpu
    assert got.shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimizability_gap(math.nan, [0.1], [1.0]), "best_in_class_risk: got nan"),
        (lambda: minimizability_gap(0.1, [math.inf], [1.0]), "conditional_optimal_risk: got inf"),
        (lambda: minimizability_gap(0.1, [0.1, 0.2], [1.0]), r"conditional_optimal_risk: got shape \(2,\)"),
        (lambda: minimizability_gap(0.1, [0.1, 0.2], [0.5, 0.6]), "weights: got 1.1"),
        (lambda: minimizability_gap(0.1, [0.1, 0.2], [1.5, -0.5]), "weights: got -0.5"),
        (lambda: minimizability_gap(0.1, [0.1], [[1.0]]), r"weights: got shape \(1, 1\)"),
        (lambda: minimizability_gap([0.1, 0.2], [[0.1]] * 3, [1.0]), r"best_in_class_risk \(2,\)"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
