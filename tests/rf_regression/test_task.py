"""Power-law tasks and their tails."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch

from lib.rf_regression import powerlaw_tail, powerlaw_task


def test_a_task_is_two_power_laws_from_one(device: str) -> None:
    lam, power = powerlaw_task(1000, 1.5, 1.2, device=device)
    index = np.arange(1, 1001.0)
    np.testing.assert_allclose(lam.cpu(), index**-1.5, rtol=1e-14)
    np.testing.assert_allclose(power.cpu(), index**-1.2, rtol=1e-14)
    assert lam.dtype == torch.float64
    assert str(lam.device).startswith(device)
    assert powerlaw_task(3, 2, 2, dtype=torch.float32)[1].dtype == torch.float32


@pytest.mark.parametrize(("alpha", "beta"), [(1.05, 1.1), (1.5, 2.5), (3.0, 1.5)])
def test_the_tail_is_what_the_zeta_function_leaves(alpha: float, beta: float) -> None:
    trace, power = powerlaw_tail([10, 1000], alpha, beta)
    for got, exponent in ((trace, alpha), (power, beta)):
        for value, modes in zip(got.tolist(), (10, 1000), strict=True):
            error = value / float(mp.zeta(exponent, modes + 1)) - 1  # of the midpoint rule, to leading order:
            assert error == pytest.approx(exponent * (exponent - 1) / 24 / (modes + 0.5) ** 2, rel=0.02)


def test_a_task_can_be_made_on_an_accelerator(fake_gpu: str) -> None:
    lam, power = powerlaw_task(7, 1.5, 1.5, dtype=torch.float32, device=fake_gpu)
    assert {str(lam.device), str(power.device)} == {fake_gpu}
    assert lam.dtype == torch.float32
    trace, _ = powerlaw_tail(100, torch.rand(3, device=fake_gpu), 1.5)
    assert str(trace.device) == fake_gpu


def test_whole_numbers_cannot_hold_a_task() -> None:
    with pytest.raises(ValueError, match=r"dtype: got torch\.int64, want a floating one"):
        powerlaw_task(5, 1.5, 1.5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("modes", "alpha", "beta", "message"),
    [
        (0, 1.5, 1.5, "num_modes: got 0"),
        (5, 1.0, 1.5, "alpha: got 1"),
        (5, 1.5, 0.9, "beta: got 0.9"),
        (5, 1.5, 4.0, "beta: got 4"),
    ],
)
def test_what_is_wrong_is_named(modes: int, alpha: float, beta: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        powerlaw_task(modes, alpha, beta)
