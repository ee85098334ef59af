"""Training curves against step by step descent, at finite width and at infinite width."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lib.grokking import moments, train, train_moments

from . import oracle

RNG = np.random.default_rng(13)
DIM = 6
W, X, BETA = RNG.normal(size=(4, DIM)), RNG.normal(size=(12, DIM)) / math.sqrt(DIM), RNG.normal(size=DIM)
NAMES = ("train", "test", "overlap", "alignment")


@pytest.mark.parametrize("centered", [True, False])
def test_every_entry_is_before_its_step(centered: bool, device: str) -> None:
    alpha, eps, lr, steps = 0.7, 0.4, 0.2, 25
    got = train(torch.tensor(W, device=device), X, BETA, alpha, eps, lr, steps, centered=centered)
    w, y = W, oracle.target(X, BETA)
    offset = oracle.output(W, X, alpha, eps) if centered else np.zeros(len(X))
    for t in range(steps + 1):
        assert got.train[t].item() == pytest.approx(((y - oracle.output(w, X, alpha, eps) + offset) ** 2).mean())
        want = oracle.exact_loss(w[None], BETA, alpha, eps, W[None] if centered else None)[0]
        assert got.test[t].item() == pytest.approx(want, rel=1e-9)
        np.testing.assert_allclose(got.overlap[t].cpu(), w @ w.T / DIM, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(got.alignment[t].cpu(), w @ BETA / DIM, rtol=1e-9, atol=1e-11)
        w = oracle.gd_step(w, X, y, alpha, eps, lr, offset)
    assert {getattr(got, name).device.type for name in NAMES} == {device}


def test_the_test_loss_is_the_exact_gaussian_mean() -> None:
    w, x, beta = RNG.normal(size=(3, 2)), RNG.normal(size=(9, 2)) / math.sqrt(2), RNG.normal(size=2)
    got, offset = train(w, x, beta, 0.7, 0.4, 0.2, 3), oracle.output(w, x, 0.7, 0.4)
    later = w
    for _ in range(3):
        later = oracle.gd_step(later, x, oracle.target(x, beta), 0.7, 0.4, 0.2, offset)
    assert got.test[3].item() == pytest.approx(oracle.population_parts(later, beta, 0.7, 0.4, w)[3], rel=1e-10)
    assert got.test[0].item() == pytest.approx(3 * float(beta @ beta) ** 2 / (4 * 4), rel=1e-12)  # E y^2


def test_centred_is_the_default_and_no_step_is_the_start() -> None:
    got = train(W, X, BETA, 0.7, 0.4, 0.2, 0)
    assert (got.train.shape, got.overlap.shape, got.alignment.shape) == ((1,), (1, 4, 4), (1, 4))
    assert got.train[0].item() == pytest.approx((oracle.target(X, BETA) ** 2).mean(), rel=1e-12)


def test_more_samples_than_dimensions_and_fewer_agree_with_the_batched_oracle() -> None:
    for samples, dim, neurons in ((30, 4, 9), (3, 12, 2), (5, 5, 5), (1, 1, 1)):
        w, x = RNG.normal(size=(2, neurons, dim)), RNG.normal(size=(2, samples, dim)) / math.sqrt(dim)
        beta = RNG.normal(size=dim)
        got, want = train(w, x, beta, 1.5, 0.3, 0.1, 8), oracle.simulate(w, x, beta, 1.5, 0.3, 0.1, 8)
        for name, curve in zip(NAMES, want, strict=True):
            np.testing.assert_allclose(getattr(got, name), curve, rtol=1e-9, atol=1e-11)


def test_batches_are_their_members() -> None:
    ws, xs, alphas, epss = (
        RNG.normal(size=(3, 1, 4, DIM)),
        RNG.normal(size=(2, 12, DIM)) / 3,
        [[0.5], [1.0], [4.0]],
        [0.1, 0.3],
    )
    got = train(ws, xs, BETA, alphas, epss, 0.2, 6)
    assert (got.train.shape, got.test.shape) == ((3, 2, 7), (3, 2, 7))
    assert (got.overlap.shape, got.alignment.shape) == ((3, 2, 7, 4, 4), (3, 2, 7, 4))
    for i in range(3):
        for j in range(2):
            one = train(ws[i, 0], xs[j], BETA, alphas[i][0], epss[j], 0.2, 6)
            for name in NAMES:
                torch.testing.assert_close(getattr(got, name)[i, j], getattr(one, name), rtol=1e-10, atol=1e-12)


def test_single_precision_stays_and_agrees() -> None:
    w, x, beta = (torch.tensor(a, dtype=torch.float32) for a in (W, X, BETA))
    low = train(w, x, beta, 0.7, 0.4, 0.2, 20)
    high = train(W, X, BETA, 0.7, 0.4, 0.2, 20)
    for name in NAMES:
        assert getattr(low, name).dtype == torch.float32
        assert getattr(high, name).dtype == torch.float64
        torch.testing.assert_close(getattr(low, name).double(), getattr(high, name), rtol=1e-3, atol=1e-4)


def test_gradients_pass_through() -> None:
    given = [
        torch.tensor(x, dtype=torch.float64, requires_grad=True)
        for x in (W[:2, :3], X[:4, :3], BETA[:3], 0.7, 0.4, 0.1)
    ]
    assert torch.autograd.gradcheck(
        lambda w, x, b, *a: tuple(getattr(train(w, x, b, a[0], a[1], a[2], 2), n) for n in NAMES), given
    )


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    w, x, beta, scale = (torch.empty(*s, device=fake_gpu) for s in ((2, 4, 6), (2, 12, 6), (6,), (2,)))
    got = train(w, x, beta, scale, 0.2, scale, 3)
    for name in NAMES:
        assert str(getattr(got, name).device) == fake_gpu
        assert getattr(got, name).dtype == torch.float32


MOMENTS = ("train", "test", "linear", "misalignment", "trace", "norm", "alignment", "mean", "second")


@pytest.mark.parametrize("centered", [True, False])
def test_the_moments_of_a_network_train_as_the_network_does(centered: bool, device: str) -> None:
    mean, second = moments(torch.tensor(W, device=device))
    got = train_moments(X, BETA, 0.7, 0.4, 0.2, 12, centered, mean, second)
    w, y = W, oracle.target(X, BETA)
    offset = oracle.output(W, X, 0.7, 0.4) if centered else np.zeros(len(X))
    for t in range(13):
        assert got.train[t].item() == pytest.approx(((y - oracle.output(w, X, 0.7, 0.4) + offset) ** 2).mean())
        want = oracle.exact_loss(w[None], BETA, 0.7, 0.4, W[None] if centered else None)[0]
        assert got.test[t].item() == pytest.approx(want, rel=1e-9)
        assert got.norm[t].item() == pytest.approx((w**2).sum() / 4 / DIM, rel=1e-10)
        along = ((w @ BETA / np.linalg.norm(BETA)) ** 2).mean() / DIM
        assert got.alignment[t].item() == pytest.approx(along, rel=1e-10)
        if t < 12:
            w = oracle.gd_step(w, X, y, 0.7, 0.4, 0.2, offset)
    np.testing.assert_allclose(got.mean.cpu(), w.mean(0), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(got.second.cpu(), w.T @ w / 4, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(got.linear + got.misalignment + got.trace, got.test)
    assert got.test.device.type == device
    assert int(got.finite_steps) == 13


def test_infinite_width_is_the_default_and_batches_are_their_members() -> None:
    alphas, epss = [[0.5], [2.0]], [0.1, 0.3, 0.5]
    got = train_moments(X, BETA, alphas, epss, 0.2, 5)
    assert got.test.shape == (2, 3, 6)
    for i in range(2):
        for j in range(3):
            one = train_moments(X, BETA, alphas[i][0], epss[j], 0.2, 5, True, np.zeros(DIM), np.eye(DIM))
            for name in MOMENTS:
                torch.testing.assert_close(getattr(got, name)[i, j], getattr(one, name), rtol=1e-10, atol=1e-12)


def test_moments_train_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    x, beta, scale = (torch.empty(*s, device=fake_gpu) for s in ((2, 12, 6), (6,), (2,)))
    got = train_moments(x, beta, scale, scale, scale, 3)
    for name in MOMENTS:
        assert str(getattr(got, name).device) == fake_gpu
        assert getattr(got, name).dtype == torch.float32


@pytest.mark.parametrize("width", ["finite", "infinite"])
def test_a_run_that_diverges_returns_what_was_computed_and_says_from_where(width: str) -> None:
    rates = [0.2, 30.0]

    def run() -> Any:
        if width == "finite":
            return train([W, W], X, BETA, 0.7, 0.4, rates, 25)
        return train_moments(X, BETA, 0.7, 0.4, rates, 25)

    with pytest.warns(RuntimeWarning, match="not finite from step") as caught:
        got = run()
    calm, wild = got.finite_steps.tolist()
    assert calm == 26
    assert 1 < wild < 26
    assert f"not finite from step {wild}" in str(caught[0].message)
    assert got.test[1, :wild].isfinite().all()
    assert got.test[0].isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train(W, X[:, :5], BETA, 1.0, 0.1, 0.1, 2), r"X: got shape \(12, 5\), want"),
        (lambda: train(W, X, BETA[:5], 1.0, 0.1, 0.1, 2), r"beta: got shape \(5,\), want"),
        (lambda: train(W[0], X, BETA, 1.0, 0.1, 0.1, 2), r"W: got shape \(6,\), want"),
        (lambda: train(W, X, BETA, 0.0, 0.1, 0.1, 2), "alpha: got 0, want"),
        (lambda: train(W, X, BETA, 1.0, -0.1, 0.1, 2), "eps: got -0.1, want"),
        (lambda: train(W, X, BETA, 1.0, 0.1, 0.0, 2), "lr: got 0, want"),
        (lambda: train(W, X, BETA, 1.0, 0.1, math.nan, 2), "lr: got nan, want"),
        (lambda: train(W, X, BETA, 1.0, 0.1, 0.1, -1), "steps: got -1, want"),
        (lambda: train(W, X, [math.nan] * 6, 1.0, 0.1, 0.1, 2), "beta: got nan, want finite"),
        (lambda: train([[math.inf] * 6], X, BETA, 1.0, 0.1, 0.1, 2), "W: got inf, want finite"),
        (lambda: train(W, "x", BETA, 1.0, 0.1, 0.1, 2), "X: got str"),
        (lambda: train_moments(X, BETA[:5], 1.0, 0.1, 0.1, 2), r"beta: got shape \(5,\), want"),
        (lambda: train_moments(X[0], BETA, 1.0, 0.1, 0.1, 2), r"X: got shape \(6,\), want"),
        (lambda: train_moments(X, BETA, 0.0, 0.1, 0.1, 2), "alpha: got 0, want"),
        (lambda: train_moments(X, BETA, 1.0, 0.1, -0.1, 2), "lr: got -0.1, want"),
        (lambda: train_moments(X, BETA, 1.0, 0.1, 0.1, -2), "steps: got -2, want"),
        (lambda: train_moments(X, BETA, 1.0, 0.1, 0.1, 2, mean=[0.0]), r"mean: got shape \(1,\), want"),
        (lambda: train_moments(X, BETA, 1.0, 0.1, 0.1, 2, second=np.eye(5)), r"second: got shape \(5, 5\), want"),
        (lambda: train(W, X, BETA, [1.0, 2.0], 0.1, [0.1, 0.1, 0.1], 2), "do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
