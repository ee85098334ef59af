"""Everything the risk needs at an effective ridge: found from the ridge, or given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.rf_regression.equation import effective_gamma
from lib.rf_regression.modes import Modes, learned_share
from lib.rf_regression.setting import Sizes
from lib.rf_regression.slack import Slacks, slack_of, slacks
from lib.shapes import Float

ITERATIONS = 24  # three times what any spectrum, size and ridge of the tests needs


@dataclass(frozen=True)
class Solution:
    """Everything the risk needs: gamma, kappa, slacks, and the sums over modes that were learned."""

    gamma: Float[Tensor, "*batch"]
    kappa: Float[Tensor, "*batch"]
    learned: Float[Tensor, "*batch"]
    learned_squared: Float[Tensor, "*batch"]
    boundary: Float[Tensor, "*batch"]
    slack: Slacks
    residual: Float[Tensor, "*batch"]


def solution(modes: Modes, sizes: Sizes, ridge: Tensor, num_iterations: int = ITERATIONS) -> Solution:
    """Solve for gamma and collect what follows from it."""
    gamma = effective_gamma(modes, sizes, ridge, num_iterations)
    m = sizes.smaller.detach().expand(gamma.shape)
    learned, squared, boundary, missing, imbalance = (torch.zeros_like(gamma) for _ in range(5))
    for piece in modes.slices(gamma.shape):
        share, rest = learned_share(piece.eigenvalues, gamma.unsqueeze(-1))
        seen = piece.weight * share
        learned, squared = learned + seen.sum(-1), squared + (seen * share).sum(-1)
        boundary, missing = boundary + (seen * rest).sum(-1), missing + (piece.weight * rest).sum(-1)
        head = piece.head_fraction(m)
        balance = seen.detach() * (1 - head) - piece.weight * rest.detach() * head
        imbalance = imbalance + balance.sum(-1)
    endless, interpolated = ridge.isinf(), gamma.detach() < torch.finfo(gamma.dtype).tiny
    safe_gamma = torch.where(interpolated | endless, torch.ones_like(gamma), gamma)
    safe_ridge = torch.where(endless, torch.ones_like(ridge), ridge)
    smaller = slack_of(safe_ridge / safe_gamma, sizes)
    smaller = torch.where(interpolated, (sizes.smaller - modes.rank + missing).clamp_min(0), smaller)
    smaller = torch.where(endless, sizes.smaller, smaller)
    learned, squared, boundary = (torch.where(endless, torch.zeros_like(x), x) for x in (learned, squared, boundary))
    slack = slacks(smaller, sizes)
    residual = (imbalance + smaller.detach() - (m - modes.rank).clamp_min(0)).abs() / m
    kappa = gamma * torch.where(endless, torch.ones_like(slack.features_share), slack.features_share)
    return Solution(gamma, kappa, learned, squared, boundary, slack, residual)


def solution_at(modes: Modes, sizes: Sizes, gamma: Tensor) -> tuple[Tensor, Solution]:
    """The ridge that has this effective ridge (NaN if none has), and everything the risk needs there."""
    m = sizes.smaller.detach().expand(gamma.shape)
    learned, squared, boundary, above, below = (torch.zeros_like(gamma) for _ in range(5))
    for piece in modes.slices(gamma.shape):
        share, rest = learned_share(piece.eigenvalues, gamma.unsqueeze(-1))
        head = piece.weight * piece.head_fraction(m)
        learned = learned + (piece.weight * share).sum(-1)
        squared = squared + (piece.weight * share * share).sum(-1)
        boundary = boundary + (piece.weight * share * rest).sum(-1)
        above = above + (head * rest).sum(-1)
        below = below + ((piece.weight - head) * share).sum(-1)
    above = above + (m - modes.rank).clamp_min(0)
    # the ridgeless gamma as `solve_effective_ridge` returns it is right up to rounding; it belongs to ridge 0
    noise = 100 * torch.finfo(gamma.dtype).eps * (above + below)
    smaller = above - below + (sizes.smaller - sizes.smaller.detach())  # the slack grows with m one to one
    smaller = torch.where((above - below).abs() <= noise, torch.zeros_like(gamma), smaller)
    slack = slacks(smaller.clamp_min(0), sizes)
    nothing = (gamma == 0) | (smaller == 0)
    larger_share = smaller * sizes.inverse_k + sizes.width_ratio_gap
    ridge = torch.where(nothing, torch.zeros_like(gamma), gamma * smaller * larger_share)
    ridge = torch.where(smaller < 0, torch.full_like(gamma, torch.nan), ridge)
    return ridge, Solution(
        gamma, gamma * slack.features_share, learned, squared, boundary, slack, torch.zeros_like(gamma)
    )
