"""The minimiser of Mixup on a line against a midpoint rule and drawn mixtures."""

from __future__ import annotations

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.temperature_scaling import (
    IntervalMixture,
    mixup_minimizer_intervals,
    overlap_intervals,
    posterior_intervals,
    sample_intervals,
)

from . import oracle
from .cases import moved

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


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_derivatives_in_the_point_are_those_of_finite_differences(alpha: float) -> None:
    z = torch.tensor([0.07, 0.3, 0.55, 0.8, 1.3], dtype=torch.float64, requires_grad=True)
    for overlap, k in ((0.4, 2), (0.4, 4), (0.0, 2)):
        mixture = overlap_intervals(overlap, k)
        assert torch.autograd.gradcheck(
            lambda x, mixture=mixture: mixup_minimizer_intervals(mixture, x, alpha=alpha), (z,), atol=1e-6, rtol=1e-4
        )


def test_numbers_may_be_numpys_or_tensors_without_axes() -> None:
    mixture, unchecked = overlap_intervals(0.4, 2), inspect.unwrap(mixup_minimizer_intervals)
    want = mixup_minimizer_intervals(mixture, [0.3], alpha=0.5, n_nodes=16)
    for alpha in (np.float32(0.5), np.array(0.5), torch.tensor(0.5)):
        torch.testing.assert_close(unchecked(mixture, [0.3], alpha=alpha, n_nodes=np.int64(16)), want, rtol=0, atol=0)
    spaced = inspect.unwrap(overlap_intervals)(0.4, 4, spacing=torch.tensor(2.5))
    torch.testing.assert_close(spaced.lower, overlap_intervals(0.4, 4, spacing=2.5).lower, rtol=0, atol=0)


def test_the_minimiser_keeps_its_kind() -> None:
    made, z = overlap_intervals(0.4, 4), torch.linspace(0.1, 1.4, 9)
    single = mixup_minimizer_intervals(moved(made, "cpu", torch.float32), z)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), mixup_minimizer_intervals(made, z.double()), rtol=0, atol=1e-4)


def test_the_minimiser_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    pieces = [torch.empty(2, device=fake_gpu) for _ in range(3)]
    mixture = IntervalMixture(pieces[0], pieces[1], torch.empty(2, dtype=torch.int64, device=fake_gpu), pieces[2], 2)
    got = mixup_minimizer_intervals(mixture, torch.empty(5, device=fake_gpu))
    assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (5, 2))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"alpha": True}, "alpha"),
        ({"n_nodes": 0}, "n_nodes"),
        ({"z": "x"}, "z"),
        ({"z": [0.5, math.nan]}, "z"),
    ],
)
def test_what_is_wrong_with_a_minimiser_on_the_line_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        mixup_minimizer_intervals(overlap_intervals(0.4, 2), **{"z": [0.5]} | change)  # type: ignore[arg-type]
