"""The front door of the chapter: features, labels, logits and the numbers of a layer, converted and checked."""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_shape


def shared_kind(*values: object) -> Tensor:
    """An empty tensor with the device and the dtype that the given tensors ask for (float64 on the CPU by default)."""
    tensors = [x for x in values if isinstance(x, Tensor)]
    dtypes = [x.dtype for x in tensors if x.is_floating_point()]
    dtype = reduce(torch.promote_types, dtypes) if dtypes else torch.float64
    return torch.empty(0, dtype=dtype, device=tensors[0].device if tensors else None)


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


def require_finite(name: str, x: Tensor, sums: Tensor) -> None:
    """Raise `ValueError` unless all entries are finite; they are looked at only where one of their `sums` is not."""
    finite = sums.isfinite()
    if finite.device.type == "cpu":
        try:
            if bool(finite.all()):
                return
        except RuntimeError:  # inside torch.func.vmap a value cannot be read
            return
    require(name, x.isfinite(), "finite numbers", x)


def read_labels(labels: Tensor | ArrayLike, rows: int, num_classes: int, device: torch.device) -> Tensor:
    """Class numbers `(n,)` or `(*batch, n)`: whole numbers from 0 to `num_classes - 1`, as int64 on `device`."""
    try:
        x = labels if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
    except (TypeError, ValueError) as error:
        raise ValueError(f"labels: got {type(labels).__name__}, want whole numbers") from error
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"labels: got {x.dtype}, want whole numbers")
    require_shape("labels", x, x.ndim >= 1 and x.shape[-1] == rows, f"(*batch, {rows}), one label a row")
    x = x.to(device=device, dtype=torch.int64)
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
