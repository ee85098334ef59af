"""What the chapter's functions should say, from their definitions in numpy, scipy and mpmath, one case at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import mpmath
import numpy as np
from scipy import optimize, special, stats

Array = np.ndarray


def risk(o: Array, p: Array) -> float:
    """Mean loss of a softmax, summed over the classes that can occur."""
    log_softmax = o - special.logsumexp(o)
    return -sum(float(p[k] * log_softmax[k]) for k in range(len(p)) if p[k] > 0)


def least_risk(p: Array, bound: float, predicted: int | None = None) -> float:
    """Minimum over the box by SLSQP, of all scores or of those that predict a class."""
    classes = len(p)
    rules = []
    if predicted is not None:
        for k in range(classes):
            if k != predicted:
                row = np.zeros(classes)
                row[predicted], row[k] = 1, -1
                rules.append({"type": "ineq", "fun": row.dot})

    def value(s: Array) -> float:
        return float(special.logsumexp(s) - p @ s)

    found = min(
        (
            optimize.minimize(
                value,
                start,
                jac=lambda s: special.softmax(s) - p,
                bounds=[(-bound, bound)] * classes,
                constraints=rules,
                method="SLSQP",
                options={"ftol": 1e-15, "maxiter": 500},
            )
            for start in (np.zeros(classes), -0.3 * bound * np.ones(classes))
        ),
        key=lambda r: float(r.fun),
    )
    return float(found.fun)


def two_coins(t: float) -> float:
    """Log two minus the entropy of a coin with bias (1 + t) / 2, in 40 digits."""
    with mpmath.workdps(40):
        x = mpmath.mpf(t)
        total = sum(q * mpmath.log(q) if q > 0 else mpmath.mpf(0) for q in ((1 + x) / 2, (1 - x) / 2))
        return float(total + mpmath.log(2))


def box_transform(t: float, classes: int, bound: float) -> float:
    """Supremum over a lowered score, in 40 digits: the dual form of the transform."""
    with mpmath.workdps(40):
        x, b = mpmath.mpf(t), mpmath.mpf(bound)
        size = 2 + (classes - 2) * mpmath.exp(-2 * b)

        def gain(w: mpmath.mpf) -> mpmath.mpf:
            return (1 - x) * w / 2 - mpmath.log(1 - (1 - mpmath.exp(w)) / size)

        def slope(w: mpmath.mpf) -> mpmath.mpf:
            return (1 - x) / 2 - mpmath.exp(w) / (size - 1 + mpmath.exp(w))

        low, high = -2 * b, mpmath.mpf(0)  # the gain is concave
        for _ in range(120):
            middle = (low + high) / 2
            if slope(middle) > 0:
                low = middle
            else:
                high = middle
        return float(max(gain((low + high) / 2), gain(-2 * b), mpmath.mpf(0)))


def conjugate(loss: Callable[[float], float], t: float, bound: float) -> float:
    """Transform of a margin loss by bounded minimisation from many brackets."""

    def mixture(u: float) -> float:
        return (1 + t) / 2 * loss(u) + (1 - t) / 2 * loss(-u)

    edges = np.linspace(-bound, bound, 9)
    found = [
        optimize.minimize_scalar(mixture, bounds=(a, b), method="bounded", options={"xatol": 1e-12})
        for a, b in pairwise(edges)
    ]
    return loss(0.0) - min(*(float(r.fun) for r in found), *(mixture(float(e)) for e in edges))


def objective(w: Array, b: Array, x: Array, y: Array, ridge: float, weight: Array | None = None) -> float:
    """Penalised logistic loss, sample by sample."""
    weight = np.ones(len(y)) if weight is None else weight
    losses = [special.logsumexp(w @ row + b) - (w @ row + b)[label] for row, label in zip(x, y, strict=True)]
    return float(np.average(losses, weights=weight) + ridge / 2 * (w**2).sum())


def slope(w: Array, b: Array, x: Array, y: Array, ridge: float, weight: Array | None = None) -> Array:
    """Its gradient, with respect to weights and biases in one row a class."""
    weight = np.ones(len(y)) if weight is None else weight
    total = np.zeros((len(b), x.shape[1] + 1))
    for row, label, omega in zip(x, y, weight / weight.sum(), strict=True):
        misfit = special.softmax(w @ row + b)
        misfit[label] -= 1
        total += omega * np.outer(misfit, np.append(row, 1))
    total[:, :-1] += ridge * w
    return total


def gaussian_bayes(x: Array, y: Array, classes: int, rows: Array, smoothing: float = 0.0) -> Array:
    """Log joint densities of naive Bayes with pooled variances at `rows`, by scipy's normal distribution."""
    means = np.stack([x[y == k].mean(0) for k in range(classes)])
    variance = sum(((x[y == k] - means[k]) ** 2).sum(0) for k in range(classes)) / len(y)
    variance = variance + smoothing * x.var(0).max()
    prior = np.bincount(y, minlength=classes) / len(y)
    return np.stack(
        [np.log(prior[k]) + stats.norm(means[k], np.sqrt(variance)).logpdf(rows).sum(-1) for k in range(classes)],
        -1,
    )


def nearest_mean_error(separation: float, features: int, samples: float) -> float:
    """Mean error of the nearest-mean rule: Gauss rules in a normal and a chi variable, graded where both vanish."""
    scale = 2 / math.sqrt(samples)
    steps = np.array([0, 1e-4, 1e-3, 1e-2, 0.1, 0.4, 1, 2, 3, 4, 6, 8])
    middle = math.sqrt(max(features - 2, 0))
    radius, chi_weight = _panels(
        np.concatenate((steps, middle - steps, middle + steps)), max(0.0, middle - 9), middle + 9
    )
    kink = -separation / scale  # where the estimated difference may vanish
    z, weight = _panels(np.concatenate((steps, -steps, kink - steps, kink + steps)), -9.0, 9.0)
    along, across = separation + scale * z[:, None], scale * radius
    error = special.ndtr(-separation * along / np.hypot(along, across) / (2 * math.sqrt(1 + 1 / samples)))
    return float((weight * stats.norm.pdf(z)) @ error @ (chi_weight * stats.chi(features - 1).pdf(radius)))


def _panels(edges: Array, low: float, high: float) -> tuple[Array, Array]:
    """Nodes and weights of Gauss-Legendre rules between all edges within [low, high]."""
    edges = np.unique(np.concatenate(([low, high], edges[(edges > low) & (edges < high)])))
    nodes, weight = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (nodes + 1)).ravel(), (half * weight).ravel()
