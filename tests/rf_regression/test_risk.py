"""The risk against 80 digits, least squares, limits and identities; gradients; devices and precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.rf_regression import (
    RiskCurve,
    RiskEstimate,
    krr_risk,
    powerlaw_tail,
    powerlaw_task,
    rf_risk,
    rf_risk_with_tail,
    risk_along_gamma,
    solve_effective_ridge,
)

from .oracle import exact

INDEX = np.arange(1.0, 41.0)
TASKS = {
    "power law": (INDEX**-1.5, INDEX**-1.3),
    "exponential": (np.exp(-INDEX), np.ones(40)),
    "gap": (np.r_[np.full(10, 2.0), np.full(30, 1e-12)], INDEX**-1.0),
    "unseen power": (np.r_[INDEX[:30] ** -1.5, np.zeros(10)], INDEX**-0.5),
    "target beyond the kernel": (INDEX**-2.0, INDEX[::-1] ** -1.5),
}
SIZES = [(5, 20), (20, 5), (10, 10), (10, 200), (200, 10), (60, 90), (7.5, 12.25), (10, math.inf), (60, math.inf)]


@pytest.mark.parametrize(("lam", "power"), TASKS.values(), ids=TASKS.keys())
def test_errors_agree_with_the_papers_formula_at_eighty_digits(lam: np.ndarray, power: np.ndarray, device: str) -> None:
    rank = (lam > 0).sum()
    for n, k in SIZES:
        ridges = [d for d in (0.0, 1e-12, 1e-3, 1.0, 1e6) if d > 0 or (min(n, k) < rank and n != k)]
        got = rf_risk(torch.tensor(lam, device=device), power, n, k, ridges, 0.2)
        want = [exact(lam, n, k, d, power, 0.2) for d in ridges]
        np.testing.assert_allclose(got.test.cpu(), [w.test for w in want], rtol=1e-12)
        np.testing.assert_allclose(got.train.cpu(), [w.train for w in want], rtol=1e-12, atol=1e-90)
        np.testing.assert_allclose(got.gamma.cpu(), [w.gamma for w in want], rtol=1e-12)
        np.testing.assert_allclose(got.fitting_ratio.cpu(), (got.train / got.test).cpu(), rtol=1e-12, atol=1e-300)


def test_unregularised_least_squares_pays_n_over_n_minus_rank() -> None:
    n = torch.tensor([5.0, 8.0, 30.0], dtype=torch.float64)
    k = torch.tensor([[4.0], [40.0], [math.inf]])
    risk = rf_risk([3.0, 1.0, 0.1, 0.01, 0.0], [1.0, 1.0, 2.0, 3.0, 0.5], n, k, 0.0, 0.25)
    want = (0.75 * n / (n - 4)).expand(3, 3)  # power that no feature sees acts as noise
    torch.testing.assert_close(risk.test, want, rtol=1e-14, atol=0)
    torch.testing.assert_close(risk.train, want * (1 - 4 / n) ** 2, rtol=1e-14, atol=0)
    assert (risk.gamma == 0).all()


def test_as_many_samples_as_rank_without_ridge_is_infinite_or_exact() -> None:
    lam, power = [1.0, 0.5], [1.0, 1.0]
    assert rf_risk(lam, power, 2, 5, 0.0, 0.1).test == math.inf
    assert rf_risk(lam, power, 2, 5, 0.0, 0.0).test == 0
    assert rf_risk([1.0, 0.5, 0.0], [1.0, 1.0, 0.1], 2, 5, 0.0, 0.0).test == math.inf
    assert rf_risk(lam, power, 2, 2, 0.0, 0.0).test == 0
    assert rf_risk(lam, power, 2, [2, 5], 0.0, 0.1).train.tolist() == [0, 0]


def test_at_the_interpolation_threshold_the_ridgeless_error_is_infinite() -> None:
    lam, power = powerlaw_task(30, 1.5, 1.5)
    risk = rf_risk(lam, power, 10, 10, 0.0)
    assert risk.test == math.inf
    assert risk.train == 0
    assert risk.feature_sufficiency == 0


def test_ridgeless_limits_in_width_and_data() -> None:
    lam, power = powerlaw_task(60, 1.4, 1.6)
    narrow = rf_risk(lam, power, 40, 10, 0.0, 0.3)  # a best fit on k features, paid for with n / (n - k)
    share = lam / (lam + narrow.gamma)
    assert share.sum().item() == pytest.approx(10, rel=1e-13)
    want = 40 / 30 * (((1 - share) * power).sum() + 0.3)
    torch.testing.assert_close(narrow.test, want, rtol=1e-13, atol=0)
    torch.testing.assert_close(narrow.train, want * 0.75**2, rtol=1e-13, atol=0)
    all_data = rf_risk(lam, power, math.inf, 10, [0.0, 7.0], 0.3)
    torch.testing.assert_close(all_data.test, (want * 0.75).expand(2), rtol=1e-13, atol=0)
    assert torch.equal(all_data.test, all_data.train)
    wide = rf_risk(lam, power, 10, 40, 0.0, 0.3)
    assert wide.train == 0
    assert wide.kappa.item() == pytest.approx(wide.gamma.item() * 30 / 40, rel=1e-13)


def test_infinite_sizes_are_the_limits_of_large_ones() -> None:
    lam, power = powerlaw_task(60, 1.4, 1.6)
    ridge = torch.tensor([0.0, 1e-2, 1.0], dtype=torch.float64)
    for large, endless in (((20, 1e13), (20, math.inf)), ((1e15, 20), (math.inf, 20)), ((80, 1e13), (80, math.inf))):
        near, limit = (rf_risk(lam, power, n, k, ridge, 0.1) for n, k in (large, endless))
        for name in ("test", "train", "gamma", "feature_sufficiency"):
            torch.testing.assert_close(getattr(near, name), getattr(limit, name), rtol=1e-10, atol=1e-12)


def test_with_rank_below_every_size_the_ridgeless_error_is_the_limit_of_small_ridges() -> None:
    for n, k in ((10, 20), (20, 10), (10, math.inf), (math.inf, 10), (10, 4), (6, 5), (10, 3)):
        at_zero, near = (rf_risk([2.0, 1.0, 0.5, 0.0], [1.0, 1.0, 1.0, 0.4], n, k, d, 0.1) for d in (0.0, 1e-22))
        torch.testing.assert_close(at_zero.test, near.test, rtol=1e-9, atol=0)
        torch.testing.assert_close(at_zero.train, near.train, rtol=1e-9, atol=0)
        torch.testing.assert_close(at_zero.feature_sufficiency, near.feature_sufficiency, rtol=1e-9, atol=1e-9)


def test_krr_risk_is_the_classical_formula_and_its_leave_one_out_identity_holds() -> None:
    lam, power = powerlaw_task(300, 1.2, 1.5)
    ridge = torch.tensor([0.0, 1e-2, 1.0], dtype=torch.float64)
    risk = krr_risk(lam, power, 50, ridge, 0.2)
    share = lam / (lam + risk.kappa[:, None])
    want = 50 / (50 - (share**2).sum(-1)) * (((1 - share) ** 2 * power).sum(-1) + 0.2)
    torch.testing.assert_close(risk.test, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(risk.train[1:], want[1:] * (ridge[1:] / (50 * risk.kappa[1:])) ** 2, rtol=1e-12, atol=0)
    assert (risk.feature_sufficiency == 1).all()
    assert torch.equal(risk.kappa, risk.gamma)


def test_an_infinite_ridge_predicts_zero() -> None:
    risk = rf_risk([1.0, 0.5, 0.0], [1.0, 2.0, 3.0], 5, [4, math.inf], math.inf, 0.5)
    assert risk.test.tolist() == [6.5, 6.5]
    assert risk.train.tolist() == [6.5, 6.5]


values = st.lists(st.floats(1e-6, 10.0), min_size=3, max_size=12)
size = st.floats(0.5, 30)


@given(values, size, size, st.floats(0.0, 100.0), st.floats(0, 5), st.floats(-30, 30))
def test_scale_of_kernel_and_of_labels(
    lam: list[float], n: float, k: float, ridge: float, noise: float, log: float
) -> None:
    power = [1 / (i + 1) for i in range(len(lam))]
    plain, scale = rf_risk(lam, power, n, k, ridge, noise), math.exp(log)
    kernel = rf_risk([scale * x for x in lam], power, n, k, scale * ridge, noise)
    torch.testing.assert_close(kernel.test, plain.test, rtol=1e-9, atol=1e-300)
    labels = rf_risk(lam, [scale * x for x in power], n, k, ridge, scale * noise)
    torch.testing.assert_close(labels.test, scale * plain.test, rtol=1e-12, atol=0)
    torch.testing.assert_close(labels.train, scale * plain.train, rtol=1e-12, atol=0)


@given(values, size, size, st.floats(1e-6, 100.0), st.floats(0, 5))
def test_test_error_exceeds_noise_and_train_error(
    lam: list[float], n: float, k: float, ridge: float, noise: float
) -> None:
    risk = rf_risk(lam, [1.0] * len(lam), n, k, ridge, noise)
    assert risk.test > noise
    assert 0 < risk.train < risk.test
    assert 0 <= risk.feature_sufficiency <= 1
    assert 0 <= risk.fitting_ratio <= 1


@given(values, size, size, st.floats(0.01, 100.0), st.floats(0, 5), st.floats(0, 20), st.floats(0, 20))
def test_at_a_given_gamma_more_data_and_more_features_never_hurt(
    lam: list[float], n: float, k: float, factor: float, noise: float, more_n: float, more_k: float
) -> None:
    gamma = (1 + factor) * solve_effective_ridge(lam, n, k, 0.0).gamma + 1e-9
    power = [1.0] * len(lam)
    plain = risk_along_gamma(lam, power, n, k, gamma, noise).test
    assert risk_along_gamma(lam, power, n + more_n, k, gamma, noise).test <= plain * (1 + 1e-12)
    assert risk_along_gamma(lam, power, n, k + more_k, gamma, noise).test <= plain * (1 + 1e-12)


@pytest.mark.parametrize(
    ("n", "k", "ridge"), [(4.5, 9.2, 0.3), (9.2, 4.5, 0.3), (6.0, 6.0, 0.3), (12.5, 30.5, 1e-3), (4.5, math.inf, 0.1)]
)
def test_gradients_in_every_argument(n: float, k: float, ridge: float) -> None:
    lam, power = torch.tensor(INDEX[:10] ** -1.3), torch.tensor(INDEX[:10] ** -1.1)
    numbers = [torch.tensor(x, dtype=torch.float64) for x in (n, ridge, 0.2)]
    if k < math.inf:
        numbers.append(torch.tensor(k, dtype=torch.float64))

    def outputs(
        lam: torch.Tensor,
        power: torch.Tensor,
        n: torch.Tensor,
        ridge: torch.Tensor,
        noise: torch.Tensor,
        width: torch.Tensor | float = math.inf,
    ) -> tuple[torch.Tensor, ...]:
        risk = rf_risk(lam, power, n, width, ridge, noise)
        return (risk.test, risk.train, risk.fitting_ratio) + (() if width is math.inf else (risk.feature_sufficiency,))

    arguments = [x.requires_grad_() for x in (lam, power, *numbers)]
    assert torch.autograd.gradcheck(outputs, arguments, eps=1e-6, rtol=1e-5, atol=1e-8)


def test_gradients_through_a_compressed_spectrum_equal_those_through_all_modes() -> None:
    lam, power = powerlaw_task(3000, 1.5, 1.5)
    gradients = []
    for compressed in (True, False):
        arguments = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (50.0, 200.0, 0.1, 0.2)]
        coefficients = power.clone().requires_grad_()
        spectrum = lam if compressed else lam.clone().requires_grad_()
        n, k, ridge, noise = arguments
        test = rf_risk(spectrum, coefficients, n, k, ridge, noise).test
        gradients.append(torch.autograd.grad(test, [coefficients, *arguments]))
    for short, full in zip(*gradients, strict=True):
        torch.testing.assert_close(short, full, rtol=1e-10, atol=1e-12)


def test_func_grad_and_vmap_agree_with_a_loop() -> None:
    lam, power = (x.clone() for x in powerlaw_task(30, 1.5, 1.5))
    ridges = torch.tensor([1e-3, 0.1, 2.0], dtype=torch.float64)

    def test_error(ridge: torch.Tensor) -> torch.Tensor:
        return rf_risk(lam, power, 10, 20, ridge, 0.1).test

    mapped = torch.func.vmap(torch.func.grad(test_error))(ridges)
    loop = torch.stack([torch.func.grad(test_error)(d) for d in ridges])
    torch.testing.assert_close(mapped, loop, rtol=1e-12, atol=0)
    steps = torch.stack([(test_error(d + 1e-6 * d) - test_error(d - 1e-6 * d)) / (2e-6 * d) for d in ridges])
    torch.testing.assert_close(mapped, steps, rtol=1e-6, atol=0)


def test_risk_along_gamma_returns_to_the_ridge_that_gave_gamma(device: str) -> None:
    lam, power = (x.to(device) for x in powerlaw_task(400, 1.3, 1.5))
    n, k = torch.tensor([[20.0], [80.0], [50.0]]), torch.tensor([[80.0], [20.0], [math.inf]])
    ridge = torch.tensor([1e-6, 1e-3, 0.1, 10.0, 1e4], dtype=torch.float64)
    risk = rf_risk(lam, power, n, k, ridge, 0.1)
    curve = risk_along_gamma(lam, power, n, k, risk.gamma, 0.1)
    torch.testing.assert_close(curve.ridge.cpu(), ridge.expand(3, 5), rtol=1e-6, atol=0)
    torch.testing.assert_close(curve.test, risk.test, rtol=1e-9, atol=0)
    torch.testing.assert_close(curve.train[:, 1:], risk.train[:, 1:], rtol=1e-6, atol=0)


def test_gradients_along_gamma_at_whole_sizes() -> None:
    lam, power = torch.tensor(INDEX[:10] ** -1.3), torch.tensor(INDEX[:10] ** -1.1)
    for n, k in ((4.0, 9.0), (9.0, 4.0), (12.0, 30.0)):
        gamma = 2 * solve_effective_ridge(lam, n, k, 0.1).gamma

        def outputs(
            lam: torch.Tensor, power: torch.Tensor, n: torch.Tensor, k: torch.Tensor, gamma: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            curve = risk_along_gamma(lam, power, n, k, gamma, 0.2)
            return curve.ridge, curve.test, curve.train

        numbers = (torch.tensor(n, dtype=torch.float64), torch.tensor(k, dtype=torch.float64), gamma)
        arguments = [x.clone().requires_grad_() for x in (lam, power, *numbers)]
        assert torch.autograd.gradcheck(outputs, arguments, rtol=1e-5, atol=1e-8)


def test_gamma_below_its_ridgeless_value_belongs_to_no_ridge() -> None:
    lam, power = powerlaw_task(100, 1.5, 1.5)
    for n, k in ((20, 50), (50, 20), (20, math.inf), (math.inf, 20)):
        lowest = solve_effective_ridge(lam, n, k, 0.0).gamma
        curve = risk_along_gamma(lam, power, n, k, lowest * torch.tensor([0.0, 0.5, 0.999, 1.0, 1.001]).double(), 0.1)
        for part in (curve.ridge, curve.test, curve.train):
            assert part.isnan().tolist() == [True, True, True, False, False]
        assert curve.ridge[3] == 0
        assert curve.ridge[4] > 0
        torch.testing.assert_close(curve.test[3], rf_risk(lam, power, n, k, 0.0, 0.1).test, rtol=1e-11, atol=0)
    of_low_rank = risk_along_gamma([1.0, 0.5], [1.0, 1.0], 5, 9, [0.0, math.inf], 0.1)
    assert of_low_rank.ridge.tolist() == [0, math.inf]
    np.testing.assert_allclose(of_low_rank.test, [0.1 * 5 / 3, 2.1], rtol=1e-14)


def test_a_tail_node_does_what_a_million_small_modes_do() -> None:
    lam, power = powerlaw_task(2000, 1.2, 1.5)
    million = torch.full((100_000,), 1e-12, dtype=torch.float64)
    listed = rf_risk(torch.cat([lam, million]), torch.cat([power, 1e-6 * torch.ones_like(million)]), 100, 200, 0.1, 0.1)
    tail = rf_risk_with_tail(lam, power, 1e-7, 0.1, 100, 200, 0.1, 0.1)
    for name in ("test", "train", "gamma", "kappa"):
        torch.testing.assert_close(getattr(tail, name), getattr(listed, name), rtol=1e-8, atol=0)


def test_a_truncated_power_law_with_its_tail_agrees_with_a_much_longer_one() -> None:
    errors = []
    for modes in (2000, 1_000_000):
        lam, power = powerlaw_task(modes, 1.2, 1.5)
        trace, rest = powerlaw_tail(modes, 1.2, 1.5)
        errors.append(rf_risk_with_tail(lam, power, trace, rest, 100, 200, 0.1, 0.1).test.item())
    assert errors[0] == pytest.approx(errors[1], rel=5e-4)
    lam, power = powerlaw_task(2000, 1.2, 1.5)
    trace, rest = powerlaw_tail(2000, 1.2, 1.5)
    extra_ridge = rf_risk(lam, power, 100, 200, 0.1 + trace, 0.1 + rest).test.item()
    assert extra_ridge < 0.75 * errors[1]  # with finitely many features a tail is no extra ridge
    kernel = rf_risk_with_tail(lam, power, 0.7, 0.3, 100, math.inf, 0.1, 0.1).test
    torch.testing.assert_close(kernel, krr_risk(lam, power, 100, 0.8, 0.4).test, rtol=1e-12, atol=0)
    without = rf_risk_with_tail(lam, power, 0.0, 0.0, 100, 200, 0.1, 0.1).test
    torch.testing.assert_close(without, rf_risk(lam, power, 100, 200, 0.1, 0.1).test, rtol=1e-12, atol=0)


def test_float32_stays_float32_and_loses_only_its_own_digits() -> None:
    lam, power = powerlaw_task(2000, 1.5, 1.5)
    ridge = torch.tensor([0.0, 1e-3, 0.1, 10.0])
    for k in (20, 200, math.inf):
        short, double = (
            rf_risk(x.to(t), power.to(t), 50, k, ridge, 0.1) for x, t in ((lam, torch.float32), (lam, torch.float64))
        )
        assert {x.dtype for x in vars(short).values()} == {torch.float32}
        torch.testing.assert_close(short.test.double(), double.test, rtol=1e-5, atol=0)
        torch.testing.assert_close(short.train.double(), double.train, rtol=2e-5, atol=0)
        tail = rf_risk_with_tail(lam.float(), power.float(), 0.1, 0.1, 50, k, ridge, 0.1).test
        torch.testing.assert_close(
            tail.double(), rf_risk_with_tail(lam, power, 0.1, 0.1, 50, k, ridge, 0.1).test, rtol=1e-5, atol=0
        )


def test_all_of_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    lam, power = torch.rand(4, 1, 2000, device=fake_gpu), torch.rand(2000, device=fake_gpu)
    ridge = torch.rand(3, device=fake_gpu, requires_grad=True)
    results: list[RiskEstimate | RiskCurve] = [
        rf_risk(lam, power, 100, 200, ridge, 0.1),
        krr_risk(lam, power, 100, ridge, 0.1),
        rf_risk_with_tail(lam, power, 0.1, 0.1, 100, 200, ridge, 0.1),
        risk_along_gamma(lam, power, 100, 200, ridge, 0.1),
    ]
    for result in results:
        assert {str(x.device) for x in vars(result).values()} == {fake_gpu}
        assert {x.dtype for x in vars(result).values()} == {torch.float32}
        assert {x.shape for x in vars(result).values()} == {(4, 3)}
        result.test.sum().backward()
    assert ridge.grad is not None
    assert str(ridge.grad.device) == fake_gpu


BAD = [
    ({"eigenvalues": [1.0, -1e-3]}, "eigenvalues: got -0.001"),
    ({"eigenvalues": [0.0, 0.0]}, "eigenvalues: got 0, want at least one positive"),
    ({"target_power": [1.0, -1.0]}, "target_power: got -1"),
    ({"target_power": [1.0, math.nan]}, "target_power: got nan"),
    ({"target_power": [1.0]}, "target_power: got shape"),
    ({"target_power": 1.0}, "target_power: got shape"),
    ({"noise_variance": -0.1}, "noise_variance: got -0.1"),
    ({"noise_variance": math.nan}, "noise_variance: got nan"),
    ({"n": 0}, "n: got 0"),
    ({"n": math.inf, "k": math.inf}, "infinite"),
    ({"k": -3}, "k: got -3"),
    ({"n": [1.0, 2.0], "noise_variance": [0.0, 1.0, 2.0]}, "noise_variance .* do not broadcast"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"eigenvalues": [1.0, 0.5], "target_power": [1.0, 1.0], "n": 2, "k": 3, "noise_variance": 0.1} | change
    with pytest.raises(ValueError, match=message):
        rf_risk(ridge=0.1, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        risk_along_gamma(gamma=0.1, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        rf_risk_with_tail(ridge=0.1, tail_trace=0.1, tail_power=0.1, **arguments)  # type: ignore[arg-type]


def test_bad_ridges_tails_and_an_infinite_sample_are_named() -> None:
    lam, power = [1.0, 0.5], [1.0, 1.0]
    with pytest.raises(ValueError, match="ridge: got -1"):
        rf_risk(lam, power, 2, 3, -1.0)
    with pytest.raises(ValueError, match="ridge: got nan"):
        krr_risk(lam, power, 2, math.nan)
    with pytest.raises(ValueError, match="infinite"):
        krr_risk(lam, power, math.inf, 0.1)
    with pytest.raises(ValueError, match="gamma: got -1"):
        risk_along_gamma(lam, power, 2, 3, -1.0)
    with pytest.raises(ValueError, match="tail_trace: got -1"):
        rf_risk_with_tail(lam, power, -1.0, 0.0, 2, 3, 0.1)
    with pytest.raises(ValueError, match="tail_power: got inf"):
        rf_risk_with_tail(lam, power, 1.0, math.inf, 2, 3, 0.1)
