"""The exact minimiser of the Mixup loss for Gaussian classes, in any dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, indicator, require, require_shape, shared_kind
from lib.shapes import Float, Real
from lib.temperature_scaling.mixup_intervals import CHUNK, read_mixing, smooth_nodes
from lib.temperature_scaling.setting import SUM_TOLERANCE


def mixup_minimizer_gaussian(
    x: Real[Tensor, "*batch d"] | ArrayLike,
    means: Real[Tensor, "k d"] | ArrayLike,
    sigma: Real[Tensor, ""] | ArrayLike,
    *,
    prior: Real[Tensor, " k"] | ArrayLike | None = None,
    alpha: float | int = 1.0,
    n_nodes: int = 64,
) -> Float[Tensor, "*batch k"]:
    r"""Class probabilities that minimise the Mixup loss of two points when classes are Gaussian.

    Given the classes i and j of both points and the weight t, the mixed point is Gaussian with mean $tm_i+(1-t)m_j$
    and variance $\sigma^2(t^2+(1-t)^2)$ in each direction; the minimiser is the posterior mean of the mixed label.

    Args:
        x: points, shape (*batch, d).
        means: class means, shape (k, d).
        sigma: standard deviation of a class in each direction, positive.
        prior: class probabilities, shape (k,); equal by default.
        alpha: parameter of the symmetric Beta law of t; 1 is uniform.
        n_nodes: quadrature nodes on each half of the range of t.

    Returns:
        Shape (*batch, k).

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, sigma or alpha not positive, a prior that is no
            distribution, fewer than 2 nodes.

    Source: own derivation; the loss is that of Zhang, Cisse, Dauphin and Lopez-Paz (ICLR 2018), arXiv 1710.09412.

    >>> mixup_minimizer_gaussian([[0.0], [1.0]], [[-1.0], [1.0]], 1.0).round(decimals=4)
    tensor([[0.5000, 0.5000],
            [0.1786, 0.8214]], dtype=torch.float64)
    """
    alpha, n_nodes = read_mixing(alpha, n_nodes)
    like = shared_kind(x, means, sigma)
    point, centre = as_float("x", x, like=like), as_float("means", means, like=like)
    require_shape("means", centre, centre.ndim == 2 and centre.shape[0] >= 2, "(k, d) with k >= 2")
    fits = point.ndim >= 1 and point.shape[-1] == centre.shape[1]
    require_shape("x", point, fits, f"(*batch, {centre.shape[1]}) as means has it")
    if isinstance(sigma, (int, float)) and not 0 < sigma < float("inf"):
        raise ValueError(f"sigma: got {sigma:.9g}, want a positive number")
    scale = as_float("sigma", sigma, like=like)
    require_shape("sigma", scale, scale.ndim == 0, "a single number")
    require("x", point.isfinite(), "finite numbers", point)
    require("means", centre.isfinite(), "finite numbers", centre)
    require("sigma", (scale > 0) & scale.isfinite(), "a positive number", scale)
    k = centre.shape[0]
    share = torch.full_like(centre[:, 0], 1 / k) if prior is None else as_float("prior", prior, like=like)
    require_shape("prior", share, tuple(share.shape) == (k,), f"({k},) as means has it")
    require("prior", share >= 0, "numbers >= 0", share)
    require("prior", (share.sum() - 1).abs() <= SUM_TOLERANCE, "numbers that sum to 1", share.sum())

    middle = centre.mean(0)
    point, centre = (point - middle) / scale, (centre - middle) / scale
    unit, step = (torch.from_numpy(part).to(like) for part in smooth_nodes(n_nodes))
    low = unit / 2
    t, rest = torch.cat((low, (1 - low).flip(0))), torch.cat((1 - low, low.flip(0)))  # (nodes,)
    weight = torch.cat((step, step.flip(0))) / 2 * (t * rest).pow(alpha - 1)
    spread = t**2 + rest**2
    product = centre @ centre.T
    size = product.diagonal()
    # squared length and inner product with a point of the mean t m_i + (1 - t) m_j, for all pairs (k, k, nodes)
    length = (
        t**2 * size[:, None, None] + rest**2 * size[None, :, None] + 2 * t * rest * product.unsqueeze(-1)
    ) / spread
    base = weight.log() + share.log()[:, None, None] + share.log()[None, :, None] - centre.shape[1] / 2 * spread.log()
    first, second = indicator(torch.arange(k, device=centre.device), k, centre), t
    flat = point.reshape(-1, centre.shape[1])
    rows = max(1, CHUNK // (k * k * t.shape[0]))
    found = []
    for part in flat.split(rows):
        inner = part @ centre.T  # (n, k)
        cross = (t * inner[:, :, None, None] + rest * inner[:, None, :, None]) / spread
        radius = ((part**2).sum(-1)[:, None, None, None] / spread) + length - 2 * cross
        log_joint = base - radius / 2  # (n, k, k, nodes)
        top = log_joint.amax((1, 2, 3), keepdim=True)
        mass = ((log_joint - top).exp() * second).sum((2, 3)) @ first
        found.append(mass / mass.sum(-1, keepdim=True))
    return torch.cat(found).reshape(*point.shape[:-1], k)
