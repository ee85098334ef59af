"""The front door of every public function: convert what came in, name what is wrong with it.

Shapes are checked always: they cost nothing. Values are checked where reading them costs no host synchronisation, that
is for data on the CPU; on an accelerator a bad value shows as NaN or in a residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

ArrayLike = np.ndarray | np.generic | Sequence[Any] | float | int  # what numpy turns into numbers, besides a Tensor

DEVICES = ("auto", "cpu", "cuda")


def shared_kind(*values: object) -> Tensor:
    """An empty tensor with the device and the dtype that the given tensors ask for (float64 on the CPU by default).

    Tensors with axes decide; a lone number in a tensor of single precision does not take digits from arrays and lists.
    """
    tensors = sorted((x for x in values if isinstance(x, Tensor)), key=lambda x: x.ndim == 0)
    floating = [x for x in tensors if x.is_floating_point()]
    dtypes = [x.dtype for x in floating]
    if not any(x.ndim for x in floating) and any(isinstance(x, (np.ndarray, Sequence)) for x in values):
        dtypes.append(torch.float64)
    dtype = reduce(torch.promote_types, dtypes) if dtypes else torch.float64
    return torch.empty(0, dtype=dtype, device=tensors[0].device if tensors else None)


def as_float(name: str, value: Tensor | ArrayLike, like: Tensor | None = None) -> Tensor:
    """`value` as a floating tensor, on the device and in the dtype of `like` if it is given.

    Everything that is not a tensor becomes float64 by way of numpy: `torch.as_tensor(0.2)` is float32 and costs nine
    digits. A tensor of integers becomes float64 too, a floating tensor keeps its dtype.

    Raises:
        ValueError: `value` is not made of real numbers.

    >>> as_float("ridge", [0.1, 1]).dtype
    torch.float64
    """
    if isinstance(value, Tensor):
        if value.is_complex():
            raise ValueError(f"{name}: got a complex tensor, want real numbers")
        x = value if value.is_floating_point() else value.double()
    else:
        try:
            if isinstance(value, (int, float)) and like is not None:
                return torch.full((), float(value), dtype=like.dtype, device=like.device)
            array = np.array(value)
            if array.dtype.kind in "SUMmc" or (
                array.dtype == object and None in array.flat
            ):  # numpy would read the text "3" as a number, and so a date
                raise TypeError(f"{array.dtype} holds no numbers")
            x = torch.from_numpy(array.astype(np.float64))
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{name}: got {_describe(value)}, want real numbers") from error
    return x if like is None else x.to(like)


def as_whole(name: str, value: Tensor | ArrayLike) -> Tensor:
    """`value`, a row of whole numbers such as class labels, as an int64 tensor of shape (count,).

    Raises:
        ValueError: it has another number of axes, no entry, or holds something else than whole numbers.

    >>> as_whole("labels", [0, 2, 1])
    tensor([0, 2, 1])
    """
    x = read_whole(name, value)
    require_shape(name, x, x.ndim == 1 and x.shape[0] > 0, "(count,) with count >= 1")
    return x


def read_whole(name: str, value: Tensor | ArrayLike, device: torch.device | None = None) -> Tensor:
    """`value` as int64 numbers of any shape, on `device` if it is given; floats and booleans are refused."""
    try:
        x = value if isinstance(value, Tensor) else through_numpy(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {_describe(value)}, want whole numbers") from error
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{name}: got {x.dtype}, want whole numbers")
    return x.to(device=device, dtype=torch.int64)


def through_numpy(value: ArrayLike) -> Tensor:
    """A copy of `value` as numpy reads it, in this machine's order of bytes: files may hold the other one."""
    array = np.array(value)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def read_size(name: str, value: object, least: int) -> int:
    """A single whole number of at least `least`, one of numpy's too: a number of classes, steps or bins."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}: got {value!r}, want a whole number >= {least}")
    return int(value)


def read_single(name: str, value: object, want: str) -> float:
    """A single number as Python's: one of numpy's, or a tensor or array without axes, whose reading waits for an
    accelerator and carries no derivative; a truth value is refused.
    """
    number = value.item() if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 else value
    if isinstance(number, bool) or not isinstance(number, Real):
        raise ValueError(f"{name}: got {number!r}, want {want}")
    return float(number)


def read_count(name: str, value: Tensor | ArrayLike, like: Tensor, least: int) -> Tensor:
    """`value` as whole numbers of at least `least`, kept as floating numbers in the kind of `like`."""
    if isinstance(value, bool):
        raise ValueError(f"{name}: got {value}, want a whole number >= {least}")
    x = as_float(name, value, like=like)
    require(name, (x >= least) & (x == x.round()) & x.isfinite(), f"a whole number >= {least}", x)
    return x


def read_finite(name: str, value: Tensor | ArrayLike, like: Tensor | None = None) -> Tensor:
    """`value` as a floating tensor of finite numbers."""
    x = as_float(name, value, like=like)
    require(name, x.isfinite(), "a finite number", x)
    return x


def read_positive(name: str, value: Tensor | ArrayLike, like: Tensor | None = None) -> Tensor:
    """`value` as a floating tensor of finite numbers above zero."""
    x = as_float(name, value, like=like)
    require_positive(name, x)
    return x


def read_nonnegative(name: str, value: Tensor | ArrayLike, like: Tensor | None = None) -> Tensor:
    """`value` as a floating tensor of finite numbers, zero or above."""
    x = as_float(name, value, like=like)
    require_nonnegative(name, x)
    return x


def indicator(numbers: Tensor, count: int, like: Tensor) -> Tensor:
    """One-hot rows `(*batch, count)` in the dtype of `like`; unlike torch's own it works inside `torch.func.vmap`."""
    return (numbers.unsqueeze(-1) == torch.arange(count, device=numbers.device)).to(like.dtype)


def _describe(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def may_hold(condition: Tensor, unread: bool = True) -> bool:
    """False if `condition` was read and fails somewhere; what is on an accelerator or inside `torch.func.vmap` is
    not read, and may hold.
    """
    if condition.device.type != "cpu":
        return unread
    try:
        return bool(condition.all())
    except RuntimeError:  # inside torch.func.vmap a value cannot be read
        return unread


def is_known(condition: Tensor) -> bool:
    """True if `condition` was read and holds everywhere: what is not read is not known."""
    return may_hold(condition, unread=False)


def require(name: str, holds: Tensor, want: str, got: Tensor) -> None:
    """Raise if `holds` fails anywhere. Reads the data, so tensors on an accelerator pass unread.

    Raises:
        ValueError: names the argument, the first offending value, and what was wanted.
    """
    if not may_hold(holds):
        worst = got.expand_as(holds)[~holds].flatten()[0]
        raise ValueError(f"{name}: got {worst.item():.9g}, want {want}")


def require_finite(name: str, x: Tensor, sums: Tensor | None = None) -> None:
    """Raise `ValueError` unless all entries are finite; `sums` are any that contain them all, if at hand."""
    finite = (x.sum(-1) if sums is None else sums).isfinite()  # the entries are looked at only where a sum is not
    if not may_hold(finite):
        require(name, x.isfinite(), "finite numbers", x)


def require_positive(name: str, x: Tensor, *, finite: bool = True) -> None:
    """Raise `ValueError` unless every entry is above zero (and finite, unless infinity is welcome)."""
    require(name, (x > 0) & x.isfinite() if finite else x > 0, "a positive number" if finite else "> 0", x)


def require_nonnegative(name: str, x: Tensor) -> None:
    """Raise `ValueError` unless every entry is a finite number that is zero or above."""
    require(name, (x >= 0) & x.isfinite(), "a finite number >= 0", x)


def require_shape(name: str, x: Tensor, holds: bool, want: str) -> None:
    """Raise `ValueError` naming argument, shape got and shape wanted unless `holds`."""
    if not holds:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, want {want}")


def broadcast_batch(**shapes: torch.Size | tuple[int, ...]) -> torch.Size:
    """The common shape of the named batch shapes.

    Raises:
        ValueError: they do not broadcast; the message lists every name with its shape.

    >>> broadcast_batch(n=(3, 1), ridge=(4,))
    torch.Size([3, 4])
    """
    try:
        return torch.Size(torch.broadcast_shapes(*shapes.values()))
    except RuntimeError as error:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"{listed}: got shapes that do not broadcast, want one common batch shape") from error


def as_device(device: str | torch.device) -> torch.device:
    """The torch device for `"auto"` (CUDA where there is one), `"cpu"` or `"cuda"`.

    Raises:
        ValueError: another name, or CUDA on a machine that has none.

    >>> as_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, torch.device):
        return device
    if device not in DEVICES:
        raise ValueError(f"device: got {device!r}, want one of {', '.join(map(repr, DEVICES))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', want 'cpu' or 'auto': this machine has no usable CUDA device")
    return torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")
