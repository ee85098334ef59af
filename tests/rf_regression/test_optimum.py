"""The optimal ridge against closed forms, dense grids and the paper's theorem that more is better."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.rf_regression import optimal_ridge, optimum, powerlaw_task, rf_risk


@pytest.mark.parametrize("n", [5, 20, 50])
def test_isotropic_kernel_regression_wants_noise_times_modes_over_signal(n: int, device: str) -> None:
    modes, noise = 20, np.array([0.1, 1.0, 10.0])
    lam = torch.full((modes,), 2.0, dtype=torch.float64, device=device)
    best = optimal_ridge(lam, np.full(modes, 0.3), n, math.inf, noise)
    np.testing.assert_allclose(best.ridge.cpu(), 2.0 * noise / 0.3, rtol=1e-9)  # the posterior mean's ridge


@pytest.mark.parametrize(("n", "k"), [(20, 60), (60, 20), (30, 30), (20, math.inf), (200, 500), (math.inf, 20)])
@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0, 100.0])
def test_no_ridge_of_a_dense_grid_does_better(n: float, k: float, noise: float) -> None:
    ridges = torch.cat([torch.zeros(1), torch.logspace(-9, 6, 3001)]).double()
    for alpha, beta in ((1.2, 1.1), (1.5, 1.5), (2.0, 2.7)):
        lam, power = powerlaw_task(100, alpha, beta)
        best, grid = optimal_ridge(lam, power, n, k, noise), rf_risk(lam, power, n, k, ridges, noise).test
        least = grid.min()
        assert best.test <= least * (1 + 1e-12)
        assert best.test >= least * (1 - 1e-4)
        at_best = rf_risk(lam, power, n, k, best.ridge, noise)
        for name in ("test", "gamma"):
            torch.testing.assert_close(getattr(at_best, name), getattr(best, name), rtol=1e-10, atol=0)
        torch.testing.assert_close(at_best.train, best.train, rtol=1e-6, atol=1e-12)


def test_zero_is_returned_exactly_where_it_is_best() -> None:
    lam, power = powerlaw_task(100_000, 2.0, 2.5)
    best = optimal_ridge(lam, power, 200, [800, 1200, 1400, 2000, math.inf])
    assert (best.ridge > 0).tolist() == [True, True, False, False, False]
    assert best.ridge[2:].tolist() == [0.0, 0.0, 0.0]
    assert best.train[2:].tolist() == [0.0, 0.0, 0.0]
    assert best.ridge[0].item() == pytest.approx(1.03e-3, rel=0.01)
    assert best.ridge[1].item() == pytest.approx(1.2e-4, rel=0.05)
    noiseless = optimal_ridge([1.0, 0.5], [1.0, 1.0], [2, 5, 2], [2, 3, math.inf])
    assert noiseless.ridge.tolist() == [0, 0, 0]
    assert noiseless.test.tolist() == [0, 0, 0]


def test_of_two_minima_the_lower_is_found() -> None:
    lam = torch.cat([torch.full((5,), 1.0), torch.full((200,), 1e-4)]).double()
    power = torch.cat([torch.full((5,), 1.0), torch.full((200,), 2e-3)]).double()
    ridges = torch.cat([torch.zeros(1), torch.logspace(-8, 3, 1501)]).double()
    for n, k in ((20, math.inf), (20, 400), (100, 400), (150, math.inf), (300, 1000)):
        for noise in (0.0, 0.1, 1.0, 5.0):
            best, grid = optimal_ridge(lam, power, n, k, noise), rf_risk(lam, power, n, k, ridges, noise).test
            assert best.test <= grid.min() * (1 + 1e-12)


def test_pure_noise_wants_an_infinite_ridge() -> None:
    best = optimal_ridge([1.0, 0.5, 0.0], [0.0, 0.0, 2.0], [3, math.inf], [4, 4], 0.5)
    assert best.ridge.tolist() == [math.inf, 0.0]
    assert best.test.tolist() == [2.5, 2.5]


def test_a_tiny_noise_at_rank_equal_to_samples_is_resolved() -> None:
    best = optimal_ridge([1.0, 0.5], [1.0, 1.0], 2, math.inf, 1e-12)
    around = rf_risk([1.0, 0.5], [1.0, 1.0], 2, math.inf, best.ridge * torch.tensor([0.99, 1.0, 1.01]).double(), 1e-12)
    assert 0 < best.ridge < 1e-6
    assert around.test.argmin() == 1


def test_a_noise_too_small_to_resolve_still_gives_a_finite_error_and_a_positive_ridge() -> None:
    best = optimal_ridge([1.0, 0.5], [1.0, 1.0], 2, math.inf, 1e-44)  # without ridge the error is infinite
    assert best.ridge > 0
    assert best.test < 1e-15


def test_more_is_better_at_the_optimal_ridge_but_not_at_a_fixed_one() -> None:
    lam, power = powerlaw_task(2000, 1.5, 1.5)
    sizes = torch.logspace(4, 10, 7, base=2, dtype=torch.float64)
    best = optimal_ridge(lam, power, sizes[:, None], sizes, 0.5).test
    assert best.shape == (7, 7)
    assert (best.diff(dim=0) < 0).all()
    assert (best.diff(dim=1) < 0).all()
    fixed = rf_risk(lam, power, sizes[:, None], sizes, 1e-3, 0.5).test
    assert (fixed[:, 1:] / fixed[:, :-1]).max() > 2


values = st.lists(st.floats(1e-4, 10.0), min_size=3, max_size=10)


@settings(max_examples=15)
@given(values, st.integers(1, 20), st.integers(1, 20), st.floats(0, 5), st.floats(-30, 30))
def test_the_optimum_scales_with_the_kernel(lam: list[float], n: int, k: int, noise: float, log: float) -> None:
    power, scale = [1 / (1 + i) for i in range(len(lam))], math.exp(log)
    plain, scaled = optimal_ridge(lam, power, n, k, noise), optimal_ridge([scale * x for x in lam], power, n, k, noise)
    torch.testing.assert_close(scaled.test, plain.test, rtol=1e-8, atol=1e-300)
    random = torch.logspace(-4, 4, 9, dtype=torch.float64) * max(lam)
    assert (plain.test <= rf_risk(lam, power, n, k, random, noise).test * (1 + 1e-12)).all()


def test_a_batch_is_its_rows() -> None:
    generator = torch.Generator().manual_seed(3)
    lam = torch.rand(4, 1, 30, dtype=torch.float64, generator=generator)
    n, k = torch.tensor([10.0, 40.0]), torch.tensor([15.0, math.inf])
    best = optimal_ridge(lam, torch.ones(30, dtype=torch.float64), n, k, 0.3)
    assert best.ridge.shape == (4, 2)
    for i in range(4):
        for j in range(2):
            alone = optimal_ridge(lam[i, 0], [1.0] * 30, n[j], k[j], 0.3)
            torch.testing.assert_close(best.ridge[i, j], alone.ridge, rtol=1e-7, atol=0)


def test_float32_finds_the_same_error() -> None:
    lam, power = powerlaw_task(200, 1.5, 1.5)
    short, double = (optimal_ridge(x, p, 50, [20, 200], 0.1) for x, p in ((lam.float(), power.float()), (lam, power)))
    assert short.ridge.dtype == torch.float32
    torch.testing.assert_close(short.test.double(), double.test, rtol=1e-5, atol=0)
    torch.testing.assert_close(short.ridge.double(), double.ridge, rtol=1e-2, atol=0)


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "GRID", 4)
    monkeypatch.setattr(optimum, "BISECTIONS", 2)
    lam, power = torch.rand(4, 1, 50, device=fake_gpu), torch.rand(50, device=fake_gpu)
    best = optimal_ridge(lam, power, torch.rand(3, device=fake_gpu), 200, 0.1)
    assert {str(x.device) for x in vars(best).values()} == {fake_gpu}
    assert {x.dtype for x in vars(best).values()} == {torch.float32}
    assert {x.shape for x in vars(best).values()} == {(4, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eigenvalues": [0.0, 0.0]}, "eigenvalues: got 0"),
        ({"target_power": [1.0, -1.0]}, "target_power: got -1"),
        ({"target_power": [1.0]}, "target_power: got shape"),
        ({"n": 0}, "n: got 0"),
        ({"k": math.nan}, "k: got nan"),
        ({"n": math.inf, "k": math.inf}, "infinite"),
        ({"noise_variance": -1.0}, "noise_variance: got -1"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"eigenvalues": [1.0, 0.5], "target_power": [1.0, 1.0], "n": 2, "k": 3, "noise_variance": 0.1} | change
    with pytest.raises(ValueError, match=message):
        optimal_ridge(**arguments)  # type: ignore[arg-type]
