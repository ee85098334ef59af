"""Fits of logistic regression: their gradient sample by sample, scikit-learn, subsets as weights, hard designs."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from lib.h_consistency import fit_logistic, newton
from tests.h_consistency import oracle

SETTINGS = [(2, 30, 4), (3, 40, 7), (5, 64, 64), (3, 20, 90), (4, 9, 1)]  # classes, samples, features


def draw(classes: int, n: int, d: int, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes; a half of the features has a standard deviation of `spread`."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    x = rng.normal(size=(n, d))
    x[:, : d // 2] *= spread
    return x + 0.7 * y[:, None] * rng.normal(size=d), y


@pytest.mark.parametrize(("classes", "n", "d"), SETTINGS)
@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_the_gradient_vanishes_and_what_is_reported_is_true(
    classes: int, n: int, d: int, ridge: float, device: str
) -> None:
    x, y = draw(classes, n, d)
    fit = fit_logistic(torch.tensor(x, device=device), torch.tensor(y, device=device), classes, ridge)
    w, b = fit.weights.cpu().numpy(), fit.bias.cpu().numpy()
    slope = oracle.slope(w, b, x, y, ridge)
    assert np.linalg.norm(slope) < 1e-9
    assert fit.gradient_norm.item() == pytest.approx(np.linalg.norm(slope), rel=1e-2, abs=1e-14)
    assert fit.objective.item() == pytest.approx(oracle.objective(w, b, x, y, ridge), rel=1e-13)
    np.testing.assert_allclose(w.sum(0), 0, atol=1e-12)
    assert b.sum() == pytest.approx(0, abs=1e-12)


def test_gradient_norm_is_that_of_the_objective_away_from_the_minimum() -> None:
    x, y = draw(3, 40, 7, spread=5)
    fit = fit_logistic(x, y, 3, 0.01, num_steps=1)
    w, b = fit.weights.numpy(), fit.bias.numpy()
    assert fit.gradient_norm.item() == pytest.approx(np.linalg.norm(oracle.slope(w, b, x, y, 0.01)), rel=1e-10)
    assert fit.gradient_norm > 1e-3
    numeric = optimize.approx_fprime(b, lambda z: oracle.objective(w, z, x, y, 0.01), 1e-7)
    np.testing.assert_allclose(numeric, oracle.slope(w, b, x, y, 0.01)[:, -1], atol=1e-5)


@pytest.mark.parametrize(("classes", "n", "d"), [(3, 60, 8), (4, 30, 50)])
def test_it_is_what_scikit_learn_finds(classes: int, n: int, d: int) -> None:
    x, y = draw(classes, n, d, seed=1)
    peer = LogisticRegression(C=0.7, tol=1e-12, max_iter=20_000, solver="newton-cg").fit(x, y)
    fit = fit_logistic(x, y, classes, 1 / (0.7 * n))
    np.testing.assert_allclose(fit.weights, peer.coef_, atol=1e-6)
    np.testing.assert_allclose(fit.bias - fit.bias.mean(), peer.intercept_ - peer.intercept_.mean(), atol=1e-6)


def test_two_classes_have_twice_the_c_of_a_single_vector() -> None:
    x, y = draw(2, 40, 5)
    peer = LogisticRegression(C=2 * 0.7, tol=1e-12, max_iter=20_000).fit(x, y)
    fit = fit_logistic(x, y, 2, 1 / (0.7 * len(y)))
    np.testing.assert_allclose(fit.weights[1] - fit.weights[0], peer.coef_[0], atol=1e-6)
    np.testing.assert_allclose(fit.bias[1] - fit.bias[0], peer.intercept_[0], atol=1e-6)


def test_zero_weights_leave_samples_out_and_whole_weights_repeat_them() -> None:
    x, y = draw(3, 30, 5)
    omega = np.array([0, 1, 2] * 10)
    kept = np.repeat(np.arange(30), omega)
    got, want = fit_logistic(x, y, 3, 0.02, omega), fit_logistic(x[kept], y[kept], 3, 0.02)
    for name in ("weights", "bias", "objective"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-9, atol=1e-9)
    scaled = fit_logistic(x, y, 3, 0.02, 1e6 * omega)
    torch.testing.assert_close(scaled.weights, got.weights, rtol=1e-9, atol=1e-9)


def test_a_batch_equals_a_loop_over_everything_that_broadcasts(device: str) -> None:
    x = torch.tensor(np.stack([draw(3, 24, 5, seed)[0] for seed in range(3)]), device=device)
    y = torch.tensor(draw(3, 24, 5)[1], device=device)
    ridge = torch.tensor([[0.01], [0.3]], dtype=torch.float64, device=device)
    omega = (torch.arange(24, device=device) < 18).double() * torch.tensor([[[1.0]], [[0.5]]], device=device) + 0.1
    fit = fit_logistic(x, y, 3, ridge, omega)
    assert fit.weights.shape == (2, 3, 3, 5)
    assert fit.objective.shape == fit.gradient_norm.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            one = fit_logistic(x[j], y, 3, ridge[i, 0], omega[i, 0])
            torch.testing.assert_close(fit.weights[i, j], one.weights, rtol=1e-7, atol=1e-8)
            torch.testing.assert_close(fit.bias[i, j], one.bias, rtol=1e-7, atol=1e-8)
            torch.testing.assert_close(fit.objective[i, j], one.objective, rtol=1e-12, atol=0)


def test_chunks_of_a_batch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.stack([draw(3, 24, 5, seed)[0] for seed in range(7)])
    y = draw(3, 24, 5)[1]
    whole = fit_logistic(x, y, 3, 0.05)
    monkeypatch.setattr("lib.h_consistency.logistic_fit.IN_CACHE", 1)
    torch.testing.assert_close(fit_logistic(x, y, 3, 0.05).weights, whole.weights, rtol=1e-8, atol=1e-9)
    monkeypatch.setattr("lib.h_consistency.logistic_fit.IN_CACHE", 10_000)
    torch.testing.assert_close(fit_logistic(x, y, 3, 0.05).weights, whole.weights, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("spread", [1.0, 1e4, 1e-4])
@pytest.mark.parametrize("ridge", [1e-8, 1e-3, 10.0])
@pytest.mark.parametrize("direct", [True, False])
def test_scales_of_features_and_penalties_do_not_spoil_the_minimum(
    spread: float, ridge: float, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newton, "forms_hessian", lambda *_: direct)
    x, y = draw(3, 60, 12, spread=spread)
    fit = fit_logistic(x, y, 3, ridge, num_steps=200)
    scale = max(1.0, spread)
    assert fit.gradient_norm.item() < 1e-9 * scale
    w, b = fit.weights.numpy(), fit.bias.numpy()
    step = oracle.slope(w, b, x, y, ridge)
    nudged = oracle.objective(w - step[:, :-1] / scale**2, b - step[:, -1] / scale**2, x, y, ridge)
    assert nudged >= fit.objective.item() - 1e-15


def test_a_common_offset_of_features_moves_the_bias_only() -> None:
    x, y = draw(3, 40, 6)
    at_home, away = fit_logistic(x, y, 3, 0.1), fit_logistic(x + 1e6, y, 3, 0.1)
    torch.testing.assert_close(away.weights, at_home.weights, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(away.objective, at_home.objective, rtol=1e-8, atol=0)


def test_both_ways_to_a_step_agree_and_so_do_both_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(4, 50, 20, spread=8)
    want = fit_logistic(x, y, 4, 0.01)
    monkeypatch.setattr(newton, "SINGLE_MISSES", -1.0)  # never good enough
    torch.testing.assert_close(fit_logistic(x, y, 4, 0.01).weights, want.weights, rtol=1e-8, atol=1e-9)
    monkeypatch.setattr(newton, "forms_hessian", lambda *_: False)
    torch.testing.assert_close(fit_logistic(x, y, 4, 0.01).weights, want.weights, rtol=1e-6, atol=1e-7)


def test_many_classes_and_features_take_conjugate_gradients() -> None:
    assert not newton.forms_hessian(9, 301, 400)
    assert newton.forms_hessian(2, 65, 64)
    x, y = draw(10, 400, 300, spread=3)
    fit = fit_logistic(x, y, 10, 1 / 400)
    assert np.linalg.norm(oracle.slope(fit.weights.numpy(), fit.bias.numpy(), x, y, 1 / 400)) < 1e-7


def test_without_penalty_there_is_a_minimum_where_classes_overlap_and_none_where_they_do_not() -> None:
    x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 1, 0, 1]
    assert fit_logistic(x, y, 2, 0).gradient_norm.item() < 1e-12
    apart = fit_logistic(x, [0, 0, 1, 1], 2, 0)
    assert apart.weights.isfinite().all()
    assert apart.objective.item() < 1e-6


def test_a_feature_that_is_constant_or_doubled_gets_the_weight_of_least_penalty() -> None:
    x, y = draw(3, 40, 2)
    fit = fit_logistic(np.column_stack((x, x[:, 0], np.ones(40))), y, 3, 0.1)
    torch.testing.assert_close(fit.weights[:, 0], fit.weights[:, 2], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit.weights[:, 3], 0, atol=1e-12)
    equal = fit_logistic(np.ones((6, 2)), [0, 0, 0, 1, 1, 2], 3, 0.1)
    np.testing.assert_allclose(equal.bias.softmax(-1), [1 / 2, 1 / 3, 1 / 6], rtol=1e-12)


def test_single_precision_in_and_out() -> None:
    x, y = draw(3, 40, 6, spread=100)
    low = fit_logistic(torch.tensor(x).float(), torch.tensor(y), 3, 0.1)
    assert low.weights.dtype == low.bias.dtype == low.objective.dtype == low.gradient_norm.dtype == torch.float32
    torch.testing.assert_close(low.weights.double(), fit_logistic(x, y, 3, 0.1).weights, rtol=1e-4, atol=1e-6)
    assert low.gradient_norm < 1e-9
    assert fit_logistic(torch.tensor([[0], [1], [2]]), [0, 1, 0], 2, 1).weights.dtype == torch.float64


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    y = torch.empty(4, 9, dtype=torch.int64, device=fake_gpu)
    for shape in ((4, 9, 5), (9, 20)):
        fit = fit_logistic(torch.empty(*shape, device=fake_gpu), y, 3, 0.1, num_steps=6)
        for x in (fit.weights, fit.bias, fit.objective, fit.gradient_norm):
            assert str(x.device) == fake_gpu
            assert x.dtype == torch.float32
        assert fit.weights.shape == (4, 3, shape[-1])


MEASURE = """
import resource, torch
from lib.h_consistency import fit_gaussian_nb, fit_logistic
torch.set_num_threads(1)
x = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
y = torch.arange(4000) % 3
omega = (torch.rand(64, 4000, generator=torch.Generator().manual_seed(1)) < 0.1).double()
fit_logistic(x[:99], y[:99], 3, 0.1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fit_logistic(x, y, 3, 1.0, omega, num_steps=2)
fit_gaussian_nb(x, y, 3, omega)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_subsets_of_one_pool_are_never_copied_all_at_once() -> None:
    """As 64 copies the pool would take 125 MiB, an array of classes by it 375 MiB, before any work is done."""
    out = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0.0, 1.0]}, r"x: got shape \(2,\), want \(\*batch, n, d\)"),
        ({"x": [[0.0], [math.nan], [1.0]]}, "x: got nan, want finite"),
        ({"x": [[0.0], [-math.inf], [1.0]]}, "x: got -inf"),
        ({"x": [[], [], []]}, r"x: got shape \(3, 0\)"),
        ({"x": "words"}, "x: got str"),
        ({"y": [0, 1]}, r"y: got shape \(2,\), want \(\*batch, 3\)"),
        ({"y": 1}, r"y: got shape \(\)"),
        ({"y": [0.0, 1.0, 1.0]}, "y: got torch.float64, want whole numbers"),
        ({"y": [True, False, True]}, "y: got torch.bool, want whole numbers"),
        ({"y": ["a", "b", "b"]}, r"y: got list \['a', 'b', 'b'\], want whole numbers"),
        ({"y": [0, 1, 2]}, "y: got 2, want a class from 0 to 1"),
        ({"y": [0, 1, -1]}, "y: got -1, want a class from 0 to 1"),
        ({"y": [1, 1, 1]}, "y: got 0, want a sample of class 0 in every data set"),
        ({"y": [[0, 1, 1], [0, 0, 0]]}, "want a sample of class 1 in every data set"),
        ({"sample_weight": [1.0, 0.0, 0.0]}, "want a sample of class 1"),
        ({"sample_weight": [1.0, 1.0]}, r"sample_weight: got shape \(2,\)"),
        ({"sample_weight": [1.0, -1.0, 1.0]}, "sample_weight: got -1"),
        ({"sample_weight": [1.0, math.nan, 1.0]}, "sample_weight: got nan"),
        ({"num_classes": 1}, "num_classes: got 1, want a whole number >= 2"),
        ({"ridge": -0.1}, "ridge: got -0.1, want a finite number >= 0"),
        ({"ridge": math.inf}, "ridge: got inf"),
        ({"ridge": [0.1, 0.2], "y": [[0, 1, 1]] * 3}, r"ridge \(2,\): got shapes that do not broadcast"),
        ({"y": [[0, 1, 1]] * 3, "sample_weight": [[1.0] * 3] * 2}, r"sample_weight \(2,\): got shapes that do not"),
        ({"num_steps": 0}, "num_steps: got 0"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"x": [[0.0], [1.0], [2.0]], "y": [0, 1, 1], "num_classes": 2, "ridge": 0.1}
    fit_logistic(**call)
    with pytest.raises(ValueError, match=message):
        fit_logistic(**(call | change))


def test_vmap_is_a_batch_over_data_or_over_ridges() -> None:
    rows = [draw(3, 20, 4, seed) for seed in range(3)]
    x, y = (torch.tensor(np.stack(part)) for part in zip(*rows, strict=True))
    got = torch.func.vmap(lambda a, b: vars(fit_logistic(a, b, 3, 0.1)))(x, y)
    for name, value in vars(fit_logistic(x, y, 3, 0.1)).items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-11)
    ridges = torch.tensor([0.1, 0.5], dtype=torch.float64)
    by_ridge = torch.func.vmap(lambda r: fit_logistic(x[0], y[0], 3, r).weights)(ridges)
    torch.testing.assert_close(by_ridge, fit_logistic(x[0], y[0], 3, ridges).weights, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("d", [2, 9])
def test_an_empty_batch_has_empty_fits(d: int) -> None:
    fit = fit_logistic(torch.zeros(0, 5, d), torch.zeros(0, 5, dtype=torch.int64), 3, 0.1)
    assert (fit.weights.shape, fit.bias.shape) == ((0, 3, d), (0, 3))
    assert fit.objective.shape == fit.gradient_norm.shape == (0,)
