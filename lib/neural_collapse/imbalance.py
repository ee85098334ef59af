"""Unequal classes: the margin that is left within a group of classes of equal size, and where it vanishes."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_count, read_positive, require_shape, shared_kind
from lib.neural_collapse.setting import broadcast
from lib.shapes import Float, Real


def collapse_margin(
    class_counts: Real[Tensor, "*#batch C"] | ArrayLike,
    lambda_w: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_h: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*out C"]:
    r"""Probability of the true class minus that of another class of the same size, at the optimum.

    $$ p_{jj}-p_{jl}=\max\Big(0,\;1-\frac{n\sqrt{\lambda_W\lambda_H}}{\sqrt{n_j}}\Big),\qquad n=\sum_jn_j. $$
    Within a group of at least two classes of one size the margin depends on nothing else, and their classifiers
    coincide exactly if $n_j\le\lambda_W\lambda_Hn^2$.

    Args:
        class_counts: $n_j$, samples of each class, at least 1, shape (*batch, C).
        lambda_w: weight decay of the head, above 0, shape broadcastable to (*batch,).
        lambda_h: weight decay of the features, above 0.

    Returns:
        The formula for every class, shape (*batch, C). It is the optimum's margin only where another class has the same
        size.

    Raises:
        ValueError: fewer than 2 classes, a number outside its range, shapes that do not broadcast.

    Source: own derivation; compare Fang, He, Long and Su (2021), Exploring deep neural networks via layer-peeled model.

    >>> collapse_margin([20, 20, 4, 4], 0.02, 0.02)
    tensor([0.7853, 0.7853, 0.5200, 0.5200], dtype=torch.float64)
    """
    like = shared_kind(class_counts, lambda_w, lambda_h)
    counts = read_count("class_counts", class_counts, like, 1)
    require_shape("class_counts", counts, counts.ndim >= 1 and counts.shape[-1] > 1, "(*batch, C) with C >= 2")
    w, h = read_positive("lambda_w", lambda_w, like), read_positive("lambda_h", lambda_h, like)
    broadcast_batch(class_counts=counts.shape[:-1], lambda_w=w.shape, lambda_h=h.shape)
    strength = (w.sqrt() * h.sqrt()).unsqueeze(-1) * counts.sum(-1, keepdim=True)
    return (1 - strength / counts.sqrt()).clamp_min(0)


def critical_imbalance(
    num_majority: Real[Tensor, "*#batch"] | ArrayLike,
    num_minority: Real[Tensor, "*#batch"] | ArrayLike,
    minority_count: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_w: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_h: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*out"]:
    r"""How many times larger the majority classes must be for the minority classes to collapse into one.

    $$ \rho_{\rm n}^*=\frac1{C_{\rm freq}}\Big(\frac1{\sqrt{n_{\rm rare}\lambda_W\lambda_H}}-C_{\rm rare}\Big). $$

    Args:
        num_majority: $C_{\rm freq}$, at least 1; all broadcast to (*batch,).
        num_minority: $C_{\rm rare}$, at least 2, because one class alone has nothing to coincide with.
        minority_count: $n_{\rm rare}$, samples of each minority class, at least 1.
        lambda_w: weight decay of the head, above 0.
        lambda_h: weight decay of the features, above 0.

    Returns:
        The critical ratio of class sizes, shape (*batch,). Negative where the minority is lost at any majority.

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: own derivation; compare Fang, He, Long and Su (2021), Exploring deep neural networks via layer-peeled model.

    >>> critical_imbalance(3, 3, 4, 1 / 64, 1 / 64)
    tensor(9.6667, dtype=torch.float64)
    """
    like = shared_kind(num_majority, num_minority, minority_count, lambda_w, lambda_h)
    majority, minority, count, w, h = broadcast(
        num_majority=read_count("num_majority", num_majority, like, 1),
        num_minority=read_count("num_minority", num_minority, like, 2),
        minority_count=read_count("minority_count", minority_count, like, 1),
        lambda_w=read_positive("lambda_w", lambda_w, like),
        lambda_h=read_positive("lambda_h", lambda_h, like),
    )
    critical: Tensor = (torch.rsqrt(count) / (w.sqrt() * h.sqrt()) - minority) / majority
    return critical
