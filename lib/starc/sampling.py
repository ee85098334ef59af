"""The distance from sampled canonical rewards, and what sampling noise does to it."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_nonnegative, require_shape, shared_kind
from lib.shapes import Float, Real


def sampled_distance(
    C1: Real[Tensor, "*#batch n m"] | ArrayLike,
    C2: Real[Tensor, "*#batch n m"] | ArrayLike,
    weights: Real[Tensor, "*#batch n"] | ArrayLike | None = None,
    debias: bool = True,
) -> Float[Tensor, "*out"]:
    r"""Standardised $L_2$ distance $\sqrt{2-2\cos\theta}$ of two rewards of which only noisy copies are seen.

    At n transitions m replicates of each canonicalised reward are given. Averaging them leaves noise of some variance
    $\tau^2$ (that of one replicate divided by m), which lowers the cosine: identical rewards appear at
    $\sqrt{2-2\zeta}$ with $\zeta=\overline{c^2}/(\overline{c^2}+\tau^2)$. The remedy is to average all inner products
    over pairs of *different* replicates, which is unbiased, also where replicate j of both rewards shares its
    samples.

    Args:
        C1: replicates of the first canonical reward, shape (*batch, n, m).
        C2: of the second one, shape (*batch, n, m).
        weights: of the n points, none negative, shape (*batch, n); equal by default.
        debias: whether to leave out the products of a replicate with itself.

    Returns:
        Numbers in [0, 2], shape (*batch,); the cosine is cut to [-1, 1]. A debiased square that is not positive counts
        as norm zero: distance 1 from others, 0 from its like.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, negative weights or only zeros, fewer than 2
            replicates with `debias`.

    Source: own extension of Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257.

    >>> sampled_distance([[1.0, 1.0], [2.0, 2.0]], [[2.0, 2.0], [-1.0, -1.0]]).round(decimals=6)
    tensor(1.4142, dtype=torch.float64)
    """
    like = shared_kind(C1, C2, weights)
    first, second = as_float("C1", C1, like=like), as_float("C2", C2, like=like)
    require_shape("C1", first, first.ndim >= 2 and first.numel() > 0, "(*batch, n, m)")
    points, replicates = first.shape[-2:]
    fits = second.ndim >= 2 and second.shape[-2:] == first.shape[-2:]
    require_shape("C2", second, fits, f"(*batch, {points}, {replicates}) as C1 has it")
    if debias and replicates < 2:
        raise ValueError(f"C1: got {replicates} replicate, want at least 2 to remove the bias")
    for name, x in (("C1", first), ("C2", second)):
        require(name, x.isfinite(), "finite numbers", x)
    w = torch.ones_like(first[..., 0]) if weights is None else as_float("weights", weights, like=like)
    require_shape("weights", w, w.ndim >= 1 and w.shape[-1] == points, f"(*batch, {points})")
    require_nonnegative("weights", w)
    require("weights", (w > 0).any(-1), "at least one positive weight", w.sum(-1))
    batch = broadcast_batch(C1=first.shape[:-2], C2=second.shape[:-2], weights=w.shape[:-1])

    def product(x: Tensor, y: Tensor) -> Tensor:
        all_pairs = x.sum(-1) * y.sum(-1)
        if debias:
            return (w * (all_pairs - (x * y).sum(-1))).sum(-1) / (replicates * (replicates - 1))
        return (w * all_pairs).sum(-1) / replicates**2

    squares = [product(x, x) for x in (first, second)]
    zero_1, zero_2 = (square <= 0 for square in squares)
    safe = [torch.where(square <= 0, torch.ones_like(square), square).sqrt() for square in squares]
    units = [x / norm[..., None, None] for x, norm in zip((first, second), safe, strict=True)]
    apart = units[0] - units[1]
    square = product(apart, apart).clamp(0, 4)  # 2 - 2 cos, exact for equal samples
    distance = torch.where(square > 0, torch.where(square > 0, square, torch.ones_like(square)).sqrt(), 0)
    distance = torch.where(zero_1 | zero_2, torch.ones_like(distance), distance)
    return torch.where(zero_1 & zero_2, torch.zeros_like(distance), distance).expand(batch)
