"""Decisions that are screened in single precision against those of scores in many digits, close calls included."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from lib.neural_collapse import collapse_metrics

from . import oracle

CLASSES, DIM = 200, 190


def crowded(seed: int, scale: float = 1.0, head_scale: float = 1.0) -> oracle.Layer:
    """Many classes, with samples nearly on the border between two of them, for the head and for the class means."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(CLASSES, DIM))
    labels = np.concatenate([np.arange(CLASSES), np.arange(CLASSES), rng.integers(0, CLASSES, 800)])
    features = means[labels] + 0.1 * rng.normal(size=(len(labels), DIM))
    weight = means + 0.05 * rng.normal(size=means.shape)
    for i in range(0, 800, 2):  # towards the border of two class means, closer than single precision can tell
        a, b = rng.choice(CLASSES, 2, replace=False)
        features[2 * CLASSES + i] = (means[a] + means[b]) / 2 + 10.0 ** rng.uniform(-12, -3) * rng.normal(size=DIM)
        step = weight[a] - weight[b]
        x = (means[a] + means[b]) / 2
        x = x - (step @ x) / (step @ step) * step  # the head is undecided between a and b
        features[2 * CLASSES + i + 1] = x + 10.0 ** rng.uniform(-12, -3) * step
    return oracle.Layer(scale * features, labels, head_scale * weight, np.zeros(CLASSES))


def decisions_differ(x: oracle.Layer) -> np.ndarray:
    """Scores in extended precision."""
    wide = oracle.Layer(*(v.astype(np.longdouble) if v.dtype == float else v for v in vars(x).values()))
    means = oracle.class_means(wide)
    scores = wide.features @ wide.weight.T + wide.bias
    near = wide.features @ means.T - (means**2).sum(-1) / 2
    return np.asarray(scores.argmax(-1) != near.argmax(-1))


@cache
def share_of_differences(seed: int) -> float:
    return float(decisions_differ(crowded(seed)).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_close_calls_are_decided_as_in_many_digits(seed: int) -> None:
    x = crowded(seed)
    want = decisions_differ(x)
    assert 0.1 < want.mean() < 0.9
    got = collapse_metrics(x.features, x.labels, x.weight, x.bias)
    assert abs(got.nc4.item() - want.mean()) * len(want) < 0.5
    rough = (torch.tensor(x.features).float() @ torch.tensor(x.weight).float().mT).argmax(-1).numpy()
    exact = (x.features @ x.weight.T).argmax(-1)
    assert (rough != exact).sum() > 10  # single precision alone would not do


@pytest.mark.parametrize(
    ("scale", "head_scale"),
    [(1e-25, 1.0), (1e-30, 1e-20), (1e25, 1.0), (1e-25, 1e25), (1e40, 1e-40), (1e-45, 1e45), (1e60, 1e60)],
)
def test_scales_that_single_precision_cannot_hold_change_nothing(scale: float, head_scale: float) -> None:
    want = share_of_differences(0)
    x = crowded(0, scale, head_scale)
    got = collapse_metrics(x.features, x.labels, x.weight, x.bias)
    # a sample within rounding of double precision may fall to either side after scaling
    assert abs(got.nc4.item() - want) * len(x.labels) < 3


def test_a_layer_in_a_batch_and_one_that_is_screened_agree() -> None:
    x = crowded(2)
    alone = collapse_metrics(x.features, x.labels, x.weight, x.bias)
    batch = collapse_metrics(x.features[None], x.labels, x.weight, x.bias)  # a batch is not screened
    for name in ("nc1", "nc2_norm", "nc2_angle", "nc3"):
        torch.testing.assert_close(getattr(batch, name)[0], getattr(alone, name), rtol=1e-10, atol=1e-14)
    assert abs(batch.nc4[0] - alone.nc4) * len(x.labels) < 3


def test_a_large_bias_is_part_of_the_slack() -> None:
    x = crowded(3)
    bias = 1e6 + np.random.default_rng(0).normal(size=CLASSES) * 1e-2
    x = oracle.Layer(x.features, x.labels, x.weight, bias)
    want = decisions_differ(x)
    got = collapse_metrics(x.features, x.labels, x.weight, x.bias)
    assert abs(got.nc4.item() - want.mean()) * len(want) < 0.5


def test_gradients_pass_a_screened_layer() -> None:
    x = crowded(4)
    features, weight = (torch.tensor(v, requires_grad=True) for v in (x.features, x.weight))
    got = collapse_metrics(features, x.labels, weight)
    screened = torch.autograd.grad(got.nc1 + got.nc3, (features, weight))
    batch = collapse_metrics(features[None], x.labels, weight)
    plain = torch.autograd.grad((batch.nc1 + batch.nc3).sum(), (features, weight))
    for one, other in zip(screened, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
    assert not got.nc4.requires_grad


def test_a_product_that_overflows_in_single_precision_decides_nothing() -> None:
    # The first feature is 1e39: infinite in single precision, where it would drown the rest. Its weights of 1e-38
    # leave it without a say, and the class means, from samples on both sides, hardly see it.
    rng = np.random.default_rng(5)
    means = 10 * rng.normal(size=(CLASSES, DIM))
    labels = np.repeat(np.arange(CLASSES), 3)
    features = means[labels] + 0.1 * rng.normal(size=(len(labels), DIM))
    weight = means.copy()
    for first, side in ((0, 1.0), (1, -1.0)):
        features[first::3, 0] = side * 1e39
    features[2::3, 0] = np.where(np.arange(CLASSES) == 7, 3e-3, -3e-3)
    weight[:, 0] = np.where(np.arange(CLASSES) == 9, 2e-38, -2e-38)
    got = collapse_metrics(features, labels, weight)
    scores = features @ weight.T
    centres = np.stack([features[labels == k].sum(0) / 3 for k in range(CLASSES)])
    assert np.abs(centres[:, 0]).max() < 1
    near = features @ centres.T - (centres**2).sum(-1) / 2
    assert (scores.argmax(-1) == labels).all()
    want = (scores.argmax(-1) != near.argmax(-1)).mean()
    assert abs(got.nc4.item() - want) * len(labels) < 0.5
    assert 0.5 < want < 0.7  # the nearest mean of the outliers is not their own
