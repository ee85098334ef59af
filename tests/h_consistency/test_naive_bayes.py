"""Naive Bayes: joint densities by scipy, scikit-learn, subsets as weights, offsets, impossible values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.naive_bayes import BernoulliNB, GaussianNB

from lib.h_consistency import fit_bernoulli_nb, fit_gaussian_nb, predict_scores
from tests.h_consistency import oracle
from tests.h_consistency.test_logistic_fit import draw


def binary(classes: int, n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    return (rng.random((n, d)) < rng.uniform(0.1, 0.9, (classes, d))[y]).astype(float), y


@pytest.mark.parametrize(("classes", "n", "d"), [(2, 12, 3), (3, 50, 7), (5, 11, 40)])
@pytest.mark.parametrize("smoothing", [0.0, 1e-9, 0.3])
def test_scores_are_log_joint_densities_up_to_a_common_term(
    classes: int, n: int, d: int, smoothing: float, device: str
) -> None:
    x, y = draw(classes, n, d, spread=3)
    rows = draw(classes, 9, d, seed=1)[0]
    fit = fit_gaussian_nb(
        torch.tensor(x, device=device), torch.tensor(y, device=device), classes, var_smoothing=smoothing
    )
    got = predict_scores(fit, torch.tensor(rows, device=device)).log_softmax(-1)
    want = log_softmax(oracle.gaussian_bayes(x, y, classes, rows, smoothing), -1)
    np.testing.assert_allclose(got.cpu(), want, rtol=1e-9, atol=1e-9)
    variance = sum(((x[y == k] - x[y == k].mean(0)) ** 2).sum(0) for k in range(classes)) / n
    np.testing.assert_allclose(fit.variance.cpu(), variance + smoothing * x.var(0).max(), rtol=1e-12)
    np.testing.assert_allclose(fit.mean.cpu(), [x[y == k].mean(0) for k in range(classes)], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(fit.log_prior.exp().cpu(), np.bincount(y) / n, rtol=1e-13)


def test_it_is_scikit_learn_where_variances_agree() -> None:
    """Reflected about their means all classes have the same variances, so that pooling changes nothing."""
    rng = np.random.default_rng(0)
    shape, centres = rng.normal(size=(10, 4)), rng.normal(size=(3, 4))
    x, y = np.concatenate([shape + c for c in centres]), np.repeat(np.arange(3), 10)
    peer = GaussianNB(var_smoothing=0.05).fit(x, y)
    got = predict_scores(fit_gaussian_nb(x, y, 3, var_smoothing=0.05), x).log_softmax(-1)
    np.testing.assert_allclose(got, peer.predict_log_proba(x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 1.0])
def test_bernoulli_is_scikit_learn(alpha: float, device: str) -> None:
    x, y = binary(3, 40, 8)
    omega = np.random.default_rng(2).uniform(0, 2, 40)
    peer = BernoulliNB(alpha=alpha).fit(x, y, omega)
    on = [torch.tensor(v, device=device) for v in (x, y, omega)]
    fit = fit_bernoulli_nb(on[0], on[1], 3, on[2], alpha)
    np.testing.assert_allclose(fit.mean.cpu(), np.exp(peer.feature_log_prob_), rtol=1e-12)
    np.testing.assert_allclose(fit.log_prior.cpu(), peer.class_log_prior_, rtol=1e-12)
    np.testing.assert_allclose(fit.variance.cpu(), fit.mean.cpu() * (1 - fit.mean.cpu()), rtol=1e-12, atol=1e-15)
    scores = predict_scores(fit, on[0]).log_softmax(-1)
    np.testing.assert_allclose(scores.cpu(), peer.predict_log_proba(x), rtol=1e-9, atol=1e-11)


def test_maximum_likelihood_of_binary_features_rules_out_what_was_never_seen() -> None:
    x, y = [[0, 1], [0, 0], [1, 1], [1, 0]], [0, 0, 1, 1]
    fit = fit_bernoulli_nb(x, y, 2, alpha=0)
    np.testing.assert_array_equal(fit.mean, [[0, 0.5], [1, 0.5]])
    np.testing.assert_array_equal(fit.variance, [[0, 0.25], [0, 0.25]])
    scores = predict_scores(fit, [[1.0, 1.0], [0.0, 1.0]])
    assert scores.isfinite().all()
    np.testing.assert_allclose(scores[0, 1] - scores[0, 0], -math.log(torch.finfo(torch.float64).tiny), rtol=1e-12)
    assert scores.argmax(-1).tolist() == [1, 0]


@pytest.mark.parametrize("fit", [fit_gaussian_nb, fit_bernoulli_nb])
def test_zero_weights_leave_samples_out_and_whole_weights_repeat_them(fit: Any) -> None:
    x, y = binary(3, 60, 5)
    omega = np.array([0, 1, 2] * 20)
    kept = np.repeat(np.arange(60), omega)
    got, want = fit(x, y, 3, omega), fit(x[kept], y[kept], 3)
    for name in ("log_prior", "mean", "variance", "weights", "bias"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-10, atol=1e-12)


def test_an_offset_of_a_million_costs_no_more_than_its_own_digits() -> None:
    x, y = draw(3, 50, 6)
    at_home, away = fit_gaussian_nb(x, y, 3), fit_gaussian_nb(x + 1e6, y, 3)
    torch.testing.assert_close(away.variance, at_home.variance, rtol=1e-8, atol=0)
    torch.testing.assert_close(away.weights, at_home.weights, rtol=1e-7, atol=1e-8)
    scores = predict_scores(away, x + 1e6).softmax(-1)
    torch.testing.assert_close(scores, predict_scores(at_home, x).softmax(-1), rtol=0, atol=1e-7)
    far, near = fit_gaussian_nb(x + 1e7 * y[:, None], y, 3, var_smoothing=0), fit_gaussian_nb(x, y, 3, var_smoothing=0)
    torch.testing.assert_close(far.variance, near.variance, rtol=1e-7, atol=0)


@settings(max_examples=40)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-50, 50))
def test_units_and_origins_of_features_do_not_matter(seed: int, scale: float, shift: float) -> None:
    x, y = draw(3, 20, 4, seed)
    rows = draw(3, 5, 4, seed + 1)[0]
    want = predict_scores(fit_gaussian_nb(x, y, 3), rows).softmax(-1)
    got = predict_scores(fit_gaussian_nb(scale * x + shift, y, 3), scale * rows + shift).softmax(-1)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fit", [fit_gaussian_nb, fit_bernoulli_nb])
def test_a_batch_equals_a_loop_over_everything_that_broadcasts(
    fit: Any, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.tensor(np.stack([binary(3, 24, 5, seed)[0] for seed in range(3)]), device=device)
    y = torch.tensor(binary(3, 24, 5)[1], device=device)
    omega = torch.linspace(0.1, 1, 24, dtype=torch.float64, device=device).flip(0) ** torch.tensor(
        [[[1]], [[2]]], device=device
    )
    whole = fit(x, y, 3, omega)
    assert whole.weights.shape == (2, 3, 3, 5)
    assert whole.bias.shape == whole.log_prior.shape == (2, 3, 3)
    assert whole.variance.shape == ((2, 3, 5) if fit is fit_gaussian_nb else (2, 3, 3, 5))
    monkeypatch.setattr("lib.h_consistency.naive_bayes.IN_CACHE", 1)
    by_one = fit(x, y, 3, omega)
    for name in ("log_prior", "mean", "variance", "weights", "bias"):
        torch.testing.assert_close(getattr(by_one, name), getattr(whole, name))
        for i in range(2):
            for j in range(3):
                one = getattr(fit(x[j], y, 3, omega[i, 0]), name)
                torch.testing.assert_close(getattr(whole, name)[i, j], one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fit", [fit_gaussian_nb, fit_bernoulli_nb])
def test_vmap_is_a_batch(fit: Any) -> None:
    x = torch.tensor(np.stack([binary(3, 24, 5, seed)[0] for seed in range(3)]))
    y = torch.tensor(np.stack([binary(3, 24, 5, seed)[1] for seed in range(3)]))
    got, want = torch.func.vmap(lambda a, b: vars(fit(a, b, 3)))(x, y), vars(fit(x, y, 3))
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fit", [fit_gaussian_nb, fit_bernoulli_nb])
def test_an_empty_batch_has_empty_fits(fit: Any) -> None:
    got = fit(torch.zeros(2, 0, 5, 4), torch.zeros(0, 5, dtype=torch.int64), 3)
    assert got.weights.shape == got.mean.shape == (2, 0, 3, 4)
    assert got.bias.shape == got.log_prior.shape == (2, 0, 3)
    assert {part.dtype for part in vars(got).values()} == {torch.float32}
    for shape in ((0, 4), (5, 0)):
        with pytest.raises(ValueError, match=rf"x: got shape .*{shape[0]}, {shape[1]}\), want"):
            fit(torch.zeros(2, *shape), torch.zeros(shape[0], dtype=torch.int64), 3)


def test_gaussian_fits_differentiate_in_the_features() -> None:
    x, y = draw(2, 8, 3)
    leaf = torch.tensor(x, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z: (lambda f: (f.weights, f.bias, f.variance))(fit_gaussian_nb(z, y, 2)), leaf
    )


def test_single_precision_and_whole_numbers() -> None:
    x, y = draw(3, 60, 6)
    low, high = fit_gaussian_nb(torch.tensor(x).float(), torch.tensor(y), 3), fit_gaussian_nb(x, y, 3)
    for name in ("log_prior", "mean", "variance", "weights", "bias"):
        assert getattr(low, name).dtype == torch.float32
        torch.testing.assert_close(getattr(low, name).double(), getattr(high, name), rtol=1e-4, atol=1e-4)
    assert fit_gaussian_nb([[0], [2], [5], [7]], [0, 0, 1, 1], 2, var_smoothing=0).mean.dtype == torch.float64
    assert fit_bernoulli_nb(torch.tensor([[0], [1]]), torch.tensor([0, 1]), 2).mean.dtype == torch.float64


@pytest.mark.parametrize("fit", [fit_gaussian_nb, fit_bernoulli_nb])
def test_both_run_on_an_accelerator_without_a_host_sync(fit: Any, fake_gpu: str) -> None:
    got = fit(torch.empty(2, 1, 9, 5, device=fake_gpu), torch.empty(4, 9, dtype=torch.int64, device=fake_gpu), 3)
    for x in (got.log_prior, got.mean, got.variance, got.weights, got.bias):
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32
    assert got.weights.shape == (2, 4, 3, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_gaussian_nb([[0.0], [math.nan]], [0, 1], 2), "x: got nan, want finite"),
        (lambda: fit_gaussian_nb([0.0, 1.0], [0, 1], 2), r"x: got shape \(2,\)"),
        (lambda: fit_gaussian_nb([[0.0], [1.0]], [0, 1, 1], 2), r"y: got shape \(3,\), want \(\*batch, 2\)"),
        (lambda: fit_gaussian_nb([[0.0], [1.0]], [0, 2], 2), "y: got 2, want a class from 0 to 1"),
        (lambda: fit_gaussian_nb([[0.0], [1.0]], [0.0, 1.0], 2), "y: got torch.float64"),
        (lambda: fit_gaussian_nb([[0.0], [1.0]], [0, 0], 2), "y: got 0, want a sample of class 1"),
        (lambda: fit_gaussian_nb([[0.0], [1.0]], [0, 1], 1), "num_classes: got 1"),
        (lambda: fit_gaussian_nb([[0.0], [1.0]], [0, 1], 2, var_smoothing=-1.0), "var_smoothing: got -1"),
        (lambda: fit_gaussian_nb([[0.0], [1.0]], [0, 1], 2, var_smoothing=0.0), "x: got 0, want features that vary"),
        (lambda: fit_gaussian_nb([[1.0], [1.0]], [0, 1], 2), "x: got 0, want features that vary"),
        (lambda: fit_gaussian_nb([[0.0], [1.0]], [0, 1], 2, [1.0, -1.0]), "sample_weight: got -1"),
        (lambda: fit_bernoulli_nb([[0.0], [0.5]], [0, 1], 2), "x: got 0.5, want zeros and ones"),
        (lambda: fit_bernoulli_nb([[0.0], [1.0]], [0, 1], 2, alpha=-1.0), "alpha: got -1"),
        (lambda: fit_bernoulli_nb([[0.0], [1.0]], [0, 1], 3), "y: got 0, want a sample of class 2"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
