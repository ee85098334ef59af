"""The front door of the chapter: class probabilities, scores, bounds of scores and numbers of classes, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, read_single, require, require_shape, shared_kind

SLACK = {torch.float64: 1e-6}  # how far probabilities may sum from one; 1e-4 in other dtypes


def read_probs(probs: Tensor | ArrayLike, like: Tensor | None = None) -> Tensor:
    """Class probabilities `(*batch, C)` with C >= 2, none negative, each row with sum one."""
    p = as_float("probs", probs, like=like)
    require_shape("probs", p, p.ndim >= 1 and p.shape[-1] >= 2, "(*batch, C) with C >= 2")
    require("probs", p >= 0, "numbers >= 0", p)
    total = p.sum(-1)
    require("probs", (total - 1).abs() <= SLACK.get(p.dtype, 1e-4), "rows that sum to one", total)
    return p


def read_scores(scores: Tensor | ArrayLike, probs: Tensor) -> Tensor:
    """Scores `(*batch, C)`, one a class: no NaN, nothing plus infinite, and not all minus infinite."""
    o = as_float("scores", scores, like=probs)
    classes = probs.shape[-1]
    require_shape("scores", o, o.ndim >= 1 and o.shape[-1] == classes, f"(*batch, {classes}), one score a class")
    require("scores", o < math.inf, "numbers below plus infinity", o)
    top = o.amax(-1)
    require("scores", top > -math.inf, "a finite score in each row", top)
    return o


def read_unit(name: str, value: Tensor | ArrayLike, like: Tensor | None = None) -> Tensor:
    """Numbers in [0, 1], of any shape."""
    t = as_float(name, value, like=like)
    require(name, (t >= 0) & (t <= 1), f"0 <= {name} <= 1", t)
    return t


def read_number(name: str, value: object, want: str, *, above: float | int, top: float | int = math.inf) -> float:
    """A single number in (above, top], both ends as `want` says."""
    number = read_single(name, value, want)
    if not above < number <= top:
        raise ValueError(f"{name}: got {number!r}, want {want}")
    return number


def read_bound(bound: object) -> float:
    """The bound on every score: a positive number, or infinity."""
    return read_number("bound", bound, "a number > 0, or math.inf", above=0)


def read_each(names: Sequence[str], values: Sequence[Tensor | ArrayLike]) -> list[Tensor]:
    """Finite numbers >= 0 of shapes that broadcast, in one device and dtype."""
    like = shared_kind(*values)
    read = [as_float(name, value, like=like) for name, value in zip(names, values, strict=True)]
    for name, x in zip(names, read, strict=True):
        require(name, (x >= 0) & x.isfinite(), "a finite number >= 0", x)
    broadcast_batch(**{name: x.shape for name, x in zip(names, read, strict=True)})
    return read
