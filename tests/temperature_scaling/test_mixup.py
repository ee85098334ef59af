"""Minimisers of Mixup against midpoint rules, adaptive quadrature and mixed samples; the batch against a loop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.temperature_scaling import (
    IntervalMixture,
    mixup_batch,
    mixup_minimizer_gaussian,
    mixup_minimizer_intervals,
    overlap_intervals,
    posterior_intervals,
    sample_intervals,
)

from . import oracle
from .test_intervals import moved

POINTS = [0.03, 0.1, 0.5, 0.7, 0.8, 1.05, 1.3, 1.58]


def kl_of_mixup(overlap: float, alpha: float) -> float:
    """E KL(posterior || minimiser) for one pair, by Gauss-Legendre rules between the kinks."""
    mixture, total = overlap_intervals(overlap, 2), 0.0
    edges = sorted({0.0, 1 - overlap, 1.0, 2 - overlap})
    nodes, weights = np.polynomial.legendre.leggauss(80)
    for a, b in itertools.pairwise(edges):
        x = a + (b - a) * (nodes + 1) / 2
        pi, p = posterior_intervals(mixture, x).numpy(), mixup_minimizer_intervals(mixture, x, alpha=alpha).numpy()
        density = np.where((a >= 1 - overlap) & (b <= 1), 1.0, 0.5)
        terms = np.where(pi > 0, pi * np.log(np.where(pi > 0, pi, 1) / p), 0).sum(-1)
        total += float((weights * density * terms).sum() * (b - a) / 2)
    return total


@pytest.mark.parametrize(("alpha", "error"), [(1.0, 2e-6), (2.0, 2e-6), (0.5, 2e-4)])
@pytest.mark.parametrize(("overlap", "k", "m"), [(0.4, 2, 2), (0.4, 4, 2), (0.6, 3, 3), (0.0, 2, 2), (1.0, 2, 2)])
def test_the_minimiser_on_the_line_is_the_mean_of_the_mixed_labels(
    overlap: float, k: int, m: int, alpha: float, error: float, device: str
) -> None:
    made = overlap_intervals(overlap, k, group_size=m)
    points = [x for x in (*POINTS, 2.2, 3.3) if x < made.upper.max() - 0.01]
    z = torch.tensor(points, dtype=torch.float64, device=device)
    got = mixup_minimizer_intervals(moved(made, device), z, alpha=alpha)
    want = [oracle.mixup_intervals(oracle.pieces(overlap, k, m), x, alpha) for x in points]
    np.testing.assert_allclose(got.cpu().numpy(), want, atol=error)  # the error of the midpoint rule with 20,000 nodes


def test_the_minimiser_on_the_line_is_the_average_of_drawn_mixtures() -> None:
    mixture, n = overlap_intervals(0.4, 2), 1_000_000
    source = torch.Generator().manual_seed(0)
    (x1, y1), (x2, y2) = (sample_intervals(mixture, n, generator=source) for _ in range(2))
    lam = torch.rand(n, dtype=torch.float64, generator=source)
    z = lam * x1 + (1 - lam) * x2
    target = lam * (y1 == 0) + (1 - lam) * (y2 == 0)
    for point in (0.2, 0.5, 0.7, 1.3):
        near = (z - point).abs() < 0.01
        se = target[near].std().item() / math.sqrt(int(near.sum()))
        at = mixup_minimizer_intervals(mixture, [point - 0.01, point, point + 0.01])[:, 0]
        curvature = (at[0] - 2 * at[1] + at[2]).abs().item()
        assert abs(target[near].mean().item() - at[1].item()) < 5 * se + curvature + 1e-4


@pytest.mark.parametrize(
    ("overlap", "kl"), [(0.0, 0.137765), (0.1, 0.107895), (0.4, 0.062279), (0.8, 0.027204), (1.0, 0.0)]
)
def test_the_kl_of_one_pair_is_that_of_two_other_quadratures(overlap: float, kl: float) -> None:
    assert kl_of_mixup(overlap, 1.0) == pytest.approx(kl, abs=2e-6)


def test_the_kl_falls_with_fewer_mixtures() -> None:
    assert kl_of_mixup(0.4, 0.5) == pytest.approx(0.0477, abs=2e-4)
    assert kl_of_mixup(0.4, 2.0) == pytest.approx(0.0717, abs=1e-4)


@settings(max_examples=25)
@given(st.floats(0, 1), st.floats(0.5, 4), st.floats(0.001, 0.999))
def test_minimisers_are_distributions_with_the_symmetry_of_the_pair(overlap: float, alpha: float, part: float) -> None:
    mixture, width = overlap_intervals(overlap, 2), 2 - overlap
    p = mixup_minimizer_intervals(mixture, [part * width, width - part * width, width / 2], alpha=alpha)
    assert bool((p >= 0).all())
    torch.testing.assert_close(p.sum(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(p[0], p[1].flip(-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(p[2], torch.full((2,), 0.5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_no_mixture_outside_the_hull() -> None:
    mixture = overlap_intervals(0.4, 4)
    p = mixup_minimizer_intervals(mixture, [-0.1, 2.2, 4.7])
    assert p.isnan().all(-1).tolist() == [True, False, True]
    assert (p[1] > 0).all()


def test_nodes_converge_and_shapes_follow_the_points() -> None:
    mixture = overlap_intervals(0.4, 4)
    z = torch.rand(2, 3, dtype=torch.float64) * 4.5
    fine = mixup_minimizer_intervals(mixture, z, n_nodes=96)
    torch.testing.assert_close(mixup_minimizer_intervals(mixture, z), fine, rtol=0, atol=1e-10)
    assert fine.shape == (2, 3, 4)
    for i in np.ndindex(2, 3):
        torch.testing.assert_close(fine[i], mixup_minimizer_intervals(mixture, z[i], n_nodes=96))
    assert mixup_minimizer_intervals(mixture, 0.5).shape == (4,)


MEANS = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, 2.0]])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("sigma", [0.3, 1.0])
@pytest.mark.parametrize("prior", [None, [0.5, 0.3, 0.2]])
def test_the_gaussian_minimiser_is_the_mean_of_the_mixed_labels(
    alpha: float, sigma: float, prior: list[float] | None, device: str
) -> None:
    x = np.array([[0.3, 0.2], [1.0, 0.1], [-2.0, -1.0]])
    shares = np.full(3, 1 / 3) if prior is None else np.array(prior)
    want = [oracle.mixup_gaussian(row, MEANS, sigma, shares, alpha) for row in x]
    given_means = torch.tensor(MEANS, device=device)
    got = mixup_minimizer_gaussian(torch.tensor(x, device=device), given_means, sigma, prior=prior, alpha=alpha)
    np.testing.assert_allclose(got.cpu().numpy(), want, atol=1e-9 if alpha >= 1 else 2e-6)


def test_the_gaussian_minimiser_is_the_average_of_drawn_mixtures() -> None:
    rng, n = np.random.default_rng(0), 1_000_000
    y1, y2 = rng.integers(2, size=(2, n))
    lam = rng.random(n)
    z = lam * (2 * y1 - 1 + rng.normal(size=n)) + (1 - lam) * (2 * y2 - 1 + rng.normal(size=n))
    target = lam * y1 + (1 - lam) * y2
    for point in (-0.5, 0.8, 2.0):
        near = np.abs(z - point) < 0.02
        got = mixup_minimizer_gaussian([point], [[-1.0], [1.0]], 1.0)[1].item()
        assert abs(target[near].mean() - got) < 5 * target[near].std() / math.sqrt(near.sum()) + 2e-4


def test_in_many_dimensions_nothing_overflows_and_it_tends_to_the_posterior() -> None:
    d = 5000
    x = torch.randn(4, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means = torch.zeros(2, d, dtype=torch.float64)
    means[:, 0] = torch.tensor([1.0, -1.0])
    got = mixup_minimizer_gaussian(x + means[0], means, 1.0)
    bayes = torch.sigmoid(2 * (x[:, 0] + 1))
    assert bool(got.isfinite().all())
    torch.testing.assert_close(got[:, 0], bayes, rtol=0, atol=0.02)


def test_the_gaussian_batch_is_the_loop_and_classes_may_be_exchanged() -> None:
    x = torch.randn(2, 3, 2, dtype=torch.float64)
    prior = [0.2, 0.5, 0.3]
    got = mixup_minimizer_gaussian(x, MEANS, 0.7, prior=prior)
    assert got.shape == (2, 3, 3)
    torch.testing.assert_close(got.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    for i in np.ndindex(2, 3):
        torch.testing.assert_close(got[i], mixup_minimizer_gaussian(x[i], MEANS, 0.7, prior=prior))
    other = mixup_minimizer_gaussian(x, MEANS[[2, 0, 1]].copy(), 0.7, prior=[0.3, 0.2, 0.5])
    torch.testing.assert_close(other, got[..., [2, 0, 1]])


def test_minimisers_keep_their_kind() -> None:
    x = torch.randn(5, 2)
    single = mixup_minimizer_gaussian(x, torch.tensor(MEANS, dtype=torch.float32), 0.7)
    double = mixup_minimizer_gaussian(x.double(), MEANS, 0.7)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)
    made = overlap_intervals(0.4, 4)
    z = torch.linspace(0.1, 1.4, 9)
    single = mixup_minimizer_intervals(moved(made, "cpu", torch.float32), z)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), mixup_minimizer_intervals(made, z.double()), rtol=0, atol=1e-4)


def test_minimisers_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    pieces = [torch.empty(2, device=fake_gpu) for _ in range(3)]
    mixture = IntervalMixture(pieces[0], pieces[1], torch.empty(2, dtype=torch.int64, device=fake_gpu), pieces[2], 2)
    x, means = torch.empty(3, 2, device=fake_gpu), torch.empty(4, 2, device=fake_gpu)
    for got, shape in (
        (mixup_minimizer_intervals(mixture, torch.empty(5, device=fake_gpu)), (5, 2)),
        (mixup_minimizer_gaussian(x, means, 1.0), (3, 4)),
    ):
        assert str(got.device) == fake_gpu
        assert got.shape == shape
        assert got.dtype == torch.float32


@pytest.mark.parametrize("per_row", [False, True])
def test_a_mixed_batch_is_the_loop_over_rows_and_parts(per_row: bool, device: str) -> None:
    rng = np.random.default_rng(0)
    n, m, k = 6, 3, 4
    inputs, labels = rng.normal(size=(n, 2, 5)), rng.integers(k, size=n)
    weights = rng.dirichlet(np.ones(m), size=n) if per_row else rng.dirichlet(np.ones(m))
    permutations = np.stack([rng.permutation(n) for _ in range(m)])
    x, y, w, order = (torch.tensor(part, device=device) for part in (inputs, labels, weights, permutations))
    got = mixup_batch(x, y, w, order, k)
    mixed, targets = np.zeros_like(inputs), np.zeros((n, k))
    for row in range(n):
        for part in range(m):
            share = weights[row, part] if per_row else weights[part]
            mixed[row] += share * inputs[permutations[part, row]]
            targets[row, labels[permutations[part, row]]] += share
    np.testing.assert_allclose(got[0].cpu().numpy(), mixed, atol=1e-14)
    np.testing.assert_allclose(got[1].cpu().numpy(), targets, atol=1e-14)


def test_one_part_is_the_batch_itself_and_dtypes_stay() -> None:
    inputs, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    mixed, targets = mixup_batch(inputs, labels, [1.0], [[0, 1, 2, 3]], 3)
    assert torch.equal(mixed, inputs)
    assert (mixed.dtype, targets.dtype) == (torch.float32, torch.float32)
    assert targets.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert mixup_batch([[1.0], [3.0]], [0, 1], [0.5, 0.5], [[0, 1], [1, 0]], 2)[0].tolist() == [[2], [2]]


def test_gradients_flow_through_a_mixed_batch() -> None:
    inputs = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    permutations = torch.tensor([[0, 1, 2], [2, 0, 1]])
    labels = torch.tensor([0, 1, 1])
    assert torch.autograd.gradcheck(lambda x: mixup_batch(x, labels, weights, permutations, 2)[0], (inputs,))


def test_a_batch_is_mixed_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    mixed, targets = mixup_batch(
        torch.empty(4, 3, device=fake_gpu),
        torch.empty(4, dtype=torch.int64, device=fake_gpu),
        torch.empty(2, device=fake_gpu),
        torch.empty(2, 4, dtype=torch.int64, device=fake_gpu),
        5,
    )
    assert (str(mixed.device), str(targets.device)) == (fake_gpu, fake_gpu)
    assert (mixed.shape, targets.shape) == ((4, 3), (4, 5))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"weights": [0.5, 0.4]}, "weights"),
        ({"weights": [1.5, -0.5]}, "weights"),
        ({"weights": [math.nan, 1.0]}, "weights"),
        ({"weights": [1.0]}, "weights"),
        ({"weights": [[0.5, 0.5]]}, "weights"),
        ({"labels": [0, 1, 3]}, "labels"),
        ({"labels": [0, -1, 1]}, "labels"),
        ({"labels": [0.0, 1.0, 1.0]}, "labels"),
        ({"labels": [0, 1]}, "labels"),
        ({"permutations": [[0, 1, 2], [0, 1, 3]]}, "permutations"),
        ({"permutations": [[0, 1, 2], [0, 1, -1]]}, "permutations"),
        ({"permutations": [[0, 1], [0, 1]]}, "permutations"),
        ({"permutations": [0, 1, 2]}, "permutations"),
        ({"permutations": [[0.0, 1.0, 2.0]] * 2}, "permutations"),
        ({"inputs": 1.0}, "inputs"),
        ({"n_classes": 0}, "n_classes"),
    ],
)
def test_what_is_wrong_with_a_batch_is_named(change: dict[str, object], name: str) -> None:
    arguments = {
        "inputs": [[1.0], [2.0], [3.0]],
        "labels": [0, 1, 1],
        "weights": [0.5, 0.5],
        "permutations": [[0, 1, 2], [2, 0, 1]],
        "n_classes": 2,
    }
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        mixup_batch(**arguments | change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"n_nodes": 0}, "n_nodes"),
        ({"z": "x"}, "z"),
        ({"z": [0.5, math.nan]}, "z"),
    ],
)
def test_what_is_wrong_with_a_minimiser_on_the_line_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        mixup_minimizer_intervals(overlap_intervals(0.4, 2), **{"z": [0.5]} | change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": -1.0}, "sigma"),
        ({"prior": [0.5, 0.6]}, "prior"),
        ({"prior": [1.0]}, "prior"),
        ({"prior": [1.5, -0.5]}, "prior"),
        ({"means": [1.0, 2.0]}, "means"),
        ({"means": [[1.0, 2.0], [0.0, 1.0]]}, "(x|means)"),
        ({"x": [math.nan]}, "x"),
        ({"x": 1.0}, "x"),
        ({"alpha": -1.0}, "alpha"),
        ({"n_nodes": 0}, "n_nodes"),
    ],
)
def test_what_is_wrong_with_a_gaussian_minimiser_is_named(change: dict[str, object], name: str) -> None:
    arguments = {"x": [0.5], "means": [[1.0], [-1.0]], "sigma": 1.0}
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        mixup_minimizer_gaussian(**arguments | change)  # type: ignore[arg-type]
