"""The front door of the chapter: a decision process, rewards, policies and discounts, converted and checked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_finite, require_shape, shared_kind

TRIVIAL = {torch.float64: 1e-9, torch.float32: 1e-4}  # below this share of the reward's own norm it counts as zero


@dataclass(frozen=True)
class Task:
    """A decision process that starts somewhere, and rewards on it, checked; `batch` is their common batch shape."""

    dynamics: Tensor
    discount: Tensor
    start: Tensor
    rewards: tuple[Tensor, ...]
    batch: torch.Size


def trivial_share(like: Tensor) -> float:
    """The share of a reward's own norm up to which its standardised form is zero."""
    return TRIVIAL.get(like.dtype, 1e-2)


def read_dynamics(P: Tensor | ArrayLike, like: Tensor) -> Tensor:
    """Transition probabilities `(*batch, S, A, S)`, every row a distribution."""
    x = as_float("P", P, like=like)
    fits = x.ndim >= 3 and x.shape[-1] == x.shape[-3] and x.shape[-3] > 0 and x.shape[-2] > 0
    require_shape("P", x, fits, "(*batch, S, A, S)")
    _require_distribution("P", x)
    return x


def read_reward(
    name: str, R: Tensor | ArrayLike, like: Tensor, other: Tensor | None = None, other_name: str = "P"
) -> Tensor:
    """A reward, or anything of its shape `(*batch, S, A, S)`; with `other`, of the same states and actions."""
    x = as_float(name, R, like=like)
    if other is None:
        fits = x.ndim >= 3 and x.shape[-1] == x.shape[-3] and x.shape[-3] > 0 and x.shape[-2] > 0
        require_shape(name, x, fits, "(*batch, S, A, S)")
    else:
        states, actions = other.shape[-3:-1]
        fits = x.ndim >= 3 and x.shape[-3:] == other.shape[-3:]
        require_shape(name, x, fits, f"(*batch, {states}, {actions}, {states}) as {other_name} has it")
    require_finite(name, x)
    return x


def read_gamma(gamma: Tensor | ArrayLike, like: Tensor) -> Tensor:
    """The discount, a number or a tensor of a batch shape, in [0, 1)."""
    if isinstance(gamma, (int, float)) and not 0 <= gamma < 1:  # read here: on an accelerator nobody would
        raise ValueError(f"gamma: got {gamma:.9g}, want 0 <= gamma < 1")
    x = as_float("gamma", gamma, like=like)
    require("gamma", (x >= 0) & (x < 1), "0 <= gamma < 1", x)
    return x


def read_task(
    P: Tensor | ArrayLike,
    gamma: Tensor | ArrayLike,
    initial: Tensor | ArrayLike | None,
    **rewards: Tensor | ArrayLike,
) -> Task:
    """All of them in one device and dtype, and the batch shape to which they broadcast."""
    like = shared_kind(*rewards.values(), P, gamma, initial)
    dynamics = read_dynamics(P, like)
    read = {name: read_reward(name, R, like, dynamics) for name, R in rewards.items()}
    discount, start = read_gamma(gamma, like), read_initial(initial, dynamics)
    batch = broadcast_batch(
        **{name: x.shape[:-3] for name, x in read.items()},
        P=dynamics.shape[:-3],
        gamma=discount.shape,
        initial=start.shape[:-1],
    )
    return Task(dynamics, discount, start, tuple(read.values()), batch)


def read_policy(policy: Tensor | ArrayLike | None, dynamics: Tensor) -> Tensor:
    """A policy `(*batch, S, A)`, uniform by default."""
    states, actions = dynamics.shape[-3:-1]
    if policy is None:
        return torch.full((states, actions), 1 / actions, dtype=dynamics.dtype, device=dynamics.device)
    x = as_float("policy", policy, like=dynamics)
    fits = x.ndim >= 2 and x.shape[-2:] == dynamics.shape[-3:-1]
    require_shape("policy", x, fits, f"(*batch, {states}, {actions}), one distribution a state")
    _require_distribution("policy", x)
    return x


def read_weights_of(name: str, value: Tensor | ArrayLike | None, size: int, like: Tensor) -> Tensor:
    """A distribution `(*batch, size)`, uniform by default."""
    if value is None:
        return torch.full((size,), 1 / size, dtype=like.dtype, device=like.device)
    x = as_float(name, value, like=like)
    require_shape(name, x, x.ndim >= 1 and x.shape[-1] == size, f"(*batch, {size})")
    _require_distribution(name, x)
    return x


def read_initial(initial: Tensor | ArrayLike | None, dynamics: Tensor) -> Tensor:
    """The distribution `(*batch, S)` of the first state, uniform by default."""
    return read_weights_of("initial", initial, dynamics.shape[-1], dynamics)


def read_per_state(name: str, value: Tensor | ArrayLike, states: int, like: Tensor) -> Tensor:
    """A finite number a state, shape `(*batch, S)`."""
    x = as_float(name, value, like=like)
    require_shape(name, x, x.ndim >= 1 and x.shape[-1] == states, f"(*batch, {states}), one number a state")
    require_finite(name, x)
    return x


def read_weights(weights: Tensor | ArrayLike | None, dynamics: Tensor) -> Tensor | None:
    """Weights `(*batch, S, A, S)` of a norm, none negative; None stands for 1."""
    if weights is None:
        return None
    w = read_reward("weights", weights, dynamics, dynamics)
    require("weights", w >= 0, "numbers >= 0", w)
    require("weights", (w > 0).flatten(-3).any(-1), "at least one positive weight", w.flatten(-3).sum(-1))
    return w


def over_pairs(gamma: Tensor) -> Tensor:
    """A discount `(*batch)` as `(*batch, 1, 1)`, ready to meet states and actions."""
    return gamma[..., None, None]


def _require_distribution(name: str, x: Tensor) -> None:
    slack = 1e-6 if x.dtype == torch.float64 else 1e-5
    total, smallest = x.sum(-1), x.amin(-1)
    require(name, ~(smallest < 0), "no negative entry", smallest)
    require(name, (total - 1).abs() <= slack, "rows that sum to one", total)
