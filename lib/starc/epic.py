"""EPIC and DARD, the pseudometrics that STARC set out to replace."""

from __future__ import annotations

from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, shared_kind
from lib.shapes import Float, Real
from lib.starc.canonical import dard_reward, epic_reward
from lib.starc.norms import standardised, weighted_norm
from lib.starc.setting import read_dynamics, read_gamma, read_reward, read_weights_of, trivial_share


def epic_distance(
    R1: Real[Tensor, "*#batch S A S"] | ArrayLike,
    R2: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    state_weights: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
    action_weights: Real[Tensor, "*#batch A"] | ArrayLike | None = None,
) -> Float[Tensor, "*out"]:
    r"""EPIC: Pearson distance $\sqrt{(1-r)/2}$ of the canonically shaped rewards.

    The canonical reward is that of `canonicalise` with method "epic", the correlation $r$ is under independent
    $S\sim D_S$, $A\sim D_A$, $S'\sim D_S$. It knows no dynamics: a reward on impossible transitions counts. It equals
    half the standardised $L_2$ distance under these weights, and is computed so.

    Args:
        R1: reward of each transition, shape (*batch, S, A, S).
        R2: the other one, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        state_weights: $D_S$, shape (*batch, S); uniform by default.
        action_weights: $D_A$, shape (*batch, A); uniform by default.

    Returns:
        Numbers in [0, 1], shape (*batch,). A reward that is constant up to shaping has distance 1/2 from others, 0 from
        its like.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, weights that are no distribution, a discount
            outside [0, 1).

    Source: Gleave, Dennis, Legg, Russell and Leike (ICLR 2021), Quantifying differences in reward functions.

    >>> one = [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    >>> minus_two = [[[-2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    >>> epic_distance(one, minus_two, 0.5).round(decimals=9)
    tensor(1., dtype=torch.float64)
    """
    like = shared_kind(R1, R2, gamma, state_weights, action_weights)
    first = read_reward("R1", R1, like)
    second = read_reward("R2", R2, like, first, "R1")
    states, actions = first.shape[-3:-1]
    discount = read_gamma(gamma, like)
    d_s = read_weights_of("state_weights", state_weights, states, like)
    d_a = read_weights_of("action_weights", action_weights, actions, like)
    batch = broadcast_batch(
        R1=first.shape[:-3],
        R2=second.shape[:-3],
        gamma=discount.shape,
        state_weights=d_s.shape[:-1],
        action_weights=d_a.shape[:-1],
    )
    law = d_s[..., :, None, None] * d_a[..., None, :, None] * d_s[..., None, None, :]
    forms = [epic_reward(x, discount, d_s, d_a) for x in (first, second)]
    return _pearson_distance(forms, [first, second], law).expand(batch)


def dard_distance(
    R1: Real[Tensor, "*#batch S A S"] | ArrayLike,
    R2: Real[Tensor, "*#batch S A S"] | ArrayLike,
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    state_weights: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
    action_weights: Real[Tensor, "*#batch A"] | ArrayLike | None = None,
) -> Float[Tensor, "*out"]:
    r"""DARD: Pearson distance $\sqrt{(1-r)/2}$ of rewards that were shaped along the dynamics.

    The canonical reward is that of `canonicalise` with method "dard", the correlation $r$ is under $S\sim D_S$,
    $A\sim D_A$, $S'\sim P(S,A)$. One of its terms asks for the reward from one successor to a successor of another:
    that transition may be impossible.

    Args:
        R1: reward of each transition, shape (*batch, S, A, S).
        R2: the other one, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        state_weights: $D_S$, shape (*batch, S); uniform by default.
        action_weights: $D_A$, shape (*batch, A); uniform by default.

    Returns:
        Numbers in [0, 1], shape (*batch,). A reward whose canonical form is constant has distance 1/2 from others, 0
        from its like.

    Raises:
        ValueError: as `epic_distance`; a row of P that is no distribution.

    Source: Wulfe, Balakrishna, Ellis, Mercat, McAllister and Gaidon (ICLR 2022), Dynamics-aware comparison of learned
    reward functions.

    >>> coin = [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]
    >>> one = [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    >>> minus_two = [[[-2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    >>> dard_distance(one, minus_two, coin, 0.5).round(decimals=9)
    tensor(1., dtype=torch.float64)
    """
    like = shared_kind(R1, R2, P, gamma, state_weights, action_weights)
    dynamics = read_dynamics(P, like)
    first, second = (read_reward(name, x, like, dynamics) for name, x in (("R1", R1), ("R2", R2)))
    states, actions = dynamics.shape[-3:-1]
    discount = read_gamma(gamma, like)
    d_s = read_weights_of("state_weights", state_weights, states, like)
    d_a = read_weights_of("action_weights", action_weights, actions, like)
    batch = broadcast_batch(
        R1=first.shape[:-3],
        R2=second.shape[:-3],
        P=dynamics.shape[:-3],
        gamma=discount.shape,
        state_weights=d_s.shape[:-1],
        action_weights=d_a.shape[:-1],
    )
    law = d_s[..., :, None, None] * d_a[..., None, :, None] * dynamics
    forms = [dard_reward(x, dynamics, discount, d_a) for x in (first, second)]
    return _pearson_distance(forms, [first, second], law).expand(batch)


def _pearson_distance(forms: list[Tensor], rewards: list[Tensor], law: Tensor) -> Tensor:
    r"""$\sqrt{(1-r)/2}$ under `law`, as half the distance of the standardised deviations from the mean."""
    scaled = []
    for form, reward in zip(forms, rewards, strict=True):
        centred = form - (law * form).sum((-3, -2, -1), keepdim=True)
        limit = trivial_share(law) * weighted_norm(reward, law, 2)
        scaled.append(standardised(centred, weighted_norm(centred, law, 2), limit))
    return (weighted_norm(scaled[0] - scaled[1], law, 2) / 2).clamp(max=1)
