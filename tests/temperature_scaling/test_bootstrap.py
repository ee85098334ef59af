"""Bootstrap replicates against a loop over samples, and against the spread of fresh samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.temperature_scaling import binned_calibration_error, bootstrap_calibration_error

from . import oracle
from .cases import predictions


@pytest.mark.parametrize(
    "options", [{}, {"bins": "mass"}, {"norm": 2, "debias": True}, {"norm": "max", "n_bins": 4}], ids=str
)
def test_replicates_are_errors_of_samples_with_replacement(options: dict[str, object], device: str) -> None:
    confidence, outcome = predictions(0, 300)
    pair = (torch.tensor(x, device=device) for x in (confidence, outcome))
    source = torch.Generator(device=device).manual_seed(0)
    got = bootstrap_calibration_error(*pair, replicates=400, generator=source, **options)  # type: ignore[arg-type]
    assert got.shape == (400,)
    rng = np.random.default_rng(0)
    samples = [rng.integers(300, size=300) for _ in range(400)]
    want = np.array([oracle.binned_error(confidence[i], outcome[i], **options) for i in samples])  # type: ignore[arg-type]
    mine = got.cpu().numpy()
    assert abs(mine.mean() - want.mean()) < 5 * math.sqrt((mine.var() + want.var()) / 400)
    assert mine.std() == pytest.approx(want.std(), rel=0.2)  # five standard errors of the ratio of two spreads


def test_the_spread_is_that_of_fresh_samples() -> None:
    fresh = [binned_calibration_error(*predictions(seed, 500, 0.3)).item() for seed in range(400)]
    spreads = [
        bootstrap_calibration_error(*predictions(seed, 500, 0.3), replicates=200).std().item() for seed in range(20)
    ]
    assert float(np.mean(spreads)) == pytest.approx(float(np.std(fresh)), rel=0.2)


def test_the_mean_lies_above_a_small_error() -> None:
    confidence, outcome = predictions(0, 500, 0.0)
    replicates = bootstrap_calibration_error(confidence, outcome)
    assert replicates.shape == (1000,)
    assert replicates.mean() > 1.2 * binned_calibration_error(confidence, outcome)


def test_rows_of_a_batch_share_their_draws_and_a_seed_repeats_them() -> None:
    confidence, outcome = predictions(1, 100)
    both = np.stack([confidence, confidence, confidence[::-1]])
    first, second = (
        bootstrap_calibration_error(both, outcome, replicates=50, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert first.shape == (3, 50)
    assert torch.equal(first, second)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    alone = bootstrap_calibration_error(confidence, outcome, replicates=50, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(alone, first[0])


def test_many_points_are_resampled_piece_by_piece() -> None:
    confidence = torch.full((600_000,), 0.7)
    outcome = torch.arange(600_000) % 10 < 6
    got = bootstrap_calibration_error(confidence, outcome, replicates=5)
    assert (got.shape, got.dtype) == ((5,), torch.float32)
    assert bool(((got - 0.1).abs() < 6 * math.sqrt(0.24 / 600_000)).all())
    assert got.unique().numel() > 1
    assert bootstrap_calibration_error([0.5], [1], replicates=3).tolist() == [0.5] * 3


def test_replicates_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    x = torch.empty(2, 30, device=fake_gpu)
    got = bootstrap_calibration_error(x, x, replicates=7)
    assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2, 7))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"replicates": 0}, "replicates"),
        ({"n_bins": 0}, "n_bins"),
        ({"bins": "equal"}, "bins"),
        ({"norm": 3}, "norm"),
        ({"debias": True}, "debias"),
        ({"confidence": [0.5, 1.5]}, "confidence"),
        ({"outcome": [0, 1, 1]}, "outcome"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        bootstrap_calibration_error(**{"confidence": [0.5, 0.7], "outcome": [0, 1]} | change)  # type: ignore[arg-type]
