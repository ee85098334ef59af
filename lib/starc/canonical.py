"""Canonicalisation: one representative for all rewards that no policy can tell apart, and the impostors."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, require, shared_kind
from lib.shapes import Float, Real
from lib.starc.minimal import minimal_reward, minimal_shaped_reward
from lib.starc.policy import centred_values, without_rounding
from lib.starc.rewards import mean_reward, shaping_term
from lib.starc.setting import read_dynamics, read_gamma, read_policy, read_reward, read_weights, read_weights_of

Method = Literal["none", "val", "val_potential", "minimal", "minimal_potential", "epic", "dard"]
METHODS = ("none", "val", "val_potential", "minimal", "minimal_potential", "epic", "dard")


def canonicalise(
    R: Real[Tensor, "*#batch S A S"] | ArrayLike,
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    method: Method | str = "val",
    policy: Real[Tensor, "..."] | ArrayLike | None = None,
    weights: Real[Tensor, "*#batch S A S"] | ArrayLike | None = None,
    state_weights: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
) -> Float[Tensor, "*out S A S"]:
    r"""The representative of a reward under one of seven methods, each linear in the reward.

    Only "val" and "minimal" are canonicalisations: equal for two rewards exactly if these differ by shaping and
    redistribution. The others miss a part of that, or see what no policy sees.

    - "none": the reward itself.
    - "val": Value-Adjusted Levelling, $\mathbb E_{S'}[R(s,a,S')-V^\pi(s)+\gamma V^\pi(S')]$, which is the advantage
      $A^\pi(s,a)$, the same for all $s'$ (returned as a broadcast view).
    - "val_potential": the same without the expectation over $S'$: undoes shaping only.
    - "minimal": the reward of least $\sum\omega f^2$ in the class, zero on impossible transitions,
      $\frac{g(s,a)}{h(s,a)}\frac P\omega$ with $h=\sum_{s'}P^2/\omega$ and $g$ the projection of $\bar R$ off all
      $E\Phi$ in the norm $\sum g^2/h$.
    - "minimal_potential": the least $\sum\omega f^2$ that shaping alone reaches.
    - "epic": $R(s,a,s')+\mathbb E[\gamma R(s',A,S')-R(s,A,S')-\gamma R(S,A,S')]$ with $S,S'\sim D_S$ and $A\sim D_A$.
    - "dard": $R(s,a,s')+\mathbb E[\gamma R(s',A,S'')-R(s,A,S')-\gamma R(S',A,S'')]$ with $A\sim D_A$, $S'\sim P(s,A)$
      and $S''\sim P(s',A)$, where the action towards $S'$ and the one that follows are independent.

    Args:
        R: reward of each transition, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S); "none", "epic" and "minimal_potential" take only S and A
            from them.
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        method: one of the seven names.
        policy: $\pi$ of "val" and "val_potential", shape (*batch, S, A); $D_A$ of "epic" and "dard", shape (*batch, A);
            uniform by default.
        weights: $\omega$ of the two minimal methods, positive where P is, shape (*batch, S, A, S); 1 by default.
        state_weights: $D_S$ of "epic", shape (*batch, S); uniform by default.

    Returns:
        Shape (*batch, S, A, S).

    Raises:
        ValueError: an unknown method, shapes that do not fit, numbers that are not finite, rows that are no
            distributions, a discount outside [0, 1), weights that are not positive where P is.

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257; "epic" Gleave, Dennis,
    Legg, Russell and Leike (2021); "dard" Wulfe et al. (2022). The closed form of "minimal" is an own extension.

    >>> bandit = [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]
    >>> canonicalise([[[1.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]], bandit, 0.0)[0]
    tensor([[ 1.,  1.], [-1., -1.]], dtype=torch.float64)
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method: got {method!r}, want one of {', '.join(map(repr, METHODS))}")
    like = shared_kind(R, P, gamma, policy, weights, state_weights)
    dynamics = read_dynamics(P, like)
    reward, discount = read_reward("R", R, like, dynamics), read_gamma(gamma, like)
    states, actions = dynamics.shape[-3:-1]
    shapes = {"R": reward.shape[:-3], "P": dynamics.shape[:-3], "gamma": discount.shape}

    if method in ("val", "val_potential"):
        pi = None if policy is None else read_policy(policy, dynamics)
        batch = broadcast_batch(**shapes, policy=() if pi is None else pi.shape[:-2])
        value, offset, advantage = centred_values(mean_reward(reward, dynamics), dynamics, discount, pi)
        if method == "val":
            result = without_rounding(advantage, value).unsqueeze(-1)
        else:
            shift = ((1 - discount) * offset)[..., None, None, None]
            result = reward - shift + shaping_term(value, discount)
    elif method in ("minimal", "minimal_potential"):
        w = read_weights(weights, dynamics)
        batch = broadcast_batch(**shapes, weights=() if w is None else w.shape[:-3])
        if w is not None:
            require("weights", (w > 0) | (dynamics == 0), "positive numbers where P > 0", w)
        smallest = minimal_reward if method == "minimal" else minimal_shaped_reward
        result = smallest(reward, dynamics, discount, w)
    elif method in ("epic", "dard"):
        d_a = read_weights_of("policy", policy, actions, dynamics)
        d_s = read_weights_of("state_weights", state_weights, states, dynamics)
        batch = broadcast_batch(**shapes, policy=d_a.shape[:-1], state_weights=d_s.shape[:-1])
        result = (
            epic_reward(reward, discount, d_s, d_a)
            if method == "epic"
            else dard_reward(reward, dynamics, discount, d_a)
        )
    else:
        batch, result = broadcast_batch(**shapes), reward.clone()
    return result.expand(*batch, states, actions, states)


def epic_reward(reward: Tensor, discount: Tensor, d_s: Tensor, d_a: Tensor) -> Tensor:
    """EPIC's canonical reward of checked tensors."""
    leaving = ((reward * d_s[..., None, None, :]).sum(-1) * d_a.unsqueeze(-2)).sum(-1)  # E R(s, A, S')
    overall = (leaving * d_s).sum(-1)
    return reward + shaping_term(leaving, discount) - (discount * overall)[..., None, None, None]


def dard_reward(reward: Tensor, dynamics: Tensor, discount: Tensor, d_a: Tensor) -> Tensor:
    """DARD's canonical reward of checked tensors."""
    leaving = (mean_reward(reward, dynamics) * d_a.unsqueeze(-2)).sum(-1)  # E R(s, A, S')
    chain = (dynamics * d_a[..., None, :, None]).sum(-2)
    weighted = (dynamics * d_a[..., None, :, None]).flatten(-2, -1)
    after = chain @ (reward.flatten(-2, -1) @ weighted.mT)  # E R(S', A, S'') for each s and s'
    return reward + shaping_term(leaving, discount) - discount[..., None, None, None] * after.unsqueeze(-2)
