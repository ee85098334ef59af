"""Responses that differ in their first token and share a suffix: how long may it be?"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_nonnegative
from lib.gradient_entanglement.gram import PairGram
from lib.shapes import Float, Real


def suffix_gram(
    p_chosen: Real[Tensor, "*#batch"] | ArrayLike,
    miss_w: Real[Tensor, "*#batch"] | ArrayLike,
    miss_l: Real[Tensor, "*#batch"] | ArrayLike,
    similarity: Real[Tensor, "*#batch"] | ArrayLike,
    length: Real[Tensor, "*#batch"] | ArrayLike,
) -> PairGram:
    r"""Inner products of a pair of responses over two letters that share a suffix, for a linear head.

    The first letters differ; the model gives the chosen one probability p. Then `length` equal letters follow, which
    the model misses with probability $e_w$ after the chosen and $e_l$ after the rejected first letter. Hidden states
    are unit vectors; matched suffix positions have the inner product $s_h$, all others are orthogonal.
    $$ \|g_w\|^2=2(1-p)^2+2\nu e_w^2,\quad\langle g_w,g_l\rangle=-2p(1-p)+2\nu s_he_we_l,\quad
    \|g_l\|^2=2p^2+2\nu e_l^2. $$

    Args:
        p_chosen: p in [0, 1]; all broadcast to (*batch,).
        miss_w: $e_w$ in [0, 1].
        miss_l: $e_l$ in [0, 1].
        similarity: $s_h$ in [-1, 1].
        length: letters of the suffix, $\nu\ge0$.

    Returns:
        `PairGram` of shape (*batch,).

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: own construction after the multi-token cases of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv
    2410.13828.

    >>> gram = suffix_gram(0.7, 0.2, 0.9, 0.9, [0, 1, 2, 3, 4])
    >>> gram.ww - gram.wl  # the chosen response's change under equal weights
    tensor([ 0.6000,  0.3560,  0.1120, -0.1320, -0.3760], dtype=torch.float64)
    """
    p, e_w, e_l, s = _read(p_chosen, miss_w, miss_l, similarity)
    nu = as_float("length", length, like=p)
    require_nonnegative("length", nu)
    broadcast_batch(p_chosen=p.shape, miss_w=e_w.shape, miss_l=e_l.shape, similarity=s.shape, length=nu.shape)
    ww = 2 * (1 - p).square() + 2 * nu * e_w.square()
    wl = -2 * p * (1 - p) + 2 * nu * s * e_w * e_l
    return PairGram(ww, wl, 2 * p.square() + 2 * nu * e_l.square())


def critical_suffix_length(
    p_chosen: Real[Tensor, "*#batch"] | ArrayLike,
    miss_w: Real[Tensor, "*#batch"] | ArrayLike,
    miss_l: Real[Tensor, "*#batch"] | ArrayLike,
    similarity: Real[Tensor, "*#batch"] | ArrayLike,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    r"""Suffix lengths beyond which the chosen response falls, and the rejected one rises, at equal weights.

    $\nu_w=\frac{1-p}{e_w(s_he_l-e_w)}$ if $s_he_l>e_w>0$ and $\nu_l=\frac p{e_l(s_he_w-e_l)}$ if $s_he_w>e_l>0$,
    infinite otherwise; never are both finite.

    Args:
        p_chosen: p in [0, 1]; all broadcast to (*batch,).
        miss_w: $e_w$ in [0, 1].
        miss_l: $e_l$ in [0, 1].
        similarity: $s_h$ in [-1, 1].

    Returns:
        $\nu_w$ and $\nu_l$, real numbers, shape (*batch,).

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: own construction, see `suffix_gram`.

    >>> critical_suffix_length(0.7, 0.2, 0.9, 0.9)
    (tensor(2.4590, dtype=torch.float64), tensor(inf, dtype=torch.float64))
    """
    p, e_w, e_l, s = _read(p_chosen, miss_w, miss_l, similarity)
    batch = broadcast_batch(p_chosen=p.shape, miss_w=e_w.shape, miss_l=e_l.shape, similarity=s.shape)

    def beyond(room: Tensor, own: Tensor, other: Tensor) -> Tensor:
        excess = own * (s * other - own)
        turns = excess > 0
        length = room / torch.where(turns, excess, torch.ones_like(excess))
        return torch.where(turns, length, torch.full_like(length, torch.inf)).expand(batch)

    return beyond(1 - p, e_w, e_l), beyond(p, e_l, e_w)


def _read(
    p_chosen: Tensor | ArrayLike, miss_w: Tensor | ArrayLike, miss_l: Tensor | ArrayLike, similarity: Tensor | ArrayLike
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p = as_float("p_chosen", p_chosen)
    e_w, e_l = as_float("miss_w", miss_w, like=p), as_float("miss_l", miss_l, like=p)
    s = as_float("similarity", similarity, like=p)
    for name, x in (("p_chosen", p), ("miss_w", e_w), ("miss_l", e_l)):
        require(name, (x >= 0) & (x <= 1), "a number in [0, 1]", x)
    require("similarity", (s >= -1) & (s <= 1), "a number in [-1, 1]", s)
    return p, e_w, e_l, s
