"""A single next-token distribution under one step: to first order for any kernel, and exactly for free logits."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    broadcast_batch,
    indicator,
    read_finite,
    read_nonnegative,
    read_whole,
    require,
    require_shape,
)
from lib.gradient_entanglement.setting import require_vocabulary
from lib.shapes import Float, Int, Real


def distribution_change(
    probs: Real[Tensor, "*#batch V"] | ArrayLike,
    kernel: Real[Tensor, "*#batch V V"] | ArrayLike,
    chosen: Int[Tensor, "*#batch"] | ArrayLike,
    rejected: Int[Tensor, "*#batch"] | ArrayLike,
    d_w: Real[Tensor, "*#batch"] | ArrayLike,
    d_l: Real[Tensor, "*#batch"] | ArrayLike,
    lr: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*batch V"]:
    r"""First-order change of the log-probability of every token of the vocabulary, for responses of one token.

    $$ \Delta\log p=\varepsilon\,(I-\mathbf 1p^\top)\,\Theta^o\,\big(d_w(\mathbb 1_w-p)-d_l(\mathbb 1_l-p)\big),\qquad
    \Theta^o=\frac{\partial o}{\partial\theta}\frac{\partial o}{\partial\theta}^\top $$
    with the logits $o$. Free logits have $\Theta^o=I$, a linear head on a fixed hidden state $\|h\|^2I$, a head and a
    hidden state that are both trained $\|h\|^2I+FF^\top$.

    Args:
        probs: $p$, shape (*batch, V).
        kernel: $\Theta^o$, tangent kernel of the logits, shape (*batch, V, V).
        chosen: index of the chosen token, shape (*batch,).
        rejected: index of the rejected token, shape (*batch,).
        d_w: weight of the chosen response; all broadcast to (*batch,).
        d_l: weight of the rejected response.
        lr: step size, >= 0.

    Returns:
        Nats, shape (*batch, V).

    Raises:
        ValueError: probabilities that are negative or do not sum to one, a kernel of another shape, an index outside
            the vocabulary, a number that is not finite, a negative step.

    Source: own extension of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> distribution_change([0.5, 0.25, 0.25], torch.eye(3, dtype=torch.float64), 0, 1, 1.0, 1.0, 0.1)
    tensor([ 0.0750, -0.1250, -0.0250], dtype=torch.float64)
    """
    p = as_float("probs", probs)
    require_shape("probs", p, p.ndim >= 1 and p.shape[-1] >= 2, "(*batch, V) with V >= 2")
    size = p.shape[-1]
    require("probs", p >= 0, "numbers >= 0", p)
    total = p.sum(-1)
    require("probs", (total - 1).abs() <= 100 * size * torch.finfo(p.dtype).eps, "rows that sum to 1", total)
    theta = read_finite("kernel", kernel, like=p)
    require_shape(
        "kernel", theta, theta.ndim >= 2 and tuple(theta.shape[-2:]) == (size, size), f"(*batch, {size}, {size})"
    )
    push, step = _push(p, size, chosen, rejected, d_w, d_l, lr)
    broadcast_batch(probs=p.shape[:-1], kernel=theta.shape[:-2], push=push.shape[:-1])
    logits = (theta @ push.unsqueeze(-1)).squeeze(-1)
    return step.unsqueeze(-1) * (logits - (p * logits).sum(-1, keepdim=True))


def single_token_step(
    logits: Real[Tensor, "*#batch V"] | ArrayLike,
    chosen: Int[Tensor, "*#batch"] | ArrayLike,
    rejected: Int[Tensor, "*#batch"] | ArrayLike,
    d_w: Real[Tensor, "*#batch"] | ArrayLike,
    d_l: Real[Tensor, "*#batch"] | ArrayLike,
    lr: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*batch V"]:
    r"""Exact change of every log-probability after one step of any size on free logits.

    The step adds $\varepsilon\,(d_w(\mathbb 1_w-p)-d_l(\mathbb 1_l-p))$ to the logits. For $d_w=d_l=d$ all other logits
    stand still, the chosen token gains $\varepsilon d-\log Z$, the rejected $-\varepsilon d-\log Z$ and every other
    $-\log Z$, with $Z=1+p_w(e^{\varepsilon d}-1)+p_l(e^{-\varepsilon d}-1)$.

    Args:
        logits: scores of the vocabulary, shape (*batch, V).
        chosen: index of the chosen token; all broadcast to (*batch,).
        rejected: index of the rejected token.
        d_w: weight of the chosen response.
        d_l: weight of the rejected response.
        lr: step size, >= 0.

    Returns:
        Nats, shape (*batch, V).

    Raises:
        ValueError: an index outside the vocabulary, a number that is not finite, a negative step, shapes that do not
            broadcast.

    Source: setting of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828; the exact step is an own
    extension.

    >>> single_token_step([0.0, 0.0, 0.0], 0, 1, 1.0, 1.0, 2.0)  # the third token pays
    tensor([ 0.9557, -3.0443, -1.0443], dtype=torch.float64)
    """
    scores = read_finite("logits", logits)
    require_shape("logits", scores, scores.ndim >= 1 and scores.shape[-1] >= 2, "(*batch, V) with V >= 2")
    push, step = _push(scores.softmax(-1), scores.shape[-1], chosen, rejected, d_w, d_l, lr)
    broadcast_batch(logits=scores.shape[:-1], push=push.shape[:-1])
    after = scores + step.unsqueeze(-1) * push
    return after.log_softmax(-1) - scores.log_softmax(-1)


def _push(
    p: Tensor,
    size: int,
    chosen: Tensor | ArrayLike,
    rejected: Tensor | ArrayLike,
    d_w: Tensor | ArrayLike,
    d_l: Tensor | ArrayLike,
    lr: Tensor | ArrayLike,
) -> tuple[Tensor, Tensor]:
    """Descent direction in the logits, and the step size."""
    win, lose = (read_whole(name, x, p.device) for name, x in (("chosen", chosen), ("rejected", rejected)))
    require_vocabulary("chosen", win, size)
    require_vocabulary("rejected", lose, size)
    up, down = read_finite("d_w", d_w, like=p), read_finite("d_l", d_l, like=p)
    step = read_nonnegative("lr", lr, p)
    broadcast_batch(
        probs=p.shape[:-1], chosen=win.shape, rejected=lose.shape, d_w=up.shape, d_l=down.shape, lr=step.shape
    )
    up, down = up.unsqueeze(-1), down.unsqueeze(-1)
    return up * (indicator(win, size, p) - p) - down * (indicator(lose, size, p) - p), step
