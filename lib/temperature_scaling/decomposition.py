"""The distance between true and predicted probabilities, split into what a map of predictions can mend and the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, read_size, require, require_shape, shared_kind
from lib.shapes import Float, Int, Real
from lib.temperature_scaling.setting import read_classes, read_probs


@dataclass(frozen=True)
class KLDecomposition:
    """Mean divergence `total` of predictions from the truth, and its parts (nats; see `kl_decomposition`)."""

    total: Float[Tensor, "*batch"]
    calibration: Float[Tensor, "*batch"]
    grouping: Float[Tensor, "*batch"]


def kl_decomposition(
    probs: Real[Tensor, "*#batch n k"] | ArrayLike,
    posterior: Real[Tensor, "*#batch n k"] | ArrayLike,
    group: Int[Tensor, "*#batch n"] | ArrayLike,
    n_groups: int,
    weight: Real[Tensor, "*#batch n"] | ArrayLike | None = None,
) -> KLDecomposition:
    r"""Split the mean divergence $\mathbb E\,\mathrm{KL}(p\,\|\,\hat p)$ by the level sets of the prediction.

    With $\bar p=\mathbb E[p\mid\hat p]$, the true class frequencies where the prediction is $\hat p$,

    $$ \mathbb E\,\mathrm{KL}(p\,\|\,\hat p)=\underbrace{\mathbb E\,\mathrm{KL}(\bar p\,\|\,\hat p)}_{\rm calibration}
    +\underbrace{\mathbb E\,\mathrm{KL}(p\,\|\,\bar p)}_{\rm grouping}. $$

    No map of the prediction can change the second part.

    Args:
        probs: predictions $\hat p$, equal within a group, shape (*batch, n, k).
        posterior: true probabilities p, shape (*batch, n, k).
        group: number of the level set of each row, from 0 to n_groups - 1, shape (*batch, n).
        n_groups: how many level sets.
        weight: mass of each row, >= 0, shape (*batch, n); equal by default. Scaled to sum to 1.

    Returns:
        `total`, `calibration` and `grouping`, each (*batch,). The parts add up to the total where predictions are equal
        within groups.

    Raises:
        ValueError: probabilities outside [0, 1] or rows that do not sum to 1, groups outside the range, a negative
            weight or none that is positive, shapes that do not fit.

    Source: Kull and Flach (ECML 2015), Novel decompositions of proper scoring rules.

    >>> kl_decomposition([[0.5, 0.5]] * 2, [[1.0, 0.0], [0.5, 0.5]], [0, 0], 1).grouping.round(decimals=4)
    tensor(0.2158, dtype=torch.float64)
    """
    like = shared_kind(probs, posterior, weight)
    q, p = read_probs("probs", probs, like), read_probs("posterior", posterior, like)
    read_size("n_groups", n_groups, 1)
    require_shape("posterior", p, p.shape[-2:] == q.shape[-2:], f"(*batch, {q.shape[-2]}, {q.shape[-1]}) as probs")
    n = q.shape[-2]
    g = read_classes("group", group, n_groups, n, q)
    w = torch.ones_like(q[..., 0]) if weight is None else as_float("weight", weight, like=like)
    require_shape("weight", w, w.ndim >= 1 and w.shape[-1] == n, f"(*batch, {n}), a mass for every row")
    require("weight", (w >= 0) & w.isfinite(), "finite numbers >= 0", w)
    whole = w.sum(-1, keepdim=True)
    require("weight", whole > 0, "a positive sum", whole)
    batch = broadcast_batch(probs=q.shape[:-2], posterior=p.shape[:-2], group=g.shape[:-1], weight=w.shape[:-1])
    q, p = (x.expand(*batch, -1, -1) for x in (q, p))
    g, w = g.expand(*batch, -1), (w / whole).expand(*batch, -1)

    rows = g.unsqueeze(-1).expand(p.shape)
    empty = torch.zeros(*batch, n_groups, p.shape[-1], dtype=p.dtype, device=p.device)
    sums = empty.scatter_add(-2, rows, w.unsqueeze(-1) * p)
    mean = sums / sums.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    told = mean.gather(-2, rows)
    return KLDecomposition(*(_divergence(*pair, w) for pair in ((p, q), (told, q), (p, told))))


def _divergence(p: Tensor, q: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of KL(p || q) over rows; zero terms where p is zero, infinite where only q is."""
    each = (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)
    return torch.where(weight > 0, weight * each, 0).sum(-1)
