"""Training the unconstrained-features model by plain gradient descent from a random start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_whole,
    indicator,
    read_nonnegative,
    read_positive,
    read_size,
    require,
    require_shape,
    shared_kind,
)
from lib.neural_collapse.setting import read_labels
from lib.shapes import Float, Int, Real


@dataclass(frozen=True)
class UFMState:
    """Head and features after training, and the penalised loss before each step."""

    weight: Float[Tensor, "C d"]
    features: Float[Tensor, "n d"]
    loss: Float[Tensor, " steps"]


def train_ufm(
    labels: Int[Tensor, " n"] | ArrayLike,
    num_classes: int,
    dim: int,
    *,
    lambda_w: Real[Tensor, ""] | ArrayLike,
    lambda_h: Real[Tensor, ""] | ArrayLike,
    steps: int = 2000,
    step_size: float = 1.0,
    init_scale: float = 0.1,
    generator: torch.Generator | None = None,
) -> UFMState:
    r"""Full-batch gradient descent on cross-entropy over head and free features, with weight decay on both.

    $$ \frac1n\sum_i\mathrm{CE}(Wh_i,y_i)+\frac{\lambda_W}2\|W\|_F^2+\frac{\lambda_H}2\|H\|_F^2. $$

    Args:
        labels: whole numbers from 0 to C - 1, shape (n,).
        num_classes: C, at least 2.
        dim: d, at least 1.
        lambda_w: weight decay of the head, 0 or above.
        lambda_h: weight decay of the features, 0 or above.
        steps: at least 1.
        step_size: above 0.
        init_scale: standard deviation of the Gaussian start, 0 or above.
        generator: source of the start, on the device of the labels; a fixed seed of its own if none is given.

    Returns:
        `UFMState` in float64 on the device of the labels.

    Raises:
        ValueError: labels that are no whole numbers below C, a number outside its range.

    Source: the model of Mixon, Parshall and Pi (2020) and Zhu et al. (2021).

    >>> state = train_ufm([0, 1], 2, 2, lambda_w=0.01, lambda_h=0.01, steps=500)
    >>> bool(state.loss[-1] < 0.1 * state.loss[0])
    True
    """
    num_classes, dim, steps = (
        read_size(*size) for size in (("num_classes", num_classes, 2), ("dim", dim, 1), ("steps", steps, 1))
    )
    like = torch.empty(0, dtype=torch.float64, device=shared_kind(labels).device)
    whole = as_whole("labels", labels)
    rows = len(whole)
    y = read_labels(whole, rows, num_classes, like.device)
    decay_w, decay_h = (read_nonnegative(name, x, like) for name, x in (("lambda_w", lambda_w), ("lambda_h", lambda_h)))
    rate, start = read_positive("step_size", step_size, like), read_nonnegative("init_scale", init_scale, like)
    for name, number in (("lambda_w", decay_w), ("lambda_h", decay_h), ("step_size", rate), ("init_scale", start)):
        require_shape(name, number, number.ndim == 0, "one number")
    source = torch.Generator(like.device).manual_seed(0) if generator is None else generator
    weight, features = (
        start * torch.randn(size, dim, dtype=like.dtype, device=source.device, generator=source).to(like.device)
        for size in (num_classes, rows)
    )
    hot, losses = indicator(y, num_classes, like), []
    for _ in range(steps):
        log_p = (features @ weight.mT).log_softmax(-1)
        penalty = (decay_w * weight.square().sum() + decay_h * features.square().sum()) / 2
        losses.append(penalty - (hot * log_p).sum() / rows)
        residual = (log_p.exp() - hot) / rows
        by_weight, by_features = residual.mT @ features + decay_w * weight, residual @ weight + decay_h * features
        weight, features = weight - rate * by_weight, features - rate * by_features
    loss = torch.stack(losses)
    require("step_size", loss.isfinite(), "small enough for a finite loss", rate)
    return UFMState(weight, features, loss)
