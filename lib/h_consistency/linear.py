"""Linear classifiers: their scores, and their exact error on Gaussian classes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_positive, require_shape, shared_kind
from lib.h_consistency.setting import SLACK
from lib.shapes import Float, Real

CHUNK = 1 << 24  # numbers held at once while sampling in score space: 128 MiB in float64


@runtime_checkable
class LinearClassifier(Protocol):
    """Anything with `weights` of shape `(*batch, C, d)` and `bias` of shape `(*batch, C)`."""

    @property
    def weights(self) -> Tensor | ArrayLike:
        """One row of weights a class."""

    @property
    def bias(self) -> Tensor | ArrayLike:
        """One number a class."""


def predict_scores(
    classifier: LinearClassifier, x: Real[Tensor, "*#batch n d"] | ArrayLike
) -> Float[Tensor, "*batch n C"]:
    r"""Scores of every class, $\mathsf w_y\cdot x+\mathsf b_y$, for rows of features.

    Args:
        classifier: an object with `weights` (*batch, C, d) and `bias` (*batch, C).
        x: features, shape (*batch, n, d); batch axes broadcast against those of the classifier.

    Returns:
        Shape (*batch, n, C), in the kind of the classifier, or of x where it holds no tensors.

    Raises:
        ValueError: an object without these attributes, shapes that do not fit, or features that are not finite.

    Source: definition.

    >>> from types import SimpleNamespace
    >>> two = SimpleNamespace(weights=torch.tensor([[-1.0], [1.0]]), bias=torch.tensor([0.0, -0.5]))
    >>> predict_scores(two, [[0.5], [2.0]])
    tensor([[-0.5000,  0.0000],
            [-2.0000,  1.5000]])
    """
    for name in ("weights", "bias"):
        if not hasattr(classifier, name):
            raise ValueError(f"classifier: got {type(classifier).__name__} without {name}, want weights and bias")
    held = classifier.weights, classifier.bias
    like = shared_kind(*held) if any(isinstance(part, Tensor) for part in held) else shared_kind(x)
    weights = as_float("classifier.weights", held[0], like=like)
    bias = as_float("classifier.bias", held[1], like=like)
    require_shape("classifier.weights", weights, weights.ndim >= 2, "(*batch, C, d)")
    classes, features = weights.shape[-2:]
    require_shape("classifier.bias", bias, bias.ndim >= 1 and bias.shape[-1] == classes, f"(*batch, {classes})")
    rows = as_float("x", x, like=like)
    require_shape("x", rows, rows.ndim >= 2 and rows.shape[-1] == features, f"(*batch, n, {features})")
    require("x", rows.isfinite(), "finite numbers", rows)
    broadcast_batch(weights=weights.shape[:-2], bias=bias.shape[:-1], x=rows.shape[:-2])
    scores: Tensor = rows @ weights.mT + bias.unsqueeze(-2)
    return scores


def gaussian_mixture_error(
    weights: Real[Tensor, "*#batch C d"] | ArrayLike,
    bias: Real[Tensor, "*#batch C"] | ArrayLike,
    mean: Real[Tensor, "*#batch C d"] | ArrayLike,
    variance: Real[Tensor, "*#batch d"] | ArrayLike,
    prior: Real[Tensor, " C"] | ArrayLike,
    noise: Real[Tensor, "N C"] | ArrayLike | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Error of a linear classifier on Gaussian classes with a common diagonal covariance.

    Two classes: exact, from the normal distribution of the difference of both scores. More: the scores of class y are
    Gaussian with mean $\mathsf w_k\cdot\xi_y+\mathsf b_k$ and a C by C covariance; they are sampled there, not in the
    space of features.

    Args:
        weights: shape (*batch, C, d).
        bias: shape (*batch, C).
        mean: means of the classes, shape (*batch, C, d).
        variance: variances of the features, positive, shape (*batch, d).
        prior: probabilities of the classes, shape (C,).
        noise: standard normal numbers, shape (N, C), needed for C > 2 only.

    Returns:
        Probability of a wrong prediction, shape (*batch,). A classifier with equal scores errs in half of the cases.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a variance that is not positive, a prior that
            does not sum to one, or no noise for more than two classes.

    Source: definition.

    >>> gaussian_mixture_error([[0.0], [2.0]], [0.0, 0.0], [[-1.0], [1.0]], [1.0], [0.5, 0.5])
    tensor(0.1587, dtype=torch.float64)
    """
    like = shared_kind(weights, bias, mean, variance, prior, noise)
    w = as_float("weights", weights, like=like)
    require_shape("weights", w, w.ndim >= 2 and w.shape[-2] >= 2, "(*batch, C, d) with C >= 2")
    classes, features = w.shape[-2:]
    b, v = as_float("bias", bias, like=like), as_float("variance", variance, like=like)
    centres, share = as_float("mean", mean, like=like), as_float("prior", prior, like=like)
    require_shape("bias", b, b.ndim >= 1 and b.shape[-1] == classes, f"(*batch, {classes})")
    require_shape(
        "mean", centres, centres.ndim >= 2 and centres.shape[-2:] == w.shape[-2:], f"(*batch, {classes}, {features})"
    )
    require_shape("variance", v, v.ndim >= 1 and v.shape[-1] == features, f"(*batch, {features})")
    require_shape("prior", share, share.shape == (classes,), f"({classes},)")
    for name, value in {"weights": w, "bias": b, "mean": centres}.items():
        require(name, value.isfinite(), "finite numbers", value)
    require_positive("variance", v)
    require("prior", share >= 0, "numbers >= 0", share)
    total = share.sum()
    require("prior", (total - 1).abs() <= SLACK.get(share.dtype, 1e-4), "a sum of one", total)
    batch = broadcast_batch(weights=w.shape[:-2], bias=b.shape[:-1], mean=centres.shape[:-2], variance=v.shape[:-1])
    middle = centres @ w.mT + b.unsqueeze(-2)  # class, score
    if classes == 2:
        gap = middle.select(-1, 1) - middle.select(-1, 0)
        side = w.narrow(-2, 1, 1) - w.narrow(-2, 0, 1)
        spread = (side.square() * v.unsqueeze(-2)).sum(-1).sqrt().clamp_min(torch.finfo(w.dtype).tiny)
        wrong: Tensor = torch.special.ndtr(torch.cat((gap.narrow(-1, 0, 1), -gap.narrow(-1, 1, 1)), -1) / spread)
        return (wrong * share).sum(-1).expand(batch)
    if noise is None:
        raise ValueError(f"noise: got None, want standard normal numbers (N, {classes}) for more than two classes")
    g = as_float("noise", noise, like=like)
    require_shape("noise", g, g.ndim == 2 and g.shape[0] > 0 and g.shape[1] == classes, f"(N, {classes}) with N >= 1")
    covariance = (w * v.unsqueeze(-2)) @ w.mT
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)  # also where means are collinear: no Cholesky
    wrong = torch.zeros(batch, dtype=w.dtype, device=w.device)
    rows = max(1, CHUNK // max(1, batch.numel() * classes))
    for part in g.split(rows):
        moved = part @ root.mT
        for y in range(classes):
            scores = moved + middle.narrow(-2, y, 1)
            wrong = wrong + share.select(0, y) * (scores.argmax(-1) != y).to(w.dtype).sum(-1)
    return wrong / g.shape[0]
