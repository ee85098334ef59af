"""The STARC distance: canonicalise, normalise, measure."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, shared_kind
from lib.shapes import Float, Real
from lib.starc.canonical import Method, canonicalise
from lib.starc.norms import Norm, read_norm, standardised, weighted_norm
from lib.starc.policy_iteration import ITERATIONS
from lib.starc.return_range import range_of
from lib.starc.rewards import largest_mean_size, mean_reward
from lib.starc.setting import read_dynamics, read_gamma, read_initial, read_reward, read_weights, trivial_share


def starc_distance(
    R1: Real[Tensor, "*#batch S A S"] | ArrayLike,
    R2: Real[Tensor, "*#batch S A S"] | ArrayLike,
    P: Real[Tensor, "*#batch S A S"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    method: Method | str = "val",
    norm: Norm | str = 2,
    metric: Norm | str | None = None,
    weights: Real[Tensor, "*#batch S A S"] | ArrayLike | None = None,
    policy: Real[Tensor, "..."] | ArrayLike | None = None,
    initial: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
    state_weights: Real[Tensor, "*#batch S"] | ArrayLike | None = None,
) -> Float[Tensor, "*out"]:
    r"""Distance of two rewards after canonicalisation and normalisation, $\mathcal M(\tilde R_1,\tilde R_2)$.

    With the canonical reward $c(R)$ and a norm $\mathcal N$ the standardised reward is
    $\tilde R=c(R)/\mathcal N(c(R))$, and 0 where $c(R)$ is. Under "val" and "minimal" this is a STARC metric: a
    pseudometric that vanishes exactly for rewards that order all policies alike, with worst-case regret bounded above
    and below by multiples of it. With the $L_2$ norm in both places it is $2\sin(\theta/2)$, theta being the angle
    between the canonical rewards. Differentiable where it is not 0.

    Args:
        R1: reward of each transition, shape (*batch, S, A, S).
        R2: the other one, shape (*batch, S, A, S).
        P: transition probabilities, shape (*batch, S, A, S).
        gamma: discount in [0, 1), shape broadcastable to (*batch,).
        method: canonicalisation, a name that `canonicalise` knows.
        norm: $\mathcal N$, one of 1, 2, `math.inf` and "range" (the range of returns, see `return_range`).
        metric: $\mathcal M$, the norm of the difference; by default the same as `norm`.
        weights: $\omega$ in $(\sum\omega|f|^p)^{1/p}$ of both norms and of the minimal methods, shape
            (*batch, S, A, S).
        policy: as for `canonicalise`.
        initial: $\mu_0$ of the range, shape (*batch, S); uniform by default.
        state_weights: as for `canonicalise`.

    Returns:
        Numbers in [0, 2] if metric and norm agree, shape (*batch,). A reward whose canonical form is below 1e-9 (in
        float32 1e-4) of its own size counts as trivial: it is at distance 0 from another trivial one.

    Raises:
        ValueError: as `canonicalise`; an unknown norm or metric, negative weights.

    Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257; the norm "range" is an own
    extension.

    >>> bandit = [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]
    >>> left = [[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    >>> right = [[[0.0, 0.0], [3.0, 3.0]], [[7.0, 7.0], [7.0, 7.0]]]
    >>> starc_distance(left, right, bandit, 0.0).round(decimals=9), starc_distance(left, left, bandit, 0.0)
    (tensor(2., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    size_of = read_norm("norm", norm)
    distance_of = size_of if metric is None else read_norm("metric", metric)
    like = shared_kind(R1, R2, P, gamma, weights, policy, initial, state_weights)
    dynamics, discount = read_dynamics(P, like), read_gamma(gamma, like)
    rewards = [read_reward(name, x, like, dynamics) for name, x in (("R1", R1), ("R2", R2))]
    w, start = read_weights(weights, dynamics), read_initial(initial, dynamics)
    batch = broadcast_batch(
        R1=rewards[0].shape[:-3],
        R2=rewards[1].shape[:-3],
        P=dynamics.shape[:-3],
        gamma=discount.shape,
        weights=() if w is None else w.shape[:-3],
        initial=start.shape[:-1],
        policy=() if policy is None else tuple(np.shape(policy))[: -1 if method in ("epic", "dard") else -2],
        state_weights=() if state_weights is None else tuple(np.shape(state_weights))[:-1],
    )

    def measured(x: Tensor, kind: Norm) -> Tensor:
        if kind != "range":
            return weighted_norm(x, w, kind)
        own = broadcast_batch(R=x.shape[:-3], P=dynamics.shape[:-3], gamma=discount.shape, initial=start.shape[:-1])
        return range_of(mean_reward(x, dynamics), dynamics, discount, start, own, ITERATIONS).width

    forms = []
    for reward in rewards:
        form = canonicalise(reward, dynamics, discount, method, policy, w, state_weights)
        own_size = largest_mean_size(reward, dynamics) if size_of == "range" else weighted_norm(reward, w, size_of)
        forms.append(standardised(form, measured(form, size_of), trivial_share(like) * own_size))
    return measured(forms[0] - forms[1], distance_of).expand(batch)
