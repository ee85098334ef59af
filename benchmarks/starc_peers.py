"""What `bench_starc.py` races against: the same answers in numpy and scipy, one decision process after the other."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import optimize, sparse
from scipy.sparse import linalg

Array = np.ndarray


def val_by_fixed_point(gamma: float, rewards: Array, dynamics: Array) -> Array:
    """VAL as published code finds it: V <- sum_a pi (R + gamma P V) until no value moves by 1e-10."""
    out = np.empty_like(rewards)
    for i, (reward, chance) in enumerate(zip(rewards, dynamics, strict=True)):
        states, actions, _ = reward.shape
        mean, rows = (chance * reward).sum(-1), chance.reshape(-1, states)
        policy, value, change = np.full((states, actions), 1 / actions), np.zeros(states), math.inf
        while change >= 1e-10:
            new = (policy * (mean + gamma * (rows @ value).reshape(states, actions))).sum(-1)
            change, value = np.abs(new - value).max(), new
        out[i] = (chance * (reward - value[:, None, None] + gamma * value)).sum(-1, keepdims=True)
    return out


def val_by_solve(gamma: float, rewards: Array, dynamics: Array) -> Array:
    """VAL of all processes by one batched solve, nothing checked: the best that numpy can do."""
    mean = (dynamics * rewards).sum(-1)
    value = np.linalg.solve(np.eye(rewards.shape[-1]) - gamma * dynamics.mean(-2), mean.mean(-1)[..., None])
    advantage = mean + gamma * (dynamics @ value[:, None])[..., 0] - value
    return np.broadcast_to(advantage[..., None], rewards.shape)


def primal(first: Array, second: Array, design: Array) -> dict[str, Any]:
    """Maximise <x - y, R1> over occupancies x and y with <x - y, R2> <= 0."""
    none, start = np.zeros_like(design.T), np.full(2 * design.shape[1], 1 / design.shape[1])
    flow = np.block([[design.T, none], [none, design.T]])
    return {"c": np.r_[-first, first], "A_ub": np.r_[second, -second][None], "b_ub": 0.0, "A_eq": flow, "b_eq": start}


def dual(first: Array, second: Array, design: Array) -> dict[str, Any]:
    """Minimise <mu_0, V + W> with E V >= R1 - lambda R2 and E W >= -(R1 - lambda R2) over V, W and lambda >= 0."""
    none, start = np.zeros_like(design), np.full(2 * design.shape[1], 1 / design.shape[1])
    rows = np.block([[-design, none, -second[:, None]], [none, -design, second[:, None]]])
    signs = [(None, None)] * len(start) + [(0, None)]
    return {"c": np.r_[start, 0.0], "A_ub": rows, "b_ub": np.r_[-first, first], "bounds": signs}


HIGHS = list(product((primal, dual), ("dense", "sparse"), ("highs-ds", "highs-ipm"), ("presolve", "no presolve")))


def regret_by_highs(way: tuple[Any, str, str, str], means: Array, design: Array) -> Array:
    """The regret, not normalised, of one pair of expected rewards after the other."""
    program, storage, method, presolve = way
    found = []
    for first, second, rows in zip(*means, design, strict=True):
        stated = program(first, second, rows)
        if storage == "sparse":
            stated |= {name: sparse.csc_array(stated[name]) for name in ("A_ub", "A_eq") if name in stated}
        solved = optimize.linprog(**stated, method=method, options={"presolve": presolve == "presolve"})
        found.append(abs(solved.fun) if solved.status == 0 else math.nan)
    return np.array(found)


def listed_matrix(weights: Array, following: Array, listed: int) -> sparse.csr_array:
    """The matrix of the successor lists, `listed` entries a row."""
    starts = np.arange(0, following.size + 1, listed)
    return sparse.csr_array((weights.ravel(), following.ravel(), starts), shape=(len(starts) - 1, len(following)))


def val_by_bicgstab(
    explicit: bool, gamma: float, rewards: Array, following: Array, probs: Array
) -> tuple[Array, Array]:
    """Matrices from the lists once; then for each reward its mean, BiCGStab to 1e-13, and the advantage."""
    states, actions, listed = following.shape
    ahead = listed_matrix(probs, following, listed)
    chain = listed_matrix(gamma / actions * probs, following, actions * listed)
    if explicit:
        system = sparse.eye_array(states, format="csr") - chain
    else:
        system = linalg.LinearOperator((states, states), matvec=lambda v: v - chain @ v, dtype=float)
    values, advantages = [], []
    for reward in rewards:
        mean = np.einsum("sak,sak->sa", reward, probs)
        value, failed = linalg.bicgstab(system, mean.mean(-1), rtol=1e-13, atol=0, maxiter=2000)
        values.append(value if failed == 0 else np.full(states, math.nan))
        advantages.append(mean + gamma * (ahead @ value).reshape(states, actions) - value[:, None])
    return np.array(values), np.array(advantages)


def sweeps(gamma: float, rewards: Array, following: Array, probs: Array) -> int:
    """Plain value iteration of the first reward until no value moves by 1e-13: how many sweeps."""
    states, actions, listed = following.shape
    chain, mean = listed_matrix(probs / actions, following, actions * listed), (rewards[0] * probs).sum(-1).mean(-1)
    value, change, count = np.zeros(states), math.inf, 0
    while change >= 1e-13:
        new = mean + gamma * (chain @ value)
        change, value, count = np.abs(new - value).max(), new, count + 1
    return count


def kernel_of_minimal(gamma: float, dynamics: Array) -> sparse.csr_array:
    """What shaping and redistribution add to a reward: S columns for the potential, S S A for the redistribution."""
    states, actions, _ = dynamics.shape
    one = sparse.eye_array(states)
    shaping = gamma * sparse.kron(np.ones((states * actions, 1)), one) - sparse.kron(
        one, np.ones((actions * states, 1))
    )
    moves = sparse.block_diag([np.eye(states) - row for row in dynamics.reshape(-1, states)])
    return sparse.csr_array(sparse.hstack([shaping, moves]))


def minimal_by_lsqr(gamma: float, reward: Array, dynamics: Array) -> Array:
    """The residual of sparse least squares on the kernel."""
    kernel = kernel_of_minimal(gamma, dynamics)
    taken = kernel @ linalg.lsqr(kernel, reward.ravel(), atol=1e-13, btol=1e-13)[0]
    return np.asarray(reward - taken.reshape(reward.shape))


def minimal_by_lbfgs(gamma: float, reward: Array, dynamics: Array) -> Array:
    """The same least squares as a smooth minimisation."""
    kernel, target = kernel_of_minimal(gamma, dynamics), reward.ravel()

    def loss(x: Array) -> tuple[float, Array]:
        left = target - kernel @ x
        return left @ left, -2 * (kernel.T @ left)

    options = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-9}
    found = optimize.minimize(loss, np.zeros(kernel.shape[1]), jac=True, method="L-BFGS-B", options=options)
    return np.asarray((target - kernel @ found.x).reshape(reward.shape))


def minimal_by_adam(gamma: float, reward: Array, dynamics: Array) -> Array:
    """1,000 steps at rate 0.01 on the potential and the redistribution, in the manner of the authors' code."""
    given, chance = torch.from_numpy(reward), torch.from_numpy(dynamics)
    potential, noise = torch.zeros_like(given[:, 0, 0]).requires_grad_(), torch.zeros_like(given).requires_grad_()
    descent = torch.optim.Adam([potential, noise], lr=0.01)
    for _ in range(1000):
        shaped = given + gamma * potential - potential[:, None, None]
        left = shaped + noise - (chance * noise).sum(-1, keepdim=True)
        descent.zero_grad()
        left.square().sum().backward()
        descent.step()
    return left.detach().numpy()


def distance_by_lsqr(gamma: float, first: Array, second: Array, dynamics: Array) -> Array:
    """Minimal forms by lsqr, scaled to length 1, and how far apart they are."""
    one, other = (minimal_by_lsqr(gamma, x, dynamics) for x in (first, second))
    return np.asarray(np.linalg.norm(one / np.linalg.norm(one) - other / np.linalg.norm(other)))
