"""The smallest reward of a class in a weighted Euclidean norm, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.linalg import factorise
from lib.starc.mdp import potential_to_reward
from lib.starc.rewards import mean_reward, shaping_term


def minimal_reward(reward: Tensor, dynamics: Tensor, discount: Tensor, weights: Tensor | None) -> Tensor:
    r"""The reward of least $\sum\omega f^2$ that shaping and redistribution can reach, zero on impossible transitions.

    For a given expected reward $g$ it is $f=\frac gh\frac P\omega$ with $h=\sum_{s'}P^2/\omega$ and costs $\sum g^2/h$.
    So $g=\bar R-E\Phi$ with the $\Phi$ of a least squares problem in S unknowns, solved by a QR factorisation.
    """
    share = dynamics if weights is None else dynamics / torch.where(dynamics > 0, weights, torch.ones_like(weights))
    spread = (dynamics * share).sum(-1)  # h
    scale = spread.sqrt()
    design = (potential_to_reward(dynamics, discount) / scale.unsqueeze(-1)).flatten(-3, -2)
    basis = torch.linalg.qr(design).Q
    left = (mean_reward(reward, dynamics) / scale).flatten(-2, -1).unsqueeze(-2)  # a row: faster than a column
    for _ in range(2):  # the second time removes what rounding left of a large potential
        left = left - (left @ basis) @ basis.mT
    pairs: Tensor = left.squeeze(-2).unflatten(-1, dynamics.shape[-3:-1]) / scale
    return pairs.unsqueeze(-1) * share


def minimal_shaped_reward(reward: Tensor, dynamics: Tensor, discount: Tensor, weights: Tensor | None) -> Tensor:
    r"""The reward of least $\sum\omega f^2$ that shaping alone can reach.

    The normal equations for the potential couple two states by the weight of the transitions between them.
    """
    w = torch.ones_like(dynamics) if weights is None else weights
    pairs = w.sum(-2)  # (*batch, S, S)
    step = discount[..., None, None]
    normal = torch.diag_embed(pairs.sum(-1) + step[..., 0] ** 2 * pairs.sum(-2)) - step * (pairs + pairs.mT)
    solution = factorise(normal)
    left = reward
    for _ in range(2):  # normal equations square the condition number; the second solve repairs it
        weighted = (w * left).sum(-2)
        right = weighted.sum(-1) - step[..., 0] * weighted.sum(-2)
        potential = solution(right.unsqueeze(-1)).squeeze(-1)
        left = left + shaping_term(potential, discount)
    return left
