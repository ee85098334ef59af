"""The smooth calibration error: no bins, and a bandwidth that the data choose."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, require, require_shape
from lib.shapes import Float, Real, Shaped
from lib.temperature_scaling.setting import read_confidence

GRID = 1 << 13  # intervals of the grid on [0, 1]
STEPS = 50
SMALLEST = 5e-4  # bandwidth that the grid resolves


def smooth_calibration_error(
    confidence: Real[Tensor, "*#batch n"] | ArrayLike,
    outcome: Shaped[Tensor, "*#batch n"] | ArrayLike,
    *,
    bandwidth: Real[Tensor, "*#batch"] | ArrayLike | None = None,
) -> Float[Tensor, "*out"]:
    r"""Integral over [0, 1] of the absolute value of the smoothed difference between outcome and confidence.

    $$ \mathrm{smECE}_s=\int_0^1\Big|\frac1n\sum_i(y_i-f_i)\,K_s(t,f_i)\Big|\,dt $$

    with the Gaussian kernel K of standard deviation s, reflected at 0 and 1. In the cosine basis that kernel is
    diagonal with entries $e^{-s^2\pi^2j^2/2}$, so that after cubic interpolation onto a grid every s costs one Fourier
    transform.

    Args:
        confidence: predicted probabilities f, shape (*batch, n).
        outcome: whether it happened, from 0 to 1, shape (*batch, n).
        bandwidth: s, from 0.0005 on; None takes the one at which s equals the error itself, the
            definition of the smooth ECE. Falls with s, so that there is one.

    Returns:
        Shape (*batch,), for the fixed point never below 0.0005.

    Raises:
        ValueError: numbers outside [0, 1], shapes that differ, a bandwidth below 0.0005.

    Source: Blasiok and Nakkiran (ICLR 2024), Smooth ECE, arXiv 2309.12236.

    >>> smooth_calibration_error([0.8, 0.8], [1, 0], bandwidth=0.05).round(decimals=4)
    tensor(0.3000, dtype=torch.float64)
    """
    f, y = read_confidence(confidence, outcome)
    if isinstance(bandwidth, (int, float)) and not SMALLEST <= bandwidth < float("inf"):
        raise ValueError(f"bandwidth: got {bandwidth:.9g}, want a number >= {SMALLEST}")
    if 0 in f.shape:
        return f.sum(-1)  # torch has no Fourier transform of an empty batch
    waves = _cosines(f.double(), y.double())
    frequency = math.pi * torch.arange(GRID + 1, device=f.device, dtype=torch.float64)

    def error(s: Tensor) -> Tensor:
        smooth = waves * (-0.5 * (s.unsqueeze(-1) * frequency) ** 2).exp()
        curve = torch.fft.irfft(smooth.to(torch.complex128), n=2 * GRID).narrow(-1, 0, GRID + 1).abs() * GRID
        ends: Tensor = (curve.select(-1, 0) + curve.select(-1, GRID)) / 2
        area: Tensor = (curve.sum(-1) - ends) / GRID
        return area

    if bandwidth is not None:
        s = as_float("bandwidth", bandwidth, like=waves)
        require_shape("bandwidth", s, s.ndim == 0 or s.shape == f.shape[:-1], f"a number or {tuple(f.shape[:-1])}")
        require("bandwidth", (s >= SMALLEST) & s.isfinite(), f"a number >= {SMALLEST}", s)
        return error(s.expand(f.shape[:-1])).to(f.dtype)
    low = torch.full(f.shape[:-1], SMALLEST, dtype=torch.float64, device=f.device)
    high = torch.ones_like(low)
    for _ in range(STEPS):
        middle = (low + high) / 2
        above = error(middle) > middle
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return ((low + high) / 2).to(f.dtype)


def _cosines(f: Tensor, y: Tensor) -> Tensor:
    """Means of 2 (y - f) cos(j pi f) for j = 0 .. GRID (1 at both ends), after cubic interpolation onto the grid."""
    place = f * GRID
    base = place.floor().clamp(0, GRID - 1)
    u = place - base
    cubic = (
        -u * (u - 1) * (u - 2) / 6,
        (u + 1) * (u - 1) * (u - 2) / 2,
        -(u + 1) * u * (u - 2) / 2,
        (u + 1) * u * (u - 1) / 6,
    )
    mass = torch.zeros(*f.shape[:-1], GRID + 1, dtype=f.dtype, device=f.device)
    weight = (y - f) / f.shape[-1]
    for shift, part in zip((-1, 0, 1, 2), cubic, strict=True):
        index = (base + shift).long().abs()  # beyond an end the cosine is its own mirror image
        index = torch.where(index > GRID, 2 * GRID - index, index)
        mass = mass.scatter_add(-1, index, weight * part)
    inner = mass.narrow(-1, 1, GRID - 1)
    even = torch.cat((2 * mass.narrow(-1, 0, 1), inner, 2 * mass.narrow(-1, GRID, 1), inner.flip(-1)), -1)
    waves: Tensor = torch.fft.rfft(even).real
    return waves
