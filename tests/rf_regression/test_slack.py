"""Slacks against the quadratic they solve."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.rf_regression.setting import read_sizes
from lib.rf_regression.slack import slack_and_slope, slack_of, slacks

LIKE = torch.zeros((), dtype=torch.float64)


@given(st.floats(0.1, 1e4), st.floats(0.1, 1e4), st.floats(1e-12, 1e6))
def test_the_slacks_have_the_product_and_difference_of_the_two_equations(n: float, k: float, ratio: float) -> None:
    sizes = read_sizes(n, k, LIKE)
    slack = slacks(slack_of(torch.tensor(ratio, dtype=torch.float64), sizes), sizes)
    product, difference = slack.features * slack.samples, slack.samples - slack.features
    assert product.item() == pytest.approx(k * ratio, rel=1e-12)
    assert difference.item() == pytest.approx(n - k, rel=1e-9, abs=1e-9 * max(slack.samples.item(), 1.0))
    assert min(slack.features.item(), slack.samples.item()) == slack.smaller.item()
    assert slack.samples_share.item() == pytest.approx(slack.samples.item() / n)
    assert slack.features_share.item() == pytest.approx(slack.features.item() / k)


def test_limits_are_exact() -> None:
    one = torch.tensor(0.5, dtype=torch.float64)
    assert slack_of(one, read_sizes(7, math.inf, LIKE)) == 0.5
    assert slack_of(one, read_sizes(math.inf, 7, LIKE)) == 0
    assert slack_of(torch.zeros_like(one), read_sizes(7, 7, LIKE)) == 0
    assert slack_of(one, read_sizes(7, 7, LIKE)).item() == pytest.approx(math.sqrt(7 * 0.5))


@given(st.floats(0.5, 100), st.floats(0.5, 100), st.floats(-20, 20))
def test_the_fast_form_has_the_same_value_and_the_slope_of_finite_differences(n: float, k: float, u: float) -> None:
    sizes = read_sizes(n, k, LIKE)
    gamma = torch.tensor(u, dtype=torch.float64, requires_grad=True)
    value = slack_of(0.3 * (-gamma).exp(), sizes)
    (derivative,) = torch.autograd.grad(value, gamma)
    got, slope = slack_and_slope(0.3 * (-gamma.detach()).exp(), sizes.width_ratio_gap, sizes.inverse_k)
    assert got.item() == pytest.approx(value.item(), rel=1e-14)
    assert slope.item() == pytest.approx(-derivative.item(), rel=1e-10)
    assert 0.5 * got <= slope * (1 + 1e-12)
    assert slope <= got * (1 + 1e-12)
