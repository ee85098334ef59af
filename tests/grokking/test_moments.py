"""The two moments close: network by network, neuron by neuron, and at infinite width."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.grokking import gd_step, moment_output, moment_step, moments, network_output

from . import oracle

RNG = np.random.default_rng(5)
W, X, BETA = RNG.normal(size=(5, 6)), RNG.normal(size=(9, 6)) / math.sqrt(6), RNG.normal(size=6)
Y = oracle.target(X, BETA)


def by_hand(w: Any) -> tuple[Any, Any]:
    return sum(w) / len(w), sum(np.outer(row, row) for row in w) / len(w)


def test_moments_are_averages_over_neurons(device: str) -> None:
    mean, second = moments(torch.tensor(W, device=device))
    want = by_hand(W)
    np.testing.assert_allclose(mean.cpu(), want[0], rtol=1e-13)
    np.testing.assert_allclose(second.cpu(), want[1], rtol=1e-13, atol=1e-15)
    assert mean.device.type == device


def test_the_moments_know_the_output(device: str) -> None:
    mean, second = by_hand(W)
    got = moment_output(torch.tensor(mean, device=device), torch.tensor(second, device=device), X, 0.7, 0.4)
    np.testing.assert_allclose(got.cpu(), oracle.output(W, X, 0.7, 0.4), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("neurons", [1, 5])
def test_thirty_steps_of_the_moments_are_those_of_the_network(neurons: int, centered: bool) -> None:
    w = RNG.normal(size=(neurons, 6))
    offset = oracle.output(w, X, 0.7, 0.4) if centered else np.zeros(9)
    mean, second = (torch.tensor(x) for x in by_hand(w))
    for _ in range(30):
        w = oracle.gd_step(w, X, Y, 0.7, 0.4, 0.3, offset)
        mean, second = moment_step(mean, second, X, Y, 0.7, 0.4, 0.3, offset=torch.tensor(offset) if centered else None)
    want = by_hand(w)
    np.testing.assert_allclose(mean, want[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(second, want[1], rtol=1e-10, atol=1e-12)


def test_a_wide_network_approaches_infinite_width_as_one_over_its_root() -> None:
    mean, second = torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    for _ in range(5):
        mean, second = moment_step(mean, second, X, Y, 1.0, 0.5, 0.3)
    gaps = []
    for neurons in (400, 40_000):
        w = torch.randn(20, neurons, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for _ in range(5):
            w = gd_step(w, X, Y, 1.0, 0.5, 0.3)
        gaps.append((moments(w)[1] - second).square().mean().sqrt().item())
    assert 8 < gaps[0] / gaps[1] < 12.5


def test_at_large_scale_the_recursion_is_descent_with_the_first_kernel() -> None:
    K = oracle.wide_kernel(X, X, 0.5)
    want = oracle.descend(K, Y, 0.3 * 6 / 9, 20)[-1]
    mean, second = torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    alpha = 1e6
    offset = moment_output(mean, second, X, alpha, 0.5)
    for _ in range(20):
        mean, second = moment_step(mean, second, X, Y, alpha, 0.5, 0.3, offset=offset)
    got = torch.tensor(Y) - (moment_output(mean, second, X, alpha, 0.5) - offset)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_one_step_of_any_size(neurons: int, samples: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x, y = rng.normal(size=(neurons, dim)), rng.normal(size=(samples, dim)), rng.normal(size=samples)
    got = moment_step(*moments(w), x, y, 1.3, 0.3, 0.1)
    want = by_hand(oracle.gd_step(w, x, y, 1.3, 0.3, 0.1))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-9, atol=1e-9)


def test_the_second_moment_stays_symmetric_and_above_the_square_of_the_mean() -> None:
    mean, second = torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    for _ in range(50):
        mean, second = moment_step(mean, second, X, Y, 0.5, 0.4, 0.3)
    assert torch.equal(second, second.mT) or (second - second.mT).abs().max() < 1e-14 * second.abs().max()
    assert np.linalg.eigvalsh(second - torch.outer(mean, mean)).min() > 0  # a covariance


def test_batches_are_their_members() -> None:
    ws, xs = RNG.normal(size=(3, 1, 5, 6)), RNG.normal(size=(2, 9, 6)) / 2
    alphas, epss = np.array([0.5, 1.0, 4.0])[:, None], np.array([0.1, 0.2])
    mean, second = moments(ws)
    assert mean.shape == (3, 1, 6)
    out = moment_output(mean, second, xs, alphas, epss)
    got = moment_step(mean, second, xs, Y, alphas, epss, 0.2, offset=out)
    assert got[0].shape == (3, 2, 6)
    assert got[1].shape == (3, 2, 6, 6)
    for i in range(3):
        for j in range(2):
            a, e = float(alphas[i, 0]), float(epss[j])
            f = oracle.output(ws[i, 0], xs[j], a, e)
            np.testing.assert_allclose(out[i, j], f, rtol=1e-11, atol=1e-13)
            want = by_hand(oracle.gd_step(ws[i, 0], xs[j], Y, a, e, 0.2, f))
            np.testing.assert_allclose(got[0][i, j], want[0], rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(got[1][i, j], want[1], rtol=1e-11, atol=1e-13)


def test_single_precision_stays_and_agrees() -> None:
    mean, second = by_hand(W)
    a, b, x, y = (torch.tensor(v, dtype=torch.float32) for v in (mean, second, X, Y))
    got, want = moment_step(a, b, x, y, 0.7, 0.4, 0.3), moment_step(mean, second, X, Y, 0.7, 0.4, 0.3)
    for one, two in zip(got, want, strict=True):
        assert one.dtype == torch.float32
        assert two.dtype == torch.float64
        torch.testing.assert_close(one.double(), two, rtol=2e-5, atol=2e-5)


def test_gradients_pass_through() -> None:
    given = [torch.tensor(x, requires_grad=True) for x in (*by_hand(W[:2, :3]), X[:4, :3], Y[:4])]
    scalars = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 0.4, 0.3)]
    assert torch.autograd.gradcheck(moment_step, (*given, *scalars))
    assert torch.autograd.gradcheck(moment_output, (*given[:3], *scalars[:2]))


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    w, x, scale = (torch.empty(*s, device=fake_gpu) for s in ((2, 5, 6), (2, 9, 6), (2,)))
    y = network_output(w, x, scale, 0.2)
    for got in moment_step(*moments(w), x, y, scale, 0.2, scale, offset=moment_output(*moments(w), x, scale, 0.2)):
        assert str(got.device) == fake_gpu
        assert got.dtype == torch.float32


MEAN, SECOND = np.zeros(6), np.eye(6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moments([1.0, 2.0]), r"W: got shape \(2,\), want"),
        (lambda: moments([[math.nan]]), "W: got nan, want finite"),
        (lambda: moments(np.zeros((0, 3))), r"W: got shape \(0, 3\), want"),
        (lambda: moments("no"), "W: got str"),
        (lambda: moment_output(MEAN[:5], SECOND, X, 1.0, 0.1), r"(mean|second): got shape .*, want"),
        (lambda: moment_output(MEAN, SECOND[:5], X, 1.0, 0.1), r"second: got shape \(5, 6\), want"),
        (lambda: moment_output(MEAN, SECOND[0], X, 1.0, 0.1), r"second: got shape \(6,\), want"),
        (lambda: moment_output(MEAN, SECOND, X[:, :5], 1.0, 0.1), r"(X|mean): got shape .*, want"),
        (lambda: moment_output(0.0, SECOND, X, 1.0, 0.1), r"mean: got shape \(\), want"),
        (lambda: moment_output(MEAN, SECOND, X, 0.0, 0.1), "alpha: got 0, want"),
        (lambda: moment_output(MEAN, SECOND, X, 1.0, -0.1), "eps: got -0.1, want"),
        (lambda: moment_output(MEAN, math.nan * SECOND, X, 1.0, 0.1), "second: got nan, want finite"),
        (lambda: moment_step(MEAN, SECOND, X, Y[:8], 1.0, 0.1, 0.1), r"y: got shape \(8,\), want"),
        (lambda: moment_step(MEAN, SECOND, X, Y, 1.0, 0.1, 0.0), "lr: got 0, want"),
        (lambda: moment_step(MEAN, SECOND, X, Y, -1.0, 0.1, 0.1), "alpha: got -1, want"),
        (lambda: moment_step(MEAN, SECOND, X, Y, 1.0, -0.1, 0.1), "eps: got -0.1, want"),
        (lambda: moment_step(MEAN, SECOND, X, Y, 1.0, 0.1, 0.1, offset=Y[:3]), r"offset: got shape \(3,\), want"),
        (lambda: moment_step(MEAN, SECOND, X, [math.inf] * 9, 1.0, 0.1, 0.1), "y: got inf, want finite"),
        (lambda: moment_step([math.nan] * 6, SECOND, X, Y, 1.0, 0.1, 0.1), "mean: got nan, want finite"),
        (lambda: moment_step(MEAN, SECOND, X, Y, 1.0, 0.1, "0.1"), "lr: got str"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
