"""Two moments of the hidden weights, in which full-batch training closes at every width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_nonnegative, read_positive, shared_kind
from lib.grokking.model import residual_of
from lib.grokking.setting import read_matrix, read_vector
from lib.shapes import Float, Real


@dataclass(frozen=True)
class MomentProblem:
    """What a step needs, read and checked: inputs, targets, the numbers of the model, the initial output or None."""

    X: Tensor
    y: Tensor
    alpha: Tensor
    eps: Tensor
    lr: Tensor
    offset: Tensor | None


def moments(W: Real[Tensor, "*b N D"] | ArrayLike) -> tuple[Float[Tensor, "*b D"], Float[Tensor, "*b D D"]]:
    r"""Mean $\bar w=\frac1N\sum_iw_i$ and second moment $M=\frac1N\sum_iw_iw_i^\top$ of the hidden weights.

    Args:
        W: hidden weights, one unit a row, shape ``(*b, N, D)``.

    Returns:
        Shapes ``(*b, D)`` and ``(*b, D, D)``.

    Raises:
        ValueError: no matrix, numbers that are not finite.

    Source: Kumar, Bordelon, Gershman and Pehlevan (ICLR 2024), arXiv 2310.06110.

    >>> mean, second = moments([[1.0, 0.0], [1.0, 2.0]])
    >>> mean, second.diagonal()
    (tensor([1., 1.], dtype=torch.float64), tensor([1., 2.], dtype=torch.float64))
    """
    w = read_matrix("W", W, shared_kind(W), "(*b, N, D)")
    return w.mean(-2), w.mT @ w / w.shape[-2]


def moment_output(
    mean: Real[Tensor, "*#b D"] | ArrayLike,
    second: Real[Tensor, "*#b D D"] | ArrayLike,
    X: Real[Tensor, "*#b P D"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
) -> Float[Tensor, "*out P"]:
    r"""Output of the network from its moments: $f(x)=\alpha\bigl[\bar w\cdot x+\tfrac\epsilon2x^\top Mx\bigr]$.

    Args:
        mean: $\bar w$, shape ``(*b, D)``.
        second: $M$, shape ``(*b, D, D)``.
        X: inputs, one a row, shape ``(*b, P, D)``.
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.

    Returns:
        Shape ``(*b, P)``.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `alpha` not above 0, `eps` below 0.

    Source: Kumar, Bordelon, Gershman and Pehlevan (ICLR 2024), arXiv 2310.06110.

    >>> moment_output([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]], alpha=2.0, eps=0.5)
    tensor([3.], dtype=torch.float64)
    """
    like = shared_kind(mean, second, X, alpha, eps)
    w, m, x = _read_moments(mean, second, X, like)
    scale, share = read_positive("alpha", alpha, like), read_nonnegative("eps", eps, like)
    broadcast_batch(mean=w.shape[:-1], second=m.shape[:-2], X=x.shape[:-2], alpha=scale.shape, eps=share.shape)
    return output_from(w, m, x, scale, share)


def output_from(w: Tensor, m: Tensor, x: Tensor, scale: Tensor, share: Tensor) -> Tensor:
    """`moment_output` for values that were read."""
    linear = (x @ w.unsqueeze(-1)).squeeze(-1)
    return scale.unsqueeze(-1) * (linear + share.unsqueeze(-1) / 2 * ((x @ m) * x).sum(-1))


def moment_step(
    mean: Real[Tensor, "*#b D"] | ArrayLike,
    second: Real[Tensor, "*#b D D"] | ArrayLike,
    X: Real[Tensor, "*#b P D"] | ArrayLike,
    y: Real[Tensor, "*#b P"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    lr: Real[Tensor, "*#b"] | ArrayLike,
    offset: Real[Tensor, "*#b P"] | ArrayLike | None = None,
) -> tuple[Float[Tensor, "*out D"], Float[Tensor, "*out D D"]]:
    r"""One step of full-batch gradient descent for the moments, exact at every width, infinity included.

    All units obey one affine map $w^+=Fw+q$ with $F=I+\epsilon Q$,

    $$ q=\frac{\eta D}{\alpha P}\sum_\mu\Delta_\mu x_\mu,\qquad
       Q=\frac{\eta D}{\alpha P}\sum_\mu\Delta_\mu x_\mu x_\mu^\top, $$

    so that $\bar w^+=F\bar w+q$ and $M^+=FMF^\top+F\bar wq^\top+q(F\bar w)^\top+qq^\top$. An infinitely wide network
    starts at $\bar w=0$, $M=I$.

    Args:
        mean: $\bar w$, shape ``(*b, D)``.
        second: $M$, symmetric, shape ``(*b, D, D)``.
        X: inputs, one a row, shape ``(*b, P, D)``.
        y: targets, shape ``(*b, P)``.
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        lr: step size $\eta>0$ in units that do not depend on size: see `gd_step`, shape ``(*b,)``.
        offset: initial output $f_0$, subtracted from the network in centred training, shape ``(*b, P)``.

    Returns:
        The moments after the step, shapes ``(*b, D)`` and ``(*b, D, D)``.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `alpha` or `lr` not above 0, `eps` below 0.

    Source: own derivation, :prf:ref:`grokking-closure`.

    >>> mean, second = moment_step([0.0], [[1.0]], [[1.0]], [1.0], alpha=1.0, eps=0.0, lr=0.5)
    >>> mean, second
    (tensor([0.5000], dtype=torch.float64), tensor([[1.2500]], dtype=torch.float64))
    """
    like = shared_kind(mean, second, X, y, alpha, eps, lr, offset)
    w, m, x = _read_moments(mean, second, X, like)
    problem = read_problem(x, y, alpha, eps, lr, offset, like)
    broadcast_batch(mean=w.shape[:-1], second=m.shape[:-2], lr=problem.lr.shape, X=x.shape[:-2])
    return step_moments(w, m, problem, output_from(w, m, x, problem.alpha, problem.eps))


def step_moments(w: Tensor, m: Tensor, problem: MomentProblem, f: Tensor) -> tuple[Tensor, Tensor]:
    """The moments after a step in which the network's output is `f`."""
    x, (count, dim) = problem.X, problem.X.shape[-2:]
    push = residual_of(problem.y, f, problem.offset)
    push = push * (problem.lr * dim / (problem.alpha * count)).unsqueeze(-1)
    q = (x.mT @ push.unsqueeze(-1)).squeeze(-1)
    turn = problem.eps.unsqueeze(-1).unsqueeze(-1) * (x.mT @ (x * push.unsqueeze(-1)))
    factor = turn + torch.eye(dim, dtype=x.dtype, device=x.device)
    moved = (factor @ w.unsqueeze(-1)).squeeze(-1)
    outer = moved.unsqueeze(-1) * q.unsqueeze(-2)
    return moved + q, factor @ m @ factor.mT + outer + outer.mT + q.unsqueeze(-1) * q.unsqueeze(-2)


def read_problem(
    x: Tensor,
    y: Tensor | ArrayLike,
    alpha: Tensor | ArrayLike,
    eps: Tensor | ArrayLike,
    lr: Tensor | ArrayLike,
    offset: Tensor | ArrayLike | None,
    like: Tensor,
) -> MomentProblem:
    """The parts of a step other than the weights, checked against the inputs `x`, which were read."""
    count = x.shape[-2]
    labels = read_vector("y", y, like, f"(*b, {count}) as in X", count)
    scale, share = read_positive("alpha", alpha, like), read_nonnegative("eps", eps, like)
    rate, first = read_positive("lr", lr, like), None
    if offset is not None:
        first = read_vector("offset", offset, like, f"(*b, {count}) as in X", count)
    shapes = {"X": x.shape[:-2], "y": labels.shape[:-1], "alpha": scale.shape, "eps": share.shape, "lr": rate.shape}
    broadcast_batch(**shapes, **({} if first is None else {"offset": first.shape[:-1]}))
    return MomentProblem(x, labels, scale, share, rate, first)


def _read_moments(
    mean: Tensor | ArrayLike, second: Tensor | ArrayLike, X: Tensor | ArrayLike, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    w = read_vector("mean", mean, like, "(*b, D)")
    dim = w.shape[-1]
    m = read_matrix("second", second, like, f"(*b, {dim}, {dim}) as in mean", dim, dim)
    return w, m, read_matrix("X", X, like, f"(*b, P, {dim}) as in mean", columns=dim)


__all__ = ["moment_output", "moment_step", "moments"]
