"""The effective ridges against 80 digits, closed forms and limits; their gradients; devices and precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from lib.rf_regression import learnabilities, powerlaw_task, solve_effective_ridge

from .oracle import exact

INDEX = np.arange(1.0, 31.0)
SPECTRA = {
    "power law": INDEX**-1.5,
    "slow power law": INDEX**-1.05,
    "exponential": np.exp(-INDEX),
    "isotropic": np.ones(30),
    "gap": np.r_[np.full(10, 2.0), np.full(20, 1e-12)],
    "deep gap": np.r_[np.full(10, 2.0), np.full(20, 1e-40)],
    "far from one": 1e60 * INDEX**-2.0,
    "one mode": np.array([0.3]),
}
SIZES = [
    (5, 20),
    (20, 5),
    (10, 10),
    (10, 200),
    (200, 10),
    (29, 31),
    (60, 90),
    (7.5, 12.25),
    (10, math.inf),
    (60, math.inf),
]
RIDGES = [0.0, 1e-30, 1e-3, 1e12]


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_gamma_and_kappa_agree_with_eighty_digits(spectrum: np.ndarray, device: str) -> None:
    for n, k in SIZES:
        ridges = [d for d in RIDGES if d > 0 or min(n, k) < len(spectrum)]
        got = solve_effective_ridge(torch.tensor(spectrum, device=device), n, k, ridges)
        want = [exact(spectrum, n, k, d) for d in ridges]
        np.testing.assert_allclose(got.gamma.cpu(), [w.gamma for w in want], rtol=2e-13)
        np.testing.assert_allclose(got.kappa.cpu(), [w.kappa for w in want], rtol=2e-13, atol=1e-45)
        np.testing.assert_allclose(got.modes_learned.cpu(), [w.modes_learned for w in want], rtol=1e-13)
        np.testing.assert_allclose(got.modes_learned_squared.cpu(), [w.modes_learned_squared for w in want], rtol=2e-13)


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_eight_newton_steps_are_enough_for_every_spectrum_size_and_ridge(spectrum: np.ndarray) -> None:
    sizes = torch.tensor([0.1, 1, 2, 9, 9.5, 10, 11, 29, 29.99, 30, 31, 1e3, 1e5, 1e9], dtype=torch.float64)
    ridges = torch.tensor([0, 1e-300, 1e-30, 1e-20, 1e-10, 1e-3, 1, 1e3, 1e12, 1e30], dtype=torch.float64)
    got = solve_effective_ridge(spectrum, sizes[:, None, None], sizes[:, None], ridges, num_iterations=8)
    assert got.residual.max() < 1e-12
    endless = solve_effective_ridge(spectrum, sizes[:, None], math.inf, ridges, num_iterations=8)
    assert endless.residual.max() < 1e-12


def test_the_pair_of_equations_of_the_paper_holds() -> None:
    spectrum, _ = powerlaw_task(500, 1.3, 1.5)
    n, k, ridge = torch.tensor([[30.0], [100.0], [250.0]], dtype=torch.float64), 120.0, torch.tensor([1e-4, 0.1, 10.0])
    got = solve_effective_ridge(spectrum, n, k, ridge)
    z = (spectrum / (spectrum + got.gamma[..., None])).sum(-1)
    torch.testing.assert_close(z + ridge.double() / got.kappa, n.expand(3, 3), rtol=1e-12, atol=0)
    torch.testing.assert_close(z + k * got.kappa / got.gamma, torch.full_like(z, k), rtol=1e-12, atol=0)
    torch.testing.assert_close(got.sample_slack, n - z, rtol=1e-9, atol=0)
    torch.testing.assert_close(got.feature_slack, k - z, rtol=1e-9, atol=0)


def test_isotropic_kernel_regression_solves_its_quadratic() -> None:
    n, m, ridge = 30.0, 50, np.array([0.0, 1e-6, 0.5, 40.0])  # n g^2 + (n - M - delta) g - delta = 0
    linear = n - m - ridge
    want = (-linear + np.sqrt(linear**2 + 4 * n * ridge)) / (2 * n)
    np.testing.assert_allclose(solve_effective_ridge(np.ones(m), n, math.inf, ridge).gamma, want, rtol=1e-14)


@pytest.mark.parametrize(("n", "k"), [(3, 20), (20, 3), (3, 3), (20, 40), (40, 20), (20, math.inf)])
def test_nested_root_finding_of_the_official_kind_agrees(n: int, k: float) -> None:
    spectrum, ridge = INDEX**-1.2, 0.01

    def gamma_of(kappa: float) -> float:
        if k == math.inf:
            return kappa
        found = optimize.brentq(
            lambda g: (spectrum / (spectrum + g)).sum() + k * kappa / g - k, kappa, 1e6, xtol=1e-300
        )
        return float(found)

    kappa = optimize.brentq(
        lambda x: (spectrum / (spectrum + gamma_of(x))).sum() + ridge / x - n, 1e-9, 1e3, xtol=1e-300, rtol=1e-14
    )
    got = solve_effective_ridge(spectrum, n, k, ridge)
    assert got.kappa.item() == pytest.approx(kappa, rel=1e-10)
    assert got.gamma.item() == pytest.approx(gamma_of(kappa), rel=1e-10)


def test_infinite_sizes_are_the_limits_of_large_ones() -> None:
    spectrum, ridge = powerlaw_task(60, 1.5, 1.5)[0], torch.tensor([0.0, 1e-3, 1.0], dtype=torch.float64)
    wide, endless = (solve_effective_ridge(spectrum, 20, k, ridge) for k in (1e13, math.inf))
    for name in ("gamma", "kappa", "modes_learned", "modes_learned_squared", "sample_slack"):
        torch.testing.assert_close(getattr(wide, name), getattr(endless, name), rtol=1e-11, atol=1e-14)
    assert endless.feature_slack.isinf().all()
    many, all_data = (solve_effective_ridge(spectrum, n, 20, ridge) for n in (1e15, math.inf))
    torch.testing.assert_close(many.gamma, all_data.gamma, rtol=1e-11, atol=0)
    torch.testing.assert_close(all_data.modes_learned, torch.full_like(ridge, 20.0), rtol=1e-13, atol=0)
    assert all_data.sample_slack.isinf().all()
    assert (all_data.kappa == 0).all()


def test_without_ridge_and_with_low_rank_gamma_is_exactly_zero() -> None:
    spectrum = [3.0, 1.0, 0.0, 0.5, 0.0]
    got = solve_effective_ridge(spectrum, [3, 7, 7, 3, math.inf], [3, 5, math.inf, 8, 4], 0.0)
    assert torch.equal(got.gamma, torch.zeros(5, dtype=torch.float64))
    assert torch.equal(got.kappa, torch.zeros(5, dtype=torch.float64))
    assert torch.equal(got.modes_learned, torch.full((5,), 3.0, dtype=torch.float64))
    assert got.sample_slack.tolist() == [0, 4, 4, 0, math.inf]
    assert got.feature_slack.tolist() == [0, 2, math.inf, 5, 1]
    assert torch.equal(got.residual, torch.zeros(5, dtype=torch.float64))


def test_an_infinite_ridge_learns_nothing() -> None:
    got = solve_effective_ridge([3.0, 1.0], 5, [4, math.inf], math.inf)
    assert got.gamma.isinf().all()
    assert got.kappa.isinf().all()
    assert (got.modes_learned == 0).all()
    assert got.sample_slack.tolist() == [5, 5]
    assert got.feature_slack.tolist() == [4, math.inf]


values = st.lists(st.floats(1e-6, 10.0), min_size=3, max_size=12)


scalable = st.just(0.0) | st.floats(1e-150, 100.0)  # a ridge that times e**-200 still has all its digits


@given(values, st.floats(0.5, 30), st.floats(0.5, 30), scalable, st.floats(-200, 200))
def test_scaling_spectrum_and_ridge_scales_gamma(
    lam: list[float], n: float, k: float, ridge: float, log: float
) -> None:
    scale = math.exp(log)
    plain = solve_effective_ridge(lam, n, k, ridge)
    scaled = solve_effective_ridge([scale * x for x in lam], n, k, scale * ridge)
    torch.testing.assert_close(scaled.gamma, scale * plain.gamma, rtol=1e-12, atol=0)
    torch.testing.assert_close(scaled.kappa, scale * plain.kappa, rtol=1e-11, atol=0)


@given(values, st.floats(0.5, 30), st.floats(0.5, 30), st.floats(1e-8, 100.0))
def test_gamma_exceeds_kappa_and_both_slacks_are_positive(lam: list[float], n: float, k: float, ridge: float) -> None:
    got = solve_effective_ridge(lam, n, k, ridge)
    assert 0 < got.kappa <= got.gamma
    assert got.sample_slack > 0
    assert got.feature_slack > 0
    assert 0 < got.modes_learned_squared < got.modes_learned < min(n, k, len(lam))
    torch.testing.assert_close(
        got.kappa * got.sample_slack, torch.tensor(ridge, dtype=torch.float64), rtol=1e-11, atol=0
    )


@given(values, st.randoms())
def test_the_order_of_the_spectrum_does_not_matter(lam: list[float], random: object) -> None:
    shuffled = list(lam)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (solve_effective_ridge(x, 4, 6, 0.1).gamma for x in (lam, shuffled))
    torch.testing.assert_close(one, other, rtol=1e-14, atol=0)


def test_every_argument_may_be_a_batch() -> None:
    spectra = torch.rand(3, 1, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    n, k, ridge = torch.tensor([5.0, 15.0]), torch.tensor([[7.0], [8.0], [30.0]]), 0.2
    got = solve_effective_ridge(spectra, n, k, ridge)
    assert got.gamma.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            alone = solve_effective_ridge(spectra[i, 0], n[j], k[i, 0], ridge)
            torch.testing.assert_close(got.gamma[i, j], alone.gamma, rtol=1e-14, atol=0)


Gradient = Callable[..., tuple[torch.Tensor, ...]]


@pytest.mark.parametrize(
    ("n", "k", "ridge"), [(4.5, 9.2, 0.3), (9.2, 4.5, 0.3), (6.0, 6.0, 0.3), (12.5, 30.5, 1e-3), (4.5, 9.2, 1e-6)]
)
def test_gradients_in_every_argument_are_those_of_the_solution(n: float, k: float, ridge: float) -> None:
    spectrum = torch.tensor(INDEX[:10] ** -1.3)
    arguments = [spectrum, *(torch.tensor(x, dtype=torch.float64) for x in (n, k, ridge))]

    def outputs(
        lam: torch.Tensor, n: torch.Tensor, k: torch.Tensor, log_ridge: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        got = solve_effective_ridge(lam, n, k, log_ridge.exp())
        return got.gamma.log(), got.kappa.log(), got.modes_learned, got.modes_learned_squared, got.sample_slack

    arguments[-1] = arguments[-1].log()
    assert torch.autograd.gradcheck(outputs, [x.requires_grad_() for x in arguments], eps=1e-6, rtol=1e-5, atol=1e-8)


def test_the_gradient_at_ridge_zero_is_the_slope_to_its_right() -> None:
    for n, k in ((4, 9), (9, 4), (15, 40), (15, math.inf), (4, math.inf)):
        ridge = torch.zeros((), dtype=torch.float64, requires_grad=True)
        got = solve_effective_ridge(INDEX[:10] ** -1.3, n, k, ridge).gamma
        (slope,) = torch.autograd.grad(got, ridge)
        right = (solve_effective_ridge(INDEX[:10] ** -1.3, n, k, 1e-7).gamma - got.detach()) / 1e-7
        torch.testing.assert_close(slope, right, rtol=1e-4, atol=0)


def test_vmap_over_the_ridge_or_the_spectrum_equals_broadcasting() -> None:
    spectrum = torch.tensor(INDEX**-1.5)
    ridges = torch.tensor([0.0, 0.1, 3.0], dtype=torch.float64)
    mapped = torch.func.vmap(lambda d: solve_effective_ridge(spectrum, 10, 20, d).gamma)(ridges)
    torch.testing.assert_close(mapped, solve_effective_ridge(spectrum, 10, 20, ridges).gamma)
    spectra = torch.stack([spectrum, 2 * spectrum])
    mapped = torch.func.vmap(lambda lam: solve_effective_ridge(lam, 10, 20, 0.1).gamma)(spectra)
    torch.testing.assert_close(mapped, solve_effective_ridge(spectra, 10, 20, 0.1).gamma)


def test_float32_stays_float32_and_loses_only_its_own_digits() -> None:
    spectrum, _ = powerlaw_task(2000, 1.5, 1.5)
    ridge = torch.tensor([0.0, 1e-3, 0.1, 10.0])
    short, double = (solve_effective_ridge(x, 50, 200, ridge) for x in (spectrum.float(), spectrum))
    assert short.gamma.dtype == torch.float32
    assert short.residual.max() < 1e-5
    torch.testing.assert_close(short.gamma.double(), double.gamma, rtol=1e-5, atol=0)
    torch.testing.assert_close(short.kappa.double(), double.kappa, rtol=1e-5, atol=0)


def test_a_single_number_in_float32_does_not_lower_the_precision() -> None:
    want = solve_effective_ridge([1.0, 0.5], 1, 2, 0.25).gamma
    assert torch.equal(solve_effective_ridge([1.0, 0.5], 1, 2, torch.tensor(0.25)).gamma, want)


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    spectra, ridge = torch.rand(4, 1, 2000, device=fake_gpu), torch.rand(3, device=fake_gpu)
    got = solve_effective_ridge(spectra, 100, math.inf, ridge)
    assert got.gamma.shape == (4, 3)
    assert {str(x.device) for x in vars(got).values()} == {fake_gpu}
    assert {x.dtype for x in vars(got).values()} == {torch.float32}
    share = learnabilities(spectra, ridge)
    assert share.shape == (4, 3, 2000)
    assert str(share.device) == fake_gpu


def test_learnabilities_are_the_share_and_zero_where_the_eigenvalue_is(device: str) -> None:
    lam = torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64, device=device)
    got = learnabilities(lam, [0.0, 1.0, 4.0, math.inf])
    want = [[1.0, 1.0, 0.0], [0.8, 0.5, 0.0], [0.5, 0.2, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(got.cpu(), torch.tensor(want, dtype=torch.float64), rtol=1e-15, atol=0)


BAD = [
    ({"eigenvalues": [1.0, -1e-3]}, "eigenvalues: got -0.001"),
    ({"eigenvalues": [1.0, math.nan]}, "eigenvalues: got nan"),
    ({"eigenvalues": [1.0, math.inf]}, "eigenvalues: got inf"),
    ({"eigenvalues": [0.0, 0.0]}, "eigenvalues: got 0, want at least one positive"),
    ({"eigenvalues": [[1.0, 0.5], [0.0, 0.0]]}, "eigenvalues: got 0, want at least one positive"),
    ({"eigenvalues": []}, "eigenvalues: got shape"),
    ({"eigenvalues": 1.0}, "eigenvalues: got shape"),
    ({"eigenvalues": "two"}, "eigenvalues: got str"),
    ({"n": 0}, "n: got 0"),
    ({"n": [3.0, -2.0]}, "n: got -2"),
    ({"n": math.nan}, "n: got nan"),
    ({"k": 0.0}, "k: got 0"),
    ({"k": math.nan}, "k: got nan"),
    ({"n": math.inf, "k": math.inf}, "infinite"),
    ({"n": [1.0, math.inf], "k": [2.0, math.inf]}, "infinite"),
    ({"ridge": -1e-9}, "ridge: got -1e-09"),
    ({"ridge": [0.0, math.nan]}, "ridge: got nan"),
    ({"num_iterations": 0}, "num_iterations: got 0, want a whole number >= 1"),
    ({"num_iterations": True}, "num_iterations: got True, want a whole number >= 1"),
    ({"n": [1.0, 2.0], "ridge": [0.0, 1.0, 2.0]}, "ridge .* do not broadcast"),
    ({"n": [1.0, 2.0], "k": [0.5, 1.0, 2.0]}, "k .* do not broadcast"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"eigenvalues": [1.0, 0.5], "n": 2, "k": 3, "ridge": 0.1} | change
    with pytest.raises(ValueError, match=message):
        solve_effective_ridge(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lam", "gamma", "message"), [([1.0], -1.0, "gamma: got -1"), ([-1.0], 1.0, "eigenvalues: got")]
)
def test_learnabilities_name_what_is_wrong(lam: list[float], gamma: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learnabilities(lam, gamma)
