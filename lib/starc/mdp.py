"""Random decision processes, and the matrix through which a potential reaches the expected reward."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_size, shared_kind
from lib.shapes import Float, Real
from lib.starc.setting import over_pairs, read_dynamics, read_gamma


def random_mdp(
    states: int,
    actions: int,
    *,
    batch: Sequence[int] = (),
    threshold: float = 1.0,
    sharpness: float = 1.0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Float[Tensor, "*batch S A S"]:
    r"""Transition probabilities of random sparse decision processes.

    Every triple of state, action and successor gets an independent standard normal score. Successors with a score above
    the threshold, and always the largest, share the probability as softmax of sharpness times score; all others have
    exactly 0. A state may be out of reach of the others: `occupancy` shows it.

    Args:
        states: S.
        actions: A.
        batch: how many processes, as a shape.
        threshold: on the score; 1 leaves about 16 % of the successors, $-\infty$ leaves all.
        sharpness: factor of the score in the softmax; 0 makes all that are left equally likely.
        generator: source of the randomness; by default torch's own.
        dtype: of the result.
        device: of the result; by default the generator's.

    Returns:
        Shape (*batch, S, A, S).

    Raises:
        ValueError: no state or no action, a negative batch, a number that is none, a dtype that is not floating.

    Source: own construction, after the random environments of Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR
    2024), arXiv 2309.15257, with exact zeros.

    >>> P = random_mdp(4, 2, batch=(3,), generator=torch.Generator().manual_seed(0))
    >>> P.shape, bool((P == 0).any()), bool(torch.allclose(P.sum(-1), torch.ones(3, 4, 2, dtype=torch.float64)))
    (torch.Size([3, 4, 2, 4]), True, True)
    """
    for name, size in (("states", states), ("actions", actions)):
        read_size(name, size, 1)
    for size in batch:
        read_size("batch", size, 0)
    if math.isnan(threshold):
        raise ValueError(f"threshold: got {threshold}, want a number or an infinity")
    if not math.isfinite(sharpness):
        raise ValueError(f"sharpness: got {sharpness}, want a finite number")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: got {dtype}, want a floating one")
    where = generator.device if device is None and generator is not None else device
    z = torch.randn(*batch, states, actions, states, generator=generator, dtype=dtype, device=where)
    possible = (z > threshold) | (z == z.amax(-1, keepdim=True))
    return (sharpness * z).masked_fill(~possible, -torch.inf).softmax(-1)


def shaping_matrix(
    P: Real[Tensor, "*#batch S A S"] | ArrayLike, gamma: Real[Tensor, "*#batch"] | ArrayLike
) -> Float[Tensor, "*out S A S"]:
    r"""The matrix $E$ with $(E\Phi)(s,a)=\Phi(s)-\gamma\sum_{s'}P(s'\mid s,a)\Phi(s')$.

    Shaping with $\Phi$ takes $E\Phi$ from the expected reward; occupancies are the $\mu\ge0$ with $E^\top\mu=\mu_0$.
    For $\gamma<1$ its columns are linearly independent.

    Args:
        P: transition probabilities, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).

    Returns:
        Shape (*batch, S, A, S): rows are pairs of state and action, columns are states.

    Raises:
        ValueError: shapes that do not fit, a row of P that is no distribution, a discount outside [0, 1).

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257, for the setting.

    >>> shaping_matrix([[[0.0, 1.0]], [[1.0, 0.0]]], 0.5).flatten(0, 1)
    tensor([[ 1.0000, -0.5000],
            [-0.5000,  1.0000]], dtype=torch.float64)
    """
    like = shared_kind(P, gamma)
    dynamics, discount = read_dynamics(P, like), read_gamma(gamma, like)
    broadcast_batch(P=dynamics.shape[:-3], gamma=discount.shape)
    return potential_to_reward(dynamics, discount)


def potential_to_reward(dynamics: Tensor, discount: Tensor) -> Tensor:
    """The matrix E of checked tensors, `(*batch, S, A, S)`."""
    here = torch.eye(dynamics.shape[-1], dtype=dynamics.dtype, device=dynamics.device).unsqueeze(-2)
    return here - over_pairs(discount).unsqueeze(-1) * dynamics
