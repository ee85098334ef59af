"""Generalised cross-validation against explicit inverses and against random features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.rf_regression import gcv_risk, powerlaw_task, rf_risk


def test_it_is_the_train_error_over_the_squared_trace_by_explicit_inverse(device: str) -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(20, 30)), rng.normal(size=(20, 2))
    kernel, ridges = features @ features.T, np.array([1e-6, 0.1, 10.0])
    want = []
    for ridge in ridges:
        inverse = np.linalg.inv(kernel + ridge * np.eye(20))
        residual = targets - kernel @ inverse @ targets
        want.append((residual**2).sum(1).mean() / (ridge / 20 * np.trace(inverse)) ** 2)
    got = gcv_risk(torch.tensor(kernel, device=device), targets, ridges)
    np.testing.assert_allclose(got.cpu(), want, rtol=1e-7)
    single = sum(gcv_risk(kernel, targets[:, c], ridges) for c in range(2))
    np.testing.assert_allclose(single, want, rtol=1e-7)


def test_it_estimates_the_test_error_from_one_gram_matrix_of_random_features() -> None:
    rng = np.random.default_rng(1)
    lam, power = (x.numpy() for x in powerlaw_task(300, 1.2, 1.5))
    ridges, ratios = np.array([0.01, 0.1, 1.0]), []
    for _ in range(40):
        x = rng.normal(size=(150, 300))
        z = x @ (np.sqrt(lam / 300)[:, None] * rng.normal(size=(300, 300)))
        labels = x @ np.sqrt(power) + 0.3 * rng.normal(size=150)
        ratios.append(
            gcv_risk(z @ z.T, labels, ridges).numpy() / rf_risk(lam, power, 150, 300, ridges, 0.09).test.numpy()
        )
    mean, error = np.mean(ratios, 0), np.std(ratios, 0, ddof=1) / math.sqrt(40)
    assert (abs(mean - 1) < 3 * error + 0.02).all()


def test_a_singular_kernel_and_a_tiny_ridge_stay_finite() -> None:
    features = np.random.default_rng(2).normal(size=(20, 3))
    got = gcv_risk(features @ features.T, np.ones(20), [1e-9, 1e-4])
    residual = np.ones(20) - features @ np.linalg.lstsq(features, np.ones(20), rcond=None)[0]
    np.testing.assert_allclose(got, (residual**2).mean() / (17 / 20) ** 2, rtol=1e-3)


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    got = gcv_risk(
        torch.rand(6, 6, device=fake_gpu), torch.rand(6, 2, device=fake_gpu), torch.rand(4, 3, device=fake_gpu)
    )
    assert got.shape == (4, 3)
    assert str(got.device) == fake_gpu
    assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("kernel", "targets", "ridge", "message"),
    [
        ([[1.0, 0.0]], [1.0], 0.1, "kernel: got shape"),
        ([[1.0, 0.0], [0.0, 1.0]], [1.0], 0.1, "targets: got shape"),
        ([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], 0.0, "ridge: got 0"),
        ([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], [1.0, math.nan], "ridge: got nan"),
    ],
)
def test_what_is_wrong_is_named(kernel: list[list[float]], targets: list[float], ridge: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gcv_risk(kernel, targets, ridge)
