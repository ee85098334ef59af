"""Rewards learned from preferences: trajectories, and the reward under which the choices between them are likeliest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize, special
from torch import Tensor

from lib.checks import ArrayLike, as_float, read_size, require, require_shape, shared_kind
from lib.shapes import Float, Int, Real
from lib.starc.setting import read_dynamics, read_gamma, read_initial, read_policy


@dataclass(frozen=True)
class Trajectories:
    """States visited, the last one included, and the actions taken between them."""

    states: Int[Tensor, "count states"]
    actions: Int[Tensor, "count steps"]


def sample_trajectories(
    P: Real[Tensor, "S A S"] | ArrayLike,
    count: int,
    steps: int,
    policy: Real[Tensor, "S A"] | ArrayLike | None = None,
    initial: Real[Tensor, " S"] | ArrayLike | None = None,
    *,
    generator: torch.Generator,
) -> Trajectories:
    r"""Independent trajectories $S_0,A_0,S_1,\dots$ of a policy.

    Args:
        P: transition probabilities, shape (S, A, S).
        count: trajectories to draw.
        steps: actions of each.
        policy: $\pi(a\mid s)$, shape (S, A); uniform by default.
        initial: $\mu_0$, shape (S,); uniform by default.
        generator: source of all randomness, on the device of P.

    Returns:
        `states` (count, steps + 1) and `actions` (count, steps), whole numbers.

    Raises:
        ValueError: shapes that do not fit, rows that are no distributions, fewer than 1 trajectory or step.

    Source: own construction.

    >>> there_and_back = [[[0.0, 1.0]], [[1.0, 0.0]]]
    >>> walk = sample_trajectories(there_and_back, 1, 3, initial=[1.0, 0.0], generator=torch.Generator().manual_seed(0))
    >>> walk.states, walk.actions
    (tensor([[0, 1, 0, 1]]), tensor([[0, 0, 0]]))
    """
    read_size("count", count, 1)
    read_size("steps", steps, 1)
    like = shared_kind(P, policy, initial)
    dynamics = read_dynamics(P, like)
    require_shape("P", dynamics, dynamics.ndim == 3, "(S, A, S)")
    pi, start = read_policy(policy, dynamics), read_initial(initial, dynamics)
    require_shape("policy", pi, pi.ndim == 2, f"{tuple(dynamics.shape[:2])}")
    require_shape("initial", start, start.ndim == 1, f"({dynamics.shape[0]},)")
    state = torch.multinomial(start, count, replacement=True, generator=generator)
    states, actions = [state], []
    for _ in range(steps):
        action = torch.multinomial(pi[state], 1, generator=generator).squeeze(-1)
        state = torch.multinomial(dynamics[state, action], 1, generator=generator).squeeze(-1)
        states.append(state)
        actions.append(action)
    return Trajectories(torch.stack(states, -1), torch.stack(actions, -1))


def discounted_counts(
    trajectories: Trajectories, gamma: Real[Tensor, ""] | ArrayLike, states: int, actions: int
) -> Float[Tensor, "count S A"]:
    r"""Discounted visits $\sum_t\gamma^t1[S_t=s,A_t=a]$ of each trajectory, so that its return is linear in the reward.

    Args:
        trajectories: as `sample_trajectories` draws them.
        gamma: discount in [0, 1).
        states: S.
        actions: A.

    Returns:
        Shape (count, S, A). Its mean over many long trajectories is `occupancy`.

    Raises:
        ValueError: a discount outside [0, 1), a state or action that is not among S and A.

    Source: own construction.

    >>> walk = Trajectories(torch.tensor([[0, 1, 0]]), torch.tensor([[0, 0]]))
    >>> discounted_counts(walk, 0.5, 2, 1).flatten()
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    visited = trajectories.states[:, :-1]
    like = torch.empty((), dtype=torch.float64, device=visited.device)
    discount = read_gamma(gamma, like)
    require_shape("gamma", discount, discount.ndim == 0, "one number")
    for name, seen, size in (("states", visited, states), ("actions", trajectories.actions, actions)):
        require(name, (seen >= 0) & (seen < size), f"numbers from 0 to {size - 1}", seen)
    count, steps = visited.shape
    worth = (discount ** torch.arange(steps, device=visited.device)).expand(count, steps)
    counts = torch.zeros(count, states * actions, dtype=like.dtype, device=visited.device)
    counts.scatter_add_(1, visited * actions + trajectories.actions, worth)
    return counts.view(count, states, actions)


def preference_reward(
    counts_1: Real[Tensor, "count S A"] | ArrayLike,
    counts_2: Real[Tensor, "count S A"] | ArrayLike,
    first_preferred: Real[Tensor, " count"] | ArrayLike,
    *,
    ridge: float = 1.0,
) -> Float[Tensor, "S A"]:
    r"""Expected reward of largest posterior probability, given which of two trajectories was preferred.

    In the model of Bradley and Terry the first is preferred with probability $1/(1+e^{-\Delta})$, $\Delta$ being the
    difference of the returns; the prior is an independent Gaussian of variance 1/ridge for each state and action. The
    posterior is log-concave; Newton's method in a trust region finds its peak, on the CPU.

    Args:
        counts_1: discounted visits of the first trajectory of each pair, shape (count, S, A).
        counts_2: of the second one, shape (count, S, A).
        first_preferred: 1 where the first was preferred and 0 where the second was, shape (count,).
        ridge: precision of the prior, above 0.

    Returns:
        $\bar R(s,a)$, shape (S, A), in units in which a difference of 1 in return means odds of e. To be used as a
        reward on transitions it is repeated for all successors.

    Raises:
        ValueError: shapes that do not fit, a preference that is neither 0 nor 1, a ridge that is not positive.
        RuntimeError: the optimiser did not converge.

    Source: Christiano, Leike, Brown, Martic, Legg and Amodei (2017), Deep reinforcement learning from human
    preferences, for learning from comparisons of trajectories; Bradley and Terry (1952) for the model.

    >>> preference_reward([[[1.0], [0.0]]] * 9, [[[0.0], [1.0]]] * 9, [1.0] * 9).round(decimals=4).flatten()
    tensor([ 1.0255, -1.0255], dtype=torch.float64)
    """
    if not ridge > 0:
        raise ValueError(f"ridge: got {ridge:g}, want a number above 0")
    like = shared_kind(counts_1, counts_2)
    first, second = as_float("counts_1", counts_1, like=like), as_float("counts_2", counts_2, like=like)
    require_shape("counts_1", first, first.ndim == 3 and first.numel() > 0, "(count, S, A)")
    require_shape("counts_2", second, second.shape == first.shape, f"{tuple(first.shape)} as counts_1 has it")
    choice = as_float("first_preferred", first_preferred, like=like)
    require_shape("first_preferred", choice, choice.shape == first.shape[:1], f"({first.shape[0]},)")
    require("first_preferred", (choice == 0) | (choice == 1), "0 or 1", choice)
    for name, x in (("counts_1", first), ("counts_2", second)):
        require(name, x.isfinite(), "finite numbers", x)

    sign = 2 * choice - 1
    towards = (sign[:, None] * (first - second).flatten(1)).double().cpu().numpy()
    count, prior = len(towards), ridge / len(towards)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        score = towards @ theta
        value = -special.log_expit(score).mean() + prior / 2 * theta @ theta
        return float(value), prior * theta - towards.T @ special.expit(-score) / count

    def curvature(theta: np.ndarray) -> np.ndarray:
        chance = special.expit(towards @ theta)
        bent: np.ndarray = (towards.T * (chance * (1 - chance))) @ towards / count
        return bent + prior * np.eye(len(theta))

    start = np.zeros(towards.shape[1])
    found = optimize.minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-9})
    slope = float(np.abs(loss(found.x)[1]).max())  # near the peak rounding may end the search before its own goal
    if slope > 1e-6 * max(1.0, float(np.abs(towards).max())):
        raise RuntimeError(f"preference_reward: the optimiser stopped at a slope of {slope:.1e}: {found.message}")
    return torch.from_numpy(found.x).to(like).view(first.shape[1:])
