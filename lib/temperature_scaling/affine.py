"""Matrix and vector scaling: the affine map of the logits that fits held-out labels best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, indicator, is_known, read_single
from lib.shapes import Float, Int, Real
from lib.temperature_scaling.setting import read_labelled
from lib.temperature_scaling.temperature import fit_temperature

STEPS = 100
ROWS = 4096  # rows whose curvature is held at once


@dataclass(frozen=True)
class AffineFit:
    """The map o -> `weight` @ o + `bias`, its `nll` (nats, without penalty), and the norm of the gradient left."""

    weight: Float[Tensor, "*batch k k"]
    bias: Float[Tensor, "*batch k"]
    nll: Float[Tensor, "*batch"]
    gradient_norm: Float[Tensor, "*batch"]


def fit_affine_scaling(
    logits: Real[Tensor, "*#batch n k"] | ArrayLike,
    labels: Int[Tensor, "*#batch n"] | ArrayLike,
    *,
    kind: str = "matrix",
    ridge: float | int = 1e-6,
) -> AffineFit:
    r"""Affine map of the logits with the lowest NLL: all of it, or a scale and a shift for each class.

    $$ \min_{W,b}\ \mathrm{NLL}(Wo+b)+\tfrac12\,\mathrm{ridge}\,(\|W-I\|^2+\|b\|^2) $$

    with any matrix W, or a diagonal one. The problem is convex. Newton's method with a damping that follows success
    solves it; the curvature of matrix scaling has $k^2(k+1)^2$ entries, so it is meant for up to some 30 classes.

    Args:
        logits: $o$, shape (*batch, n, k).
        labels: true classes, shape (*batch, n).
        kind: "matrix" or "vector" (diagonal).
        ridge: weight of the penalty, >= 0; it settles what the NLL leaves free (a shift of all logits).

    Returns:
        `weight` (*batch, k, k), diagonal for "vector"; `bias` (*batch, k); `nll` (*batch,), without the penalty;
        `gradient_norm` (*batch,), of the penalised objective.

    Raises:
        ValueError: logits that are not finite or of another shape, labels outside the classes, another kind, a negative
            ridge.

    Source: the maps are those of Guo, Pleiss, Sun and Weinberger (ICML 2017), arXiv 1706.04599; own algorithm.

    >>> logits = [[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0]]
    >>> fit_affine_scaling(logits, [0, 1, 1, 1, 0], kind="vector").nll.round(decimals=4)
    tensor(0.6592, dtype=torch.float64)
    """
    z, y = read_labelled(logits, labels)
    if kind not in ("matrix", "vector"):
        raise ValueError(f"kind: got {kind!r}, want 'matrix' or 'vector'")
    ridge = read_single("ridge", ridge, "a finite number >= 0")
    if not 0 <= ridge < float("inf"):
        raise ValueError(f"ridge: got {ridge}, want a finite number >= 0")
    n, k = z.shape[-2:]
    batch = z.shape[:-2]
    o, y = z.double().reshape(batch.numel(), n, k), y.reshape(batch.numel(), n)
    size = k + 1 if kind == "matrix" else 2  # features of a class: all logits and 1, or its own and 1
    identity = torch.zeros(k, size, dtype=torch.float64, device=z.device)
    identity[:, :k] = torch.eye(k, dtype=torch.float64, device=z.device) if kind == "matrix" else 0
    identity[:, 0] = identity[:, 0] if kind == "matrix" else 1
    identity = identity.reshape(-1).expand(o.shape[0], -1)
    problem = _Problem(o, y, kind, ridge, identity)
    cooled = identity / _best_temperature(o, y).unsqueeze(-1)
    start, other = ((theta, *problem.expand(theta)) for theta in (identity, cooled))
    theta, value, slope, curvature = _choose(other[1] < start[1], other, start)
    damping = torch.full_like(value, 1e-3)
    unit = torch.eye(theta.shape[-1], dtype=torch.float64, device=z.device)
    for _ in range(STEPS):
        size_of_curvature = curvature.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-300)
        shift = (damping * size_of_curvature)[:, None, None] * unit
        move = torch.linalg.solve_ex(curvature + shift + 1e-14 * size_of_curvature[:, None, None] * unit, slope)[0]
        trial = (theta - move, *problem.expand(theta - move))
        better = trial[1] <= value
        drop = torch.where(better, value - trial[1], torch.zeros_like(value))
        theta, value, slope, curvature = _choose(better, trial, (theta, value, slope, curvature))
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-16, 1e6)
        done = (slope.norm(dim=-1) <= 1e-12) | (better & (drop <= 1e-16 * value.abs())) | (damping >= 1e6)
        if is_known(done):
            break
    weight, bias = problem.maps(theta)
    nll = value - problem.penalty(theta)
    parts = (weight.reshape(*batch, k, k), bias.reshape(*batch, k), nll.reshape(batch))
    return AffineFit(*(part.to(z.dtype) for part in (*parts, slope.norm(dim=-1).reshape(batch))))


def _best_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    """The best temperature of logits of any size: Newton's method needs it where they saturate the softmax."""
    scale = logits.detach().abs().amax((-2, -1)).clamp_min(1e-300)
    return scale * fit_temperature(logits / scale[:, None, None], labels, bounds=(1e-9, 1e3)).temperature


def _choose(better: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What belongs to the elements of the batch, from `new` where it is better."""
    pairs = zip(new, old, strict=True)
    return tuple(torch.where(better.reshape(-1, *[1] * (x.ndim - 1)), x, y) for x, y in pairs)


@dataclass(frozen=True)
class _Problem:
    """The penalised NLL of maps theta (B, k * size), with slope and curvature."""

    logits: Tensor
    labels: Tensor
    kind: str
    ridge: float
    identity: Tensor

    def maps(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        k = self.logits.shape[-1]
        table = theta.reshape(theta.shape[0], k, theta.shape[1] // k)
        if self.kind == "vector":
            return torch.diag_embed(table.select(-1, 0)), table.select(-1, 1)
        return table.narrow(-1, 0, k), table.select(-1, k)

    def penalty(self, theta: Tensor) -> Tensor:
        return 0.5 * self.ridge * ((theta - self.identity) ** 2).sum(-1)

    def expand(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count, n, k = self.logits.shape
        weight, bias = self.maps(theta)
        free = theta.shape[-1]
        value, slope = self.penalty(theta), self.ridge * (theta - self.identity)
        curvature = self.ridge * torch.eye(free, dtype=theta.dtype, device=theta.device).expand(count, free, free)
        for o, y in zip(self.logits.split(ROWS, 1), self.labels.split(ROWS, 1), strict=True):
            log_p = (o @ weight.mT + bias.unsqueeze(-2)).log_softmax(-1)
            p = log_p.exp()
            value = value - log_p.gather(-1, y.unsqueeze(-1)).sum((-2, -1)) / n
            residual = p - indicator(y, k, p)
            spread = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)  # (B, rows, k, k)
            one = torch.ones_like(o[..., :1])
            if self.kind == "matrix":
                feature = torch.cat((o, one), -1)  # (B, rows, k + 1)
                slope = slope + (residual.mT @ feature).reshape(count, free) / n
                pairs = (feature.unsqueeze(-1) * feature.unsqueeze(-2)).flatten(-2)
                block = spread.flatten(-2).mT @ pairs  # (B, k * k, (k + 1)^2)
                block = block.reshape(count, k, k, k + 1, k + 1).transpose(-3, -2)
            else:
                feature = torch.stack((o, one.expand_as(o)), -1)  # (B, rows, k, 2)
                slope = slope + (residual.unsqueeze(-1) * feature).sum(1).reshape(count, free) / n
                block = torch.einsum("brac,brai,brcj->baicj", spread, feature, feature)
            curvature = curvature + block.reshape(count, free, free) / n
        return value, slope, curvature
