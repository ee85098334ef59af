"""Lowest and highest return of a reward, and what its own best policy is worth to another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, indicator, read_size
from lib.shapes import Float, Real
from lib.starc.policy import levelled, visits_of
from lib.starc.policy_iteration import ITERATIONS, extremes
from lib.starc.problems import Problems
from lib.starc.rewards import largest_mean_size, mean_reward
from lib.starc.setting import read_task, trivial_share


@dataclass(frozen=True)
class ReturnRange:
    r"""Lowest and highest return, their difference $\|R\|_J$, policies (one-hot) that attain them, Bellman residual."""

    lowest: Float[Tensor, "*batch"]
    highest: Float[Tensor, "*batch"]
    width: Float[Tensor, "*batch"]
    worst_policy: Float[Tensor, "*batch S A"]
    best_policy: Float[Tensor, "*batch S A"]
    residual: Float[Tensor, "*batch"]


def return_range(
    R: Real[Tensor, "*#batch S A S"] | ArrayLike,
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    initial: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
    *,
    iterations: int = ITERATIONS,
) -> ReturnRange:
    r"""Lowest and highest return over all policies, $\min_\pi J_R(\pi)$ and $\max_\pi J_R(\pi)$.

    With $J_R(\pi)=\langle\mu_\pi,\bar R\rangle$ and $\Omega$ all occupancies, the width
    $\|R\|_J=\max_{x,y\in\Omega}\langle x-y,\bar R\rangle$ is a norm on rewards up to shaping and redistribution (if all
    states can be reached): it is 0 exactly for the trivial ones. Policies come from policy
    iteration on the advantages of the uniform policy, which order policies as R does. Differentiable in R, P, gamma and
    the initial distribution (one-sided where policies tie).

    Args:
        R: reward of each transition, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        initial: $\mu_0$, shape (*batch, S); uniform by default.
        iterations: steps of policy iteration; on the CPU it stops when nothing improves.

    Returns:
        Numbers (*batch,), policies (*batch, S, A). `residual` is the largest violation of Bellman's equation in units
        of the reward: the width is wrong by up to twice that over $1-\gamma$.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, rows that are no distributions, a discount
            outside [0, 1), fewer than 1 iteration.

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257, for the range; Howard
    (1960) for policy iteration.

    >>> either = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]  # an action chooses the next state
    >>> found = return_range([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]], either, 0.5)
    >>> found.lowest.round(decimals=9), found.highest.round(decimals=9)
    (tensor(0., dtype=torch.float64), tensor(2., dtype=torch.float64))
    """
    read_size("iterations", iterations, 1)
    task = read_task(P, gamma, initial, R=R)
    return range_of(
        mean_reward(task.rewards[0], task.dynamics), task.dynamics, task.discount, task.start, task.batch, iterations
    )


def optimal_policy_regret(
    R1: Real[Tensor, "*#batch S A S"] | ArrayLike,
    R2: Real[Tensor, "*#batch S A S"] | ArrayLike,
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    initial: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
    *,
    iterations: int = ITERATIONS,
) -> Float[Tensor, "*out"]:
    r"""Share of the range of $R_1$ that is lost by following an optimal policy of $R_2$.

    $$ \frac{\max_\pi J_1(\pi)-J_1(\pi_2^*)}{\|R_1\|_J} $$

    It says what a perfect optimiser of the wrong reward costs, not what the worst policy of at least equal value costs
    (`worst_case_regret`), which it never exceeds. Where $R_2$ has several optimal policies one of them is taken.

    Args:
        R1: the reward that counts, shape (*batch, S, A, S).
        R2: the reward that is optimised, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        initial: $\mu_0$, shape (*batch, S); uniform by default.
        iterations: steps of policy iteration.

    Returns:
        Numbers in [0, 1], shape (*batch,); 0 where $R_1$ is trivial.

    Raises:
        ValueError: as `return_range`.

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257, compare distances with a
    regret of this kind.

    >>> either = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]
    >>> to_second = [[[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    >>> to_first = [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]]
    >>> optimal_policy_regret(to_second, to_first, either, 0.5).round(decimals=9)
    tensor(1., dtype=torch.float64)
    """
    read_size("iterations", iterations, 1)
    task = read_task(P, gamma, initial, R1=R1, R2=R2)
    dynamics, discount, start = task.dynamics, task.discount, task.start
    (first, second), batch = task.rewards, task.batch
    mean = mean_reward(first, dynamics)
    own = range_of(mean, dynamics, discount, start, batch, iterations)
    other = range_of(mean_reward(second, dynamics), dynamics, discount, start, batch, iterations)
    achieved = (visits_of(dynamics, discount, other.best_policy, start) * mean).sum((-2, -1))
    trivial = own.width <= trivial_share(mean) * largest_mean_size(first, dynamics)
    lost = ((own.highest - achieved) / torch.where(trivial, torch.ones_like(own.width), own.width)).clamp(0, 1)
    return torch.where(trivial, torch.zeros_like(lost), lost)


def range_of(
    mean: Tensor, dynamics: Tensor, discount: Tensor, start: Tensor, batch: torch.Size, iterations: int
) -> ReturnRange:
    """The range of checked tensors, `mean` being the expected reward."""
    states, actions = dynamics.shape[-3:-1]
    level, size = levelled(mean, dynamics, discount)
    with torch.no_grad():
        found = extremes(Problems.stack(dynamics, discount, level.unsqueeze(-3), batch), iterations)
        residual = found.residual.reshape(batch) * size
        policies = indicator(found.actions, actions, mean).reshape(*batch, 2, states, actions)
    both = torch.stack(torch.broadcast_tensors(mean, level * size[..., None, None]), -3)
    problems = Problems.stack(dynamics, discount, both, batch)
    visits = problems.visits(found.actions, start.expand(*batch, states).reshape(-1, states))
    returns = (visits.unsqueeze(2) * problems.induced(found.actions)[0]).sum(-1).reshape(*batch, 2, 2)
    highest, lowest = returns[..., 0, 0], returns[..., 1, 0]
    width = returns[..., 0, 1] - returns[..., 1, 1]  # without the offsets, which would cost digits
    return ReturnRange(lowest, highest, width, policies[..., 1, :, :], policies[..., 0, :, :], residual)
