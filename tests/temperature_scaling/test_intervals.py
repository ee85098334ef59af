"""The overlap model on the line: its pieces by the definition, its samples by counting, its posterior by densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lib.temperature_scaling import (
    IntervalMixture,
    mixup_minimizer_intervals,
    overlap_intervals,
    posterior_intervals,
    sample_intervals,
)

from . import oracle
from .cases import moved

LAYOUTS = [(0.4, 2, 2), (0.4, 8, 2), (0.0, 4, 2), (1.0, 4, 2), (0.6, 6, 3), (0.0, 3, 3), (1.0, 8, 4)]


def as_pieces(mixture: IntervalMixture) -> oracle.Pieces:
    lower, upper, label, weight = (x.numpy() for x in (mixture.lower, mixture.upper, mixture.label, mixture.weight))
    return oracle.Pieces(lower, upper, label, weight, mixture.n_classes)


@pytest.mark.parametrize(("overlap", "k", "m"), LAYOUTS)
def test_pieces_give_the_densities_of_the_definition(overlap: float, k: int, m: int) -> None:
    got, want = overlap_intervals(overlap, k, group_size=m, spacing=5.0), oracle.pieces(overlap, k, m, 5.0)
    assert got.n_classes == k
    assert got.label.dtype == torch.int64
    assert got.lower.dtype == torch.float64
    assert bool((got.upper > got.lower).all())
    assert got.weight.sum().item() == pytest.approx(1, rel=1e-14)
    inside = np.random.default_rng(0).uniform(-1, 5 * k / m, 500)
    mine = np.array([as_pieces(got).density(x) for x in inside])
    np.testing.assert_allclose(mine, [want.density(x) for x in inside], atol=1e-13)


@pytest.mark.parametrize(("overlap", "k", "m"), LAYOUTS)
def test_a_share_of_each_class_lies_where_its_group_is_uniform(overlap: float, k: int, m: int) -> None:
    mixture = overlap_intervals(overlap, k, group_size=m)
    x, y = sample_intervals(mixture, 20_000, generator=torch.Generator().manual_seed(0))
    posterior = posterior_intervals(mixture, x)
    common = (posterior - 1 / m).abs().lt(1e-12).sum(-1) == m
    private = (posterior.amax(-1) - 1).abs() < 1e-12
    assert bool((common ^ private).all())
    assert abs(common.double().mean().item() - overlap) <= 5 * math.sqrt(overlap * (1 - overlap) / 20_000) + 1e-12
    assert bool((posterior.gather(-1, y.unsqueeze(-1)) > 0).all())


def test_pairs_stand_spacing_apart() -> None:
    got = overlap_intervals(0.3, 4, spacing=7.1)
    order = got.label.argsort()
    torch.testing.assert_close(
        got.lower[order], torch.tensor([0.0, 0.7, 7.1, 7.8], dtype=torch.float64), rtol=1e-15, atol=0
    )
    torch.testing.assert_close(got.upper[order], torch.tensor([1.0, 1.7, 8.1, 8.8], dtype=torch.float64))


@pytest.mark.parametrize(("overlap", "k", "m"), [(0.4, 4, 2), (0.6, 6, 3)])
def test_samples_follow_the_pieces(overlap: float, k: int, m: int, device: str) -> None:
    made = overlap_intervals(overlap, k, group_size=m)
    mixture, n = moved(made, device), 50_000
    x, y = (
        t.cpu().numpy() for t in sample_intervals(mixture, n, generator=torch.Generator(device=device).manual_seed(1))
    )
    assert x.shape == y.shape == (n,)
    for label in range(k):
        rows = [
            (float(a), float(b), float(w))
            for a, b, c, w in zip(made.lower, made.upper, made.label, made.weight, strict=True)
            if int(c) == label
        ]

        def cdf(t: np.ndarray, rows: list[tuple[float, float, float]] = rows) -> np.ndarray:
            return np.asarray(sum(w * k * np.clip((t - a) / (b - a), 0, 1) for a, b, w in rows))

        assert stats.kstest(x[y == label], cdf).pvalue > 1e-4
        assert abs((y == label).mean() - 1 / k) < 5 * math.sqrt(1 / k / n)


def test_the_same_generator_gives_the_same_sample_and_none_gives_fresh_ones() -> None:
    mixture = overlap_intervals(0.4, 4)
    one, two = (sample_intervals(mixture, 50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(one, two)
    assert not torch.equal(sample_intervals(mixture, 50)[0], sample_intervals(mixture, 50)[0])
    assert sample_intervals(mixture, 1)[0].shape == (1,)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.sampled_from([(4, 2), (6, 3), (4, 4)]))
def test_the_posterior_is_the_share_of_the_density(seed: int, overlap: float, sizes: tuple[int, int]) -> None:
    k, m = sizes
    mixture = overlap_intervals(overlap, k, group_size=m, spacing=6.0)
    x, _ = sample_intervals(mixture, 20, generator=torch.Generator().manual_seed(seed))
    density = np.array([oracle.pieces(overlap, k, m, 6.0).density(t) for t in x.tolist()])
    got = posterior_intervals(mixture, x)
    np.testing.assert_allclose(got.numpy(), density / density.sum(-1, keepdims=True), atol=1e-12)


def test_pieces_of_any_length_may_be_mixed() -> None:
    lower, upper, weight = np.array([0.0, 0.5, 0.5]), np.array([2.0, 1.0, 4.0]), np.array([0.2, 0.3, 0.5])
    label = np.array([0, 1, 0])
    tensors = [torch.tensor(x) for x in (lower, upper, label, weight)]
    lengthy = IntervalMixture(tensors[0], tensors[1], tensors[2], tensors[3], 2)
    want = oracle.Pieces(lower, upper, label, weight, 2)
    for x in (0.2, 0.7, 1.5, 3.0):
        density = want.density(x)
        np.testing.assert_allclose(posterior_intervals(lengthy, x).numpy(), density / density.sum(), rtol=1e-14)
        p = mixup_minimizer_intervals(lengthy, x).numpy()
        np.testing.assert_allclose(p, oracle.mixup_intervals(want, x, 1.0), atol=2e-6)


def test_the_posterior_has_the_shape_of_its_points() -> None:
    mixture = overlap_intervals(0.4, 4)
    x = torch.rand(2, 3, 5, dtype=torch.float64)
    got = posterior_intervals(mixture, x)
    assert got.shape == (2, 3, 5, 4)
    for i in np.ndindex(2, 3, 5):
        torch.testing.assert_close(got[i], posterior_intervals(mixture, x[i]))
    assert posterior_intervals(mixture, 0.2).tolist() == [1, 0, 0, 0]
    assert posterior_intervals(mixture, [0.7, 4.2]).dtype == torch.float64


def test_intervals_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    pieces = [torch.empty(4, device=fake_gpu) for _ in range(3)]
    mixture = IntervalMixture(pieces[0], pieces[1], torch.empty(4, dtype=torch.int64, device=fake_gpu), pieces[2], 4)
    x, y = sample_intervals(mixture, 7)
    for got, dtype in ((x, torch.float32), (y, torch.int64), (posterior_intervals(mixture, x), torch.float32)):
        assert str(got.device) == fake_gpu
        assert got.dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"overlap": 1.5}, "overlap"),
        ({"overlap": math.nan}, "overlap"),
        ({"overlap": [0.1, 0.2]}, "overlap"),
        ({"n_classes": 3}, "group_size"),
        ({"n_classes": 1}, "n_classes"),
        ({"n_classes": True}, "n_classes"),
        ({"group_size": 1}, "group_size"),
        ({"group_size": 8}, "group_size"),
        ({"spacing": 1.5}, "spacing"),
        ({"spacing": math.nan}, "spacing"),
    ],
)
def test_what_is_wrong_with_a_layout_is_named(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        overlap_intervals(**{"overlap": 0.4, "n_classes": 4} | arguments)  # type: ignore[arg-type]


def test_what_is_wrong_with_a_sample_or_a_point_is_named() -> None:
    mixture = overlap_intervals(0.4, 4)
    with pytest.raises(ValueError, match=r"^n: got 0, want "):
        sample_intervals(mixture, 0)
    with pytest.raises(ValueError, match=r"^x: got nan, want "):
        posterior_intervals(mixture, [0.1, math.nan])
    with pytest.raises(ValueError, match=r"^x: got .*want "):
        posterior_intervals(mixture, "here")
