"""The sampled distance by sums over pairs of replicates, its bias by formula, and what counts as nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.starc import sampled_distance


def by_pairs(C1: np.ndarray, C2: np.ndarray, weights: np.ndarray, debias: bool) -> float:
    """Inner products averaged over all pairs of replicates, or over those of different ones."""
    replicates = range(C1.shape[1])
    pairs = [(j, k) for j, k in itertools.product(replicates, replicates) if not debias or j != k]

    def product(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([(weights * x[:, j] * y[:, k]).sum() for j, k in pairs]))

    cosine = product(C1, C2) / math.sqrt(product(C1, C1) * product(C2, C2))
    return math.sqrt(2 - 2 * min(max(cosine, -1.0), 1.0))


@pytest.mark.parametrize("replicates", [1, 2, 3, 8])
@pytest.mark.parametrize("debias", [False, True])
def test_inner_products_run_over_pairs_of_replicates(replicates: int, debias: bool, device: str) -> None:
    if debias and replicates == 1:
        return
    rng = np.random.default_rng(replicates)
    signal = rng.normal(size=(2, 50, 1))
    C1, C2 = signal + 0.3 * rng.normal(size=(2, 50, replicates))
    for weights, given_weights in ((np.ones(50), None), (w := rng.exponential(size=50), w)):
        one, two = (torch.tensor(x, device=device) for x in (C1, C2))
        got = sampled_distance(one, two, given_weights, debias)
        assert got.item() == pytest.approx(by_pairs(C1, C2, weights, debias), rel=1e-11)


def test_debiasing_is_the_default_and_no_weights_are_equal_weights() -> None:
    C1, C2 = np.random.default_rng(0).normal(size=(2, 40, 3)) + 2
    assert sampled_distance(C1, C2) == sampled_distance(C1, C2, None, True)
    torch.testing.assert_close(sampled_distance(C1, C2, np.full(40, 7.0)), sampled_distance(C1, C2))
    assert abs(sampled_distance(C1, C2) - sampled_distance(C1, C2, debias=False)) > 1e-2


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_without_noise_it_is_the_angle(seed: int, scale: float) -> None:
    x, y = np.random.default_rng(seed).normal(size=(2, 6, 1))
    C1, C2 = np.repeat(x, 3, 1), scale * np.repeat(y, 3, 1)
    cosine = (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)
    for debias in (False, True):
        got = sampled_distance(C1, C2, debias=debias).item()
        assert got == pytest.approx(math.sqrt(2 - 2 * cosine), abs=1e-7)  # the root of a difference of 1e-15
        assert sampled_distance(C1, scale * C1, debias=debias) < 1e-7
        assert sampled_distance(C1, C1, debias=debias) == 0
        assert sampled_distance(C1, -scale * C1, debias=debias).item() == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize(("noise", "replicates"), [(1.0, 2), (4.0, 16), (4.0, 64)])
def test_identical_rewards_appear_at_the_attenuated_distance_unless_debiased(noise: float, replicates: int) -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    signal = rng.normal(size=(n, 1))
    C1, C2 = signal + noise * rng.normal(size=(2, n, replicates))
    share = 1 / (1 + noise**2 / replicates)
    naive = sampled_distance(C1, C2, debias=False).item()
    assert naive == pytest.approx(math.sqrt(2 - 2 * share), abs=6 / math.sqrt(n))  # error of a cosine is n^(-1/2)
    assert sampled_distance(C1, C2) ** 2 < 0.1 * naive**2


def test_debiased_products_are_unbiased_also_where_both_rewards_share_their_samples() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    x, y = rng.normal(size=(2, n, 1))
    noise = 2 * rng.normal(size=(n, 4))
    want = math.sqrt(2 - 2 * (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))
    assert sampled_distance(x + noise, y + noise).item() == pytest.approx(want, abs=6 * 5 / math.sqrt(n))
    assert abs(sampled_distance(x + noise, y + noise, debias=False).item() - want) > 0.2


def test_a_square_that_is_not_positive_counts_as_nothing() -> None:
    opposite = [[1.0, -1.0], [-2.0, 2.0]]  # products of different replicates are negative
    something, zero = [[1.0, 1.0], [0.0, 1.0]], np.zeros((2, 2))
    for nothing in (opposite, zero):
        assert sampled_distance(nothing, something) == 1
        assert sampled_distance(something, nothing) == 1
        assert sampled_distance(nothing, opposite) == sampled_distance(zero, nothing) == 0
    for nothing in (opposite, zero):  # replicates that cancel average to zero
        assert sampled_distance(nothing, something, debias=False) == 1
        assert sampled_distance(nothing, opposite, debias=False) == 0


def test_weights_that_are_all_zero_are_no_norm() -> None:
    with pytest.raises(ValueError, match="weights: got 0, want at least one positive weight"):
        sampled_distance([[1.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 1.0]], [0.0, 0.0])


def test_no_gradient_is_infinite_where_a_square_counts_as_nothing() -> None:
    one, two = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([[0.0, 0.0]] * 2, [[1.0, 2.0]] * 2))
    for debias in (False, True):
        gradients = torch.autograd.grad(sampled_distance(one, two, debias=debias), (one, two))
        assert [x.abs().max().item() for x in gradients] == [0, 0]


def test_the_cosine_is_cut_where_noise_takes_it_out_of_range() -> None:
    C1, C2 = [[1.0, 1.0], [1.0, -0.9]], [[1.0, 1.0], [1.0, 1.0]]
    assert by_pairs(np.array(C1), np.array(C2), np.ones(2), True) == 0  # 2.05 / sqrt(0.1 * 2) is far above 1
    assert sampled_distance(C1, C2) == 0
    assert sampled_distance(C1, -np.array(C2)) == 2


def test_leading_axes_of_all_arguments_broadcast() -> None:
    rng = np.random.default_rng(0)
    C1, C2, w = rng.normal(size=(1, 4, 9, 3)) + 1, rng.normal(size=(3, 1, 9, 3)) + 1, rng.exponential(size=(2, 1, 1, 9))
    got = sampled_distance(C1, C2, w)
    assert got.shape == (2, 3, 4)
    for i, j, k in np.ndindex(2, 3, 4):
        torch.testing.assert_close(got[i, j, k], sampled_distance(C1[0, k], C2[j, 0], w[i, 0, 0]))
    assert sampled_distance(C1[0, 0], C2[0, 0], w).shape == (2, 1, 1)
    assert sampled_distance(C1[:, 0], C2[0, 0]).shape == (1,)


def test_gradients_are_those_of_finite_differences_and_vmap_is_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    C1, C2 = (torch.randn(4, 6, 3, dtype=torch.float64, generator=generator) + i for i in (1, 2))
    w = torch.rand(6, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(sampled_distance, tuple(x.requires_grad_() for x in (C1[0], C2[0], w)))
    torch.testing.assert_close(torch.func.vmap(sampled_distance)(C1, C2), sampled_distance(C1, C2))


def test_dtypes_follow_the_tensors_and_lists_become_float64() -> None:
    C1, C2 = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0)) + 1
    single, double = sampled_distance(C1, C2), sampled_distance(C1.double(), C2.tolist())
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)
    assert sampled_distance([[1, 2]], torch.tensor([[1, 2]])).dtype == torch.float64


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    C1, C2 = torch.rand(5, 20, 3, device=fake_gpu), torch.rand(20, 3, device=fake_gpu)
    for weights in (None, torch.rand(2, 1, 20, device=fake_gpu), [1.0] * 20):
        for debias in (False, True):
            got = sampled_distance(C1, C2, weights, debias)
            assert (str(got.device), got.dtype) == (fake_gpu, torch.float32)


ONE = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"C1": [1.0, 2.0]}, r"C1: got shape \(2,\), want \(\*batch, n, m\)"),
        ({"C1": [[]]}, r"C1: got shape \(1, 0\), want \(\*batch, n, m\)"),
        ({"C2": [[1.0, 2.0]] * 2}, r"C2: got shape \(2, 2\), want \(\*batch, 3, 2\) as C1 has it"),
        ({"C2": [[1.0]] * 3}, r"C2: got shape \(3, 1\), want \(\*batch, 3, 2\) as C1 has it"),
        ({"C1": [[1.0]] * 3, "C2": [[1.0]] * 3}, "C1: got 1 replicate, want at least 2 to remove the bias"),
        ({"C1": [[1.0, math.nan]] * 3}, "C1: got nan, want finite numbers"),
        ({"C2": [[1.0, math.inf]] * 3}, "C2: got inf, want finite numbers"),
        ({"weights": [1.0, 1.0]}, r"weights: got shape \(2,\), want \(\*batch, 3\)"),
        ({"weights": [1.0, -1.0, 1.0]}, "weights: got -1, want a finite number >= 0"),
        ({"weights": [1.0, math.nan, 1.0]}, "weights: got nan, want a finite number >= 0"),
        ({"C1": [ONE] * 2, "C2": [ONE] * 3}, r"C1 \(2,\), C2 \(3,\).*: got shapes that do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"C1": ONE, "C2": ONE} | change
    with pytest.raises(ValueError, match=message):
        sampled_distance(**arguments)  # type: ignore[arg-type]
