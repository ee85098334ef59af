"""The tangent kernel against derivatives of the network, its spectrum and alignment against exact Gaussian sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.grokking import kernel_alignment, moments, network_output, ntk, ntk_spectrum, population_alignment

from . import oracle

RNG = np.random.default_rng(11)
W, X, Z = RNG.normal(size=(4, 3)), RNG.normal(size=(7, 3)), RNG.normal(size=(5, 3))


def test_it_is_the_gram_matrix_of_derivatives(device: str) -> None:
    w, alpha, eps = torch.tensor(W), 1.7, 0.4
    first, second = (
        torch.func.jacrev(lambda p, x=x: network_output(p, torch.tensor(x), alpha, eps))(w).flatten(1) for x in (X, Z)
    )
    want = first @ second.mT * len(W) / alpha**2
    mean, square = moments(torch.tensor(W, device=device))
    got = ntk(torch.tensor(X, device=device), Z, eps, mean, square)
    torch.testing.assert_close(got.cpu(), want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got.cpu(), oracle.tangent_kernel(X, Z, W, eps), rtol=1e-11, atol=1e-12)


def test_a_wide_network_has_the_kernel_of_infinite_width() -> None:
    wide = ntk(X, Z, 0.6)
    np.testing.assert_allclose(wide, oracle.wide_kernel(X, Z, 0.6), rtol=1e-12)
    np.testing.assert_allclose(ntk(X, Z, 0.6, np.zeros(3), np.eye(3)), wide, rtol=1e-12)
    w = np.random.default_rng(0).normal(size=(200_000, 3))
    np.testing.assert_allclose(oracle.tangent_kernel(X, Z, w, 0.6), wide, atol=0.03 * float(wide.abs().max()))


def test_one_moment_may_be_left_to_the_wide_start() -> None:
    mean = W.mean(0)
    np.testing.assert_allclose(ntk(X, Z, 0.6, mean), ntk(X, Z, 0.6, mean, np.eye(3)), rtol=1e-13)
    second = W.T @ W / 4
    np.testing.assert_allclose(ntk(X, Z, 0.6, second=second), ntk(X, Z, 0.6, np.zeros(3), second), rtol=1e-13)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 2))
def test_it_is_a_kernel(dim: int, seed: int, eps: float) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(6, dim)), rng.normal(size=(3, dim))
    for known in ((), moments(w)):
        K = ntk(x, x, eps, *known)
        torch.testing.assert_close(K, K.mT, rtol=1e-11, atol=1e-11)
        assert torch.linalg.eigvalsh(K).min() > -1e-10 * K.abs().max()


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("eps", [0.0, 0.3, 2.0])
def test_the_spectrum_is_that_of_the_integral_operator(dim: int, eps: float) -> None:
    got = ntk_spectrum(dim, eps)
    levels = [got.linear.item(), got.quadratic.item(), got.trace.item()]
    count = [dim, dim * (dim + 1) // 2 - 1, 1]
    assert list(got.multiplicity) == count
    want = oracle.nystrom(dim, eps)[3]
    listed = sorted(np.repeat(levels, count), reverse=True)
    np.testing.assert_allclose(listed, want[: len(listed)], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(want[len(listed) :], 0, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 7, 300])
def test_the_eigenvalues_add_up_to_the_mean_of_the_diagonal(dim: int) -> None:
    got = ntk_spectrum(dim, 0.4)
    levels = (got.linear, got.quadratic, got.trace)
    total = sum(k * v.item() for k, v in zip(got.multiplicity, levels, strict=True))
    assert total == pytest.approx(1 + 0.16 * (dim + 2) / dim, rel=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("eps", [0.1, 0.5, 3.0])
def test_population_alignment_is_a_ratio_of_exact_sums(dim: int, eps: float) -> None:
    K, p, x, _ = oracle.nystrom(dim, eps)
    beta = RNG.normal(size=dim)
    y = oracle.target(x, beta * math.sqrt(dim) / np.linalg.norm(beta))
    py = p * y
    want = py @ K @ py / (math.sqrt(p @ K**2 @ p) * (p @ y**2))
    assert population_alignment(dim, eps).item() == pytest.approx(want, rel=1e-10)


def test_population_alignment_grows_with_eps_from_zero() -> None:
    got = population_alignment(50, torch.tensor([0.0, 0.1, 0.5, 1.0, 5.0], dtype=torch.float64))
    assert got[0].item() == 0
    assert (got.diff() > 0).all()
    assert got[2].item() == pytest.approx(0.01364, abs=1e-5)  # the figure of a Monte Carlo study outside this test


def test_alignment_of_a_sample_is_its_definition(device: str) -> None:
    y = RNG.normal(size=7)
    K = X @ X.T
    want = sum(K[i, j] * y[i] * y[j] for i in range(7) for j in range(7))
    want /= math.sqrt(sum(k**2 for k in K.flatten())) * sum(v**2 for v in y)
    got = kernel_alignment(torch.tensor(K, device=device), torch.tensor(y, device=device))
    assert got.item() == pytest.approx(want, rel=1e-12)
    assert kernel_alignment(np.outer(y, y), y).item() == pytest.approx(1, rel=1e-12)
    assert kernel_alignment(np.eye(7), y).item() == pytest.approx(1 / math.sqrt(7), rel=1e-12)
    for size in (1e-100, 1e100):
        assert kernel_alignment(K * size, y).item() == pytest.approx(want, rel=1e-12)
        assert kernel_alignment(K, y * size).item() == pytest.approx(want, rel=1e-12)


def test_batches_are_their_members() -> None:
    xs, ws = RNG.normal(size=(3, 1, 7, 3)), RNG.normal(size=(2, 4, 3))
    got = ntk(xs, Z, [0.1, 0.6], *moments(ws))
    assert got.shape == (3, 2, 7, 5)
    for i in range(3):
        for j, eps in enumerate((0.1, 0.6)):
            want = oracle.tangent_kernel(xs[i, 0], Z, ws[j], eps)
            np.testing.assert_allclose(got[i, j], want, rtol=1e-11, atol=1e-12)
    assert ntk(xs, Z, [0.1, 0.6]).shape == (3, 2, 7, 5)
    square, y = ntk(xs, xs, 0.3), RNG.normal(size=(2, 7))
    aligned = kernel_alignment(square, y)
    assert aligned.shape == (3, 2)
    assert aligned[2, 1].item() == pytest.approx(kernel_alignment(square[2, 0], y[1]).item())
    assert population_alignment(5, [0.1, 0.2]).shape == (2,)
    assert ntk_spectrum(5, [0.1, 0.2]).trace.shape == (2,)


def test_single_precision_stays_and_agrees() -> None:
    low = ntk(torch.tensor(X, dtype=torch.float32), Z, 0.4, *moments(W))
    assert low.dtype in (torch.float32, torch.float64)  # moments are given in double precision
    low = ntk(torch.tensor(X, dtype=torch.float32), Z, 0.4)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), ntk(X, Z, 0.4), rtol=1e-5, atol=1e-5)
    assert population_alignment(5, torch.tensor(0.3)).dtype == torch.float32
    assert population_alignment(5, 0.3).dtype == torch.float64


def test_gradients_pass_through() -> None:
    x, z = (torch.tensor(a, requires_grad=True) for a in (X[:3], Z[:2]))
    mean, second = (a.clone().requires_grad_() for a in moments(W))
    eps = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ntk, (x, z, eps, mean, second))
    assert torch.autograd.gradcheck(lambda e: population_alignment(4, e), (eps,))
    y = torch.tensor(RNG.normal(size=3), requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: kernel_alignment(a @ a.mT, b), (x, y))


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    x, eps, w = (torch.empty(*s, device=fake_gpu) for s in ((2, 7, 3), (2,), (4, 3)))
    K = ntk(x, x, eps)
    for got in (
        K,
        ntk(x, x, eps, *moments(w)),
        kernel_alignment(K, x.sum(-1)),
        population_alignment(5, eps),
        ntk_spectrum(5, eps).trace,
        ntk_spectrum(5, eps).linear,
    ):
        assert str(got.device) == fake_gpu
        assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ntk(X, Z[:, :2], 0.1), r"X2: got shape \(5, 2\), want"),
        (lambda: ntk([1.0], Z, 0.1), r"X1: got shape \(1,\), want"),
        (lambda: ntk(X, [1.0], 0.1), r"X2: got shape \(1,\), want"),
        (lambda: ntk(X, Z, -0.1), "eps: got -0.1, want"),
        (lambda: ntk(X, Z, math.nan), "eps: got nan, want"),
        (lambda: ntk([[math.nan] * 3], Z, 0.1), "X1: got nan, want finite"),
        (lambda: ntk(X, [[math.inf] * 3], 0.1), "X2: got inf, want finite"),
        (lambda: ntk(X, Z, 0.1, np.zeros(2), np.eye(3)), r"mean: got shape \(2,\), want"),
        (lambda: ntk(X, Z, 0.1, np.zeros(3), np.eye(2)), r"second: got shape \(2, 2\), want"),
        (lambda: ntk(X, Z, 0.1, np.zeros(3), np.ones((3, 2))), r"second: got shape \(3, 2\), want"),
        (lambda: ntk("x", Z, 0.1), "X1: got str"),
        (lambda: ntk_spectrum(0, 0.1), "dim: got 0, want"),
        (lambda: ntk_spectrum(-3, 0.1), "dim: got -3, want"),
        (lambda: ntk_spectrum(3, -0.1), "eps: got -0.1, want"),
        (lambda: population_alignment(0, 0.1), "dim: got 0, want"),
        (lambda: population_alignment(3, -0.1), "eps: got -0.1, want"),
        (lambda: population_alignment(3, "0.1"), "eps: got str"),
        (lambda: kernel_alignment(np.ones((2, 3)), [1.0, 1.0]), r"K: got shape \(2, 3\), want"),
        (lambda: kernel_alignment([1.0, 2.0], [1.0, 1.0]), r"K: got shape \(2,\), want"),
        (lambda: kernel_alignment(np.eye(2), [1.0] * 3), r"y: got shape \(3,\), want"),
        (lambda: kernel_alignment(math.nan * np.eye(2), [1.0] * 2), "K: got nan, want finite"),
        (lambda: kernel_alignment(np.eye(2), [math.nan] * 2), "y: got nan, want finite"),
        (lambda: kernel_alignment(np.eye(2), [0.0, 0.0]), "y: got 0, want numbers that are not all zero"),
        (lambda: kernel_alignment(np.zeros((2, 2)), [1.0, 0.0]), "K: got 0, want numbers that are not all zero"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_an_alignment_has_no_unit(size: float) -> None:
    K, y = np.diag([3.0, 1.0]), np.array([1.0, -1.0])
    got = kernel_alignment(size * K, y / size)
    assert got.item() == pytest.approx(4 / (math.sqrt(10) * 2), rel=1e-14)
