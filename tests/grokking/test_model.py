"""The two-layer network, its target and its exact descent against loops and automatic differentiation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.grokking import activation, gd_step, network_output, target

from . import oracle

RNG = np.random.default_rng(3)
W, X, BETA = RNG.normal(size=(4, 3)), RNG.normal(size=(7, 3)), RNG.normal(size=3)


def test_the_activation_is_a_line_and_a_parabola(device: str) -> None:
    h = torch.tensor([-2.0, 0.0, 0.5], dtype=torch.float64, device=device)
    got = activation(h, 0.5)
    assert got.device.type == device
    assert got.tolist() == pytest.approx([-1.0, 0.0, 0.5625])
    slope = torch.func.vmap(torch.func.grad(lambda x: activation(x, 0.5)))(h)
    assert slope.tolist() == pytest.approx([0.0, 1.0, 1.25])
    assert activation(1.5, 0.2).dtype == torch.float64
    assert activation([1, 2], 0).tolist() == [1.0, 2.0]
    assert activation(h.float(), 0.5).dtype == torch.float32


def test_output_and_target_agree_with_their_definitions(device: str) -> None:
    got = network_output(torch.tensor(W, device=device), torch.tensor(X, device=device), 0.7, 0.4)
    np.testing.assert_allclose(got.cpu(), oracle.output(W, X, 0.7, 0.4), rtol=1e-13)
    y = target(torch.tensor(X, device=device), torch.tensor(BETA, device=device))
    np.testing.assert_allclose(y.cpu(), oracle.target(X, BETA), rtol=1e-13)
    assert str(got.device).startswith(device)


def test_alpha_scales_the_output_and_the_order_of_neurons_is_nothing() -> None:
    base = network_output(W, X, 1.0, 0.4)
    torch.testing.assert_close(network_output(W, X, 3.0, 0.4), 3 * base)
    torch.testing.assert_close(network_output(W[::-1].copy(), X, 1.0, 0.4), base)
    torch.testing.assert_close(network_output(np.concatenate([W, W]), X, 1.0, 0.4), base)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_any_size_agrees(neurons: int, samples: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x, b = rng.normal(size=(neurons, dim)), rng.normal(size=(samples, dim)), rng.normal(size=dim)
    np.testing.assert_allclose(network_output(w, x, 2.0, 0.3), oracle.output(w, x, 2.0, 0.3), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(target(x, b), oracle.target(x, b), rtol=1e-11, atol=1e-14)


def test_a_step_follows_the_gradient_of_the_mean_square(device: str) -> None:
    alpha, eps, lr, y = 0.7, 0.4, 0.3, oracle.target(X, BETA)
    offset = oracle.output(RNG.normal(size=(4, 3)), X, alpha, eps)
    for shift in (None, offset):
        w = torch.tensor(W, requires_grad=True)
        f = alpha * (torch.tensor(X) @ w.mT + eps * (torch.tensor(X) @ w.mT) ** 2 / 2).mean(-1)
        loss = (f - torch.tensor(y) - (0 if shift is None else torch.tensor(shift))).square().mean()
        (gradient,) = torch.autograd.grad(loss, w)
        rate = lr * 3 * 4 / (2 * alpha**2)  # lr D N / (2 alpha^2): the paper's rate on the mean square
        want = (w - rate * gradient).detach()
        got = gd_step(torch.tensor(W, device=device), X, y, alpha, eps, lr, offset=shift)
        torch.testing.assert_close(got.cpu(), want, rtol=1e-12, atol=1e-14)
        loop = oracle.gd_step(W, X, y, alpha, eps, lr, 0.0 if shift is None else shift)
        np.testing.assert_allclose(got.cpu(), loop, rtol=1e-12, atol=1e-14)


def test_batches_are_their_members() -> None:
    ws, xs = RNG.normal(size=(3, 1, 4, 3)), RNG.normal(size=(2, 7, 3))
    alphas, lrs = np.array([0.5, 1.0, 4.0])[:, None], np.array([0.1, 0.2])
    y = oracle.target(X, BETA)
    out, moved = network_output(ws, xs, alphas, 0.3), gd_step(ws, xs, y, alphas, 0.3, lrs)
    assert out.shape == (3, 2, 7)
    assert moved.shape == (3, 2, 4, 3)
    for i in range(3):
        for j in range(2):
            one = oracle.output(ws[i, 0], xs[j], alphas[i, 0], 0.3)
            np.testing.assert_allclose(out[i, j], one, rtol=1e-12)
            step = oracle.gd_step(ws[i, 0], xs[j], y, alphas[i, 0], 0.3, lrs[j])
            np.testing.assert_allclose(moved[i, j], step, rtol=1e-12)
    assert target(xs, RNG.normal(size=(5, 1, 3))).shape == (5, 2, 7)


def test_single_precision_stays_and_agrees() -> None:
    w, x, y = (torch.tensor(a, dtype=torch.float32) for a in (W, X, oracle.target(X, BETA)))
    got = gd_step(w, x, y, 0.7, 0.4, 0.3)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), gd_step(W, X, oracle.target(X, BETA), 0.7, 0.4, 0.3), rtol=1e-5, atol=1e-5)
    assert network_output(w, x, 0.7, 0.4).dtype == torch.float32
    assert network_output(w, X, 0.7, 0.4).dtype == torch.float32  # a list or an array follows the tensors


def test_gradients_pass_through() -> None:
    w, x, b = (torch.tensor(a, requires_grad=True) for a in (W, X, BETA))
    scalars = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 0.4, 0.3)]
    assert torch.autograd.gradcheck(lambda *a: gd_step(a[0], a[1], target(a[1], a[2]), *a[3:]), (w, x, b, *scalars))
    assert torch.autograd.gradcheck(network_output, (w, x, *scalars[:2]))


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    w, x, b = (torch.empty(*s, device=fake_gpu) for s in ((2, 4, 3), (2, 7, 3), (3,)))
    scale = torch.empty(2, device=fake_gpu)
    for got in (
        activation(x, scale.reshape(2, 1, 1)),
        target(x, b),
        network_output(w, x, scale, 0.3),
        gd_step(w, x, target(x, b), scale, 0.3, scale, offset=target(x, b)),
    ):
        assert str(got.device) == fake_gpu
        assert got.dtype == torch.float32


@pytest.mark.parametrize("size", [1e-150, 1e-8, 1e60])
def test_extreme_weights_keep_their_digits(size: float) -> None:
    want = oracle.output(size * W, X, 0.7, 0.4)
    np.testing.assert_allclose(network_output(size * W, X, 0.7, 0.4), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network_output(np.eye(3), np.eye(2), 1.0, 0.1), r"X: got shape \(2, 2\), want"),
        (lambda: network_output([1.0, 2.0], np.eye(2), 1.0, 0.1), r"W: got shape \(2,\), want"),
        (lambda: network_output(W, X[0], 1.0, 0.1), r"X: got shape \(3,\), want"),
        (lambda: network_output(W, X, 0.0, 0.1), "alpha: got 0, want"),
        (lambda: network_output(W, X, -1.0, 0.1), "alpha: got -1, want"),
        (lambda: network_output(W, X, math.nan, 0.1), "alpha: got nan, want"),
        (lambda: network_output(W, X, math.inf, 0.1), "alpha: got inf, want"),
        (lambda: network_output(W, X, 1.0, -0.1), "eps: got -0.1, want"),
        (lambda: network_output([[math.nan] * 3], X, 1.0, 0.1), "W: got nan, want finite"),
        (lambda: network_output(W, [[math.inf] * 3], 1.0, 0.1), "X: got inf, want finite"),
        (lambda: network_output("weights", X, 1.0, 0.1), "W: got str"),
        (lambda: network_output(np.zeros((2, 4, 3)), np.zeros((3, 7, 3)), 1.0, 0.1), "do not broadcast|want"),
        (lambda: activation([math.nan], 0.1), "h: got nan, want finite"),
        (lambda: activation([1.0], -0.1), "eps: got -0.1, want"),
        (lambda: activation("one", 0.1), "h: got str"),
        (lambda: target(X, BETA[:2]), r"beta: got shape \(2,\), want"),
        (lambda: target(X, 1.0), r"beta: got shape \(\), want"),
        (lambda: target([1.0], [1.0]), r"X: got shape \(1,\), want"),
        (lambda: target(X, [math.nan, 0.0, 0.0]), "beta: got nan, want finite"),
        (lambda: target([[math.inf] * 3], BETA), "X: got inf, want finite"),
        (lambda: gd_step(W, X, np.ones(6), 1.0, 0.1, 0.1), r"y: got shape \(6,\), want"),
        (lambda: gd_step(W, X, np.ones(7), 1.0, 0.1, 0.1, offset=np.ones(6)), r"offset: got shape \(6,\), want"),
        (lambda: gd_step(W, X, np.ones(7), 1.0, 0.1, 0.0), "lr: got 0, want"),
        (lambda: gd_step(W, X, np.ones(7), 1.0, 0.1, -0.1), "lr: got -0.1, want"),
        (lambda: gd_step(W, X, np.ones(7), 0.0, 0.1, 0.1), "alpha: got 0, want"),
        (lambda: gd_step(W, X, np.ones(7), 1.0, -0.1, 0.1), "eps: got -0.1, want"),
        (lambda: gd_step(W, X, [math.nan] * 7, 1.0, 0.1, 0.1), "y: got nan, want finite"),
        (lambda: gd_step(W, X[:, :2], np.ones(7), 1.0, 0.1, 0.1), r"X: got shape \(7, 2\), want"),
        (lambda: gd_step(W, X, np.ones(7), [1.0, 2.0], 0.1, [0.1, 0.2, 0.3]), "do not broadcast|want"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
