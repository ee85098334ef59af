"""The four metrics of neural collapse, of all samples at once or of batches that come one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    broadcast_batch,
    read_finite,
    require,
    require_finite,
    require_shape,
    shared_kind,
)
from lib.neural_collapse.passes import ClassSums, SecondPass, class_sums, second_pass
from lib.neural_collapse.setting import read_labels, read_matrix
from lib.shapes import Float, Int, Real


@dataclass(frozen=True)
class CollapseMetrics:
    """How far from collapse: within-class spread, unequal norms, unequal angles, head against means, decisions."""

    nc1: Float[Tensor, "*batch"]
    nc2_norm: Float[Tensor, "*batch"]
    nc2_angle: Float[Tensor, "*batch"]
    nc3: Float[Tensor, "*batch"]
    nc4: Float[Tensor, "*batch"]


def collapse_metrics(
    features: Real[Tensor, "*#batch n d"] | ArrayLike,
    labels: Int[Tensor, "*#batch n"] | ArrayLike,
    weight: Real[Tensor, "*#batch C d"] | ArrayLike,
    bias: Real[Tensor, "*#batch C"] | ArrayLike | None = None,
) -> CollapseMetrics:
    r"""The metrics NC1 to NC4 of a last layer; all are zero at collapse.

    With class means $\bar h_j$, their unweighted mean $\bar h$ and $\tilde h_j=\bar h_j-\bar h$ (rows of $\tilde H$):
    NC1 $=\frac1C\mathrm{tr}(\Sigma_{\rm w}\Sigma_{\rm b}^+)$ with the covariance $\Sigma_{\rm w}$ within classes, over
    all samples, and $\Sigma_{\rm b}=\frac1C\tilde H^\top\tilde H$; NC2-norm = deviation over mean of
    $\|\tilde h_j\|$; NC2-angle = mean of $|\cos(\tilde h_j,\tilde h_l)+\frac1{C-1}|$ over pairs; NC3
    $=\|W/\|W\|-\tilde H/\|\tilde H\|\|^2$; NC4 = share of samples on which head and nearest class mean disagree.

    Args:
        features: one sample a row, shape (*batch, n, d).
        labels: whole numbers from 0 to C - 1, every class at least once, shape (n,) or (*batch, n).
        weight: the head, one class a row, shape (C, d) or (*batch, C, d).
        bias: of the head, shape (C,) or (*batch, C).

    Returns:
        `CollapseMetrics`, each of shape (*batch,). NaN where all class means, or all weights, are equal.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, one class only, a label that is no whole number
            below C, a class without a sample, half precision (which has no eigenvalues).

    Source: Papyan, Han and Donoho (2020), Prevalence of neural collapse, PNAS 117; NC1 from the C x C Gram matrix is an
    own derivation.

    >>> collapse_metrics([[1.0], [1.0], [-1.0], [-1.0]], [0, 0, 1, 1], [[2.0], [-2.0]])
    CollapseMetrics(nc1=tensor(0., dtype=torch.float64), nc2_norm=tensor(0., dtype=torch.float64),
                    nc2_angle=tensor(0., dtype=torch.float64), nc3=tensor(0., dtype=torch.float64),
                    nc4=tensor(0., dtype=torch.float64))
    """
    like = _kind(features, weight, bias)
    w, b = _read_head(weight, bias, like)
    h = as_float("features", features, like=like)  # whether all are finite is seen from their sums
    require_shape("features", h, h.ndim >= 2 and h.shape[-2] > 0 and h.shape[-1] > 0, "(*batch, n, d)")
    require_shape("weight", w, w.shape[-1] == h.shape[-1], f"(*batch, C, {h.shape[-1]}) as the features")
    y = read_labels(labels, h.shape[-2], w.shape[-2], h.device)
    shapes = {} if b is None else {"bias": b.shape[:-1]}
    broadcast_batch(features=h.shape[:-2], labels=y.shape[:-1], weight=w.shape[:-2], **shapes)
    first = class_sums(h, y, w.shape[-2])
    require_finite("features", h, first.sums)
    second = second_pass(_means(first), w, b)
    return _metrics(second, w, *second.over(h, y), h.shape[-2])


def streamed_collapse_metrics(
    batches: Iterable[Sequence[Tensor | ArrayLike]],
    weight: Real[Tensor, "C d"] | ArrayLike,
    bias: Real[Tensor, " C"] | ArrayLike | None = None,
) -> CollapseMetrics:
    r"""`collapse_metrics` of samples that come batch by batch, and need not fit into memory together.

    Two passes: the first adds up the class means, the second the spread around them and the decisions. A single pass
    over second moments would lose all digits near the collapse, where they differ from the squared means by less than
    rounding, and could not know the nearest class mean.

    Args:
        batches: pairs of features (n, d) and labels (n,), with any n; a list or a data loader, because it is gone
            through twice. The order may change in between, the samples may not.
        weight: the head, one class a row, shape (C, d).
        bias: of the head, shape (C,).

    Returns:
        `CollapseMetrics` of all samples together.

    Raises:
        ValueError: as `collapse_metrics`; no batch; another number of samples the second time, as from a generator.

    Source: as `collapse_metrics`.

    >>> batches = [([[1.0], [3.0]], [0, 0]), ([[-2.0]], [1])]
    >>> together = collapse_metrics([[1.0], [3.0], [-2.0]], [0, 0, 1], [[2.0], [-2.0]])
    >>> streamed_collapse_metrics(batches, [[2.0], [-2.0]]) == together
    True
    """
    total: ClassSums | None = None
    rows = 0
    for features, labels in _pairs(batches):
        if total is None:
            like = _kind(features, weight, bias)
            w, b = _read_head(weight, bias, like)
            require_shape("weight", w, w.ndim == 2, "(C, d)")
        h, y = _read_batch(features, labels, w, like)
        part = class_sums(h, y, w.shape[0])
        require_finite("features", h, part.sums)
        total = part if total is None else ClassSums(total.sums + part.sums, total.sizes + part.sizes)
        rows += len(h)
    if total is None:
        raise ValueError("batches: got none, want at least one pair of features and labels")
    second = second_pass(_means(total), w, b)
    spread, wrong, again = w.new_zeros(()), w.new_zeros(()), 0
    for features, labels in _pairs(batches):
        h, y = _read_batch(features, labels, w, like)
        part_spread, part_wrong = second.over(h, y)
        spread, wrong, again = spread + part_spread, wrong + part_wrong, again + len(h)
    if again != rows:
        raise ValueError(
            f"batches: got {rows} samples, then {again}, want the same ones each time they are gone through"
        )
    return _metrics(second, w, spread, wrong, rows)


def _kind(*values: object) -> Tensor:
    like = shared_kind(*values)
    if like.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features and weight: got {like.dtype}, want torch.float32 or torch.float64")
    return like


def _read_head(
    weight: Tensor | ArrayLike, bias: Tensor | ArrayLike | None, like: Tensor
) -> tuple[Tensor, Tensor | None]:
    w = read_matrix("weight", weight, like, "(*batch, C, d)")
    require_shape("weight", w, w.shape[-2] > 1, "(*batch, C, d) with C >= 2")
    if bias is None:
        return w, None
    b = read_finite("bias", bias, like)
    require_shape("bias", b, b.ndim >= 1 and b.shape[-1] == w.shape[-2], f"(*batch, {w.shape[-2]}), one entry a class")
    return w, b


def _pairs(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    if not isinstance(batches, Iterable):
        raise ValueError(f"batches: got {type(batches).__name__}, want a list or a loader of batches")
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError(f"batches: got a {type(batch).__name__} in it, want pairs of features and labels")
        yield batch[0], batch[1]


def _read_batch(
    features: Tensor | ArrayLike, labels: Tensor | ArrayLike, w: Tensor, like: Tensor
) -> tuple[Tensor, Tensor]:
    classes, dim = w.shape
    h = as_float("features", features, like=like)
    require_shape("features", h, h.ndim == 2 and len(h) > 0 and h.shape[1] == dim, f"(n, {dim}) as the weight has it")
    y = read_labels(labels, len(h), classes, h.device)
    require_shape("labels", y, y.ndim == 1, f"({len(h)},)")
    return h, y


def _means(first: ClassSums) -> Tensor:
    require("labels", first.sizes > 0, "every class at least once; this many samples of a class", first.sizes)
    return first.sums / first.sizes.unsqueeze(-1)


def _metrics(second: SecondPass, w: Tensor, spread: Tensor, wrong: Tensor, rows: int) -> CollapseMetrics:
    duality = (_normalised(w) - _normalised(second.apart)).square().sum((-2, -1))
    parts = (spread / rows, *_shape_of_means(second.apart), duality, wrong / rows)
    return CollapseMetrics(*(x.expand(wrong.shape) for x in parts))


def _shape_of_means(apart: Tensor) -> tuple[Tensor, Tensor]:
    """NC2: spread of the norms, and of the angles."""
    classes = apart.shape[-2]
    norms = torch.linalg.vector_norm(apart, dim=-1)
    unit = apart / norms.unsqueeze(-1)
    off = (unit @ unit.mT + 1 / (classes - 1)).abs() * (1 - torch.eye(classes, dtype=unit.dtype, device=unit.device))
    middle = norms.mean(-1)
    deviation = (norms - middle.unsqueeze(-1)).square().mean(-1).sqrt()
    return deviation / middle, off.sum((-2, -1)) / (classes * (classes - 1))


def _normalised(x: Tensor) -> Tensor:
    unit: Tensor = x / torch.linalg.matrix_norm(x).unsqueeze(-1).unsqueeze(-1)
    return unit
