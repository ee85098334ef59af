"""What a call does that no busy machine changes: operators, arithmetic, bytes, and how long they must take at least.

A dispatch mode of torch sees each operator that a call runs, those of a backward pass and inside `vmap` too. What
operators allocate for themselves while they run is not seen, nor what numpy does.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, shape_wrapper

CURVED = (  # operators that evaluate an elementary function for each element
    "exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "logaddexp", "sigmoid", "log_sigmoid_forward", "tanh",
    "softplus", "_softmax", "_log_softmax", "erf", "erfc", "erfinv", "log_ndtr", "special_ndtri", "sin", "cos", "atan2",
    "acos", "special_log_ndtr", "special_erfcx", "gelu", "lgamma",
)  # fmt: skip


def _solve(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    n, right = a[-1], 1 if len(b) == len(a) - 1 else b[-1]
    return round(math.prod(a[:-2]) * (2 / 3 * n**3 + 2 * n**2 * right))


def _factor(share: float) -> Callable[..., int]:
    return lambda a, *_, **__: round(math.prod(a[:-2]) * share * min(a[-2:]) ** 2 * max(a[-2:]))


aten = torch.ops.aten
FLOPS: dict[Any, Callable[..., int]] = {  # of shapes; torch knows those of products, the rest are textbook counts
    aten._linalg_solve_ex: _solve,
    aten.linalg_lu_factor_ex: _factor(2 / 3),
    aten.linalg_cholesky_ex: _factor(1 / 3),
    aten._linalg_eigh: _factor(9),
    aten._linalg_svd: _factor(21),
    aten.linalg_qr: _factor(2),
    aten.linalg_lu_solve: lambda _lu, _pivots, b, *_, **__: 2 * b[-2] * math.prod(b),
    aten.cholesky_solve: lambda b, _a, *_, **__: 2 * b[-2] * math.prod(b),
    aten.linalg_solve_triangular: lambda _a, b, *_, **__: b[-2] * math.prod(b),
}


FLOPS_OF = flop_registry | {operator: shape_wrapper(flops) for operator, flops in FLOPS.items()}


@dataclass(frozen=True)
class Counts:
    """What one call does."""

    operators: int  # dispatched, those that only change the view of a tensor included
    views: int  # of these, those that only do that
    flops64: int  # of matrix products, factorisations and solves
    flops32: int
    curved64: int  # elements of which an exponential or the like is taken
    curved32: int
    least: int  # bytes that have to move: tensors read from outside, and the result
    moved: int  # bytes that the operators read and write one after the other
    peak: int  # bytes that tensors hold at most, besides those from outside


class Counter(TorchDispatchMode):
    """Adds up what is dispatched while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = self.views = self.moved = self.held = self.peak = 0
        self.flops, self.curved = {64: 0, 32: 0}, {64: 0, 32: 0}
        self._made: dict[int, weakref.ref[Any]] = {}
        self._outside: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and note it; torch calls it."""
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.operators += 1
        if not all(hasattr(x, "untyped_storage") and x.layout == torch.strided for x in given + made):
            return out
        view = bool(func.is_view) or func.overloadpacket in (aten.detach, aten._unsafe_view, aten.lift_fresh)
        self.views += view
        bits = 32 if any(x.dtype == torch.float32 for x in made) else 64
        if not view:
            self.moved += sum(map(_bytes, given + made))
        if func.overloadpacket.__name__.rstrip("_") in CURVED:
            self.curved[bits] += max(_elements(x) for x in given + made)
        if func.overloadpacket in FLOPS_OF:
            self.flops[bits] += FLOPS_OF[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        for x in given:
            key = x.untyped_storage()._cdata
            if not view and key not in self._made:
                self._outside[key] = max(self._outside.get(key, 0), _bytes(x))
        for x in () if view else made:
            self._hold(x)
        return out

    def _hold(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._made and key not in self._outside:
            self._made[key] = weakref.ref(storage, partial(self._release, key, size))
            self.held += size
            self.peak = max(self.peak, self.held)

    def _release(self, key: int, size: int, _gone: Any) -> None:
        self.held -= size
        self._made.pop(key, None)

    @property
    def outside(self) -> int:
        """Bytes read of tensors that no operator made."""
        return sum(self._outside.values())


def count(call: Callable[[], object]) -> Counts:
    """Run a call and count what it does."""
    gc.collect()
    counter = Counter()
    with counter:
        result = call()
    written = sum(_bytes(x) for x in _tensors(result))
    return Counts(
        operators=counter.operators,
        views=counter.views,
        flops64=counter.flops[64],
        flops32=counter.flops[32],
        curved64=counter.curved[64],
        curved32=counter.curved[32],
        least=counter.outside + written,
        moved=counter.moved,
        peak=counter.peak,
    )


@dataclass(frozen=True)
class Rates:
    """What the machine does in a second, measured in the run whose times they are compared with."""

    copy: float  # bytes read and written
    product64: float  # floating-point operations of a matrix product
    product32: float
    curved64: float  # exponentials
    curved32: float
    operators: float  # negations of one number
    views: float  # views of one number

    def floor(self, counts: Counts) -> dict[str, float]:
        """Seconds below which a call cannot fall, by what limits it."""
        return {
            "memory": counts.least / self.copy,
            "products": counts.flops64 / self.product64 + counts.flops32 / self.product32,
            "exponentials": counts.curved64 / self.curved64 + counts.curved32 / self.curved32,
            "operators": (counts.operators - counts.views) / self.operators + counts.views / self.views,
        }


def _tensors(value: object) -> list[Tensor]:
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    return [x for x in tree_leaves(value) if isinstance(x, Tensor)]


def _elements(x: Tensor) -> int:
    """Elements that exist: an axis that was only expanded counts once."""
    return math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride != 0)


def _bytes(x: Tensor) -> int:
    return _elements(x) * x.element_size()
