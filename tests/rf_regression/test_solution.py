"""From ridge to effective ridge and back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.rf_regression.modes import sorted_modes
from lib.rf_regression.setting import read_sizes
from lib.rf_regression.solution import solution, solution_at


@given(st.floats(0.5, 30), st.floats(0.5, 30), st.floats(1e-3, 1e3))
def test_the_ridge_of_the_solution_is_the_ridge_that_was_given(n: float, k: float, ridge: float) -> None:
    lam = torch.arange(1.0, 13.0, dtype=torch.float64) ** -1.2
    modes, sizes = sorted_modes(lam, lam), read_sizes(n, k, lam)
    found = solution(modes, sizes, torch.tensor(ridge, dtype=torch.float64))
    back, again = solution_at(modes, sizes, found.gamma)
    assert back.item() == pytest.approx(ridge, rel=1e-7)
    torch.testing.assert_close(again.kappa, found.kappa, rtol=1e-7, atol=0)
    torch.testing.assert_close(again.boundary, found.boundary, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.learned - found.learned_squared, found.boundary, rtol=1e-10, atol=1e-13)


def test_infinite_sizes_at_a_given_gamma() -> None:
    lam = torch.ones(4, dtype=torch.float64)
    gamma = torch.tensor([1.0, 3.0], dtype=torch.float64)
    ridge, wide = solution_at(sorted_modes(lam, lam), read_sizes(2, math.inf, lam), gamma)
    assert ridge.tolist() == [0.0, 3.0]
    assert torch.equal(wide.kappa, gamma)
    ridge, _ = solution_at(sorted_modes(lam, lam), read_sizes(math.inf, 2, lam), gamma)
    assert ridge.tolist() == [0.0, math.inf]
