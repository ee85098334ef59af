"""The five metrics of collapse against loops over samples and pairs of classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib.neural_collapse import CollapseMetrics, collapse_metrics, simplex_etf, streamed_collapse_metrics

from . import oracle

NAMES = ("nc1", "nc2_norm", "nc2_angle", "nc3", "nc4")
LAYERS = {
    "balanced": ([6, 6, 6], 5),
    "two classes in one dimension": ([4, 7], 1),
    "of different sizes": ([1, 9, 4, 2, 30], 8),
    "fewer dimensions than classes": ([5, 3, 4, 6, 2, 2, 7], 3),
    "as many dimensions as the means span": ([3, 4, 5, 6], 3),
    "one sample each": ([1, 1, 1, 1], 6),
    "many classes": ([3] * 40, 12),
    "more than one chunk of rows": ([700, 900, 800], 4),
}


def agrees(got: CollapseMetrics, want: dict[str, float], rtol: float = 1e-9, index: Any = ()) -> None:
    for name in NAMES:
        assert getattr(got, name)[index].item() == pytest.approx(want[name], rel=rtol, abs=1e-12), name


def on(device: str, x: oracle.Layer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features, labels, weight, bias = (torch.tensor(v, device=device) for v in vars(x).values())
    return features, labels, weight, bias


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", LAYERS)
def test_metrics_are_those_of_the_definitions(kind: str, seed: int, device: str) -> None:
    x = oracle.layer(seed, *LAYERS[kind])
    got = collapse_metrics(*on(device, x))
    agrees(got, oracle.metrics(x))
    assert {v.shape for v in vars(got).values()} == {()}
    assert {v.device.type for v in vars(got).values()} == {device}
    x = oracle.Layer(x.features, x.labels, x.weight, np.zeros(len(x.weight)))
    agrees(collapse_metrics(*on(device, x)[:3]), oracle.metrics(x))


@pytest.mark.parametrize("noise", [1e-2, 1e-5, 1e-8, 1e-10])
def test_digits_survive_near_the_collapse(noise: float) -> None:
    x = oracle.layer(0, [40, 50, 60], 6, noise=0.0, offset=7.0)
    # deviations that sum to zero in each class exactly, on a grid that a float of size 7 holds exactly
    rng = np.random.default_rng(1)
    grid = 2.0 ** round(math.log2(noise))
    half = np.rint(rng.normal(size=(75, 6)) * 8) * grid / 8
    means = np.rint(oracle.class_means(x) * 8) / 8
    labels = np.repeat([0, 1, 2], [40, 50, 60])
    deviations = np.concatenate([[d, -d] for d in half])
    features = means[labels] + deviations
    assert (features - means[labels] == deviations).all()
    within = deviations.T @ deviations / 150
    centred = means - means.mean(0)
    want = np.trace(within @ np.linalg.pinv(centred.T @ centred / 3, rcond=1e-12)) / 3
    got = collapse_metrics(features, labels, x.weight)
    assert got.nc1.item() == pytest.approx(want, rel=1e-9)
    assert got.nc1 < noise**2


@pytest.mark.parametrize(("classes", "dim"), [(2, 1), (4, 3), (10, 16)])
def test_all_vanish_at_the_collapse_and_none_before(classes: int, dim: int) -> None:
    corners = simplex_etf(classes, dim, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(classes).repeat(5)
    got = collapse_metrics(3.0 * corners[labels] + 1.0, labels, 0.2 * corners, -0.2 * corners.sum(-1))
    assert max(v.item() for v in vars(got).values()) < 1e-12
    rng = np.random.default_rng(0)
    noisy = collapse_metrics(rng.normal(size=(classes * 5, dim)), labels, rng.normal(size=(classes, dim)))
    if classes > 2:  # the two means of two classes always oppose each other at equal distance
        assert min(v.item() for v in vars(noisy).values()) > 0.01


def test_a_turned_head_costs_as_much_as_the_angle() -> None:
    # features and head on the same triangle, the head turned by a: |W - M|^2 = 2 - 2 cos a, and NC4 turns at 60 degrees
    corners, labels = simplex_etf(3, 2), torch.arange(3)
    for degrees, wrong in ((10.0, 0.0), (59.0, 0.0), (61.0, 1.0), (180.0, 1.0)):
        a = math.radians(degrees)
        turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=torch.float64)
        got = collapse_metrics(corners, labels, corners @ turn.mT)
        assert got.nc3.item() == pytest.approx(2 - 2 * math.cos(a), abs=1e-12)
        assert got.nc4.item() == wrong


@given(
    st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(-5, 5), st.sampled_from([2, 3, 5, 9])
)
def test_scales_shifts_turns_and_order_change_nothing(
    seed: int, scale: float, head_scale: float, shift: float, dim: int
) -> None:
    x = oracle.layer(seed, [4, 2, 5, 3], dim)
    rng = np.random.default_rng(seed)
    turn, order = np.linalg.qr(rng.normal(size=(dim, dim)))[0], rng.permutation(len(x.labels))
    classes = rng.permutation(4)
    want = collapse_metrics(x.features, x.labels, x.weight, x.bias)
    moved = collapse_metrics(
        (scale * x.features @ turn)[order],
        np.argsort(classes)[x.labels][order],
        (head_scale * x.weight @ turn)[classes],
        (head_scale * scale * x.bias)[classes],
    )
    # the scores of a shifted layer move by W times the shift, which a bias takes back
    by = shift * rng.normal(size=dim)
    shifted = collapse_metrics(x.features + by, x.labels, x.weight, x.bias - x.weight @ by)
    for got in (shifted, *([moved] if head_scale * scale > 0 else [])):
        for name in ("nc1", "nc2_norm", "nc2_angle", "nc3"):
            torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(shifted.nc4, want.nc4)


def test_scaling_the_head_and_its_bias_leaves_its_choices() -> None:
    x = oracle.layer(3, [9, 8, 7], 4)
    want = collapse_metrics(x.features, x.labels, x.weight, x.bias)
    got = collapse_metrics(x.features, x.labels, 7 * x.weight, 7 * x.bias)
    for name in NAMES:
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-12, atol=1e-14)
    assert 0 < want.nc4 < 1


@pytest.mark.parametrize("shared_labels", [True, False])
@pytest.mark.parametrize("shared_head", [True, False])
@pytest.mark.parametrize("batch", [(3,), (2, 3), (1,), (0,)])
def test_leading_axes_are_batches(batch: tuple[int, ...], shared_head: bool, shared_labels: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 5)
    if not shared_labels:
        labels = np.broadcast_to(labels, (*batch, 20)).copy()
        for i in np.ndindex(batch):
            labels[i] = rng.permutation(labels[i])
    features = rng.normal(size=(*batch, 20, 6)) + 1
    weight = rng.normal(size=(4, 6) if shared_head else (*batch, 4, 6))
    bias = rng.normal(size=4)
    got = collapse_metrics(features, labels, weight, bias)
    assert {v.shape for v in vars(got).values()} == {batch}
    for i in np.ndindex(batch):
        alone = oracle.Layer(
            features[i], labels if shared_labels else labels[i], weight if shared_head else weight[i], bias
        )
        agrees(got, oracle.metrics(alone), index=i)


def test_batches_of_features_and_heads_broadcast() -> None:
    x = oracle.layer(0, [5, 6, 7], 4)
    features = np.stack([x.features, 2 * x.features + 1])[:, None]
    heads = np.stack([x.weight, -x.weight, x.weight**2])
    got = collapse_metrics(features, x.labels, heads, x.bias)
    assert got.nc3.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        agrees(got, oracle.metrics(oracle.Layer(features[i, 0], x.labels, heads[j], x.bias)), index=(i, j))


def test_a_large_batch_of_small_layers_in_one_call() -> None:
    rng = np.random.default_rng(0)
    features, weight = torch.tensor(rng.normal(size=(2000, 12, 3))), torch.tensor(rng.normal(size=(4, 3)))
    labels = torch.arange(4).repeat(3)
    got = collapse_metrics(features, labels, weight)
    for i in (0, 777, 1999):
        alone = collapse_metrics(features[i], labels, weight)
        for name in NAMES:
            torch.testing.assert_close(getattr(got, name)[i], getattr(alone, name), rtol=1e-9, atol=1e-12)


def test_single_precision_is_kept_and_agrees_with_double() -> None:
    x = oracle.layer(1, [40, 30, 50, 20], 16)
    features, labels, weight, bias = on("cpu", x)
    single = collapse_metrics(features.float(), labels, weight.float(), bias.float())
    assert {v.dtype for v in vars(single).values()} == {torch.float32}
    double = oracle.metrics(x)
    for name in NAMES[:4]:
        assert getattr(single, name).item() == pytest.approx(double[name], rel=2e-5), name
    assert single.nc4.item() == pytest.approx(double["nc4"], abs=1.5 / 140)  # one close call may fall the other way


def test_lists_and_whole_numbers_become_float64() -> None:
    got = collapse_metrics([[0, 1], [0, 3], [2, 0], [4, 0]], [0, 0, 1, 1], [[0, 1], [1, 0]])
    assert {v.dtype for v in vars(got).values()} == {torch.float64}
    # means (0, 2) and (3, 0): M = +-(-1.5, 1); both classes vary by 1 in a direction of their own
    axis = np.array([-1.5, 1.0]) / math.sqrt(3.25)
    want = (axis[1] ** 2 * 2 + axis[0] ** 2 * 2) / 4 / 3.25 / 2 * 1
    assert got.nc1.item() == pytest.approx(want)
    assert got.nc4 == 0


def test_gradients_of_the_smooth_metrics_are_those_of_finite_differences() -> None:
    x = oracle.layer(0, [3, 2, 4], 4)
    features, labels, weight, _ = on("cpu", x)

    def smooth(features: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        got = collapse_metrics(features, labels, weight)
        return got.nc1, got.nc2_norm, got.nc2_angle, got.nc3

    assert torch.autograd.gradcheck(smooth, (features.requires_grad_(), weight.requires_grad_()))


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    labels = torch.zeros(40, dtype=torch.int64, device=fake_gpu)
    for batch in ((), (3,)):
        features, weight = torch.rand(*batch, 40, 6, device=fake_gpu), torch.rand(4, 6, device=fake_gpu)
        for bias in (None, torch.rand(4, device=fake_gpu)):
            got = collapse_metrics(features, labels, weight, bias)
            assert {str(v.device) for v in vars(got).values()} == {fake_gpu}
            assert {v.dtype for v in vars(got).values()} == {torch.float32}
            assert {v.shape for v in vars(got).values()} == {batch}


GOOD: dict[str, Any] = {
    "features": [[0.0, 1.0], [0.0, 3.0], [2.0, 0.0], [4.0, 0.0]],
    "labels": [0, 0, 1, 1],
    "weight": [[0.0, 1.0], [1.0, 0.0]],
    "bias": [0.0, 0.0],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [1.0, 2.0]}, r"features: got shape \(2,\), want"),
        ({"features": "two"}, "features: got str"),
        ({"features": [[0.0, math.nan]] * 4}, "features: got nan, want"),
        ({"features": [[0.0, math.inf]] * 4}, "features: got inf, want"),
        ({"features": np.zeros((0, 2)), "labels": np.zeros(0, dtype=int)}, "features|labels"),
        ({"labels": [0, 0, 1]}, r"labels: got shape \(3,\), want .*4"),
        ({"labels": [0, 0, 1, 2]}, "labels: got 2, want"),
        ({"labels": [0, 0, 1, -1]}, "labels: got -1, want"),
        ({"labels": [0.0, 0.0, 1.0, 1.0]}, "labels: got .*float64, want whole numbers"),
        ({"labels": [True, True, False, False]}, "labels: got .*bool, want whole numbers"),
        ({"labels": [0, 0, 0, 0]}, "labels: .*class"),
        ({"labels": 3}, r"labels: got shape \(\)"),
        ({"weight": [0.0, 1.0]}, r"weight: got shape \(2,\), want"),
        ({"weight": [[0.0], [1.0]]}, r"weight: got shape \(2, 1\), want .*2"),
        ({"weight": [[0.0, 1.0]], "labels": [0] * 4, "bias": [0.0]}, r"weight: got .*1"),
        ({"weight": [[0.0, math.nan], [0.0, 1.0]]}, "weight: got nan, want"),
        ({"bias": [0.0]}, r"bias: got shape \(1,\), want .*2"),
        ({"bias": [0.0, math.nan]}, "bias: got nan, want"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collapse_metrics(**(GOOD | change))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    features, weight = (torch.tensor(GOOD[name], dtype=dtype) for name in ("features", "weight"))
    wanted = f"features and weight: got {dtype}, want torch.float32 or torch.float64"
    with pytest.raises(ValueError, match=wanted):
        collapse_metrics(features, GOOD["labels"], weight)
    with pytest.raises(ValueError, match=wanted):
        streamed_collapse_metrics([(features, GOOD["labels"])], weight)
    assert collapse_metrics(features, GOOD["labels"], weight.double()).nc1.dtype == torch.float64


def test_labels_may_have_the_other_order_of_bytes() -> None:
    swapped = GOOD | {"labels": np.array(GOOD["labels"], dtype=">i8")}
    assert collapse_metrics(**swapped) == collapse_metrics(**GOOD)


def test_batches_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"features \(2,\).*weight \(3,\)"):
        collapse_metrics([GOOD["features"]] * 2, GOOD["labels"], [GOOD["weight"]] * 3)


def test_a_class_without_sample_in_any_layer_of_a_batch_is_named() -> None:
    with pytest.raises(ValueError, match=r"labels: .*class"):
        collapse_metrics([GOOD["features"]] * 2, [[0, 0, 1, 1], [1, 1, 1, 1]], GOOD["weight"])
