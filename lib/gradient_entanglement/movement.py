"""How one gradient step moves both log-probabilities, and when it moves them as intended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_finite, read_nonnegative, require_positive
from lib.gradient_entanglement.gram import PairGram
from lib.shapes import Bool, Float, Int, Real


@dataclass(frozen=True)
class LogProbChanges:
    """Change of the log-probability of the `chosen` and the `rejected` response (or of their tokens), in nats."""

    chosen: Float[Tensor, "*batch"]
    rejected: Float[Tensor, "*other"]

    @property
    def margin(self) -> Float[Tensor, "*batch"]:
        """Change of the margin, chosen minus rejected."""
        return self.chosen - self.rejected


@dataclass(frozen=True)
class GradientCondition:
    """Verdict of first order: `holds` if the chosen response does not fall and the rejected one does not rise.

    `bound` is the largest inner product at which it holds, up to rounding; `regime` is 0 as intended, 1 both rise, 2
    both fall, and 3 (the chosen falls, the rejected rises), which no two gradients can bring about.
    """

    holds: Bool[Tensor, "*batch"]
    chosen_up: Bool[Tensor, "*batch"]
    rejected_down: Bool[Tensor, "*batch"]
    bound: Float[Tensor, "*batch"]
    regime: Int[Tensor, "*batch"]


@dataclass(frozen=True)
class WeightRatioBand:
    r"""Ratios $d_w/d_l$ from `lower` to `upper` satisfy the condition; `center` is their geometric mean."""

    lower: Float[Tensor, "*batch"]
    upper: Float[Tensor, "*batch"]
    center: Float[Tensor, "*batch"]


def log_prob_changes(
    gram: PairGram,
    d_w: Real[Tensor, "*#batch"] | ArrayLike,
    d_l: Real[Tensor, "*#batch"] | ArrayLike,
    lr: Real[Tensor, "*#batch"] | ArrayLike,
) -> LogProbChanges:
    r"""First-order change of both log-probabilities in one step of gradient descent on their pair.

    $$ \Delta\ell_w=\varepsilon\,(d_w\|g_w\|^2-d_l\langle g_w,g_l\rangle),\qquad
    \Delta\ell_l=\varepsilon\,(d_w\langle g_w,g_l\rangle-d_l\|g_l\|^2). $$

    Args:
        gram: inner products of the pair's gradients, shape (*batch,).
        d_w: weight of the chosen response in the objective, any sign; all broadcast to (*batch,).
        d_l: weight of the rejected response.
        lr: step size $\varepsilon\ge0$ of plain gradient descent.

    Returns:
        `chosen`, `rejected` and their difference `margin`, in nats, shape (*batch,); the error is of order lr².

    Raises:
        ValueError: a weight that is not finite, a negative step, shapes that do not broadcast.

    Source: Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> log_prob_changes(PairGram(1.0, 2.0, 5.0), d_w=1.0, d_l=1.0, lr=0.1)  # both fall
    LogProbChanges(chosen=tensor(-0.1000, dtype=torch.float64), rejected=tensor(-0.3000, dtype=torch.float64))
    """
    up, down = read_finite("d_w", d_w, like=gram.ww), read_finite("d_l", d_l, like=gram.ww)
    step = read_nonnegative("lr", lr, gram.ww)
    broadcast_batch(gram=gram.ww.shape, d_w=up.shape, d_l=down.shape, lr=step.shape)
    return LogProbChanges(step * (up * gram.ww - down * gram.wl), step * (up * gram.wl - down * gram.ll))


def gradient_condition(
    gram: PairGram, d_w: Real[Tensor, "*#batch"] | ArrayLike, d_l: Real[Tensor, "*#batch"] | ArrayLike
) -> GradientCondition:
    r"""Whether a small step raises the chosen and lowers the rejected response.

    The chosen one does not fall if and only if $\langle g_w,g_l\rangle\le\frac{d_w}{d_l}\|g_w\|^2$, the rejected one
    does not rise if and only if $\langle g_w,g_l\rangle\le\frac{d_l}{d_w}\|g_l\|^2$. By Cauchy and Schwarz both
    cannot fail. Where they do by rounding, the gradients are parallel and the ratio is the only one at which both hold,
    with equality; so both count as holding.

    Args:
        gram: inner products of the pair's gradients, shape (*batch,).
        d_w: weight of the chosen response, above 0; all broadcast to (*batch,).
        d_l: weight of the rejected response, above 0.

    Returns:
        `GradientCondition` of shape (*batch,).

    Raises:
        ValueError: a weight that is not positive and finite, shapes that do not broadcast.

    Source: Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> gradient_condition(PairGram(1.0, 2.0, 5.0), [1.0, 2.2, 4.0], 1.0).regime
    tensor([2, 0, 1])
    """
    up, down = read_finite("d_w", d_w, like=gram.ww), read_finite("d_l", d_l, like=gram.ww)
    require_positive("d_w", up)
    require_positive("d_l", down)
    broadcast_batch(gram=gram.ww.shape, d_w=up.shape, d_l=down.shape)
    up_to, down_to = up / down * gram.ww, down / up * gram.ll
    bound = torch.minimum(up_to, down_to)
    chosen_up, rejected_down = gram.wl <= up_to, gram.wl <= down_to
    rounded = ~chosen_up & ~rejected_down & _possible(gram)
    chosen_up, rejected_down = chosen_up | rounded, rejected_down | rounded
    regime = 2 * (~chosen_up).long() + (~rejected_down).long()
    return GradientCondition(chosen_up & rejected_down, chosen_up, rejected_down, bound, regime)


def weight_ratio_band(gram: PairGram) -> WeightRatioBand:
    r"""The ratios $d_w/d_l$ for which the gradient condition holds.

    $\frac{\langle g_w,g_l\rangle}{\|g_w\|^2}\le\frac{d_w}{d_l}\le\frac{\|g_l\|^2}{\langle g_w,g_l\rangle}$ if the inner
    product is positive, and every positive ratio otherwise. By Cauchy and Schwarz the band is never empty; its
    geometric centre is $\|g_l\|/\|g_w\|$. For parallel gradients it is a single ratio; where rounding puts its ends in
    the wrong order, they are exchanged.

    Args:
        gram: inner products of the pair's gradients, shape (*batch,).

    Returns:
        `lower` (0 where every ratio works), `upper` (infinite there) and `center`, shape (*batch,).

    Source: own extension of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> weight_ratio_band(PairGram(1.0, 2.0, 5.0))
    WeightRatioBand(lower=tensor(2., dtype=torch.float64), upper=tensor(2.5000, dtype=torch.float64),
                    center=tensor(2.2361, dtype=torch.float64))
    """
    entangled = gram.wl > 0
    inner = torch.where(entangled, gram.wl, torch.ones_like(gram.wl))
    lower = torch.where(entangled, inner / gram.ww, torch.zeros_like(inner))
    upper = torch.where(entangled, gram.ll / inner, torch.full_like(inner, torch.inf))
    rounded = (lower > upper) & _possible(gram)
    lower, upper = torch.where(rounded, upper, lower), torch.where(rounded, lower, upper)
    return WeightRatioBand(lower, upper, gram.ll.sqrt() / gram.ww.sqrt())


def _possible(gram: PairGram) -> Bool[Tensor, "*batch"]:
    """Whether a positive inner product obeys Cauchy and Schwarz up to the rounding of all that is compared."""
    slack = 1 + 8 * torch.finfo(gram.wl.dtype).eps
    return gram.wl / gram.ww <= slack * (gram.ll / gram.wl)  # quotients, because squares would overflow


def normalized_weights(gram: PairGram) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    r"""Weights $d_w=1/\|g_w\|$ and $d_l=1/\|g_l\|$, which lie in the centre of the band.

    Args:
        gram: inner products of the pair's gradients, shape (*batch,).

    Returns:
        The two weights, shape (*batch,); infinite where a gradient is zero.

    Source: Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828 (pairwise normalised gradients).

    >>> d_w, d_l = normalized_weights(PairGram(4.0, 2.0, 16.0))
    >>> float(d_w), float(d_l)
    (0.5, 0.25)
    """
    return gram.ww.rsqrt(), gram.ll.rsqrt()
