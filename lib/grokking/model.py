"""The polynomial two-layer network and its target."""

from __future__ import annotations

from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    broadcast_batch,
    read_nonnegative,
    read_positive,
    require_finite,
    shared_kind,
)
from lib.grokking.setting import read_matrix, read_vector
from lib.shapes import Float, Real


def activation(h: Real[Tensor, "*#b"] | ArrayLike, eps: Real[Tensor, "*#b"] | ArrayLike) -> Float[Tensor, "*#b"]:
    r"""Activation of a hidden unit: $\phi(h)=h+\epsilon h^2/2$.

    Args:
        h: preactivations, any shape.
        eps: $\epsilon\ge0$, weight of the square, broadcastable to `h`.

    Returns:
        The common shape.

    Raises:
        ValueError: no numbers, numbers that are not finite, a negative `eps`, shapes that do not broadcast.

    Source: Kumar, Bordelon, Gershman and Pehlevan (ICLR 2024), arXiv 2310.06110.

    >>> activation([1.0, -2.0], 0.5)
    tensor([ 1.2500, -1.0000], dtype=torch.float64)
    """
    like = shared_kind(h, eps)
    x, share = as_float("h", h, like=like), read_nonnegative("eps", eps, like)
    require_finite("h", x.unsqueeze(-1))
    broadcast_batch(h=x.shape, eps=share.shape)
    return x + share * x * x / 2


def target(X: Real[Tensor, "*#b P D"] | ArrayLike, beta: Real[Tensor, "*#b D"] | ArrayLike) -> Float[Tensor, "*out P"]:
    r"""Target of each input: $y=\tfrac12(\beta\cdot x)^2$.

    With $x\sim\mathcal N(0,I/D)$ and $|\beta|^2=D$ its mean is $\tfrac12$ and its mean square $\tfrac34$.

    Args:
        X: inputs, one a row, shape ``(*b, P, D)``.
        beta: direction, shape ``(*b, D)``.

    Returns:
        Shape ``(*b, P)``.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite.

    Source: Kumar, Bordelon, Gershman and Pehlevan (ICLR 2024), arXiv 2310.06110.

    >>> target([[1.0, 1.0], [2.0, 0.0]], [1.0, 1.0])
    tensor([2., 2.], dtype=torch.float64)
    """
    like = shared_kind(X, beta)
    x = read_matrix("X", X, like, "(*b, P, D)")
    b = read_vector("beta", beta, like, f"(*b, {x.shape[-1]}) as in X", x.shape[-1])
    broadcast_batch(X=x.shape[:-2], beta=b.shape[:-1])
    return (x @ b.unsqueeze(-1)).squeeze(-1).square() / 2


def network_output(
    W: Real[Tensor, "*#b N D"] | ArrayLike,
    X: Real[Tensor, "*#b P D"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
) -> Float[Tensor, "*out P"]:
    r"""Output of the network: $f(x)=\frac\alpha N\sum_i\phi(w_i\cdot x)$.

    Args:
        W: hidden weights, one unit a row, shape ``(*b, N, D)``.
        X: inputs, one a row, shape ``(*b, P, D)``.
        alpha: output scale $\alpha>0$, shape ``(*b,)``.
        eps: weight of the square in the activation, $\epsilon\ge0$, shape ``(*b,)``.

    Returns:
        Shape ``(*b, P)``.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `alpha` not above 0, `eps` below 0.

    Source: Kumar, Bordelon, Gershman and Pehlevan (ICLR 2024), arXiv 2310.06110.

    >>> network_output([[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0]], alpha=2.0, eps=0.5)
    tensor([4.2500], dtype=torch.float64)
    """
    like = shared_kind(W, X, alpha, eps)
    w = read_matrix("W", W, like, "(*b, N, D)")
    x = read_matrix("X", X, like, f"(*b, P, {w.shape[-1]}) as in W", columns=w.shape[-1])
    scale, share = read_positive("alpha", alpha, like), read_nonnegative("eps", eps, like)
    broadcast_batch(W=w.shape[:-2], X=x.shape[:-2], alpha=scale.shape, eps=share.shape)
    return output_of(x @ w.mT, scale, share)


def output_of(h: Tensor, scale: Tensor, share: Tensor) -> Tensor:
    """The network's output from its preactivations `(*b, P, N)`; `scale` and `share` have the batch's shape."""
    return scale.unsqueeze(-1) * (h.mean(-1) + share.unsqueeze(-1) / 2 * h.square().mean(-1))


def residual_of(y: Tensor, f: Tensor, offset: Tensor | None) -> Tensor:
    """Target minus output, plus the initial output where training is centred."""
    return y - f if offset is None else y - f + offset


__all__ = ["activation", "network_output", "target"]
