"""The best ridge: global, and exactly zero where fitting the training data is best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch
from lib.rf_regression.compression import weighted_modes
from lib.rf_regression.modes import Modes, learned_share
from lib.rf_regression.risk import errors, feature_sufficiency, power_sums
from lib.rf_regression.setting import Sizes, read_eigenvalues, read_noise, read_power, read_sizes
from lib.rf_regression.slack import slacks
from lib.rf_regression.solution import solution
from lib.shapes import Float, Real

GRID = 192  # points in log gamma at which the risk and its slope are looked at
BISECTIONS = 56  # from the distance of two grid points to rounding error
BELOW = 40.0  # where rank <= min(n, k): how far below the smallest eigenvalue the grid starts, in log gamma


@dataclass(frozen=True)
class OptimalRidge:
    r"""The ridge with the least test error, the errors and the effective ridge $\Gamma$ there."""

    ridge: Float[Tensor, "*batch"]
    test: Float[Tensor, "*batch"]
    train: Float[Tensor, "*batch"]
    gamma: Float[Tensor, "*batch"]


def optimal_ridge(
    eigenvalues: Real[Tensor, "*#batch M"] | ArrayLike,
    target_power: Real[Tensor, "*#batch M"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    k: Real[Tensor, "*#batch"] | ArrayLike,
    noise_variance: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> OptimalRidge:
    r"""Global minimum over the ridge of the test error that `rf_risk` gives.

    $$ \delta^*=\arg\min_{\delta\ge0}E_{\rm test}(n,k,\delta). $$
    The risk is explicit in $\Gamma$ but need not have a single minimum: risk and slope are evaluated on a grid in
    $\log\Gamma$ from its ridgeless value up, and the sign change of the slope next to the best point is bisected. No
    gradient flows through the result.

    Args:
        eigenvalues: $\lambda_i$ in any order, shape (*batch, M).
        target_power: $v_i^2$, shape (*batch, M).
        n: training samples, `math.inf` allowed; n, k and noise broadcast to (*batch,).
        k: random features, `math.inf` allowed, but not together with n.
        noise_variance: $\sigma^2$ of the labels; the test error includes it.

    Returns:
        All of shape (*batch,). `ridge` is exactly 0.0 where zero is best, and infinite where the target has no power
        on any mode with a positive eigenvalue, so that only noise could be fitted.

    Raises:
        ValueError: as `rf_risk`.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646; the search is our own.

    >>> best = optimal_ridge([1.0] * 4, [0.25] * 4, n=8, k=float("inf"), noise_variance=[0.0, 0.5])
    >>> best.ridge.round(decimals=6)  # isotropic: noise times M over signal
    tensor([0., 2.], dtype=torch.float64)
    """
    spectrum = read_eigenvalues(eigenvalues)
    power = read_power(target_power, spectrum)
    sizes, noise = read_sizes(n, k, like=spectrum), read_noise(noise_variance, like=spectrum)
    batch = broadcast_batch(
        eigenvalues=spectrum.shape[:-1], target_power=power.shape[:-1], n=sizes.n.shape, noise_variance=noise.shape
    )
    with torch.no_grad():
        best = _minimum(weighted_modes(spectrum, power), sizes, noise, batch)
    return OptimalRidge(*(x.expand(batch) for x in best))


def _minimum(modes: Modes, sizes: Sizes, noise: Tensor, batch: torch.Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ridge, test error, train error and gamma at the minimum."""
    zero = torch.zeros(batch, dtype=noise.dtype, device=noise.device)
    start = solution(modes, sizes, zero)
    sufficiency, missing = feature_sufficiency(start)
    unlearned, boundary = power_sums(modes, start.gamma)
    test, train = errors(start, sizes, sufficiency, unlearned + missing * boundary + noise)
    everything, learnable, highest = _far_end(modes, sizes, noise, batch)

    pieces = modes.slices(batch)
    lowest = torch.where(start.gamma > 0, start.gamma, torch.ones_like(zero)).log()
    lowest = torch.where(start.gamma > 0, lowest, _smallest(pieces) - BELOW)
    spacing = (torch.maximum(highest, lowest + 1) - lowest) / (GRID - 1)

    def at(u: Tensor) -> _Point:
        return _risk_at(pieces, sizes, noise, u, (start.gamma > 0) & (u == lowest))

    first = at(lowest)
    value, slope, index = first.test, first.slope, torch.zeros_like(zero)
    for i in range(1, GRID):
        point = at(lowest + i * spacing)
        better = point.test < value
        value, slope = torch.where(better, point.test, value), torch.where(better, point.slope, slope)
        index = torch.where(better, torch.full_like(index, i), index)
    falling = slope < 0
    low = lowest + spacing * torch.where(falling, index, (index - 1).clamp_min(0))
    high = lowest + spacing * torch.where(falling, index + 1, index)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        falling_still = at(middle).slope < 0
        low, high = torch.where(falling_still, middle, low), torch.where(falling_still, high, middle)
    inner_u = (low + high) / 2
    inner = at(inner_u)

    at_zero = ((index == 0) & ~falling & test.isfinite()) | (test <= inner.test) | sizes.n.isinf()
    never = (learnable == 0) & (everything < test)
    infinity = torch.full_like(zero, torch.inf)

    def choose(at_infinity: Tensor, without_ridge: Tensor, inside: Tensor) -> Tensor:
        return torch.where(never, at_infinity, torch.where(at_zero, without_ridge, inside))

    return (
        choose(infinity, zero, inner.ridge),
        choose(everything, test, inner.test),
        choose(everything, train, inner.train),
        choose(infinity, start.gamma, inner_u.exp()),
    )


def _smallest(pieces: list[Modes]) -> Tensor:
    """Logarithm of the smallest positive eigenvalue."""
    endless = torch.full_like(pieces[0].rank, torch.inf)
    for piece in pieces:
        level = piece.log_eigenvalues
        present = level.isfinite() & (piece.weight != 0)
        endless = torch.minimum(endless, torch.where(present, level, torch.full_like(level, torch.inf)).amin(-1))
    return endless


def _far_end(modes: Modes, sizes: Sizes, noise: Tensor, batch: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    r"""Error at infinite ridge, target power within reach, and a $\log\Gamma$ beyond which the error rises.

    For large gamma $E=E_\infty-\frac{2}{\Gamma}\sum\lambda v^2+O(\Gamma^{-2})$; the scale is where both balance.
    """
    top = modes.log_eigenvalues.amax(-1, keepdim=True)
    value = (modes.log_eigenvalues - top).exp()  # in units of the largest eigenvalue
    power, weight = modes.power, modes.weight
    everything = (power.sum(-1) + modes.unseen_power + noise).expand(batch)
    learnable = (value * power).sum(-1)
    trace, square = (weight * value).sum(-1), (weight * value * value).sum(-1)
    second = everything * (square + trace * trace * sizes.inverse_k) / sizes.n
    second = second + 3 * (value * value * power).sum(-1) + trace * learnable * sizes.inverse_k
    balance = second / torch.where(learnable > 0, learnable, torch.ones_like(learnable))
    scale = torch.maximum(balance.expand(batch), 2 * trace / sizes.smaller)
    return everything, learnable.expand(batch), top.squeeze(-1) + (100 * scale).log()


@dataclass(frozen=True)
class _Point:
    """Ridge and errors at one gamma, and a number with the sign of the test error's slope."""

    ridge: Tensor
    test: Tensor
    train: Tensor
    slope: Tensor


def _risk_at(pieces: list[Modes], sizes: Sizes, noise: Tensor, u: Tensor, ridgeless: Tensor) -> _Point:
    r"""Risk and the sign of its derivative at $u=\log\Gamma$, where $z'=-\eta$, $b_k'=b_n'=\eta$, $L'=-L(1-L)$."""
    m = sizes.smaller.expand(u.shape)
    gamma = u.exp()
    balance, mass, mass_slope, unlearned, unlearned_slope, boundary, boundary_slope = (
        torch.zeros_like(u) for _ in range(7)
    )
    for piece in pieces:
        share, rest = learned_share(piece.eigenvalues, gamma.unsqueeze(-1))
        head = piece.weight * piece.head_fraction(m)
        product = share * rest
        product_slope = product * (share - rest)
        balance = balance + (head * rest - (piece.weight - head) * share).sum(-1)
        mass, mass_slope = mass + (piece.weight * product).sum(-1), mass_slope + (piece.weight * product_slope).sum(-1)
        unlearned = unlearned + (piece.power * rest * rest).sum(-1)
        unlearned_slope = unlearned_slope + 2 * (piece.power * product * rest).sum(-1)
        boundary = boundary + (piece.power * product).sum(-1)
        boundary_slope = boundary_slope + (piece.power * product_slope).sum(-1)
    unlearned = unlearned + pieces[0].unseen_power

    smaller = (balance + (m - pieces[0].rank).clamp_min(0)).clamp_min(0)
    smaller = torch.where(ridgeless, torch.zeros_like(u), smaller)
    slack = slacks(smaller, sizes)
    endless = slack.features.isinf()
    features = torch.where(endless, torch.ones_like(u), slack.features)
    total = features + mass
    enough = torch.where(endless, torch.ones_like(u), features / total)
    missing = torch.where(endless, torch.zeros_like(u), mass / total)
    enough_slope = (mass * mass - features * mass_slope) / (total * total)
    enough_slope = torch.where(endless, torch.zeros_like(u), enough_slope)

    remaining = unlearned + missing * boundary + noise
    remaining_slope = unlearned_slope + missing * boundary_slope - enough_slope * boundary
    variance = slack.samples_share + enough * mass / sizes.n
    variance_slope = (mass + enough_slope * mass + enough * mass_slope) / sizes.n
    test = remaining / variance
    return _Point(
        ridge=gamma * smaller * (smaller * sizes.inverse_k + sizes.width_ratio_gap),
        test=test,
        train=slack.samples_share.square() * test,
        slope=remaining_slope * variance - remaining * variance_slope,
    )
