"""The logistic transform against its dual in 40 digits and against all calibration gaps, its inverse, the bound."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.h_consistency import (
    calibration_gap,
    h_consistency_bound,
    inverse_logistic_transform,
    logistic_dead_zone,
    logistic_transform,
)
from tests.h_consistency import oracle
from tests.h_consistency.test_conditional import simplex

GRID = [0.0, 1e-9, 1e-4, 0.03, 0.2, 0.5, 0.75, 0.9, 0.999, 1.0]
CASES = [(2, 0.3), (2, 3.0), (3, 1.0), (3, 0.1), (5, 0.7), (10, 2.5), (1000, 2.0), (1000, 12.0)]


@pytest.mark.parametrize("t", GRID)
def test_unbounded_transform_keeps_its_digits_also_near_zero(t: float, device: str) -> None:
    got = logistic_transform(torch.tensor(t, dtype=torch.float64, device=device))
    assert got.item() == pytest.approx(oracle.two_coins(t), rel=4e-15, abs=0)


@pytest.mark.parametrize(("classes", "bound"), CASES)
def test_bounded_transform_is_the_supremum_over_a_lowered_score(classes: int, bound: float, device: str) -> None:
    turn = math.tanh(bound)
    grid = [*GRID, turn, logistic_dead_zone(classes, bound), min(1.0, 1.5 * logistic_dead_zone(classes, bound))]
    got = logistic_transform(torch.tensor(grid, dtype=torch.float64, device=device), classes, bound)
    np.testing.assert_allclose(
        got.cpu(), [oracle.box_transform(t, classes, bound) for t in grid], rtol=1e-12, atol=3e-16
    )


@pytest.mark.parametrize(("classes", "bound"), [*CASES, (4, math.inf)])
def test_it_is_touched_by_two_leaders_and_crossed_by_nobody(classes: int, bound: float) -> None:
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    pair = torch.zeros(50, classes, dtype=torch.float64)
    pair[:, 0], pair[:, 1] = (1 + t) / 2, (1 - t) / 2
    wanted = logistic_transform(t, classes, bound)
    touched = calibration_gap(pair, 1, bound)
    torch.testing.assert_close(touched, wanted, rtol=0, atol=1e-14)
    p = torch.tensor(simplex(2000 if classes < 20 else 50, classes, concentration=1.0 if classes < 20 else 0.01))
    slack = calibration_gap(p, 0, bound) - logistic_transform((p.amax(-1) - p[:, 0]).clamp(0, 1), classes, bound)
    assert slack.min() >= -1e-13


def test_dead_zone_is_that_of_the_formula_and_of_the_transform() -> None:
    for classes, bound in CASES:
        t0 = logistic_dead_zone(classes, bound)
        with mpmath.workdps(40):
            spare = (classes - 2) * mpmath.exp(-2 * mpmath.mpf(bound))
            assert t0 == pytest.approx(float(spare / (2 + spare)), rel=1e-14, abs=0)
        assert logistic_transform(t0, classes, bound).item() == 0.0
        assert logistic_transform(t0 + 1e-3 * (1 - t0), classes, bound).item() > 0.0
    assert logistic_dead_zone(7, math.inf) == 0.0


@settings(max_examples=50)
@given(st.floats(0, 1), st.integers(2, 50), st.floats(0.05, 30))
def test_inverse_returns_the_largest_regret_allowed(t: float, classes: int, bound: float) -> None:
    cost = logistic_transform(t, classes, bound)
    back = inverse_logistic_transform(cost, classes, bound).item()
    t0 = logistic_dead_zone(classes, bound)
    assert back == pytest.approx(max(t, t0), abs=2e-8)  # the slope is zero at the end of the dead zone
    assert back >= max(t, t0) - 1e-15 - 4e-16 / max(1e-8, t - t0)
    assert logistic_transform(min(back, 1.0), classes, bound).item() == pytest.approx(cost.item(), rel=1e-9, abs=1e-16)


def test_inverse_at_its_ends_and_at_tiny_regrets() -> None:
    for classes, bound in [*CASES, (3, math.inf)]:
        top = logistic_transform(1.0, classes, bound).item()
        got = inverse_logistic_transform([0.0, top, top * 1.01, 1e9, math.inf], classes, bound)
        np.testing.assert_allclose(got, [logistic_dead_zone(classes, bound), 1, 1, 1, 1], rtol=1e-12, atol=0)
    for r in (1e-300, 1e-30, 1e-12):
        assert inverse_logistic_transform(r).item() == pytest.approx(math.sqrt(2 * r), rel=1e-9)


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(2, 9), st.floats(0.05, 4))
def test_transform_is_convex_grows_with_t_and_bound_and_shrinks_with_classes(
    a: float, b: float, part: float, classes: int, bound: float
) -> None:
    low, high = sorted((a, b))
    ends = logistic_transform([low, high], classes, bound)
    middle = logistic_transform(part * low + (1 - part) * high, classes, bound)
    assert ends[0] <= ends[1] + 1e-16
    assert middle <= part * ends[0] + (1 - part) * ends[1] + 1e-15
    assert logistic_transform(high, classes, bound) <= logistic_transform(high, classes, bound * 1.3) + 1e-15
    assert logistic_transform(high, classes + 1, bound) <= logistic_transform(high, classes, bound) + 1e-15


def test_pinsker_constant_is_sharp_at_zero_and_nowhere_else() -> None:
    t = torch.logspace(-6, 0, 30, dtype=torch.float64)
    ratio = logistic_transform(t) / (t.square() / 2)
    torch.testing.assert_close(ratio[:8], 1 + t[:8].square() / 6, rtol=1e-9, atol=0)
    assert (ratio > 1).all()
    assert ratio[-1].item() == pytest.approx(2 * math.log(2))


def test_bound_subtracts_the_gaps_where_they_belong() -> None:
    """One feature at 1 and 10, opposite labels: the surrogate minimiser exceeds the least error by 0.6."""
    x, share, truth = np.array([1.0, 10.0]), np.array([0.8, 0.2]), np.array([1.0, 0.0])
    grid = np.linspace(-1, 1, 200_001)
    o = grid[:, None] * x
    risks = (share * (np.logaddexp(o, -o) - (2 * truth - 1) * o)).sum(-1)
    w, best = grid[risks.argmin()], risks.min()
    errors = [(share * ((slope * x > 0) != (truth == 1))).sum() for slope in (w, -w)]
    assert errors[0] - min(errors) == pytest.approx(0.6)
    assert h_consistency_bound(0.0, best, 0.2).item() == pytest.approx(
        inverse_logistic_transform(best).item() - 0.2, rel=1e-14
    )
    assert h_consistency_bound(0.0, best, 0.2).item() > 0.6
    assert h_consistency_bound(0.0).item() == 0.0
    wide = h_consistency_bound([0.1, 0.2], [[0.0], [0.3]], 0.05, 3, 1.0)
    assert wide.shape == (2, 2)
    torch.testing.assert_close(wide[1, 0], inverse_logistic_transform(0.4, 3, 1.0) - 0.05)


@pytest.mark.parametrize(("classes", "bound"), [(2, math.inf), (3, 1.0), (2, 0.4)])
def test_derivatives_of_both_directions(classes: int, bound: float) -> None:
    t = torch.tensor([0.1, 0.3, 0.6, 0.93], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: logistic_transform(x, classes, bound), (t,))
    r = logistic_transform(t.detach(), classes, bound).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: inverse_logistic_transform(x, classes, bound), (r,))


def test_single_precision_numbers_and_arrays() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    for classes, bound in ((2, math.inf), (3, 1.0)):
        low = logistic_transform(t.float(), classes, bound)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), logistic_transform(t, classes, bound), rtol=1e-5, atol=1e-6)
        r = torch.linspace(0, 0.8, 101, dtype=torch.float64)
        back = inverse_logistic_transform(r.float(), classes, bound)
        assert back.dtype == torch.float32
        torch.testing.assert_close(back.double(), inverse_logistic_transform(r, classes, bound), rtol=1e-4, atol=2e-4)
    assert logistic_transform(1).dtype == logistic_transform(np.float64(0.5)).dtype == torch.float64
    assert logistic_transform(np.array([[0.1], [0.2]])).shape == (2, 1)
    assert logistic_transform(torch.empty(0, dtype=torch.float64)).shape == (0,)


def test_all_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    t = torch.empty(4, 7, device=fake_gpu)
    for classes, bound in ((2, math.inf), (3, 1.0)):
        got = [f(t, classes, bound) for f in (logistic_transform, inverse_logistic_transform)]
        for x in [*got, h_consistency_bound(t, t, 0.1, classes, bound)]:
            assert str(x.device) == fake_gpu
            assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: logistic_transform(1.1), "t: got 1.1, want 0 <= t <= 1"),
        (lambda: logistic_transform([-0.1]), "t: got -0.1"),
        (lambda: logistic_transform(math.nan), "t: got nan"),
        (lambda: logistic_transform("x"), "t: got"),
        (lambda: logistic_transform(0.5, 1), "num_classes: got 1, want a whole number >= 2"),
        (lambda: logistic_transform(0.5, 2, 0.0), "bound: got 0.0"),
        (lambda: logistic_dead_zone(1, 1.0), "num_classes: got 1"),
        (lambda: logistic_dead_zone(3, -1.0), "bound: got -1.0"),
        (lambda: inverse_logistic_transform(-0.1), "regret: got -0.1"),
        (lambda: inverse_logistic_transform(math.nan), "regret: got nan"),
        (lambda: h_consistency_bound(-0.1), "surrogate_excess: got -0.1"),
        (lambda: h_consistency_bound(0.1, -0.1), "surrogate_gap: got -0.1"),
        (lambda: h_consistency_bound(0.1, 0.1, math.nan), "target_gap: got nan"),
        (lambda: h_consistency_bound(0.1, bound=0.0), "bound: got 0.0"),
        (lambda: h_consistency_bound([0.1, 0.2], [0.1, 0.2, 0.3]), r"surrogate_excess \(2,\), surrogate_gap \(3,\)"),
        (
            lambda: h_consistency_bound(0.1, [0.1, 0.2], [0.1] * 3),
            r"target_gap \(3,\): got shapes that do not broadcast",
        ),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
