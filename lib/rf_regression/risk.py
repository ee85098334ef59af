"""Test and train error of random-feature ridge regression, by the omniscient formula."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_nonnegative
from lib.rf_regression.compression import weighted_modes
from lib.rf_regression.modes import Modes, learned_share
from lib.rf_regression.setting import Sizes, read_eigenvalues, read_noise, read_power, read_ridge, read_sizes
from lib.rf_regression.solution import Solution, solution, solution_at
from lib.shapes import Float, Real


@dataclass(frozen=True)
class RiskEstimate:
    r"""Errors per sample, effective ridges, the ratio train/test and $\varphi$ in [0, 1] (1 is kernel regression)."""

    test: Float[Tensor, "*batch"]
    train: Float[Tensor, "*batch"]
    gamma: Float[Tensor, "*batch"]
    kappa: Float[Tensor, "*batch"]
    fitting_ratio: Float[Tensor, "*batch"]
    feature_sufficiency: Float[Tensor, "*batch"]


@dataclass(frozen=True)
class RiskCurve:
    """The ridge that belongs to each gamma, and the errors there."""

    ridge: Float[Tensor, "*batch"]
    test: Float[Tensor, "*batch"]
    train: Float[Tensor, "*batch"]


def rf_risk(
    eigenvalues: Real[Tensor, "*#batch M"] | ArrayLike,
    target_power: Real[Tensor, "*#batch M"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    k: Real[Tensor, "*#batch"] | ArrayLike,
    ridge: Real[Tensor, "*#batch"] | ArrayLike,
    noise_variance: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> RiskEstimate:
    r"""Expected errors of ridge regression on k random features and n samples.

    With $L_i=\lambda_i/(\lambda_i+\Gamma)$, $z=\sum L_i$, $\eta=\sum L_i(1-L_i)$, slacks $b_k=k-z$ and $b_n=n-z$,
    and the feature sufficiency $\varphi=b_k/(b_k+\eta)$,
    $$ E_{\rm test}=\frac{n}{b_n+\varphi\eta}\Big[\sum_i(1-L_i)(1-\varphi L_i)v_i^2+\sigma^2\Big],\qquad
    E_{\rm train}=(b_n/n)^2E_{\rm test}, $$
    every term of which is positive. At $\delta=0$ with n = k below the rank the test error is infinite; power on modes
    with eigenvalue 0 acts as noise. Differentiable once in every argument; at $\delta=0$ derivatives are one-sided.

    Args:
        eigenvalues: $\lambda_i$ in any order, shape (*batch, M).
        target_power: $v_i^2$, shape (*batch, M).
        n: training samples, `math.inf` allowed; n, k, ridge and noise broadcast to (*batch,).
        k: random features, `math.inf` allowed (kernel ridge regression), but not together with n.
        ridge: $\delta$, added to the unnormalised Gram matrix.
        noise_variance: $\sigma^2$ of the labels; the test error includes it.

    Returns:
        All of shape (*batch,). Where gamma is 0 and k equals the rank, the feature sufficiency is its limit 1/2.

    Raises:
        ValueError: a negative or NaN ridge, eigenvalue, power or noise, all eigenvalues zero, n or k not positive,
            both infinite, different M, shapes that do not broadcast.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646; this form of it is an own extension.

    >>> risk = rf_risk([1.0] * 4, [0.25] * 4, n=8, k=float("inf"), ridge=0.0, noise_variance=0.5)
    >>> risk.test.round(decimals=4)  # least squares: noise times n / (n - M)
    tensor(1., dtype=torch.float64)
    """
    spectrum = read_eigenvalues(eigenvalues)
    power = read_power(target_power, spectrum)
    return _risk(spectrum, power, n, k, ridge, noise_variance, tail=None)


def krr_risk(
    eigenvalues: Real[Tensor, "*#batch M"] | ArrayLike,
    target_power: Real[Tensor, "*#batch M"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    ridge: Real[Tensor, "*#batch"] | ArrayLike,
    noise_variance: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> RiskEstimate:
    r"""Expected errors of kernel ridge regression, the limit of infinitely many features.

    $$ E_{\rm test}=\frac{n}{n-\sum L_i^2}\Big[\sum_i(1-L_i)^2v_i^2+\sigma^2\Big],\qquad
    E_{\rm train}=\Big(\frac{\delta}{n\kappa}\Big)^2E_{\rm test}. $$

    Args:
        eigenvalues: $\lambda_i$ in any order, shape (*batch, M).
        target_power: $v_i^2$, shape (*batch, M).
        n: training samples, finite; n, ridge and noise broadcast to (*batch,).
        ridge: $\delta$, added to the unnormalised Gram matrix.
        noise_variance: $\sigma^2$ of the labels; the test error includes it.

    Returns:
        All of shape (*batch,), with `feature_sufficiency` 1 and kappa equal to gamma.

    Raises:
        ValueError: as `rf_risk`; an infinite n.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> krr_risk([1.0, 0.5], [1.0, 1.0], n=1, ridge=0.5).fitting_ratio.round(decimals=4)
    tensor(0.1161, dtype=torch.float64)
    """
    return rf_risk(eigenvalues, target_power, n, math.inf, ridge, noise_variance)


def rf_risk_with_tail(
    eigenvalues: Real[Tensor, "*#batch M"] | ArrayLike,
    target_power: Real[Tensor, "*#batch M"] | ArrayLike,
    tail_trace: Real[Tensor, "*#batch"] | ArrayLike,
    tail_power: Real[Tensor, "*#batch"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    k: Real[Tensor, "*#batch"] | ArrayLike,
    ridge: Real[Tensor, "*#batch"] | ArrayLike,
    noise_variance: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> RiskEstimate:
    r"""Expected errors when the spectrum goes on below the listed eigenvalues.

    Modes far below $\Gamma$ have $L_i\approx\lambda_i/\Gamma$: together they add $T_{>M}/\Gamma$ to $z$ and to $\eta$,
    nothing to $q$, and their power to the noise. With infinitely many features that is an extra ridge $T_{>M}$; with
    finitely many it is not, because the tail uses up features too.

    Args:
        eigenvalues: the listed $\lambda_i$ in any order, shape (*batch, M).
        target_power: $v_i^2$ on the listed modes, shape (*batch, M).
        tail_trace: $T_{>M}$, sum of the eigenvalues that are not listed, shape broadcastable to (*batch,).
        tail_power: sum of the target power on them, shape broadcastable to (*batch,).
        n: training samples, `math.inf` allowed; n, k, ridge and noise broadcast to (*batch,).
        k: random features, `math.inf` allowed, but not together with n.
        ridge: $\delta$, added to the unnormalised Gram matrix.
        noise_variance: $\sigma^2$ of the labels; the test error includes it.

    Returns:
        All of shape (*batch,).

    Raises:
        ValueError: as `rf_risk`; a tail sum that is negative or not finite.

    Source: own extension of Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> with_tail = rf_risk_with_tail([1.0, 0.5], [1.0, 1.0], 0.5, 0.0, n=1, k=float("inf"), ridge=0.0)
    >>> bool(torch.isclose(with_tail.test, krr_risk([1.0, 0.5], [1.0, 1.0], n=1, ridge=0.5).test))
    True
    """
    spectrum = read_eigenvalues(eigenvalues)
    power = read_power(target_power, spectrum)
    trace, rest = (
        as_float(name, value, like=spectrum) for name, value in (("tail_trace", tail_trace), ("tail_power", tail_power))
    )
    require_nonnegative("tail_trace", trace)
    require_nonnegative("tail_power", rest)
    return _risk(spectrum, power, n, k, ridge, noise_variance, tail=(trace, rest))


def _risk(
    spectrum: Tensor,
    power: Tensor,
    n: Tensor | ArrayLike,
    k: Tensor | ArrayLike,
    ridge: Tensor | ArrayLike,
    noise_variance: Tensor | ArrayLike,
    tail: tuple[Tensor, Tensor] | None,
) -> RiskEstimate:
    sizes = read_sizes(n, k, like=spectrum)
    delta, noise = read_ridge(ridge, like=spectrum), read_noise(noise_variance, like=spectrum)
    batch = broadcast_batch(
        eigenvalues=spectrum.shape[:-1],
        target_power=power.shape[:-1],
        n=sizes.n.shape,
        ridge=delta.shape,
        noise_variance=noise.shape,
        **({} if tail is None else {"tail_trace": tail[0].shape, "tail_power": tail[1].shape}),
    )
    modes = weighted_modes(spectrum, power)
    modes = modes if tail is None else modes.with_tail(*tail)
    found = solution(modes, sizes, delta)
    sufficiency, missing = feature_sufficiency(found)
    unlearned, boundary = power_sums(modes, found.gamma)
    remaining = unlearned + missing * boundary + noise
    test, train = errors(found, sizes, sufficiency, remaining)
    ratio = found.slack.samples_share.square()
    parts = (test, train, found.gamma, found.kappa, ratio, sufficiency)
    return RiskEstimate(*(part.expand(batch) for part in parts))


def feature_sufficiency(found: Solution) -> tuple[Tensor, Tensor]:
    r"""$\varphi=b_k/(b_k+\eta)$ and $1-\varphi=\eta/(b_k+\eta)$, each without cancellation."""
    slack, boundary = found.slack.features, found.boundary
    endless = slack.isinf()
    features = torch.where(endless, torch.ones_like(slack), slack)
    total = features + boundary
    empty = total == 0  # k = rank and gamma = 0: both vanish at the same rate
    safe = torch.where(empty, torch.ones_like(total), total)
    half = torch.full_like(total, 0.5)
    enough = torch.where(endless, torch.ones_like(total), torch.where(empty, half, features / safe))
    missing = torch.where(endless, torch.zeros_like(total), torch.where(empty, half, boundary / safe))
    return enough, missing


def power_sums(modes: Modes, gamma: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\sum(1-L_i)^2v_i^2$ and $\sum L_i(1-L_i)v_i^2$; with $1-\varphi$ times the second the first is the bias."""
    unlearned, boundary = modes.unseen_power, torch.zeros_like(gamma)
    for piece in modes.slices(torch.broadcast_shapes(gamma.shape, modes.batch)):
        share, rest = learned_share(piece.eigenvalues, gamma.unsqueeze(-1))
        unlearned = unlearned + (piece.power * rest * rest).sum(-1)
        boundary = boundary + (piece.power * share * rest).sum(-1)
    return unlearned, boundary


def errors(found: Solution, sizes: Sizes, sufficiency: Tensor, remaining: Tensor) -> tuple[Tensor, Tensor]:
    r"""Test error $\frac{n}{b_n+\varphi\eta}$ [remaining] and train error $(b_n/n)^2$ times it.

    Both are finite where the limit is.
    """
    fitting = found.slack.samples_share
    variance = fitting + sufficiency * found.boundary / sizes.n
    diverges = variance == 0
    safe = torch.where(diverges, torch.ones_like(variance), variance)
    limit = torch.where(remaining > 0, torch.full_like(remaining, torch.inf), torch.zeros_like(remaining))
    test = torch.where(diverges, limit, remaining / safe)
    return test, torch.where(diverges, torch.zeros_like(remaining), fitting * (fitting / safe) * remaining)


def risk_along_gamma(
    eigenvalues: Real[Tensor, "*#batch M"] | ArrayLike,
    target_power: Real[Tensor, "*#batch M"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    k: Real[Tensor, "*#batch"] | ArrayLike,
    gamma: Real[Tensor, "*#batch"] | ArrayLike,
    noise_variance: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> RiskCurve:
    r"""Errors as explicit functions of the effective ridge $\Gamma$, with the ridge $\Gamma b_kb_n/k$ that causes it.

    No equation is solved, so a curve over all ridges costs one evaluation a point. With n infinite every finite ridge
    has the same $\Gamma$; above that one the ridge is infinite (of the order of n).

    Args:
        eigenvalues: $\lambda_i$ in any order, shape (*batch, M).
        target_power: $v_i^2$, shape (*batch, M).
        n: training samples, `math.inf` allowed; n, k, gamma and noise broadcast to (*batch,).
        k: random features, `math.inf` allowed, but not together with n.
        gamma: $\Gamma\ge0$.
        noise_variance: $\sigma^2$ of the labels; the test error includes it.

    Returns:
        All of shape (*batch,); NaN where gamma is below its value at ridge zero, which no ridge reaches.

    Raises:
        ValueError: as `rf_risk`, with gamma in place of the ridge.

    Source: own extension of Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> risk_along_gamma([1.0] * 4, [0.25] * 4, n=2, k=float("inf"), gamma=[1.0, 2.0]).ridge
    tensor([0.0000, 1.3333], dtype=torch.float64)
    """
    spectrum = read_eigenvalues(eigenvalues)
    power = read_power(target_power, spectrum)
    sizes, noise = read_sizes(n, k, like=spectrum), read_noise(noise_variance, like=spectrum)
    level = as_float("gamma", gamma, like=spectrum)
    require("gamma", level >= 0, "a number >= 0", level)
    batch = broadcast_batch(
        eigenvalues=spectrum.shape[:-1],
        target_power=power.shape[:-1],
        n=sizes.n.shape,
        gamma=level.shape,
        noise_variance=noise.shape,
    )
    modes = weighted_modes(spectrum, power)
    ridge, found = solution_at(modes, sizes, level.expand(batch))
    sufficiency, missing = feature_sufficiency(found)
    unlearned, boundary = power_sums(modes, found.gamma)
    test, train = errors(found, sizes, sufficiency, unlearned + missing * boundary + noise)
    reached = (ridge >= 0).expand(batch)
    return RiskCurve(
        *(torch.where(reached, x, torch.full_like(reached, torch.nan, dtype=x.dtype)) for x in (ridge, test, train))
    )
