"""Full-batch gradient descent of the network itself, at finite width, and of the infinitely wide one."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_size, shared_kind
from lib.grokking.loss import moment_parts, overlap_parts
from lib.grokking.model import output_of, residual_of
from lib.grokking.moments import MomentProblem, output_from, read_problem, step_moments
from lib.grokking.setting import read_matrix, read_vector
from lib.grokking.trajectory import MomentTrajectory, Trajectory, warn_if_diverged
from lib.shapes import Float, Real


def gd_step(
    W: Real[Tensor, "*#b N D"] | ArrayLike,
    X: Real[Tensor, "*#b P D"] | ArrayLike,
    y: Real[Tensor, "*#b P"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    lr: Real[Tensor, "*#b"] | ArrayLike,
    offset: Real[Tensor, "*#b P"] | ArrayLike | None = None,
) -> Float[Tensor, "*out N D"]:
    r"""One step of full-batch gradient descent on the hidden weights:

    $$ w_i^+=w_i+\frac{\eta D}{\alpha P}\sum_\mu\Delta_\mu\,\phi'(w_i\cdot x_\mu)\,x_\mu. $$

    In these units the output moves at a speed that does not depend on scale, width and dimension, and the weights at a
    speed $1/\alpha$. On the mean squared error it is gradient descent with learning rate $\eta DN/(2\alpha^2)$.

    Args:
        W: hidden weights, one unit a row, shape ``(*b, N, D)``.
        X: inputs, one a row, shape ``(*b, P, D)``.
        y: targets, shape ``(*b, P)``.
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        lr: step size $\eta>0$, shape ``(*b,)``.
        offset: initial output $f_0$, subtracted from the network in centred training, shape ``(*b, P)``.

    Returns:
        The weights after the step, shape ``(*b, N, D)``.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `alpha` or `lr` not above 0, `eps` below 0.

    Source: Kumar, Bordelon, Gershman and Pehlevan (ICLR 2024), arXiv 2310.06110; own units.

    >>> gd_step([[0.0]], [[1.0]], [1.0], alpha=1.0, eps=0.0, lr=0.5)
    tensor([[0.5000]], dtype=torch.float64)
    """
    like = shared_kind(W, X, y, alpha, eps, lr, offset)
    w = read_matrix("W", W, like, "(*b, N, D)")
    x = read_matrix("X", X, like, f"(*b, P, {w.shape[-1]}) as in W", columns=w.shape[-1])
    problem = read_problem(x, y, alpha, eps, lr, offset, like)
    broadcast_batch(W=w.shape[:-2], X=x.shape[:-2], lr=problem.lr.shape)
    h = x @ w.mT
    push = residual_of(problem.y, output_of(h, problem.alpha, problem.eps), problem.offset)
    return _step(w, h, push, problem)


def _step(w: Tensor, h: Tensor, push: Tensor, problem: MomentProblem) -> Tensor:
    count, dim = problem.X.shape[-2:]
    speed = (problem.lr * dim / (problem.alpha * count)).unsqueeze(-1).unsqueeze(-1)
    slope = 1 + problem.eps.unsqueeze(-1).unsqueeze(-1) * h
    return w + speed * ((push.unsqueeze(-1) * slope).mT @ problem.X)


def train(
    W: Real[Tensor, "*#b N D"] | ArrayLike,
    X: Real[Tensor, "*#b P D"] | ArrayLike,
    beta: Real[Tensor, "*#b D"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    lr: Real[Tensor, "*#b"] | ArrayLike,
    steps: int,
    centered: bool = True,
) -> Trajectory:
    r"""Train the network on $y=\tfrac12(\beta\cdot x)^2$; the test loss is exact, for $x\sim\mathcal N(0,I/D)$.

    Args:
        W: hidden weights at the start, one unit a row, shape ``(*b, N, D)``.
        X: inputs, one a row, shape ``(*b, P, D)``.
        beta: direction of the target, of any length, shape ``(*b, D)``.
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        lr: step size in the units of `gd_step`, above 0, shape ``(*b,)``.
        steps: number of steps, 0 or above.
        centered: whether the initial function is subtracted from the network.

    Returns:
        `Trajectory` with losses ``(*b, steps + 1)``, overlaps $C_{ij}=w_i\cdot w_j/D$ ``(*b, steps + 1, N, N)``
        and alignments $m_i=w_i\cdot\beta/D$ ``(*b, steps + 1, N)``. A run that diverges returns what was computed and
        warns with the first step that is not finite; `finite_steps` counts the entries before it.

    Raises:
        ValueError: dimensions that disagree, numbers that are not finite, `alpha` or `lr` not above 0, `eps` below 0,
            negative `steps`.

    Source: Kumar, Bordelon, Gershman and Pehlevan (ICLR 2024), arXiv 2310.06110; test loss of `overlap_loss`.

    >>> generator = torch.Generator().manual_seed(0)
    >>> W, X = (torch.randn(rows, 8, generator=generator, dtype=torch.float64) for rows in (20, 40))
    >>> run = train(W, X / 8**0.5, torch.ones(8), alpha=1.0, eps=0.5, lr=0.3, steps=200)
    >>> bool(run.train[-1] < 0.01 * run.train[0]), run.overlap.shape
    (True, torch.Size([201, 20, 20]))
    """
    read_size("steps", steps, 0)
    like = shared_kind(W, X, beta, alpha, eps, lr)
    w = read_matrix("W", W, like, "(*b, N, D)")
    dim = w.shape[-1]
    x = read_matrix("X", X, like, f"(*b, P, {dim}) as in W", columns=dim)
    b = read_vector("beta", beta, like, f"(*b, {dim}) as in W", dim)
    batch = broadcast_batch(W=w.shape[:-2], X=x.shape[:-2], beta=b.shape[:-1])
    problem = read_problem(x, (x @ b.unsqueeze(-1)).squeeze(-1).square() / 2, alpha, eps, lr, None, like)
    numbers = {"alpha": problem.alpha.shape, "eps": problem.eps.shape, "lr": problem.lr.shape}
    batch = broadcast_batch(weights=batch, **numbers)
    first, w = w, w.expand(*batch, *w.shape[-2:])
    power = b.square().sum(-1) / dim
    first_overlap, first_alignment = first @ first.mT / dim, (first @ b.unsqueeze(-1)).squeeze(-1) / dim
    h = x @ w.mT
    f = output_of(h, problem.alpha, problem.eps)
    offset = f if centered else None
    curves: list[tuple[Tensor, ...]] = []
    for t in range(steps + 1):
        push = residual_of(problem.y, f, offset)
        overlap, alignment = w @ w.mT / dim, (w @ b.unsqueeze(-1)).squeeze(-1) / dim
        start = (w @ first.mT / dim, first_overlap, first_alignment) if centered else None
        test = overlap_parts(overlap, alignment, problem.alpha, problem.eps, power, start).total
        curves.append((push.square().mean(-1).expand(batch), test.expand(batch), overlap, alignment))
        if t < steps:
            w = _step(w, h, push, problem)
            h = x @ w.mT
            f = output_of(h, problem.alpha, problem.eps)
    losses = (torch.stack(curve, len(batch)) for curve in zip(*curves, strict=True))
    result = Trajectory(*losses)
    warn_if_diverged(result.train, result.test)
    return result


def train_moments(
    X: Real[Tensor, "*#b P D"] | ArrayLike,
    beta: Real[Tensor, "*#b D"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    lr: Real[Tensor, "*#b"] | ArrayLike,
    steps: int,
    centered: bool = True,
    mean: Real[Tensor, "*#b D"] | ArrayLike | None = None,
    second: Real[Tensor, "*#b D D"] | ArrayLike | None = None,
) -> MomentTrajectory:
    r"""Train a network given by its moments, by default the infinitely wide one ($\bar w=0$, $M=I$), exactly.

    Args:
        X: inputs, one a row, shape ``(*b, P, D)``.
        beta: direction of the target $y=\tfrac12(\beta\cdot x)^2$, shape ``(*b, D)``.
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        lr: step size in the units of `gd_step`, above 0, shape ``(*b,)``.
        steps: number of steps, 0 or above.
        centered: whether the initial function is subtracted from the network.
        mean: $\bar w$ at the start, shape ``(*b, D)``.
        second: $M$ at the start, shape ``(*b, D, D)``.

    Returns:
        `MomentTrajectory`, curves ``(*b, steps + 1)``. `alignment` is $\beta^\top M\beta/(D|\beta|^2)$, the mean of
        $m_i^2$ in units where $|\beta|^2=D$. A run that diverges returns what was computed and warns.

    Raises:
        ValueError: as `train`.

    Source: own derivation, :prf:ref:`grokking-closure`.

    >>> generator = torch.Generator().manual_seed(0)
    >>> X = torch.randn(60, 10, generator=generator, dtype=torch.float64) / 10**0.5
    >>> run = train_moments(X, torch.ones(10), alpha=[0.5, 4.0], eps=0.5, lr=0.3, steps=150)
    >>> bool((run.test[0, -1] < 0.05) & (run.test[1, -1] > 0.2))
    True
    """
    read_size("steps", steps, 0)
    like = shared_kind(X, beta, alpha, eps, lr, mean, second)
    x = read_matrix("X", X, like, "(*b, P, D)")
    dim = x.shape[-1]
    b = read_vector("beta", beta, like, f"(*b, {dim}) as in X", dim)
    broadcast_batch(X=x.shape[:-2], beta=b.shape[:-1])
    eye = torch.eye(dim, dtype=like.dtype, device=like.device)
    w = eye.diagonal() * 0 if mean is None else read_vector("mean", mean, like, f"(*b, {dim}) as in X", dim)
    m = eye if second is None else read_matrix("second", second, like, f"(*b, {dim}, {dim}) as in X", dim, dim)
    problem = read_problem(x, (x @ b.unsqueeze(-1)).squeeze(-1).square() / 2, alpha, eps, lr, None, like)
    shapes = {"alpha": problem.alpha.shape, "eps": problem.eps.shape, "lr": problem.lr.shape, "beta": b.shape[:-1]}
    batch = broadcast_batch(X=x.shape[:-2], mean=w.shape[:-1], second=m.shape[:-2], **shapes)
    w, m = w.expand(*batch, dim), m.expand(*batch, dim, dim)
    f = output_from(w, m, x, problem.alpha, problem.eps)
    if centered:
        problem = MomentProblem(x, problem.y, problem.alpha, problem.eps, problem.lr, f)
    w0, m0 = (w, m) if centered else (torch.zeros_like(w), torch.zeros_like(m))
    unit, curves = b / b.norm(dim=-1, keepdim=True), []
    for t in range(steps + 1):
        push = residual_of(problem.y, f, problem.offset)
        parts = moment_parts(w - w0, m - m0, b, problem.alpha, problem.eps)
        norm = m.diagonal(dim1=-2, dim2=-1).sum(-1) / dim
        along = ((m @ unit.unsqueeze(-1)).squeeze(-1) * unit).sum(-1) / dim
        shown = (push.square().mean(-1), parts.total, parts.linear, parts.misalignment, parts.trace, norm, along)
        curves.append([x.expand(batch) for x in shown])
        if t < steps:
            w, m = step_moments(w, m, problem, f)
            f = output_from(w, m, x, problem.alpha, problem.eps)
    losses, test, linear, misalignment, trace, norm, along = (torch.stack(x, -1) for x in zip(*curves, strict=True))
    result = MomentTrajectory(losses, test, linear, misalignment, trace, norm, along, w, m)
    warn_if_diverged(result.train, result.test)
    return result


__all__ = ["gd_step", "train", "train_moments"]
