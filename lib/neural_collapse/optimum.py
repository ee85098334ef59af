"""The unconstrained-features model: its exact optimum, and the time gradient flow takes towards infinity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, read_count, read_positive, require, shared_kind
from lib.neural_collapse.setting import broadcast
from lib.shapes import Float, Real

LARGEST_GAP = 60.0
TERMS = 240  # of the exponential integral's series, enough up to the largest gap


@dataclass(frozen=True)
class UFMOptimum:
    """Logit gap, norms of each row of head and features, probability of the true class, and the penalised loss."""

    gap: Float[Tensor, "*batch"]
    weight_norm: Float[Tensor, "*batch"]
    feature_norm: Float[Tensor, "*batch"]
    probability: Float[Tensor, "*batch"]
    loss: Float[Tensor, "*batch"]


@dataclass(frozen=True)
class Layer:
    """Checked numbers of a balanced last layer, all of one shape; `strength` is the effective regularisation."""

    classes: Float[Tensor, "*batch"]
    ratio: Float[Tensor, "*batch"]  # sqrt(n_c lambda_H / lambda_W): squared norm of the head's rows over the features'
    strength: Float[Tensor, "*batch"]  # sqrt(n_c lambda_W lambda_H)


def read_layer(
    num_classes: Tensor | ArrayLike,
    samples_per_class: Tensor | ArrayLike,
    lambda_w: Tensor | ArrayLike,
    lambda_h: Tensor | ArrayLike,
    like: Tensor,
) -> Layer:
    """Classes, samples of each, and the two weight decays."""
    classes, samples, w, h = broadcast(
        num_classes=read_count("num_classes", num_classes, like, 2),
        samples_per_class=read_count("samples_per_class", samples_per_class, like, 1),
        lambda_w=read_positive("lambda_w", lambda_w, like),
        lambda_h=read_positive("lambda_h", lambda_h, like),
    )
    n, w, h = samples.sqrt(), w.sqrt(), h.sqrt()  # one by one: the product of tiny decays would underflow
    return Layer(classes, n * h / w, n * w * h)


def gap_at(strength: Tensor, classes: Tensor) -> Tensor:
    r"""The gap at which cross-entropy pulls with a given strength: $\log(1/\text{strength}-C+1)$, or 0."""
    return torch.log1p((1 / strength - classes).clamp_min(0))


def ufm_optimum(
    num_classes: Real[Tensor, "*#batch"] | ArrayLike,
    samples_per_class: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_w: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_h: Real[Tensor, "*#batch"] | ArrayLike,
) -> UFMOptimum:
    r"""Global minimum of cross-entropy over head and free features, with weight decay on both.

    $\min\frac1n\sum_i\mathrm{CE}(Wh_i,y_i)+\frac{\lambda_W}2\|W\|^2+\frac{\lambda_H}2\|H\|^2$ with $n_{\rm c}$ samples
    of each class and at least C - 1 dimensions. With $\lambda_{\rm eff}=\sqrt{n_{\rm c}\lambda_W\lambda_H}$ the gap is
    $$ g=\log\Big(\frac1{\lambda_{\rm eff}}-C+1\Big)\ \text{ if }\lambda_{\rm eff}C<1,\quad\text{else }0, $$
    $\|W_j\|^2=\sqrt{n_{\rm c}\lambda_H/\lambda_W}\,\frac{C-1}Cg$ and
    $\|h_i\|^2=\sqrt{\lambda_W/(n_{\rm c}\lambda_H)}\,\frac{C-1}Cg$.

    Args:
        num_classes: C, at least 2; all broadcast to (*batch,).
        samples_per_class: $n_{\rm c}$, at least 1.
        lambda_w: weight decay of the head, above 0.
        lambda_h: weight decay of the features, above 0.

    Returns:
        `UFMOptimum`, each (*batch,): the gap, norms of one row of W and of one feature, the probability of the true
        class and the objective's least value. All zero, 1/C and log C where the decay wins.

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: after Zhu, Ding, Zhou, Li, You, Sulam and Qu (2021), A geometric analysis of neural collapse with
    unconstrained features; the explicit norms are an own derivation.

    >>> best = ufm_optimum(10, 5, 5e-3, [5e-4, 1.0])
    >>> best.gap, best.probability
    (tensor([5.6126, 0.0000], dtype=torch.float64), tensor([0.9682, 0.1000], dtype=torch.float64))
    """
    like = shared_kind(num_classes, samples_per_class, lambda_w, lambda_h)
    layer = read_layer(num_classes, samples_per_class, lambda_w, lambda_h, like)
    others = layer.classes - 1
    gap = gap_at(layer.strength, layer.classes)
    size = others / layer.classes * gap
    odds = gap - others.log()
    loss = torch.nn.functional.softplus(-odds) + layer.strength * others * gap
    return UFMOptimum(gap, _root(layer.ratio * size), _root(size / layer.ratio), torch.sigmoid(odds), loss)


def _root(x: Tensor) -> Tensor:
    """Square root with the derivative zero at zero, where the decay has won."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, torch.ones_like(x)).sqrt(), torch.zeros_like(x))


def gap_flow_time(
    gap: Real[Tensor, "*#batch"] | ArrayLike,
    initial_gap: Real[Tensor, "*#batch"] | ArrayLike,
    num_classes: Real[Tensor, "*#batch"] | ArrayLike,
    samples_per_class: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*out"]:
    r"""Time that gradient flow of cross-entropy, without decay, takes from one gap to another at collapse.

    On $W=\omega\mathcal E$, $h_i=\eta\mathcal E_{y_i}$ with $\omega=\sqrt{n_{\rm c}}\,\eta$ the gap obeys
    $\dot g=\frac2{\sqrt{n_{\rm c}}}\frac g{e^g+C-1}$, so that
    $$ t=\frac{\sqrt{n_{\rm c}}}2\Big[C\log\frac g{g_0}+\sum_{k\ge1}\frac{g^k-g_0^k}{k\,k!}\Big]. $$

    Args:
        gap: $g$, in (0, 60]; all broadcast to (*batch,).
        initial_gap: $g_0$, in (0, 60]; above the gap the time is negative.
        num_classes: C, at least 2.
        samples_per_class: $n_{\rm c}$, at least 1.

    Returns:
        Time in units of one over the step size, shape (*batch,).

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: own derivation; compare Mixon, Parshall and Pi (2020), Neural collapse with unconstrained features.

    >>> gap_flow_time([1.0, 5.0, 10.0], 0.5, 4, 3)
    tensor([   3.0487,   40.3904, 2165.7234], dtype=torch.float64)
    """
    like = shared_kind(gap, initial_gap, num_classes, samples_per_class)
    g, start, classes, samples = broadcast(
        gap=read_positive("gap", gap, like),
        initial_gap=read_positive("initial_gap", initial_gap, like),
        num_classes=read_count("num_classes", num_classes, like, 2),
        samples_per_class=read_count("samples_per_class", samples_per_class, like, 1),
    )
    require("gap", g <= LARGEST_GAP, f"at most {LARGEST_GAP:g}", g)
    require("initial_gap", start <= LARGEST_GAP, f"at most {LARGEST_GAP:g}", start)
    power, power_start, series = g, start, g - start
    for k in range(2, TERMS):  # all terms are positive, so nothing cancels
        power, power_start = power * (g / k), power_start * (start / k)
        series = series + (power - power_start) / k
    return samples.sqrt() / 2 * (classes * (g / start).log() + series)
