"""The network, its gradient descent, its averages and its limits, written from their definitions in numpy.

Averages over Gaussian inputs are sums over a product rule of Gauss and Hermite, which is exact for the polynomials met
here; averages over a spectrum are sums over a quadrature of the law of Marchenko and Pastur.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

Array = Any  # of numpy


def phi(h: Array, eps: float) -> Array:
    return h + eps * h**2 / 2


def output(W: Array, X: Array, alpha: float, eps: float) -> Array:
    """f(x) for each row of X."""
    return alpha * phi(X @ W.T, eps).mean(-1)


def target(X: Array, beta: Array) -> Array:
    return 0.5 * (X @ beta) ** 2


def gd_step(
    W: Array,
    X: Array,
    y: Array,
    alpha: float,
    eps: float,
    lr: float,
    offset: Array | float = 0.0,
    weight: Array | None = None,
) -> Array:
    """One step of every neuron, one after the other; `weight` replaces the mean over the samples."""
    P, D = X.shape
    weight = np.full(P, 1 / P) if weight is None else weight
    delta = y - output(W, X, alpha, eps) + offset
    rows = []
    for w in W:
        push = np.zeros(D)
        for mu in range(P):
            push += weight[mu] * delta[mu] * (1 + eps * (X[mu] @ w)) * X[mu]
        rows.append(w + lr * D / alpha * push)
    return np.stack(rows)


def gaussian_rule(dim: int, points: int = 5) -> tuple[Array, Array]:
    """Nodes and weights for x ~ N(0, I/dim)."""
    z, w = hermegauss(points)
    w = w / w.sum()
    nodes = np.array(list(itertools.product(z, repeat=dim))) / np.sqrt(dim)
    return nodes, np.array([np.prod(p) for p in itertools.product(w, repeat=dim)])


def population_parts(
    W: Array, beta: Array, alpha: float, eps: float, start: Array | None = None
) -> tuple[float, float, float, float]:
    """Mean square of the odd part of f - y, variance and squared mean of its even part, and the mean square of all."""
    x, p = gaussian_rule(len(beta))

    def f(z: Array) -> Array:
        first = output(W, z, alpha, eps)
        return first if start is None else first - output(start, z, alpha, eps)

    wrong = f(x) - target(x, beta)
    odd, even = (wrong - (f(-x) - target(x, beta))) / 2, (wrong + (f(-x) - target(x, beta))) / 2
    mean = (p * even).sum()
    return (
        float((p * odd**2).sum()),
        float((p * (even - mean) ** 2).sum()),
        float(mean**2),
        float((p * wrong**2).sum()),
    )


def tangent_kernel(X1: Array, X2: Array, W: Array, eps: float) -> Array:
    """(1/N) sum of phi' phi' x.x' over the neurons."""
    one, two = 1 + eps * X1 @ W.T, 1 + eps * X2 @ W.T
    return one @ two.T / len(W) * (X1 @ X2.T)


def wide_kernel(X1: Array, X2: Array, eps: float) -> Array:
    return X1 @ X2.T + eps**2 * (X1 @ X2.T) ** 2


def nystrom(dim: int, eps: float) -> tuple[Array, Array, Array, Array]:
    """Kernel, weights and nodes of the exact rule, and the spectrum of the integral operator, largest first."""
    x, p = gaussian_rule(dim)
    K = wide_kernel(x, x, eps)
    root = np.sqrt(p)
    return K, p, x, np.linalg.eigvalsh(root[:, None] * K * root)[::-1]


def descend(K: Array, y: Array, rate: float, steps: int) -> Array:
    """Residuals of gradient descent on outputs with a fixed kernel, one row a time."""
    rows = [y]
    for _ in range(steps):
        rows.append(rows[-1] - rate * K @ rows[-1])
    return np.stack(rows)


def marchenko_pastur(psi: float, points: int = 4000) -> tuple[Array, Array]:
    """Nodes and weights of the eigenvalues of X X^T, X of P x D entries of variance 1/D, psi = P/D."""
    low, high = (1 - np.sqrt(psi)) ** 2, (1 + np.sqrt(psi)) ** 2
    angle = (np.arange(points) + 0.5) * np.pi / points  # Chebyshev of the second kind: smooth after the substitution
    lam = (low + high) / 2 + (high - low) / 2 * np.cos(angle)
    weight = ((high - low) / 2 * np.sin(angle)) ** 2 / (2 * psi * lam * points)
    if psi > 1:
        lam, weight = np.append(lam, 0.0), np.append(weight, 1 - 1 / psi)
    return lam, weight


def lazy_curve(psi: float, eps: float, lr: float, steps: int) -> tuple[Array, Array, Array, Array]:
    """Train, test, linear power and constant residual of kernel gradient descent, on the nodes of the spectrum."""
    lam, p = marchenko_pastur(psi)
    z = eps**2
    d = [np.ones_like(lam), np.ones_like(lam)]  # residual of the quadratic part, of the constant
    c = [np.zeros_like(lam), np.zeros_like(lam)]
    rows = []
    for _ in range(steps + 1):
        train = 0.5 * (p * d[0] ** 2).sum() + 0.25 * (p * d[1] ** 2).sum()
        linear = psi * (0.5 * (p * lam * c[0] ** 2).sum() + 0.25 * (p * lam * c[1] ** 2).sum())
        left = 0.5 * (1 - z * psi * (p * c[1]).sum())
        rows.append((train, 0.5 + left**2 + linear, linear, left))
        c = [a + lr / psi * b for a, b in zip(c, d, strict=True)]
        spike = z * psi * (p * d[1]).sum()
        d = [d[0] - lr / psi * (lam + z) * d[0], d[1] - lr / psi * ((lam + z) * d[1] + spike)]
    train_, test, linear_, left_ = np.array(rows).T
    return train_, test, linear_, left_


def lazy_limit(psi: float, eps: float) -> tuple[float, float, float]:
    """Test, linear power and constant residual when all is fitted."""
    lam, p = marchenko_pastur(psi, 200_000)
    z = eps**2
    solved = 1 / (lam + z)
    share = 1 / (1 + z * psi * (p * solved).sum())  # Sherman and Morrison
    linear = psi * (p * lam * solved**2).sum() * (0.5 + 0.25 * share**2)
    return 0.5 + (0.5 * share) ** 2 + linear, linear, 0.5 * share


def planted(overlap: Array, alignment: Array, dim: int) -> tuple[Array, Array]:
    """Weights with these order parameters, and the target direction, in `dim` dimensions."""
    N = len(alignment)
    W = np.zeros((N, dim))
    W[:, 0] = alignment * np.sqrt(dim)
    W[:, 1 : N + 1] = np.linalg.cholesky(overlap - np.outer(alignment, alignment)) * np.sqrt(dim)
    beta = np.zeros(dim)
    beta[0] = np.sqrt(dim)
    return W, beta


def simulate(
    W: Array, X: Array, beta: Array, alpha: float, eps: float, lr: float, steps: int, centered: bool = True
) -> tuple[Array, Array, Array, Array]:
    """Train, test, overlap and alignment along gradient descent of (runs, N, D) on (runs, P, D); matrix products."""
    _, P, D = X.shape
    y = 0.5 * (X @ beta) ** 2
    first = W
    h0 = X @ W.transpose(0, 2, 1)
    zero = alpha * phi(h0, eps).mean(-1) if centered else 0.0
    rows = []
    for t in range(steps + 1):
        h = X @ W.transpose(0, 2, 1)
        delta = y - alpha * phi(h, eps).mean(-1) + zero
        rows.append(
            (
                (delta**2).mean(-1),
                exact_loss(W, beta, alpha, eps, first if centered else None),
                W @ W.transpose(0, 2, 1) / D,
                W @ beta / D,
            )
        )
        if t < steps:
            push = delta[..., None] * (1 + eps * h)
            W = W + lr * D / (alpha * P) * push.transpose(0, 2, 1) @ X
    train, test, overlap, alignment = (np.stack(x, 1) for x in zip(*rows, strict=True))
    return train, test, overlap, alignment


def exact_loss(W: Array, beta: Array, alpha: float, eps: float, start: Array | None = None) -> Array:
    """Population loss of a batch of networks in any dimension (`population_parts` holds it to account in three)."""
    D, N = len(beta), W.shape[-2]
    mean, M = W.mean(-2), W.transpose(0, 2, 1) @ W / N
    if start is not None:
        mean, M = mean - start.mean(-2), M - start.transpose(0, 2, 1) @ start / N
    A = np.outer(beta, beta) - alpha * eps * M
    trace = np.trace(A, axis1=-2, axis2=-1)
    return alpha**2 * (mean**2).sum(-1) / D + (A**2).sum((-2, -1)) / (2 * D**2) + trace**2 / (4 * D**2)


def crossing(curve: list[float], level: float) -> float:
    """First index from which on the curve stays at or below the level."""
    for start in range(len(curve)):
        if all(x <= level for x in curve[start:]):
            return float(start)
    return float("inf")
