"""What `bench_neural_collapse.py` compares with: metrics of collapse and optimal gaps as others compute them.

Per-sample outer products are what common repositories do: github.com/tding1/Neural-Collapse (`validate_NC.py`) adds
them in a loop over the samples of each batch and takes `scipy.linalg.pinv`. The loop over classes is a careful version
of the same: samples sorted once, one product a class, the pseudo-inverse of a symmetric matrix, whole arrays of scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.linalg import pinv
from scipy.optimize import brentq
from torch import Tensor


def means(features: Tensor, labels: Tensor, classes: int) -> list[tuple[Tensor, Tensor]]:
    """Samples and mean of each class, after one sort."""
    order, sizes = labels.argsort(), labels.bincount(minlength=classes)
    return [(group, group.mean(0)) for group in features[order].split(sizes.tolist())]


def scatter_by_class(groups: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Sum of products of deviations from the class mean: one matrix product a class."""
    total = torch.zeros_like(groups[0][0][0].outer(groups[0][0][0]))
    for group, mean in groups:
        deviation = group - mean
        total += deviation.mT @ deviation
    return total


def scatter_by_sample(features: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """The same by one outer product a sample."""
    total = torch.zeros_like(features[0].outer(features[0]))
    for h, y in zip(features, labels.tolist(), strict=True):
        total += (h - centres[y]).unsqueeze(1) @ (h - centres[y]).unsqueeze(0)
    return total


def metrics(
    features: Tensor,
    scatter: Tensor,
    centres: Tensor,
    weight: Tensor,
    bias: Tensor,
    inverse: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """NC1, NC2 (norms, angles), NC3 and NC4 from the scatter within classes and the class means."""
    classes, apart = len(weight), centres - centres.mean(0)
    between = apart.mT @ apart / classes
    nc1 = (scatter / len(features) * inverse(between)).sum() / classes
    norms = apart.norm(dim=1)
    unit = apart / norms[:, None]
    cosines = (unit @ unit.mT + 1 / (classes - 1)).abs().fill_diagonal_(0)
    nc3 = (weight / weight.norm() - apart / apart.norm()).square().sum()
    head, near = (features @ weight.mT + bias).argmax(1), torch.cdist(features, centres).argmin(1)
    nc4 = (head != near).double().mean()
    return [nc1, norms.std(correction=0) / norms.mean(), cosines.sum() / (classes * (classes - 1)), nc3, nc4]


def symmetric_inverse(x: Tensor) -> Tensor:
    """The quick pseudo-inverse, by eigenvalues."""
    inverse: Tensor = torch.linalg.pinv(x, rtol=1e-12, hermitian=True)
    return inverse


def general_inverse(x: Tensor) -> Tensor:
    """The usual pseudo-inverse, by singular values."""
    return torch.from_numpy(pinv(x.numpy(), rtol=1e-12))


def by_class(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """The metrics by a loop over classes."""
    groups = means(features, labels, len(weight))
    centres = torch.stack([mean for _, mean in groups])
    return metrics(features, scatter_by_class(groups), centres, weight, bias, symmetric_inverse)


def one_head(C: int, n: int, w: float, h: float, t: float, T: float, alpha: float) -> tuple[float, float]:
    """The optimal gap of one head with both losses, by `scipy.optimize.brentq`; the same number twice."""
    price, pull = math.sqrt(n * w * h), distillation(C, t, T, alpha)
    if 1 / C + pull(0.0) <= price:
        return 0.0, 0.0
    top = max(t, math.log(max(1 / price - C + 1, 1.0)))
    gap = brentq(lambda s: 1 / (math.exp(s) + C - 1) + pull(s) - price, 0.0, top + 1, xtol=1e-13, rtol=1e-13)
    return gap, gap


def two_heads(C: int, n: int, w: float, h: float, t: float, T: float, alpha: float) -> tuple[float, float]:
    """The optimal gaps of two heads, by `scipy.optimize.brentq` in the auxiliary gap."""
    price, pull = math.sqrt(n * w * h), distillation(C, t, T, alpha)
    if 1 / C**2 + pull(0.0) ** 2 <= price**2:
        return 0.0, 0.0

    def main(s: float) -> float:
        cosine = math.sqrt(max(0.0, 1 - (pull(s) / price) ** 2))
        return math.log(max(1 / (price * cosine) - C + 1, 1.0)) if cosine > 0 else math.inf

    def balance(s: float) -> float:
        sine = pull(s) / price
        return 1.0 if sine >= 1 else min(main(s), 1e300) * sine - s * math.sqrt(1 - sine * sine)

    aux = brentq(balance, 0.0, t, xtol=1e-13, rtol=1e-13)
    return main(aux), aux


def distillation(C: int, t: float, T: float, alpha: float) -> Callable[[float], float]:
    """Strength with which the binary divergence widens a gap."""

    def coins(s: float) -> float:
        return 1 / (1 + math.exp(-(C - 1) * s / (C * T))) - 1 / (1 + math.exp(s / (C * T)))

    target = coins(t)
    return lambda s: alpha * T * (target - coins(s)) / C
