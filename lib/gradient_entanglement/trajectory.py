"""Training many pairs at once with the tangent kernel held at its first value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_finite, read_nonnegative, read_size, require_shape
from lib.gradient_entanglement.objectives import margin_objective
from lib.shapes import Float, Real


@dataclass(frozen=True)
class Trajectory:
    """Log-probabilities before the first and after every step, and the weights of each step."""

    chosen: Float[Tensor, "times *batch B"]
    rejected: Float[Tensor, "times *batch B"]
    d_w: Float[Tensor, "steps *batch B"]
    d_l: Float[Tensor, "steps *batch B"]


def kernel_step(
    kernel: Real[Tensor, "*#batch N N"], d_w: Real[Tensor, "*#batch B"], d_l: Real[Tensor, "*#batch B"], lr: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Change of all log-probabilities in one full-batch step: $\frac\varepsilon B\Theta\,(d_w;-d_l)$."""
    push = torch.cat([d_w, -d_l], -1) / d_w.shape[-1]
    moved = (lr.unsqueeze(-1) * (kernel @ push.unsqueeze(-1)).squeeze(-1)).chunk(2, -1)
    return moved[0], moved[1]


def frozen_kernel_trajectory(
    kernel: Real[Tensor, "*#batch N N"] | ArrayLike,
    logp_w: Real[Tensor, "*#batch B"] | ArrayLike,
    logp_l: Real[Tensor, "*#batch B"] | ArrayLike,
    *,
    objective: str,
    lr: Real[Tensor, ""] | ArrayLike,
    steps: int,
    **objective_kwargs: Any,
) -> Trajectory:
    r"""Full-batch gradient descent on B pairs if the gradients of all responses stayed what they are.

    Each step moves the 2B log-probabilities by $\frac\varepsilon B\Theta\,(d_w;-d_l)$ with the weights of
    `margin_objective` at the current values. Exact if log-probabilities are linear in the parameters.

    Args:
        kernel: $\Theta$, inner products of gradients, of chosen and then rejected responses, shape (*batch, 2B, 2B).
        logp_w: log-probabilities of the chosen responses at the start, shape (*batch, B).
        logp_l: of the rejected ones, shape (*batch, B).
        objective: one of `OBJECTIVES`; the loss is the mean over pairs.
        lr: step size $\varepsilon\ge0$.
        steps: number of steps, at least 1.
        **objective_kwargs: what the objective needs, as `margin_objective` takes it.

    Returns:
        `chosen` and `rejected` of shape ``(steps + 1, *batch, B)``, `d_w` and `d_l` of shape
        ``(steps, *batch, B)``.

    Raises:
        ValueError: a kernel that is not square or not twice as large as the pairs, no step, a negative step size, a
            number that is not finite, and whatever `margin_objective` refuses.

    Source: own extension of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> setting = {"objective": "slic", "lam": 0.0, "lr": 0.1, "steps": 2}
    >>> path = frozen_kernel_trajectory([[1.0, 2.0], [2.0, 5.0]], [-3.0], [-3.0], **setting)
    >>> path.chosen.flatten()
    tensor([-3.0000, -3.1000, -3.2000], dtype=torch.float64)
    """
    theta = read_finite("kernel", kernel)
    u, v = read_finite("logp_w", logp_w, like=theta), read_finite("logp_l", logp_l, like=theta)
    require_shape("logp_w", u, u.ndim >= 1 and u.shape[-1] >= 1, "(*batch, B) with B >= 1")
    require_shape("logp_l", v, v.shape[-1:] == u.shape[-1:], f"(*batch, {u.shape[-1]})")
    size = 2 * u.shape[-1]
    require_shape("kernel", theta, tuple(theta.shape[-2:]) == (size, size), f"(*batch, {size}, {size})")
    count = read_size("steps", steps, 1)
    rate = read_nonnegative("lr", lr, theta)
    require_shape("lr", rate, rate.ndim == 0, "a single number")
    batch = broadcast_batch(kernel=theta.shape[:-2], logp_w=u.shape[:-1], logp_l=v.shape[:-1])
    u, v = (x.expand(*batch, x.shape[-1]) for x in (u, v))
    chosen, rejected, ups, downs = [u], [v], [], []
    for _ in range(count):
        now = margin_objective(objective, chosen[-1], rejected[-1], **objective_kwargs)
        up, down = kernel_step(theta, now.d_w, now.d_l, rate)
        chosen.append(chosen[-1] + up)
        rejected.append(rejected[-1] + down)
        ups.append(now.d_w)
        downs.append(now.d_l)
    return Trajectory(*(torch.stack(x) for x in (chosen, rejected, ups, downs)))
