"""The online flow of the order parameters against a step on the whole Gaussian."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.grokking import online_step, overlap_loss

from . import oracle


def population_step(w: Any, beta: Any, alpha: float, eps: float, lr: float) -> Any:
    """A step on every node of the exact rule."""
    x, p = oracle.gaussian_rule(len(beta))
    return oracle.gd_step(w, x, oracle.target(x, beta), alpha, eps, lr, weight=p)


def drawn(neurons: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    beta = rng.normal(size=dim)
    return rng.normal(size=(neurons, dim)), beta * math.sqrt(dim) / np.linalg.norm(beta)


@pytest.mark.parametrize(("alpha", "eps"), [(0.7, 0.4), (3.0, 0.1), (1.0, 0.0)])
@pytest.mark.parametrize(("neurons", "dim"), [(1, 1), (3, 2), (2, 3)])
def test_three_steps_are_those_on_the_whole_gaussian(
    neurons: int, dim: int, alpha: float, eps: float, device: str
) -> None:
    w, beta = drawn(neurons, dim, 1)
    overlap = torch.tensor(w @ w.T / dim, device=device)
    alignment = torch.tensor(w @ beta / dim, device=device)
    for _ in range(3):
        overlap, alignment = online_step(overlap, alignment, alpha, eps, 0.2)
        w = population_step(w, beta, alpha, eps, 0.2)
    np.testing.assert_allclose(overlap.cpu(), w @ w.T / dim, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(alignment.cpu(), w @ beta / dim, rtol=1e-10, atol=1e-12)
    assert overlap.device.type == alignment.device.type == device


@given(st.integers(1, 5), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_any_dimension_by_the_moments_of_isserlis(neurons: int, dim: int, seed: int) -> None:
    w, beta = drawn(neurons, dim, seed)
    alpha, eps, lr = 1.3, 0.3, 0.2
    M = w.T @ w / neurons
    A = np.outer(beta, beta) - alpha * eps * M
    q, Q = -lr * w.mean(0), lr / alpha * (A + np.trace(A) / 2 * np.eye(dim)) / dim
    after = w + q + eps * w @ Q
    got = online_step(w @ w.T / dim, w @ beta / dim, alpha, eps, lr)
    np.testing.assert_allclose(got[0], after @ after.T / dim, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got[1], after @ beta / dim, rtol=1e-9, atol=1e-9)


def test_a_small_step_lowers_the_loss_and_a_solved_task_stays() -> None:
    w, beta = drawn(4, 6, 0)
    overlap, alignment = torch.tensor(w @ w.T / 6), torch.tensor(w @ beta / 6)
    losses = []
    for _ in range(800):
        losses.append(overlap_loss(overlap, alignment, 1.0, 0.5).total.item())
        overlap, alignment = online_step(overlap, alignment, 1.0, 0.5, 0.05)
    assert (np.diff(losses) < 1e-9).all()
    assert losses[-1] < 1e-3
    root = math.sqrt(1 / (0.5 * 1.0))  # two opposite neurons along beta: mean zero, alpha eps m^2 = 1
    solved = np.array([[1.0, -1.0], [-1.0, 1.0]]) * root**2, np.array([root, -root])
    for got, want in zip(online_step(*solved, 1.0, 0.5, 0.3), solved, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_no_alignment_stays_no_alignment() -> None:
    overlap, alignment = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(50):
        overlap, alignment = online_step(overlap, alignment, 1.0, 0.5, 0.1)
    assert alignment.abs().max() == 0


def test_batches_are_their_members() -> None:
    rng = np.random.default_rng(2)
    w = rng.normal(size=(3, 1, 4, 6))
    overlap, alignment, alphas, epss = w @ w.swapaxes(-1, -2) / 6, rng.normal(size=(2, 4)), [0.5, 2.0], [[0.1]] * 3
    got = online_step(overlap, alignment, alphas, epss, 0.1)
    assert got[0].shape == (3, 2, 4, 4)
    assert got[1].shape == (3, 2, 4)
    for i in range(3):
        for j in range(2):
            one = online_step(overlap[i, 0], alignment[j], alphas[j], 0.1, 0.1)
            torch.testing.assert_close(got[0][i, j], one[0], rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(got[1][i, j], one[1], rtol=1e-12, atol=1e-14)


def test_single_precision_stays_and_agrees() -> None:
    w, beta = drawn(4, 6, 0)
    given = (w @ w.T / 6, w @ beta / 6)
    overlap, alignment = (torch.tensor(x, dtype=torch.float32) for x in given)
    low = online_step(overlap, alignment, 1.0, 0.5, 0.2)
    for one, two in zip(low, online_step(*given, 1.0, 0.5, 0.2), strict=True):
        assert one.dtype == torch.float32
        assert two.dtype == torch.float64
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-5)


def test_gradients_pass_through() -> None:
    w, beta = drawn(2, 3, 0)
    given = [
        torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (w @ w.T / 3, w @ beta / 3, 1.2, 0.4, 0.1)
    ]
    assert torch.autograd.gradcheck(online_step, given)


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    overlap, alignment, scale = (torch.empty(*s, device=fake_gpu) for s in ((2, 4, 4), (4,), (2,)))
    for got in online_step(overlap, alignment, scale, scale, 0.1):
        assert str(got.device) == fake_gpu
        assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: online_step(np.ones((2, 3)), [0.0] * 2, 1.0, 0.1, 0.1), r"overlap: got shape \(2, 3\), want"),
        (lambda: online_step(np.eye(2), [0.0] * 3, 1.0, 0.1, 0.1), r"(alignment|overlap): got shape"),
        (lambda: online_step(np.eye(2), 0.0, 1.0, 0.1, 0.1), r"alignment: got shape \(\), want"),
        (lambda: online_step(np.eye(2), [0.0] * 2, 0.0, 0.1, 0.1), "alpha: got 0, want"),
        (lambda: online_step(np.eye(2), [0.0] * 2, 1.0, -0.1, 0.1), "eps: got -0.1, want"),
        (lambda: online_step(np.eye(2), [0.0] * 2, 1.0, 0.1, 0.0), "lr: got 0, want"),
        (lambda: online_step(math.nan * np.eye(2), [0.0] * 2, 1.0, 0.1, 0.1), "overlap: got nan, want finite"),
        (lambda: online_step(np.eye(2), [math.inf] * 2, 1.0, 0.1, 0.1), "alignment: got inf, want finite"),
        (lambda: online_step("eye", [0.0] * 2, 1.0, 0.1, 0.1), "overlap: got str"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
