"""Value-Adjusted Levelling of a decision process given by successor lists, far beyond dense arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    as_whole,
    broadcast_batch,
    read_size,
    require,
    require_finite,
    require_shape,
    shared_kind,
)
from lib.shapes import Float, Int, Real
from lib.starc.krylov import discounted_solution
from lib.starc.setting import read_gamma, read_policy

STEPS = 512


@dataclass(frozen=True)
class SparseCanonical:
    """Advantage of each state and action, value of each state, and the largest violation of Bellman's equation."""

    advantage: Float[Tensor, "*batch S A"]
    value: Float[Tensor, "*batch S"]
    residual: Float[Tensor, "*batch"]


def sparse_val_canonical(
    rewards: Real[Tensor, "*#batch S A K"] | ArrayLike,
    next_states: Int[Tensor, "S A K"] | ArrayLike,
    probs: Real[Tensor, "S A K"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    policy: Real[Tensor, "S A"] | ArrayLike | None = None,
    sweeps: int | None = None,
) -> SparseCanonical:
    r"""The canonical reward of `canonicalise` with method "val", from lists of K successors.

    Solves $V=\bar R_\pi+\gamma P_\pi V$ by restarted BiCGStab, all rewards at once, and never forms an array of S times
    S. Where a restart brings no progress value iteration does. On the CPU several rewards in float64 take their steps
    in float32, against residuals in float64. The result carries no gradient.

    Args:
        rewards: $R(s,a,s'_k)$ for the k-th listed successor, shape (*batch, S, A, K).
        next_states: the successors $s'_k$, whole numbers in [0, S), shape (S, A, K); repetitions are allowed.
        probs: their probabilities, shape (S, A, K), each list summing to one; pad with 0.
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        policy: $\pi(a\mid s)$, shape (S, A); uniform by default.
        sweeps: steps, 512 by default, each of which applies P twice; on the CPU it stops at rounding level.

    Returns:
        `advantage` (*batch, S, A), `value` (*batch, S) and `residual` (*batch,) in units of the reward.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, probabilities or a policy that are no
            distributions, a successor outside [0, S), a discount outside [0, 1), fewer than 1 sweep.

    Source: own extension of Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257; van der
    Vorst (1992) for BiCGStab.

    >>> rewards, next_states = [[[1.0], [0.0]], [[0.0], [0.0]]], [[[0], [1]], [[1], [1]]]
    >>> found = sparse_val_canonical(rewards, next_states, [[[1.0], [1.0]]] * 2, 0.5)
    >>> found.advantage[0].round(decimals=4)
    tensor([ 0.6667, -0.6667], dtype=torch.float64)
    """
    steps = STEPS if sweeps is None else sweeps
    read_size("sweeps", steps, 1)
    like = shared_kind(rewards, probs, gamma, policy)
    chance = as_float("probs", probs, like=like)
    require_shape("probs", chance, chance.ndim == 3 and chance.numel() > 0, "(S, A, K)")
    states, actions, successors = chance.shape
    require("probs", ~(chance < 0), "no negative entry", chance)
    total = chance.sum(-1)
    require(
        "probs", (total - 1).abs() <= (1e-6 if like.dtype == torch.float64 else 1e-5), "lists that sum to one", total
    )
    wanted = f"({states}, {actions}, {successors}) as probs has it"
    reward = as_float("rewards", rewards, like=like)
    require_shape(
        "rewards", reward, reward.ndim >= 3 and reward.shape[-3:] == chance.shape, f"(*batch, ...) + {wanted}"
    )
    mean = torch.einsum("...sak,sak->...sa", reward.detach(), chance.detach())
    require_finite("rewards", reward, mean.sum((-2, -1)))
    following = _read_successors(next_states, chance, wanted)
    discount = read_gamma(gamma, like)
    pi = read_policy(policy, chance)
    require_shape("policy", pi, pi.ndim == 2, f"({states}, {actions})")
    batch = broadcast_batch(rewards=reward.shape[:-3], gamma=discount.shape)

    with torch.no_grad():
        mean = mean.expand(*batch, states, actions).reshape(-1, states, actions)
        per_column = discount.expand(batch).reshape(-1)
        ahead = _average(chance.flatten(0, 1), following.flatten(0, 1), states)
        chosen, listed = (chance * pi.unsqueeze(-1)).flatten(1), following.flatten(1)
        chain = _average(chosen, listed, states)
        right = torch.einsum("csa,sa->sc", mean, pi).contiguous()  # neighbours in memory share a successor
        rough = _average_in_single(chosen, listed) if right.dtype == torch.float64 and len(mean) > 1 else None
        value, residual = discounted_solution(chain, right, per_column, steps, rough)
        later = ahead(value).mul_(per_column).mT.reshape(-1, states, actions)
        value = value.mT
        advantage = later.add_(mean).sub_(value.unsqueeze(-1))
    return SparseCanonical(
        advantage.reshape(*batch, states, actions), value.reshape(*batch, states), residual.reshape(batch)
    )


def _read_successors(next_states: Tensor | ArrayLike, chance: Tensor, wanted: str) -> Tensor:
    try:
        given = next_states if isinstance(next_states, Tensor) else np.asarray(next_states)
    except ValueError as error:
        raise ValueError(f"next_states: got lists of unequal length, want whole numbers {wanted}") from error
    shape = tuple(given.shape)
    if shape != tuple(chance.shape):
        raise ValueError(f"next_states: got shape {shape}, want {wanted}")
    following = as_whole("next_states", given.reshape(-1)).reshape(chance.shape).to(chance.device)
    require(
        "next_states", (following >= 0) & (following < chance.shape[0]), f"states 0 to {chance.shape[0] - 1}", following
    )
    return following


def _average(weights: Tensor, index: Tensor, states: int) -> Callable[[Tensor], Tensor]:
    """The weighted sum of the rows that are listed, `x (S, C)` to `(rows, C)`: a sparse matrix times columns."""
    if weights.device.type != "cpu":
        return lambda x: (weights.unsqueeze(-1) * x[index]).sum(1)
    rows, listed = index.shape
    starts = np.arange(0, rows * listed + 1, listed, dtype=np.int64)
    matrix = sparse.csr_matrix((weights.flatten().numpy(), index.flatten().numpy(), starts), shape=(rows, states))
    return lambda x: torch.from_numpy(matrix @ x.numpy())


def _average_in_single(weights: Tensor, index: Tensor) -> Callable[[Tensor], Tensor] | None:
    """The same for columns in float32, many times faster where there are several; None on an accelerator."""
    if weights.device.type != "cpu":
        return None
    w = weights.float()
    return lambda x: torch.nn.functional.embedding_bag(index, x, mode="sum", per_sample_weights=w)
