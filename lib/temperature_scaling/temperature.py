"""The temperature that fits held-out labels best, found to rounding and with the gradient that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, is_known, read_single, read_size
from lib.shapes import Float, Int, Real
from lib.temperature_scaling.rows import LOG2E, blocks
from lib.temperature_scaling.setting import read_labelled

SUBSET = 1 << 14  # rows of the first fit, where there are at least twice as many
COARSE = 2  # steps on all rows in the precision of the input


@dataclass(frozen=True)
class TemperatureFit:
    """Best `temperature`, its `nll` (nats), and the `gradient` of the NLL in 1/T that is left there."""

    temperature: Float[Tensor, "*batch"]
    nll: Float[Tensor, "*batch"]
    gradient: Float[Tensor, "*batch"]


def fit_temperature(
    logits: Real[Tensor, "*#batch n k"] | ArrayLike,
    labels: Int[Tensor, "*#batch n"] | ArrayLike,
    *,
    bounds: tuple[float | int, float | int] = (1e-3, 1e3),
    steps: int = 40,
) -> TemperatureFit:
    r"""Temperature with the lowest mean negative log-likelihood of labels under the softmax of $o/T$.

    The mean is convex in the inverse temperature $\beta_T=1/T$, with the derivative

    $$ \frac{\partial\,\mathrm{NLL}}{\partial\beta_T}
    =\frac1n\sum_i\Big(\sum_y\hat p_y(x_i)\,o_y(x_i)-o_{y_i}(x_i)\Big). $$

    Newton's method finds its root, kept inside a bracket by bisection in $\log\beta_T$. Where there are many rows
    it starts from the fit of some of them, evenly spaced.

    Args:
        logits: $o$, shape (*batch, n, k).
        labels: true classes, shape (*batch, n).
        bounds: smallest and largest temperature that are considered.
        steps: at most this many steps; on the CPU it stops when nothing improves.

    Returns:
        Each (*batch,). Where every label has the largest logit the best temperature would be 0, and the lower bound is
        returned with a `gradient` <= 0 (zero if it underflows); where the logits are worse than none it is the upper
        bound with a `gradient` > 0. Elsewhere the gradient is zero to rounding. Where all logits of every row are
        equal any temperature is best, and the lower bound is returned. No gradient flows through the result.

    Raises:
        ValueError: logits that are not finite or of another shape, labels outside the classes, bounds that are not
            positive and rising, fewer than 1 step.

    Source: the method is that of Guo, Pleiss, Sun and Weinberger (ICML 2017), arXiv 1706.04599; own algorithm.

    >>> fit = fit_temperature([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], [0, 0, 1, 1])
    >>> fit.temperature.round(decimals=6)  # right in three of four cases: 2 / log 3
    tensor(1.8205, dtype=torch.float64)
    """
    z, y = read_labelled(logits, labels)
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise ValueError(f"bounds: got {bounds!r}, want two temperatures")
    coldest, hottest = (read_single("bounds", bound, "two temperatures") for bound in bounds)
    if not 0 < coldest < hottest < float("inf"):
        raise ValueError(f"bounds: got {bounds}, want 0 < lowest < highest temperature")
    read_size("steps", steps, 1)
    with torch.no_grad():
        ends = (1 / hottest, 1 / coldest)
        start = torch.full(z.shape[:-2], ends[1], dtype=torch.float64, device=z.device)
        stride = z.shape[-2] // SUBSET
        if stride > 1:  # most of the way on few rows, and then in the precision of the input
            few = (z[..., ::stride, :], y[..., ::stride])
            start = _search(*few, start, ends, steps, torch.float64).following
            start = _search(z, y, start, ends, COARSE, z.dtype).following
        found = _search(z, y, start, ends, steps, torch.float64)
    return TemperatureFit(*(part.to(z.dtype) for part in (1 / found.beta, found.nll, found.slope)))


@dataclass(frozen=True)
class _Point:
    """The last inverse temperature looked at, the NLL and its slope there, and the one to look at next."""

    beta: Tensor
    nll: Tensor
    slope: Tensor
    following: Tensor


def _search(
    logits: Tensor, labels: Tensor, start: Tensor, ends: tuple[float, float], steps: int, dtype: torch.dtype
) -> _Point:
    """Newton's method from `start`, inside a bracket whose ends are looked at only where it leads out of it."""
    beta, low, high = start, torch.full_like(start, ends[0]), torch.full_like(start, ends[1])
    last = torch.full_like(start, torch.inf)
    settled = low_seen = high_seen = torch.zeros_like(start, dtype=torch.bool)
    for _ in range(steps):
        nll, slope, curvature, noise = _moments(logits, labels, beta, dtype)
        falls, rises = (slope < 0) | ((slope == 0) & (curvature == 0)), slope > 0
        low, high = torch.where(falls, beta, low), torch.where(rises, beta, high)
        low_seen, high_seen = low_seen | (beta <= ends[0]), high_seen | (beta >= ends[1])
        newton, middle = beta - slope / curvature, (low.sqrt() * high.sqrt()).clamp(low, high)
        step = torch.where(slope.abs() > last / 2, middle, newton)
        step = torch.where(falls & ~(newton < high), torch.where(high_seen, middle, ends[1]), step)
        step = torch.where(rises & ~(newton > low), torch.where(low_seen, middle, ends[0]), step)
        settled = settled | ((step - beta).abs() <= 1e-14 * beta) | ((slope.abs() <= noise) & (curvature > 0))
        last, visited = slope.abs(), beta
        beta = torch.where(settled, beta, step)
        if is_known(settled):
            break
    return _Point(visited, nll, slope, beta)


def _moments(logits: Tensor, labels: Tensor, beta: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean NLL, its first and its second derivative in the inverse temperature, and the rounding error of the first."""
    totals = torch.zeros(4, *beta.shape, dtype=torch.float64, device=beta.device)
    scale = beta.to(dtype).reshape(*beta.shape, 1, 1)
    for part, truth in blocks(logits, labels.unsqueeze(-1), dtype, copies=2):
        d = part.to(dtype)
        d = d - d.amax(-1, keepdim=True)  # <= 0, so that nothing overflows
        own = d.gather(-1, truth).squeeze(-1)
        weight = (d * (scale * LOG2E)).exp2_()
        total = weight.sum(-1)
        weight *= d
        mean = weight.sum(-1) / total
        weight *= d
        square = weight.sum(-1) / total
        rows = (total.log() - scale.squeeze(-1) * own, mean - own, (square - mean**2).clamp_min(0), -mean - own)
        totals = totals + torch.stack([row.double().sum(-1) for row in rows])
    nll, slope, curvature, size = (totals / logits.shape[-2]).unbind(0)
    return nll, slope, curvature, torch.finfo(torch.float64).eps * size
