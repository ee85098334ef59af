"""Metrics of samples that come batch by batch against those of all together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lib.neural_collapse import CollapseMetrics, collapse_metrics, streamed_collapse_metrics

from . import oracle

NAMES = ("nc1", "nc2_norm", "nc2_angle", "nc3", "nc4")


def pieces(x: oracle.Layer, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    cuts = np.cumsum(sizes)[:-1]
    return [
        (torch.tensor(h), torch.tensor(y))
        for h, y in zip(np.split(x.features, cuts), np.split(x.labels, cuts), strict=True)
    ]


def same(got: CollapseMetrics, want: CollapseMetrics, rtol: float = 1e-10) -> None:
    for name in NAMES:
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=rtol, atol=1e-14)


@pytest.mark.parametrize("sizes", [[150], [50] * 3, [1] * 150, [149, 1], [1, 2, 147]])
@pytest.mark.parametrize("noise", [1.0, 1e-3, 1e-8])
def test_batches_give_what_all_samples_together_give(sizes: list[int], noise: float) -> None:
    x = oracle.layer(0, [40, 50, 60], 6, noise=noise, offset=7.0)
    want = collapse_metrics(x.features, x.labels, x.weight, x.bias)
    same(streamed_collapse_metrics(pieces(x, sizes), x.weight, x.bias), want)
    if noise == 1:
        for name, value in oracle.metrics(x).items():
            got = streamed_collapse_metrics(pieces(x, sizes), x.weight, x.bias)
            assert getattr(got, name).item() == pytest.approx(value, rel=1e-9)


def test_batches_sorted_by_class_and_many_classes() -> None:
    x = oracle.layer(1, [30] * 250, 160)  # enough for the screen in single precision
    order = np.argsort(x.labels)
    x = oracle.Layer(x.features[order], x.labels[order], x.weight, x.bias)
    want = collapse_metrics(x.features, x.labels, x.weight, x.bias)
    same(streamed_collapse_metrics(pieces(x, [1500] * 5), x.weight, x.bias), want)


def test_a_data_loader_may_shuffle_between_the_passes() -> None:
    x = oracle.layer(2, [20, 30, 25], 5)
    data = TensorDataset(torch.tensor(x.features), torch.tensor(x.labels))
    loader = DataLoader(data, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(0))
    got = streamed_collapse_metrics(loader, x.weight, x.bias)
    same(got, collapse_metrics(x.features, x.labels, x.weight, x.bias))


def test_lists_of_whole_numbers_and_single_precision() -> None:
    batches: list[Any] = [([[1, 0], [3, 1]], [0, 0]), ([[-2, 5]], [1])]
    got = streamed_collapse_metrics(batches, [[2, 0], [-2, 1]])
    same(got, collapse_metrics([[1, 0], [3, 1], [-2, 5]], [0, 0, 1], [[2, 0], [-2, 1]]))
    assert {v.dtype for v in vars(got).values()} == {torch.float64}
    x = oracle.layer(3, [20, 30, 25], 5)
    low = [(h.float(), y) for h, y in pieces(x, [25] * 3)]
    single = streamed_collapse_metrics(low, torch.tensor(x.weight).float())
    assert {v.dtype for v in vars(single).values()} == {torch.float32}
    same(single, collapse_metrics(torch.tensor(x.features).float(), x.labels, torch.tensor(x.weight).float()), 1e-5)


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    labels = torch.zeros(20, dtype=torch.int64, device=fake_gpu)
    batches = [(torch.rand(20, 6, device=fake_gpu), labels) for _ in range(3)]
    got = streamed_collapse_metrics(batches, torch.rand(4, 6, device=fake_gpu), torch.rand(4, device=fake_gpu))
    assert {str(v.device) for v in vars(got).values()} == {fake_gpu}
    assert {v.shape for v in vars(got).values()} == {()}


WEIGHT = [[1.0, 0.0], [0.0, 1.0]]
FINE: list[Any] = [([[1.0, 0.0]], [0]), ([[0.0, 2.0]], [1])]


@pytest.mark.parametrize(
    ("batches", "weight", "message"),
    [
        ([], WEIGHT, "batches: got none, want"),
        ([[[1.0, 0.0]]], WEIGHT, "batches: got a list in it, want pairs of features and labels"),
        (iter([torch.ones(2, 2)]), WEIGHT, "batches: got a Tensor in it, want pairs of features and labels"),
        ([*FINE, ([[1.0]], [0])], WEIGHT, r"features: got shape \(1, 1\), want .*2"),
        ([*FINE, ([[[1.0, 0.0]]], [0])], WEIGHT, r"features: got shape \(1, 1, 2\), want"),
        ([*FINE, ([[1.0, math.nan]], [0])], WEIGHT, "features: got nan, want"),
        ([*FINE, ([[1.0, 0.0]], [2])], WEIGHT, "labels: got 2, want"),
        ([*FINE, ([[1.0, 0.0]], [0, 1])], WEIGHT, r"labels: got shape \(2,\), want"),
        ([*FINE, ([[1.0, 0.0]], [0.0])], WEIGHT, "labels: got .*float64, want whole numbers"),
        (FINE, [*WEIGHT, [1.0, 1.0]], "labels: .*class"),
        (FINE, [[1.0, 0.0]], r"weight: got shape \(1, 2\), want"),
        (FINE, [WEIGHT] * 2, r"weight: got shape \(2, 2, 2\), want"),
        (FINE, [[math.inf, 0.0], [0.0, 1.0]], "weight: got inf, want"),
    ],
)
def test_what_is_wrong_is_named(batches: Any, weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        streamed_collapse_metrics(batches, weight)


def test_a_generator_is_refused_because_it_is_gone_after_the_first_pass() -> None:
    def batches() -> Iterator[Any]:
        yield from FINE

    with pytest.raises(ValueError, match="batches: got 2 samples, then 0, want the same"):
        streamed_collapse_metrics(batches(), WEIGHT)


def test_batches_that_change_in_number_are_refused() -> None:
    counter = itertools.count()

    class Growing:
        def __iter__(self) -> Iterator[Any]:
            yield from FINE * (1 + next(counter))

    with pytest.raises(ValueError, match="batches: got 2 samples, then 4"):
        streamed_collapse_metrics(Growing(), WEIGHT)
