"""Log-probability of a response: the sum of its tokens'."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, read_whole, require, require_shape
from lib.gradient_entanglement.setting import read_mask, require_vocabulary
from lib.shapes import Bool, Float, Int, Real

REDUCTIONS = ("sum", "mean", "none")


def sequence_logps(
    logits: Real[Tensor, "*#batch T V"] | ArrayLike,
    tokens: Int[Tensor, "*#batch T"] | ArrayLike,
    mask: Bool[Tensor, "*#batch T"] | Real[Tensor, "*#batch T"] | ArrayLike | None = None,
    *,
    reduction: str = "sum",
) -> Float[Tensor, "*out"] | Float[Tensor, "*out T"]:
    r"""Log-probability of a response, $\ell=\sum_i\log p_\theta(y_i\mid x,y_{<i})$.

    Args:
        logits: scores of the vocabulary at each position, shape (*batch, T, V).
        tokens: the token at the same position, not shifted against `logits`, shape (*batch, T); leading axes of both
            broadcast.
        mask: weight of each token, >= 0, shape (*batch, T): 1 for tokens of the response and 0 for prompt and padding,
            all ones by default. A token under a 0 may be anything.
        reduction: "sum" of weighted tokens, "mean" (that over the sum of the weights) or "none" (a weighted number a
            token, 0 where masked).

    Returns:
        Nats, shape (*batch,), or (*batch, T) for "none".

    Raises:
        ValueError: shapes that do not fit, a logit that is NaN or plus infinity, a token outside the vocabulary, a mask
            that leaves no token for a mean, another reduction.

    Source: Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828 (setting).

    >>> sequence_logps([[0.0, 0.0], [0.0, 0.0]], [0, 1], [True, False])
    tensor(-0.6931, dtype=torch.float64)
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: got {reduction!r}, want one of {', '.join(map(repr, REDUCTIONS))}")
    scores = as_float("logits", logits)
    require_shape("logits", scores, scores.ndim >= 2 and scores.shape[-1] >= 1, "(*batch, T, V)")
    require("logits", scores < torch.inf, "numbers below infinity", scores)
    chosen = read_whole("tokens", tokens, scores.device)
    length = scores.shape[-2]
    require_shape("tokens", chosen, chosen.shape[-1:] == (length,), f"(*batch, {length}) as in logits")
    batch = broadcast_batch(logits=scores.shape[:-2], tokens=chosen.shape[:-1])
    weights = read_mask("mask", mask, torch.Size((*batch, length)), scores)
    require_vocabulary("tokens", chosen, scores.shape[-1], unused=weights == 0)
    chosen = torch.where(weights > 0, chosen, torch.zeros_like(chosen))
    # a number for each row of logits: indices broadcast without a copy of the logits, also on the way back
    rows = torch.arange(scores.shape[:-1].numel(), device=scores.device).reshape(scores.shape[:-1])
    logp = scores.log_softmax(-1).flatten(0, -2)[rows, chosen]
    logp = torch.where(weights > 0, logp * weights, torch.zeros_like(logp))
    if reduction == "none":
        return logp
    if reduction == "sum":
        return logp.sum(-1)
    count = weights.sum(-1)
    require("mask", count > 0, "at least one token for a mean", count)
    return logp.sum(-1) / count
