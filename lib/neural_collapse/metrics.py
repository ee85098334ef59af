"""The four metrics of neural collapse, in one pass over the features and without a pseudo-inverse of their size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_shape
from lib.neural_collapse.setting import read_labels, read_matrix, shared_kind
from lib.shapes import Float, Int, Real

CHUNK = 2**21  # entries of the projected rows that are held at a time


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
    $=\|W/\|W\|-\tilde H/\|\tilde H\|\|^2$; NC4 = share of samples for which head and nearest class mean disagree.

    Args:
        features: one sample a row, shape (*batch, n, d).
        labels: whole numbers from 0 to C - 1, every class at least once, shape (n,) or (*batch, n).
        weight: the head, one class a row, shape (C, d) or (*batch, C, d).
        bias: of the head, shape (C,) or (*batch, C).

    Returns:
        `CollapseMetrics`, each of shape (*batch,). NaN where all class means, or all weights, are equal.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, one class only, a label that is no whole number
            below C, a class without a sample.

    Source: Papyan, Han and Donoho (2020), Prevalence of neural collapse, PNAS 117; NC1 from the C x C Gram matrix is an
    own derivation.

    >>> collapse_metrics([[1.0], [1.0], [-1.0], [-1.0]], [0, 0, 1, 1], [[2.0], [-2.0]])
    CollapseMetrics(nc1=tensor(0., dtype=torch.float64), nc2_norm=tensor(0., dtype=torch.float64),
                    nc2_angle=tensor(0., dtype=torch.float64), nc3=tensor(0., dtype=torch.float64),
                    nc4=tensor(0., dtype=torch.float64))
    """
    like = shared_kind(features, weight, bias)
    h = read_matrix("features", features, like, "(*batch, n, d)")
    w = read_matrix("weight", weight, like, f"(*batch, C, {h.shape[-1]}) as the features", width=h.shape[-1])
    rows, classes = h.shape[-2], w.shape[-2]
    require_shape("weight", w, classes > 1, "(*batch, C, d) with C >= 2")
    y = read_labels(labels, rows, classes, h.device)
    b = None if bias is None else as_float("bias", bias, like=like)
    if b is not None:
        require_shape("bias", b, b.ndim >= 1 and b.shape[-1] == classes, f"(*batch, {classes}), one entry a class")
        require("bias", b.isfinite(), "finite numbers", b)
    shapes = {} if b is None else {"bias": b.shape[:-1]}
    batch = broadcast_batch(features=h.shape[:-2], labels=y.shape[:-1], weight=w.shape[:-2], **shapes)
    h, y, w = h.expand(*batch, *h.shape[-2:]), y.expand(*batch, rows), w.expand(*batch, *w.shape[-2:])

    mean = _class_means(h, y, classes)
    centre = mean.mean(-2, keepdim=True)
    apart = mean - centre
    whiten = _whitener(apart)
    # One product per chunk gives whitened features, logits and the nearest mean's score; bounded memory.
    probe = torch.cat((whiten, w.mT, apart.mT), -1)
    offset = apart.square().sum(-1) / 2 + (apart * centre).sum(-1)
    inside = mean @ whiten
    step = max(1, CHUNK // (probe.shape[-1] * max(1, batch.numel())))
    spread, wrong = torch.zeros_like(apart[..., 0, 0]), torch.zeros_like(apart[..., 0, 0])
    for start in range(0, rows, step):
        length = min(step, rows - start)
        own = y.narrow(-1, start, length)
        scores = h.narrow(-2, start, length) @ probe
        white, logits, nearest = scores.split((whiten.shape[-1], classes, classes), -1)
        centred = white - inside.gather(-2, own.unsqueeze(-1).expand_as(white))
        spread = spread + centred.square().sum((-2, -1))
        logits = logits if b is None else logits + b.unsqueeze(-2)
        differ = logits.argmax(-1) != (nearest - offset.unsqueeze(-2)).argmax(-1)
        wrong = wrong + differ.sum(-1)
    return CollapseMetrics(spread / rows, *_shape_of_means(apart), _duality(w, apart), wrong / rows)


def _class_means(h: Tensor, y: Tensor, classes: int) -> Tensor:
    """Means (*batch, C, d) by one scatter over all samples of all batches."""
    batch, dim = h.shape[:-2], h.shape[-1]
    count = batch.numel()
    place = (y.reshape(count, -1) + classes * torch.arange(count, device=y.device).unsqueeze(-1)).flatten()
    sums = h.new_zeros(count * classes, dim).index_add_(0, place, h.reshape(-1, dim))
    sizes = h.new_zeros(count * classes).index_add_(0, place, h.new_ones(1).expand(len(place)))
    require("labels", sizes > 0, "at least one sample of every class", sizes)
    return (sums / sizes.unsqueeze(-1)).reshape(*batch, classes, dim)


def _whitener(apart: Tensor) -> Tensor:
    r"""$V\Gamma^{-1/2}$ with orthonormal $V$, from the smaller Gram matrix; columns beyond its rank vanish."""
    classes, dim = apart.shape[-2:]
    values, vectors = torch.linalg.eigh(apart @ apart.mT if classes <= dim else apart.mT @ apart)
    smallest = values.amax(-1, keepdim=True) * max(classes, dim) * torch.finfo(values.dtype).eps
    kept = values > smallest
    safe = torch.where(kept, values, torch.ones_like(values))
    basis = apart.mT @ (vectors * safe.rsqrt().unsqueeze(-2)) if classes <= dim else vectors
    scale = torch.where(kept, safe.rsqrt(), torch.zeros_like(safe))
    level = torch.where(values.amax(-1, keepdim=True) > 0, scale, torch.full_like(scale, torch.nan))
    whitener: Tensor = basis * level.unsqueeze(-2)
    return whitener


def _shape_of_means(apart: Tensor) -> tuple[Tensor, Tensor]:
    """NC2: spread of the norms, and of the angles."""
    classes = apart.shape[-2]
    norms = torch.linalg.vector_norm(apart, dim=-1)
    unit = apart / norms.unsqueeze(-1)
    off = (unit @ unit.mT + 1 / (classes - 1)).abs() * (1 - torch.eye(classes, dtype=unit.dtype, device=unit.device))
    return norms.std(-1, correction=0) / norms.mean(-1), off.sum((-2, -1)) / (classes * (classes - 1))


def _duality(w: Tensor, apart: Tensor) -> Tensor:
    """NC3: squared distance of the head from the class means, both of norm one."""
    unit_w, unit_h = (x / torch.linalg.matrix_norm(x, keepdim=True) for x in (w, apart))
    distance: Tensor = (unit_w - unit_h).square().sum((-2, -1))
    return distance
