"""Finite decision processes by definition, in numpy and scipy: loops, power series, linear programs; without `lib`."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@dataclass(frozen=True)
class Case:
    """Two rewards on one decision process, with a policy and a distribution of the first state, all of them random."""

    R1: np.ndarray
    R2: np.ndarray
    P: np.ndarray
    gamma: float
    policy: np.ndarray
    initial: np.ndarray


def case(seed: int, states: int = 4, actions: int = 3, gamma: float = 0.9, *, zeros: bool = True) -> Case:
    """A random case; with `zeros` about half of the transitions are impossible."""
    rng = np.random.default_rng(seed)
    P = rng.exponential(size=(states, actions, states))
    if zeros:
        kept = (rng.random(P.shape) < 0.5) | (P - P.max(-1, keepdims=True) == 0)
        P = np.where(kept, P, 0.0)
    rewards = rng.normal(size=(2, states, actions, states))
    return Case(
        rewards[0],
        rewards[1],
        P / P.sum(-1, keepdims=True),
        gamma,
        rng.dirichlet(np.ones(actions), size=states),
        rng.dirichlet(np.ones(states)),
    )


def mean_reward(R: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Expected reward of each state and action: the sum over successors of chance times reward."""
    mean: np.ndarray = np.einsum("sat,sat->sa", P, R)
    return mean


def shaped(R: np.ndarray, potential: np.ndarray, gamma: float) -> np.ndarray:
    """R(s, a, s') + gamma phi(s') - phi(s), one transition after the other."""
    result = np.empty_like(R)
    for s, a, following in np.ndindex(R.shape):
        result[s, a, following] = R[s, a, following] + gamma * potential[following] - potential[s]
    return result


def flow_matrix(P: np.ndarray, gamma: float) -> np.ndarray:
    """E, with rows (s, a) and columns s'."""
    states, actions, _ = P.shape
    E = np.zeros((states * actions, states))
    for s, a, following in np.ndindex(P.shape):
        E[s * actions + a, following] = (s == following) - gamma * P[s, a, following]
    return E


def discounted_steps(P: np.ndarray, gamma: float, policy: np.ndarray) -> np.ndarray:
    """The series of (gamma P_pi)^t over t < 2^16, by doubling: no linear system is solved. Policies may be a stack."""
    chain = gamma * np.einsum("...sa,sat->...st", policy, P)
    total: np.ndarray = np.eye(len(P))
    for _ in range(16):  # 0.999^65536 is 3e-29
        total, chain = total + chain @ total, chain @ chain
    return total


def state_values(R: np.ndarray, P: np.ndarray, gamma: float, policy: np.ndarray) -> np.ndarray:
    """V of a policy: expected discounted sum of rewards from each state."""
    values: np.ndarray = discounted_steps(P, gamma, policy) @ (policy * mean_reward(R, P)).sum(1)
    return values


def action_values(R: np.ndarray, P: np.ndarray, gamma: float, policy: np.ndarray) -> np.ndarray:
    """Q of a policy."""
    values: np.ndarray = mean_reward(R, P) + gamma * P @ state_values(R, P, gamma, policy)
    return values


def visits(P: np.ndarray, gamma: float, policy: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """Discounted occupancy of each state and action."""
    occupancy: np.ndarray = (initial @ discounted_steps(P, gamma, policy))[:, None] * policy
    return occupancy


def deterministic_policies(states: int, actions: int) -> np.ndarray:
    """All of them, one-hot, shape (A^S, S, A)."""
    return np.eye(actions)[list(itertools.product(range(actions), repeat=states))]


def all_returns(R: np.ndarray, P: np.ndarray, gamma: float, initial: np.ndarray) -> np.ndarray:
    """Returns of all deterministic policies."""
    policies = deterministic_policies(*P.shape[:2])
    visited = initial @ discounted_steps(P, gamma, policies)
    returns: np.ndarray = (visited * (policies * mean_reward(R, P)).sum(-1)).sum(-1)
    return returns


def width(R: np.ndarray, P: np.ndarray, gamma: float, initial: np.ndarray) -> float:
    """Range of returns, by looking at every deterministic policy."""
    return float(np.ptp(all_returns(R, P, gamma, initial)))


def width_by_program(R: np.ndarray, case: Case) -> float:
    """Range of returns, by two linear programs over occupancies."""
    mean, flow = mean_reward(R, case.P).ravel(), flow_matrix(case.P, case.gamma).T
    ends = [
        optimize.linprog(sign * mean, A_eq=flow, b_eq=case.initial, method="highs-ds", options=TIGHT)
        for sign in (-1, 1)
    ]
    assert {end.status for end in ends} == {0}
    return -float(sum(end.fun for end in ends))


def regret_by_pairs(case: Case) -> float:
    """Largest loss over pairs of occupancies, divided by the range: a linear program in 2 S A unknowns."""
    mean_1, mean_2 = (mean_reward(R, case.P).ravel() for R in (case.R1, case.R2))
    flow = flow_matrix(case.P, case.gamma).T
    nothing = np.zeros_like(flow)
    solved = optimize.linprog(
        np.r_[-mean_1, mean_1],
        A_ub=np.r_[mean_2, -mean_2][None],
        b_ub=[0.0],
        A_eq=np.block([[flow, nothing], [nothing, flow]]),
        b_eq=np.r_[case.initial, case.initial],
        method="highs-ds",
        options=TIGHT,
    )
    assert solved.status == 0, solved.message
    return -float(solved.fun) / width_by_program(case.R1, case)


def inradius(P: np.ndarray, gamma: float, initial: np.ndarray) -> float:
    """Largest ball, within the affine space of the flow equation, on which no occupancy is negative."""
    flow = flow_matrix(P, gamma).T
    start, directions = np.linalg.lstsq(flow, initial, rcond=None)[0], linalg.null_space(flow)
    reach = np.linalg.norm(directions, axis=1)  # of coordinate (s, a) on the unit sphere of the space
    free = directions.shape[1]
    solved = optimize.linprog(
        np.r_[np.zeros(free), -1.0],
        A_ub=np.c_[-directions, reach],
        b_ub=start,
        bounds=[(None, None)] * free + [(0, None)],
        method="highs-ds",
        options=TIGHT,
    )
    assert solved.status == 0, solved.message
    return float(-solved.fun)


def shaping_basis(shape: tuple[int, ...], gamma: float) -> np.ndarray:
    """Columns: what a unit potential on each state adds to a reward, flattened."""
    return np.array([shaped(np.zeros(shape), unit, gamma).ravel() for unit in np.eye(shape[0])]).T


def redistribution_basis(P: np.ndarray) -> np.ndarray:
    """Columns: rewards on one state and action whose expectation is zero, flattened."""
    columns = []
    for s, a in np.ndindex(P.shape[:2]):
        for direction in linalg.null_space(P[s, a][None]).T:
            column = np.zeros(P.shape)
            column[s, a] = direction
            columns.append(column.ravel())
    return np.array(columns).T.reshape(P.size, -1)


def least_squares_rest(R: np.ndarray, basis: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """R minus the combination of the columns that makes the weighted sum of squares least."""
    root = np.sqrt(weights.ravel())
    best = np.linalg.lstsq(root[:, None] * basis, root * R.ravel(), rcond=None)[0]
    rest: np.ndarray = R.ravel() - basis @ best
    return rest.reshape(R.shape)


def epic_reward(R: np.ndarray, gamma: float, d_s: np.ndarray, d_a: np.ndarray) -> np.ndarray:
    """EPIC's canonical reward, one transition and one term of every expectation after the other."""
    states, actions, _ = R.shape
    result = R.copy()
    for s, a, following in np.ndindex(R.shape):
        for start, action, end in itertools.product(range(states), range(actions), range(states)):
            chance = d_s[start] * d_a[action] * d_s[end]
            term = gamma * R[following, action, end] - R[s, action, end] - gamma * R[start, action, end]
            result[s, a, following] += chance * term
    return result


def dard_reward(R: np.ndarray, P: np.ndarray, gamma: float, d_a: np.ndarray) -> np.ndarray:
    """DARD's canonical reward: S' follows s under one action, S'' follows s' under another, independent one."""
    states, actions, _ = R.shape
    result = R.copy()
    for s, a, following in np.ndindex(R.shape):
        for action, end in itertools.product(range(actions), range(states)):
            result[s, a, following] += gamma * d_a[action] * P[following, action, end] * R[following, action, end]
            result[s, a, following] -= d_a[action] * P[s, action, end] * R[s, action, end]
        for towards, middle, action, end in itertools.product(*map(range, (actions, states, actions, states))):
            chance = d_a[towards] * P[s, towards, middle] * d_a[action] * P[following, action, end]
            result[s, a, following] -= gamma * chance * R[middle, action, end]
    return result


def pearson_distance(x: np.ndarray, y: np.ndarray, law: np.ndarray) -> float:
    """Square root of (1 - r) / 2, with numpy's weighted covariance."""
    cov = np.cov(x.ravel(), y.ravel(), aweights=law.ravel())
    return math.sqrt((1 - cov[0, 1] / math.sqrt(cov[0, 0] * cov[1, 1])) / 2)


def norm(x: np.ndarray, weights: np.ndarray, order: float) -> float:
    """Weights multiply the p-th powers inside the sum, and the absolute values inside the maximum."""
    size = np.abs(x)
    if order == math.inf:
        return float((weights * size).max())
    return float((weights * size**order).sum() ** (1 / order))
