"""The exact worst-case regret: how much of one reward can be lost by a policy change that another reward welcomes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, indicator, read_size
from lib.shapes import Float, Real
from lib.starc.policy import levelled
from lib.starc.policy_iteration import ITERATIONS, extremes
from lib.starc.problems import Problems
from lib.starc.regret_search import Lines, crossing, meeting_point, search
from lib.starc.rewards import largest_mean_size, mean_reward
from lib.starc.setting import read_task, trivial_share


@dataclass(frozen=True)
class WorstCaseRegret:
    """The regret, its share of the range, and the certificates that it is the maximum (see `worst_case_regret`)."""

    regret: Float[Tensor, "*batch"]
    normalised: Float[Tensor, "*batch"]
    multiplier: Float[Tensor, "*batch"]
    occupancy_1: Float[Tensor, "*batch S A"]
    occupancy_2: Float[Tensor, "*batch S A"]
    gap: Float[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]


def worst_case_regret(
    R1: Real[Tensor, "*#batch S A S"] | ArrayLike,
    R2: Real[Tensor, "*#batch S A S"] | ArrayLike,
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    initial: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
    *,
    steps: int = 32,
    iterations: int = ITERATIONS,
) -> WorstCaseRegret:
    r"""Largest loss of $R_1$ when one policy replaces another that is no better for $R_2$, exactly.

    $$ G(R_1,R_2)=\frac1{\|R_1\|_J}\max_{x,y\in\Omega,\ \langle x-y,\bar R_2\rangle\le0}\langle x-y,\bar R_1\rangle
    =\frac1{\|R_1\|_J}\min_{\lambda\ge0}\|R_1-\lambda R_2\|_J $$

    over occupancies x and y, with $\|R\|_J$ the range of returns (`return_range`): by duality, the distance of $R_1$
    from the ray spanned by $R_2$. The
    right side is convex and piecewise linear in $\lambda$; policy iteration at the crossing of two supporting lines
    finds its minimum, and mixing the policies of the two lines gives the maximising occupancies. Differentiable in R1,
    R2, P, gamma and the initial distribution (one-sided where policies tie).

    Args:
        R1: the reward that counts, shape (*batch, S, A, S).
        R2: the reward that is looked at instead, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        initial: $\mu_0$, shape (*batch, S); uniform by default.
        steps: of the search for $\lambda$; on the CPU it stops when nothing improves.
        iterations: steps of policy iteration for the ranges of both rewards.

    Returns:
        `regret` in units of $R_1$ and `normalised` G in [0, 1], both (*batch,); `multiplier` $\lambda^*$ for the
        rewards as given; `occupancy_1` x and `occupancy_2` y, (*batch, S, A), which attain the maximum
        and carry no gradient; `gap`, a proven
        upper bound minus `normalised`; `residual`, the largest violation of Bellman's equation, for rewards scaled to
        range 1. Where $R_1$ is trivial G is 0; where $R_2$ is trivial, no constraint, G is 1.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, rows that are no distributions, a discount
            outside [0, 1), fewer than 1 step or iteration.

    Source: own extension; the regret bounded in Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv
    2309.15257.

    >>> stay = [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]
    >>> R1 = [[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]]
    >>> R2 = [[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]  # the second state the wrong way round
    >>> worst_case_regret(R1, R2, stay, 0.0).normalised.round(decimals=9)
    tensor(1., dtype=torch.float64)
    """
    read_size("steps", steps, 1)
    read_size("iterations", iterations, 1)
    task = read_task(P, gamma, initial, R1=R1, R2=R2)
    dynamics, discount, batch = task.dynamics, task.discount, task.batch
    states, actions = dynamics.shape[-3:-1]

    levels, sizes = zip(*(levelled(mean_reward(x, dynamics), dynamics, discount) for x in task.rewards), strict=True)
    rewards = torch.stack(torch.broadcast_tensors(*levels), -3)
    problems = Problems.stack(dynamics, discount, rewards, batch)
    first_states = task.start.expand(*batch, states).reshape(-1, states)
    with torch.no_grad():
        limits = [trivial_share(dynamics) * largest_mean_size(x, dynamics) for x in task.rewards]
        size, limit = (torch.stack([x.expand(batch).reshape(-1) for x in pair], -1) for pair in (sizes, limits))
        ends = extremes(problems, iterations)
        width = _widths(ends.values, first_states)
        trivial = size * width <= limit  # (N, 2)
        free = trivial.any(-1)  # nothing to lose, or no constraint: either way lambda = 0
        unit = torch.where(free.unsqueeze(-1), torch.zeros_like(width), 1 / torch.where(trivial, 1, width))
        scaled = Problems(problems.rows, problems.gamma, problems.rewards * unit[..., None, None])
        # x and y of the falling line are best and worst for R1, of the rising one worst and best for R2
        lines = Lines(_rising_last(ends.actions), _rising_last(ends.values) * unit[:, None, :, None])
        lines = search(scaled, first_states, lines, steps)
        here = crossing(scaled, first_states, lines)
        violation = (here.q_value.amax(-1) - here.values).abs().amax(-1)  # (N, 2)
        bound = (here.values * first_states.unsqueeze(1)).sum((-2, -1)) + violation.sum(-1) / (1 - problems.gamma)
        per_range = torch.where(trivial, torch.zeros_like(width), 1 / torch.where(trivial, 1, width))
        residual = torch.cat((violation, ends.residual * per_range), -1).amax(-1)

    policies = torch.cat((lines.actions, ends.actions[:, :2]), 1)  # (N, 6, S)
    visits = problems.visits(policies, first_states)
    returns = (visits.unsqueeze(2) * problems.induced(policies)[0]).sum(-1)  # (N, 6, 2), of the levelled rewards
    with torch.no_grad():
        share = torch.where(free, 1, meeting_point(returns[:, :4])[1])
        # of the search: where the falling line is level but for rounding, only it knows where the lines met
        multiplier = torch.where(free, 0, here.multiplier * unit[:, 1] / torch.where(free, 1, unit[:, 0]))
    weights = torch.stack((share, 1 - share), -1)
    height, fall = (returns[:, 0:4:2] - returns[:, 1:4:2]).unbind(-1)  # (N, 2) each
    lost = (weights * (height - multiplier.unsqueeze(-1) * fall)).sum(-1)  # the second term is 0, its gradient is not
    lost = torch.where(trivial[:, 0], torch.zeros_like(lost), lost)
    normalised = lost / torch.where(trivial[:, 0], torch.ones_like(lost), returns[:, 4, 0] - returns[:, 5, 0])
    normalised = torch.where(trivial[:, 1] & ~trivial[:, 0], torch.ones_like(lost), normalised)
    outside = normalised.detach() - normalised.detach().clamp(0, 1)
    normalised = normalised - torch.where(outside.abs() < torch.finfo(outside.dtype).eps ** 0.5, outside, 0)  # rounding
    taken = indicator(policies[:, :4], actions, visits) * visits[:, :4].detach().unsqueeze(-1)
    mixed = (weights[..., None, None, None] * taken.unflatten(1, (2, 2))).sum(1)  # (N, 2, S, A)
    staying = trivial[:, 0, None, None]  # nothing to lose: the same policy twice
    mixed = torch.stack((mixed[:, 0], torch.where(staying, mixed[:, 0], mixed[:, 1])), 1)
    size_2 = torch.where(free, torch.ones_like(share), size[:, 1])
    return WorstCaseRegret(
        regret=(lost * size[:, 0]).reshape(batch),
        normalised=normalised.reshape(batch),
        multiplier=(multiplier * size[:, 0] / size_2).reshape(batch),
        occupancy_1=mixed[:, 0].reshape(*batch, states, actions),
        occupancy_2=mixed[:, 1].reshape(*batch, states, actions),
        gap=torch.where(free, torch.zeros_like(bound), bound - normalised.detach()).reshape(batch),
        residual=residual.reshape(batch),
    )


def _rising_last(x: Tensor) -> Tensor:
    """Best and worst for the first reward, then worst and best for the second."""
    return torch.cat((x[:, :2], x[:, 2:].flip(1)), 1)


def _widths(values: Tensor, start: Tensor) -> Tensor:
    """Ranges `(N, 2)` of two rewards from the values `(N, 4, 2, S)` of best and worst policies."""
    returns = (values * start[:, None, None, :]).sum(-1)
    return torch.stack((returns[:, 0, 0] - returns[:, 1, 0], returns[:, 2, 1] - returns[:, 3, 1]), -1)
