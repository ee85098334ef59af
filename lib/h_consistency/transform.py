"""The transform from an error regret to the least logistic regret that it costs, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, read_size, require
from lib.h_consistency.setting import read_bound, read_each, read_unit
from lib.shapes import Float, Real

STEPS = 64  # halvings of the bracket of log(t - t0)
LOWEST = -360.0  # of log(t - t0), in float64; the square of its exponential is still a normal number


def logistic_dead_zone(num_classes: int, bound: float | int) -> float:
    r"""$t_0$: error regrets up to here can cost no logistic regret at all.

    $t_0=\frac{(C-2)\epsilon}{2+(C-2)\epsilon}$ with $\epsilon=e^{-2\mathcal B}$; zero for two classes or without bound.

    Args:
        num_classes: $C\ge2$.
        bound: $\mathcal B>0$, on every score.

    Returns:
        A number in [0, 1).

    Raises:
        ValueError: fewer than two classes, or a bound that is not positive.

    Source: own derivation, :prf:ref:`hc-bounded`.

    >>> round(logistic_dead_zone(3, 1.0), 5)
    0.06338
    """
    spare = (read_size("num_classes", num_classes, 2) - 2) * math.exp(-2 * read_bound(bound))
    return spare / (2 + spare)


def logistic_transform(
    t: Real[Tensor, "*shape"] | ArrayLike, num_classes: int = 2, bound: float | int = math.inf
) -> Float[Tensor, "*shape"]:
    r"""Least logistic regret at error regret $t$, over all class probabilities and all scores in the box.

    Unbounded scores: $\frac{1+t}2\log(1+t)+\frac{1-t}2\log(1-t)$, for any number of classes. In the box, with
    $\epsilon=e^{-2\mathcal B}$, $N=2+(C-2)\epsilon$ and $t_1=\frac{N-1-\epsilon}{N-1+\epsilon}$: zero up to the end of
    the dead zone $t_0$, then the divergence $\mathrm{KL}(\frac{1+t}2\,\|\,\frac{N-1}N)$ of two coins, and from $t_1$ on
    $\log\frac N{N-1+\epsilon}-(1-t)\mathcal B$.

    Args:
        t: error regret in [0, 1], any shape.
        num_classes: $C\ge2$.
        bound: $\mathcal B>0$, on every score.

    Returns:
        Nats, the shape of `t`; convex and nondecreasing in it.

    Raises:
        ValueError: t outside [0, 1], fewer than two classes, a bound that is not positive.

    Source: unbounded: Zheng et al. (2023), own proof; bounded: own derivation, :prf:ref:`hc-bounded`.

    >>> logistic_transform([0.0, 0.5, 1.0])
    tensor([0.0000, 0.1308, 0.6931], dtype=torch.float64)
    >>> logistic_transform([0.05, 0.5, 1.0], num_classes=3, bound=1.0)
    tensor([0.0000, 0.1011, 0.5191], dtype=torch.float64)
    """
    x = read_unit("t", t)
    classes, limit = read_size("num_classes", num_classes, 2), read_bound(bound)
    t0 = logistic_dead_zone(classes, limit)
    return _above_dead_zone((x - t0).clamp_min(0), classes, limit)


def inverse_logistic_transform(
    regret: Real[Tensor, "*shape"] | ArrayLike, num_classes: int = 2, bound: float | int = math.inf
) -> Float[Tensor, "*shape"]:
    r"""Largest error regret that a logistic regret allows, $\sup\{t\in[0,1]:\mathcal T(t)\le r\}$.

    Args:
        regret: logistic regret $r\ge0$ in nats, any shape.
        num_classes: $C\ge2$.
        bound: $\mathcal B>0$, on every score.

    Returns:
        Numbers in [t0, 1]: the end of the dead zone at regret zero, one from $\mathcal T(1)$ on. Its derivative is
        $1/\mathcal T'$.

    Raises:
        ValueError: a negative regret, fewer than two classes, a bound that is not positive.

    Source: own; bisection on the logarithm of the distance to the dead zone.

    >>> inverse_logistic_transform([0.0, 0.1308120, 1.0]).round(decimals=5)
    tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    r = as_float("regret", regret)
    require("regret", r >= 0, "a number >= 0", r)
    classes, limit = read_size("num_classes", num_classes, 2), read_bound(bound)
    t0 = logistic_dead_zone(classes, limit)
    goal = r.detach()
    low = torch.full_like(goal, LOWEST if r.dtype == torch.float64 else LOWEST / 9)
    high = torch.full_like(goal, math.log1p(-t0))
    for _ in range(STEPS):
        middle = (low + high) / 2
        fits = _above_dead_zone(middle.exp(), classes, limit) <= goal
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    distance = torch.where(goal > 0, high.exp(), 0.0)
    inside = (goal > 0) & (goal < _above_dead_zone(torch.full_like(goal, 1 - t0), classes, limit))
    slope = torch.where(inside, _slope(distance, classes, limit), 1.0)
    follow = torch.where(inside, (r - goal) / slope, 0.0)  # zero in value: carries the derivative
    outside = torch.where(goal > 0, torch.ones_like(goal), torch.full_like(goal, t0))
    return torch.where(inside, t0 + distance + follow, outside)


def h_consistency_bound(
    surrogate_excess: Real[Tensor, "*#shape"] | ArrayLike,
    surrogate_gap: Real[Tensor, "*#shape"] | ArrayLike = 0.0,
    target_gap: Real[Tensor, "*#shape"] | ArrayLike = 0.0,
    num_classes: int = 2,
    bound: float | int = math.inf,
) -> Float[Tensor, "*shape"]:
    r"""Upper bound on the excess error, $\mathcal T^{-1}(\text{excess}+\mathcal M_{\log})-\mathcal M_{01}$.

    Args:
        surrogate_excess: logistic risk above the best in the hypothesis set, in nats, >= 0.
        surrogate_gap: $\mathcal M_{\log}\ge0$, minimisability gap of the logistic loss, see `minimizability_gap`.
        target_gap: $\mathcal M_{01}\ge0$, that of the error.
        num_classes: $C\ge2$.
        bound: $\mathcal B>0$, a bound that holds for all scores of the hypothesis set.

    Returns:
        Bound on the error above the best in the hypothesis set; the common shape of the first three.

    Raises:
        ValueError: a negative excess or gap, shapes that do not broadcast, fewer than two classes, a bound that is not
            positive.

    Source: :prf:ref:`hc-transfer` with :prf:ref:`hc-bounded`.

    >>> h_consistency_bound(0.0, 0.6564, 0.2).round(decimals=3)
    tensor(0.7880, dtype=torch.float64)
    """
    names = ("surrogate_excess", "surrogate_gap", "target_gap")
    excess, gap, target = read_each(names, (surrogate_excess, surrogate_gap, target_gap))
    return inverse_logistic_transform(excess + gap, num_classes, bound) - target


def _above_dead_zone(distance: Tensor, classes: int, limit: float) -> Tensor:
    """The transform at t0 + distance, with small relative error also at small distances."""
    t0 = logistic_dead_zone(classes, limit)
    eps = math.exp(-2 * limit)
    top, bottom = (1 + t0) / 2, (1 - t0) / 2  # the coin (N - 1) / N, and 1 / N
    h = distance / 2
    if t0 == 0:
        curved = _two_classes(distance)
    else:
        left = (bottom - h).clamp_min(0)
        shortfall = (-h / bottom).clamp_min(-1)
        curved = (top + h) * torch.log1p(h / top) + torch.where(left > 0, left * torch.log1p(shortfall), 0.0)
        curved = curved.clamp_min(0)
    if math.isinf(limit):
        return curved
    size = 2 + (classes - 2) * eps
    turn = (size - 1 - eps) / (size - 1 + eps)
    straight = math.log(size / (size - 1 + eps)) - (1 - t0 - distance) * limit
    return torch.where(t0 + distance >= turn, straight, curved)


def _two_classes(t: Tensor) -> Tensor:
    """((1+t) log(1+t) + (1-t) log(1-t)) / 2; below one half in a form that keeps the digits of t**2 / 2."""
    low, high = t.clamp_max(0.5), t.clamp(0.5, 1)
    small = low * low.atanh() + torch.log1p(-low.square()) / 2
    large = (torch.xlogy(1 + high, 1 + high) + torch.xlogy(1 - high, 1 - high)) / 2
    return torch.where(t < 0.5, small, large)


def _slope(distance: Tensor, classes: int, limit: float) -> Tensor:
    """Derivative of the transform, positive beyond the dead zone."""
    t0 = logistic_dead_zone(classes, limit)
    top, bottom = (1 + t0) / 2, (1 - t0) / 2
    h = distance / 2
    slope = (torch.log1p(h / top) - torch.log1p((-h / bottom).clamp_min(-1))) / 2
    return slope.clamp_max(limit)
