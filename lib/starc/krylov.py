"""Discounted sums along a chain that is known only through its product with vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RESTART = 32  # Krylov steps between looks at the true residual
ROUNDING = 16.0  # in units of rounding of the solution: what a residual may keep

Product = Callable[[Tensor], Tensor]


def discounted_solution(
    chain: Product, right: Tensor, gamma: Tensor, steps: int, rough: Product | None = None
) -> tuple[Tensor, Tensor]:
    r"""Solution $x$ of $x-\gamma Px=b$ for every column of `right` `(S, C)`, and its largest residuals `(C,)`.

    BiCGStab is restarted every `RESTART` steps from the true residual. Where a column got no better by it, steps of
    value iteration $x\to b+\gamma Px$ follow, which contract the error: one, and on the CPU, where this is known, as
    many more as the failure has cost, doubled for each failure in a row. With `rough`, the product in float32,
    corrections are sought in float32 as long as each gains three digits.

    P leaves the constant vector alone, which makes it the slowest part of the error. So the Krylov steps solve
    $y-\gamma(P-1\bar{\,\cdot\,})y=r$, the bar being the mean over states, and
    $x=y+\frac\gamma{1-\gamma}\bar y$ solves $x-\gamma Px=r$.
    """
    solve = _corrections(chain if rough is None else rough, gamma, right.dtype if rough is None else torch.float32)
    x, left = torch.zeros_like(right), right
    size, limit, plain = _size(left), _rounding(x), RESTART
    while steps > 0 and not _read(size <= limit):
        step, used = solve(left, size, limit, min(steps, RESTART))
        steps -= used
        candidate = x + step.addcmul(gamma / (1 - gamma), step.mean(0))
        remaining = (right - candidate).addcmul(gamma, chain(candidate))
        now, limit = _size(remaining), _rounding(candidate)
        if rough is not None and not _read(now <= limit.maximum(size / 1000)):
            solve, rough = _corrections(chain, gamma, right.dtype), None
        better = (now < size) | (now <= limit)
        if _read(better):
            x, left, size, plain = candidate, remaining, now, RESTART
            continue
        x, left = torch.where(better, candidate, x), torch.where(better, remaining, left)
        more = min(steps, plain) if x.device.type == "cpu" else 0
        x = _iterated(chain, gamma, x, left, 1 + 2 * more)
        left = (right - x).addcmul(gamma, chain(x))
        size, limit, steps, plain = _size(left), _rounding(x), steps - more, 2 * plain
    return x, size


def _iterated(chain: Product, gamma: Tensor, x: Tensor, left: Tensor, steps: int) -> Tensor:
    """Value iteration from `x` with residual `left`, and the constant that centres what is left then."""
    for _ in range(steps):
        x, left = x + left, gamma * chain(left)
    return x + (left.amax(0) + left.amin(0)) / (2 * (1 - gamma))


def _corrections(chain: Product, gamma: Tensor, dtype: torch.dtype) -> Callable[..., tuple[Tensor, int]]:
    """BiCGStab in `dtype` on residuals scaled to size 1, until `limit` or rounding of `dtype`."""
    discount = gamma.to(dtype)

    def applied(y: Tensor) -> Tensor:
        return y.addcmul(discount, chain(y) - y.mean(0), value=-1)

    def solve(left: Tensor, size: Tensor, limit: Tensor, steps: int) -> tuple[Tensor, int]:
        scale = torch.where(size > 0, size, torch.ones_like(size))
        reachable = (limit / scale).clamp_min(ROUNDING * torch.finfo(dtype).eps)
        step, used = _bicgstab(applied, (left / scale).to(dtype), reachable.to(dtype), steps)
        return step.to(left.dtype) * scale, used

    return solve


def _bicgstab(applied: Product, left: Tensor, limit: Tensor, steps: int) -> tuple[Tensor, int]:
    """Steps of BiCGStab on the residual `left`, until it is below `limit`: the correction, and how many were made."""
    enough = left.shape[0] * (limit / 4).square()  # entries of a quarter: a sum is read faster than the largest one
    wave = torch.arange(left.shape[0], dtype=left.dtype, device=left.device).cos().unsqueeze(-1)
    shadow = left + left.square().mean(0).sqrt() * wave  # without zeros: a sparse one soon is orthogonal to all
    direction, correction = left, torch.zeros_like(left)
    size = (shadow * left).sum(0)
    for done in range(1, steps + 1):
        image = applied(direction)
        alpha = _ratio(size, (shadow * image).sum(0))
        half = left.addcmul(alpha, image, value=-1)
        half_image = applied(half)
        omega = _ratio((half_image * half).sum(0), half_image.square().sum(0))
        correction.addcmul_(alpha, direction).addcmul_(omega, half)
        left = half.addcmul(omega, half_image, value=-1)
        if _read(left.square().sum(0) <= enough):
            return correction, done
        before, size = size, (shadow * left).sum(0)
        beta = _ratio(size * alpha, before * omega)
        direction = direction.addcmul(omega, image, value=-1).mul_(beta).add_(left)
    return correction, steps


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    """The quotient, and 0 where the method has broken down; the restart repairs that."""
    return (over / under).nan_to_num(0, 0, 0)


def _size(x: Tensor) -> Tensor:
    return x.abs().amax(0)


def _rounding(x: Tensor) -> Tensor:
    return ROUNDING * torch.finfo(x.dtype).eps * _size(x)


def _read(holds: Tensor) -> bool:
    """Whether this holds for all columns; never on an accelerator, which would have to wait for the answer."""
    return holds.device.type == "cpu" and bool(holds.all())
