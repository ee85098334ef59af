"""The population loss against exact Gaussian sums, and its two forms against each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.grokking import moments, overlap_loss, population_loss

from . import oracle

RNG = np.random.default_rng(7)
W, BETA = RNG.normal(size=(4, 3)), RNG.normal(size=3)


def parts(loss: Any) -> list[Any]:
    return [loss.linear, loss.misalignment, loss.trace, loss.total]


@pytest.mark.parametrize(("alpha", "eps"), [(0.7, 0.4), (4.0, 0.05), (1.0, 0.0)])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_it_is_the_gaussian_mean_of_the_square_part_by_part(dim: int, alpha: float, eps: float, device: str) -> None:
    w, beta = RNG.normal(size=(4, dim)), RNG.normal(size=dim)
    mean, second = moments(torch.tensor(w, device=device))
    got = population_loss(mean, second, beta, alpha, eps)
    want = oracle.population_parts(w, beta, alpha, eps)
    for one, two in zip(parts(got), want, strict=True):
        assert one.device.type == device
        assert one.item() == pytest.approx(two, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
def test_differences_of_moments_give_the_centred_loss(dim: int) -> None:
    w, start, beta = RNG.normal(size=(4, dim)), RNG.normal(size=(4, dim)), RNG.normal(size=dim)
    now, first = moments(w), moments(start)
    got = population_loss(now[0] - first[0], now[1] - first[1], beta, 0.7, 0.4)
    for one, two in zip(parts(got), oracle.population_parts(w, beta, 0.7, 0.4, start), strict=True):
        assert one.item() == pytest.approx(two, rel=1e-11, abs=1e-12)


@given(st.integers(1, 6), st.integers(1, 8), st.floats(0.1, 10), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_order_parameters_know_it_too(neurons: int, dim: int, alpha: float, eps: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, beta = rng.normal(size=(neurons, dim)), rng.normal(size=dim)
    beta *= math.sqrt(dim) / np.linalg.norm(beta)
    got = overlap_loss(w @ w.T / dim, w @ beta / dim, alpha, eps)
    want = population_loss(*moments(w), beta, alpha, eps)
    exact = oracle.exact_loss(w[None], beta, alpha, eps)[0]
    for one, two in zip(parts(got), parts(want), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11 * max(1.0, exact))
    assert got.total.item() == pytest.approx(exact, rel=1e-10)


def test_what_is_known_by_hand() -> None:
    blind = population_loss(np.zeros(5), np.zeros((5, 5)), math.sqrt(5) * np.eye(5)[0], 1.0, 1.0)
    assert blind.total.item() == pytest.approx(0.75)  # E y^2 = 3/4
    assert blind.linear.item() == 0
    perfect = population_loss(np.zeros(5), np.outer(BETA5, BETA5) / 0.3, BETA5, 1.0, 0.3)
    assert perfect.total.item() == pytest.approx(0, abs=1e-25)
    assert overlap_loss([[0.0]], [0.0], 1.0, 1.0).total.item() == pytest.approx(0.75)
    one = overlap_loss([[4.0]], [2.0], 0.25, 1.0)  # a neuron along the target: only its linear part is wrong
    assert one.linear.item() == pytest.approx(0.25**2 * 4)
    assert one.total.item() == pytest.approx(0.25)


BETA5 = np.array([1.0, -1.0, 0.5, 0.0, 2.0])


def test_batches_are_their_members_and_parts_add_up() -> None:
    ws, betas, alphas = RNG.normal(size=(3, 1, 4, 3)), RNG.normal(size=(2, 3)), np.array([0.5, 1.0, 4.0])[:, None]
    got = population_loss(*moments(ws), betas, alphas, 0.3)
    assert got.total.shape == (3, 2)
    torch.testing.assert_close(got.linear + got.misalignment + got.trace, got.total)
    for i in range(3):
        for j in range(2):
            want = oracle.population_parts(ws[i, 0], betas[j], float(alphas[i, 0]), 0.3)
            for one, two in zip(parts(got), want, strict=True):
                full = one.expand(3, 2)
                assert full[i, j].item() == pytest.approx(two, rel=1e-11)
    overlap = ws @ ws.swapaxes(-1, -2) / 3
    many = overlap_loss(overlap, RNG.normal(size=(2, 4)), alphas, [0.1, 0.2])
    assert many.total.shape == (3, 2)


def test_single_precision_stays_and_agrees() -> None:
    mean, second = moments(torch.tensor(W, dtype=torch.float32))
    got = population_loss(mean, second, BETA, 0.7, 0.4)
    assert got.total.dtype == torch.float32
    want = population_loss(*moments(W), BETA, 0.7, 0.4)
    torch.testing.assert_close(got.total.double(), want.total, rtol=1e-5, atol=1e-6)
    low = overlap_loss(torch.tensor(W @ W.T / 3, dtype=torch.float32), (W @ BETA / 3).tolist(), 0.7, 0.4)
    assert low.total.dtype == torch.float32


def test_gradients_pass_through() -> None:
    mean, second = (x.clone().requires_grad_() for x in moments(W))
    scalars = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 0.4)]
    beta = torch.tensor(BETA, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: tuple(parts(population_loss(*a))), (mean, second, beta, *scalars))
    overlap, alignment = (torch.tensor(x, requires_grad=True) for x in (W @ W.T / 3, W @ BETA / 3))
    assert torch.autograd.gradcheck(lambda *a: tuple(parts(overlap_loss(*a))), (overlap, alignment, *scalars))


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    w, beta, scale = (torch.empty(*s, device=fake_gpu) for s in ((2, 4, 3), (3,), (2,)))
    for got in (
        population_loss(*moments(w), beta, scale, 0.1),
        overlap_loss(w @ w.mT, w @ beta, scale, scale),
    ):
        for part in parts(got):
            assert str(part.device) == fake_gpu
            assert part.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: population_loss([0.0] * 3, np.eye(3), [1.0, 1.0], 1.0, 0.1), r"beta: got shape \(2,\), want"),
        (lambda: population_loss([0.0] * 2, np.eye(3), [1.0] * 3, 1.0, 0.1), r"(mean|second): got shape"),
        (lambda: population_loss([0.0] * 3, np.ones((3, 2)), [1.0] * 3, 1.0, 0.1), r"second: got shape \(3, 2\), want"),
        (lambda: population_loss([0.0] * 3, np.eye(3), [1.0] * 3, 0.0, 0.1), "alpha: got 0, want"),
        (lambda: population_loss([0.0] * 3, np.eye(3), [1.0] * 3, 1.0, -0.1), "eps: got -0.1, want"),
        (lambda: population_loss([math.nan] * 3, np.eye(3), [1.0] * 3, 1.0, 0.1), "mean: got nan, want finite"),
        (lambda: population_loss([0.0] * 3, np.eye(3), [math.inf] * 3, 1.0, 0.1), "beta: got inf, want finite"),
        (lambda: population_loss("zero", np.eye(3), [1.0] * 3, 1.0, 0.1), "mean: got str"),
        (lambda: overlap_loss(np.ones((2, 3)), [0.0] * 2, 1.0, 0.1), r"overlap: got shape \(2, 3\), want"),
        (lambda: overlap_loss(np.eye(2), [0.0] * 3, 1.0, 0.1), r"(alignment|overlap): got shape"),
        (lambda: overlap_loss(np.eye(2), 0.0, 1.0, 0.1), r"alignment: got shape \(\), want"),
        (lambda: overlap_loss([1.0], [0.0], 1.0, 0.1), r"overlap: got shape \(1,\), want"),
        (lambda: overlap_loss(np.eye(2), [0.0] * 2, -1.0, 0.1), "alpha: got -1, want"),
        (lambda: overlap_loss(np.eye(2), [0.0] * 2, 1.0, -1.0), "eps: got -1, want"),
        (lambda: overlap_loss(math.nan * np.eye(2), [0.0] * 2, 1.0, 0.1), "overlap: got nan, want finite"),
        (lambda: overlap_loss(np.eye(2), [math.nan] * 2, 1.0, 0.1), "alignment: got nan, want finite"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
