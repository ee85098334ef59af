"""How much a binned calibration error varies from one sample to the next, by resampling the one at hand."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, read_size
from lib.shapes import Float, Real, Shaped
from lib.temperature_scaling.calibration import binned_calibration_error
from lib.temperature_scaling.setting import read_confidence

HELD = 1 << 20  # resampled points held at once


def bootstrap_calibration_error(
    confidence: Real[Tensor, "*#batch n"] | ArrayLike,
    outcome: Shaped[Tensor, "*#batch n"] | ArrayLike,
    *,
    replicates: int = 1000,
    n_bins: int = 15,
    bins: str = "width",
    norm: int | str = 1,
    debias: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*out replicates"]:
    r"""Binned calibration errors of samples drawn with replacement from the n given points.

    Their standard deviation estimates the standard error of `binned_calibration_error`. Their mean lies above it where
    the error is small, because resampling adds the noise of the bins once more: read the spread, not the place. All
    rows of a batch are resampled with the same draws, so that differences between models that were tested on the same
    points keep their pairing.

    Args:
        confidence: predicted probabilities, shape (*batch, n).
        outcome: whether it happened, from 0 to 1, shape (*batch, n).
        replicates: how many samples.
        n_bins: number of bins.
        bins: "width" or "mass".
        norm: 1, 2, "max" or "mean".
        debias: as in `binned_calibration_error`.
        generator: source of randomness, on the device of the inputs.

    Returns:
        Shape (*batch, replicates).

    Raises:
        ValueError: as `binned_calibration_error`; fewer than 1 replicate.

    Source: Efron (1979), Bootstrap methods: another look at the jackknife.

    >>> generator = torch.Generator().manual_seed(0)
    >>> confidence = torch.full((400,), 0.75, dtype=torch.float64)
    >>> errors = bootstrap_calibration_error(confidence, torch.arange(400) % 2, generator=generator)
    >>> errors.mean().round(decimals=2), errors.std().round(decimals=3)  # 0.25 and 0.5 / 20
    (tensor(0.2500, dtype=torch.float64), tensor(0.0250, dtype=torch.float64))
    """
    f, y = read_confidence(confidence, outcome)
    read_size("replicates", replicates, 1)
    n = f.shape[-1]
    at_once = max(1, HELD // max(1, f.numel()))
    found = []
    for start in range(0, replicates, at_once):
        count = min(at_once, replicates - start)
        drawn = torch.randint(n, (count, n), device=f.device, generator=generator)
        sample = [x.index_select(-1, drawn.flatten()).unflatten(-1, (count, n)) for x in (f, y)]
        found.append(binned_calibration_error(*sample, n_bins=n_bins, bins=bins, norm=norm, debias=debias))
    return torch.cat(found, -1)
