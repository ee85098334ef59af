"""The lazy limit: training with the kernel of the start, solved where samples and dimension grow together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lib.checks import ArrayLike, broadcast_batch, read_nonnegative, read_positive, read_size, shared_kind
from lib.grokking.setting import warn_of_step
from lib.shapes import Float, Real


@dataclass(frozen=True)
class LazyCurve:
    """Train and test loss of kernel dynamics, and two parts of the test loss: power of the linear function that was
    learned, and what is left of the constant part of the target (not squared).
    """

    train: Float[Tensor, "*b"]
    test: Float[Tensor, "*b"]
    linear: Float[Tensor, "*b"]
    constant: Float[Tensor, "*b"]


def lazy_curve(
    psi: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    lr: Real[Tensor, "*#b"] | ArrayLike,
    steps: int,
    *,
    chunk: int = 128,
) -> LazyCurve:
    r"""Losses of gradient descent with the initial kernel, for $P,D\to\infty$ at $\psi=P/D$: exact at every step.

    Seen from a generic vector, $XX^\top$ is the tridiagonal matrix $T$ with diagonal $1,1+\psi,1+\psi,\dots$ and
    $\sqrt\psi$ beside it, and the kernel is $J_a=T+\epsilon^2I$; seen from the constant vector it is
    $J_b=J_a+\epsilon^2\psi\,e_0e_0^\top$. From $d=e_0$, $c=0$,

    $$ d^+=d-\tfrac\eta\psi Jd,\qquad c^+=c+\tfrac\eta\psi d, $$

    and $\text{train}=\tfrac12|d_a|^2+\tfrac14|d_b|^2$,
    $\text{test}=\tfrac12+r^2+\psi[\tfrac12c_a^\top Tc_a+\tfrac14c_b^\top Tc_b]$ with
    $r=\tfrac12(1-\epsilon^2\psi c_{b0})$. After t steps only t + 1 entries are not zero, so nothing is cut off.

    Args:
        psi: samples per dimension, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        lr: step size in the units of `gd_step`, above 0, shape ``(*b,)``.
        steps: number of steps, 0 or above.
        chunk: settings that are run together, which bounds the memory of a step; the result does not depend on it.

    Returns:
        `LazyCurve`, each ``(*b, steps + 1)``; `linear` and $r^2$ (`constant` squared) and one half add up to `test`.

    Raises:
        ValueError: numbers out of range, shapes that do not broadcast. A step size beyond `stable_step_size` warns.

    Source: own derivation, :prf:ref:`grokking-lazy`.

    >>> curve = lazy_curve(2.0, 0.5, 0.4, 10)
    >>> curve.train[-1].round(decimals=4), curve.test[-1].round(decimals=4)
    (tensor(0.1051, dtype=torch.float64), tensor(0.8436, dtype=torch.float64))
    """
    read_size("steps", steps, 0)
    read_size("chunk", chunk, 1)
    like = shared_kind(psi, eps, lr)
    ratio, share = read_positive("psi", psi, like), read_nonnegative("eps", eps, like).square()
    rate = read_positive("lr", lr, like)
    batch = broadcast_batch(psi=ratio.shape, eps=share.shape, lr=rate.shape)
    warn_of_step(rate, _stable(ratio, share))
    settings = torch.stack([x.expand(batch).flatten() for x in (ratio, share, rate)], -1).split(chunk)
    parts = torch.cat([_descent(part, steps) for part in settings], 1)
    return LazyCurve(*parts.reshape(4, *batch, steps + 1))


def _descent(settings: Tensor, steps: int) -> Tensor:
    """Train loss, test loss, linear power and what is left of the constant, ``(4, settings, steps + 1)``."""
    ratio, share, rate = (x[:, None, None] for x in settings.unbind(-1))
    first = pad(ratio.new_ones(1), (0, steps + 1))
    extra = share * ratio * torch.arange(2, dtype=ratio.dtype, device=ratio.device)[:, None]  # the constant's alone
    speed, keep = rate / ratio, 1 - rate / ratio * (1 + share + ratio * (1 - first) + extra * first)
    side = -rate / ratio.sqrt()
    d, c = first.expand_as(keep), torch.zeros_like(keep)  # rows: quadratic functions, the constant
    seen: list[list[Tensor]] = [[], [], [], []]
    for _ in range(steps + 1):
        for values, value in zip(seen, (d * d, c * d, c * c), strict=False):
            values.append(value.sum(-1))
        seen[3].append(c[..., 0])
        c = c + speed * d
        beside = pad(d, (1, 1))
        d = keep * d + side * (beside[..., 2:] + beside[..., :-2])
    dd, cd, cc, start = (torch.stack(values, -1) for values in seen)  # (settings, 2, steps + 1)
    # since d = e_0 - J c, the power of the learned linear function needs no product with T
    power = start - cd - share * cc - extra * start.square()
    share, ratio = share[:, 0], ratio[:, 0]
    left = (1 - share * ratio * start[:, 1]) / 2
    learned = ratio * (power[:, 0] / 2 + power[:, 1] / 4)
    return torch.stack([dd[:, 0] / 2 + dd[:, 1] / 4, 0.5 + left.square() + learned, learned, left])


def lazy_limit(psi: Real[Tensor, "*#b"] | ArrayLike, eps: Real[Tensor, "*#b"] | ArrayLike) -> LazyCurve:
    r"""`lazy_curve` after infinitely many steps, in closed form: kernel regression without ridge.

    With $z=\epsilon^2$, $R^2=(z+1-\psi)^2+4\psi z$ and $c=2/(1+\psi-z+R)$,

    $$ \text{test}=\tfrac12+\tfrac14c^2+\frac{2\psi}{R\,(1+\psi+z+R)}\bigl(\tfrac12+\tfrac14c^2\bigr). $$

    In terms of the Stieltjes transform $m=(R-z-1+\psi)/(2\psi z)$ of the Marchenko-Pastur law at $-z$ these are
    $c=1/(1+z\psi m)$ and $\psi(m+zm')$; written so, no digits cancel.

    Args:
        psi: samples per dimension, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, above 0, shape ``(*b,)``.

    Returns:
        `LazyCurve`, each ``(*b,)``; train loss zero, `constant` is $c/2$.

    Raises:
        ValueError: numbers out of range, shapes that do not broadcast.

    Source: own derivation, :prf:ref:`grokking-lazy-limit`.

    >>> lazy_limit(2.0, 0.5).test.round(decimals=10)
    tensor(0.8376, dtype=torch.float64)
    """
    like = shared_kind(psi, eps)
    ratio, z = read_positive("psi", psi, like), read_positive("eps", eps, like).square()
    broadcast_batch(psi=ratio.shape, eps=z.shape)
    b = z + 1 - ratio
    root = (b.square() + 4 * ratio * z).sqrt()
    pulled = torch.where(b > 0, 2 * ratio * z / (b.clamp_min(0) + root), (root - b) / 2)  # z psi m
    left = 1 / (1 + pulled)
    linear = 2 * ratio / (root * (1 + ratio + z + root)) * (0.5 + left.square() / 4)
    return LazyCurve(torch.zeros_like(left), 0.5 + left.square() / 4 + linear, linear, left / 2)


def stable_step_size(psi: Real[Tensor, "*#b"] | ArrayLike, eps: Real[Tensor, "*#b"] | ArrayLike) -> Float[Tensor, "*b"]:
    r"""Step size below which gradient descent with the initial kernel is stable, for $P,D\to\infty$ at $\psi=P/D$:

    $$ \eta<\frac{2\psi}{\lambda_{\max}},\qquad\lambda_{\max}=\epsilon^2+\begin{cases}(1+\sqrt\psi)^2&
       \epsilon^2\le1+1/\sqrt\psi\\1+\epsilon^2\psi+1/(\epsilon^2-1)&\text{otherwise.}\end{cases} $$

    The second case is the constant's own eigenvalue, which leaves the bulk where the square is strong. Features that
    grow raise the kernel, so a rich run can need a smaller step later.

    Args:
        psi: samples per dimension, above 0, shape ``(*b,)``.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.

    Returns:
        The threshold in the units of `gd_step`, shape ``(*b,)``.

    Raises:
        ValueError: numbers out of range, shapes that do not broadcast.

    Source: own derivation, :prf:ref:`grokking-stability`.

    >>> stable_step_size(1.0, 0.0)
    tensor(0.5000, dtype=torch.float64)
    """
    like = shared_kind(psi, eps)
    ratio, share = read_positive("psi", psi, like), read_nonnegative("eps", eps, like).square()
    broadcast_batch(psi=ratio.shape, eps=share.shape)
    return _stable(ratio, share)


def _stable(ratio: Tensor, share: Tensor) -> Tensor:
    out = share > 1 + ratio.rsqrt()
    alone = 1 + share * ratio + 1 / torch.where(out, share - 1, 1.0)
    return 2 * ratio / (share + torch.where(out, alone, (1 + ratio.sqrt()).square()))


__all__ = ["LazyCurve", "lazy_curve", "lazy_limit", "stable_step_size"]
