"""Closed forms at the collapse against automatic differentiation of an explicit collapsed layer, and its threshold."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib.neural_collapse import collapsed_gradients, conflict_gap

from . import oracle

gaps, heats, shifts = st.floats(0.05, 15), st.floats(0.5, 20), st.floats(-4, 4)


@given(gaps, gaps, st.integers(2, 12), heats, shifts, shifts, st.floats(0.05, 4))
def test_gradients_are_those_of_automatic_differentiation(
    student: float, teacher: float, classes: int, heat: float, b_s: float, b_t: float, ratio: float
) -> None:
    want = oracle.collapsed(student, teacher, classes, heat, b_s, b_t, ratio)
    got = collapsed_gradients(student, teacher, classes, heat, student_offset=b_s, teacher_offset=b_t, mean_ratio=ratio)
    for name in ("ce", "logit", "common"):
        assert getattr(got, name).item() == pytest.approx(getattr(want, name), rel=1e-7, abs=1e-11), name
    if math.hypot(want.logit, want.common) > 1e-6:
        assert got.cosine.item() == pytest.approx(want.cosine, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("heat", [0.5, 1.0, 2.0, 4.0, 20.0])
@pytest.mark.parametrize("classes", [2, 3, 10, 50])
def test_the_cosine_agrees_to_twelve_digits(classes: int, heat: float) -> None:
    for student, teacher in ((3.0, 5.0), (5.0, 3.0), (6.0, 6.5)):
        want = oracle.collapsed(student, teacher, classes, heat, 0.3, -0.4, 0.7)
        got = collapsed_gradients(
            student, teacher, classes, heat, student_offset=0.3, teacher_offset=-0.4, mean_ratio=0.7
        )
        assert got.cosine.item() == pytest.approx(want.cosine, rel=0, abs=1e-12)


@pytest.mark.parametrize(("student", "teacher"), [(2.0, 6.0), (6.0, 2.0), (4.0, 4.5)])
def test_head_and_features_agree_on_the_sign_of_the_conflict(student: float, teacher: float) -> None:
    for ratio in (0.0, 0.5):
        want = oracle.collapsed(student, teacher, 5, 2.0, mean_ratio=ratio)
        got = collapsed_gradients(student, teacher, 5, 2.0, mean_ratio=ratio)
        assert got.cosine.item() == pytest.approx(want.cosine, abs=1e-10)
        assert np.sign(want.feature_cosine) == np.sign(got.cosine.item())
        assert abs(got.cosine) <= abs(want.feature_cosine) + 1e-12
    assert collapsed_gradients(student, teacher, 5, 2.0).cosine.item() == pytest.approx(np.sign(teacher - student))


def test_algebra_of_three_classes() -> None:
    p, q, m = sp.symbols("A B m")
    residual = sp.Matrix(3, 3, lambda i, j: p if i == j else q)
    spread = sp.Matrix(3, 3, lambda i, j: sp.Rational(2, 3) if i == j else -sp.Rational(1, 3))
    gradient = residual.T * (spread + m * sp.ones(3, 3)) / 3
    assert sp.simplify(gradient - ((p - q) / 3 * spread + (p + 2 * q) / 3 * m * sp.ones(3, 3))) == sp.zeros(3, 3)


def test_equal_teacher_and_student_pull_on_nothing() -> None:
    got = collapsed_gradients(4.0, 4.0, 10, 2.0, student_offset=0.5, teacher_offset=0.5, mean_ratio=1.0)
    assert [x.item() for x in (got.logit, got.common, got.cosine)] == [0, 0, 0]
    assert got.ce.item() == pytest.approx(1 / (math.exp(4) + 9))


@pytest.mark.parametrize("student", [50.0, 500.0, 5000.0])
def test_saturated_layers_keep_sign_and_size(student: float) -> None:
    got = collapsed_gradients(student, 2.0, 10, 1.0)
    assert got.ce.item() == pytest.approx(math.exp(-student), rel=1e-9, abs=0)
    with mpmath.workdps(60):
        coins = [1 / (1 + mpmath.exp(-share * gap)) for share in (0.9, -0.1) for gap in (mpmath.mpf(student), 2)]
        want = float((coins[0] - coins[1] - coins[2] + coins[3]) / 10)
    assert got.logit.item() == pytest.approx(want, rel=1e-9)
    assert got.cosine == -1


def test_both_saturated_still_know_who_leads() -> None:
    # A and B are far below the rounding of 1: a difference of two sigmoids near 1 keeps no digit of them
    for student, teacher in ((400.0, 380.0), (380.0, 400.0), (2000.0, 1500.0)):
        got = collapsed_gradients(student, teacher, 4, 2.0)
        with mpmath.workdps(1000):
            a, b = (
                2 / (1 + mpmath.exp(-share * student / 2)) - 2 / (1 + mpmath.exp(-share * teacher / 2))
                for share in (mpmath.mpf(3) / 4, -mpmath.mpf(1) / 4)
            )
            want = float((a - b) / 4)
        assert got.logit.item() == pytest.approx(want, rel=1e-8)
        assert got.cosine.item() == pytest.approx(np.sign(teacher - student))


def test_high_temperatures_leave_a_quarter_of_the_difference_of_gaps() -> None:
    # T (sigma(x/T) - sigma(y/T)) -> (x - y)/4: kappa -> (s - t)/(4 K), nu -> (b_S - b_T)/4
    got = collapsed_gradients(3.0, 7.0, 5, 1e5, student_offset=0.5, teacher_offset=-1.0)
    assert got.logit.item() == pytest.approx(-4 / 20, rel=1e-6)
    assert got.common.item() == pytest.approx(1.5 / 4, rel=1e-6)


def test_all_arguments_broadcast_and_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.uniform(0.5, 9, (3, 1, 1)), rng.uniform(0.5, 9, (4, 1))
    classes, heat = np.array([2, 10]), rng.uniform(1, 4, (4, 2))
    b_s, b_t, ratio = rng.normal(size=(3, 1, 2)), rng.normal(size=2), rng.uniform(0, 1, (1, 4, 1))
    got = collapsed_gradients(student, teacher, classes, heat, student_offset=b_s, teacher_offset=b_t, mean_ratio=ratio)
    threshold = conflict_gap(teacher, classes, heat, student_offset=b_s, teacher_offset=b_t)
    assert {x.shape for x in (*vars(got).values(), threshold)} == {(3, 4, 2)}
    every = [np.broadcast_to(x, (3, 4, 2)) for x in (student, teacher, classes, heat, b_s, b_t, ratio)]
    for i in np.ndindex(3, 4, 2):
        s, t, k, T, x, y, r = (v[i].item() for v in every)
        alone = collapsed_gradients(s, t, int(k), T, student_offset=x, teacher_offset=y, mean_ratio=r)
        for name, value in vars(alone).items():
            torch.testing.assert_close(getattr(got, name)[i], value, rtol=1e-12, atol=1e-14)
        alone_gap = conflict_gap(t, int(k), T, student_offset=x, teacher_offset=y)
        torch.testing.assert_close(threshold[i], alone_gap, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("heat", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_without_relative_shift_the_threshold_is_the_teacher(classes: int, heat: float) -> None:
    for teacher, shift in itertools.product((0.01, 1.0, 6.0, 30.0), (-2.0, 0.0, 3.0)):
        got = conflict_gap(teacher, classes, heat, student_offset=shift, teacher_offset=shift)
        assert got.item() == pytest.approx(teacher, rel=1e-9)


@given(gaps, st.integers(2, 30), heats, shifts, shifts)
def test_the_threshold_agrees_with_bisection_in_many_digits(
    teacher: float, classes: int, heat: float, b_s: float, b_t: float
) -> None:
    want = oracle.conflict_gap(teacher, classes, heat, b_s, b_t)
    got = conflict_gap(teacher, classes, heat, student_offset=b_s, teacher_offset=b_t)
    assert got.item() == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize(
    ("teacher", "classes", "heat", "b_s", "b_t"),
    [
        (200.0, 10, 1.0, 0.5, 3.0),  # both sigmoids saturate: s* = t + K (b_S - b_T)
        (60.0, 10, 1.0, 2.0, 1.0),
        (40.0, 2, 0.5, 3.0, -1.0),
        (1e-6, 10, 2.0, 4.0, -3.0),  # a teacher who knows next to nothing
        (1e-3, 1000, 1.0, 0.0, 5.0),
        (5.0, 1000, 4.0, -3.0, 2.0),
        (3.0, 10, 1.0, 20.0, 0.0),  # a student whose coins all show heads
        (3.0, 10, 1.0, 0.0, 20.0),
        (2.0, 5, 0.01, 0.0, 0.0),
    ],
)
def test_the_threshold_of_extreme_layers(teacher: float, classes: int, heat: float, b_s: float, b_t: float) -> None:
    want = oracle.conflict_gap(teacher, classes, heat, b_s, b_t)
    got = conflict_gap(teacher, classes, heat, student_offset=b_s, teacher_offset=b_t)
    assert got.item() == pytest.approx(want, rel=1e-6)


@given(gaps, st.integers(2, 20), heats, shifts, shifts)
def test_the_conflict_begins_at_the_threshold(
    teacher: float, classes: int, heat: float, b_s: float, b_t: float
) -> None:
    at = conflict_gap(teacher, classes, heat, student_offset=b_s, teacher_offset=b_t).item()
    below, above = (
        collapsed_gradients(at * by, teacher, classes, heat, student_offset=b_s, teacher_offset=b_t, mean_ratio=0.3)
        for by in (0.99, 1.01)
    )
    assert below.logit < 0 < above.logit
    assert below.cosine > 0 > above.cosine


def test_it_is_the_sign_change_of_the_measured_cosine() -> None:
    for b_t in (-3.0, 0.0, 3.0):
        at = conflict_gap(5.0, 10, 2.0, teacher_offset=b_t).item()
        low, high = (oracle.collapsed(at * by, 5.0, 10, 2.0, 0.0, b_t, 0.4).cosine for by in (1 - 1e-5, 1 + 1e-5))
        assert low > 0 > high


@pytest.mark.parametrize("setting", [(5.0, 10, 2.0, 0.4, -1.0), (0.3, 2, 0.5, 1.0, 0.0), (60.0, 10, 1.0, 2.0, 1.0)])
def test_derivatives_of_the_threshold_are_differences_of_one_in_many_digits(setting: tuple[float, ...]) -> None:
    teacher, classes, *others = setting
    numbers = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (teacher, *others)]

    def threshold(t: Tensor, heat: Tensor, b_s: Tensor, b_t: Tensor) -> Tensor:
        return conflict_gap(t, classes, heat, student_offset=b_s, teacher_offset=b_t)

    assert torch.autograd.gradcheck(threshold, numbers)
    found = torch.autograd.grad(threshold(*numbers), numbers)
    for i, slope in enumerate(found):
        ends = []
        for step in (1e-4, -1e-4):
            moved = [x.item() + step * (i == j) for j, x in enumerate(numbers)]
            ends.append(oracle.conflict_gap(moved[0], int(classes), *moved[1:]))
        assert slope.item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-5, abs=1e-7)


def test_without_relative_shift_the_threshold_follows_the_teacher_and_nothing_else() -> None:
    numbers = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (5.0, 2.0)]
    teacher, heat = torch.autograd.grad(conflict_gap(numbers[0], 10, numbers[1]), numbers)
    assert teacher.item() == pytest.approx(1, rel=1e-12)
    assert heat.item() == pytest.approx(0, abs=1e-12)


def test_thresholds_and_their_derivatives_can_be_mapped() -> None:
    teacher = torch.tensor([0.5, 3.0, 8.0], dtype=torch.float64)

    def threshold(t: Tensor) -> Tensor:
        return conflict_gap(t, 10, 2.0, student_offset=0.3)

    torch.testing.assert_close(torch.func.vmap(threshold)(teacher), threshold(teacher), rtol=1e-14, atol=0)
    want = torch.autograd.functional.jacobian(threshold, teacher).diagonal()
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(threshold))(teacher), want, rtol=1e-13, atol=0)


def test_both_are_differentiable() -> None:
    student, teacher, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, 5.0, 0.4))
    assert torch.autograd.gradcheck(
        lambda s, t, b: tuple(vars(collapsed_gradients(s, t, 10, 2.0, student_offset=b, mean_ratio=0.5)).values()),
        (student, teacher, b),
    )


def test_single_precision_is_kept_and_agrees_with_double() -> None:
    student, teacher = torch.tensor([1.0, 4.0, 8.0]), torch.tensor([3.0, 3.0, 3.0])
    low = collapsed_gradients(student, teacher, 10, 2.0, student_offset=0.3, mean_ratio=0.4)
    high = collapsed_gradients(student.double(), teacher.double(), 10, 2.0, student_offset=0.3, mean_ratio=0.4)
    for name, value in vars(low).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), getattr(high, name), rtol=1e-4, atol=1e-6)
    gap = conflict_gap(teacher, 10, 2.0, student_offset=0.3)
    assert gap.dtype == torch.float32
    assert gap[0].item() == pytest.approx(conflict_gap(3.0, 10, 2.0, student_offset=0.3).item(), rel=1e-4)


def test_numbers_become_float64() -> None:
    got = collapsed_gradients(2, 3, 10, 1)
    assert {x.dtype for x in (*vars(got).values(), conflict_gap(3, 10, 1))} == {torch.float64}


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    student, teacher, heat = (torch.rand(s, device=fake_gpu) for s in ((3, 1), (4,), ()))
    got = collapsed_gradients(student, teacher, 10, heat, student_offset=student, mean_ratio=0.5)
    gap = conflict_gap(teacher, 10, heat, student_offset=student, teacher_offset=0.1)
    for x in (*vars(got).values(), gap):
        assert (str(x.device), x.shape, x.dtype) == (fake_gpu, (3, 4), torch.float32)


FINE: dict[str, Any] = {"teacher_gap": 3.0, "num_classes": 10, "temperature": 2.0}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_classes": 1}, "num_classes: got 1, want"),
    ({"num_classes": 2.5}, "num_classes: got 2.5, want"),
    ({"num_classes": math.nan}, "num_classes: got nan, want"),
    ({"temperature": 0.0}, "temperature: got 0, want"),
    ({"temperature": -2.0}, "temperature: got -2, want"),
    ({"temperature": math.inf}, "temperature: got inf, want"),
    ({"teacher_gap": math.nan}, "teacher_gap: got nan, want"),
    ({"teacher_gap": "big"}, "teacher_gap: got str"),
    ({"student_offset": math.inf}, "student_offset: got inf, want"),
    ({"teacher_offset": math.nan}, "teacher_offset: got nan, want"),
    ({"teacher_offset": [0.0, 0.0], "teacher_gap": [1.0, 2.0, 3.0]}, r"teacher_gap \(3,\).*teacher_offset \(2,\)"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *WRONG,
        ({"student_gap": math.nan}, "student_gap: got nan, want"),
        ({"mean_ratio": -0.1}, "mean_ratio: got -0.1, want"),
        ({"mean_ratio": math.inf}, "mean_ratio: got inf, want"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collapsed_gradients(**({"student_gap": 2.0} | FINE | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *WRONG,
        ({"teacher_gap": 0.0}, "teacher_gap: got 0, want"),
        ({"teacher_gap": -1.0}, "teacher_gap: got -1, want"),
        ({"teacher_gap": math.inf}, "teacher_gap: got inf, want"),
    ],
)
def test_what_is_wrong_with_a_threshold_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conflict_gap(**(FINE | change))
