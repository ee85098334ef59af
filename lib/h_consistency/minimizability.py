"""The minimisability gap: what a hypothesis set loses because it cannot be best at every point at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_shape, shared_kind
from lib.shapes import Float, Real


def minimizability_gap(
    best_in_class_risk: Real[Tensor, "*#batch"] | ArrayLike,
    conditional_optimal_risk: Real[Tensor, "*#batch N"] | ArrayLike,
    weights: Real[Tensor, " N"] | ArrayLike,
) -> Float[Tensor, "*batch"]:
    r"""Best risk in the hypothesis set minus the mean of the best risks at each point, $\mathcal M(\mathcal H)$.

    Args:
        best_in_class_risk: $\inf_{f\in\mathcal H}\mathcal E(f)$, shape (*batch,).
        conditional_optimal_risk: $\inf_{f\in\mathcal H}\mathcal C(f(x),p(x))$ at N points x, shape (*batch, N).
        weights: probabilities of the points, shape (N,), summing to one.

    Returns:
        Shape (*batch,), in the unit of the risks; not negative where the inputs are what they say.

    Raises:
        ValueError: values that are not finite, weights that are negative or do not sum to one, shapes that do not fit.

    Source: definition, Awasthi, Mao, Mohri and Zhong (2022).

    >>> minimizability_gap(0.9, [0.5, 0.7], [0.75, 0.25])
    tensor(0.3500, dtype=torch.float64)
    """
    like = shared_kind(best_in_class_risk, conditional_optimal_risk, weights)
    best = as_float("best_in_class_risk", best_in_class_risk, like=like)
    risk = as_float("conditional_optimal_risk", conditional_optimal_risk, like=like)
    w = as_float("weights", weights, like=like)
    require_shape("weights", w, w.ndim == 1 and w.shape[0] > 0, "(N,) with N >= 1")
    points = w.shape[0]
    require_shape("conditional_optimal_risk", risk, risk.ndim >= 1 and risk.shape[-1] == points, f"(*batch, {points})")
    require("best_in_class_risk", best.isfinite(), "a finite number", best)
    require("conditional_optimal_risk", risk.isfinite(), "finite numbers", risk)
    require("weights", w >= 0, "numbers >= 0", w)
    total = w.sum()
    require("weights", (total - 1).abs() <= (1e-6 if w.dtype == torch.float64 else 1e-4), "a sum of one", total)
    broadcast_batch(best_in_class_risk=best.shape, conditional_optimal_risk=risk.shape[:-1])
    return best - (risk * w).sum(-1)
