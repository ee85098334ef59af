"""From residuals to gradients of a linear head and of the features, split in pull and push; gradient alignment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, indicator, read_finite, require_shape, shared_kind
from lib.neural_collapse.setting import read_labels, read_matrix
from lib.shapes import Float, Int, Real


@dataclass(frozen=True)
class UFMGradients:
    """Gradients of a mean loss in the head's `weight` and in the `features`."""

    weight: Float[Tensor, "*batch C d"]
    features: Float[Tensor, "*batch n d"]


@dataclass(frozen=True)
class PullPush:
    """Forces on the head's rows (minus the gradient): from samples of the row's class, and from all others."""

    pull: Float[Tensor, "*batch C d"]
    push: Float[Tensor, "*batch C d"]


def ufm_gradients(
    residual: Real[Tensor, "*#batch n C"] | ArrayLike,
    features: Real[Tensor, "*#batch n d"] | ArrayLike,
    weight: Real[Tensor, "*#batch C d"] | ArrayLike,
) -> UFMGradients:
    r"""Gradients of a mean loss in head and features, from the derivatives $\mathcal D$ of the samples' losses.

    $$ \nabla_W\mathcal L=\frac1n\mathcal D^\top H,\qquad\nabla_H\mathcal L=\frac1n\mathcal D\,W. $$

    Args:
        residual: $\mathcal D$, derivative of each sample's loss in its logits, shape (*batch, n, C).
        features: H, one sample a row, shape (*batch, n, d).
        weight: W, one class a row, shape (*batch, C, d).

    Returns:
        `UFMGradients`, both divided by n.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite.

    Source: the chain rule; compare Propositions 1 and 2 of Yang, Zong, Huang, Feng and An, arXiv 2411.08937.

    >>> ufm_gradients([[0.5, -0.5]], [[2.0]], [[1.0], [-1.0]])
    UFMGradients(weight=tensor([[ 1.], [-1.]], dtype=torch.float64), features=tensor([[1.]], dtype=torch.float64))
    """
    like = shared_kind(residual, features, weight)
    d = read_matrix("residual", residual, like, "(*batch, n, C)")
    h = read_matrix("features", features, like, "(*batch, n, d)")
    w = read_matrix("weight", weight, like, "(*batch, C, d)")
    rows, classes = d.shape[-2:]
    require_shape("features", h, h.shape[-2] == rows, f"(*batch, {rows}, d) as the residual has n = {rows}")
    wanted = f"(*batch, {classes}, {h.shape[-1]}) as residual and features have it"
    require_shape("weight", w, w.shape[-2:] == (classes, h.shape[-1]), wanted)
    batch = broadcast_batch(residual=d.shape[:-2], features=h.shape[:-2], weight=w.shape[:-2])
    by_weight, by_features = d.mT @ h / rows, d @ w / rows
    return UFMGradients(
        by_weight.expand(*batch, *by_weight.shape[-2:]), by_features.expand(*batch, *by_features.shape[-2:])
    )


def pull_push(
    residual: Real[Tensor, "*#batch n C"] | ArrayLike,
    labels: Int[Tensor, "*#batch n"] | ArrayLike,
    features: Real[Tensor, "*#batch n d"] | ArrayLike,
) -> PullPush:
    r"""The force on every row of the head, split by whether it comes from the row's own class.

    $$ \text{pull}_j=-\frac1n\sum_{y_i=j}\mathcal D_{ij}h_i,\qquad
    \text{push}_j=-\frac1n\sum_{y_i\ne j}\mathcal D_{ij}h_i. $$

    Args:
        residual: $\mathcal D$, derivative of each sample's loss in its logits, shape (*batch, n, C).
        labels: class of each sample, shape (n,) or (*batch, n).
        features: one sample a row, shape (*batch, n, d).

    Returns:
        `PullPush`, both (*batch, C, d). Their sum is minus the gradient of `ufm_gradients`.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, labels that are no whole numbers below C.

    Source: the split of Yang, Zong, Huang, Feng and An, arXiv 2411.08937.

    >>> pull_push([[-0.5, 0.5]], [0], [[2.0]])
    PullPush(pull=tensor([[1.], [0.]], dtype=torch.float64), push=tensor([[ 0.], [-1.]], dtype=torch.float64))
    """
    like = shared_kind(residual, features)
    d = read_matrix("residual", residual, like, "(*batch, n, C)")
    h = read_matrix("features", features, like, "(*batch, n, d)")
    rows, classes = d.shape[-2:]
    require_shape("features", h, h.shape[-2] == rows, f"(*batch, {rows}, d) as the residual has n = {rows}")
    y = read_labels(labels, rows, classes, d.device)
    broadcast_batch(residual=d.shape[:-2], labels=y.shape[:-1], features=h.shape[:-2])
    own = d * indicator(y, classes, d)
    pull, push = own.mT @ h / -rows, (d - own).mT @ h / -rows
    return PullPush(pull + 0.0, push + 0.0)  # no minus zero


def align_gradient(
    primary: Real[Tensor, "*#batch P"] | ArrayLike, auxiliary: Real[Tensor, "*#batch P"] | ArrayLike
) -> Float[Tensor, "*out P"]:
    r"""The sum of two gradients, after the part of the second that opposes the first was dropped.

    $$ g_1+g_2-\min(0,\langle g_1,g_2\rangle)\,g_1/\|g_1\|^2. $$
    Its inner product with $g_1$ is never below $\|g_1\|^2$. Only the second gradient is projected; PCGrad projects
    both.

    Args:
        primary: $g_1$, the gradient that is kept, shape (*batch, P).
        auxiliary: $g_2$, shape (*batch, P).

    Returns:
        The combined gradient, shape (*batch, P); the auxiliary one where the primary one is zero.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite.

    Source: the code of Yang, Zong, Huang, Feng and An, arXiv 2411.08937; PCGrad is of Yu et al. (2020).

    >>> align_gradient([1.0, 0.0], [-3.0, 2.0])
    tensor([1., 2.], dtype=torch.float64)
    """
    like = shared_kind(primary, auxiliary)
    a, b = read_finite("primary", primary, like), read_finite("auxiliary", auxiliary, like)
    require_shape("primary", a, a.ndim >= 1 and a.shape[-1] > 0, "(*batch, P)")
    require_shape("auxiliary", b, b.ndim >= 1 and b.shape[-1] == a.shape[-1], f"(*batch, {a.shape[-1]}) as the primary")
    broadcast_batch(primary=a.shape[:-1], auxiliary=b.shape[:-1])
    # A unit vector first: squares of a tiny gradient would underflow.
    largest = a.abs().amax(-1, keepdim=True)
    scaled = a / torch.where(largest > 0, largest, torch.ones_like(largest))
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    unit = scaled / torch.where(length > 0, length, torch.ones_like(length))
    along = (unit * b).sum(-1, keepdim=True).clamp_max(0)
    return a + b - along * unit
