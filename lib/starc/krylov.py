"""Discounted sums along a chain that is known only through its product with vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RESTART = 32  # Krylov steps between looks at the true residual
ROUNDING = 16.0  # in units of rounding of the solution: what a residual may keep


def discounted_solution(
    chain: Callable[[Tensor], Tensor], right: Tensor, gamma: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    r"""Solution $x$ of $x-\gamma Px=b$ for every column of `right` `(S, C)`, and its largest residuals `(C,)`.

    BiCGStab is restarted every `RESTART` steps from the true residual. A column that got no better by it takes one step
    $x\to b+\gamma Px$ instead, which contracts the error. Columns share the product with P and nothing else.
    """

    def applied(x: Tensor) -> Tensor:
        return x - gamma * chain(x)

    x = right.clone()
    left = right - applied(x)
    while steps > 0 and not _settled(left, x):
        step, used = _bicgstab(applied, left, x, min(steps, RESTART))
        steps -= used
        candidate = x + step
        remaining = right - applied(candidate)
        better = _size(remaining) < _size(left)
        x = torch.where(better, candidate, x + left)
        left = torch.where(better, remaining, gamma * chain(left))
    return x, _size(left)


def _bicgstab(applied: Callable[[Tensor], Tensor], left: Tensor, x: Tensor, steps: int) -> tuple[Tensor, int]:
    """Steps of BiCGStab on the residual `left`: the correction of `x`, and how many were made."""
    shadow, direction, correction = left, left, torch.zeros_like(left)
    size = (shadow * left).sum(0)
    for done in range(1, steps + 1):
        image = applied(direction)
        alpha = _ratio(size, (shadow * image).sum(0))
        half = left - alpha * image
        half_image = applied(half)
        omega = _ratio((half_image * half).sum(0), half_image.square().sum(0))
        correction = correction + alpha * direction + omega * half
        left = half - omega * half_image
        if _settled(left, x):
            return correction, done
        before, size = size, (shadow * left).sum(0)
        beta = _ratio(size * alpha, before * omega)
        direction = left + beta * (direction - omega * image)
    return correction, steps


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    """The quotient, and 0 where the method has broken down; the restart repairs that."""
    gone = under == 0
    return torch.where(gone, torch.zeros_like(over), over / torch.where(gone, torch.ones_like(under), under))


def _size(x: Tensor) -> Tensor:
    return x.abs().amax(0)


def _settled(left: Tensor, x: Tensor) -> bool:
    """Whether all residuals are at rounding level; never on an accelerator, which would have to wait for it."""
    limit = ROUNDING * torch.finfo(x.dtype).eps * _size(x)
    return left.device.type == "cpu" and bool((_size(left) <= limit).all())
