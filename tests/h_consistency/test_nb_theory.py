"""Theory of naive Bayes: a double integral, draws of the nearest-mean rule, and the sufficient sample size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from lib.h_consistency import nb_expected_error, nb_sample_bound
from tests.h_consistency import oracle


@pytest.mark.parametrize(
    ("separation", "features", "samples"), [(2.0, 30, 20), (0.5, 2, 4), (3.0, 3, 2), (1.0, 400, 50), (6.0, 5, 1000)]
)
def test_mean_error_is_the_double_integral(separation: float, features: int, samples: float, device: str) -> None:
    got = nb_expected_error(torch.tensor(separation, dtype=torch.float64, device=device), features, samples)
    assert got.item() == pytest.approx(oracle.nearest_mean_error(separation, features, samples), rel=1e-8)


@pytest.mark.parametrize(("separation", "features", "samples"), [(2.0, 30, 20), (1.5, 2, 6)])
def test_mean_error_is_that_of_fitted_rules(separation: float, features: int, samples: int) -> None:
    """Means from samples drawn in all features; the error of each rule is exact, no formula for the mean is used."""
    rng = np.random.default_rng(0)
    runs, half = 20_000, samples // 2
    centre = np.zeros(features)
    centre[0] = separation / 2
    means = [s * centre + rng.normal(size=(runs, half, features)).mean(1) for s in (1, -1)]
    w, middle = means[0] - means[1], (means[0] + means[1]) / 2
    depth = [s * ((s * centre - middle) * w).sum(-1) / np.linalg.norm(w, axis=-1) for s in (1, -1)]
    errors = (stats.norm.cdf(-depth[0]) + stats.norm.cdf(-depth[1])) / 2
    got = nb_expected_error(separation, features, samples).item()
    assert abs(got - errors.mean()) < 4.5 * errors.std() / math.sqrt(runs)


def test_limit_of_many_features_and_of_many_samples() -> None:
    assert nb_expected_error(2.0, 30, 20, exact=False).item() == pytest.approx(
        stats.norm.cdf(-4 / (2 * math.sqrt(4 + 6)))
    )
    far = nb_expected_error(2.0, 20_000, 10_000)
    assert far.item() == pytest.approx(nb_expected_error(2.0, 20_000, 10_000, exact=False).item(), rel=1e-3)
    assert nb_expected_error(2.0, 3, 1e9).item() == pytest.approx(stats.norm.cdf(-1), rel=1e-7)
    np.testing.assert_allclose(nb_expected_error(0.0, [2, 50], [2, 9]), 0.5, rtol=1e-12)


def test_it_falls_with_samples_and_separation_and_rises_with_features() -> None:
    n = torch.tensor([2.0, 3, 8, 40, 500], dtype=torch.float64)
    assert (nb_expected_error(1.5, 10, n).diff() < 0).all()
    assert (nb_expected_error(n / 100, 10, 20).diff() < 0).all()
    assert (nb_expected_error(1.5, n, 20).diff() > 0).all()


def test_extreme_sizes_stay_probabilities() -> None:
    got = nb_expected_error([1e-6, 1e-3, 30.0, 300.0], [[2], [1e6]], 1e5)
    assert ((got >= 0) & (got <= 0.5 + 1e-12)).all()
    assert got[0, 3] == 0
    assert nb_expected_error(30.0, 2, 1e5).item() == pytest.approx(stats.norm.cdf(-15), rel=1e-2)


def test_batches_dtypes_and_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    d, f, n = torch.tensor([[0.5], [2.0]], dtype=torch.float64), torch.tensor([2.0, 9, 40]), torch.tensor(12)
    got = nb_expected_error(d, f, n)
    assert got.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(got[i, j], nb_expected_error(d[i, 0], float(f[j]), 12), rtol=1e-12, atol=0)
    monkeypatch.setattr("lib.h_consistency.nb_theory.CHUNK", 1)
    torch.testing.assert_close(nb_expected_error(d, f, n), got, rtol=1e-12, atol=0)
    low = nb_expected_error(d.float(), f, n)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), got, rtol=2e-3, atol=0)
    assert nb_expected_error(2, 30, 20).dtype == torch.float64
    for exact in (True, False):
        leaf = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, exact=exact: nb_expected_error(x, 30, 20, exact), leaf)


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    x = torch.empty(3, device=fake_gpu)
    for exact in (True, False):
        got = nb_expected_error(x, torch.empty(4, 1, device=fake_gpu), 20, exact)
        assert str(got.device) == fake_gpu
        assert got.shape == (4, 3)


def test_sample_bound_is_hoeffding_over_all_parameters() -> None:
    """The sample size at which 2 d C events of probability 2 exp(-2 m e^2) make delta, with 4 e / floor = margin."""
    for d, classes, margin, floor, failure in (
        (100, 3, 0.5, 0.2, 0.05),
        (1, 2, 2, 0.5, 0.9),
        (10**6, 10, 0.01, 0.01, 1e-9),
    ):
        got = nb_sample_bound(d, classes, margin, floor, failure)
        slack = margin * floor / 4
        assert 2 * d * classes * math.exp(-2 * got * slack**2) == pytest.approx(failure, rel=1e-9)
    ratio = nb_sample_bound(10**6, 3, 0.5, 0.2, 0.05) / nb_sample_bound(10**3, 3, 0.5, 0.2, 0.05)
    assert 1 < ratio < 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nb_expected_error(-1.0, 30, 20), "separation: got -1"),
        (lambda: nb_expected_error(math.nan, 30, 20), "separation: got nan"),
        (lambda: nb_expected_error(1.0, 1, 20), "num_features: got 1, want a finite number >= 2"),
        (lambda: nb_expected_error(1.0, 30, 1), "num_samples: got 1, want a finite number >= 2"),
        (lambda: nb_expected_error([1.0, 2.0], [3, 4, 5], 20), r"separation \(2,\)"),
        (lambda: nb_sample_bound(0, 3, 0.5, 0.2, 0.05), "num_features: got 0"),
        (lambda: nb_sample_bound(10, 1, 0.5, 0.2, 0.05), "num_classes: got 1"),
        (lambda: nb_sample_bound(10, 3, 0.0, 0.2, 0.05), "margin: got 0.0"),
        (lambda: nb_sample_bound(10, 3, 2.1, 0.2, 0.05), "margin: got 2.1"),
        (lambda: nb_sample_bound(10, 3, 0.5, 0.6, 0.05), "floor: got 0.6"),
        (lambda: nb_sample_bound(10, 3, 0.5, 0.0, 0.05), "floor: got 0.0"),
        (lambda: nb_sample_bound(10, 3, 0.5, 0.2, 1.0), "failure: got 1.0"),
        (lambda: nb_sample_bound(10, 3, 0.5, 0.2, 0.0), "failure: got 0.0"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
