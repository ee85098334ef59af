"""The front door of the chapter: weights, inputs, moments and the numbers of the model, converted and checked."""

from __future__ import annotations

import warnings

from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    may_hold,
    require_finite,
    require_shape,
)


def read_matrix(
    name: str, value: Tensor | ArrayLike, like: Tensor, want: str, rows: int | None = None, columns: int | None = None
) -> Tensor:
    """`value` as finite numbers with two last axes, of the given sizes where these are given."""
    x = as_float(name, value, like=like)
    fits = x.ndim >= 2 and x.shape[-2] >= 1 and x.shape[-1] >= 1
    fits = fits and rows in (None, x.shape[-2]) and columns in (None, x.shape[-1])
    require_shape(name, x, fits, want)
    require_finite(name, x)
    return x


def read_vector(name: str, value: Tensor | ArrayLike, like: Tensor, want: str, size: int | None = None) -> Tensor:
    """`value` as finite numbers with one last axis, of the given size if that is given."""
    x = as_float(name, value, like=like)
    require_shape(name, x, x.ndim >= 1 and x.shape[-1] >= 1 and size in (None, x.shape[-1]), want)
    require_finite(name, x)
    return x


def warn_of_step(rate: Tensor, threshold: Tensor) -> None:
    """Warn of a step size at which a linear mode of the start grows; reads data, so only on the CPU."""
    if not may_hold(rate < threshold):
        worst = threshold.min().item()
        warnings.warn(
            f"lr: got a step size beyond the stability threshold {worst:.4g}; the run will diverge", RuntimeWarning, 3
        )


__all__ = ["read_matrix", "read_vector", "warn_of_step"]
