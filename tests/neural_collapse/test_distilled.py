"""Optimal gaps of one head and of two against minimisation, on lines and planes and of the whole problem."""

from __future__ import annotations

import inspect
import math
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from torch import Tensor

from lib.neural_collapse import DistilledOptimum, distilled_optimum, ufm_optimum

from . import oracle

BASE = oracle.Distilled(10, 5, 5e-3, 5e-4, 6.0, 2.0, 0.1)
SETTINGS = {
    "a strong teacher": BASE,
    "a weak teacher": replace(BASE, teacher_gap=2.0),
    "a teacher far beyond": replace(BASE, teacher_gap=12.0),
    "cold": replace(BASE, temperature=0.5),
    "hot": replace(BASE, temperature=20.0),
    "much distillation": replace(BASE, alpha=5.0),
    "hardly any": replace(BASE, alpha=1e-4),
    "two classes": oracle.Distilled(2, 3, 0.05, 0.02, 3.0, 1.0, 0.5),
    "near the end of learning": oracle.Distilled(5, 4, 0.105, 0.105, 4.0, 2.0, 0.3),
    "only distillation teaches": oracle.Distilled(5, 4, 0.11, 0.11, 6.0, 2.0, 2.0),
    "nothing is learnt": oracle.Distilled(5, 4, 0.5, 0.5, 4.0, 2.0, 0.3),
}


def gap_of_both(x: oracle.Distilled) -> tuple[DistilledOptimum, DistilledOptimum]:
    one, two = (distilled_optimum(*astuple(x), heads=heads) for heads in (1, 2))
    return one, two


@pytest.mark.parametrize("kind", SETTINGS)
def test_gaps_are_those_of_minima_on_a_line_and_in_a_plane(kind: str) -> None:
    x = SETTINGS[kind]
    one, two = gap_of_both(x)
    want = oracle.one_head(x)
    assert one.main_gap.item() == pytest.approx(want, rel=1e-6, abs=1e-6)
    assert one.aux_gap == one.main_gap
    main, aux = oracle.two_heads(x)
    assert two.main_gap.item() == pytest.approx(main, rel=1e-5, abs=1e-6)
    assert two.aux_gap.item() == pytest.approx(aux, rel=1e-5, abs=1e-6)
    for got in (one, two):
        ratio = oracle.offset_ratio(x, got.aux_gap.item())
        assert got.offset_ratio.item() == pytest.approx(ratio, rel=1e-9)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(
    "kind", ["a strong teacher", "a weak teacher", "hot", "two classes", "near the end of learning"]
)
def test_certified_gaps_are_those_of_descent_on_the_whole_problem(kind: str, heads: int) -> None:
    x = SETTINGS[kind]
    got = distilled_optimum(*astuple(x), heads=heads)
    assert got.offset_ratio <= 1
    main, aux = oracle.distilled_by_descent(x, heads)
    assert got.main_gap.item() == pytest.approx(main, rel=1e-5, abs=1e-5)
    assert got.aux_gap.item() == pytest.approx(aux, rel=1e-5, abs=1e-5)


def test_the_certificate_warns_where_the_formula_is_wrong() -> None:
    x = SETTINGS["a teacher far beyond"]
    for heads in (1, 2):
        got = distilled_optimum(*astuple(x), heads=heads)
        assert got.offset_ratio > 1
        assert abs(got.main_gap.item() - oracle.distilled_by_descent(x, heads)[0]) > 0.01


def test_conditions_of_the_optimum_hold_to_the_last_digits() -> None:
    for x in SETTINGS.values():
        one, two = gap_of_both(x)
        if one.main_gap > 0:
            slope = _cross_slope(x, one.main_gap.item()) + _coin_slope(x, one.main_gap.item())
            assert slope == pytest.approx(x.c, rel=1e-9)
        if two.aux_gap > 0:
            s1, s2 = two.main_gap.item(), two.aux_gap.item()
            length = math.hypot(s1, s2)
            assert _cross_slope(x, s1) == pytest.approx(x.c * s1 / length, rel=1e-8)
            assert _coin_slope(x, s2) == pytest.approx(x.c * s2 / length, rel=1e-8)


def _cross_slope(x: oracle.Distilled, s: float) -> float:
    return 1 / (math.exp(s) + x.classes - 1)


def _coin_slope(x: oracle.Distilled, s: float) -> float:
    shares = ((x.classes - 1) / x.classes, -1 / x.classes)
    p, q = ([special.expit(share * gap / x.temperature) for share in shares] for gap in (x.teacher_gap, s))
    return float(x.alpha * x.temperature * (p[0] - q[0] - p[1] + q[1]) / x.classes)


decay = st.floats(-4, -1.2)


@settings(max_examples=40)
@given(st.integers(2, 20), st.integers(1, 100), decay, decay, st.floats(0.5, 15), st.floats(0.5, 10), st.floats(-3, 1))
def test_an_auxiliary_head_never_lowers_the_main_gap_where_one_head_may(
    classes: int, per_class: int, log_w: float, log_h: float, teacher: float, heat: float, log_alpha: float
) -> None:
    numbers = (classes, per_class, 10.0**log_w, 10.0**log_h)
    alone = ufm_optimum(*numbers).gap.item()
    one, two = (distilled_optimum(*numbers, teacher, heat, 10.0**log_alpha, heads=k) for k in (1, 2))
    if math.sqrt(per_class * numbers[2] * numbers[3]) * classes < 1:
        assert two.main_gap > alone
        assert 0 < two.aux_gap < teacher
        assert min(alone, teacher) - 1e-9 <= one.main_gap.item() <= max(alone, teacher) + 1e-9


@pytest.mark.parametrize("heads", [1, 2])
def test_without_distillation_the_main_gap_is_that_of_cross_entropy(heads: int) -> None:
    got = distilled_optimum(10, 5, 5e-3, [5e-4, 1.0], 6.0, 2.0, 0.0, heads=heads)
    torch.testing.assert_close(got.main_gap, ufm_optimum(10, 5, 5e-3, [5e-4, 1.0]).gap, rtol=1e-12, atol=1e-12)
    assert (got.offset_ratio == 0).all()
    if heads == 2:
        assert (got.aux_gap == 0).all()


@pytest.mark.parametrize("heads", [1, 2])
def test_the_gaps_open_where_the_conditions_say(heads: int) -> None:
    # one head: 1/K - alpha kappa(0) = c; two heads: 1/K^2 + (alpha kappa(0))^2 = c^2
    K, t, T, alpha = 5, 4.0, 2.0, 0.3
    pull = -alpha * oracle.collapsed(1e-9, t, K, T).logit
    edge = 1 / K + pull if heads == 1 else math.hypot(1 / K, pull)
    for by, opens in ((0.999, True), (1.001, False)):
        side = math.sqrt(by * edge / math.sqrt(4))  # c = sqrt(n) lambda with n = 4
        lam = side**2
        got = distilled_optimum(K, 4, lam, lam, t, T, alpha, heads=heads)
        assert (got.main_gap > 0) == opens
        assert (got.aux_gap > 0) == opens


def test_all_arguments_broadcast_and_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    classes, per_class = np.array([3, 10]), np.array([[1], [20], [5]])
    lambda_w, lambda_h = rng.uniform(1e-3, 0.1, (4, 1, 1)), 0.01
    teacher, heat, alpha = rng.uniform(1, 9, (3, 2)), np.array([1.0, 4.0]), rng.uniform(0, 1, (4, 3, 1))
    arguments = (classes, per_class, lambda_w, lambda_h, teacher, heat, alpha)
    for heads in (1, 2):
        got = distilled_optimum(*arguments, heads=heads)
        assert {x.shape for x in vars(got).values()} == {(4, 3, 2)}
        every = [np.broadcast_to(x, (4, 3, 2)) for x in arguments]
        for i in np.ndindex(4, 3, 2):
            alone = distilled_optimum(*(x[i].item() for x in every), heads=heads)
            for name, value in vars(alone).items():
                torch.testing.assert_close(getattr(got, name)[i], value, rtol=1e-12, atol=1e-14)


def test_extreme_numbers_give_finite_gaps() -> None:
    for heads in (1, 2):
        got = distilled_optimum(
            [2, 1000, 10, 10, 10],
            [1, 1000, 5, 5, 5],
            [1e-8, 1e-6, 1e-3, 1e-3, 1e-12],
            [1e-8, 1e-6, 1e-3, 1e-3, 1e-12],
            [100.0, 30.0, 1e-3, 500.0, 3.0],
            [0.1, 100.0, 1.0, 1.0, 50.0],
            [1e-6, 1e3, 1e2, 1.0, 1e3],
            heads=heads,
        )
        assert all(x.isfinite().all() for x in vars(got).values())
        assert (got.main_gap > 0).all()
        if heads == 1:
            for i, x in (
                (0, oracle.Distilled(2, 1, 1e-8, 1e-8, 100.0, 0.1, 1e-6)),
                (4, oracle.Distilled(10, 5, 1e-12, 1e-12, 3.0, 50.0, 1e3)),
            ):
                slope = _cross_slope(x, got.main_gap[i].item()) + _coin_slope(x, got.main_gap[i].item())
                assert slope == pytest.approx(x.c, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", sorted(SETTINGS.keys() - {"nothing is learnt"}))
def test_derivatives_in_every_real_argument_are_those_of_differences(kind: str, heads: int) -> None:
    x = SETTINGS[kind]
    numbers = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in astuple(x)[2:]]

    def everything(*numbers: Tensor) -> tuple[Tensor, ...]:
        return tuple(vars(distilled_optimum(x.classes, x.per_class, *numbers, heads=heads)).values())

    assert torch.autograd.gradcheck(everything, numbers, eps=1e-7, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_gap_that_stays_closed_has_no_derivative(heads: int) -> None:
    x = SETTINGS["nothing is learnt"]
    numbers = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in astuple(x)[2:]]
    got = distilled_optimum(x.classes, x.per_class, *numbers, heads=heads)
    assert not any(g.any() for g in torch.autograd.grad(got.main_gap + got.aux_gap, numbers))


@pytest.mark.parametrize("heads", [1, 2])
def test_without_distillation_derivatives_are_those_of_cross_entropy(heads: int) -> None:
    w, h, alpha = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (5e-3, 5e-4, 0.0))
    got = distilled_optimum(10, 5, w, h, 6.0, 2.0, alpha, heads=heads)
    want = torch.autograd.grad(ufm_optimum(10, 5, w, h).gap, (w, h))
    found = torch.autograd.grad(got.main_gap, (w, h), retain_graph=True)
    torch.testing.assert_close(found, want, rtol=1e-10, atol=0)
    # its weight opens the auxiliary gap at a finite rate
    near = distilled_optimum(10, 5, 5e-3, 5e-4, 6.0, 2.0, 1e-7, heads=heads)
    (rate,) = torch.autograd.grad(got.aux_gap, alpha)
    assert ((near.aux_gap - got.aux_gap) / 1e-7).item() == pytest.approx(rate.item(), rel=1e-5)


def test_an_open_and_a_closed_gap_of_one_batch_do_not_disturb_each_other() -> None:
    lambda_h = torch.tensor([5e-4, 1.0], dtype=torch.float64, requires_grad=True)
    for heads in (1, 2):
        for alpha in (0.0, 0.1):
            got = distilled_optimum(10, 5, 5e-3, lambda_h, 6.0, 2.0, alpha, heads=heads)
            (slope,) = torch.autograd.grad(got.main_gap.sum(), lambda_h)
            assert slope[0] < 0 == slope[1]


@pytest.mark.parametrize("heads", [1, 2])
def test_gaps_and_their_derivatives_can_be_mapped(heads: int) -> None:
    teacher = torch.tensor([2.0, 6.0, 9.0], dtype=torch.float64)

    def gap(t: Tensor) -> Tensor:
        return distilled_optimum(10, 5, 5e-3, 5e-4, t, 2.0, 0.1, heads=heads).main_gap

    torch.testing.assert_close(torch.func.vmap(gap)(teacher), gap(teacher), rtol=1e-14, atol=0)
    want = torch.autograd.functional.jacobian(gap, teacher).diagonal()
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(gap))(teacher), want, rtol=1e-13, atol=0)


def test_single_precision_is_kept_and_agrees_with_double() -> None:
    teacher = torch.tensor([2.0, 6.0, 9.0])
    for heads in (1, 2):
        low = distilled_optimum(10, 5, 5e-3, 5e-4, teacher, 2.0, 0.1, heads=heads)
        high = distilled_optimum(10, 5, 5e-3, 5e-4, teacher.double(), 2.0, 0.1, heads=heads)
        for name, value in vars(low).items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value.double(), getattr(high, name), rtol=1e-4, atol=1e-4)


def test_whole_numbers_become_float64() -> None:
    got = distilled_optimum(10, 5, 1, 1, 6, 2, 1)
    assert {x.dtype for x in vars(got).values()} == {torch.float64}


@pytest.mark.parametrize("heads", [1, 2])
def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str, heads: int) -> None:
    teacher, alpha = torch.rand(3, 1, device=fake_gpu), torch.rand(4, device=fake_gpu)
    got = distilled_optimum(10, 5, 5e-3, 5e-4, teacher, 2.0, alpha, heads=heads)
    for x in vars(got).values():
        assert (str(x.device), x.shape, x.dtype) == (fake_gpu, (3, 4), torch.float32)


FINE: dict[str, Any] = {
    "num_classes": 10,
    "samples_per_class": 5,
    "lambda_w": 1e-3,
    "lambda_h": 1e-3,
    "teacher_gap": 3.0,
    "temperature": 2.0,
    "alpha": 0.1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 1}, "num_classes: got 1, want"),
        ({"samples_per_class": 0}, "samples_per_class: got 0, want"),
        ({"lambda_w": 0.0}, "lambda_w: got 0, want"),
        ({"lambda_h": -1.0}, "lambda_h: got -1, want"),
        ({"teacher_gap": 0.0}, "teacher_gap: got 0, want"),
        ({"teacher_gap": math.inf}, "teacher_gap: got inf, want"),
        ({"temperature": 0.0}, "temperature: got 0, want"),
        ({"temperature": math.nan}, "temperature: got nan, want"),
        ({"alpha": -0.1}, "alpha: got -0.1, want"),
        ({"alpha": math.inf}, "alpha: got inf, want"),
        ({"alpha": "some"}, "alpha: got str"),
        ({"heads": 0}, "heads: got 0, want 1 or 2"),
        ({"heads": True}, "heads: got True, want 1 or 2"),
        ({"heads": 3}, "heads: got 3, want 1 or 2"),
        ({"alpha": [0.1, 0.2], "teacher_gap": [1.0] * 3}, r"teacher_gap \(3,\).*alpha \(2,\)"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distilled_optimum(**(FINE | change))


def test_heads_may_be_a_number_of_numpy_but_no_fraction() -> None:
    plain = inspect.unwrap(distilled_optimum)
    assert plain(**FINE, heads=np.int64(2)) == distilled_optimum(**FINE, heads=2)
    with pytest.raises(ValueError, match=r"heads: got 2.0, want 1 or 2"):
        plain(**FINE, heads=2.0)


def test_gaps_of_a_thousand_random_settings_satisfy_their_conditions() -> None:
    rng = np.random.default_rng(0)
    classes, per_class = rng.integers(2, 100, 1000), rng.integers(1, 500, 1000)
    lambda_w, lambda_h, alpha = 10 ** rng.uniform(-5, -1, (3, 1000))
    teacher, heat = rng.uniform(0.5, 20, 1000), rng.uniform(0.5, 20, 1000)
    c = torch.tensor(np.sqrt(per_class * lambda_w * lambda_h))
    arguments = [torch.tensor(x, dtype=torch.float64) for x in (classes, heat, teacher)]

    def pull(gap: Tensor) -> Tensor:
        K, T, t = arguments
        coins = [torch.sigmoid(x / T) for x in ((K - 1) * gap / K, (K - 1) * t / K, -gap / K, -t / K)]
        return torch.tensor(alpha) * T * (coins[1] - coins[0] + coins[2] - coins[3]) / K

    K, _, _ = arguments
    one, two = (
        distilled_optimum(classes, per_class, lambda_w, lambda_h, teacher, heat, alpha, heads=k) for k in (1, 2)
    )
    slope = 1 / (one.main_gap.exp() + K - 1) + pull(one.main_gap)
    open_one = one.main_gap > 0
    assert 100 < open_one.sum() < 1000
    torch.testing.assert_close(slope[open_one], c[open_one], rtol=1e-6, atol=1e-15)
    assert (slope[~open_one] <= c[~open_one]).all()
    s1, s2 = two.main_gap, two.aux_gap
    cross, coins, length = 1 / (s1.exp() + K - 1), pull(s2), torch.hypot(s1, s2)
    open_two = s1 > 0
    assert 100 < open_two.sum() < 1000
    torch.testing.assert_close((cross - c * s1 / length)[open_two] / c[open_two], 0 * c[open_two], rtol=0, atol=1e-7)
    torch.testing.assert_close((coins - c * s2 / length)[open_two] / c[open_two], 0 * c[open_two], rtol=0, atol=1e-7)
    assert (torch.hypot(cross, coins)[~open_two] <= c[~open_two]).all()
