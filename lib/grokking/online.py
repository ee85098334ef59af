"""Training with endless fresh samples: the flow closes on overlaps."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_nonnegative, read_positive, shared_kind
from lib.grokking.setting import read_matrix, read_vector
from lib.shapes import Float, Real


def online_step(
    overlap: Real[Tensor, "*#b N N"] | ArrayLike,
    alignment: Real[Tensor, "*#b N"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    lr: Real[Tensor, "*#b"] | ArrayLike,
) -> tuple[Float[Tensor, "*out N N"], Float[Tensor, "*out N"]]:
    r"""One step of gradient descent on the population loss, for the overlaps, where $|\beta|^2=D$.

    With $\tau=1-\alpha\epsilon\langle C_{ii}\rangle$ and $v=\frac{\eta\epsilon}\alpha m$,

    $$ m^+=Bm+v,\qquad C^+=BCB^\top+(Bm)v^\top+v(Bm)^\top+vv^\top,\qquad
       B=I+\frac\eta\alpha\Bigl[\frac{\epsilon\tau}2I-\frac\alpha N\mathbf 1\mathbf 1^\top
       -\frac{\alpha\epsilon^2}NC\Bigr]. $$

    Args:
        overlap: $C_{ij}=w_i\cdot w_j/D$, symmetric, shape ``(*b, N, N)``.
        alignment: $m_i=w_i\cdot\beta/D$, shape ``(*b, N)``.
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        lr: step size in the units of `gd_step`, above 0, shape ``(*b,)``.

    Returns:
        Overlap and alignment after the step; exact for every dimension.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `alpha` or `lr` not above 0, `eps` below 0.

    Source: own derivation, :prf:ref:`grokking-online`.

    >>> overlap, alignment = online_step([[2.0]], [0.1], alpha=1.0, eps=0.5, lr=0.1)
    >>> alignment.round(decimals=5)
    tensor([0.0900], dtype=torch.float64)
    """
    like = shared_kind(overlap, alignment, alpha, eps, lr)
    m = read_vector("alignment", alignment, like, "(*b, N)")
    size = m.shape[-1]
    c = read_matrix("overlap", overlap, like, f"(*b, {size}, {size}) as in alignment", size, size)
    scale, share, rate = (
        x.unsqueeze(-1).unsqueeze(-1)
        for x in (
            read_positive("alpha", alpha, like),
            read_nonnegative("eps", eps, like),
            read_positive("lr", lr, like),
        )
    )
    shapes = {"alpha": scale.shape[:-2], "eps": share.shape[:-2], "lr": rate.shape[:-2]}
    broadcast_batch(overlap=c.shape[:-2], alignment=m.shape[:-1], **shapes)
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    gap = 1 - scale * share * c.diagonal(dim1=-2, dim2=-1).mean(-1).unsqueeze(-1).unsqueeze(-1)
    turn = eye + rate / scale * (share * (gap / 2 * eye - scale * share / size * c) - scale / size)
    pull = (rate * share / scale) * m.unsqueeze(-1)
    moved = turn @ m.unsqueeze(-1)
    cross = moved @ pull.mT
    return turn @ c @ turn.mT + cross + cross.mT + pull @ pull.mT, (moved + pull).squeeze(-1)


__all__ = ["online_step"]
