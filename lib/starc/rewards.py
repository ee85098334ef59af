"""Rewards on transitions: what they are worth on average, and the changes to them that no policy notices."""

from __future__ import annotations

from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, shared_kind
from lib.shapes import Float, Real
from lib.starc.setting import read_dynamics, read_gamma, read_per_state, read_reward


def expected_reward(
    R: Real[Tensor, "*#batch S A S"] | ArrayLike, P: Real[Tensor, "*#batch S A S"] | ArrayLike
) -> Float[Tensor, "*out S A"]:
    r"""Expected reward of a state and an action, $\bar R(s,a)=\sum_{s'}P(s'\mid s,a)R(s,a,s')$.

    Args:
        R: reward of each transition, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S).

    Returns:
        Shape (*batch, S, A).

    Raises:
        ValueError: shapes that do not fit, a reward that is not finite, a row of P that is no distribution.

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257.

    >>> expected_reward([[[2.0, 4.0]], [[1.0, 1.0]]], [[[0.5, 0.5]], [[0.0, 1.0]]])
    tensor([[3.], [1.]], dtype=torch.float64)
    """
    like = shared_kind(R, P)
    dynamics = read_dynamics(P, like)
    reward = read_reward("R", R, like, dynamics)
    broadcast_batch(R=reward.shape[:-3], P=dynamics.shape[:-3])
    return mean_reward(reward, dynamics)


def potential_shaping(
    R: Real[Tensor, "*#batch S A S"] | ArrayLike,
    potential: Real[Tensor, "*#batch S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*out S A S"]:
    r"""The reward with a potential added, $R(s,a,s')+\gamma\Phi(s')-\Phi(s)$.

    Every return moves by the same $-\langle\mu_0,\Phi\rangle$, so that no two policies change places.

    Args:
        R: reward of each transition, shape (*batch, S, A, S).
        potential: $\Phi$, shape (*batch, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).

    Returns:
        Shape (*batch, S, A, S).

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a discount outside [0, 1).

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257; the idea is of Ng, Harada
    and Russell (1999).

    >>> potential_shaping([[[0.0, 0.0]], [[0.0, 0.0]]], [1.0, 2.0], 0.5)
    tensor([[[-0.5000,  0.0000]], [[-1.5000, -1.0000]]], dtype=torch.float64)
    """
    like = shared_kind(R, potential, gamma)
    reward = read_reward("R", R, like)
    phi = read_per_state("potential", potential, reward.shape[-1], like)
    discount = read_gamma(gamma, like)
    broadcast_batch(R=reward.shape[:-3], potential=phi.shape[:-1], gamma=discount.shape)
    return reward + shaping_term(phi, discount)


def redistribute(
    R: Real[Tensor, "*#batch S A S"] | ArrayLike,
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    noise: Real[Tensor, "*#batch S A S"] | ArrayLike,
) -> Float[Tensor, "*out S A S"]:
    r"""The reward moved between successors, $R(s,a,s')+N(s,a,s')-\mathbb E_{S'\sim P(s,a)}N(s,a,S')$.

    The expected reward $\bar R$, and with it every return, stays. Every reward of the same $\bar R$ arises so.

    Args:
        R: reward of each transition, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S).
        noise: $N$, shape (*batch, S, A, S).

    Returns:
        Shape (*batch, S, A, S).

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a row of P that is no distribution.

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257.

    >>> redistribute([[[0.0, 0.0]], [[0.0, 0.0]]], [[[0.5, 0.5]], [[0.0, 1.0]]], [[[1.0, 3.0]], [[5.0, 7.0]]])
    tensor([[[-1.,  1.]], [[-2.,  0.]]], dtype=torch.float64)
    """
    like = shared_kind(R, P, noise)
    dynamics = read_dynamics(P, like)
    reward, moved = (read_reward(name, x, like, dynamics) for name, x in (("R", R), ("noise", noise)))
    broadcast_batch(R=reward.shape[:-3], P=dynamics.shape[:-3], noise=moved.shape[:-3])
    return reward + moved - mean_reward(moved, dynamics).unsqueeze(-1)


def mean_reward(reward: Tensor, dynamics: Tensor) -> Tensor:
    """Expected reward `(*batch, S, A)` of checked tensors."""
    return (reward * dynamics).sum(-1)


def shaping_term(phi: Tensor, discount: Tensor) -> Tensor:
    r"""$\gamma\Phi(s')-\Phi(s)$ as `(*batch, S, 1, S)`."""
    return discount[..., None, None, None] * phi[..., None, None, :] - phi[..., :, None, None]


def largest_mean_size(reward: Tensor, dynamics: Tensor) -> Tensor:
    r"""$\max_{s,a}\mathbb E_{S'}|R|$, the scale against which a range counts as zero, `(*batch)`."""
    return (reward.abs() * dynamics).sum(-1).amax((-2, -1))
