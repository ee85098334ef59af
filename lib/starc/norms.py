"""Norms of rewards on transitions, and the standardised reward."""

from __future__ import annotations

import math
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["range"] | int | float
WANTED = "1, 2, inf or 'range'"


def read_norm(name: str, norm: object) -> Norm:
    """One of 1, 2, infinity and "range"."""
    if isinstance(norm, str) and norm == "range":
        return "range"
    if isinstance(norm, Real) and not isinstance(norm, bool) and norm in (1, 2, math.inf):
        return float(norm)
    raise ValueError(f"{name}: got {norm!r}, want {WANTED}")


def weighted_norm(x: Tensor, weights: Tensor | None, order: int | float) -> Tensor:
    r"""$(\sum\omega|x|^p)^{1/p}$ over the last three axes, for $p=\infty$ the largest $\omega|x|$."""
    if weights is not None:
        x = x * (_root(weights) if order == 2 else weights)
    largest = x.detach().abs().amax((-3, -2, -1), keepdim=True)
    unit = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))  # squares stay in range
    size: Tensor = torch.linalg.vector_norm(x / unit, order, dim=(-3, -2, -1)) * unit[..., 0, 0, 0]
    return size


def standardised(x: Tensor, size: Tensor, limit: Tensor) -> Tensor:
    """`x` divided by its norm `size`, and zero where that is at most `limit`."""
    trivial = size <= limit
    factor = torch.where(trivial, 0, 1 / torch.where(trivial, 1, size))
    return x * factor[..., None, None, None]


def _root(weights: Tensor) -> Tensor:
    """The square root, with derivative 0 instead of infinity where a weight is 0."""
    positive = weights > 0
    return torch.where(positive, torch.where(positive, weights, torch.ones_like(weights)).sqrt(), 0)
