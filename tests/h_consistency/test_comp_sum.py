"""The comp-sum family against minimisation over scores, and the exact transform of the mean absolute error."""

from __future__ import annotations

import inspect
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from lib.h_consistency import comp_sum_transform, logistic_transform, mae_transform
from tests.h_consistency.test_conditional import simplex


def family(tau: float, q: np.ndarray) -> np.ndarray:
    """The loss of each class at softmax probabilities q."""
    return -np.log(q) if tau == 1 else (q ** (tau - 1) - 1) / (1 - tau)


def two_class_gap(tau: float, t: float) -> float:
    """Regret of equal scores at probabilities (1 + t) / 2 and (1 - t) / 2."""
    p = np.array([(1 + t) / 2, (1 - t) / 2])

    def value(o: float) -> float:
        return float(p @ family(tau, np.array([special.expit(o), special.expit(-o)])))

    best = optimize.minimize_scalar(value, bounds=(0, 60), method="bounded", options={"xatol": 1e-11})
    return value(0.0) - float(best.fun)


@pytest.mark.parametrize("tau", [0.0, 0.5, 0.999, 1.0, 1.001, 1.5, 1.8])
def test_for_two_classes_it_is_the_regret_of_equal_scores(tau: float, device: str) -> None:
    t = [0.0, 0.1, 0.5, 0.9]
    got = comp_sum_transform(torch.tensor(t, dtype=torch.float64, device=device), tau, 2)
    np.testing.assert_allclose(got.cpu(), [two_class_gap(tau, x) for x in t], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("tau", [0.0, 0.6, 1.4, 1.9, 2.0, 2.5])
@pytest.mark.parametrize("classes", [3, 5])
def test_no_distribution_and_no_scores_fall_below_it(tau: float, classes: int) -> None:
    """Scores that predict the last class, against the free minimum."""
    rng = np.random.default_rng(0)
    for p in simplex(6, classes, seed=3):
        p = np.sort(p)[::-1]

        def value(o: np.ndarray, p: np.ndarray = p) -> float:
            return float(p @ family(tau, special.softmax(o).clip(1e-300)))

        free = min(float(optimize.minimize(value, rng.normal(size=classes), method="BFGS").fun) for _ in range(3))
        free = min(free, value(100 * np.eye(classes)[0]) if tau >= 2 else free)
        j = classes - 1
        for o in rng.normal(size=(200, classes)) * 3:
            o = o.copy()
            o[j] = o.max()
            regret = value(o) - free
            assert regret >= comp_sum_transform(p[0] - p[j], tau, classes).item() - 1e-7


def test_special_members() -> None:
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(comp_sum_transform(t, 0, 4), 1 - (1 - t.square()).sqrt(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(comp_sum_transform(t, 1, 4), logistic_transform(t), rtol=0, atol=0)
    torch.testing.assert_close(comp_sum_transform(t, 2, 4), t / 4)
    torch.testing.assert_close(comp_sum_transform(t, 3, 4), t / 32)
    for tau in (1 - 1e-7, 1 + 1e-7):
        torch.testing.assert_close(comp_sum_transform(t, tau, 2), logistic_transform(t), rtol=1e-5, atol=1e-8)


def exact(t: mpmath.mpf, tau: float, classes: int) -> mpmath.mpf:
    """The formula of the docstring for a tau that is not one, as it stands; wants digits to spare."""
    x, u = mpmath.mpf(t), 2 - mpmath.mpf(tau)
    scale = u - 1 if tau < 1 else (1 - u) * mpmath.mpf(classes) ** (1 - u)
    if tau >= 2:
        return x / scale
    grown = (((1 + x) ** (1 / u) + (1 - x) ** (1 / u)) / 2) ** u - 1
    return -grown * 2 ** (u - 1) / scale if tau < 1 else grown / scale


TAUS = [0.0, 0.5, *(1 + s * gap for gap in (1e-14, 1e-9, 1e-4) for s in (-1, 1)), 1.49, 1.5, 1.999, 1.9999, 2 - 1e-9]
SMALL_TO_LARGE = [1e-300, 1e-8, 1e-6, 1e-4, 0.1, 0.2499, 0.25, 0.34, 0.5, 0.999, 1 - 1e-12, 1.0]


@pytest.mark.parametrize("tau", [*TAUS, 2.0, 2.0001, 3.0])
def test_no_digits_are_lost_at_small_t_near_one_nor_near_two(tau: float, device: str) -> None:
    got = comp_sum_transform(torch.tensor(SMALL_TO_LARGE, dtype=torch.float64, device=device), tau, 4)
    with mpmath.workdps(60):
        want = [float(exact(t, tau, 4)) for t in SMALL_TO_LARGE]
    np.testing.assert_allclose(got.cpu(), want, rtol=1e-14, atol=1e-320)


@pytest.mark.parametrize("tau", TAUS)
def test_derivatives_are_right_on_both_sides_of_every_seam_and_at_the_end(tau: float) -> None:
    t = torch.tensor([0.0, 1e-5, 0.1, 0.2499, 0.25, 0.4, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    comp_sum_transform(t, tau, 3).sum().backward()
    assert t.grad is not None
    with mpmath.workdps(60):
        want = [float(mpmath.diff(lambda x: exact(x, tau, 3), x)) for x in t.tolist()[1:-1]]
    np.testing.assert_allclose(t.grad[1:-1], want, rtol=1e-13)
    assert t.grad[0] == 0
    if tau <= 1:
        assert t.grad[-1] == math.inf
    else:
        assert t.grad[-1].item() == pytest.approx((2 / 3) ** (tau - 1) / (2 * (tau - 1)), rel=1e-12)


def mae_regret(p: np.ndarray, j: int) -> float:
    """Least mean absolute error of scores that predict j, above the free least: equal shares in the best pool."""
    others = np.sort(np.delete(p, j))[::-1]
    pooled = max((p[j] + others[: r - 1].sum()) / r for r in range(1, len(p) + 1))
    return float(p.max() - pooled)


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_mae_transform_is_never_crossed_and_is_touched(classes: int, device: str) -> None:
    t = torch.linspace(0, 1, 41, dtype=torch.float64, device=device)
    got = mae_transform(t, classes).cpu()
    want = [min(max(x / r, x - 1 / r) for r in range(2, classes + 1)) for x in t.tolist()]
    np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-16)
    gaps = [(p.max() - p[0], mae_regret(p, 0)) for p in simplex(4000, classes, concentration=0.5)]
    slack = np.array([g for _, g in gaps]) - mae_transform([x for x, _ in gaps], classes).numpy()
    assert slack.min() >= -1e-12
    for x, wanted in zip(t.tolist(), want, strict=True):
        touched = min(mae_regret(p, classes - 1) for p in leaders(x, classes))
        assert touched == pytest.approx(wanted, abs=1e-12)


def leaders(t: float, classes: int) -> list[np.ndarray]:
    """Distributions whose last class misses the first by t, with several equal leaders."""
    found = []
    for r in range(2, classes + 1):
        low = (1 - (r - 1) * t) / r  # r - 1 classes at low + t and one at low
        if low >= 0:
            found.append(np.array([low + t] * (r - 1) + [0.0] * (classes - r) + [low]))
        count = r - 1
        left = 1 - count * t
        if 0 <= left <= t * (classes - 1 - count) or abs(left) < 1e-15:
            row = np.array([t] * count + [0.0] * (classes - count))
            spare = left
            for k in range(count, classes - 1):
                row[k] = min(spare, t)
                spare -= row[k]
            if abs(spare) < 1e-12:
                found.append(row)
        if low < 0 and 1 - (r - 1) * t >= 0:
            found.append(np.array([t] * (r - 1) + [0.0] * (classes - r) + [1 - (r - 1) * t]))
    found.append(np.array([(1 + t) / 2] + [0.0] * (classes - 2) + [(1 - t) / 2]))
    return [p for p in found if abs(p.sum() - 1) < 1e-12 and p.min() >= 0 and abs(p.max() - p[-1] - t) < 1e-12]


def test_the_published_transform_of_the_mean_absolute_error_is_touched_for_small_t_only() -> None:
    t = torch.linspace(0, 1, 301, dtype=torch.float64)
    excess = mae_transform(t, 4) - comp_sum_transform(t, 2, 4)
    torch.testing.assert_close(excess[t < 1 / 3 + 1e-9], torch.zeros(101, dtype=torch.float64), rtol=0, atol=1e-15)
    assert (excess[t > 1 / 3 + 1e-9] > 0).all()


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 3), st.integers(2, 30))
def test_it_grows_with_t_and_is_convex(a: float, b: float, tau: float, classes: int) -> None:
    low, high = sorted((a, b))
    ends = comp_sum_transform([low, high], tau, classes)
    assert 0 <= ends[0] <= ends[1] + 1e-15
    middle = comp_sum_transform((low + high) / 2, tau, classes)
    assert middle <= ends.mean() + 1e-14


def test_dtypes_shapes_derivatives() -> None:
    t = torch.rand(3, 2, dtype=torch.float64)
    for tau in (0.0, 0.5, 1.0, 1.5, 2.0):
        low = comp_sum_transform(t.float(), tau, 3)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), comp_sum_transform(t, tau, 3), rtol=1e-3, atol=1e-6)
        leaf = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, tau=tau: comp_sum_transform(x, tau, 3), leaf)
    assert mae_transform(t.float(), 3).dtype == torch.float32
    assert mae_transform(1, 3).dtype == comp_sum_transform([1, 0], 2, 3).dtype == torch.float64


def test_tau_may_be_numpys_or_a_tensor_without_axes() -> None:
    unchecked = inspect.unwrap(comp_sum_transform)  # by shape
    for tau in (np.float32(1.5), np.array(1.5), torch.tensor(1.5)):
        assert unchecked([0.5], tau, 4) == comp_sum_transform([0.5], 1.5, 4)
    with pytest.raises(ValueError, match="tau: got True"):
        unchecked(0.5, torch.tensor(True), 4)


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    t = torch.empty(4, device=fake_gpu)
    for x in [*(comp_sum_transform(t, tau, 3) for tau in (0.0, 0.5, 1.0, 1.5, 2.0)), mae_transform(t, 5)]:
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: comp_sum_transform(1.5, 0.5, 3), "t: got 1.5"),
        (lambda: comp_sum_transform(0.5, -0.5, 3), "tau: got -0.5"),
        (lambda: comp_sum_transform(0.5, math.nan, 3), "tau: got nan"),
        (lambda: comp_sum_transform(0.5, True, 3), "tau: got True, want a finite number >= 0"),
        (lambda: comp_sum_transform(0.5, 0.5, 1), "num_classes: got 1"),
        (lambda: mae_transform(-0.5, 3), "t: got -0.5"),
        (lambda: mae_transform(0.5, 1), "num_classes: got 1"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
