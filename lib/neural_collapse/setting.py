"""The front door of the chapter: features, labels, logits and the numbers of a layer, converted and checked."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, read_whole, require, require_finite, require_shape


def read_finite(name: str, value: Tensor | ArrayLike, like: Tensor) -> Tensor:
    """`value` as a floating tensor of finite numbers."""
    x = as_float(name, value, like=like)
    require(name, x.isfinite(), "a finite number", x)
    return x


def read_positive(name: str, value: Tensor | ArrayLike, like: Tensor) -> Tensor:
    """`value` as a floating tensor of finite numbers above zero."""
    x = as_float(name, value, like=like)
    require(name, (x > 0) & x.isfinite(), "a finite number > 0", x)
    return x


def read_nonnegative(name: str, value: Tensor | ArrayLike, like: Tensor) -> Tensor:
    """`value` as a floating tensor of finite numbers, zero or above."""
    x = as_float(name, value, like=like)
    require(name, (x >= 0) & x.isfinite(), "a finite number >= 0", x)
    return x


def read_count(name: str, value: Tensor | ArrayLike, like: Tensor, least: int) -> Tensor:
    """`value` as a floating tensor of whole numbers, `least` or above."""
    x = as_float(name, value, like=like)
    require(name, (x >= least) & (x == x.round()) & x.isfinite(), f"a whole number >= {least}", x)
    return x


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


def require_classes(num_classes: int) -> None:
    """Raise `ValueError` unless there are at least two classes, for a number that decides a shape."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes: got {num_classes!r}, want a whole number >= 2")


def one_hot(labels: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """One-hot rows `(*batch, n, C)` in the dtype of `like`; unlike torch's own it works inside `torch.func.vmap`."""
    return (labels.unsqueeze(-1) == torch.arange(num_classes, device=labels.device)).to(like.dtype)


def broadcast(**values: Tensor) -> list[Tensor]:
    """The named tensors in their common shape."""
    batch = broadcast_batch(**{name: x.shape for name, x in values.items()})
    return [x.expand(batch) for x in values.values()]
