"""Naive Bayes as a linear classifier, for a batch of data sets at once: Gaussian and binary features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, require, require_nonnegative, require_shape
from lib.h_consistency.samples import IN_MEMORY, Samples, collect, indicator, read_samples
from lib.shapes import Float, Int, Real

IN_CACHE = 1 << 20  # numbers in use at once on the CPU: 8 MiB


@dataclass(frozen=True)
class NaiveBayes:
    """Fitted distributions of the features in each class, and the linear scores `weights`, `bias` that they make.

    `log_prior` holds the logarithms of the shares of the classes, `mean` the means of the features in each class.
    `variance` is common to all classes for Gaussian features, and has a row for each class for binary ones.
    """

    log_prior: Float[Tensor, "*batch C"]
    mean: Float[Tensor, "*batch C d"]
    variance: Float[Tensor, "*shape d"]
    weights: Float[Tensor, "*batch C d"]
    bias: Float[Tensor, "*batch C"]


def fit_gaussian_nb(
    x: Real[Tensor, "*#batch n d"] | ArrayLike,
    y: Int[Tensor, "*#batch n"] | ArrayLike,
    num_classes: int,
    sample_weight: Real[Tensor, "*#batch n"] | ArrayLike | None = None,
    var_smoothing: float | int = 1e-9,
) -> NaiveBayes:
    r"""Gaussian naive Bayes with variances common to all classes, at maximum likelihood.

    $$\log\mathsf p_y-\sum_j\frac{(x_j-\xi_{yj})^2}{2\mathsf s_j^2},\qquad
    \mathsf s_j^2=\frac{\sum_i\omega_i(x_{ij}-\xi_{y_ij})^2}{\sum_i\omega_i}+\text{smoothing}$$

    The scores are these up to a term that all classes share. Smoothing is `var_smoothing` times the largest variance of
    a feature in the whole sample, as in scikit-learn's `GaussianNB`, whose variances differ from class to class.

    Args:
        x: features, shape (*batch, n, d).
        y: classes from 0 to C - 1, each at least once in a data set, shape (*batch, n).
        num_classes: $C\ge2$.
        sample_weight: $\omega_i\ge0$, shape (*batch, n); ones by default. With zeros and ones, data sets of different
            sizes share a batch.
        var_smoothing: >= 0.

    Returns:
        In the dtype of x.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, labels that are not whole numbers from 0 to
            C - 1, a class without a sample, a negative weight or smoothing, a variance of zero.

    Source: definition.

    >>> fit = fit_gaussian_nb([[0.0], [2.0], [5.0], [7.0]], [0, 0, 1, 1], 2, var_smoothing=0.0)
    >>> fit.mean.flatten(), fit.variance
    (tensor([1., 6.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    samples = read_samples(x, y, num_classes, sample_weight)
    smoothing = as_float("var_smoothing", var_smoothing, like=samples.x)
    require_shape("var_smoothing", smoothing, smoothing.ndim == 0, "a single number")
    require_nonnegative("var_smoothing", smoothing)

    def fit(rows: Tensor, shares: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        prior = shares.sum(-1)
        mean = shares @ rows / prior.unsqueeze(-1)
        centre = prior.unsqueeze(-2) @ mean
        within = shares.sum(-2, keepdim=True) @ torch.baddbmm(rows, members.mT, mean, alpha=-1).square()
        between = prior.unsqueeze(-2) @ (mean - centre).square()
        variance = within + smoothing * (within + between).amax(-1, keepdim=True)
        require("x", variance > 0, "features that vary within classes, or var_smoothing > 0: a variance", variance)
        weights = (mean - centre) / variance  # from the centre: no digits are lost to a common offset
        bias = prior.log() - (weights * (mean + centre)).sum(-1) / 2
        return prior.log(), mean, variance.squeeze(-2), weights, bias

    return _fit_all(samples, num_classes, fit, normalise=True)


def fit_bernoulli_nb(
    x: Real[Tensor, "*#batch n d"] | ArrayLike,
    y: Int[Tensor, "*#batch n"] | ArrayLike,
    num_classes: int,
    sample_weight: Real[Tensor, "*#batch n"] | ArrayLike | None = None,
    alpha: float | int = 1.0,
) -> NaiveBayes:
    r"""Naive Bayes for binary features.

    $$\log\mathsf p_y+\sum_j\big(x_j\log\vartheta_{yj}+(1-x_j)\log(1-\vartheta_{yj})\big),\qquad
    \vartheta_{yj}=\frac{\sum_{i:y_i=y}\omega_ix_{ij}+\alpha}{\sum_{i:y_i=y}\omega_i+2\alpha}$$

    Args:
        x: zeros and ones, shape (*batch, n, d).
        y: classes from 0 to C - 1, each at least once in a data set, shape (*batch, n).
        num_classes: $C\ge2$.
        sample_weight: $\omega_i\ge0$, shape (*batch, n); ones by default.
        alpha: samples of either value that are added to each class, >= 0; zero is maximum likelihood. There an
            impossible value costs the logarithm of the smallest number of the dtype, so that scores stay finite.

    Returns:
        In the dtype of x; `mean` is $\theta$ and `variance` $\theta(1-\theta)$, both (*batch, C, d).

    Raises:
        ValueError: as `fit_gaussian_nb`, or features that are not zero or one.

    Source: definition.

    >>> fit_bernoulli_nb([[0], [1], [1], [1]], [0, 0, 1, 1], 2, alpha=0.5).mean.flatten()
    tensor([0.5000, 0.8333], dtype=torch.float64)
    """
    samples = read_samples(x, y, num_classes, sample_weight)
    require("x", (samples.x == 0) | (samples.x == 1), "zeros and ones", samples.x)
    extra = as_float("alpha", alpha, like=samples.x)
    require_shape("alpha", extra, extra.ndim == 0, "a single number")
    require_nonnegative("alpha", extra)
    tiny = torch.finfo(samples.x.dtype).tiny

    def fit(rows: Tensor, counts: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        each = counts.sum(-1, keepdim=True)
        log_prior = (each / each.sum(-2, keepdim=True)).log().squeeze(-1)
        ones = counts @ rows
        mean, other = ((number + extra) / (each + 2 * extra) for number in (ones, (each - ones).clamp_min(0)))
        log_one, log_zero = mean.clamp_min(tiny).log(), other.clamp_min(tiny).log()
        return log_prior, mean, mean * other, log_one - log_zero, log_prior + log_zero.sum(-1)

    return _fit_all(samples, num_classes, fit, normalise=False)


def _fit_all(
    samples: Samples,
    classes: int,
    fit: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]],
    *,
    normalise: bool,
) -> NaiveBayes:
    """Fit chunk by chunk, from rows, weights of the samples in each class (B, C, n), and who is a member of it."""
    n, d = samples.x.shape[-2:]
    most = IN_CACHE if samples.x.device.type == "cpu" else IN_MEMORY

    def parts() -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
        for where, rows, labels, weight in samples.chunks(4 * n * d + 8 * classes * (n + d), most):
            members = indicator(labels, classes, rows)
            weight = weight / weight.sum(-1, keepdim=True) if normalise else weight
            yield where, fit(rows, members * weight.unsqueeze(-2), members)

    return NaiveBayes(*collect(samples.batch, parts()))
