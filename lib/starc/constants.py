"""By how much worst-case regret and the P-weighted minimal distance can differ in one decision process, certified."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from lib.checks import ArrayLike, require_shape, shared_kind
from lib.shapes import Real
from lib.starc.mdp import potential_to_reward
from lib.starc.setting import read_dynamics, read_gamma, read_initial


@dataclass(frozen=True)
class StarcConstants:
    r"""Constants with $L\,d\le G\le U\,d$, and the inradius and diameter bound of the occupancies they come from."""

    lower: float
    upper: float
    inradius: float
    diameter: float


def certified_constants(
    P: Real[Tensor, "S A S"] | ArrayLike,
    gamma: Real[Tensor, ""] | ArrayLike,
    initial: Real[Tensor, " S"] | ArrayLike | None = None,
) -> StarcConstants:
    r"""Constants $L,U$ with $L\,d\le G\le U\,d$ for all pairs of rewards of one decision process.

    G is the normalised worst-case regret, d the distance with method "minimal", both norms 2 and `weights=P`. The set
    $\Omega$ of occupancies lies in an affine space of direction $\mathcal X=\ker E^\top$. If it holds a ball of radius
    $r_\Omega$ there and has diameter at most $D_\Omega$, then $2r_\Omega\|x\|\le\|x\|_J\le D_\Omega\|x\|$ for all x in
    $\mathcal X$, which gives $U=D_\Omega/(2r_\Omega)$ and $L=r_\Omega/D_\Omega$. Here $D_\Omega=\sqrt2/(1-\gamma)$, and
    $r_\Omega$ is a linear program: the largest r with $E^\top\mu=\mu_0$ and $\mu(s,a)\ge r\|\Pi_{\mathcal X}e_{sa}\|$.

    Args:
        P: transition probabilities, shape (S, A, S), on the CPU; at least 2 actions.
        gamma: discount in [0, 1).
        initial: $\mu_0$, shape (S,); uniform by default.

    Returns:
        Four numbers. A state that cannot be reached makes the inradius 0, `lower` 0 and `upper` infinite.

    Raises:
        ValueError: a shape that does not fit, rows that are no distributions, a discount outside [0, 1), one action
            only, where every reward is trivial.
        RuntimeError: the linear program was not solved.

    Source: own extension of Skalse, Farnik, Motwani, Jenner, Gleave and Abate (ICLR 2024), arXiv 2309.15257, who prove
    that such constants exist.

    >>> bandit = [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]
    >>> found = certified_constants(bandit, 0.0)
    >>> round(found.inradius, 6), round(found.upper, 6), round(found.lower, 6)  # r is 1/4 over the square root of 1/2
    (0.353553, 2.0, 0.25)
    """
    like = shared_kind(P, gamma, initial)
    dynamics, discount = read_dynamics(P, like), read_gamma(gamma, like)
    require_shape("P", dynamics, dynamics.ndim == 3 and dynamics.shape[1] >= 2, "(S, A, S) with A >= 2")
    require_shape("gamma", discount, discount.ndim == 0, "one number")
    start = read_initial(initial, dynamics)
    require_shape("initial", start, start.ndim == 1, f"({dynamics.shape[0]},)")

    design = potential_to_reward(dynamics, discount).flatten(0, 1).double().detach().cpu()
    basis = torch.linalg.qr(design).Q
    freedom = (1 - basis.square().sum(1)).clamp_min(0).sqrt().numpy()  # the norms of the P_X e_sa
    flow = design.numpy().T
    pairs = flow.shape[1]
    at_least = np.hstack([-np.eye(pairs), freedom[:, None]])
    solved = optimize.linprog(
        np.r_[np.zeros(pairs), -1.0],
        A_ub=_exact_zeros(at_least),
        b_ub=np.zeros(pairs),
        A_eq=_exact_zeros(np.hstack([flow, np.zeros((len(flow), 1))])),
        b_eq=start.double().detach().cpu().numpy(),
        method="highs",
    )
    if solved.status != 0:
        raise RuntimeError(f"certified_constants: the linear program was not solved: {solved.message}")
    inradius, diameter = max(float(solved.x[-1]), 0.0) + 0.0, math.sqrt(2) / (1 - float(discount.detach()))
    upper = diameter / (2 * inradius) if inradius > 0 else math.inf
    return StarcConstants(lower=inradius / diameter, upper=upper, inradius=inradius, diameter=diameter)


def _exact_zeros(matrix: np.ndarray) -> np.ndarray:
    return np.where(np.abs(matrix) < 1e-9, 0.0, matrix)  # below that the solver loses digits
