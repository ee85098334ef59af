"""First-order expansions of the error against fitted rules whose error is exact, and where two curves cross."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from lib.h_consistency import (
    ErrorExpansion,
    crossing_samples,
    fit_logistic,
    logistic_expansion,
    naive_bayes_expansion,
)

MEAN = np.array([[-0.6, 0.2, 0.0], [0.6, -0.2, 0.4]])
CORRELATED = np.array([[1.0, 0.5, -0.2], [0.5, 1.5, 0.3], [-0.2, 0.3, 0.8]])


OPPOSED = np.array([[-1.5, -1.0], [1.5, 1.0]]), np.array([[1.0, -0.8], [-0.8, 1.0]])  # a third is due to variances


def exact_error(
    w: np.ndarray, offset: np.ndarray, mean: np.ndarray = MEAN, covariance: np.ndarray = CORRELATED
) -> np.ndarray:
    """Error of rules w x > offset for the second class, equal class probabilities; batch first."""
    spread = np.sqrt(np.einsum("bi,ij,bj->b", w, covariance, w))
    first, second = ((w @ m - offset) / spread for m in mean)
    return np.asarray(stats.norm.cdf(first) + stats.norm.cdf(-second)) / 2


@pytest.mark.parametrize(("mean", "covariance"), [(MEAN, CORRELATED), OPPOSED])
def test_naive_bayes_expansion_is_that_of_fitted_rules(mean: np.ndarray, covariance: np.ndarray) -> None:
    rng, runs, n = np.random.default_rng(0), 40_000, 1000
    root = np.linalg.cholesky(covariance)
    means = [m + rng.normal(size=(runs, len(m))) @ root.T * math.sqrt(2 / n) for m in mean]
    scatter = stats.wishart(n - 2, covariance).rvs(runs, random_state=1)
    variance = np.diagonal(scatter, axis1=-2, axis2=-1) / n
    w = (means[1] - means[0]) / variance
    errors = exact_error(w, (w * (means[0] + means[1])).sum(-1) / 2, mean, covariance)
    got = naive_bayes_expansion(mean, covariance)
    ideal = (mean[1] - mean[0]) / np.diag(covariance)
    limit = exact_error(ideal[None], (ideal * mean.sum(0)).sum(keepdims=True) / 2, mean, covariance)[0]
    assert got.limit.item() == pytest.approx(limit, rel=1e-12)
    rate = n * (errors - limit)
    assert abs(got.rate.item() - rate.mean()) < 4.5 * rate.std() / math.sqrt(runs) + 0.03 * got.rate.item()


def test_logistic_expansion_is_that_of_fitted_rules() -> None:
    rng, runs, n = np.random.default_rng(0), 600, 400
    y = np.arange(n) % 2
    x = MEAN[y] + rng.normal(size=(runs, n, 3)) @ np.linalg.cholesky(CORRELATED).T
    fit = fit_logistic(x, y, 2, 0.0)
    assert fit.gradient_norm.max() < 1e-8
    w, b = (fit.weights[:, 1] - fit.weights[:, 0]).numpy(), (fit.bias[:, 1] - fit.bias[:, 0]).numpy()
    errors = exact_error(w, -b)
    got = logistic_expansion(MEAN, CORRELATED)
    gap = MEAN[1] - MEAN[0]
    assert got.limit.item() == pytest.approx(stats.norm.cdf(-math.sqrt(gap @ np.linalg.solve(CORRELATED, gap)) / 2))
    rate = n * (errors - got.limit.item())
    assert abs(got.rate.item() - rate.mean()) < 4.5 * rate.std() / math.sqrt(runs) + 0.03 * got.rate.item()


@pytest.mark.parametrize("distance", [0.3, 4.0, 16.0])
def test_the_rate_of_logistic_regression_has_the_mean_of_both_probabilities(distance: float) -> None:
    def curvature(x: float) -> float:
        density = (stats.norm.pdf(x - distance / 2) + stats.norm.pdf(x + distance / 2)) / 2
        return float(density / (4 * math.cosh(distance * x / 2) ** 2))

    ends = 40 / distance if distance > 4 else 12.0
    a0 = integrate.quad(curvature, -ends, ends, points=[0.0], epsabs=0, epsrel=1e-11, limit=500)[0]
    rate = stats.norm.pdf(distance / 2) / (4 * distance) * (3 / a0 - 4)
    got = logistic_expansion([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]], np.eye(3)).rate
    assert got.item() == pytest.approx(rate, rel=1e-8)


def test_uncorrelated_features_leave_no_bias_and_units_do_not_matter() -> None:
    diagonal = np.diag(np.diag(CORRELATED))
    nb, lr = naive_bayes_expansion(MEAN, diagonal), logistic_expansion(MEAN, diagonal)
    assert nb.limit.item() == pytest.approx(lr.limit.item(), rel=1e-12)
    assert nb.rate < lr.rate
    scale = np.array([2.0, 0.1, 30.0])
    for expansion in (naive_bayes_expansion, logistic_expansion):
        want, got = expansion(MEAN, CORRELATED), expansion(MEAN * scale, CORRELATED * np.outer(scale, scale))
        assert got.limit.item() == pytest.approx(want.limit.item(), rel=1e-10)
        assert got.rate.item() == pytest.approx(want.rate.item(), rel=1e-8)
        shifted = expansion(MEAN + 7.0, CORRELATED)
        assert shifted.rate.item() == pytest.approx(want.rate.item(), rel=1e-8)


def test_curves_cross_where_they_are_equal() -> None:
    mild = CORRELATED * np.where(np.eye(3) == 1, 1, 0.2)
    nb, lr = naive_bayes_expansion(MEAN, mild), logistic_expansion(MEAN, mild)
    n = crossing_samples(nb, lr).item()
    assert n > 0
    assert nb.limit.item() + nb.rate.item() / n == pytest.approx(lr.limit.item() + lr.rate.item() / n, rel=1e-12)
    same = ErrorExpansion(lr.limit, lr.rate * 2)
    assert crossing_samples(same, lr).isinf()


def test_dtypes_and_devices(fake_gpu: str) -> None:
    mean, covariance = torch.empty(2, 3, device=fake_gpu), torch.empty(3, 3, device=fake_gpu)
    first, second = naive_bayes_expansion(mean, covariance), logistic_expansion(mean, covariance)
    for x in (first.limit, first.rate, second.limit, second.rate, crossing_samples(first, second)):
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32


@pytest.mark.parametrize("expansion", [naive_bayes_expansion, logistic_expansion])
@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        ([[0.0, 1.0]], np.eye(2), r"mean: got shape \(1, 2\)"),
        ([[0.0], [1.0]], np.eye(2), r"covariance: got shape \(2, 2\)"),
        ([[0.0, math.nan], [1.0, 1.0]], np.eye(2), "mean: got nan"),
        ([[0.0, 0.0], [1.0, 1.0]], [[1.0, math.inf], [0.0, 1.0]], "covariance: got inf"),
        ([[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]], "covariance: got 0.5, want a symmetric"),
        ([[0.0, 0.0], [1.0, 1.0]], [[1.0, 1e-4], [0.0, 1.0]], "covariance: got 0.0001, want a symmetric"),
    ],
)
def test_what_is_wrong_is_named(expansion: Any, mean: Any, covariance: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expansion(mean, covariance)
