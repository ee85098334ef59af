"""Metrics of collapse and optimal gaps: ours against peers, one thread, agreement proved first.

Run `make bench CHAPTERS=neural_collapse`. The peers (`neural_collapse_peers.py`) are a loop over classes and per-sample
outer products; of the latter 500 samples are timed, and the time for all is extrapolated.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import neural_collapse_peers as peers
from benchmarks.harness import Call, Growth, Race, run
from lib.neural_collapse import collapse_metrics, distilled_optimum, streamed_collapse_metrics

DIM, SAMPLED = 512, 500
SETTINGS = [(20_000, 10), (20_000, 100), (50_000, 1000)]  # features, classes
BARS = {10: (4.0, 20.0), 100: (2.5, None), 1000: (1.5, None)}  # loop over classes, outer products
Layer = tuple[Tensor, Tensor, Tensor, Tensor]


def layer(count: int, classes: int, dim: int = DIM) -> Layer:
    """Features, labels, head and bias; classes as far apart as their samples spread, and ReLU-like means."""
    source = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=source, dtype=torch.float64) + 1
    labels = torch.randperm(count, generator=source) % classes
    features = centres[labels] + torch.randn(count, dim, generator=source, dtype=torch.float64)
    noise = torch.randn(classes, dim, generator=source, dtype=torch.float64)
    return features, labels, centres + noise, noise[:, 0].clone()


def apart(ours: object, peer: list[Tensor] | object) -> float:
    """The largest relative difference of the five metrics."""
    theirs = peer if isinstance(peer, list) else list(vars(peer).values())
    pairs = zip(vars(ours).values(), theirs, strict=True)
    return max(float((a - b).abs() / b.abs().clamp_min(1e-12)) for a, b in pairs)


def metrics() -> Iterator[Race]:
    """Both sides compute all five metrics in double precision."""
    for count, classes in SETTINGS:
        features, labels, weight, bias = x = layer(count, classes)
        by_class, by_sample = BARS[classes]
        size, repeats = f"{count:,} features of {DIM} dimensions, {classes:,} classes", 5 if classes < 1000 else 3
        ours = partial(collapse_metrics, *x)
        yield Race(
            "collapse_metrics",
            size,
            ours,
            "loop over classes",
            partial(peers.by_class, *x),
            agree=apart,
            at_least=by_class,
            memory=64 + 10 * classes * DIM * 8 / 2**20,
            repeats=repeats,
        )
        few, some = features[:SAMPLED], labels[:SAMPLED]
        centres = torch.stack([mean for _, mean in peers.means(features, labels, classes)])
        scatter, deviation = peers.scatter_by_sample(few, some, centres), few - centres[some]
        yield Race(
            "collapse_metrics",
            size,
            ours,
            "outer product of each sample",
            partial(peers.scatter_by_sample, few, some, centres),
            agree=lambda _, theirs, want=deviation.mT @ deviation: float(  # type: ignore[misc]
                (theirs - want).abs().max() / want.abs().max()
            ),
            share=SAMPLED / count,
            rest=partial(peers.metrics, features, scatter, centres, weight, bias, peers.general_inverse),
            at_least=by_sample,
            repeats=3,
        )


def streaming() -> Iterator[Race]:
    """Batches of the same samples against all at once, equal to 1e-10."""
    for count, classes in SETTINGS[:2]:
        features, labels, weight, bias = x = layer(count, classes)
        for size in (64, 1000, 7777):
            batches = list(zip(features.split(size), labels.split(size), strict=True))
            yield Race(
                "streamed_collapse_metrics",
                f"{count:,} features, {classes} classes, batches of {size:,}",
                partial(streamed_collapse_metrics, batches, weight, bias),
                "collapse_metrics of all at once",
                partial(collapse_metrics, *x),
                agree=apart,
                limit=1e-10,
                repeats=3,
            )


def optima() -> Iterator[Race]:
    """1,000 settings, against a loop over `scipy.optimize.brentq`."""
    rng = np.random.default_rng(0)
    classes, per_class = rng.integers(2, 200, 1000), rng.integers(1, 500, 1000)
    lambda_w, lambda_h, alpha = 10 ** rng.uniform(-5, -1.5, (3, 1000))
    teacher, heat = rng.uniform(1, 15, 1000), rng.uniform(1, 8, 1000)
    given = (classes, per_class, lambda_w, lambda_h, teacher, heat, alpha)
    rows = [tuple(v.item() for v in row) for row in zip(*given, strict=True)]
    for heads, peer in ((1, peers.one_head), (2, peers.two_heads)):
        yield Race(
            "distilled_optimum",
            f"1,000 settings, {heads} head{'s' * (heads > 1)}",
            partial(distilled_optimum, *given, heads=heads),
            "brentq loop",
            lambda peer=peer: np.array([peer(*row) for row in rows]),  # type: ignore[misc]
            agree=lambda ours, theirs: float(np.abs(np.stack((ours.main_gap, ours.aux_gap), -1) - theirs).max()),
            limit=1e-7,
        )


def races() -> Iterator[Race]:
    for section in (metrics, streaming, optima):
        yield from section()


def growths() -> Iterator[Growth]:
    """Against samples, dimensions and classes; and settings of an optimum in one call."""
    yield Growth(
        "collapse_metrics",
        "features of 512 dimensions, 100 classes",
        (1_000, 4_000, 16_000, 64_000),
        lambda n: partial(collapse_metrics, *layer(n, 100)),
        (1, 1),
        "1: one pass over the samples",
    )
    yield Growth(
        "collapse_metrics",
        "dimensions, 20,000 features, 100 classes",
        (64, 128, 256, 512, 1024),
        lambda d: partial(collapse_metrics, *layer(20_000, 100, d)),
        (1, 2),
        "1 for reading and whitening with C - 1 directions, towards 2 where d x d matrices weigh in",
    )
    yield Growth(
        "collapse_metrics",
        "classes, 10,000 features of 512 dimensions",
        (10, 50, 100, 200, 500, 1000, 2000),
        lambda c: partial(collapse_metrics, *layer(10_000, c)),
        (0, 1),
        "0 where reading the samples binds, 1 where the products with heads and class means do",
    )

    def settings(count: int) -> Call:
        rng = np.random.default_rng(0)
        lambda_w, lambda_h, alpha = 10 ** rng.uniform(-5, -1.5, (3, count))
        teacher, heat = rng.uniform(1, 15, count), rng.uniform(1, 8, count)
        return partial(distilled_optimum, 10, 100, lambda_w, lambda_h, teacher, heat, alpha, heads=2)

    sizes, why = (10, 100, 1_000, 10_000), "1 for each setting its own bisection"
    yield Growth("distilled_optimum", "settings, 2 heads", sizes, settings, (1, 1), why, batch=True)


if __name__ == "__main__":
    run(__file__, races, growths)
