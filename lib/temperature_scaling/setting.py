"""The front door of the chapter: logits, labels, probabilities, confidences and temperatures, converted and checked."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    broadcast_batch,
    read_size,
    read_whole,
    require,
    require_finite,
    require_shape,
)

SUM_TOLERANCE = 1e-4  # how far the sum of a row of probabilities may lie from one


def read_number(name: str, value: Tensor | ArrayLike, like: Tensor, low: float, high: float, want: str) -> Tensor:
    """`value` in the kind of `like`, every entry from `low` to `high`; Python numbers are checked on any device."""
    if isinstance(value, (int, float)) and not low <= value <= high:
        raise ValueError(f"{name}: got {value:.9g}, want {want}")
    x = as_float(name, value, like=like)
    require(name, (x >= low) & (x <= high), want, x)
    return x


def read_classes(name: str, value: Tensor | ArrayLike, n_classes: int, rows: int, like: Tensor) -> Tensor:
    """Labels in [0, n_classes), one for each of the rows, shape `(*batch, rows)`."""
    x = read_whole(name, value, like.device)
    require_shape(name, x, x.ndim >= 1 and x.shape[-1] == rows, f"(*batch, {rows}), a label for every row")
    require(name, (x >= 0) & (x < n_classes), f"whole numbers from 0 to {n_classes - 1}", x)
    return x


def read_logits(logits: Tensor | ArrayLike, look: bool = True) -> Tensor:
    """Logits `(*batch, n, k)` of finite numbers, at least one row and two classes.

    With `look` False the caller sums them, while they are in the cache anyway, and calls `require_finite`.
    """
    x = as_float("logits", logits)
    fits = x.ndim >= 2 and x.shape[-1] >= 2 and x.shape[-2] >= 1
    require_shape("logits", x, fits, "(*batch, n, k) with n >= 1 and k >= 2")
    if look:
        require_finite("logits", x, x.sum(-1))
    return x


def read_labelled(logits: Tensor | ArrayLike, labels: Tensor | ArrayLike, look: bool = True) -> tuple[Tensor, Tensor]:
    """Logits `(*batch, n, k)` and labels `(*batch, n)` of one common batch shape; `look` as in `read_logits`."""
    z = read_logits(logits, look)
    y = read_classes("labels", labels, z.shape[-1], z.shape[-2], z)
    batch = broadcast_batch(logits=z.shape[:-2], labels=y.shape[:-1])
    return z.expand(*batch, *z.shape[-2:]), y.expand(*batch, z.shape[-2])


def read_probs(name: str, probs: Tensor | ArrayLike, like: Tensor | None = None) -> Tensor:
    """Probabilities `(*batch, n, k)` whose rows sum to one."""
    x = as_float(name, probs, like=like)
    require_shape(name, x, x.ndim >= 2 and x.shape[-1] >= 2 and x.shape[-2] >= 1, "(*batch, n, k) with k >= 2")
    require(name, (x >= 0) & (x <= 1 + SUM_TOLERANCE), "probabilities from 0 to 1", x)
    total = x.sum(-1)
    require(name, (total - 1).abs() <= SUM_TOLERANCE, "rows that sum to 1", total)
    return x


def read_confidence(confidence: Tensor | ArrayLike, outcome: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    """Confidences and outcomes `(*batch, n)`, both in [0, 1]; truth values count as 0 and 1."""
    x = as_float("confidence", confidence)
    require_shape("confidence", x, x.ndim >= 1 and x.shape[-1] >= 1, "(*batch, n) with n >= 1")
    _require_shares("confidence", x)
    truths = isinstance(outcome, Tensor) and outcome.dtype == torch.bool
    y = outcome.to(x) if isinstance(outcome, Tensor) and truths else as_float("outcome", outcome, like=x)
    fits = y.ndim >= 1 and y.shape[-1] == x.shape[-1]
    require_shape("outcome", y, fits, f"(*batch, {x.shape[-1]}), an outcome for every confidence")
    if not truths:
        _require_shares("outcome", y)
    batch = broadcast_batch(confidence=x.shape[:-1], outcome=y.shape[:-1])
    return x.expand(*batch, -1), y.expand(*batch, -1)


def _require_shares(name: str, x: Tensor) -> None:
    """Raise unless all entries lie in [0, 1]; NaN does not."""
    for extreme in (x.amin(-1), x.amax(-1)):
        require(name, (extreme >= 0) & (extreme <= 1), "numbers from 0 to 1", extreme)


def read_temperature(temperature: Tensor | ArrayLike, logits: Tensor) -> Tensor:
    """Positive temperatures `(*batch, 1, 1)` that broadcast against logits `(*batch, n, k)`."""
    if isinstance(temperature, (int, float)) and not 0 < temperature < float("inf"):
        raise ValueError(f"temperature: got {temperature:.9g}, want a positive number")
    x = as_float("temperature", temperature, like=logits)
    batch = tuple(logits.shape[:-2])
    require_shape("temperature", x, x.ndim == 0 or tuple(x.shape) == batch, f"a number or one for each of {batch}")
    require("temperature", (x > 0) & x.isfinite(), "a positive number", x)
    return x.reshape(*x.shape, 1, 1) if x.ndim else x


def require_bins(n_bins: int, bins: str) -> None:
    """Raise unless there is at least one bin, of a known kind."""
    read_size("n_bins", n_bins, 1)
    if bins not in ("width", "mass"):
        raise ValueError(f"bins: got {bins!r}, want 'width' or 'mass'")
