"""When a loss crosses a level, in a curve, in closed equations for endless data, and by mean-field theory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    broadcast_batch,
    read_nonnegative,
    read_positive,
    read_size,
    require,
    require_shape,
    shared_kind,
)
from lib.grokking.dmft import dmft
from lib.shapes import Float, Real

STAGES = 1000  # of the integrator: steps below 1/30 of the growth time up to D = 1e13


@dataclass(frozen=True)
class GrokkingTimes:
    """Step from which train and test loss stay below a level, mean over runs, their standard errors, and the delay of
    the test loss; infinite where less than half of the runs get there.
    """

    train: Float[Tensor, "*b"]
    test: Float[Tensor, "*b"]
    delay: Float[Tensor, "*b"]
    train_error: Float[Tensor, "*b"]
    test_error: Float[Tensor, "*b"]


def crossing_time(
    curve: Real[Tensor, "*#b times"] | ArrayLike, level: Real[Tensor, "*#b"] | ArrayLike
) -> Float[Tensor, "*out"]:
    """First index from which a curve stays at or below a level; infinity if its last entry is above.

    Args:
        curve: shape ``(*b, times)``; an entry that is not a number counts as above.
        level: shape ``(*b,)``.

    Returns:
        Shape ``(*b,)``, floating.

    Raises:
        ValueError: no axis, no entry, shapes that do not broadcast.

    Source: own definition, :prf:ref:`grokking-times`.

    >>> crossing_time([[3.0, 1.0, 2.0, 1.0, 0.5], [3.0, 1.0, 1.0, 1.0, 3.0]], 1.0)
    tensor([3., inf], dtype=torch.float64)
    """
    like = shared_kind(curve, level)
    x, edge = as_float("curve", curve, like=like), as_float("level", level, like=like)
    require_shape("curve", x, x.ndim >= 1 and x.shape[-1] >= 1, "(*b, times) with times >= 1")
    require("level", ~edge.isnan(), "a number", edge)
    broadcast_batch(curve=x.shape[:-1], level=edge.shape)
    below = (x <= edge.unsqueeze(-1)).to(torch.int64)
    kept = below.flip(-1).cumprod(-1).sum(-1)  # entries at the end that stay below
    return torch.where(kept > 0, (x.shape[-1] - kept).to(like.dtype), torch.inf)


def escape_time(
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    dim: Real[Tensor, "*#b"] | ArrayLike,
    level: Real[Tensor, "*#b"] | ArrayLike,
    centered: bool = True,
) -> Float[Tensor, "*out"]:
    r"""Time $\eta t$ at which an infinitely wide network with endless data reaches a test loss, for small steps.

    The share $u$ of the trace and the share $v$ of the target's direction in $\alpha\epsilon M$ obey two equations in
    the time $s=\epsilon\eta t/\alpha$: without centring,

    $$ u'=\tau u,\qquad v'=2\bigl(1-v+\tfrac\tau2\bigr)v,\qquad\tau=1-u-v,\qquad u(0)=\alpha\epsilon,\quad
       v(0)=\alpha\epsilon/D, $$

    and the loss is $\tfrac12(1-v)^2+\tfrac14\tau^2$. So the time is $\alpha/\epsilon$ times a function of
    $\alpha\epsilon$, $D$ and the level, and grows as $\frac\alpha{2\epsilon}\log D$. Centring subtracts $u(0)$ and
    $v(0)$ from $u$ and $v$ in $\tau$ and in the loss.

    Args:
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, above 0, shape ``(*b,)``.
        dim: $D$, at least 1, shape ``(*b,)``.
        level: test loss to reach, between 0 and 1/2, shape ``(*b,)``.
        centered: whether the initial function is subtracted from the network.

    Returns:
        Time in units of $\eta$ times steps, shape ``(*b,)``.

    Raises:
        ValueError: numbers out of range, shapes that do not broadcast.

    Source: own derivation, :prf:ref:`grokking-escape`.

    >>> escape_time(1.0, 0.5, [1e4, 1e6], 0.15, centered=False).round(decimals=2)
    tensor([ 9.4900, 14.1100], dtype=torch.float64)
    """
    like = shared_kind(alpha, eps, dim, level)
    scale, share = read_positive("alpha", alpha, like), read_positive("eps", eps, like)
    size, edge = as_float("dim", dim, like=like), as_float("level", level, like=like)
    require("dim", (size >= 1) & size.isfinite(), "a finite number >= 1", size)
    require("level", (edge > 0) & (edge < 0.5), "a number between 0 and 1/2", edge)
    batch = broadcast_batch(alpha=scale.shape, eps=share.shape, dim=size.shape, level=edge.shape)
    scale, share, size, edge = (x.expand(batch) for x in (scale, share, size, edge))
    start = scale * share
    u, v = start, start / size
    u0, v0 = (u, v) if centered else (torch.zeros_like(u), torch.zeros_like(v))
    step = (size.log() / 2 + start.log().abs() + 12) / STAGES

    def slope(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        gap = 1 - (u - u0) - (v - v0)
        return gap * u, 2 * (1 - (v - v0) + gap / 2) * v

    def loss(u: Tensor, v: Tensor) -> Tensor:
        return (1 - v + v0).square() / 2 + (1 - (u - u0) - (v - v0)).square() / 4

    reached = torch.where(loss(u, v) <= edge, 0.0, torch.inf)
    before = loss(u, v)
    for stage in range(STAGES):
        a = slope(u, v)
        b = slope(u + step / 2 * a[0], v + step / 2 * a[1])
        c = slope(u + step / 2 * b[0], v + step / 2 * b[1])
        d = slope(u + step * c[0], v + step * c[1])
        u, v = (x + step / 6 * (p + 2 * q + 2 * r + s) for x, p, q, r, s in zip((u, v), a, b, c, d, strict=True))
        now = loss(u, v)
        inside = (before - edge) / (before - now)
        reached = torch.where((before > edge) & (now <= edge), step * (stage + inside), reached)
        before = now
    return reached * scale / share


def grokking_time(
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    psi: Real[Tensor, "*#b"] | ArrayLike,
    lr: Real[Tensor, "*#b"] | ArrayLike,
    *,
    alignment: Real[Tensor, " N"] | ArrayLike,
    level: float,
    steps: int,
    samples: int = 2000,
    runs: int = 4,
    generator: torch.Generator | None = None,
) -> GrokkingTimes:
    r"""Predicted steps at which train and test loss fall below a level for good, by mean-field theory.

    All settings and runs are one batch of `dmft`, centred, from orthonormal weights plus the given alignment:
    $C=I$, $m$ = `alignment`. A crossing beyond `steps` counts as never.

    Args:
        alpha: output scale, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        psi: samples per dimension, above 0, shape ``(*b,)``.
        lr: step size in the units of `gd_step`, above 0, shape ``(*b,)``.
        alignment: $m_i$ of the N units at the start, with $\sum_im_i^2<1$, shape ``(N,)``.
        level: the loss to fall below, above 0.
        steps: number of steps, 0 or above.
        samples: inputs of each run; `samples` / `psi` > 1 + N + N(steps + 1).
        runs: independent runs of each setting, at least 2.
        generator: source of randomness; a fixed seed of its own if none is given.

    Returns:
        `GrokkingTimes`, each ``(*b,)``: means over the runs that get there, if at least half of them do.

    Raises:
        ValueError: numbers out of range, and what `dmft` refuses.

    Source: own construction on :prf:ref:`grokking-dmft`.

    >>> times = grokking_time([0.5, 2.0], 0.5, 3.0, 0.3, alignment=[0.4, -0.4], level=0.3, steps=150, samples=1000)
    >>> bool(times.test[0] < times.test[1])
    True
    """
    read_size("runs", runs, 2)
    like = shared_kind(alpha, eps, psi, lr, alignment)
    scale, share = read_positive("alpha", alpha, like), read_nonnegative("eps", eps, like)
    ratio, rate = read_positive("psi", psi, like), read_positive("lr", lr, like)
    edge = read_positive("level", level, like)
    batch = broadcast_batch(alpha=scale.shape, eps=share.shape, psi=ratio.shape, lr=rate.shape)
    m = as_float("alignment", alignment, like=like)
    require_shape("alignment", m, m.ndim == 1 and m.shape[0] >= 1, "(N,)")
    first = torch.eye(m.shape[0], dtype=like.dtype, device=like.device).expand(runs, *batch, -1, -1)
    run = dmft(first, m, scale, share, ratio, rate, steps, samples, generator)
    train, test = crossing_time(run.train, edge), crossing_time(run.test, edge)
    (fit, fit_error), (known, known_error) = _mean(train), _mean(test)
    delay = torch.where(known.isfinite(), known - fit, torch.inf)
    return GrokkingTimes(fit, known, delay, fit_error, known_error)


def _mean(times: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the first axis and its standard error, infinite where less than half of the entries are finite."""
    there = times.isfinite()
    count = there.sum(0)
    mean = torch.where(there, times, 0.0).sum(0) / count
    square = torch.where(there, (times - mean).square(), 0.0).sum(0) / (count - 1).clamp_min(1)
    often = 2 * count >= times.shape[0]
    return torch.where(often, mean, torch.inf), torch.where(often, (square / count).sqrt(), torch.inf)


__all__ = ["GrokkingTimes", "crossing_time", "escape_time", "grokking_time"]
