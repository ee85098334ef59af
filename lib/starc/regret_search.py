"""The multiplier at which a constraint on a second reward costs most: policy iteration and cutting planes in one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.starc.problems import Problems, improvable, improve, rounding, still_open

EASY_STEPS, SWEEPS = 12, 8  # who is not done after so many steps looks so many further steps ahead


@dataclass(frozen=True)
class Lines:
    r"""Two pairs of policies whose lines $a-\lambda D$ support the range of $R_1-\lambda R_2$ from below.

    The policies are x and y of the falling line (D > 0), then x and y of the rising one, shape `(N, 4, S)`; their
    values under both rewards are `(N, 4, 2, S)`.
    """

    actions: Tensor
    values: Tensor

    def some(self, index: Tensor) -> Lines:
        """The chosen ones."""
        return Lines(self.actions[index], self.values[index])

    def put(self, index: Tensor, lines: Lines) -> Lines:
        """These, with the chosen ones replaced."""
        return Lines(self.actions.index_copy(0, index, lines.actions), self.values.index_copy(0, index, lines.values))


@dataclass(frozen=True)
class Crossing:
    """Where two lines cross: the multiplier, the height there, and per side the best values of the two pairs."""

    multiplier: Tensor  # (N,)
    height: Tensor  # (N,), what the two pairs of policies reach
    actions: Tensor  # (N, 2, S), policies of x and y that attain the values
    values: Tensor  # (N, 2, S), of the reward for x and of its negative for y
    q_value: Tensor  # (N, 2, S, A)


def search(problems: Problems, start: Tensor, lines: Lines, steps: int) -> Lines:
    """Raise the lines until no policy rises above their crossing.

    Each step improves both policies at the crossing once. The value there is at most the range at the best multiplier;
    the new line lies above it and replaces the one that falls or rises as it does, so the value increases until it is
    the minimum. Two factorisations a step; problems that are solved are dropped where reading that is free.
    """
    rows, part, now, weights = None, problems, lines, start
    for step in range(steps):
        here = crossing(part, weights, now)
        closed = ~(improvable(here.q_value, here.values) | _above(here, weights))
        improved = improve(_further(part, here, SWEEPS if step >= EASY_STEPS else 0), here.actions)
        left = still_open(closed)
        if left is not None:
            lines = now if rows is None else lines.put(rows, now)
            if left.numel() == 0:
                return lines
            rows = left if rows is None else rows[left]
            part, now, weights = part.some(left), now.some(left), weights[left]
            improved, closed = improved[left], closed[left]
        now = _replace(now, improved, part.evaluate(improved), weights, closed)
    return now if rows is None else lines.put(rows, now)


def crossing(problems: Problems, start: Tensor, lines: Lines) -> Crossing:
    """Where the two lines cross, and the better policy of the two pairs in every state there."""
    returns = (lines.values * start[:, None, None, :]).sum(-1)  # (N, 4, 2)
    multiplier, _ = meeting_point(returns)
    lam = multiplier[:, None, None]
    pair = returns[:, 0] - returns[:, 1]
    height = pair[:, 0] - multiplier * pair[:, 1]
    mixed = lines.values[:, :, 0] - lam * lines.values[:, :, 1]  # (N, 4, S)
    falling, rising = mixed[:, :2], mixed[:, 2:]
    sign = _signs(mixed)
    first = sign * falling >= sign * rising
    values = torch.where(first, sign * falling, sign * rising)
    actions = torch.where(first, lines.actions[:, :2], lines.actions[:, 2:])
    return Crossing(multiplier, height, actions, values, _rewards_at(problems, multiplier) + problems.ahead(values))


def _above(here: Crossing, start: Tensor) -> Tensor:
    """Where `(N,)` the better policy of the two in every state beats both: that one is yet to be evaluated."""
    best = (here.values * start.unsqueeze(1)).sum((-2, -1))
    return best - here.height > rounding(here.values).sum((-2, -1))


def meeting_point(returns: Tensor) -> tuple[Tensor, Tensor]:
    """Multiplier (0 where the first line does not fall) and share of the first line in the level mixture.

    `returns` are those of the four policies under the two rewards, shape `(N, 4, 2)`.
    """
    height, fall = (returns[:, 0::2] - returns[:, 1::2]).unbind(-1)  # (N, 2) each
    flat = fall[:, 0] <= 0
    turn = torch.where(flat, torch.ones_like(fall[:, 0]), fall[:, 0] - fall[:, 1])
    multiplier = ((height[:, 0] - height[:, 1]) / turn).clamp_min(0)
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    return torch.where(flat, zero, multiplier), torch.where(flat, one, -fall[:, 1] / turn)


def _signs(like: Tensor) -> Tensor:
    return 1 - 2 * torch.arange(2, dtype=like.dtype, device=like.device)[:, None]  # x is best, y is worst


def _rewards_at(problems: Problems, multiplier: Tensor) -> Tensor:
    mixed = problems.rewards[:, 0] - multiplier[:, None, None] * problems.rewards[:, 1]
    return torch.stack((mixed, -mixed), 1)


def _further(problems: Problems, here: Crossing, sweeps: int) -> Tensor:
    rewards, q_value = _rewards_at(problems, here.multiplier), here.q_value
    for _ in range(sweeps):
        q_value = rewards + problems.ahead(q_value.amax(-1))
    return q_value


def _replace(lines: Lines, actions: Tensor, values: Tensor, start: Tensor, closed: Tensor) -> Lines:
    """Put a new pair of policies in the place of the pair that falls or rises as it does."""
    fall = (values[:, 0, 1] - values[:, 1, 1]).mul(start).sum(-1)
    at = torch.stack((fall > 0, fall <= 0), 1) & ~closed.unsqueeze(-1)  # (N, 2)
    at = at.repeat_interleave(2, 1).unsqueeze(-1)
    return Lines(
        torch.where(at, actions.repeat(1, 2, 1), lines.actions),
        torch.where(at.unsqueeze(-1), values.repeat(1, 2, 1, 1), lines.values),
    )
