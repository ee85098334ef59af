"""The double-descent peak against the full risk."""

from __future__ import annotations

import math

import pytest
import torch

from lib.rf_regression import double_descent_peak, powerlaw_task, rf_risk


@pytest.mark.parametrize("n", [64, 256])
def test_the_risk_tends_to_the_peak_with_the_root_of_the_ridge(n: int, device: str) -> None:
    lam, power = (x.to(device) for x in powerlaw_task(2000, 1.5, 1.5))
    ridge = torch.tensor([1e-6, 1e-8, 1e-10], dtype=torch.float64)
    error = (rf_risk(lam, power, n, n, ridge, 0.2).test / double_descent_peak(lam, power, n, ridge, 0.2) - 1).cpu()
    assert (error.abs() < 1e-2).all()
    torch.testing.assert_close(error[:-1] / error[1:], torch.full((2,), 10.0, dtype=torch.float64), rtol=0.05, atol=0)


def test_it_broadcasts_and_runs_on_an_accelerator(fake_gpu: str) -> None:
    got = double_descent_peak(
        torch.rand(4, 1, 30, device=fake_gpu), torch.rand(30, device=fake_gpu), 5, torch.rand(3, device=fake_gpu)
    )
    assert got.shape == (4, 3)
    assert str(got.device) == fake_gpu
    assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": 0.0}, "ridge: got 0"),
        ({"ridge": math.nan}, "ridge: got nan"),
        ({"n": 2}, "n: got 2, want fewer"),
        ({"n": math.inf}, "infinite"),
        ({"noise_variance": -1.0}, "noise_variance: got -1"),
        ({"target_power": [1.0]}, "target_power: got shape"),
        ({"eigenvalues": [0.0, 0.0]}, "eigenvalues: got 0"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {
        "eigenvalues": [1.0, 0.5],
        "target_power": [1.0, 1.0],
        "n": 1,
        "ridge": 0.1,
        "noise_variance": 0.1,
    } | change
    with pytest.raises(ValueError, match=message):
        double_descent_peak(**arguments)  # type: ignore[arg-type]
