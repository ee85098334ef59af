"""The lazy limit against quadrature over the spectrum, against descent with the true kernel, and at its end."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from lib.grokking import lazy_curve, lazy_limit, stable_step_size

from . import oracle

NAMES = ("train", "test", "linear", "constant")


@pytest.mark.parametrize(("psi", "eps", "lr"), [(2.0, 0.5, 0.4), (3.0, 0.2, 0.4), (0.7, 0.3, 0.2), (1.0, 1.0, 0.1)])
def test_it_is_descent_on_the_nodes_of_the_spectrum(psi: float, eps: float, lr: float) -> None:
    got, want = lazy_curve(psi, eps, lr, 80), oracle.lazy_curve(psi, eps, lr, 80)
    for name, curve in zip(NAMES, want, strict=True):
        tolerance = 1e-9 if psi != 1 else 1e-6  # the density is unbounded at zero there
        np.testing.assert_allclose(getattr(got, name), curve, rtol=tolerance, atol=1e-11)


@given(st.floats(0.2, 6), st.floats(0, 1.5), st.floats(0.05, 0.9))
def test_any_setting_below_the_threshold(psi: float, eps: float, share: float) -> None:
    top = (1 + math.sqrt(psi)) ** 2 + eps**2 * (1 + psi)
    lr = share * 2 * psi / top
    got, want = lazy_curve(psi, eps, lr, 25), oracle.lazy_curve(psi, eps, lr, 25)
    for name, curve in zip(NAMES, want, strict=True):
        np.testing.assert_allclose(getattr(got, name), curve, rtol=1e-5, atol=1e-7)
    assert got.train[0].item() == pytest.approx(0.75)
    assert got.test[0].item() == pytest.approx(0.75)
    assert (got.test >= 0.5).all()  # the quadratic part is never learned


def test_descent_with_the_true_kernel_follows() -> None:
    dim, psi, eps, lr, steps, runs = 400, 2.0, 0.5, 0.4, 10, 12
    rng, found = np.random.default_rng(0), []
    beta = np.zeros(dim)
    beta[0] = math.sqrt(dim)
    for _ in range(runs):
        X, fresh = rng.normal(size=(int(psi * dim), dim)) / math.sqrt(dim), rng.normal(size=(400, dim)) / math.sqrt(dim)
        y = oracle.target(X, beta)
        residual = oracle.descend(oracle.wide_kernel(X, X, eps), y, lr / psi, steps)
        learned = lr / psi * oracle.wide_kernel(fresh, X, eps) @ residual[:-1].sum(0)
        found.append(((residual[-1] ** 2).mean(), ((learned - oracle.target(fresh, beta)) ** 2).mean()))
    got = lazy_curve(psi, eps, lr, steps)
    for values, want in zip(np.array(found).T, (got.train[-1], got.test[-1]), strict=True):
        assert abs(values.mean() - want.item()) < 4 * values.std(ddof=1) / math.sqrt(runs) + 0.02 * want.item()


@pytest.mark.parametrize(("psi", "eps"), [(2.0, 0.5), (3.0, 0.2), (0.5, 0.7), (5.5, 0.1), (1.0, 0.6), (40.0, 3.0)])
def test_the_end_agrees_with_quadrature(psi: float, eps: float) -> None:
    got, want = lazy_limit(psi, eps), oracle.lazy_limit(psi, eps)
    assert got.test.item() == pytest.approx(want[0], rel=1e-9)
    assert got.linear.item() == pytest.approx(want[1], rel=1e-8)
    assert got.constant.item() == pytest.approx(want[2], rel=1e-9)
    assert got.train.item() == 0


def test_the_curve_ends_where_the_limit_says() -> None:
    got, want = lazy_curve(2.0, 0.5, 0.6, 500), lazy_limit(2.0, 0.5)
    for name in NAMES:
        assert getattr(got, name)[-1].item() == pytest.approx(getattr(want, name).item(), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("eps", [1e-6, 1e-4, 1e3])
@pytest.mark.parametrize("psi", [1e-3, 0.999, 1.0, 1.001, 1e4])
def test_the_end_keeps_its_digits_at_extremes(psi: float, eps: float) -> None:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        p, z = mpmath.mpf(psi), mpmath.mpf(eps) ** 2
        b = z + 1 - p
        m = (-b + mpmath.sqrt(b * b + 4 * p * z)) / (2 * p * z)
        slope = -(p * m * m + m) / (2 * p * z * m + b)
        c = 1 / (1 + z * p * m)
        linear = p * (m + z * slope) * (mpmath.mpf(1) / 2 + c * c / 4)
        want = mpmath.mpf(1) / 2 + c * c / 4 + linear
        assert lazy_limit(psi, eps).test.item() == pytest.approx(float(want), rel=1e-9)
        assert lazy_limit(psi, eps).constant.item() == pytest.approx(float(c / 2), rel=1e-9)
        assert lazy_limit(psi, eps).linear.item() == pytest.approx(float(linear), rel=1e-7, abs=1e-15)


def test_no_step_is_the_start() -> None:
    got = lazy_curve(2.0, 0.5, 0.4, 0)
    assert got.train.tolist() == got.test.tolist() == [0.75]
    assert got.linear.tolist() == [0.0]
    assert got.constant.tolist() == [0.5]


def test_batches_are_their_members(device: str) -> None:
    psi, eps = torch.tensor([[0.8], [2.0], [3.0]], dtype=torch.float64, device=device), [0.2, 0.5]
    got = lazy_curve(psi, eps, 0.2, 15)
    ended = lazy_limit(psi, eps)
    for name in NAMES:
        curve, end = getattr(got, name), getattr(ended, name)
        assert curve.shape == (3, 2, 16)
        assert end.shape == (3, 2)
        assert curve.device.type == end.device.type == device
        for i in range(3):
            for j in range(2):
                one = lazy_curve(psi[i, 0].item(), eps[j], 0.2, 15)
                torch.testing.assert_close(curve[i, j].cpu(), getattr(one, name), rtol=1e-12, atol=1e-14)
                last = lazy_limit(psi[i, 0].item(), eps[j])
                torch.testing.assert_close(end[i, j].cpu(), getattr(last, name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_chunks_change_nothing(chunk: int) -> None:
    psi = torch.tensor([[0.8, 2.0, 3.0]], dtype=torch.float64)
    got, want = lazy_curve(psi, [[0.2], [0.5]], 0.2, 9, chunk=chunk), lazy_curve(psi, [[0.2], [0.5]], 0.2, 9)
    for name in NAMES:
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-14, atol=0)


def test_an_empty_batch_is_an_empty_curve() -> None:
    assert lazy_curve(torch.empty(0, 2, dtype=torch.float64), 0.2, 0.2, 3).test.shape == (0, 2, 4)


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_holds_at_least_one(chunk: int) -> None:
    with pytest.raises(ValueError, match="chunk: got"):
        lazy_curve(2.0, 0.2, 0.2, 3, chunk=chunk)


def test_more_steps_change_no_earlier_entry() -> None:
    short, long = lazy_curve(2.0, 0.3, 0.4, 7), lazy_curve(2.0, 0.3, 0.4, 100)
    for name in NAMES:
        torch.testing.assert_close(getattr(short, name), getattr(long, name)[:8], rtol=1e-12, atol=1e-14)


def test_single_precision_stays_and_agrees() -> None:
    low, high = lazy_curve(torch.tensor(2.0), 0.3, 0.4, 50), lazy_curve(2.0, 0.3, 0.4, 50)
    for name in NAMES:
        assert getattr(low, name).dtype == torch.float32
        assert getattr(high, name).dtype == torch.float64
        torch.testing.assert_close(getattr(low, name).double(), getattr(high, name), rtol=1e-4, atol=1e-5)
    assert lazy_limit(torch.tensor(2.0), 0.3).test.dtype == torch.float32
    assert lazy_limit(2, 1).test.dtype == torch.float64


def test_gradients_pass_through() -> None:
    given = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 0.4, 0.3)]
    assert torch.autograd.gradcheck(lambda p, e, r: tuple(getattr(lazy_curve(p, e, r, 6), n) for n in NAMES), given)
    assert torch.autograd.gradcheck(lambda *a: tuple(getattr(lazy_limit(*a), n) for n in NAMES[1:]), given[:2])


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    psi = torch.empty(4, device=fake_gpu)
    for got in (lazy_curve(psi, 0.2, psi, 5), lazy_limit(psi, psi)):
        for name in NAMES:
            assert str(getattr(got, name).device) == fake_gpu
            assert getattr(got, name).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lazy_curve(0.0, 0.1, 0.1, 3), "psi: got 0, want"),
        (lambda: lazy_curve(-2.0, 0.1, 0.1, 3), "psi: got -2, want"),
        (lambda: lazy_curve(math.inf, 0.1, 0.1, 3), "psi: got inf, want"),
        (lambda: lazy_curve(2.0, -0.1, 0.1, 3), "eps: got -0.1, want"),
        (lambda: lazy_curve(2.0, math.nan, 0.1, 3), "eps: got nan, want"),
        (lambda: lazy_curve(2.0, 0.1, 0.0, 3), "lr: got 0, want"),
        (lambda: lazy_curve(2.0, 0.1, -1.0, 3), "lr: got -1, want"),
        (lambda: lazy_curve(2.0, 0.1, 0.1, -1), "steps: got -1, want"),
        (lambda: lazy_curve("2", 0.1, 0.1, 3), "psi: got str"),
        (lambda: lazy_curve([1.0, 2.0], [0.1] * 3, 0.1, 3), "do not broadcast"),
        (lambda: lazy_limit(0.0, 0.1), "psi: got 0, want"),
        (lambda: lazy_limit(2.0, 0.0), "eps: got 0, want"),
        (lambda: lazy_limit(2.0, -0.1), "eps: got -0.1, want"),
        (lambda: lazy_limit(2.0, math.inf), "eps: got inf, want"),
        (lambda: lazy_limit([1.0, 2.0], [0.1] * 3), "do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("psi", [0.3, 1.0, 2.5, 9.0])
@pytest.mark.parametrize("eps", [0.0, 0.5, 1.1, 1.5, 2.5])
def test_the_threshold_is_that_of_the_largest_eigenvalue(psi: float, eps: float) -> None:
    size = 1500
    J = np.diag(np.full(size, 1 + psi + eps**2))
    J[0, 0] = 1 + eps**2 + eps**2 * psi  # seen from the constant
    J += math.sqrt(psi) * (np.eye(size, k=1) + np.eye(size, k=-1))
    top = linalg.eigh_tridiagonal(np.diag(J), np.diag(J, 1), eigvals_only=True)[-1]
    assert stable_step_size(psi, eps).item() == pytest.approx(2 * psi / top, rel=1e-4)


def test_below_the_threshold_nothing_grows_and_above_it_is_said() -> None:
    edge = stable_step_size(2.0, 1.6).item()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calm = lazy_curve(2.0, 1.6, 0.98 * edge, 400)
    assert (calm.train.diff() < 0).all()
    with pytest.warns(RuntimeWarning, match=rf"lr: got .*threshold {edge:.4g}"):
        wild = lazy_curve(2.0, 1.6, 1.05 * edge, 400)
    assert wild.train[-1] > 10 * wild.train[0]


def test_the_threshold_follows_batches_and_kinds(fake_gpu: str) -> None:
    got = stable_step_size(torch.empty(3, 1, device=fake_gpu), torch.empty(2, device=fake_gpu))
    assert got.shape == (3, 2)
    assert (str(got.device), got.dtype) == (fake_gpu, torch.float32)


@pytest.mark.parametrize(("given", "message"), [((0.0, 0.1), "psi: got 0, want"), ((1.0, -0.1), "eps: got -0.1, want")])
def test_a_threshold_needs_a_setting(given: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stable_step_size(*given)
