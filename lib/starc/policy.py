"""What a policy is worth, and where it goes: values, advantages and discounted occupancies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, shared_kind
from lib.linalg import factorise
from lib.shapes import Float, Real
from lib.starc.rewards import mean_reward
from lib.starc.setting import over_pairs, read_dynamics, read_gamma, read_initial, read_policy, read_reward

NOISE = 32.0  # in units of rounding of the values: advantages below are none


@dataclass(frozen=True)
class PolicyValue:
    r"""Value $V^\pi$ of each state, $Q^\pi$ of each state and action, and the advantage $A^\pi=Q^\pi-V^\pi$."""

    value: Float[Tensor, "*batch S"]
    q_value: Float[Tensor, "*batch S A"]
    advantage: Float[Tensor, "*batch S A"]


def policy_value(
    R: Real[Tensor, "*#batch S A S"] | ArrayLike,
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    policy: Real[Tensor, "*#batch S A"] | ArrayLike | None = None,
) -> PolicyValue:
    r"""Value, Q-value and advantage of a policy, by one linear solve.

    $V^\pi=(I-\gamma P_\pi)^{-1}\bar R_\pi$ with $P_\pi(s,s')=\sum_a\pi(a\mid s)P(s'\mid s,a)$, then
    $Q^\pi=\bar R+\gamma PV^\pi$ and $A^\pi=Q^\pi-V^\pi$. Differentiable in every argument. Many rewards on one decision
    process (P without the batch axes of R) cost one factorisation.

    Args:
        R: reward of each transition, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        policy: $\pi(a\mid s)$, shape (*batch, S, A); uniform by default.

    Returns:
        `value` (*batch, S), `q_value` and `advantage` (*batch, S, A).

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, rows that are no distributions, a discount
            outside [0, 1).

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257, for the setting.

    >>> stay = [[[1.0, 0.0]], [[0.0, 1.0]]]  # two states, one action, nothing moves
    >>> policy_value([[[1.0, 0.0]], [[0.0, 3.0]]], stay, 0.5).value
    tensor([2., 6.], dtype=torch.float64)
    """
    like = shared_kind(R, P, gamma, policy)
    dynamics = read_dynamics(P, like)
    reward, discount = read_reward("R", R, like, dynamics), read_gamma(gamma, like)
    pi = None if policy is None else read_policy(policy, dynamics)
    batch = broadcast_batch(
        R=reward.shape[:-3], P=dynamics.shape[:-3], gamma=discount.shape, policy=() if pi is None else pi.shape[:-2]
    )
    value, q_value, advantage = values_of(mean_reward(reward, dynamics), dynamics, discount, pi)
    states, actions = advantage.shape[-2:]
    return PolicyValue(
        value.expand(*batch, states), q_value.expand(*batch, states, actions), advantage.expand(*batch, states, actions)
    )


def occupancy(
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    policy: Real[Tensor, "*#batch S A"] | ArrayLike | None = None,
    initial: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
) -> Float[Tensor, "*out S A"]:
    r"""Discounted occupancy $\mu_\pi(s,a)=\sum_t\gamma^t\Pr(S_t=s,A_t=a)$ of a policy.

    It solves the flow equation $\sum_a\mu(s',a)=\mu_0(s')+\gamma\sum_{s,a}P(s'\mid s,a)\mu(s,a)$, sums to
    $1/(1-\gamma)$, and turns a return into an inner product, $J_R(\pi)=\langle\mu_\pi,\bar R\rangle$. Differentiable in
    every argument.

    Args:
        P: transition probabilities, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        policy: $\pi(a\mid s)$, shape (*batch, S, A); uniform by default.
        initial: $\mu_0$, shape (*batch, S); uniform by default.

    Returns:
        Shape (*batch, S, A), not normalised.

    Raises:
        ValueError: shapes that do not fit, rows that are no distributions, a discount outside [0, 1).

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257, for the setting.

    >>> occupancy([[[1.0, 0.0]], [[0.0, 1.0]]], 0.5)
    tensor([[1.], [1.]], dtype=torch.float64)
    """
    like = shared_kind(P, gamma, policy, initial)
    dynamics, discount = read_dynamics(P, like), read_gamma(gamma, like)
    pi, start = read_policy(policy, dynamics), read_initial(initial, dynamics)
    batch = broadcast_batch(P=dynamics.shape[:-3], gamma=discount.shape, policy=pi.shape[:-2], initial=start.shape[:-1])
    return visits_of(dynamics, discount, pi, start).expand(*batch, *dynamics.shape[-3:-1])


def visits_of(dynamics: Tensor, discount: Tensor, pi: Tensor, start: Tensor) -> Tensor:
    """Occupancy `(*batch, S, A)` of checked tensors."""
    system = _identity_minus(discount, state_chain(dynamics, pi))
    return _solver(system.mT)(start).unsqueeze(-1) * pi


def values_of(
    mean: Tensor, dynamics: Tensor, discount: Tensor, pi: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, Q-value and advantage of checked tensors, `mean` being the expected reward; `pi` None is uniform."""
    value, offset, advantage = centred_values(mean, dynamics, discount, pi)
    value = value + offset.unsqueeze(-1)
    return value, advantage + value.unsqueeze(-1), advantage


def centred_values(
    mean: Tensor, dynamics: Tensor, discount: Tensor, pi: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Values about a typical one, that one, and advantages, which so keep their digits however far the horizon."""

    def under_policy(x: Tensor) -> Tensor:
        return x.mean(-1) if pi is None else (pi * x).sum(-1)

    solution = _solver(_identity_minus(discount, state_chain(dynamics, pi)))
    offset = solution(under_policy(mean)).detach().mean(-1)
    above = mean - over_pairs((1 - discount) * offset)  # a constant is a potential
    value = solution(under_policy(above))
    advantage = above + over_pairs(discount) * expected_next(dynamics, value) - value.unsqueeze(-1)
    return value, offset, advantage


def levelled(mean: Tensor, dynamics: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages of the uniform policy scaled to a largest entry of 1, and the scale (no gradient flows through it).

    They order all policies as the reward does, without the offsets that would cost digits.
    """
    value, _, advantage = centred_values(mean, dynamics, discount)
    advantage = without_rounding(advantage, value)
    size = advantage.detach().abs().amax((-2, -1))
    return advantage / torch.where(size > 0, size, torch.ones_like(size))[..., None, None], size


def without_rounding(advantage: Tensor, value: Tensor) -> Tensor:
    """Advantages, and zero where all are at the rounding level of the values: a trivial reward has no opinion."""
    noise = NOISE * torch.finfo(value.dtype).eps * value.detach().abs().amax(-1)
    heard = advantage.detach().abs().amax((-2, -1)) > noise
    return advantage * heard[..., None, None]


def state_chain(dynamics: Tensor, pi: Tensor | None) -> Tensor:
    r"""$P_\pi(s,s')$, shape `(*batch, S, S)`; `pi` None is uniform."""
    return dynamics.mean(-2) if pi is None else (pi.unsqueeze(-1) * dynamics).sum(-2)


def expected_next(dynamics: Tensor, value: Tensor) -> Tensor:
    r"""$\sum_{s'}P(s'\mid s,a)V(s')$, shape `(*batch, S, A)`; leading axes that only `value` has become columns."""
    states, actions = dynamics.shape[-3:-1]
    rows = _without_leading_ones(dynamics, 3).flatten(-3, -2)  # (*batch, S A, S)
    columns, restore = _as_columns(value, rows.ndim - 2)
    ahead = (columns.mT @ rows.mT).mT  # several times as fast as rows @ columns where there is one column a matrix
    product: Tensor = restore(ahead).unflatten(-1, (states, actions))
    return product


def _identity_minus(discount: Tensor, chain: Tensor) -> Tensor:
    return torch.eye(chain.shape[-1], dtype=chain.dtype, device=chain.device) - over_pairs(discount) * chain


def _solver(system: Tensor) -> Callable[[Tensor], Tensor]:
    """Solves for right sides `(*batch, S)`; those that share a matrix share its factorisation."""
    matrix = _without_leading_ones(system, 2)
    columns_of = factorise(matrix)

    def solution(right: Tensor) -> Tensor:
        columns, restore = _as_columns(right, matrix.ndim - 2)
        return restore(columns_of(columns))

    return solution


def _without_leading_ones(x: Tensor, kept: int) -> Tensor:
    while x.ndim > kept and x.shape[0] == 1:
        x = x.squeeze(0)
    return x


def _as_columns(x: Tensor, batch_axes: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Vectors `(*batch, n)` as columns behind `batch_axes` axes, and how to get a product with them back."""
    extra = x.ndim - 1 - batch_axes
    if extra <= 0:
        return x.reshape((1,) * -extra + x.shape).unsqueeze(-1), lambda product: product.squeeze(-1)
    lead = x.shape[:extra]
    return x.flatten(0, extra - 1).movedim(0, -1), lambda product: product.movedim(-1, 0).unflatten(0, lead)
