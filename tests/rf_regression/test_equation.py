"""The solver's bracket and balance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.rf_regression import equation
from lib.rf_regression.equation import effective_gamma
from lib.rf_regression.modes import sorted_modes
from lib.rf_regression.setting import read_sizes

from .oracle import exact


def test_the_root_lies_inside_the_bracket_for_random_tasks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        lam = np.exp(rng.normal(size=12) * rng.choice([0.1, 2.0, 8.0]))
        n, k = rng.uniform(0.3, 20, 2) if rng.random() < 0.8 else (rng.uniform(0.3, 11), math.inf)
        ridge = np.exp(rng.uniform(-30, 10))
        modes, sizes = (
            sorted_modes(torch.tensor(lam), torch.zeros(12).double()),
            read_sizes(n, k, torch.zeros(()).double()),
        )
        log_ridge = torch.tensor(math.log(ridge), dtype=torch.float64)
        low, high = equation._bracket([modes], sizes, log_ridge, sizes.smaller, modes.rank)
        root = math.log(exact(lam, n, k, ridge).gamma)
        assert low < root < high
        got = effective_gamma(modes, sizes, log_ridge.exp(), 24).log().item()
        assert got == pytest.approx(root, rel=1e-12, abs=1e-12)


def test_the_balance_is_the_equation_split_in_two() -> None:
    lam = torch.tensor([3.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    modes, u, m = sorted_modes(lam, lam), torch.tensor([-1.0, 0.3], dtype=torch.float64), torch.tensor(2.5).double()
    above, below, head_slope, tail_slope = equation._balance([equation._split(modes, m.expand(2), u)], u)
    share = lam / (lam + u.exp().unsqueeze(-1))
    torch.testing.assert_close(below - above, share.sum(-1) - m, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(head_slope + tail_slope, (share * (1 - share)).sum(-1), rtol=1e-13, atol=0)
