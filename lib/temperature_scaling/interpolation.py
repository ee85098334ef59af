"""Between memory and the truth: one temperature for a network that interpolates only part of the overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_count, require, shared_kind
from lib.shapes import Float, Real
from lib.temperature_scaling.setting import read_number

STEPS = 80


@dataclass(frozen=True)
class PartialInterpolation:
    """Best scaled gap `scaled_logit_gap`, its `nll` and `kl` (nats) above the truth (see `partial_interpolation`)."""

    scaled_logit_gap: Float[Tensor, "*batch"]
    nll: Float[Tensor, "*batch"]
    kl: Float[Tensor, "*batch"]


def partial_interpolation(
    overlap: Real[Tensor, "*#batch"] | ArrayLike,
    memorised: Real[Tensor, "*#batch"] | ArrayLike,
    n_classes: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    group_size: Real[Tensor, "*#batch"] | ArrayLike = 2,
) -> PartialInterpolation:
    r"""Best temperature of a classifier that repeats a training label on a share of the overlap only.

    On the share $\vartheta_{\rm m}$ of the overlap, and outside the overlap, one logit stands the gap $\Delta_o$ above
    all others; on the rest of the overlap the $C_{\rm g}$ logits of the group stand that gap above the others, which
    is right. With $u=\Delta_o/T$

    $$ \mathrm{NLL}(u)=(1-(1-\vartheta_{\rm m})\vartheta)\log(1+(C-1)e^{-u})
    +(1-\vartheta_{\rm m})\vartheta\log(C_{\rm g}+(C-C_{\rm g})e^{-u})+\vartheta_{\rm m}\vartheta(1-1/C_{\rm g})u, $$

    which is convex; bisection on its derivative finds the minimum.

    Args:
        overlap: $\vartheta$, share of each class in the common region of its group, from 0 to 1.
        memorised: $\vartheta_{\rm m}$, share of the overlap on which one training label is repeated, from 0 to 1.
        n_classes: C; all arguments broadcast.
        group_size: $C_{\rm g}$, classes of a group, a divisor of C.

    Returns:
        All (*batch,): `scaled_logit_gap` $\Delta_o/T$ at the best temperature T (infinite where nothing is memorised),
        `nll` there, and `kl`, its excess over the true probabilities.

    Raises:
        ValueError: shares outside [0, 1], numbers of classes that do not fit, shapes that do not broadcast.

    Source: own derivation.

    >>> partial_interpolation(0.4, [0.0, 0.5, 1.0], 10).kl.round(decimals=4)
    tensor([0.0000, 0.3941, 0.6626], dtype=torch.float64)
    """
    like = shared_kind(overlap, memorised, n_classes, group_size)
    share = read_number("overlap", overlap, like, 0.0, 1.0, "a share from 0 to 1")
    memory = read_number("memorised", memorised, like, 0.0, 1.0, "a share from 0 to 1")
    k, m = read_count("n_classes", n_classes, like, 2), read_count("group_size", group_size, like, 2)
    shapes = {"overlap": share.shape, "memorised": memory.shape, "n_classes": k.shape, "group_size": m.shape}
    batch = broadcast_batch(**shapes)
    require("group_size", (m <= k) & (torch.remainder(k, m) == 0), "a divisor of n_classes", m)
    share, memory, k, m = (x.expand(batch) for x in (share, memory, k, m))
    tied, wrong = (1 - memory) * share, memory * share * (1 - 1 / m)
    sure = 1 - tied

    def slope(x: Tensor) -> Tensor:  # of the NLL in u, where x = exp(-u)
        return wrong - sure * (k - 1) * x / (1 + (k - 1) * x) - tied * (k - m) * x / (m + (k - m) * x)

    low, high = torch.zeros_like(share), torch.ones_like(share)  # of exp(-u)
    for _ in range(STEPS):
        middle = (low + high) / 2
        up = slope(middle) > 0  # the gap is too large
        low, high = torch.where(up, middle, low), torch.where(up, high, middle)
    x = torch.where(wrong > 0, (low + high) / 2, torch.zeros_like(low))
    nll = sure * torch.log1p((k - 1) * x) + tied * (m + (k - m) * x).log() + torch.special.xlogy(-wrong, x)
    return PartialInterpolation(-x.log(), nll, nll - share * m.log())
