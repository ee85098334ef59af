"""Margins of classes of different sizes and their critical ratio against descent on the whole problem."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.neural_collapse import collapse_margin, critical_imbalance, ufm_optimum

from . import oracle


@pytest.mark.parametrize(
    ("counts", "lambda_w", "lambda_h"),
    [
        ([8, 8, 8, 4, 4, 4], 1 / 42, 1 / 42),
        ([20, 20, 20, 4, 4, 4], 1 / 42, 1 / 42),
        ([28, 28, 28, 4, 4, 4], 1 / 42, 1 / 42),
        ([40, 40, 40, 4, 4, 4], 1 / 42, 1 / 42),
        ([20, 20, 9, 9], 0.02, 0.01),
        ([30, 30, 10, 10, 5, 5], 0.01, 0.008),
        ([6, 6], 0.1, 0.03),
        ([3, 3, 3, 12, 12], 0.05, 0.02),
    ],
)
def test_margins_are_those_of_descent(counts: list[int], lambda_w: float, lambda_h: float) -> None:
    want = oracle.margins_by_descent(counts, lambda_w, lambda_h)
    np.testing.assert_allclose(collapse_margin(counts, lambda_w, lambda_h), want, rtol=0, atol=2e-5)


def test_classes_of_one_size_have_the_balanced_margin() -> None:
    got = collapse_margin([5] * 10, 5e-3, 5e-4)
    p = ufm_optimum(10, 5, 5e-3, 5e-4).probability.item()
    np.testing.assert_allclose(got, p - (1 - p) / 9, rtol=1e-12)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=8), st.floats(-5, 1), st.floats(-5, 1))
def test_a_margin_lies_between_nothing_and_one_and_grows_with_the_class(
    counts: list[int], log_w: float, log_h: float
) -> None:
    lambda_w, lambda_h = 10.0**log_w, 10.0**log_h
    got = collapse_margin(counts, lambda_w, lambda_h).numpy()
    lost = np.array(counts) <= lambda_w * lambda_h * sum(counts) ** 2 * (1 - 1e-12)
    assert ((got >= 0) & (got < 1)).all()
    assert (got[lost] == 0).all()
    assert (np.diff(got[np.argsort(counts)]) >= 0).all()
    for k, count in enumerate(counts):
        want = 1 - sum(counts) * math.sqrt(lambda_w) * math.sqrt(lambda_h) / math.sqrt(count)
        assert got[k] == pytest.approx(max(want, 0.0), rel=1e-9, abs=1e-12)


@given(st.integers(1, 10), st.integers(2, 10), st.integers(1, 50), st.floats(-4, -1), st.floats(-4, -1))
def test_the_minority_is_lost_beyond_the_critical_ratio(
    majority: int, minority: int, count: int, log_w: float, log_h: float
) -> None:
    lambda_w, lambda_h = 10.0**log_w, 10.0**log_h
    ratio = critical_imbalance(majority, minority, count, lambda_w, lambda_h).item()
    # the formula for the margin takes whole numbers of samples: scale all counts up, and the decay down with them
    scale = 10**6
    for by, kept in ((1 - 1e-3, True), (1 + 1e-3, False)):
        large = round(by * ratio * count * scale)
        if large < 1:
            continue
        # N sqrt(lambda lambda / n): a scale on all counts is a scale of 1/scale on lambda_w * lambda_h
        counts = [large] * majority + [count * scale] * minority
        margin = collapse_margin(counts, lambda_w / scale, lambda_h)[-1]
        assert (margin > 0) == kept


def test_the_critical_ratio_is_that_of_descent() -> None:
    assert critical_imbalance(3, 3, 4, 1 / 42, 1 / 42).item() == pytest.approx(6, rel=1e-12)
    below, above = (oracle.margins_by_descent([4 * r] * 3 + [4] * 3, 1 / 42, 1 / 42)[-1] for r in (5, 7))
    assert below > 0.05
    assert abs(above) < 1e-5


def test_a_minority_lost_at_any_majority_has_a_negative_ratio() -> None:
    assert critical_imbalance(2, 3, 1, 1.0, 1.0).item() == pytest.approx((1 - 3) / 2)


def test_all_arguments_broadcast_and_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    counts, lambda_w, lambda_h = rng.integers(1, 50, (3, 1, 5)), rng.uniform(1e-3, 0.1, (4,)), np.array([[0.01]] * 3)
    got = collapse_margin(counts, lambda_w, lambda_h)
    assert got.shape == (3, 4, 5)
    for i, j in np.ndindex(3, 4):
        alone = collapse_margin(counts[i, 0], float(lambda_w[j]), float(lambda_h[i, 0]))
        torch.testing.assert_close(got[i, j], alone, rtol=1e-13, atol=1e-15)
    ratios = critical_imbalance([1, 2], [[2], [3]], 7, lambda_w[:2], 0.01)
    assert ratios.shape == (2, 2)
    for i, j in np.ndindex(2, 2):
        alone = critical_imbalance(j + 1, i + 2, 7, float(lambda_w[j]), 0.01)
        torch.testing.assert_close(ratios[i, j], alone, rtol=1e-13, atol=1e-15)


def test_tiny_and_huge_decay_neither_over_nor_underflow() -> None:
    assert collapse_margin([4, 4], 1e-200, 1e-200).tolist() == [1, 1]
    assert collapse_margin([4, 4], 1e200, 1e200).tolist() == [0, 0]
    assert critical_imbalance(1, 2, 4, 1e-150, 1e-150).item() == pytest.approx(0.5e150)


def test_they_are_differentiable() -> None:
    decays = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.02, 0.01)]
    assert torch.autograd.gradcheck(lambda w, h: collapse_margin([20, 9, 9], w, h), decays)
    assert torch.autograd.gradcheck(lambda w, h: critical_imbalance(2, 3, 4, w, h), decays)


def test_single_precision_is_kept_and_agrees_with_double() -> None:
    counts = torch.tensor([20, 20, 9, 9])
    low = collapse_margin(counts, torch.tensor(0.02), torch.tensor(0.01))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), collapse_margin(counts, 0.02, 0.01), rtol=1e-5, atol=1e-6)
    ratio = critical_imbalance(2, 3, 4, torch.tensor(0.02), torch.tensor(0.01))
    assert ratio.dtype == torch.float32
    assert ratio.item() == pytest.approx(critical_imbalance(2, 3, 4, 0.02, 0.01).item(), rel=1e-5)


def test_whole_numbers_become_float64() -> None:
    assert collapse_margin([3, 4], 1, 1).dtype == torch.float64
    assert critical_imbalance(2, 2, 4, 1, 1).dtype == torch.float64


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    decay, counts = torch.rand(3, 1, device=fake_gpu), torch.ones(4, 5, device=fake_gpu)
    got = collapse_margin(counts, decay, 0.1)
    assert (str(got.device), got.shape, got.dtype) == (fake_gpu, (3, 4, 5), torch.float32)
    got = critical_imbalance(2, 3, 4, decay, 0.1)
    assert (str(got.device), got.shape, got.dtype) == (fake_gpu, (3, 1), torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_counts": 4}, r"class_counts: got shape \(\), want"),
        ({"class_counts": [4]}, r"class_counts: got shape \(1,\), want"),
        ({"class_counts": [4, 0]}, "class_counts: got 0, want"),
        ({"class_counts": [4, -1]}, "class_counts: got -1, want"),
        ({"class_counts": [4, 2.5]}, "class_counts: got 2.5, want"),
        ({"class_counts": [4, math.inf]}, "class_counts: got inf, want"),
        ({"lambda_w": 0.0}, "lambda_w: got 0, want"),
        ({"lambda_h": math.nan}, "lambda_h: got nan, want"),
        ({"lambda_w": [0.1] * 2, "lambda_h": [0.1] * 3}, r"lambda_w \(2,\), lambda_h \(3,\)"),
    ],
)
def test_what_is_wrong_with_counts_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collapse_margin(**({"class_counts": [4, 4], "lambda_w": 0.1, "lambda_h": 0.1} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_majority": 0}, "num_majority: got 0, want"),
        ({"num_minority": 1}, "num_minority: got 1, want"),
        ({"num_minority": 2.5}, "num_minority: got 2.5, want"),
        ({"minority_count": 0}, "minority_count: got 0, want"),
        ({"lambda_w": -0.1}, "lambda_w: got -0.1, want"),
        ({"lambda_h": 0}, "lambda_h: got 0, want"),
    ],
)
def test_what_is_wrong_with_a_ratio_is_named(change: dict[str, Any], message: str) -> None:
    fine = {"num_majority": 2, "num_minority": 2, "minority_count": 4, "lambda_w": 0.1, "lambda_h": 0.1}
    with pytest.raises(ValueError, match=message):
        critical_imbalance(**(fine | change))
