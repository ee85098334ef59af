"""Token by token: the kernel of the unembedding, what each token does to every other, and the CHES score."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    broadcast_batch,
    read_finite,
    read_nonnegative,
    read_whole,
    require,
    require_shape,
)
from lib.gradient_entanglement.movement import LogProbChanges
from lib.gradient_entanglement.setting import read_hidden, read_mask, require_vocabulary
from lib.shapes import Bool, Float, Int, Real


def token_gram(
    hidden_a: Real[Tensor, "*#batch Ta d"] | ArrayLike,
    logits_a: Real[Tensor, "*#batch Ta V"] | ArrayLike,
    tokens_a: Int[Tensor, "*#batch Ta"] | ArrayLike,
    hidden_b: Real[Tensor, "*#batch Tb d"] | ArrayLike,
    logits_b: Real[Tensor, "*#batch Tb V"] | ArrayLike,
    tokens_b: Int[Tensor, "*#batch Tb"] | ArrayLike,
    *,
    mask_a: Bool[Tensor, "*#batch Ta"] | Real[Tensor, "*#batch Ta"] | ArrayLike | None = None,
    mask_b: Bool[Tensor, "*#batch Tb"] | Real[Tensor, "*#batch Tb"] | ArrayLike | None = None,
) -> Float[Tensor, "*batch Ta Tb"]:
    r"""Inner products of token gradients with respect to the unembedding $F$ (logits $o_i=Fh_i$).

    $$ \langle\nabla_F\log p(y_i),\nabla_F\log p(y'_j)\rangle=\langle h_i,h'_j\rangle
    \big(1[y_i=y'_j]-p_i(y'_j)-p'_j(y_i)+p_i\cdot p'_j\big). $$
    Their sum over both responses is the inner product of the responses' gradients. No gradient is formed: memory is of
    order V T + T² a pair, never V T d.

    Args:
        hidden_a: $h_i$, hidden states that the unembedding reads, shape (*batch, Ta, d).
        logits_a: scores of the vocabulary, shape (*batch, Ta, V).
        tokens_a: tokens aligned with them, shape (*batch, Ta).
        hidden_b: the same of the other response, shape (*batch, Tb, d).
        logits_b: shape (*batch, Tb, V).
        tokens_b: shape (*batch, Tb).
        mask_a: weight of each token's log-probability, >= 0, shape (*batch, Ta); 0 leaves a token out, ones by default.
        mask_b: shape (*batch, Tb).

    Returns:
        Shape (*batch, Ta, Tb).

    Raises:
        ValueError: shapes that do not fit, a number that is not finite, a token outside the vocabulary.

    Source: own derivation for the setting of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> token_gram([[1.0]], [[0.0, 0.0]], [0], [[2.0]], [[0.0, 0.0]], [1])  # 2 * (0 - 1/2 - 1/2 + 1/2)
    tensor([[-1.]], dtype=torch.float64)
    """
    h_a = read_hidden("hidden_a", hidden_a)
    h_b = read_hidden("hidden_b", hidden_b, like=h_a)
    require_shape("hidden_b", h_b, h_b.shape[-1] == h_a.shape[-1], f"(*batch, Tb, {h_a.shape[-1]})")
    p_a, y_a = _predictions("a", h_a, logits_a, tokens_a)
    p_b, y_b = _predictions("b", h_b, logits_b, tokens_b)
    size = p_a.shape[-1]
    require_shape("logits_b", p_b, p_b.shape[-1] == size, f"(*batch, Tb, {size}) as in logits_a")
    parts = {"hidden_a": h_a, "logits_a": p_a, "hidden_b": h_b, "logits_b": p_b}
    batch = broadcast_batch(
        **{name: x.shape[:-2] for name, x in parts.items()}, tokens_a=y_a.shape[:-1], tokens_b=y_b.shape[:-1]
    )
    shape = torch.Size((*batch, h_a.shape[-2], h_b.shape[-2]))
    weights_a = read_mask("mask_a", mask_a, shape[:-1], h_a)
    weights_b = read_mask("mask_b", mask_b, torch.Size((*batch, shape[-1])), h_a)
    rows, columns = y_a.unsqueeze(-1).expand(shape), y_b.unsqueeze(-2).expand(shape)
    seen_by_a = p_a.expand(*batch, *p_a.shape[-2:]).gather(-1, columns)
    seen_by_b = p_b.expand(*batch, *p_b.shape[-2:]).gather(-1, rows.mT).mT
    factor = (rows == columns).to(h_a) - seen_by_a - seen_by_b + p_a @ p_b.mT
    return (h_a @ h_b.mT) * factor * weights_a.unsqueeze(-1) * weights_b.unsqueeze(-2)


def _predictions(
    side: str, hidden: Tensor, logits: Tensor | ArrayLike, tokens: Tensor | ArrayLike
) -> tuple[Tensor, Tensor]:
    """Probabilities and tokens that belong to the hidden states of one response."""
    scores = as_float(f"logits_{side}", logits, like=hidden)
    length = hidden.shape[-2]
    fits = scores.ndim >= 2 and scores.shape[-2] == length
    require_shape(f"logits_{side}", scores, fits, f"(*batch, {length}, V), a row for each hidden state")
    require(f"logits_{side}", scores < torch.inf, "numbers below infinity", scores)
    chosen = read_whole(f"tokens_{side}", tokens, hidden.device)
    require_shape(f"tokens_{side}", chosen, chosen.ndim >= 1 and chosen.shape[-1] == length, f"(*batch, {length})")
    require_vocabulary(f"tokens_{side}", chosen, scores.shape[-1])
    return scores.softmax(-1), chosen


def token_changes(
    k_ww: Real[Tensor, "*#batch Tw Tw"] | ArrayLike,
    k_wl: Real[Tensor, "*#batch Tw Tl"] | ArrayLike,
    k_ll: Real[Tensor, "*#batch Tl Tl"] | ArrayLike,
    d_w: Real[Tensor, "*#batch"] | ArrayLike,
    d_l: Real[Tensor, "*#batch"] | ArrayLike,
    lr: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    mask_w: Bool[Tensor, "*#batch Tw"] | Real[Tensor, "*#batch Tw"] | ArrayLike | None = None,
    mask_l: Bool[Tensor, "*#batch Tl"] | Real[Tensor, "*#batch Tl"] | ArrayLike | None = None,
) -> LogProbChanges:
    r"""First-order change of every token's log-probability when only masked-in tokens enter the loss.

    With token kernels $\Theta$ and masks $\mathbf m_w,\mathbf m_l$ as vectors,
    $$ \Delta_w=\varepsilon(d_w\Theta_{ww}\mathbf m_w-d_l\Theta_{wl}\mathbf m_l),\qquad
    \Delta_l=\varepsilon(d_w\Theta_{wl}^\top\mathbf m_w-d_l\Theta_{ll}\mathbf m_l). $$
    A token whose mask is 0 moves too: others move it.

    Args:
        k_ww: inner products of the chosen response's token gradients, shape (*batch, Tw, Tw).
        k_wl: of chosen with rejected tokens, shape (*batch, Tw, Tl).
        k_ll: of the rejected response's, shape (*batch, Tl, Tl).
        d_w: weight of the chosen response, shape (*batch,).
        d_l: weight of the rejected response, shape (*batch,).
        lr: step size, >= 0, shape (*batch,).
        mask_w: weight of each chosen token in the loss, >= 0, shape (*batch, Tw); ones by default.
        mask_l: of each rejected token, shape (*batch, Tl).

    Returns:
        `chosen` of shape (*batch, Tw) and `rejected` of shape (*batch, Tl), in nats.

    Raises:
        ValueError: shapes that do not fit, a number that is not finite, a negative mask or step.

    Source: own derivation; masks after Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> token_changes([[2.0]], [[1.0]], [[3.0]], 1.0, 1.0, 0.1)
    LogProbChanges(chosen=tensor([0.1000], dtype=torch.float64), rejected=tensor([-0.2000], dtype=torch.float64))
    """
    ww = read_finite("k_ww", k_ww)
    wl, ll = read_finite("k_wl", k_wl, like=ww), read_finite("k_ll", k_ll, like=ww)
    require_shape("k_ww", ww, ww.ndim >= 2 and ww.shape[-1] == ww.shape[-2], "(*batch, Tw, Tw)")
    require_shape("k_ll", ll, ll.ndim >= 2 and ll.shape[-1] == ll.shape[-2], "(*batch, Tl, Tl)")
    want = (ww.shape[-1], ll.shape[-1])
    require_shape("k_wl", wl, wl.ndim >= 2 and tuple(wl.shape[-2:]) == want, f"(*batch, {want[0]}, {want[1]})")
    up, down = read_finite("d_w", d_w, like=ww), read_finite("d_l", d_l, like=ww)
    step = read_nonnegative("lr", lr, ww)
    named = {"k_ww": ww.shape[:-2], "k_wl": wl.shape[:-2], "k_ll": ll.shape[:-2]}
    batch = broadcast_batch(**named, d_w=up.shape, d_l=down.shape, lr=step.shape)
    push = up.unsqueeze(-1) * read_mask("mask_w", mask_w, torch.Size((*batch, want[0])), ww)
    pull = down.unsqueeze(-1) * read_mask("mask_l", mask_l, torch.Size((*batch, want[1])), ww)
    push, pull = (step.unsqueeze(-1) * x for x in (push, pull))
    push, pull = push.unsqueeze(-1), pull.unsqueeze(-1)
    chosen, rejected = ww @ push - wl @ pull, wl.mT @ push - ll @ pull
    return LogProbChanges(chosen.squeeze(-1), rejected.squeeze(-1))


def ches_score(
    hidden_w: Real[Tensor, "*#batch Tw d"] | ArrayLike,
    hidden_l: Real[Tensor, "*#batch Tl d"] | ArrayLike,
    *,
    mask_w: Bool[Tensor, "*#batch Tw"] | Real[Tensor, "*#batch Tw"] | ArrayLike | None = None,
    mask_l: Bool[Tensor, "*#batch Tl"] | Real[Tensor, "*#batch Tl"] | ArrayLike | None = None,
    length_normalized: bool = False,
) -> Float[Tensor, "*batch"]:
    r"""Centred hidden embedding similarity, $\langle\sum_ih_i,\sum_jh'_j\rangle-\|\sum_ih_i\|^2$.

    It is the excess of the inner product over the chosen gradient's square, $\langle g_w,g_l\rangle-\|g_w\|^2$, with
    all factors of `token_gram` that come from probabilities replaced by one.

    Args:
        hidden_w: hidden states of the chosen response, shape (*batch, Tw, d).
        hidden_l: of the rejected response, shape (*batch, Tl, d).
        mask_w: weight of each hidden state, >= 0, shape (*batch, Tw); 0 leaves a token out, ones by default.
        mask_l: shape (*batch, Tl).
        length_normalized: weighted means over tokens in place of sums.

    Returns:
        Shape (*batch,).

    Raises:
        ValueError: shapes that do not fit, a number that is not finite, a mask without a token for a mean.

    Source: Razin, Malladi, Bhaskar, Chen, Arora and Hanin (ICLR 2025), arXiv 2410.08847.

    >>> ches_score([[1.0, 0.0], [1.0, 0.0]], [[3.0, 5.0]])  # 2 * 3 - 4
    tensor(2., dtype=torch.float64)
    """
    h_w = read_hidden("hidden_w", hidden_w)
    h_l = read_hidden("hidden_l", hidden_l, like=h_w)
    require_shape("hidden_l", h_l, h_l.shape[-1] == h_w.shape[-1], f"(*batch, Tl, {h_w.shape[-1]})")
    broadcast_batch(hidden_w=h_w.shape[:-2], hidden_l=h_l.shape[:-2])
    totals = []
    for name, states, mask in (("mask_w", h_w, mask_w), ("mask_l", h_l, mask_l)):
        weights = read_mask(name, mask, states.shape[:-1], states)
        total = (weights.unsqueeze(-1) * states).sum(-2)
        if length_normalized:
            count = weights.sum(-1)
            require(name, count > 0, "at least one token for a mean", count)
            total = total / count.unsqueeze(-1)
        totals.append(total)
    return (totals[0] * totals[1]).sum(-1) - totals[0].square().sum(-1)
