"""One point of the input space: conditional risk and regret of the logistic loss and of the error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, require, shared_kind, through_numpy
from lib.h_consistency.setting import read_bound, read_probs, read_scores
from lib.shapes import Float, Int, Real

STEPS = 80  # halvings of a bracket that is at most twice the bound wide


@dataclass(frozen=True)
class ConditionalOptimum:
    """Scores `(*batch, C)` that minimise the conditional logistic risk, and the minimal `risk` in nats `(*batch)`."""

    scores: Float[Tensor, "*batch C"]
    risk: Float[Tensor, "*batch"]


def logistic_risk(
    scores: Real[Tensor, "*#batch C"] | ArrayLike, probs: Real[Tensor, "*#batch C"] | ArrayLike
) -> Float[Tensor, "*batch"]:
    r"""Conditional risk of the logistic loss, $\log\sum_ye^{o_y}-\sum_yp_yo_y$, in nats.

    Args:
        scores: $o$, shape (*batch, C); minus infinity is a score, and costs nothing where the probability is zero.
        probs: $p$, probabilities of the classes at this point, shape (*batch, C).

    Returns:
        Shape (*batch,), the batch axes broadcast.

    Raises:
        ValueError: probabilities that are negative or do not sum to one, scores that are NaN or plus infinity or all
            minus infinity, or shapes that do not fit.

    Source: definition; the mean of the negative log-likelihood of a softmax.

    >>> logistic_risk([0.0, 0.0], [0.3, 0.7])
    tensor(0.6931, dtype=torch.float64)
    """
    o, p = _scores_and_probs(scores, probs)
    return _risk(o, p)


def zero_one_regret(
    scores: Real[Tensor, "*#batch C"] | ArrayLike, probs: Real[Tensor, "*#batch C"] | ArrayLike
) -> Float[Tensor, "*batch"]:
    r"""Error above the least possible at one point, $\max_yp_y-p_{\hat y}$ with $\hat y=\arg\max_yo_y$.

    Ties are counted pessimistically: of the classes that share the top score, the least probable is predicted.

    Args:
        scores: $o$, shape (*batch, C).
        probs: $p$, shape (*batch, C).

    Returns:
        Shape (*batch,), in [0, 1].

    Raises:
        ValueError: as in `logistic_risk`.

    Source: definition.

    >>> zero_one_regret([[1.0, 0.0], [1.0, 1.0]], [0.3, 0.7])
    tensor([0.4000, 0.4000], dtype=torch.float64)
    """
    o, p = _scores_and_probs(scores, probs)
    predicted = torch.where(o == o.amax(-1, keepdim=True), p, torch.inf).amin(-1)
    return p.amax(-1) - predicted


def conditional_optimum(
    probs: Real[Tensor, "*batch C"] | ArrayLike, bound: float | int = math.inf
) -> ConditionalOptimum:
    r"""Minimiser and minimum of the conditional logistic risk over scores in $[-\mathcal B,\mathcal B]^C$.

    Without a bound the scores are $\log p_y$ and the minimum is the entropy. In the box they are
    $\mathrm{clip}(\log p_y+\log Z,-\mathcal B,\mathcal B)$, where $Z$ solves
    $Z=\sum_y\mathrm{clip}(p_yZ,e^{-\mathcal B},e^{\mathcal B})$.

    Args:
        probs: $p$, shape (*batch, C).
        bound: $\mathcal B>0$, on every score; infinity for none.

    Returns:
        Scores (*batch, C), unique up to a shift where none is clipped, and the risk (*batch,).

    Raises:
        ValueError: probabilities as in `logistic_risk`, or a bound that is not positive.

    Source: own derivation, :prf:ref:`hc-box-optimum`.

    >>> conditional_optimum([0.9, 0.1, 0.0], bound=1.0).scores.round(decimals=4)
    tensor([ 1., -1., -1.], dtype=torch.float64)
    """
    p, limit = read_probs(probs), read_bound(bound)
    scores = _best_scores(p, limit)
    return ConditionalOptimum(scores, _risk(scores, p))


def calibration_gap(
    probs: Real[Tensor, "*#batch C"] | ArrayLike,
    label: Int[Tensor, "*#batch"] | ArrayLike,
    bound: float | int = math.inf,
) -> Float[Tensor, "*batch"]:
    r"""Least logistic regret of scores that predict a given class $j$, that is, $o_j\ge o_k$ for all $k$.

    The class $j$ and all classes that are more probable than their common mean are pooled: each gets the mean of their
    probabilities. The constrained minimiser is the free minimiser for the pooled probabilities.

    Args:
        probs: $p$, shape (*batch, C).
        label: $j$, the predicted class, a whole number or whole numbers of shape (*batch,).
        bound: $\mathcal B>0$, on every score.

    Returns:
        Regret in nats, shape (*batch,); zero if the class is a most probable one.

    Raises:
        ValueError: as in `conditional_optimum`, or a label that is no whole number in [0, C).

    Source: own derivation, :prf:ref:`hc-pooling`.

    >>> calibration_gap([0.6, 0.4], 1)
    tensor(0.0201, dtype=torch.float64)
    """
    p, limit = read_probs(probs), read_bound(bound)
    j = _read_label(label, p)
    batch = broadcast_batch(probs=p.shape[:-1], label=j.shape)
    p, j = p.expand(*batch, p.shape[-1]), j.expand(batch).unsqueeze(-1)
    own = torch.arange(p.shape[-1], device=p.device) == j
    others = (
        torch.where(own, torch.full_like(p, 2.0), p).sort(-1, descending=True).values.narrow(-1, 1, p.shape[-1] - 1)
    )
    ranked = torch.cat((p.gather(-1, j), others), -1)
    ranks = torch.arange(1, p.shape[-1] + 1, device=p.device, dtype=p.dtype)
    pooled = (ranked.cumsum(-1) / ranks).amax(-1, keepdim=True)  # the largest prefix mean
    in_pool = own | (p > pooled)
    if math.isinf(limit):
        return torch.where(in_pool, torch.xlogy(p, p) - torch.xlogy(p, pooled), 0.0).sum(-1).clamp_min(0)
    tied = _best_scores(torch.where(in_pool, pooled, p), limit)
    return (_risk(tied, p) - _risk(_best_scores(p, limit), p)).clamp_min(0)


def _risk(o: Tensor, p: Tensor) -> Tensor:
    top = o.amax(-1, keepdim=True)
    shifted = o - top  # probabilities sum to one: a shift changes nothing but rounding
    impossible = p == 0
    return shifted.logsumexp(-1) - torch.where(impossible, 0.0, p * torch.where(impossible, 0.0, shifted)).sum(-1)


def _best_scores(p: Tensor, limit: float) -> Tensor:
    """The clipped scores; log Z lies between log C - limit and log C + limit, and is found by bisection."""
    if math.isinf(limit):
        return p.log()
    log_p = torch.where(p > 0, torch.where(p > 0, p, 1.0).log(), -math.inf)  # its derivative is not NaN at zero
    centre = math.log(p.shape[-1])
    low = torch.full_like(p.narrow(-1, 0, 1), centre - limit)
    high = torch.full_like(low, centre + limit)
    for _ in range(STEPS):
        middle = (low + high) / 2
        above = (log_p + middle).clamp(-limit, limit).logsumexp(-1, keepdim=True) > middle
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    middle = (low + high) / 2
    return (log_p + (middle + _follow(log_p, middle, limit))).clamp(-limit, limit)


def _follow(log_p: Tensor, log_z: Tensor, limit: float) -> Tensor:
    """Zero, with the derivative of log Z: that of the equation it solves, whose slope is minus the clipped share."""
    scores = (log_p + log_z).clamp(-limit, limit)
    total = scores.logsumexp(-1, keepdim=True)
    clipped = torch.where(scores.abs() < limit, 0.0, scores.softmax(-1)).sum(-1, keepdim=True).detach()
    fixed = clipped > torch.finfo(log_p.dtype).tiny  # where nothing is clipped any Z will do
    return torch.where(fixed, (total - total.detach()) / torch.where(fixed, clipped, 1.0), 0.0)


def _scores_and_probs(scores: Tensor | ArrayLike, probs: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    like = shared_kind(scores, probs)
    p = read_probs(probs, like)
    o = read_scores(scores, p)
    batch = broadcast_batch(scores=o.shape[:-1], probs=p.shape[:-1])
    return o.expand(*batch, o.shape[-1]), p.expand(*batch, p.shape[-1])


def _read_label(label: Tensor | ArrayLike, p: Tensor) -> Tensor:
    try:
        given = torch.full((), label) if isinstance(label, int) else label
        j = given if isinstance(given, Tensor) else through_numpy(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"label: got {type(label).__name__}, want whole numbers") from error
    if j.is_floating_point() or j.is_complex() or j.dtype == torch.bool:
        raise ValueError(f"label: got {j.dtype}, want whole numbers")
    classes = p.shape[-1]
    if isinstance(label, int):  # read here: on an accelerator nobody would
        if not 0 <= label < classes:
            raise ValueError(f"label: got {label}, want a whole number from 0 to {classes - 1}")
        return torch.full((), label, dtype=torch.int64, device=p.device)
    require("label", (j >= 0) & (j < classes), f"a whole number from 0 to {classes - 1}", j)
    return j.to(device=p.device, dtype=torch.int64)
