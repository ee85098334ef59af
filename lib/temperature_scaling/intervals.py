"""Classes that are uniform on intervals of a line: the overlap model in one dimension, with everything known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, read_single, read_size, require, require_shape, shared_kind
from lib.shapes import Float, Int, Real
from lib.temperature_scaling.setting import read_number


@dataclass(frozen=True)
class IntervalMixture:
    """Pieces `[lower, upper]` of a line with the class `label` and the mass `weight` spread evenly over each."""

    lower: Float[Tensor, " pieces"]
    upper: Float[Tensor, " pieces"]
    label: Int[Tensor, " pieces"]
    weight: Float[Tensor, " pieces"]
    n_classes: int


def overlap_intervals(
    overlap: Real[Tensor, ""] | ArrayLike, n_classes: int, *, group_size: int = 2, spacing: float | int = 3.0
) -> IntervalMixture:
    r"""The overlap model on a line: groups of classes that share a common interval.

    In pairs ($C_{\rm g}=2$) a class is uniform on one interval of length 1: class 2g on $[c,c+1]$ and class 2g + 1 on
    $[c+1-\vartheta,c+2-\vartheta]$ with c = `spacing` times g. In larger groups all classes share
    $[c,c+\vartheta]$, and each has a private interval of length $1-\vartheta$ to the right of it.

    Args:
        overlap: $\vartheta$, share of each class in the common region, from 0 to 1; one number.
        n_classes: C, number of classes, all equally likely.
        group_size: $C_{\rm g}$, classes of a group, at least 2, a divisor of C.
        spacing: distance between the left ends of neighbouring groups, at least the width of a group.

    Returns:
        The pieces from left to right within a group; pieces of length zero are left out.

    Raises:
        ValueError: an overlap outside [0, 1], numbers of classes that are not whole or do not fit, groups that would
            run into each other.

    Source: the paired picture of Chidambaram and Ge (ICLR 2024), arXiv 2306.00740; larger groups are an own extension.

    >>> overlap_intervals(0.4, 2).lower
    tensor([0.0000, 0.6000], dtype=torch.float64)
    """
    for name, value in {"n_classes": n_classes, "group_size": group_size}.items():
        read_size(name, value, 2)
    if group_size > n_classes or n_classes % group_size:
        raise ValueError(f"group_size: got {group_size}, want a divisor of n_classes = {n_classes}")
    share = read_number("overlap", overlap, shared_kind(overlap), 0.0, 1.0, "a share from 0 to 1")
    require_shape("overlap", share, share.ndim == 0, "a single number")
    label = torch.arange(n_classes, device=share.device)
    spacing = read_single("spacing", spacing, "a number")
    start = spacing * (label // group_size).to(share.dtype)
    rank = (label % group_size).to(share.dtype)
    if group_size == 2:
        _require_spacing(spacing, 2 - float(share) if n_classes > 2 else 0.0)
        lower = start + rank * (1 - share)
        return IntervalMixture(lower, lower + 1, label, torch.full_like(lower, 1 / n_classes), n_classes)
    part = float(share)  # a constructor may read its number
    _require_spacing(spacing, part + group_size * (1 - part) if n_classes > group_size else 0.0)
    pieces = []
    if part > 0:
        pieces.append((start, start + part, label, torch.full_like(start, part / n_classes)))
    if part < 1:
        lower = start + part + rank * (1 - part)
        pieces.append((lower, lower + (1 - part), label, torch.full_like(start, (1 - part) / n_classes)))
    left, right, classes, weight = (torch.cat(column) for column in zip(*pieces, strict=True))
    return IntervalMixture(left, right, classes, weight, n_classes)


def _require_spacing(spacing: float | int, width: float) -> None:
    if not (width - 1e-9 <= spacing < float("inf") and spacing > 0):
        raise ValueError(f"spacing: got {spacing:.9g}, want at least the width of a group, {max(width, 0):.9g}")


def sample_intervals(
    mixture: IntervalMixture, n: int, *, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Independent points of the mixture with their labels.

    Args:
        mixture: from `overlap_intervals`.
        n: number of points, at least 1.
        generator: source of randomness, on the device of the mixture.

    Returns:
        Points x and labels, both (n,).

    Raises:
        ValueError: n is not a whole number >= 1.

    Source: definition.

    >>> x, label = sample_intervals(overlap_intervals(0.4, 4), 5, generator=torch.Generator().manual_seed(0))
    >>> x.shape, label.dtype
    (torch.Size([5]), torch.int64)
    """
    read_size("n", n, 1)
    piece = torch.multinomial(mixture.weight, n, replacement=True, generator=generator)
    place = torch.rand(n, dtype=mixture.lower.dtype, device=mixture.lower.device, generator=generator)
    lower = mixture.lower[piece]
    return lower + place * (mixture.upper[piece] - lower), mixture.label[piece]


def posterior_intervals(mixture: IntervalMixture, x: Real[Tensor, "*batch"] | ArrayLike) -> Float[Tensor, "*batch C"]:
    r"""True class probabilities $p_y(x)=P(Y=y\mid X=x)$ at points of the line.

    Args:
        mixture: from `overlap_intervals`.
        x: points, any shape (*batch,).

    Returns:
        Shape (*batch, C); NaN where no class has mass. Intervals are closed.

    Raises:
        ValueError: x is not made of numbers, or one is NaN.

    Source: Bayes' rule.

    >>> posterior_intervals(overlap_intervals(0.4, 2), [0.3, 0.8]).round(decimals=9)
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]], dtype=torch.float64)
    """
    point = as_float("x", x, like=mixture.lower if not isinstance(x, Tensor) else None).unsqueeze(-1)
    require("x", ~point.isnan(), "numbers", point)
    lower, upper, weight = (part.to(point) for part in (mixture.lower, mixture.upper, mixture.weight))
    density = ((point >= lower) & (point <= upper)) * (weight / (upper - lower))
    mass = density @ class_columns(mixture, point)
    return mass / mass.sum(-1, keepdim=True)


def class_columns(mixture: IntervalMixture, like: Tensor) -> Tensor:
    """Matrix (pieces, C) that adds up the pieces of each class."""
    classes = torch.arange(mixture.n_classes, device=mixture.label.device)
    return (mixture.label.unsqueeze(-1) == classes).to(like)
