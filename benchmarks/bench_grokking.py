"""Curves of training, predicted and trained: ours against numpy, one thread, agreement proved first.

Run `make bench CHAPTERS=grokking`. The peers are what a user would write: a network of P samples in D dimensions
trained in numpy by four matrix products a step, the same network at width 4,000, and the eigendecomposition of the
kernel. Mean-field runs are random, so agreement is one of law: mean losses of both sides, in standard errors.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import math
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import MIB, Call, Growth, Race, apart, run
from lib.grokking import LazyCurve, Trajectory, dmft, gd_step, lazy_curve, moment_step, moments

Array = Any  # of numpy
Curves = tuple[Array, Array]  # train and test loss
LR, PSI = 0.3, 2.0
ALPHAS, SHARES = np.logspace(-1, 1, 8, base=2), (0.1, 0.2, 0.3, 0.4)  # 32 points


def beginning(units: int) -> tuple[Tensor, Tensor]:
    """Overlap and alignment of units that lean on the target by a quarter, one to each side in turn."""
    m = 0.25 * (-1.0) ** torch.arange(units, dtype=torch.float64)
    return torch.eye(units, dtype=torch.float64), m


def predicted(units: int, alpha: Any, eps: Any, psi: float, lr: float, steps: int, samples: int) -> Trajectory:
    """One call of `dmft` from the usual start."""
    return dmft(*beginning(units), alpha, eps, psi, lr, steps, samples, torch.Generator().manual_seed(0))


def planted(units: int, dim: int) -> Array:
    """Weights with these overlaps; the target is the first axis."""
    c, m = (x.numpy() for x in beginning(units))
    W = np.zeros((units, dim))
    W[:, 0], W[:, 1 : units + 1] = m, np.linalg.cholesky(c - np.outer(m, m))
    return W * math.sqrt(dim)


def inputs(samples: int, dim: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(samples, dim)) / math.sqrt(dim)


def simulated(X: Array, W: Array, alpha: float, eps: float, lr: float, steps: int) -> Curves:
    """Train and test loss along centred descent, with nothing computed twice."""
    P, D = X.shape
    y, first, W = 0.5 * D * X[:, 0] ** 2, W, W.copy()
    train, test = np.empty(steps + 1), np.empty(steps + 1)
    zero, N = None, len(W)
    C0, m0 = first @ first.T / D, first[:, 0] / math.sqrt(D)
    for t in range(steps + 1):
        h = X @ W.T
        f = alpha * (h.mean(1) + eps / 2 * (h**2).mean(1))
        zero = f if zero is None else zero
        delta = y - f + zero
        C, B, m = W @ W.T / D, W @ first.T / D, W[:, 0] / math.sqrt(D)
        both = alpha * eps
        gap = 1 - both * (np.trace(C) - np.trace(C0)) / N
        square = 1 - 2 * both * (m @ m - m0 @ m0) / N + both**2 * ((C**2).mean() - 2 * (B**2).mean() + (C0**2).mean())
        train[t] = delta @ delta / P
        test[t] = alpha**2 * (C - B - B.T + C0).mean() + square / 2 + gap**2 / 4
        if t < steps:
            W += lr * D / (alpha * P) * ((delta[:, None] * (1 + eps * h)).T @ X)
    return train, test


def in_law(ours: list[Curves], theirs: list[Curves]) -> float:
    """How far the mean losses at the end are apart, in standard errors; the worse of training and test."""
    a, b = (np.array([[float(curve[-1]) for curve in one] for one in many]) for many in (ours, theirs))
    error = np.sqrt(a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b))
    return float((np.abs(a.mean(0) - b.mean(0)) / error).max())


def mean_field() -> Iterator[Race]:
    """Against the network itself, whose inputs are drawn outside its time; ours draws within its own."""
    steps, units = 60, 2
    setting = (1.0, 0.25)
    for samples, runs, bar in ((2_000, 12, None), (4_000, 12, None), (8_000, 4, 5.0)):
        dim = samples // 2
        W = planted(units, dim)
        trained = [simulated(inputs(samples, dim, seed), W, *setting, LR, steps) for seed in range(1, runs)]
        start = beginning(units)
        found = [
            dmft(*start, *setting, PSI, LR, steps, samples, torch.Generator().manual_seed(seed))
            for seed in range(1, runs)
        ]

        def law(ours: Trajectory, theirs: Curves, found: Any = found, trained: Any = trained) -> float:
            return in_law([(one.train, one.test) for one in (ours, *found)], [theirs, *trained])

        yield Race(
            "dmft",
            f"S = {samples:,}, N = {units}, {steps} steps",
            partial(predicted, units, *setting, PSI, LR, steps, samples),
            f"network of D = {dim:,} in numpy",
            partial(simulated, inputs(samples, dim), W, *setting, LR, steps),
            agree=law,
            limit=4.5,  # standard errors
            at_least=bar,
        )
    yield Race(
        "dmft",
        "S = 6,000, N = 4, 200 steps",
        partial(predicted, 4, 1.0, 0.25, 3.0, 0.4, 200, 6_000),
        within=4,
        memory=2.5 * 6_000 * 4 * 200 * 8 / MIB,
        repeats=3,
    )


def one_by_one(samples: int) -> Tensor:
    """The test loss at all points of the grid, a call for each."""
    source = torch.Generator().manual_seed(0)
    rows = [dmft(*beginning(2), a, e, PSI, 0.2, 60, samples, source).test for a, e in product(ALPHAS, SHARES)]
    return torch.stack(rows).reshape(len(ALPHAS), len(SHARES), -1)


def early(ours: Trajectory, theirs: Tensor) -> float:
    """The first 20 steps: rounding grows as the runs go on."""
    return float((ours.test[..., :20] / theirs[..., :20] - 1).abs().max())


def grid() -> Iterator[Race]:
    """32 points (alpha, eps) in one call against 32 calls."""
    for samples in (300, 1_000, 4_000):
        yield Race(
            "dmft",
            f"32 points, S = {samples:,}, N = 2, 60 steps",
            partial(predicted, 2, ALPHAS[:, None], np.array(SHARES), PSI, 0.2, 60, samples),
            "32 calls, one for each point",
            partial(one_by_one, samples),
            agree=early,
            limit=1e-6,
            at_least=1.5,
            reason="A batch saves the start of operators, about 30 ms a point. A point of 4,000 samples costs 80 ms of"
            " products and random numbers besides, in a batch as much as alone.",
        )


def numpy_step(W: Array, X: Array, y: Array) -> Array:
    """`gd_step` at alpha 1, eps 0.1, with few temporary arrays."""
    P, D = X.shape
    h = X @ W.T
    delta = y - (h.mean(1) + 0.05 * np.einsum("ij,ij->i", h, h) / len(W))
    h *= 0.1
    h += 1
    h *= delta[:, None]
    return W + LR * D / P * (h.T @ X)


def closure() -> Iterator[Race]:
    """A step of two moments, whose cost no width changes, against a step of the network that has these moments."""
    P, D = 550, 100
    X = torch.from_numpy(inputs(P, D))
    y = X[:, 0].square() * D / 2
    for width, bar in ((100, None), (1_000, None), (4_000, 20.0)):
        W = torch.from_numpy(np.random.default_rng(1).normal(size=(width, D)))
        for name, theirs in (
            ("gd_step", partial(gd_step, W, X, y, 1.0, 0.1, LR)),
            ("network step in numpy", partial(numpy_step, W.numpy(), X.numpy(), y.numpy())),
        ):
            yield Race(
                "moment_step",
                f"P = {P}, D = {D}; network of width {width:,}",
                partial(moment_step, *moments(W), X, y, 1.0, 0.1, LR),
                name,
                theirs,
                agree=lambda ours, peer: apart(ours, moments(peer)),
                limit=1e-12,
                at_least=bar,
                reason="A step of the moments multiplies 34 times less, but two fifths of its time go to checks that"
                " inputs are finite and to passes over arrays; a busy and an idle machine gave 18 to 23 times.",
            )


def by_eigenvectors(X: Array, eps: float, lr: float, steps: int) -> Array:
    """Train loss of kernel descent at all times, from the spectrum of the kernel."""
    P, D = X.shape
    gram = X @ X.T
    y = 0.5 * D * X[:, 0] ** 2
    values, vectors = np.linalg.eigh(gram + eps**2 * gram**2)
    power = (vectors.T @ y) ** 2 / P
    return np.array([(power * (1 - lr * D / P * values) ** (2 * t)).sum() for t in range(steps + 1)])


def beginning_of_training(ours: LazyCurve, theirs: Array) -> float:
    return float(np.abs(theirs[:50] / ours.train[:50].numpy() - 1).max())


def lazy() -> Iterator[Race]:
    """The limit against a sample of it, which differs by its own fluctuation."""
    for dim, bar in ((300, None), (600, None), (1_200, 100.0)):
        yield Race(
            "lazy_curve",
            f"150 steps; peer with D = {dim:,}, P = {2 * dim:,}",
            partial(lazy_curve, PSI, 0.5, 0.4, 150),
            "eigendecomposition of the kernel",
            partial(by_eigenvectors, inputs(2 * dim, dim), 0.5, 0.4, 150),
            agree=beginning_of_training,
            limit=4.5 * 1.5 / math.sqrt(dim),  # the squared targets spread by about 1.5 / sqrt(D)
            at_least=bar,
        )


def races() -> Iterator[Race]:
    for section in (mean_field, grid, closure, lazy):
        yield from section()


def growths() -> Iterator[Growth]:
    """Against the steps, whose past each new step looks at; against the dimension; and settings in one call."""
    yield Growth(
        "dmft",
        "steps, S = 4,000, N = 2",
        (25, 50, 100, 200, 400),
        lambda t: partial(predicted, 2, 1.0, 0.25, PSI, LR, t, 4_000),
        (1, 2),
        "1 where drawing the samples' coordinates binds, 2 where projecting on all past directions does",
    )
    yield Growth(
        "lazy_curve",
        "steps",
        (250, 500, 1_000, 2_000, 4_000),
        lambda t: partial(lazy_curve, PSI, 0.5, 0.4, t),
        (1, 2),
        "1 where starting operators binds, 2 where the t entries of a step do",
    )

    def closed(dim: int) -> Call:
        X = torch.from_numpy(inputs(2 * dim, dim))
        wide = (torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64))
        return partial(moment_step, *wide, X, X[:, 0].square() * dim / 2, 1.0, 0.1, LR)

    yield Growth(
        "moment_step",
        "dimensions, P = 2 D",
        (50, 100, 200, 400, 800),
        closed,
        (3, 3),
        "3 for products of matrices",
    )

    def settings(count: int) -> Array:
        return np.linspace(0.5, 2, count)

    each = "1 for each setting its own run"
    yield Growth(
        "dmft",
        "settings, S = 200, N = 2, 20 steps",
        (10, 100, 1_000),
        lambda count: partial(predicted, 2, settings(count), 0.25, PSI, 0.2, 20, 200),
        (1, 1),
        each,
        batch=True,
    )
    yield Growth(
        "lazy_curve",
        "settings, 150 steps",
        (10, 100, 1_000, 10_000),
        lambda count: partial(lazy_curve, settings(count) + 1, 0.3, 0.2, 150),
        (1, 1),
        each,
        batch=True,
    )


if __name__ == "__main__":
    run(__file__, races, growths)
