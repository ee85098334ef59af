"""Effective ridges on a grid of 600 (n, k, ridge): ours against scipy, one thread, agreement proved first.

Run `make bench CHAPTERS=rf_regression`. The peers solve point by point, as published code does: the pair of equations
by `scipy.optimize.root` in logarithmic variables; the pair by nested `scipy.optimize.brentq`, once with tight brackets
and once in a fixed box of thirty decades as published code has it; and our own scalar equation by `brentq`. Where a
peer would take minutes a sample of its points is timed, and the time for all is extrapolated.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from scipy import optimize

from benchmarks.harness import Growth, Race, run
from lib.rf_regression import powerlaw_task, rf_risk, solve_effective_ridge

Array = np.ndarray
Peer = Callable[[Array, float, float, float], float]
POINTS = 600


def grid(points: int) -> tuple[Array, Array, Array]:
    """Samples, features and ridges of 600 points, none of them at n = k; fewer points are spread over them."""
    n, k, ridge = np.meshgrid(np.geomspace(20, 2000, 10), np.geomspace(31, 3100, 10), np.geomspace(1e-4, 10, 6))
    chosen = np.linspace(0, POINTS - 1, points).round().astype(int)
    return n.ravel()[chosen], k.ravel()[chosen], ridge.ravel()[chosen]


def ours(eigenvalues: Array, n: Array, k: Array, ridge: Array) -> Array:
    """All points at once."""
    return solve_effective_ridge(eigenvalues, n, k, ridge).gamma.numpy()


def pair_by_root(eigenvalues: Array, n: float, k: float, ridge: float) -> float:
    """The pair of equations by Powell's hybrid method in log gamma, log kappa, from a power law's scale."""

    def pair(x: Array) -> list[float]:
        gamma, kappa = np.exp(x)
        z = (eigenvalues / (eigenvalues + gamma)).sum()
        return [np.log((z + ridge / kappa) / n), np.log((z + k * kappa / gamma) / k)]

    scale = math.log(eigenvalues.sum() / min(n, k))
    found = optimize.root(pair, [scale, scale], tol=1e-13)
    return float(np.exp(found.x[0]))


def pair_by_nested_brentq(eigenvalues: Array, n: float, k: float, ridge: float) -> float:
    """For every kappa a root in gamma, and over these a root in kappa."""

    def gamma_of(kappa: float) -> float:
        def features(gamma: float) -> float:
            return float((eigenvalues / (eigenvalues + gamma)).sum() + k * kappa / gamma - k)

        return float(optimize.brentq(features, kappa, kappa + eigenvalues.sum() / k, xtol=1e-300, rtol=1e-13))

    def samples(log_kappa: float) -> float:
        kappa = math.exp(log_kappa)
        return float((eigenvalues / (eigenvalues + gamma_of(kappa))).sum() + ridge / kappa - n)

    upper = math.log((eigenvalues.sum() + ridge) / n)
    return gamma_of(math.exp(optimize.brentq(samples, math.log(ridge / n), upper, xtol=1e-14, rtol=1e-14)))


def pair_in_a_fixed_box(eigenvalues: Array, n: float, k: float, ridge: float) -> float:
    """The same nesting without knowledge of where the roots are: gamma is sought in 1e-15 to 1e15, kappa up to 1e12."""

    def gamma_of(kappa: float) -> float:
        def features(gamma: float) -> float:
            return float((eigenvalues / (eigenvalues + gamma)).sum() + k * kappa / gamma - k)

        return float(optimize.brentq(features, 1e-15, 1e15, xtol=1e-300, rtol=1e-13, maxiter=400))

    def samples(kappa: float) -> float:
        return float((eigenvalues / (eigenvalues + gamma_of(kappa))).sum() + ridge / kappa - n)

    return gamma_of(float(optimize.brentq(samples, 1e-15, 1e12, xtol=1e-300, rtol=1e-13, maxiter=400)))


def scalar_by_brentq(eigenvalues: Array, n: float, k: float, ridge: float) -> float:
    """Our scalar equation, one point at a time."""
    gap, smaller = abs(1 - n / k), min(n, k)

    def excess(u: float) -> float:
        x = ridge * math.exp(-u)
        z = (eigenvalues / (eigenvalues + math.exp(u))).sum()
        return math.log((z + 2 * x / (gap + math.sqrt(gap * gap + 4 * x / k))) / smaller)

    lower = math.log(ridge / (smaller * (smaller / k + gap)))
    upper = math.log(2 * eigenvalues.sum() / smaller + 4 * ridge / (smaller * (smaller / k + 2 * gap)))
    return math.exp(optimize.brentq(excess, lower, upper, xtol=1e-14, rtol=1e-14))


ROOT, NESTED, BOX, SCALAR = "root on the pair", "nested brentq", "nested, fixed box", "brentq on our scalar equation"
PEERS: dict[str, Peer] = {
    ROOT: pair_by_root,
    NESTED: pair_by_nested_brentq,
    BOX: pair_in_a_fixed_box,
    SCALAR: scalar_by_brentq,
}
# modes, points, and how many of these points each peer is timed on
CASES = [
    (100, 1, {ROOT: 1, NESTED: 1, BOX: 1, SCALAR: 1}),
    (100, POINTS, {ROOT: 200, NESTED: 60, BOX: 10, SCALAR: POINTS}),
    (10_000, 1, {ROOT: 1, NESTED: 1, BOX: 1, SCALAR: 1}),
    (10_000, POINTS, {ROOT: 100, NESTED: 30, BOX: 10, SCALAR: 100}),
    (1_000_000, 1, {ROOT: 1, SCALAR: 1}),
    (1_000_000, POINTS, {ROOT: 4, NESTED: 1, SCALAR: 4}),
]
BARS = {(10_000, ROOT): 5.0, (1_000_000, ROOT): 50.0, (10_000, BOX): 100.0}


def ridges() -> Iterator[Race]:
    """Each peer on its sample of the points."""
    for modes, points, sampled in CASES:
        eigenvalues = powerlaw_task(modes, 1.5, 1.5)[0].numpy()
        given = grid(points)
        for name, count in sampled.items():
            chosen = np.linspace(0, points - 1, count).round().astype(int)
            few = [x[chosen] for x in given]
            yield Race(
                "solve_effective_ridge",
                f"{modes:,} modes, {points} point{'s' * (points > 1)}",
                partial(ours, eigenvalues, *given),
                name,
                partial(point_by_point, PEERS[name], eigenvalues, *few),
                agree=lambda got, want, chosen=chosen: float(  # type: ignore[misc]
                    np.abs(want / got[chosen] - 1).max()
                ),
                limit=1e-10,
                share=count / points,
                at_least=BARS.get((modes, name)) if points == POINTS else None,
                repeats=3,
            )


def point_by_point(peer: Peer, eigenvalues: Array, n: Array, k: Array, ridge: Array) -> Array:
    return np.array([peer(eigenvalues, *point) for point in zip(n, k, ridge, strict=True)])


def risk() -> Iterator[Race]:
    """Test and train errors of a million modes at all points: what memory they take."""
    index = torch.arange(1, 1_000_001, dtype=torch.float64)
    eigenvalues = power = index.pow_(-1.5)
    yield Race(
        "rf_risk",
        f"1,000,000 modes, {POINTS} points",
        partial(rf_risk, eigenvalues, power, *grid(POINTS)),
        memory=200,
        repeats=3,
    )


def races() -> Iterator[Race]:
    for section in (ridges, risk):
        yield from section()


def growths() -> Iterator[Growth]:
    """Against the points of a grid, and against the modes of the spectrum."""
    rng = np.random.default_rng(0)
    eigenvalues, power = powerlaw_task(1000, 1.5, 1.5)
    n, k, ridge = rng.uniform(20, 2000, 10_000), rng.uniform(20, 2000, 10_000), 10 ** rng.uniform(-4, 1, 10_000)
    each = "1 for each point its own equation"
    for name, call in (
        ("solve_effective_ridge", lambda p: partial(solve_effective_ridge, eigenvalues, n[:p], k[:p], ridge[:p])),
        ("rf_risk", lambda p: partial(rf_risk, eigenvalues, power, n[:p], k[:p], ridge[:p])),
    ):
        yield Growth(name, "points, 1,000 modes", (10, 100, 1_000, 10_000), call, (1, 1), each, batch=True)
    yield Growth(
        "solve_effective_ridge",
        f"modes, {POINTS} points",
        (1_000, 10_000, 100_000, 1_000_000),
        lambda m: partial(ours, powerlaw_task(m, 1.5, 1.5)[0].numpy(), *grid(POINTS)),
        (0, 1),
        "below 1: the tail of the spectrum is summed in groups",
    )


if __name__ == "__main__":
    run(__file__, races, growths)
