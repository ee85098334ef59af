"""The smooth calibration error against the sum of its kernels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.temperature_scaling import (
    smooth_calibration_error,
)

from . import oracle
from .cases import predictions


@pytest.mark.parametrize("bandwidth", [0.02, 0.1, 0.5, 2.0])
def test_the_smooth_error_is_the_direct_sum_of_kernels(bandwidth: float, device: str) -> None:
    confidence, outcome = predictions(0, 60)
    got = smooth_calibration_error(
        *(torch.tensor(x, device=device) for x in (confidence, outcome)), bandwidth=bandwidth
    )
    assert got.item() == pytest.approx(oracle.smooth_error_at(confidence, outcome, bandwidth), abs=2e-6)


@pytest.mark.parametrize("bias", [-0.2, 0.0, 0.4])
def test_the_bandwidth_is_the_fixed_point(bias: float) -> None:
    confidence, outcome = predictions(1, 100, bias)
    got = smooth_calibration_error(confidence, outcome).item()
    assert got == pytest.approx(oracle.smooth_error(confidence, outcome), abs=2e-6)
    assert smooth_calibration_error(confidence, outcome, bandwidth=got).item() == pytest.approx(got, abs=1e-6)


def test_the_smooth_error_of_extremes() -> None:
    assert smooth_calibration_error([1.0, 0.0], [0, 1], bandwidth=50.0).item() == pytest.approx(0, abs=1e-9)
    assert smooth_calibration_error([1.0], [0], bandwidth=50.0).item() == pytest.approx(1, abs=1e-6)
    right = smooth_calibration_error([1.0, 0.0, 1.0], [1, 0, 1]).item()
    assert 0 <= right < 2e-3


def test_the_smooth_error_falls_with_the_bandwidth_and_is_a_batch() -> None:
    rng = np.random.default_rng(0)
    confidence, outcome = rng.random((2, 3, 50)), rng.integers(2, size=(2, 3, 50))
    plain = smooth_calibration_error(confidence, outcome)
    assert plain.shape == (2, 3)
    for i in np.ndindex(2, 3):
        alone = smooth_calibration_error(confidence[i], outcome[i]).item()
        assert plain[i].item() == pytest.approx(alone, abs=1e-9)
    sizes = [smooth_calibration_error(confidence[0, 0], outcome[0, 0], bandwidth=s).item() for s in (0.03, 0.1, 0.3)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan])
def test_a_bandwidth_that_is_none_is_named(bandwidth: float) -> None:
    with pytest.raises(ValueError, match=r"^bandwidth: got .*want "):
        smooth_calibration_error([0.5, 0.7], [0, 1], bandwidth=bandwidth)
