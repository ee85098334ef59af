"""Norms over transitions by their sums, and what counts as nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.starc.norms import read_norm, standardised, weighted_norm

from . import oracle


@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_weights_multiply_powers_inside_the_sum_and_sizes_inside_the_maximum(order: float) -> None:
    case = oracle.case(0)
    x, w = torch.tensor(np.stack([case.R1, case.R2])), torch.tensor(case.P)
    for i, R in enumerate((case.R1, case.R2)):
        got, plain = weighted_norm(x, w, order)[i].item(), weighted_norm(x, None, order)[i].item()
        assert got == pytest.approx(oracle.norm(R, case.P, order), rel=1e-14)
        assert plain == pytest.approx(oracle.norm(R, np.ones_like(R), order), rel=1e-14)


@pytest.mark.parametrize(("size", "dtype"), [(1e200, torch.float64), (1e-200, torch.float64), (1e25, torch.float32)])
def test_squares_neither_overflow_nor_vanish(size: float, dtype: torch.dtype) -> None:
    x = torch.tensor([3 * size, -4 * size], dtype=dtype).view(1, 1, 2)
    assert (weighted_norm(x, None, 2) / size).item() == pytest.approx(5, rel=1e-6)


def test_the_gradient_of_a_norm_is_that_of_its_formula() -> None:
    x = torch.tensor(oracle.case(0).R1, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: weighted_norm(t, None, 2), x)


def test_names_of_norms_are_read_as_they_are() -> None:
    assert [read_norm("norm", x) for x in (1, 2, 2.0, np.int64(2), math.inf, np.inf, "range")] == [
        1,
        2,
        2,
        2,
        math.inf,
        math.inf,
        "range",
    ]


@pytest.mark.parametrize("norm", [0, 3, -1, 1.5, math.nan, -math.inf, "2", "inf", "Range", None, True, (1, 2)])
def test_other_norms_are_refused(norm: object) -> None:
    with pytest.raises(ValueError, match=r"metric: got .*, want 1, 2, inf or 'range'"):
        read_norm("metric", norm)


def test_up_to_the_limit_a_reward_counts_as_nothing() -> None:
    x = torch.full((3, 1, 1, 1), 6.0)
    got = standardised(x, torch.tensor([2.0, 3.0, 0.0]), torch.tensor([1.0, 3.0, 0.0]))
    assert got.flatten().tolist() == [3.0, 0.0, 0.0]


def test_no_gradient_is_lost_or_infinite_where_a_reward_counts_as_nothing() -> None:
    x = torch.tensor([6.0, 0.0], dtype=torch.float64).view(2, 1, 1, 1).requires_grad_()
    size = weighted_norm(x, None, 2)
    (gradient,) = torch.autograd.grad((standardised(x, size, 0 * size) * 5).sum(), x)
    assert gradient.flatten().tolist() == pytest.approx([0.0, 0.0], abs=1e-15)  # of x / |x| and of the constant 0
