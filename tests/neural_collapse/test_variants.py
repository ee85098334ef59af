"""Gaps of smoothed labels and of the squared error against descent on the whole problem."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, special

from lib.neural_collapse import smoothed_gap, squared_loss_gap, ufm_optimum

SETTINGS = [(6, 5, 5e-3, 5e-4), (4, 8, 1e-2, 3e-3), (2, 3, 0.05, 0.02)]


def gap_by_descent(setting: tuple[int, int, float, float], smoothing: float | None, bias: bool = False) -> float:
    """Mean gap of the logits at the end of L-BFGS from a random start; the squared error where smoothing is None."""
    classes, per_class, lambda_w, lambda_h = setting
    labels = np.repeat(np.arange(classes), per_class)
    count, dim = len(labels), classes + 1
    target = np.eye(classes)[labels] * (1 - (smoothing or 0)) + (smoothing or 0) / classes

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        b, rest = flat[:classes] * bias, flat[classes:].reshape(-1, dim)
        W, H = np.split(rest, [classes])
        logits = H @ W.T + b
        if smoothing is None:
            R = (logits - target) / count
            loss = ((logits - target) ** 2).sum() / 2 / count
        else:
            R = (special.softmax(logits, -1) - target) / count
            loss = (special.logsumexp(logits, -1) - (target * logits).sum(-1)).mean()
        loss += lambda_w / 2 * (W**2).sum() + lambda_h / 2 * (H**2).sum()
        slopes = np.concatenate([R.T @ H + lambda_w * W, R @ W + lambda_h * H]).ravel()
        return loss, np.concatenate([R.sum(0) * bias, slopes])

    start = np.random.default_rng(0).normal(size=classes + (classes + count) * dim) * 0.3
    for _ in range(3):
        options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-12, "maxcor": 30}
        start = optimize.minimize(value, start, jac=True, method="L-BFGS-B", options=options).x
    W, H = np.split(start[classes:].reshape(-1, dim), [classes])
    logits = H @ W.T + start[:classes] * bias
    true = logits[np.arange(count), labels]
    gaps = true - (logits.sum(-1) - true) / (classes - 1)
    assert np.ptp(gaps) < 1e-4
    return float(gaps.mean())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_gaps_are_those_of_descent(setting: tuple[int, int, float, float], smoothing: float) -> None:
    want = gap_by_descent(setting, smoothing)
    assert smoothed_gap(*setting, smoothing).item() == pytest.approx(want, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("bias", [False, True])
def test_squared_loss_gaps_are_those_of_descent(setting: tuple[int, int, float, float], bias: bool) -> None:
    want = gap_by_descent(setting, None, bias)
    assert squared_loss_gap(*setting).item() == pytest.approx(want, rel=1e-5, abs=1e-6)


def test_no_smoothing_is_the_plain_optimum_and_full_smoothing_leaves_nothing() -> None:
    for setting in SETTINGS:
        torch.testing.assert_close(smoothed_gap(*setting, 0.0), ufm_optimum(*setting).gap)
        assert smoothed_gap(*setting, 1.0) == 0
    assert squared_loss_gap(5, 4, 0.11, 0.11) == 0


def test_arguments_broadcast_and_equal_a_loop() -> None:
    got = smoothed_gap([[2], [10]], 5, 5e-3, [1e-3, 1e-2, 1.0], 0.1)
    squares = squared_loss_gap([[2], [10]], 5, 5e-3, [1e-3, 1e-2, 1.0])
    assert got.shape == squares.shape == (2, 3)
    for i, classes in enumerate((2, 10)):
        for j, decay in enumerate((1e-3, 1e-2, 1.0)):
            torch.testing.assert_close(got[i, j], smoothed_gap(classes, 5, 5e-3, decay, 0.1))
            torch.testing.assert_close(squares[i, j], squared_loss_gap(classes, 5, 5e-3, decay))


def test_single_precision_is_kept_and_numbers_become_float64() -> None:
    decay = torch.tensor([1e-3, 1e-2])
    for low, high in (
        (smoothed_gap(10, 5, decay, 1e-3, 0.1), smoothed_gap(10, 5, decay.double(), 1e-3, 0.1)),
        (squared_loss_gap(10, 5, decay, 1e-3), squared_loss_gap(10, 5, decay.double(), 1e-3)),
    ):
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=1e-6)
    assert {smoothed_gap(2, 1, 1, 1, 1).dtype, squared_loss_gap(2, 1, 1, 1).dtype} == {torch.float64}


def test_they_are_differentiable() -> None:
    decays = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (5e-3, 5e-4, 0.1)]
    assert torch.autograd.gradcheck(lambda w, h, e: smoothed_gap(10, 5, w, h, e), decays)
    assert torch.autograd.gradcheck(lambda w, h: squared_loss_gap(10, 5, w, h), decays[:2])


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    decay = torch.rand(3, device=fake_gpu)
    for got in (smoothed_gap(10, 5, decay, 1e-3, 0.1), squared_loss_gap(10, 5, decay, 1e-3)):
        assert (str(got.device), got.shape, got.dtype) == (fake_gpu, (3,), torch.float32)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_classes": 1}, "num_classes: got 1, want"),
    ({"samples_per_class": 0}, "samples_per_class: got 0, want"),
    ({"lambda_w": 0.0}, "lambda_w: got 0, want"),
    ({"lambda_h": math.nan}, "lambda_h: got nan, want"),
]
FINE: dict[str, Any] = {"num_classes": 10, "samples_per_class": 5, "lambda_w": 1e-3, "lambda_h": 1e-3}


@pytest.mark.parametrize(
    ("change", "message"),
    [*WRONG, ({"smoothing": -0.1}, "smoothing: got -0.1, want"), ({"smoothing": 1.1}, "smoothing: got 1.1, want")],
)
def test_what_is_wrong_with_smoothing_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smoothed_gap(**(FINE | {"smoothing": 0.1} | change))


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_is_wrong_with_a_squared_loss_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        squared_loss_gap(**(FINE | change))
