"""Error against sample size to first order, and where two such curves cross: naive Bayes and logistic regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, require, require_shape, shared_kind
from lib.shapes import Float, Real


@dataclass(frozen=True)
class ErrorExpansion:
    """Error with n samples, `limit` + `rate` / n + o(1/n); both of shape `()`."""

    limit: Float[Tensor, ""]
    rate: Float[Tensor, ""]


def naive_bayes_expansion(
    mean: Real[Tensor, "2 d"] | ArrayLike, covariance: Real[Tensor, "d d"] | ArrayLike
) -> ErrorExpansion:
    r"""Mean error of Gaussian naive Bayes on two Gaussian classes whose features may be correlated.

    The rule is a smooth function of both estimated means and the pooled variances. To order $1/n$ its mean error is the
    error at the true values, plus half the trace of Hessian times covariance of the estimates ($2\Sigma/n$ for a mean,
    $2\Sigma_{ij}^2/n$ for variances). The variances' bias is a common factor, which does not change the rule.

    Args:
        mean: means of both classes, shape (2, d).
        covariance: common to both classes, positive definite, shape (d, d).

    Returns:
        Limit and rate for equal class counts, n samples in all.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a covariance that is not symmetric.

    Source: own derivation (delta method), :prf:ref:`hc-nb-expansion`.

    >>> naive_bayes_expansion([[-1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]).rate
    tensor(0.2420, dtype=torch.float64)
    """
    centres, sigma = _read(mean, covariance)
    variance = sigma.diagonal()

    def error(zero: Tensor, one: Tensor, v: Tensor) -> Tensor:
        w = (one - zero) / v
        offset = (w * (one + zero)).sum() / 2
        spread = (w @ sigma @ w).sqrt()
        sides = torch.stack((w @ centres[0] - offset, offset - w @ centres[1])) / spread
        mean_of_both: Tensor = torch.special.ndtr(sides).mean()
        return mean_of_both

    point = (centres[0], centres[1], variance)
    spreads = (2 * sigma, 2 * sigma, 2 * sigma.square())
    traces = [(_hessian(error, argument)(*point) * spread).sum() for argument, spread in enumerate(spreads)]
    return ErrorExpansion(error(*point), torch.stack(traces).sum() / 2)


def logistic_expansion(
    mean: Real[Tensor, "2 d"] | ArrayLike, covariance: Real[Tensor, "d d"] | ArrayLike
) -> ErrorExpansion:
    r"""Mean error of unpenalised logistic regression on two Gaussian classes with a common covariance.

    $$
    \mathrm{tail}\Big(\frac{D_{\rm M}}2\Big)+\frac{\varphi_{\rm N}(D_{\rm M}/2)}{4D_{\rm M}}
    \Big(\frac{d_{\rm f}}{A_0}-4\Big)\frac1n
    $$

    with the normal density $\varphi_{\rm N}$ and the mean $A_0$ of $p_1p_2$.

    Args:
        mean: means of both classes, different, shape (2, d).
        covariance: common to both classes, positive definite, shape (d, d).

    Returns:
        Limit (the Bayes error) and rate for equal class counts, n samples in all.

    Raises:
        ValueError: as in `naive_bayes_expansion`.

    Source: Efron (1975) for classes drawn at random; equal counts: own derivation, :prf:ref:`hc-lr-expansion`.

    >>> logistic_expansion([[-1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]).rate
    tensor(0.4172, dtype=torch.float64)
    """
    centres, sigma = _read(mean, covariance)
    features = sigma.shape[0]
    difference = centres[1] - centres[0]
    distance = (difference @ torch.linalg.solve(sigma, difference)).sqrt()
    x = torch.linspace(-10.0, 10.0, 801, dtype=sigma.dtype, device=sigma.device)
    x = x * (1 + distance / 20)
    density = (_density(x - distance / 2) + _density(x + distance / 2)) / 2
    odds = distance * x
    a0 = (density * torch.sigmoid(odds) * torch.sigmoid(-odds)).sum() / density.sum()
    rate = _density(distance / 2) / (4 * distance) * (features / a0 - 4)
    return ErrorExpansion(torch.special.ndtr(-distance / 2), rate)


def crossing_samples(first: ErrorExpansion, second: ErrorExpansion) -> Float[Tensor, ""]:
    r"""Samples at which two first-order error curves meet.

    They meet at $n=(\text{rate}_2-\text{rate}_1)/(\text{limit}_1-\text{limit}_2)$.

    Args:
        first: an expansion, for instance of naive Bayes.
        second: another, for instance of logistic regression.

    Returns:
        Shape (); negative or infinite where the curves do not cross.

    Source: definition.

    >>> one, two = (torch.tensor(x, dtype=torch.float64) for x in (1.0, 3.0))
    >>> crossing_samples(ErrorExpansion(0.2 * one, one), ErrorExpansion(0.1 * one, two))
    tensor(20., dtype=torch.float64)
    """
    return (second.rate - first.rate) / (first.limit - second.limit)


def _hessian(function: Callable[..., Tensor], argument: int) -> Callable[..., Tensor]:
    inner = torch.func.jacrev(function, argnums=argument)
    return torch.func.jacrev(inner, argnums=argument)


def _density(x: Tensor) -> Tensor:
    return (-x.square() / 2).exp() / math.sqrt(2 * math.pi)


def _read(mean: Tensor | ArrayLike, covariance: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    like = shared_kind(mean, covariance)
    centres, sigma = as_float("mean", mean, like=like), as_float("covariance", covariance, like=like)
    require_shape("mean", centres, centres.ndim == 2 and centres.shape[0] == 2 and centres.shape[1] >= 1, "(2, d)")
    features = centres.shape[1]
    require_shape("covariance", sigma, sigma.shape == (features, features), f"({features}, {features})")
    require("mean", centres.isfinite(), "finite numbers", centres)
    require("covariance", sigma.isfinite(), "finite numbers", sigma)
    off = (sigma - sigma.mT).abs()
    require("covariance", off <= 1e-6 * sigma.abs().amax(), "a symmetric matrix", off)
    return centres, sigma
