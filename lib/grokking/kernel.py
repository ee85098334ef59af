"""The tangent kernel of the polynomial network, its spectrum, and how much of the target it sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_nonnegative, read_size, require, require_shape, shared_kind
from lib.grokking.setting import read_matrix, read_vector
from lib.shapes import Float, Real


@dataclass(frozen=True)
class NTKSpectrum:
    """Eigenvalues of the initial kernel on linear functions, on quadratic ones without trace, and on $|x|^2$; and how
    many eigenfunctions belong to each.
    """

    linear: Float[Tensor, "*b"]
    quadratic: Float[Tensor, "*b"]
    trace: Float[Tensor, "*b"]
    multiplicity: tuple[int, int, int]


def ntk(
    X1: Real[Tensor, "*#b P1 D"] | ArrayLike,
    X2: Real[Tensor, "*#b P2 D"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    mean: Real[Tensor, "*#b D"] | ArrayLike | None = None,
    second: Real[Tensor, "*#b D D"] | ArrayLike | None = None,
) -> Float[Tensor, "*out P1 P2"]:
    r"""Tangent kernel $\frac1N\sum_i\phi'(w_i\cdot x)\,\phi'(w_i\cdot x')\;x\cdot x'$, from the moments of the weights:

    $$ K(x,x')=x\cdot x'\,\bigl[1+\epsilon\,\bar w\cdot(x+x')+\epsilon^2x^\top Mx'\bigr]. $$

    It is $N/\alpha^2$ times the inner product of the gradients of the outputs in the hidden weights.

    Args:
        X1: inputs, one a row, shape ``(*b, P1, D)``.
        X2: other inputs, shape ``(*b, P2, D)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        mean: $\bar w$, shape ``(*b, D)``; zero, as in an infinitely wide network at the start, if none is given.
        second: $M$, shape ``(*b, D, D)``; the identity if none is given.

    Returns:
        Shape ``(*b, P1, P2)``.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `eps` below 0.

    Source: own derivation, :prf:ref:`grokking-kernel`.

    >>> ntk([[1.0, 2.0]], [[1.0, 0.0]], 0.5)
    tensor([[1.2500]], dtype=torch.float64)
    """
    like = shared_kind(X1, X2, eps, mean, second)
    a = read_matrix("X1", X1, like, "(*b, P1, D)")
    dim = a.shape[-1]
    b = read_matrix("X2", X2, like, f"(*b, P2, {dim}) as in X1", columns=dim)
    share = read_nonnegative("eps", eps, like)
    shapes = {"X1": a.shape[:-2], "X2": b.shape[:-2], "eps": share.shape}
    share = share.unsqueeze(-1).unsqueeze(-1)
    inner = a @ b.mT
    square = inner
    if second is not None:
        m = read_matrix("second", second, like, f"(*b, {dim}, {dim}) as in X1", dim, dim)
        shapes["second"] = m.shape[:-2]
        broadcast_batch(**shapes)
        square = a @ m @ b.mT
    factor = 1 + share.square() * square
    if mean is not None:
        w = read_vector("mean", mean, like, f"(*b, {dim}) as in X1", dim).unsqueeze(-1)
        shapes["mean"] = w.shape[:-2]
        broadcast_batch(**shapes)
        factor = factor + share * (a @ w + (b @ w).mT)
    broadcast_batch(**shapes)
    return inner * factor


def ntk_spectrum(dim: int, eps: Real[Tensor, "*b"] | ArrayLike) -> NTKSpectrum:
    r"""Eigenvalues of $x\cdot x'+\epsilon^2(x\cdot x')^2$ under $x\sim\mathcal N(0,I/D)$, exactly.

    $1/D$ on the $D$ linear functions, $2\epsilon^2/D^2$ on the $D(D+1)/2-1$ functions $x^\top Bx$ with
    $\mathrm{tr}B=0$, and $\epsilon^2(D+2)/D^2$ on $|x|^2$. The constant is no eigenfunction.

    Args:
        dim: $D$, at least 1.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.

    Returns:
        `NTKSpectrum`, eigenvalues ``(*b,)``.

    Raises:
        ValueError: `dim` below 1, `eps` below 0.

    Source: own derivation, :prf:ref:`grokking-spectrum`.

    >>> ntk_spectrum(2, 0.5)
    NTKSpectrum(linear=tensor(0.5000, dtype=torch.float64), quadratic=tensor(0.1250, dtype=torch.float64),
    trace=tensor(0.2500, dtype=torch.float64), multiplicity=(2, 2, 1))
    """
    read_size("dim", dim, 1)
    share = read_nonnegative("eps", eps, shared_kind(eps)).square()
    counts = (dim, dim * (dim + 1) // 2 - 1, 1)
    return NTKSpectrum(torch.ones_like(share) / dim, 2 * share / dim**2, share * (dim + 2) / dim**2, counts)


def kernel_alignment(
    K: Real[Tensor, "*#b P P"] | ArrayLike, y: Real[Tensor, "*#b P"] | ArrayLike
) -> Float[Tensor, "*out"]:
    r"""Alignment of a Gram matrix with targets: $y^\top Ky/(\lVert K\rVert_F\,|y|^2)$, without centring.

    Args:
        K: Gram matrix, shape ``(*b, P, P)``.
        y: targets, shape ``(*b, P)``.

    Returns:
        Shape ``(*b,)``, at most 1, which $K=yy^\top$ attains.

    Raises:
        ValueError: a matrix that is not square, another number of targets, numbers that are not finite.

    Source: Cristianini, Shawe-Taylor, Elisseeff and Kandola, On kernel-target alignment (NeurIPS 2001).

    >>> kernel_alignment([[1.0, 0.0], [0.0, 0.0]], [2.0, 0.0])
    tensor(1., dtype=torch.float64)
    """
    like = shared_kind(K, y)
    gram = read_matrix("K", K, like, "(*b, P, P)")
    count = gram.shape[-1]
    require_shape("K", gram, gram.shape[-2] == count, "(*b, P, P), a square matrix")
    labels = read_vector("y", y, like, f"(*b, {count}) as in K", count)
    broadcast_batch(K=gram.shape[:-2], y=labels.shape[:-1])
    largest = {"K": gram.abs().amax((-2, -1), keepdim=True), "y": labels.abs().amax(-1, keepdim=True)}
    for name, size in largest.items():
        require(name, size > 0, "numbers that are not all zero", size)
    gram, labels = gram / largest["K"], labels / largest["y"]  # squares neither overflow nor underflow
    seen = ((gram @ labels.unsqueeze(-1)).squeeze(-1) * labels).sum(-1)
    return seen / (gram.square().sum((-2, -1)).sqrt() * labels.square().sum(-1))


def population_alignment(dim: int, eps: Real[Tensor, "*b"] | ArrayLike) -> Float[Tensor, "*b"]:
    r"""Alignment of the initial kernel with the target over the law of the inputs:

    $$ \frac{\lambda_{\rm tr}e_{\rm tr}+\lambda_{\rm q}e_{\rm q}}
            {\frac34\sqrt{\lambda_{\rm tr}^2+\mathrm{mult}\,\lambda_{\rm q}^2+D\lambda_{\rm lin}^2}},\qquad
       e_{\rm tr}=\frac{D+2}{4D},\quad e_{\rm q}=\frac34-e_{\rm tr}. $$

    Args:
        dim: $D$, at least 1.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.

    Returns:
        Shape ``(*b,)``, between 0 and 1; zero at `eps` 0, rising.

    Raises:
        ValueError: `dim` below 1, `eps` below 0.

    Source: own derivation, :prf:ref:`grokking-alignment`.

    >>> population_alignment(50, 0.5).round(decimals=5)
    tensor(0.0136, dtype=torch.float64)
    """
    spectrum = ntk_spectrum(dim, eps)
    along_trace = (dim + 2) / (4 * dim)
    seen = spectrum.trace * along_trace + spectrum.quadratic * (0.75 - along_trace)
    linear, quadratic, _ = spectrum.multiplicity
    square = linear * spectrum.linear.square() + quadratic * spectrum.quadratic.square() + spectrum.trace.square()
    return seen / (0.75 * square.sqrt())


__all__ = ["NTKSpectrum", "kernel_alignment", "ntk", "ntk_spectrum", "population_alignment"]
