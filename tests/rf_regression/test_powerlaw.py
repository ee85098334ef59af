"""Closed forms for power laws against sums over modes, sympy, numerical minimisation and bisection."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize

from lib.rf_regression import (
    critical_width,
    interpolation_noise_threshold,
    krr_risk,
    optimal_fitting_ratio,
    optimal_ridge,
    powerlaw_krr_risk,
    powerlaw_rf_risk,
    powerlaw_tail,
    powerlaw_task,
    rf_risk_with_tail,
)


def deviation(alpha: float, beta: float, n: int, width: torch.Tensor, noise: float) -> torch.Tensor:
    """Largest relative error of the closed forms against sums over a million modes and their tail, per width."""
    lam, power = powerlaw_task(1_000_000, alpha, beta)
    trace, rest = powerlaw_tail(1_000_000, alpha, beta)
    absolute = noise * powerlaw_krr_risk(alpha, beta, n, 0.0)
    ridges = n ** (1 - alpha) * torch.tensor([1e-6, 1.0, 100.0], dtype=torch.float64)
    exact = rf_risk_with_tail(lam, power, trace, rest, n, n * width.unsqueeze(-1), ridges, absolute)
    got = powerlaw_rf_risk(alpha, beta, n, n * width.unsqueeze(-1), exact.fitting_ratio, absolute)
    kernel = powerlaw_krr_risk(alpha, beta, n, exact.fitting_ratio[-1], noise)
    torch.testing.assert_close(kernel, got[-1], rtol=1e-10, atol=0)
    return (got / exact.test - 1).abs().amax(-1)


@pytest.mark.parametrize(("alpha", "beta"), [(1.17, 1.14), (1.12, 1.36), (1.5, 1.5), (1.5, 2.0), (2.0, 2.5)])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_closed_forms_agree_with_sums_over_modes_at_the_stated_rate(alpha: float, beta: float, noise: float) -> None:
    width = torch.tensor([0.6, 1.5, 5.0, math.inf], dtype=torch.float64)
    few, many = deviation(alpha, beta, 1000, width, noise), deviation(alpha, beta, 10_000, width, noise)
    assert (few < 0.05).all()
    rate = torch.where(width.isinf(), 1.0, min(1.0, alpha + 1 - beta))
    assert (many < 1.3 * few * 10**-rate + 1e-5).all()


@pytest.mark.parametrize(("alpha", "beta"), [(1.17, 1.14), (1.12, 1.36), (1.5, 1.5), (2.0, 3.0), (1.5, 2.8)])
def test_the_ridgeless_kernel_risk_is_right_to_half_a_percent_at_a_thousand_samples(alpha: float, beta: float) -> None:
    lam, power = powerlaw_task(1_000_000, alpha, beta)
    exact = rf_risk_with_tail(lam, power, *powerlaw_tail(1_000_000, alpha, beta), 1000, math.inf, 0.0)
    assert powerlaw_krr_risk(alpha, beta, 1000, 0.0).item() == pytest.approx(exact.test.item(), rel=5e-3)
    assert krr_risk(lam, power, 1000, 0.0).test.item() != pytest.approx(exact.test.item(), rel=5e-3) or alpha > 1.5


@given(st.floats(1.05, 4.0), st.floats(0.02, 0.98), st.floats(0, 0.95), st.floats(0, 10))
def test_infinite_width_is_kernel_regression(alpha: float, part: float, ratio: float, noise: float) -> None:
    beta = 1 + part * alpha
    unit = powerlaw_krr_risk(alpha, beta, 300, 0.0)
    kernel = powerlaw_krr_risk(alpha, beta, 300, ratio, noise)
    torch.testing.assert_close(
        powerlaw_rf_risk(alpha, beta, 300, math.inf, ratio, noise * unit), kernel, rtol=1e-10, atol=0
    )
    torch.testing.assert_close(
        powerlaw_rf_risk(alpha, beta, 300, 3e14, ratio, noise * unit), kernel, rtol=1e-10, atol=0
    )


def test_the_constants_are_the_integrals_they_stand_for() -> None:
    alpha, beta = 1.7, 2.2
    modes = integrate.quad(lambda x: 1 / (1 + x**alpha), 0, np.inf)[0]
    bias = integrate.quad(lambda x: x ** (2 * alpha - beta) / (1 + x**alpha) ** 2, 0, np.inf)[0]
    gamma = (modes / 100) ** alpha  # z = n = 100: no ridge
    want = alpha * bias * gamma ** ((beta - 1) / alpha)
    assert powerlaw_krr_risk(alpha, beta, 100, 0.0).item() == pytest.approx(want, rel=1e-8)


def test_the_removable_singularity_is_removed() -> None:
    around = powerlaw_krr_risk(1.5, [2.5 - 1e-7, 2.5, 2.5 + 1e-7], 100, 0.1)
    assert around.isfinite().all()
    assert around[1].item() == pytest.approx(around[[0, 2]].mean().item(), rel=1e-9)


def test_more_modes_learned_than_features_is_not_a_number() -> None:
    got = powerlaw_rf_risk(1.5, 2.0, 100, 50, [0.0, 0.2, 0.3, 0.9])
    assert got.isnan().tolist() == [True, True, False, False]
    assert powerlaw_rf_risk(1.5, 2.0, 100, [100.0, 100.5, math.inf], 0.0).isnan().tolist() == [True, False, False]


def test_the_stationarity_condition_is_the_derivative_of_the_risk() -> None:
    a, b, t, noise = sp.symbols("alpha beta t sigma", positive=True)  # t = 1 - r
    risk = (t ** (1 - b) + a * noise) / (1 + (a - 1) * (1 - t))
    condition = a - b - (a - 1) * b * (1 - t) + a * (a - 1) * t**b * noise
    assert sp.simplify(sp.diff(risk, t) * (1 + (a - 1) * (1 - t)) ** 2 * t**b - condition) == 0


@given(st.floats(1.05, 5.0), st.floats(0.02, 0.98), st.floats(0, 200))
def test_the_optimal_ratio_is_the_root_by_bisection(alpha: float, part: float, noise: float) -> None:
    beta = 1 + 2 * alpha * part

    def condition(r: float) -> float:
        return float(alpha - beta - (alpha - 1) * beta * r + alpha * (alpha - 1) * (1 - r) ** beta * noise)

    want = optimize.brentq(condition, 0, 1, xtol=1e-15, rtol=1e-14) if condition(0) > 0 else 0.0
    got = optimal_fitting_ratio(alpha, beta, noise)
    assert math.sqrt(got.item()) == pytest.approx(want, abs=1e-12)
    if noise == 0 and beta < alpha:
        assert math.sqrt(got.item()) == pytest.approx((alpha - beta) / ((alpha - 1) * beta), abs=1e-12)


def test_the_printed_exponents_have_these_optima() -> None:
    alpha, beta = [1.17, 1.22, 1.12], [1.14, 1.20, 1.36]  # CIFAR-10, SVHN, MNIST
    got = optimal_fitting_ratio(alpha, beta, [[0.0], [1.0], [50.0]])
    grid = torch.linspace(0, 0.9999, 20_001, dtype=torch.float64)
    for i, noise in enumerate((0.0, 1.0, 50.0)):
        for j in range(3):
            best = grid[powerlaw_krr_risk(alpha[j], beta[j], 1000, grid**2, noise).argmin()]
            assert got[i, j].sqrt().item() == pytest.approx(best.item(), abs=1e-4)
    assert got[0, 2] == 0
    assert got[1, 2] == 0


@given(st.floats(1.05, 4.0), st.floats(0.02, 0.98))
def test_zero_is_optimal_exactly_up_to_the_noise_threshold(alpha: float, part: float) -> None:
    beta = 1 + 2 * alpha * part
    threshold = interpolation_noise_threshold(alpha, beta).item()
    assert threshold == pytest.approx((beta - alpha) / (alpha * (alpha - 1)))
    if threshold > 1e-6:
        assert optimal_fitting_ratio(alpha, beta, threshold * 0.999) == 0
        assert optimal_fitting_ratio(alpha, beta, threshold * 1.001) > 0
    elif threshold < 0:
        assert optimal_fitting_ratio(alpha, beta, 0.0) > 0


def test_the_threshold_and_the_ratio_hold_for_sums_over_modes() -> None:
    for alpha, beta, noise in ((1.5, 1.5, 0.5), (1.12, 1.36, 5.0), (2.0, 2.5, 0.15), (2.0, 2.5, 0.35)):
        lam, power = powerlaw_task(1_000_000, alpha, beta)
        trace, rest = powerlaw_tail(1_000_000, alpha, beta)
        absolute = noise * powerlaw_krr_risk(alpha, beta, 1000, 0.0)
        ridges = torch.cat([torch.zeros(1), torch.logspace(-8, 3, 300)]).double()
        risk = rf_risk_with_tail(lam, power, trace, rest, 1000, math.inf, ridges, absolute)
        best, want = risk.fitting_ratio[risk.test.argmin()].sqrt(), optimal_fitting_ratio(alpha, beta, noise).sqrt()
        assert best.item() == pytest.approx(want.item(), abs=0.03)
        assert (best == 0) == (want == 0)


@given(st.floats(1.05, 4.0), st.floats(0.05, 0.95))
def test_zero_ridge_is_globally_optimal_exactly_above_the_critical_width(alpha: float, difference: float) -> None:
    beta = alpha + difference
    width = critical_width(alpha, beta).item()
    ratio = torch.cat([torch.zeros(1), torch.logspace(-10, -0.001, 4000)]).double()
    assert powerlaw_rf_risk(alpha, beta, 1.0, 1.002 * width, ratio).nan_to_num(math.inf).argmin() == 0
    assert powerlaw_rf_risk(alpha, beta, 1.0, 0.998 * width, ratio).nan_to_num(math.inf).argmin() > 0


def test_the_critical_width_solves_its_quadratic_and_is_least_at_one_over_root_two() -> None:
    d, x = sp.symbols("Delta x", positive=True)
    quadratic = d * (d - 1) * x**2 + 2 * (1 - d) * x + 2
    root = (1 + sp.sqrt((1 + d) / (1 - d))) / d
    assert sp.simplify(quadratic.subs(x, root)) == 0
    assert critical_width(1.5, 2.0).item() == pytest.approx(3 + 2 * math.sqrt(3), rel=1e-14)
    assert critical_width(1.12, 1.36).item() == pytest.approx(10.489, abs=5e-4)
    grid = critical_width(2.0, torch.linspace(2.01, 2.99, 981, dtype=torch.float64))
    assert grid.min().item() == pytest.approx(3 + 2 * math.sqrt(2), rel=1e-6)
    assert critical_width(2.0, [2.0, 1.5]).tolist() == [math.inf, math.inf]


def test_sums_over_modes_change_their_mind_at_the_critical_width() -> None:
    lam, power = powerlaw_task(100_000, 2.0, 2.5)
    width = critical_width(2.0, 2.5)
    best = optimal_ridge(lam, power, 1000, 1000 * width * torch.tensor([0.95, 1.05], dtype=torch.float64))
    assert best.ridge[0] > 0
    assert best.ridge[1] == 0


def test_arrays_decide_precision_and_numbers_do_not() -> None:
    ratio = torch.tensor([0.0, 0.5])
    assert powerlaw_krr_risk(1.5, 1.5, 100, ratio).dtype == torch.float32
    assert powerlaw_krr_risk(1.5, 1.5, 100, torch.tensor(0.5)).dtype == torch.float64
    short = powerlaw_rf_risk(1.5, 1.5, 100, 300, ratio, 0.1)
    torch.testing.assert_close(
        short.double(), powerlaw_rf_risk(1.5, 1.5, 100, 300, ratio.double(), 0.1), rtol=1e-5, atol=0
    )
    noise = torch.tensor([0.0, 0.5, 20.0])
    double = optimal_fitting_ratio(1.5, 1.4, noise.double())
    torch.testing.assert_close(optimal_fitting_ratio(1.5, 1.4, noise).double(), double, rtol=1e-5, atol=0)


def test_gradients_of_the_closed_forms() -> None:
    a, b, r = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.6, 2.1, 0.3))
    assert torch.autograd.gradcheck(lambda a, b, r: powerlaw_krr_risk(a, b, 50.0, r, 0.2), (a, b, r))
    assert torch.autograd.gradcheck(lambda a, b, r: powerlaw_rf_risk(a, b, 50.0, 90.0, r, 0.2), (a, b, r))
    assert torch.autograd.gradcheck(lambda a, b, s: optimal_fitting_ratio(a, b, s), (a, b, 10 * r))


def test_all_of_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    x = torch.rand(3, device=fake_gpu)
    results = [
        powerlaw_krr_risk(1.5, 1.5, 100, x, 0.1),
        powerlaw_rf_risk(1.5, 1.5, 100, 300, x, 0.1),
        optimal_fitting_ratio(1.5, 1.5, x),
        interpolation_noise_threshold(x, 1.5),
        critical_width(x, 1.5),
    ]
    assert {str(y.device) for y in results} == {fake_gpu}
    assert {y.dtype for y in results} == {torch.float32}
    assert {y.shape for y in results} == {(3,)}


@pytest.mark.parametrize(
    ("alpha", "beta", "name"),
    [
        (1.0, 1.5, "alpha"),
        (math.nan, 1.5, "alpha"),
        (1.5, 1.0, "beta"),
        (1.5, 4.0, "beta"),
        (1.5, math.nan, "beta"),
        ([2.0, 0.5], 1.5, "alpha"),
    ],
)
def test_exponents_out_of_range_are_named(alpha: float, beta: float, name: str) -> None:
    for call in (
        lambda: powerlaw_krr_risk(alpha, beta, 100, 0.1),
        lambda: powerlaw_rf_risk(alpha, beta, 100, 200, 0.1),
        lambda: optimal_fitting_ratio(alpha, beta),
        lambda: interpolation_noise_threshold(alpha, beta),
        lambda: critical_width(alpha, beta),
        lambda: powerlaw_tail(100, alpha, beta),
    ):
        with pytest.raises(ValueError, match=f"{name}: got"):
            call()


def test_what_else_is_wrong_is_named() -> None:
    for bad in (2.5, 3.0):
        with pytest.raises(ValueError, match="beta: got"):
            powerlaw_rf_risk(1.5, bad, 100, 200, 0.1)
        with pytest.raises(ValueError, match="beta: got"):
            critical_width(1.5, bad)
    for call, name in (
        (lambda: powerlaw_krr_risk(1.5, 1.5, 0, 0.1), "n"),
        (lambda: powerlaw_krr_risk(1.5, 1.5, 10, 1.1), "fitting_ratio"),
        (lambda: powerlaw_krr_risk(1.5, 1.5, 10, -0.1), "fitting_ratio"),
        (lambda: powerlaw_krr_risk(1.5, 1.5, 10, 0.1, -1.0), "relative_noise"),
        (lambda: powerlaw_rf_risk(1.5, 1.5, math.inf, 10, 0.1), "n"),
        (lambda: powerlaw_rf_risk(1.5, 1.5, 10, 0, 0.1), "k"),
        (lambda: powerlaw_rf_risk(1.5, 1.5, 10, 20, math.nan), "fitting_ratio"),
        (lambda: powerlaw_rf_risk(1.5, 1.5, 10, 20, 0.1, -1.0), "noise_variance"),
        (lambda: optimal_fitting_ratio(1.5, 1.5, math.nan), "relative_noise"),
        (lambda: powerlaw_tail(0, 1.5, 1.5), "num_modes"),
    ):
        with pytest.raises(ValueError, match=f"{name}: got"):
            call()
    with pytest.raises(ValueError, match="do not broadcast"):
        powerlaw_krr_risk([1.5, 1.6], [1.5, 1.6, 1.7], 10, 0.1)
