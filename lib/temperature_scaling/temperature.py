"""The temperature that fits held-out labels best, found to rounding and with the gradient that it leaves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike
from lib.shapes import Float, Int, Real
from lib.temperature_scaling.scores import ROWS
from lib.temperature_scaling.setting import read_classes, read_logits


@dataclass(frozen=True)
class TemperatureFit:
    """Best `temperature`, its `nll` (nats), and the `gradient` of the NLL in 1/T that is left there."""

    temperature: Float[Tensor, "*batch"]
    nll: Float[Tensor, "*batch"]
    gradient: Float[Tensor, "*batch"]


def fit_temperature(
    logits: Real[Tensor, "*batch n k"] | ArrayLike,
    labels: Int[Tensor, "*batch n"] | ArrayLike,
    *,
    bounds: tuple[float, float] = (1e-3, 1e3),
    steps: int = 40,
) -> TemperatureFit:
    r"""Temperature with the lowest mean negative log-likelihood of labels under the softmax of $o/T$.

    The mean is convex in the inverse temperature $\beta_T=1/T$, with the derivative

    $$ \frac{\partial\,\mathrm{NLL}}{\partial\beta_T}
    =\frac1n\sum_i\Big(\sum_y\hat p_y(x_i)\,o_y(x_i)-o_{y_i}(x_i)\Big). $$

    Newton's method finds its root, kept inside a bracket by bisection in $\log\beta_T$.

    Args:
        logits: $o$, shape (*batch, n, k).
        labels: true classes, shape (*batch, n).
        bounds: smallest and largest temperature that are considered.
        steps: at most this many steps; on the CPU it stops when nothing improves.

    Returns:
        Each (*batch,). Where every label has the largest logit the best temperature would be 0, and the lower bound is
        returned with a `gradient` <= 0 (zero if it underflows); where the logits are worse than none it is the upper
        bound with a `gradient` > 0. Elsewhere the gradient is zero to rounding. Where all logits of a row are equal
        any temperature is best, and 1 (or the bound next to it) is returned.

    Raises:
        ValueError: logits that are not finite or of another shape, labels outside the classes, bounds that are not
            positive and rising, fewer than 1 step.

    Source: the method is that of Guo, Pleiss, Sun and Weinberger (ICML 2017), arXiv 1706.04599; own algorithm.

    >>> fit = fit_temperature([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], [0, 0, 1, 1])
    >>> fit.temperature.round(decimals=6)  # right in three of four cases: 2 / log 3
    tensor(1.8205, dtype=torch.float64)
    """
    z = read_logits(logits)
    y = read_classes("labels", labels, z.shape[-1], z.shape[:-1], z)
    coldest, hottest = bounds
    if not 0 < coldest < hottest < float("inf"):
        raise ValueError(f"bounds: got {bounds}, want 0 < lowest < highest temperature")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: got {steps!r}, want a whole number >= 1")
    full = torch.zeros(z.shape[:-2], dtype=torch.float64, device=z.device)
    low, high = torch.full_like(full, 1 / hottest), torch.full_like(full, 1 / coldest)
    at_low, at_high = _moments(z, y, low)[1], _moments(z, y, high)[1]
    pinned = (at_low >= 0) | (at_high <= 0)
    flat = (at_low == 0) & (at_high == 0)
    beta = torch.where(at_high <= 0, high, torch.where(at_low >= 0, low, (low * high).sqrt().clamp(low, high)))
    start = torch.ones_like(beta).clamp(low, high)
    beta = torch.where(pinned & ~flat, beta, start)
    last = torch.full_like(beta, torch.inf)
    for _ in range(steps):
        _, slope, curvature = _moments(z, y, beta)
        low, high = torch.where(slope < 0, beta, low), torch.where(slope > 0, beta, high)
        newton = beta - slope / curvature
        fast = (newton > low) & (newton < high) & (slope.abs() < 0.5 * last)
        new = torch.where(fast, newton, (low * high).sqrt())
        last = slope.abs()
        new = torch.where(pinned | (slope == 0), beta, new)
        settled = (new - beta).abs() <= 1e-14 * beta
        beta = new
        if settled.device.type == "cpu" and bool(settled.all()):
            break
    nll, slope, _ = _moments(z, y, beta)
    return TemperatureFit(*(part.to(z.dtype) for part in (1 / beta, nll, slope)))


def _moments(logits: Tensor, labels: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean NLL, its first and its second derivative in the inverse temperature, in float64."""
    totals = torch.zeros(3, *beta.shape, dtype=torch.float64, device=beta.device)
    scale = beta.to(logits.dtype).reshape(*beta.shape, 1, 1)
    for part, truth in zip(logits.split(ROWS, -2), labels.split(ROWS, -1), strict=True):
        d = part - part.amax(-1, keepdim=True)  # <= 0, so that nothing overflows
        own = d.gather(-1, truth.unsqueeze(-1)).squeeze(-1)
        weight = (scale * d).exp()
        total = weight.sum(-1)
        mean = (weight * d).sum(-1) / total
        square = (weight * d * d).sum(-1) / total
        rows = (total.log() - scale.squeeze(-1) * own, mean - own, square - mean**2)
        totals = totals + torch.stack([row.double().sum(-1) for row in rows])
    nll, slope, curvature = (totals / logits.shape[-2]).unbind(0)
    return nll, slope, curvature
