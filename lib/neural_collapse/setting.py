"""The front door of the chapter: features, labels, logits and the numbers of a layer, converted and checked."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, read_whole, require, require_finite, require_shape


def read_matrix(name: str, value: Tensor | ArrayLike, like: Tensor, want: str, width: int | None = None) -> Tensor:
    """`value` as finite numbers with at least two axes, the last one of `width` entries if that is given."""
    x = as_float(name, value, like=like)
    fits = x.ndim >= 2 and x.shape[-2] > 0 and x.shape[-1] > 0 and (width is None or x.shape[-1] == width)
    require_shape(name, x, fits, want)
    require_finite(name, x, x.sum(-1))
    return x


def read_labels(labels: Tensor | ArrayLike, rows: int, num_classes: int, device: torch.device) -> Tensor:
    """Class numbers `(n,)` or `(*batch, n)`: whole numbers from 0 to `num_classes - 1`, as int64 on `device`."""
    x = read_whole("labels", labels, device)
    require_shape("labels", x, x.ndim >= 1 and x.shape[-1] == rows, f"(*batch, {rows}), one label a row")
    require("labels", (x >= 0) & (x < num_classes), f"whole numbers from 0 to {num_classes - 1}", x)
    return x


def broadcast(**values: Tensor) -> list[Tensor]:
    """The named tensors in their common shape."""
    batch = broadcast_batch(**{name: x.shape for name, x in values.items()})
    return [x.expand(batch) for x in values.values()]


def carry(root: Tensor, step: Tensor) -> Tensor:
    """`root`, which has no gradient, with that of `step`: Newton's from there at a fixed slope, its value left out."""
    step = torch.where(step.isfinite(), step, torch.zeros_like(step))  # a root out of the dtype's range stays as it is
    return root + (step - step.detach())
