"""The exact optimum of the penalised model against minimisation, and the flow towards it against an integral."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from lib.neural_collapse import gap_flow_time, ufm_optimum

from . import oracle

SETTINGS = [(10, 5, 5e-3, 5e-4), (4, 8, 1e-2, 3e-3), (2, 3, 0.05, 0.02), (5, 4, 0.09, 0.09), (3, 1, 0.1, 0.01)]


@pytest.mark.parametrize("setting", SETTINGS)
def test_gap_and_loss_are_those_of_a_minimum_on_a_line(setting: tuple[int, int, float, float]) -> None:
    gap, loss = oracle.ufm_gap(*setting)
    got = ufm_optimum(*setting)
    assert got.gap.item() == pytest.approx(gap, rel=1e-6)
    assert got.loss.item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("setting", SETTINGS)
def test_everything_is_what_descent_from_a_random_start_finds(setting: tuple[int, int, float, float]) -> None:
    classes, per_class, lambda_w, lambda_h = setting
    labels = np.repeat(np.arange(classes), per_class)
    W, H = oracle.ufm_by_descent(labels, classes, lambda_w, lambda_h)
    logits = H @ W.T
    got = ufm_optimum(*setting)
    true = logits[np.arange(len(labels)), labels]
    others = (logits.sum(-1) - true) / (classes - 1)
    np.testing.assert_allclose(true - others, got.gap.item(), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(W, axis=1), got.weight_norm.item(), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(H, axis=1), got.feature_norm.item(), rtol=1e-5)
    p = special.softmax(logits, -1)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(p, got.probability.item(), rtol=1e-5)
    loss = -np.log(p).mean() + lambda_w / 2 * (W**2).sum() + lambda_h / 2 * (H**2).sum()
    assert got.loss.item() == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize(
    ("classes", "per_class", "decay"), [(5, 4, 0.11), (5, 4, 0.1 + 1e-9), (2, 9, 1.0), (7, 2, 1e3)]
)
def test_too_much_decay_leaves_nothing(classes: int, per_class: int, decay: float) -> None:
    got = ufm_optimum(classes, per_class, decay, decay)
    assert [x.item() for x in (got.gap, got.weight_norm, got.feature_norm)] == [0, 0, 0]
    assert got.probability.item() == pytest.approx(1 / classes, rel=1e-14)
    assert got.loss.item() == pytest.approx(math.log(classes), rel=1e-14)


def test_the_boundary_is_where_the_price_of_logits_is_one_over_the_classes() -> None:
    # c K = 1 with c = sqrt(n lambda_W lambda_H): K = 5, n = 4, lambda = 0.1
    below, above = (ufm_optimum(5, 4, 0.1 * by, 0.1 * by) for by in (1 - 1e-6, 1 + 1e-6))
    assert below.gap > 0
    assert above.gap == 0
    for name in ("gap", "weight_norm", "feature_norm", "probability", "loss"):
        assert abs(getattr(below, name) - getattr(above, name)) < 5e-3


@given(st.integers(2, 200), st.integers(1, 5000), st.floats(-7, 0), st.floats(-7, 0))
def test_the_balance_of_both_norms(classes: int, per_class: int, log_w: float, log_h: float) -> None:
    lambda_w, lambda_h = 10.0**log_w, 10.0**log_h
    got = ufm_optimum(classes, per_class, lambda_w, lambda_h)
    # at any stationary point lambda_W |W|^2 = lambda_H |H|^2, and the gap of an ETF pair is |w| |h| K / (K - 1)
    head = lambda_w * classes * got.weight_norm**2
    assert head.item() == pytest.approx((lambda_h * classes * per_class * got.feature_norm**2).item(), rel=1e-10)
    product = got.weight_norm * got.feature_norm * classes / (classes - 1)
    assert product.item() == pytest.approx(got.gap.item(), rel=1e-10)
    p = got.probability.item()
    assert p == pytest.approx(1 / (1 + (classes - 1) * math.exp(-got.gap.item())), rel=1e-9)
    penalty = head.item()  # half of it from each side
    assert got.loss.item() == pytest.approx(-math.log(p) + penalty, rel=1e-9, abs=1e-12)


def test_tiny_decay_keeps_digits() -> None:
    got = ufm_optimum(10, 100, 1e-150, 1e-150)
    c = 10 * 1e-150
    assert got.gap.item() == pytest.approx(-math.log(c), rel=1e-12)
    assert 0 < got.loss < 1e-140
    assert got.loss.item() == pytest.approx(9 * c * (1 - math.log(c)), rel=1e-9)


def test_all_arguments_broadcast_and_equal_a_loop() -> None:
    classes, per_class = np.array([2, 5, 10]), np.array([[1], [20]])
    lambda_w, lambda_h = np.array([1e-3, 1e-2, 0.1]), 0.004
    got = ufm_optimum(classes, per_class, lambda_w, lambda_h)
    assert {x.shape for x in vars(got).values()} == {(2, 3)}
    for i, j in np.ndindex(2, 3):
        alone = ufm_optimum(int(classes[j]), int(per_class[i, 0]), float(lambda_w[j]), lambda_h)
        for name, value in vars(alone).items():
            torch.testing.assert_close(getattr(got, name)[i, j], value, rtol=1e-13, atol=1e-15)


def test_the_optimum_is_differentiable_also_where_it_is_zero() -> None:
    decays = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (5e-3, 5e-4)]
    assert torch.autograd.gradcheck(lambda w, h: tuple(vars(ufm_optimum(10, 5, w, h)).values()), decays)
    large = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    got = ufm_optimum(10, 5, large, 1.0)
    for value in vars(got).values():
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value, large, retain_graph=True)
            assert slope == 0


@pytest.mark.parametrize(
    ("gap", "initial"), [(5.0, 0.5), (0.5, 5.0), (1e-3, 1e-6), (30.0, 0.1), (60.0, 1.0), (2.0, 2.0)]
)
@pytest.mark.parametrize(("classes", "per_class"), [(2, 1), (4, 3), (100, 50)])
def test_the_time_is_the_integral_of_the_separated_equation(
    gap: float, initial: float, classes: int, per_class: int
) -> None:
    want = oracle.flow_time(gap, initial, classes, per_class)
    got = gap_flow_time(gap, initial, classes, per_class)
    assert got.item() == pytest.approx(want, rel=1e-10, abs=1e-12)
    integrals = special.expi(gap) - special.expi(initial) + (classes - 1) * math.log(gap / initial)
    assert got.item() == pytest.approx(math.sqrt(per_class) / 2 * integrals, rel=1e-10, abs=1e-9)


def test_gradient_steps_take_that_time() -> None:
    classes, per_class, gap, step = 4, 3, 0.5, 5e-4
    corners = oracle.simplex(classes, classes)
    labels = np.repeat(np.arange(classes), per_class)
    eta = math.sqrt(gap * (classes - 1) / classes / math.sqrt(per_class))
    W, H = math.sqrt(per_class) * eta * corners, eta * corners[labels]
    for _ in range(10_000):  # to t = 5
        R = oracle.cross_entropy_residual(H @ W.T, labels) / len(labels)
        W, H = W - step * R.T @ H, H - step * R @ W
    logits = H @ W.T
    reached = logits[0, 0] - logits[0, 1]
    assert gap_flow_time(reached, gap, classes, per_class).item() == pytest.approx(5.0, rel=1e-3)


@settings(max_examples=30)
@given(st.floats(0.01, 50), st.floats(0.01, 50), st.floats(0.01, 50), st.integers(2, 50))
def test_times_add_up_and_grow_with_the_root_of_the_samples(a: float, b: float, c: float, classes: int) -> None:
    through = gap_flow_time(b, a, classes, 9) + gap_flow_time(c, b, classes, 9)
    scale = max(math.exp(x) for x in (a, b, c)) + 100 * classes
    assert through.item() == pytest.approx(gap_flow_time(c, a, classes, 9).item(), rel=1e-9, abs=1e-11 * scale)
    assert gap_flow_time(c, a, classes, 9).item() == pytest.approx(
        3 * gap_flow_time(c, a, classes, 1).item(), rel=1e-12, abs=1e-13
    )


def test_times_broadcast_and_equal_a_loop() -> None:
    gap, initial, classes, per_class = np.array([[1.0], [20.0]]), np.array([0.1, 0.5, 3.0]), 7, np.array([1, 4, 9])
    got = gap_flow_time(gap, initial, classes, per_class)
    assert got.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        alone = gap_flow_time(float(gap[i, 0]), float(initial[j]), classes, int(per_class[j]))
        torch.testing.assert_close(got[i, j], alone, rtol=1e-12, atol=1e-14)


def test_the_time_is_differentiable() -> None:
    gap, initial = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (4.0, 0.5))
    assert torch.autograd.gradcheck(lambda s, s0: gap_flow_time(s, s0, 4, 3), (gap, initial))


def test_single_precision_is_kept_and_agrees_with_double() -> None:
    decay = torch.tensor([1e-3, 5e-3, 0.5])
    low, high = ufm_optimum(10, 5, decay, decay), ufm_optimum(10, 5, decay.double(), decay.double())
    for name, value in vars(low).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), getattr(high, name), rtol=1e-5, atol=1e-6)
    gap = torch.tensor([1.0, 10.0, 50.0])
    time = gap_flow_time(gap, 0.5, 10, 5)
    assert time.dtype == torch.float32
    torch.testing.assert_close(time.double(), gap_flow_time(gap.double(), 0.5, 10, 5), rtol=1e-5, atol=1e-5)


def test_numbers_become_float64() -> None:
    assert {x.dtype for x in vars(ufm_optimum(10, 5, 1, 1)).values()} == {torch.float64}
    assert gap_flow_time(2, 1, 10, 5).dtype == torch.float64


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    lambda_w, per_class = torch.rand(3, 1, device=fake_gpu), torch.rand(4, device=fake_gpu)
    got = ufm_optimum(10, per_class, lambda_w, 1e-3)
    time = gap_flow_time(lambda_w, per_class, 10, 5)
    for x in (*vars(got).values(), time):
        assert (str(x.device), x.shape, x.dtype) == (fake_gpu, (3, 4), torch.float32)


FINE: dict[str, Any] = {"num_classes": 10, "samples_per_class": 5, "lambda_w": 1e-3, "lambda_h": 1e-3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 1}, "num_classes: got 1, want"),
        ({"num_classes": 2.5}, "num_classes: got 2.5, want"),
        ({"samples_per_class": 0}, "samples_per_class: got 0, want"),
        ({"samples_per_class": -3}, "samples_per_class: got -3, want"),
        ({"lambda_w": 0.0}, "lambda_w: got 0, want"),
        ({"lambda_w": -1e-3}, "lambda_w: got -0.001, want"),
        ({"lambda_h": 0.0}, "lambda_h: got 0, want"),
        ({"lambda_h": math.inf}, "lambda_h: got inf, want"),
        ({"lambda_h": math.nan}, "lambda_h: got nan, want"),
        ({"lambda_w": "small"}, "lambda_w: got str"),
        ({"lambda_w": [1e-3, 1e-3], "lambda_h": [1e-3] * 3}, r"lambda_w \(2,\), lambda_h \(3,\)"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ufm_optimum(**(FINE | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap": 0.0}, "gap: got 0, want"),
        ({"gap": 61.0}, "gap: got 61, want .*60"),
        ({"gap": math.nan}, "gap: got nan, want"),
        ({"initial_gap": 0.0}, "initial_gap: got 0, want"),
        ({"initial_gap": -1.0}, "initial_gap: got -1, want"),
        ({"initial_gap": 61.0}, "initial_gap: got 61, want .*60"),
        ({"num_classes": 1}, "num_classes: got 1, want"),
        ({"samples_per_class": 0}, "samples_per_class: got 0, want"),
    ],
)
def test_what_is_wrong_with_a_time_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gap_flow_time(**({"gap": 2.0, "initial_gap": 1.0, "num_classes": 4, "samples_per_class": 3} | change))
