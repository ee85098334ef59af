"""The population loss, exactly, from two moments of the weights or from their overlaps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_nonnegative, read_positive, shared_kind
from lib.grokking.setting import read_matrix, read_vector
from lib.shapes import Float, Real


@dataclass(frozen=True)
class LossParts:
    """The population loss `total` and its three parts: power of the linear function that was learned, misalignment of
    the quadratic one, and mismatch of its trace.
    """

    linear: Float[Tensor, "*b"]
    misalignment: Float[Tensor, "*b"]
    trace: Float[Tensor, "*b"]
    total: Float[Tensor, "*b"]


def population_loss(
    mean: Real[Tensor, "*#b D"] | ArrayLike,
    second: Real[Tensor, "*#b D D"] | ArrayLike,
    beta: Real[Tensor, "*#b D"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
) -> LossParts:
    r"""Mean squared error on a fresh input $x\sim\mathcal N(0,I/D)$, with $A=\beta\beta^\top-\alpha\epsilon M$:

    $$ \mathbb E(f-y)^2=\frac{\alpha^2|\bar w|^2}{D}+\frac{|A|_F^2}{2D^2}+\frac{(\mathrm{tr}A)^2}{4D^2}. $$

    Where the initial function is subtracted (centred training), give the changes $\bar w-\bar w_0$ and $M-M_0$.

    Args:
        mean: $\bar w$, mean of the hidden weights, shape ``(*b, D)``.
        second: $M=\frac1N\sum_i w_iw_i^\top$, symmetric, shape ``(*b, D, D)``.
        beta: direction of the target, of any length, shape ``(*b, D)``.
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.

    Returns:
        `LossParts`, each ``(*b,)``.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `alpha` not above 0, `eps` below 0.

    Source: own derivation (Isserlis), :prf:ref:`grokking-loss-moments`.

    >>> population_loss([0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], [2**0.5, 0.0], 1.0, 0.5).total
    tensor(0.7500, dtype=torch.float64)
    """
    like = shared_kind(mean, second, beta, alpha, eps)
    w = read_vector("mean", mean, like, "(*b, D)")
    dim = w.shape[-1]
    m = read_matrix("second", second, like, f"(*b, {dim}, {dim}) as in mean", dim, dim)
    b = read_vector("beta", beta, like, f"(*b, {dim}) as in mean", dim)
    scale, share = read_positive("alpha", alpha, like), read_nonnegative("eps", eps, like)
    broadcast_batch(mean=w.shape[:-1], second=m.shape[:-2], beta=b.shape[:-1], alpha=scale.shape, eps=share.shape)
    return moment_parts(w, m, b, scale, share)


def moment_parts(w: Tensor, m: Tensor, b: Tensor, scale: Tensor, share: Tensor) -> LossParts:
    """`population_loss` for values that were read."""
    dim = w.shape[-1]
    a = b.unsqueeze(-1) * b.unsqueeze(-2) - (scale * share).unsqueeze(-1).unsqueeze(-1) * m
    linear = scale.square() * w.square().sum(-1) / dim
    misalignment = a.square().sum((-2, -1)) / (2 * dim**2)
    trace = a.diagonal(dim1=-2, dim2=-1).sum(-1).square() / (4 * dim**2)
    return _parts(linear, misalignment, trace)


def overlap_loss(
    overlap: Real[Tensor, "*#b N N"] | ArrayLike,
    alignment: Real[Tensor, "*#b N"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
) -> LossParts:
    r"""`population_loss` from $C_{ij}=w_i\cdot w_j/D$ and $m_i=w_i\cdot\beta/D$, where $|\beta|^2=D$:

    $$ \alpha^2\langle C\rangle+\tfrac12\bigl[1-2\alpha\epsilon\langle m^2\rangle+\alpha^2\epsilon^2\langle C^2\rangle
       \bigr]+\tfrac14\bigl(1-\alpha\epsilon\langle C_{ii}\rangle\bigr)^2, $$

    where brackets are means over entries. The dimension does not appear.

    Args:
        overlap: $C$, shape ``(*b, N, N)``.
        alignment: $m$, shape ``(*b, N)``.
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.

    Returns:
        `LossParts` of the network without subtracted initial function, each ``(*b,)``.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `alpha` not above 0, `eps` below 0.

    Source: own derivation, :prf:ref:`grokking-loss-moments`.

    >>> overlap_loss([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 1.0, 0.5).linear
    tensor(0.5000, dtype=torch.float64)
    """
    like = shared_kind(overlap, alignment, alpha, eps)
    m = read_vector("alignment", alignment, like, "(*b, N)")
    size = m.shape[-1]
    c = read_matrix("overlap", overlap, like, f"(*b, {size}, {size}) as in alignment", size, size)
    scale, share = read_positive("alpha", alpha, like), read_nonnegative("eps", eps, like)
    broadcast_batch(overlap=c.shape[:-2], alignment=m.shape[:-1], alpha=scale.shape, eps=share.shape)
    return overlap_parts(c, m, scale, share)


def overlap_parts(
    c: Tensor,
    m: Tensor,
    scale: Tensor,
    share: Tensor,
    power: Tensor | float = 1.0,
    start: tuple[Tensor, Tensor, Tensor] | None = None,
) -> LossParts:
    r"""`overlap_loss` for values that were read, with $|\beta|^2/D$ given by `power`.

    `start` holds the cross overlap of now and start, the overlap and the alignment at the start; with it the initial
    function is subtracted.
    """
    flat = c.mean((-2, -1))
    square, along, norm = c.square().mean((-2, -1)), m.square().mean(-1), c.diagonal(dim1=-2, dim2=-1).mean(-1)
    if start is not None:
        cross, first, m0 = start
        flat = flat - 2 * cross.mean((-2, -1)) + first.mean((-2, -1))
        square = square - 2 * cross.square().mean((-2, -1)) + first.square().mean((-2, -1))
        along = along - m0.square().mean(-1)
        norm = norm - first.diagonal(dim1=-2, dim2=-1).mean(-1)
    both = scale * share
    misalignment = (power * power - 2 * both * along + both.square() * square) / 2
    return _parts(scale.square() * flat, misalignment, (power - both * norm).square() / 4)


def _parts(linear: Tensor, misalignment: Tensor, trace: Tensor) -> LossParts:
    total = linear + misalignment + trace
    return LossParts(linear.expand_as(total), misalignment.expand_as(total), trace.expand_as(total), total)


__all__ = ["LossParts", "overlap_loss", "population_loss"]
