"""The exact minimiser of the Mixup loss for classes on intervals of a line, by quadrature."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, read_single, read_size, require
from lib.shapes import Float, Real
from lib.temperature_scaling.intervals import IntervalMixture, class_columns

CHUNK = 1 << 21  # integrand values held at once


def read_mixing(alpha: object, n_nodes: object) -> tuple[float, int]:
    """The Beta parameter, a positive number, and how many nodes there are, at least 2."""
    parameter = read_single("alpha", alpha, "a positive number")
    if not 0 < parameter < float("inf"):
        raise ValueError(f"alpha: got {parameter:.9g}, want a positive number")
    return parameter, read_size("n_nodes", n_nodes, 2)


def smooth_nodes(n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1] after the substitution t = u^2 (3 - 2u), which calms both ends."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    u, w = (nodes + 1) / 2, weights / 2
    return u**2 * (3 - 2 * u), 6 * u * (1 - u) * w


def mixup_minimizer_intervals(
    mixture: IntervalMixture, z: Real[Tensor, "*batch"] | ArrayLike, *, alpha: float | int = 1.0, n_nodes: int = 64
) -> Float[Tensor, "*batch k"]:
    r"""Class probabilities that minimise the Mixup loss of two points, in the limit of infinite data.

    The mixed point is $Z=tX_1+(1-t)X_2$ with t from Beta(alpha, alpha), and the minimiser is the conditional mean of
    the mixed label,

    $$ \hat p_y(z)=\mathbb E[t\,\mathbb 1\{Y_1=y\}+(1-t)\,\mathbb 1\{Y_2=y\}\mid Z=z]. $$

    For pieces $[a,b]$ and $[c,d]$ the density of Z at z given t is the length of $[ta,tb]\cap[z-(1-t)d,z-(1-t)c]$
    divided by $t(1-t)(b-a)(d-c)$. It is integrated over t panel by panel between its kinks.

    Args:
        mixture: from `overlap_intervals`.
        z: points, any shape (*batch,).
        alpha: parameter of the symmetric Beta law; 1 is uniform. The quadrature is accurate from 0.5 on.
        n_nodes: quadrature nodes of a panel.

    Returns:
        Shape (*batch, k); NaN outside the hull of the pieces, where no mixture falls.

    Raises:
        ValueError: alpha is not positive, fewer than 2 nodes, z is not made of numbers, or one is NaN.

    Source: own derivation; the loss is that of Zhang, Cisse, Dauphin and Lopez-Paz (ICLR 2018), arXiv 1710.09412.

    >>> from lib.temperature_scaling import overlap_intervals
    >>> mixup_minimizer_intervals(overlap_intervals(0.4, 2), [0.1, 0.7]).round(decimals=4)
    tensor([[0.9868, 0.0132],
            [0.5652, 0.4348]], dtype=torch.float64)
    """
    alpha, n_nodes = read_mixing(alpha, n_nodes)
    point = as_float("z", z, like=mixture.lower if not isinstance(z, Tensor) else None)
    require("z", ~point.isnan(), "numbers", point)
    lower, upper, weight = (part.to(point) for part in (mixture.lower, mixture.upper, mixture.weight))
    columns = class_columns(mixture, point)
    unit, step = (torch.from_numpy(part).to(point) for part in smooth_nodes(n_nodes))
    left, right = lower.amin(), upper.amax()
    inset = torch.finfo(point.dtype).eps ** 0.5 * (right - left)  # at the very ends the density is zero
    flat = point.reshape(-1)
    inside = flat.clamp(left, right).clamp(left + inset, right - inset)
    rows = max(1, CHUNK // (5 * n_nodes * lower.shape[0] ** 2))
    pieces = [_first_mass(part, lower, upper, weight, unit, step, alpha) for part in inside.split(rows)]
    mass = torch.cat(pieces) @ columns
    probs = mass / mass.sum(-1, keepdim=True)
    outside = ((flat < left) | (flat > right)).unsqueeze(-1)
    return torch.where(outside, torch.nan, probs).reshape(*point.shape, mixture.n_classes)


def _first_mass(
    z: Tensor, lower: Tensor, upper: Tensor, weight: Tensor, unit: Tensor, step: Tensor, alpha: float | int
) -> Tensor:
    """Integral over t of t times the joint density of Z = z and `first point in piece i`, shape (n, pieces)."""
    ends = torch.stack((lower, upper))  # (2, p)
    gap = (
        ends[:, None, :, None] - ends[None, :, None, :]
    )  # end of the first piece minus end of the second, (2, 2, p, p)
    drop = z[:, None, None, None, None] - ends[None, None, :, None, :]
    kinks = (drop / torch.where(gap == 0, torch.inf, gap)).clamp(0, 1)
    kinks = kinks.flatten(1, 2)  # (n, 4, p, p)
    edges = torch.cat((torch.zeros_like(kinks[:, :1]), kinks.sort(1).values, torch.ones_like(kinks[:, :1])), 1)
    start, width = edges[:, :-1].unsqueeze(-1), edges.diff(dim=1).unsqueeze(-1)  # five panels
    t = start + width * unit
    rest = (start + width - 1).neg() + width * unit.flip(0)  # 1 - t without cancellation: the nodes are symmetric
    a, b, c, d = (x.unsqueeze(-1) for x in (lower[:, None], upper[:, None], lower[None], upper[None]))
    here = z[:, None, None, None, None]
    shared = (torch.minimum(t * b, here - rest * c) - torch.maximum(t * a, here - rest * d)).clamp_min(0)
    density = (
        shared
        / rest.clamp_min(torch.finfo(t.dtype).tiny)
        * (t * rest).clamp_min(torch.finfo(t.dtype).tiny).pow(alpha - 1)
    )
    integral = (density * width * step).sum((1, -1))  # (n, p, p), without the constants that cancel
    scaled = weight / (upper - lower)
    return scaled * (integral * scaled).sum(-1)
