"""Samples and features left over at an effective ridge, without subtracting what was learned from n or k."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.rf_regression.setting import Sizes
from lib.shapes import Float


def slack_of(ridge_over_gamma: Tensor, sizes: Sizes) -> Tensor:
    r"""$b_{\min}=\min(b_k,b_n)=\frac{2\delta/\Gamma}{\chi+\sqrt{\chi^2+4\delta/(k\Gamma)}}$, from positive terms."""
    gap = torch.where(sizes.width_ratio_gap.isinf(), torch.ones_like(sizes.width_ratio_gap), sizes.width_ratio_gap)
    square = gap.square() + 4 * ridge_over_gamma * sizes.inverse_k
    nothing = (square == 0) | sizes.n.isinf()
    root = torch.where(nothing, torch.ones_like(square), square).sqrt()
    return torch.where(nothing, torch.zeros_like(square), 2 * ridge_over_gamma / (gap + root))


def slack_and_slope(ridge_over_gamma: Tensor, gap: Tensor, inverse_k: Tensor) -> tuple[Tensor, Tensor]:
    r"""$b_{\min}$ and $-\mathrm db_{\min}/\mathrm d\log\Gamma$, in few operations, no gradient.

    The latter lies between $b_{\min}/2$ and $b_{\min}$. `gap` is $\chi$, any finite number where n is infinite (there
    `ridge_over_gamma` is 0, and so is $b_{\min}$).
    """
    tiny = torch.finfo(gap.dtype).tiny
    root = (gap * gap + 4 * ridge_over_gamma * inverse_k).sqrt()  # = 2 b_min / k + chi
    slack = 2 * ridge_over_gamma / (gap + root).clamp_min(tiny)
    return slack, slack * (slack * inverse_k + gap) / root.clamp_min(tiny)


@dataclass(frozen=True)
class Slacks:
    """What is left over at a given gamma: b_min, samples b_n, the shares b_n / n and b_k / k, features b_k."""

    smaller: Float[Tensor, "*batch"]
    samples: Float[Tensor, "*batch"]
    samples_share: Float[Tensor, "*batch"]
    features: Float[Tensor, "*batch"]
    features_share: Float[Tensor, "*batch"]


def slacks(smaller: Tensor, sizes: Sizes) -> Slacks:
    """All slacks from the smaller one, without subtracting what was learned from n or k."""
    endless_n, endless_k = sizes.n.isinf(), sizes.k.isinf()
    finite_n = torch.where(endless_n, torch.ones_like(sizes.n), sizes.n)
    samples_more = torch.where(endless_n, torch.zeros_like(sizes.n), sizes.samples_surplus)
    features_more = torch.where(endless_k, torch.zeros_like(sizes.k), sizes.features_surplus)
    samples, features = smaller + samples_more, smaller + features_more
    samples_share, features_share = samples / finite_n, features * sizes.inverse_k
    one, infinity = torch.ones_like(samples), torch.full_like(samples, torch.inf)
    return Slacks(
        smaller=smaller,
        samples=torch.where(endless_n, infinity, samples),
        samples_share=torch.where(endless_n, one, samples_share),
        features=torch.where(endless_k, infinity, features),
        features_share=torch.where(endless_k, one, features_share),
    )
