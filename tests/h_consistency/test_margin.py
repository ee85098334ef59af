"""Transforms of margin losses: closed forms against scipy's minimiser, the conjugate against the closed forms."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import softplus

from lib.h_consistency import logistic_transform, margin_transform, margin_transform_closed
from tests.h_consistency import oracle

PLAIN: dict[str, Callable[[float], float]] = {
    "hinge": lambda u: max(0.0, 1 - u),
    "squared_hinge": lambda u: max(0.0, 1 - u) ** 2,
    "squared": lambda u: (1 - u) ** 2,
    "exponential": lambda u: math.exp(-u),
    "logistic": lambda u: math.log1p(math.exp(-u)) if u > 0 else math.log1p(math.exp(u)) - u,
    "sigmoid": lambda u: 1 - math.tanh(u),
}
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": lambda u: (1 - u).clamp_min(0),
    "squared_hinge": lambda u: (1 - u).clamp_min(0).square(),
    "squared": lambda u: (1 - u).square(),
    "exponential": lambda u: (-u).exp(),
    "logistic": lambda u: torch.log1p((-u).exp()),
}
GRID = torch.cat((torch.linspace(0, 1, 41, dtype=torch.float64), 1 - torch.logspace(-16, -2, 8, dtype=torch.float64)))


@pytest.mark.parametrize("bound", [0.2, 0.9, 1.0, 2.5, 12.0])
@pytest.mark.parametrize("name", PLAIN)
def test_closed_forms_agree_with_bounded_minimisation(name: str, bound: float, device: str) -> None:
    grid = [0.0, 0.05, 0.3, 0.8, 0.97, 1.0, min(1.0, math.tanh(bound)), min(1.0, bound)]
    got = margin_transform_closed(name, torch.tensor(grid, dtype=torch.float64, device=device), bound)
    np.testing.assert_allclose(got.cpu(), [oracle.conjugate(PLAIN[name], t, bound) for t in grid], atol=1e-9)


@pytest.mark.parametrize("name", PLAIN)
def test_a_bound_beyond_reach_is_none(name: str) -> None:
    free = margin_transform_closed(name, GRID)
    for bound in (40.0, 1e3, 1e300):
        torch.testing.assert_close(margin_transform_closed(name, GRID, bound), free, rtol=1e-15, atol=1e-15)
    wanted = {"hinge": GRID, "squared": GRID**2, "squared_hinge": GRID**2, "sigmoid": GRID}
    if name in wanted:
        torch.testing.assert_close(free, wanted[name], rtol=1e-15, atol=0)


def test_closed_forms_keep_their_digits_near_zero() -> None:
    t = torch.tensor([1e-12, 1e-7, 1e-3], dtype=torch.float64)
    for name, curvature in {"exponential": 1, "logistic": 1}.items():
        got = margin_transform_closed(name, t) / t.square()
        torch.testing.assert_close(got, torch.full_like(t, curvature / 2), rtol=1e-6, atol=0)
    small = margin_transform_closed("exponential", t, 1e-13)
    torch.testing.assert_close(small, 1e-13 * t, rtol=0.06, atol=0)


@pytest.mark.parametrize("bound", [0.5, 2.5, 20.0, 800.0])
@pytest.mark.parametrize("name", LOSSES)
def test_the_conjugate_equals_the_closed_form(name: str, bound: float, device: str) -> None:
    t = GRID.to(device)
    got = margin_transform(LOSSES[name], t, bound)
    torch.testing.assert_close(got, margin_transform_closed(name, t, bound), rtol=0, atol=2e-15)


def test_rounding_makes_no_transform_negative() -> None:
    t = torch.logspace(-18, -6, 60, dtype=torch.float64)
    assert (margin_transform(LOSSES["logistic"], t) >= 0).all()


def test_a_bound_on_scores_is_half_a_bound_on_the_margin() -> None:
    wanted = logistic_transform(GRID, 2, 0.7)
    torch.testing.assert_close(margin_transform(LOSSES["logistic"], GRID, 1.4), wanted, rtol=0, atol=2e-15)
    torch.testing.assert_close(margin_transform_closed("logistic", GRID, 1.4), wanted, rtol=0, atol=0)
    assert (margin_transform(LOSSES["logistic"], GRID, 0.7) - wanted).abs().max() > 0.1


def test_losses_with_kinks_jumps_in_slope_and_functions_of_torch() -> None:
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    tilted = margin_transform(lambda u: torch.maximum(-u, -2 * u), t)  # slopes -1 and -2: falls for t > 1 / 3 only
    torch.testing.assert_close(tilted, (20 * (3 * t - 1) / 2).clamp_min(0), rtol=1e-13, atol=1e-13)
    soft = margin_transform(lambda u: softplus(-u), t, 36.0)  # torch rounds its tail beyond 20
    torch.testing.assert_close(soft, margin_transform_closed("logistic", t, 36.0), rtol=0, atol=1e-9)
    line = margin_transform(lambda u: -u, [0.25, 0.5, 1.0], 3)
    assert line.tolist() == [0.75, 1.5, 3.0]  # the best margin is the bound itself


def test_a_loss_that_turns_up_again_has_its_minimum_inside() -> None:
    """For exp(u) - 3 u both the even and the odd part count, and the best margin is not where the loss is least."""
    t = np.linspace(0, 1, 11)
    got = margin_transform(lambda u: u.exp() - 3 * u, t)
    np.testing.assert_allclose(got, [oracle.conjugate(lambda u: math.exp(u) - 3 * u, x, 3.0) for x in t], atol=1e-9)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-3, 0.5), st.floats(-2, 2)), min_size=1, max_size=5), st.floats(0.1, 30))
def test_any_maximum_of_lines_that_falls_is_transformed_to_its_accuracy(
    lines: list[tuple[float, float]], bound: float
) -> None:
    lines = [*lines, (-1.0, 1.0)]
    top = max(height for _, height in lines)
    lines = [(slope, min(height, top - 0.1) if slope > -0.2 else height) for slope, height in lines]

    def loss(u: Tensor) -> Tensor:
        return torch.stack([height + slope * u for slope, height in lines]).amax(0)

    here = loss(torch.zeros(1, dtype=torch.float64))
    if not (loss(torch.tensor([1e-6 * bound, 0.01 * bound, bound], dtype=torch.float64)) < here).any():
        return
    t = torch.tensor([0.0, 0.2, 0.6, 1.0], dtype=torch.float64)
    got = margin_transform(loss, t, bound)
    kinks = [(c - a) / (b - d) for b, a in lines for d, c in lines if b != d]
    u = torch.tensor([x for k in kinks for x in (k, -k) if abs(k) <= bound] + [0, -bound, bound], dtype=torch.float64)
    mixed = (1 + t[:, None]) / 2 * loss(u) + (1 - t[:, None]) / 2 * loss(-u)
    torch.testing.assert_close(got, here - mixed.amin(-1), rtol=1e-9, atol=1e-9)


def test_few_steps_are_refused_where_they_do_not_suffice() -> None:
    with pytest.raises(ValueError, match=r"num_steps = 12, error of the transform: got .*, want less"):
        margin_transform(LOSSES["exponential"], [0.5], num_steps=12)
    near = margin_transform(LOSSES["exponential"], [0.5], num_steps=60).item()
    assert near == pytest.approx(1 - math.sqrt(0.75), abs=1e-12)


@pytest.mark.parametrize("rise", [0.05, 1.0, 20.0])
def test_a_minimum_in_any_part_of_the_bracket_is_found_or_the_steps_are_refused(rise: float) -> None:
    """At t = 1 the transform of a loss that falls to a kink and rises again is what it falls by."""
    refused = 0
    halfway = (math.sqrt(5) - 1) / 4  # after one step both inner points of the bracket are as high
    for place in (*np.linspace(0.03, 0.97, 24), halfway):

        def loss(u: Tensor, kink: float = float(place)) -> Tensor:
            return torch.maximum(kink - u, rise * (u - kink))

        for steps in (1, 2, 3, 8, 20, 60):
            try:
                got = margin_transform(loss, [1.0], 1.0, num_steps=steps).item()
            except ValueError as refusal:
                assert "error of the transform" in str(refusal)  # noqa: PT017
                refused += 1
            else:
                assert got == pytest.approx(place, abs=2e-9)
    assert refused == 25 * 5


def test_the_name_of_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="loss: got 'hinge', want a function of margins"):
        inspect.unwrap(margin_transform)("hinge", 0.2)


def test_it_differentiates_in_t_and_in_a_parameter_of_the_loss() -> None:
    t = torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, a: margin_transform(lambda u: (-a * u).exp() + u.square() / 9, x, 1.5), (t, scale)
    )
    assert torch.autograd.gradcheck(lambda x: margin_transform_closed("exponential", x, 1.1), (t,))


def test_shapes_dtypes_and_single_precision() -> None:
    t = torch.rand(3, 2, dtype=torch.float64)
    for name, loss in LOSSES.items():
        for got in (margin_transform(loss, t.float()), margin_transform_closed(name, t.float())):
            assert got.dtype == torch.float32
            assert got.shape == (3, 2)
            torch.testing.assert_close(got.double(), margin_transform_closed(name, t), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(margin_transform(loss, t)[1, 0], margin_transform(loss, t[1, 0]), rtol=0, atol=0)
        assert margin_transform(loss, 1).dtype == margin_transform_closed(name, [0, 1]).dtype == torch.float64
        assert margin_transform(loss, torch.empty(0, 3, dtype=torch.float64)).shape == (0, 3)


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    t = torch.empty(4, 3, device=fake_gpu)
    for name, loss in LOSSES.items():
        for got in (margin_transform(loss, t), margin_transform_closed(name, t, 2.0)):
            assert str(got.device) == fake_gpu
            assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: margin_transform(lambda u: 1 - u.tanh(), 0.5), "loss: got a slope that falls at margin -.*convex"),
        (lambda: margin_transform(lambda u: (1 - u).clamp(0, 2), 0.5), "slope that falls at margin -(1|0.9)"),
        (lambda: margin_transform(lambda u: (1 - u).clamp(0, 1), 0.5), "slope that falls at margin 0, want a convex"),
        (
            lambda: margin_transform(lambda u: softplus(-u) + 0.01 * (-((200 * u - 5) ** 2)).exp(), 0.5),
            "slope that falls at margin 0.02",
        ),
        (lambda: margin_transform(lambda u: u.square(), 0.5), "loss: got one that does not fall at margin 0"),
        (lambda: margin_transform(lambda u: u.exp(), 0.5), "loss: got one that does not fall at margin 0"),
        (lambda: margin_transform(lambda u: (-u).clamp_min(0), 0.5), "loss: got one that does not fall at margin 0"),
        (lambda: margin_transform(lambda u: u.log(), 0.5), "loss: got no number at margin -20"),
        (lambda: margin_transform(lambda u: 1 / u.abs(), 0.5), "loss: got inf at margin 0"),
        (lambda: margin_transform(lambda u: u.sum(), [0.5, 0.1]), r"loss: got shape \(\) for margins of shape \(2,\)"),
        (lambda: margin_transform(LOSSES["hinge"], 1.5), "t: got 1.5, want 0 <= t <= 1"),
        (lambda: margin_transform(LOSSES["hinge"], [math.nan]), "t: got nan"),
        (lambda: margin_transform(LOSSES["hinge"], 0.5, 0.0), "bound: got 0.0, want a finite number > 0"),
        (lambda: margin_transform(LOSSES["hinge"], 0.5, math.inf), "bound: got inf, want a finite number > 0"),
        (lambda: margin_transform(LOSSES["hinge"], 0.5, num_steps=0), "num_steps: got 0"),
        (lambda: margin_transform_closed("huber", 0.5), "name: got 'huber', want one of hinge, squared_hinge"),
        (lambda: margin_transform_closed("hinge", -0.5), "t: got -0.5"),
        (lambda: margin_transform_closed("hinge", 0.5, -1.0), "bound: got -1.0"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
