"""Spectra of data, fitted exponents and errors outside a pool."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.rf_regression import empirical_spectrum, fit_powerlaw_exponents, heldout_from_pool


def test_the_spectrum_is_that_of_the_singular_values_of_the_features(device: str) -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(30, 50)) * np.arange(1, 51) ** -1.0, rng.normal(size=(30, 3))
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    got = empirical_spectrum(torch.tensor(features @ features.T, device=device), targets)
    np.testing.assert_allclose(got.eigenvalues.cpu(), singular**2 / 30, rtol=1e-9)
    np.testing.assert_allclose(got.target_power.cpu(), ((left.T @ targets) ** 2).sum(1) / 30, rtol=1e-7)
    assert got.target_power.sum().item() == pytest.approx((targets**2).sum() / 30, rel=1e-12)


def test_eigenvalues_fall_and_rounding_below_zero_is_clipped() -> None:
    features = np.random.default_rng(1).normal(size=(40, 3))
    got = empirical_spectrum(features @ features.T, np.ones(40))
    assert got.eigenvalues.shape == got.target_power.shape == (40,)
    assert (got.eigenvalues >= 0).all()
    assert (got.eigenvalues.diff() <= 0).all()
    assert (got.eigenvalues[3:] < 1e-12).all()


def test_exponents_of_exact_power_laws_are_recovered(device: str) -> None:
    sizes = torch.tensor([32.0, 64.0, 100.0, 1024.0], dtype=torch.float64, device=device)
    fit = fit_powerlaw_exponents(sizes, 3 * sizes**-1.4, 0.2 * sizes ** (1 - 1.7))
    assert fit.alpha.item() == pytest.approx(1.4, rel=1e-12)
    assert fit.beta.item() == pytest.approx(1.7, rel=1e-12)


def test_the_fit_is_least_squares_in_double_logarithms() -> None:
    rng = np.random.default_rng(2)
    sizes, kappa, test = np.array([10, 20, 40, 90]), rng.uniform(0.1, 1, 4), rng.uniform(0.1, 1, 4)
    fit = fit_powerlaw_exponents(sizes, kappa, test)
    assert fit.alpha.item() == pytest.approx(-np.polyfit(np.log(sizes), np.log(kappa), 1)[0], rel=1e-10)
    assert fit.beta.item() == pytest.approx(1 - np.polyfit(np.log(sizes), np.log(test), 1)[0], rel=1e-10)


def test_the_pool_error_is_the_average_of_training_and_held_out_points(device: str) -> None:
    train, held_out, n, pool = 0.2, 0.9, torch.tensor([10.0, 50.0], device=device), 100
    test = (n * train + (pool - n) * held_out) / pool
    torch.testing.assert_close(heldout_from_pool(test, train, n, pool), torch.full_like(n, held_out))


def test_all_of_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    spectrum = empirical_spectrum(torch.rand(6, 6, device=fake_gpu), torch.rand(6, 2, device=fake_gpu))
    assert spectrum.eigenvalues.shape == spectrum.target_power.shape == (6,)
    assert str(spectrum.target_power.device) == fake_gpu
    x = torch.rand(5, device=fake_gpu)
    assert str(fit_powerlaw_exponents(x, x, x).alpha.device) == fake_gpu
    assert heldout_from_pool(x, 0.1, 10, 100).shape == (5,)


@pytest.mark.parametrize(
    ("kernel", "targets", "message"),
    [
        ([[1.0, 0.0]], [1.0], "kernel: got shape"),
        ([1.0], [1.0], "kernel: got shape"),
        ([[1.0, math.nan], [0.0, 1.0]], [1.0, 1.0], "kernel: got nan"),
        ([[1.0, 0.0], [0.0, 1.0]], [1.0], "targets: got shape"),
        ([[1.0, 0.0], [0.0, 1.0]], 1.0, "targets: got shape"),
        ([[1.0, 0.0], [0.0, 1.0]], [1.0, math.inf], "targets: got inf"),
    ],
)
def test_bad_kernels_and_targets_are_named(kernel: list[list[float]], targets: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        empirical_spectrum(kernel, targets)


@pytest.mark.parametrize(
    ("sizes", "kappa", "test", "message"),
    [
        ([10], [1.0], [1.0], "sizes: got shape"),
        ([10, 20], [1.0], [1.0, 1.0], "kappa: got shape"),
        ([10, 20], [1.0, 1.0], [1.0], "test: got shape"),
        ([10, 10], [1.0, 0.5], [1.0, 0.5], "sizes: got 10, want at least two"),
        ([10, 20], [1.0, 0.0], [1.0, 1.0], "kappa: got 0"),
        ([10, 20], [1.0, 1.0], [1.0, math.nan], "test: got nan"),
    ],
)
def test_bad_fits_are_named(sizes: list[int], kappa: list[float], test: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_powerlaw_exponents(sizes, kappa, test)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 0.1, 100, 100), "pool_size: got 100"),
        ((0.5, 0.1, 0, 100), "n: got 0"),
        ((-0.5, 0.1, 10, 100), "test: got -0.5"),
        ((0.5, math.nan, 10, 100), "train: got nan"),
        (([0.5, 0.5], [0.1, 0.1, 0.1], 10, 100), "do not broadcast"),
    ],
)
def test_bad_pools_are_named(arguments: tuple[float, float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heldout_from_pool(*arguments)
