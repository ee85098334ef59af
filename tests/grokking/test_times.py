"""Crossing times against a loop, and the predicted times against the equations they come from."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from lib.grokking import crossing_time, dmft, escape_time, grokking_time

from . import oracle


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, math.inf, math.nan]), min_size=1, max_size=8),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_crossing_is_the_last_time_the_curve_comes_from_above(curve: list[float], level: float) -> None:
    with warnings.catch_warnings():
        assert crossing_time(torch.tensor(curve, dtype=torch.float64), level).item() == oracle.crossing(curve, level)


def test_crossing_times_of_a_batch() -> None:
    curves = np.array([[3.0, 1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [3.0, 1.0, 1.0, 2.0]])
    got = crossing_time(curves, 1.0)
    assert got.tolist() == [3.0, 0.0, math.inf]
    assert got.dtype == torch.float64
    assert crossing_time(curves[:, None], [0.5, 1.0, 3.0]).tolist() == [
        [math.inf, 3.0, 0.0],
        [math.inf, 0.0, 0.0],
        [math.inf, math.inf, 0.0],
    ]
    assert crossing_time(torch.ones(2, 5), 0.5).dtype == torch.float32
    assert crossing_time([1, 0, 0], 0).item() == 1


def by_scipy(alpha: float, eps: float, dim: float, level: float, centered: bool) -> float:
    """Time at which the two shares of the second moment reach the level, by an adaptive integrator."""
    start = np.array([alpha * eps, alpha * eps / dim])
    zero = start if centered else np.zeros(2)

    def loss(x: Any) -> float:
        u, v = x - zero
        return float((1 - v) ** 2 / 2 + (1 - u - v) ** 2 / 4)

    def slope(_: float, x: Any) -> Any:
        u, v = x - zero
        gap = 1 - u - v
        return [gap * x[0], 2 * (1 - v + gap / 2) * x[1]]

    def reached(_: float, x: Any) -> float:
        return loss(x) - level

    found = integrate.solve_ivp(slope, (0, 200), start, rtol=1e-10, atol=1e-30, events=reached, method="LSODA")
    return float(found.t_events[0][0] * alpha / eps)


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(("alpha", "eps", "dim"), [(1.0, 0.5, 1e4), (4.0, 0.1, 60.0), (0.5, 0.2, 1e10)])
def test_the_escape_follows_its_two_equations(alpha: float, eps: float, dim: float, centered: bool) -> None:
    for level in (0.15, 0.3):
        got = escape_time(alpha, eps, dim, level, centered).item()
        assert got == pytest.approx(by_scipy(alpha, eps, dim, level, centered), rel=2e-3)


def test_the_escape_is_that_of_an_infinitely_wide_network_in_small_steps() -> None:
    dim, lr, alpha, eps, steps = 100, 0.02, 1.0, 0.5, 0
    beta, second = math.sqrt(dim) * np.eye(dim)[0], np.eye(dim)
    A = np.outer(beta, beta) - alpha * eps * second
    while (A**2).sum() / (2 * dim**2) + np.trace(A) ** 2 / (4 * dim**2) > 0.15:
        F = np.eye(dim) + eps * lr / alpha * (A + np.trace(A) / 2 * np.eye(dim)) / dim
        second = F @ second @ F
        A = np.outer(beta, beta) - alpha * eps * second
        steps += 1
    assert escape_time(alpha, eps, dim, 0.15, centered=False).item() == pytest.approx(steps * lr, rel=0.05)


def test_the_delay_grows_as_alpha_over_twice_eps_and_log_dimension() -> None:
    times = escape_time([[1.0], [2.0], [0.5]], [[0.5], [0.25], [0.25]], [1e8, 1e12], 0.15, centered=False)
    slope = (times[:, 1] - times[:, 0]) / math.log(1e4)
    np.testing.assert_allclose(slope, [1.0, 4.0, 1.0], rtol=0.02)


def test_times_are_those_of_the_runs_it_stands_on() -> None:
    setting: dict[str, Any] = {"alignment": [0.4, -0.4], "level": 0.3, "steps": 60, "samples": 600, "runs": 3}
    got = grokking_time([0.5, 1.0], 0.5, 3.0, 0.3, **setting, generator=torch.Generator().manual_seed(3))
    run = dmft(
        np.tile(np.eye(2), (3, 2, 1, 1)),
        [0.4, -0.4],
        [0.5, 1.0],
        0.5,
        3.0,
        0.3,
        60,
        600,
        torch.Generator().manual_seed(3),
    )
    for j in range(2):
        train = [oracle.crossing(x.tolist(), 0.3) for x in run.train[:, j]]
        test = [oracle.crossing(x.tolist(), 0.3) for x in run.test[:, j]]
        assert got.train[j].item() == pytest.approx(np.mean(train))
        assert got.train_error[j].item() == pytest.approx(np.std(train, ddof=1) / math.sqrt(3))
        there = [x for x in test if x < math.inf]
        if len(there) >= 2:
            assert got.test[j].item() == pytest.approx(np.mean(there))
            assert got.delay[j].item() == pytest.approx(np.mean(there) - np.mean(train))
        else:
            assert got.test[j].item() == got.delay[j].item() == math.inf
    assert got.test[0] < math.inf


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    scale = torch.empty(3, device=fake_gpu)
    for got in (escape_time(scale, scale, scale, 0.2), crossing_time(torch.empty(3, 9, device=fake_gpu), scale)):
        assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (3,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crossing_time(1.0, 0.5), r"curve: got shape \(\), want"),
        (lambda: crossing_time([], 0.5), r"curve: got shape \(0,\), want"),
        (lambda: crossing_time("no", 0.5), "curve: got str"),
        (lambda: crossing_time([1.0, 2.0], math.nan), "level: got nan, want"),
        (lambda: escape_time(0.0, 0.1, 10, 0.1), "alpha: got 0, want"),
        (lambda: escape_time(1.0, 0.0, 10, 0.1), "eps: got 0, want"),
        (lambda: escape_time(1.0, 0.1, 0.5, 0.1), "dim: got 0.5, want"),
        (lambda: escape_time(1.0, 0.1, 10, 0.6), "level: got 0.6, want"),
        (lambda: escape_time([1.0, 2.0], 0.1, [10.0] * 3, 0.1), "do not broadcast"),
        (lambda: grokking_time(1.0, 0.1, 2.0, 0.1, alignment=[0.1], level=0.0, steps=2), "level: got 0, want"),
        (lambda: grokking_time(1.0, 0.1, 2.0, 0.1, alignment=0.1, level=0.1, steps=2), r"alignment: got shape \(\)"),
        (lambda: grokking_time(1.0, 0.1, 2.0, 0.1, alignment=[0.1], level=0.1, steps=2, runs=1), "runs: got 1, want"),
        (lambda: grokking_time(0.0, 0.1, 2.0, 0.1, alignment=[0.1], level=0.1, steps=2), "alpha: got 0, want"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
