"""The scalar equation for the effective ridge and its safeguarded Newton iteration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.rf_regression.modes import Modes, learned_share
from lib.rf_regression.setting import Sizes
from lib.rf_regression.slack import slack_and_slope, slack_of

MARGIN = 0.01  # a root that rounding puts outside its bracket would cost bisections


def effective_gamma(modes: Modes, sizes: Sizes, ridge: Tensor, num_iterations: int) -> Tensor:
    r"""$\Gamma$, the solution of $z+b_{\min}=m$, with its gradient in the spectrum, the sizes and the ridge.

    The equation is solved as $\log P=\log N$. With $f_i\in[0,1]$ marking the $m$ largest modes,
    $P=\sum(1-f_i)L_i+b_{\min}$ and $N=\sum f_i(1-L_i)+(m-\mathrm{rank})_+$ are sums of positive terms, and
    $z+b_{\min}-m=P-N$. Their ratio has a logarithmic slope in $\log\Gamma$ between -2 and -1/2, which is why Newton's
    method needs few steps.
    """
    fixed, delta = sizes.detach(), ridge.detach()
    batch = torch.broadcast_shapes(modes.batch, fixed.smaller.shape, delta.shape)
    m, rank = fixed.smaller.expand(batch), modes.rank
    finite_ridge = torch.where(delta.isinf(), torch.ones_like(delta), delta)
    excess = (m - rank).clamp_min(0)
    gap = torch.where(fixed.n.isinf(), torch.ones_like(fixed.n), fixed.width_ratio_gap)
    pieces = modes.slices(batch)
    log_delta = torch.where(fixed.n.isinf(), torch.full_like(m, -torch.inf), finite_ridge.log().expand(batch))

    with torch.no_grad():
        low, high = _bracket(pieces, fixed, log_delta, m, rank)
        solvable = low.isfinite()
        low, high = (torch.where(solvable, end, torch.zeros_like(end)) for end in (low, high))
        eps = 4 * torch.finfo(m.dtype).eps
        u, frozen = (low + high) / 2, ~solvable
        whole = [_split(pieces[0], m, u)] if len(pieces) == 1 else None  # once where it fits, else at every step
        for _ in range(num_iterations):
            above, below, head_slope, tail_slope = _balance(whole or (_split(piece, m, u) for piece in pieces), u)
            slack, slack_slope = slack_and_slope((log_delta - u).exp(), gap, fixed.inverse_k)
            positive, negative = below + slack, above + excess
            value = positive.log() - negative.log()
            step = value / ((tail_slope + slack_slope) / positive + head_slope / negative)
            low, high = torch.where(value > 0, u, low), torch.where(value > 0, high, u)
            moved = u + step
            inside = (moved >= low) & (moved <= high)  # an end itself is welcome: at convergence the point is one
            moved = torch.where(inside, moved, (low + high) / 2)
            u = torch.where(frozen, u, moved)
            frozen = frozen | (step.abs() <= eps * u.abs().clamp_min(1))

        solvable = solvable & (u > math.log(torch.finfo(u.dtype).tiny))  # a gamma that underflows is zero

    gamma = torch.where(solvable, u, torch.zeros_like(u)).exp()
    imbalance, slope = torch.zeros_like(u), slack_and_slope((log_delta - u).exp(), gap, fixed.inverse_k)[1]
    for piece in pieces:
        learned, missed = learned_share(piece.eigenvalues, gamma.unsqueeze(-1))
        head = piece.weight * piece.head_fraction(m)
        imbalance = imbalance + ((piece.weight - head) * learned - head * missed).sum(-1)
        slope = slope + (piece.weight * learned.detach() * missed.detach()).sum(-1)
    safe_ridge = torch.where(ridge.isinf(), torch.ones_like(ridge), ridge)
    # sizes.smaller enters twice so that the value is P - N and the derivative is that of z + b_min - m
    imbalance = imbalance + slack_of(safe_ridge / gamma, sizes) - excess - (sizes.smaller - fixed.smaller)
    slope = slope.clamp_min(torch.finfo(u.dtype).tiny)
    solution = (u + torch.where(solvable, imbalance / slope, torch.zeros_like(u))).exp()

    # rank <= m and no ridge: gamma is 0, and rises with the ridge as delta k / ((n - rank)(k - rank))
    samples_left = (fixed.n - rank).expand(batch)
    features_share = (1 - rank * fixed.inverse_k).expand(batch)
    rising = ~solvable & (samples_left > 0) & (features_share > 0)
    rate = torch.where(
        rising, 1 / torch.where(rising, samples_left * features_share, torch.ones_like(m)), torch.zeros_like(m)
    )
    solution = torch.where(solvable, solution, safe_ridge * rate)
    return torch.where(ridge.isinf(), torch.full_like(solution, torch.inf), solution)


def _bracket(pieces: list[Modes], sizes: Sizes, log_delta: Tensor, m: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    r"""Ends of an interval that holds $\log\Gamma$; the lower is minus infinity where $\Gamma=0$."""
    gap, share = sizes.width_ratio_gap, m * sizes.inverse_k
    modes_needed = (m.floor() + 1).unsqueeze(-1)
    floor = torch.full_like(m, -torch.inf)
    for piece in pieces:
        reached = (piece.before + piece.group >= modes_needed) & (piece.weight != 0)
        floor = torch.maximum(
            floor, torch.where(reached, piece.floor, torch.full_like(piece.floor, -torch.inf)).amax(-1)
        )
    by_modes = floor + ((m.floor() + 1 - m) / m).log()
    by_modes = torch.where(m < rank, by_modes, torch.full_like(m, -torch.inf))
    low = torch.maximum(by_modes, log_delta - m.log() - (share + gap).log()) - MARGIN
    high_by_ridge = log_delta + torch.log(4 / m) - (share + 2 * gap).log()
    high_by_modes = pieces[0].log_trace + torch.log(2 / m)
    return low, torch.maximum(high_by_modes, high_by_ridge) + MARGIN


@dataclass(frozen=True)
class _Split:
    """Log eigenvalues, the weights of the m largest modes and of all others, and room to work in."""

    level: Tensor
    head: Tensor
    tail: Tensor
    room: tuple[Tensor, Tensor, Tensor]


def _split(piece: Modes, m: Tensor, u: Tensor) -> _Split:
    head = piece.weight * piece.head_fraction(m)
    learned, missed, product = (torch.empty_like(head * u.unsqueeze(-1)) for _ in range(3))
    return _Split(piece.log_eigenvalues, head, piece.weight - head, (learned, missed, product))


def _balance(splits: Iterable[_Split], u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Head not learned, tail learned, and the rates at which both change with u = log gamma.

    All in the same room: allocating it at every step would cost more than the arithmetic.
    """
    above, below, head_slope, tail_slope = (torch.zeros_like(u) for _ in range(4))
    for split in splits:
        learned, missed, product = split.room
        learned.copy_(split.level).sub_(u.unsqueeze(-1))
        missed.copy_(learned).neg_().sigmoid_()
        learned.sigmoid_()
        above = above + product.copy_(split.head).mul_(missed).sum(-1)
        below = below + product.copy_(split.tail).mul_(learned).sum(-1)
        learned.mul_(missed)
        head_slope = head_slope + product.copy_(split.head).mul_(learned).sum(-1)
        tail_slope = tail_slope + product.copy_(split.tail).mul_(learned).sum(-1)
    return above, below, head_slope, tail_slope
