"""What a prediction says of one point: gaps, confidence, and proper scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, require_finite
from lib.shapes import Bool, Float, Int, Real
from lib.temperature_scaling.rows import LOG2E, blocks
from lib.temperature_scaling.setting import read_labelled, read_logits, read_temperature

SEARCHED = 1 << 13  # rows that are copied at once


@dataclass(frozen=True)
class ProperScores:
    """Means over the points: `nll` in nats, `brier` from 0 to 2, `accuracy` from 0 to 1."""

    nll: Float[Tensor, "*batch"]
    brier: Float[Tensor, "*batch"]
    accuracy: Float[Tensor, "*batch"]


def logit_gap(
    logits: Real[Tensor, "*#batch n k"] | ArrayLike, labels: Int[Tensor, "*#batch n"] | ArrayLike | None = None
) -> Float[Tensor, "*out n"]:
    r"""How far a label's logit lies above all others, $o_y-\max_{s\ne y}o_s$, or the largest above the second.

    Args:
        logits: $o$, shape (*batch, n, k).
        labels: classes y, shape (*batch, n); without them, the largest minus the second largest logit.

    Returns:
        Shape (*batch, n), in units of the logits. Negative where another class is preferred.

    Raises:
        ValueError: logits that are not finite or of another shape, labels outside the classes.

    Source: definition.

    >>> logit_gap([[3.0, 1.0, 0.0]]), logit_gap([[3.0, 1.0, 0.0]], [1])
    (tensor([2.], dtype=torch.float64), tensor([-2.], dtype=torch.float64))
    """
    if labels is None:
        top = read_logits(logits).topk(2, dim=-1).values
        return top.select(-1, 0) - top.select(-1, 1)
    z, y = read_labelled(logits, labels)
    y = y.unsqueeze(-1)
    own = z.gather(-1, y).squeeze(-1)
    return own - z.scatter(-1, y, -torch.inf).amax(-1)


def top_label(
    logits: Real[Tensor, "*#batch n k"] | ArrayLike,
    labels: Int[Tensor, "*#batch n"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike = 1.0,
) -> tuple[Float[Tensor, "*out n"], Bool[Tensor, "*out n"]]:
    r"""Confidence $\max_y\hat p_y$ of the softmax of $o/T$, and whether the most probable class is the label.

    Args:
        logits: $o$, shape (*batch, n, k); large inputs are read in blocks of rows.
        labels: true classes, shape (*batch, n).
        temperature: T > 0, a number or one for each problem of the batch.

    Returns:
        `confidence` and `correct`, both (*batch, n).

    Raises:
        ValueError: logits that are not finite or of another shape, labels outside the classes, a temperature that is
            not positive or of another shape.

    Source: definition; Guo, Pleiss, Sun and Weinberger (ICML 2017), arXiv 1706.04599.

    >>> top_label([[0.0, 2.0]], [1], temperature=2.0)
    (tensor([0.7311], dtype=torch.float64), tensor([True]))
    """
    z, y = read_labelled(logits, labels, look=False)
    rate = LOG2E / read_temperature(temperature, z)
    columns = []
    for part, truth in blocks(z, y.unsqueeze(-1)):
        top = part.amax(-1, keepdim=True)
        total = (part - top).mul_(rate).exp2_().sum(-1)  # in place: fresh memory would take longer
        columns.append((total, top.squeeze(-1), part.gather(-1, truth).squeeze(-1), part.sum().unsqueeze(-1)))
    total, top, own, sums = (torch.cat(column, -1) for column in zip(*columns, strict=True))
    require_finite("logits", z, sums)
    return 1 / total, _first_is(z, y, own == top, total < 2)


def _first_is(logits: Tensor, labels: Tensor, hit: Tensor, alone: Tensor) -> Tensor:
    """Whether the first of the largest logits is the label's, given whether the label's is one of them.

    A search for the first takes as long as all the rest. On the CPU only rows are searched whose largest logit may not
    be `alone`.
    """
    if logits.device.type != "cpu":
        return logits.argmax(-1) == labels
    try:
        tied = (hit & ~alone).nonzero(as_tuple=True)
    except RuntimeError:  # inside torch.func.vmap a value cannot be read
        return logits.argmax(-1) == labels
    for some in zip(*(index.split(SEARCHED) for index in tied), strict=True):
        hit = hit.index_put(some, logits[some].argmax(-1) == labels[some])
    return hit


def proper_scores(
    logits: Real[Tensor, "*#batch n k"] | ArrayLike,
    labels: Int[Tensor, "*#batch n"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike = 1.0,
) -> ProperScores:
    r"""Negative log-likelihood, Brier score and accuracy of the softmax of $o/T$.

    $$ \mathrm{NLL}=-\frac1n\sum_i\log\hat p_{y_i}(x_i),\qquad
    \mathrm{Brier}=\frac1n\sum_i\sum_y(\hat p_y(x_i)-\mathbb 1\{y=y_i\})^2 $$

    Args:
        logits: $o$, shape (*batch, n, k).
        labels: true classes, shape (*batch, n).
        temperature: T > 0, a number or one for each problem of the batch.

    Returns:
        Means over the n points, each (*batch,).

    Raises:
        ValueError: as `top_label`.

    Source: definition; Brier (1950), Verification of forecasts expressed in terms of probability.

    >>> proper_scores([[0.0, 0.0]], [1])
    ProperScores(nll=tensor(0.6931, dtype=torch.float64), brier=tensor(0.5000, dtype=torch.float64),
                 accuracy=tensor(0., dtype=torch.float64))
    """
    z, y = read_labelled(logits, labels)
    scale = read_temperature(temperature, z)
    totals = torch.zeros(3, *z.shape[:-2], dtype=torch.float64, device=z.device)
    for part, truth in blocks(z, y.unsqueeze(-1), copies=4):
        log_p = (part / scale).log_softmax(-1)
        own = log_p.gather(-1, truth).squeeze(-1)
        squares = log_p.mul(2).exp().sum(-1) - 2 * own.exp() + 1
        hit = part.argmax(-1, keepdim=True) == truth
        totals = totals + torch.stack([-own.double().sum(-1), squares.double().sum(-1), hit.double().sum((-2, -1))])
    nll, brier, accuracy = (totals / z.shape[-2]).to(z.dtype).unbind(0)
    return ProperScores(nll, brier, accuracy)
