"""Movement, condition and band against real steps and against their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.gradient_entanglement import (
    PairGram,
    gradient_condition,
    gram_from_gradients,
    log_prob_changes,
    normalized_weights,
    weight_ratio_band,
)


def random_gram(count: int, seed: int = 0, dim: int = 3) -> tuple[np.ndarray, np.ndarray, PairGram]:
    rng = np.random.default_rng(seed)
    w, lose = rng.normal(size=(2, count, dim)) * np.exp(rng.normal(size=(2, count, 1)))
    return w, lose, gram_from_gradients(w, lose)


def test_a_linear_model_moves_exactly_as_told(device: str) -> None:
    w, lose, _ = random_gram(50)
    rng = np.random.default_rng(1)
    d_w, d_l = rng.uniform(-1, 2, (2, 50))
    step = 0.3 * (d_w[:, None] * w - d_l[:, None] * lose)
    gram = gram_from_gradients(torch.tensor(w, device=device), torch.tensor(lose, device=device))
    got = log_prob_changes(gram, d_w, d_l, 0.3)
    np.testing.assert_allclose(got.chosen.cpu(), (w * step).sum(-1), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(got.rejected.cpu(), (lose * step).sum(-1), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(got.margin.cpu(), ((w - lose) * step).sum(-1), rtol=1e-10, atol=1e-12)


def test_the_verdict_is_the_sign_of_the_movement() -> None:
    _, _, gram = random_gram(2000)
    d_w, d_l = np.exp(np.random.default_rng(2).normal(size=(2, 2000)))
    found, moved = gradient_condition(gram, d_w, d_l), log_prob_changes(gram, d_w, d_l, 1.0)
    assert torch.equal(found.chosen_up, moved.chosen >= 0)
    assert torch.equal(found.rejected_down, moved.rejected <= 0)
    assert torch.equal(found.holds, found.chosen_up & found.rejected_down)
    want = torch.where(found.holds, 0, torch.where(moved.chosen >= 0, 1, 2))
    assert torch.equal(found.regime, want)
    assert set(found.regime.tolist()) == {0, 1, 2}
    bound = np.minimum(d_w / d_l * gram.ww.numpy(), d_l / d_w * gram.ll.numpy())
    np.testing.assert_allclose(found.bound, bound, rtol=1e-12)


def test_the_condition_of_dpo_compares_with_the_shorter_gradient() -> None:
    found = gradient_condition(PairGram([1.0, 1.0, 5.0], [0.9, 1.1, 1.1], [5.0, 5.0, 1.0]), 1.0, 1.0)
    assert found.holds.tolist() == [True, False, False]
    assert found.regime.tolist() == [0, 2, 1]
    assert found.bound.tolist() == [1.0, 1.0, 1.0]


def test_an_impossible_gram_is_called_impossible() -> None:
    assert gradient_condition(PairGram(1.0, 2.0, 3.0), 1.75, 1.0).regime.item() == 3


def test_equality_counts_as_holding() -> None:
    assert gradient_condition(PairGram(4.0, 2.0, 1.0), 1.0, 2.0).chosen_up
    assert gradient_condition(PairGram(1.0, 2.0, 4.0), 2.0, 1.0).holds


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_makes_no_impossible_regime_of_parallel_gradients(dtype: torch.dtype, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for dim in (3, 1000):
        w, times = torch.randn(2000, dim, generator=generator), torch.rand(2000, 1, generator=generator) + 0.1
        w, times = w.to(device, dtype), times.to(device, dtype)
        gram = gram_from_gradients(w, times * w)
        found, band = gradient_condition(gram, *normalized_weights(gram)), weight_ratio_band(gram)
        assert set(found.regime.tolist()) <= {0, 1, 2}
        assert torch.equal(found.holds, found.regime == 0)
        assert (band.lower <= band.upper).all()
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(band.lower, times.squeeze(-1), rtol=20 * eps, atol=0)
        torch.testing.assert_close(band.upper, times.squeeze(-1), rtol=20 * eps, atol=0)


def test_parallel_gradients_of_any_size_have_a_band_and_impossible_ones_have_none() -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(2000, 3, generator=generator)
    for size in (1e-12, 1e12):  # their squares fit into single precision, the squares of these do not
        band = weight_ratio_band(gram_from_gradients(size * w, 1.7 * size * w))
        assert (band.lower <= band.upper).all()
    band = weight_ratio_band(PairGram(1.0, 2.0, 3.0))
    assert (band.lower.item(), band.upper.item()) == (2.0, 1.5)


number = st.floats(-5, 5).map(lambda x: round(x, 6))  # no product of them underflows
gradient = st.lists(number, min_size=3, max_size=3).filter(lambda x: sum(y * y for y in x) > 1e-3)
weight = st.floats(0.01, 100)


@given(gradient, gradient, weight, weight)
def test_never_does_the_chosen_fall_while_the_rejected_rises(
    w: list[float], lose: list[float], a: float, b: float
) -> None:
    moved = log_prob_changes(gram_from_gradients(w, lose), a, b, 1.0)
    apart = a * moved.chosen - b * moved.rejected
    size = np.square(a * np.array(w) - b * np.array(lose)).sum()
    assert apart.item() == pytest.approx(size, rel=1e-9, abs=1e-9 * (a * a + b * b) * 100)


@given(gradient, gradient, st.floats(0.02, 0.98))
def test_inside_the_band_it_holds_and_outside_it_fails(w: list[float], lose: list[float], part: float) -> None:
    gram = gram_from_gradients(w, lose)
    band = weight_ratio_band(gram)
    if gram.wl <= 0:
        assert (band.lower.item(), band.upper.item()) == (0.0, math.inf)
        assert gradient_condition(gram, part, 1.0).holds
        return
    low, high = band.lower.item(), band.upper.item()
    inside = low * (high / low) ** part
    assert band.center.item() == pytest.approx(math.sqrt(low * high), rel=1e-9)
    if high / low > 1 + 1e-6:
        assert gradient_condition(gram, inside, 1.0).holds
    assert gradient_condition(gram, low * (1 - 1e-6), 1.0).regime == 2
    assert gradient_condition(gram, high * (1 + 1e-6), 1.0).regime == 1


def test_normalised_weights_sit_in_the_centre_and_never_violate() -> None:
    w, _, gram = random_gram(500)
    d_w, d_l = normalized_weights(gram)
    np.testing.assert_allclose(d_w, 1 / np.linalg.norm(w, axis=-1), rtol=1e-12)
    torch.testing.assert_close(d_w / d_l, weight_ratio_band(gram).center)
    moved = log_prob_changes(gram, d_w, d_l, 1.0)
    torch.testing.assert_close(moved.chosen, gram.ww.sqrt() * (1 - gram.cosine))
    torch.testing.assert_close(moved.rejected, -gram.ll.sqrt() * (1 - gram.cosine))


def test_everything_broadcasts_and_keeps_float32() -> None:
    gram = PairGram(torch.rand(4, 1) + 1, torch.rand(4, 1), torch.rand(4, 1) + 1)
    moved = log_prob_changes(gram, torch.rand(3), 1.0, torch.tensor([0.1]))
    assert moved.chosen.shape == moved.margin.shape == (4, 3)
    assert moved.chosen.dtype == torch.float32
    found = gradient_condition(gram, torch.rand(3) + 0.1, 1)
    assert found.holds.shape == found.regime.shape == found.bound.shape == (4, 3)
    again = gradient_condition(PairGram(*(x.double() for x in (gram.ww, gram.wl, gram.ll))), 1.3, 0.7)
    torch.testing.assert_close(gradient_condition(gram, 1.3, 0.7).bound.double(), again.bound, rtol=1e-6, atol=0)


def test_a_gradient_that_vanishes_gives_no_error() -> None:
    gram = PairGram([0.0, 1.0], 0.0, [1.0, 0.0])
    assert gradient_condition(gram, 1.0, 1.0).holds.all()
    assert weight_ratio_band(gram).upper.tolist() == [math.inf, math.inf]


def test_gradients_pass_through() -> None:
    w, lose = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    d = torch.rand(2, dtype=torch.float64, requires_grad=True)

    def everything(w: torch.Tensor, lose: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gram = gram_from_gradients(w, lose)
        moved, band = log_prob_changes(gram, d, 1.0, 0.1), weight_ratio_band(gram)
        return moved.chosen, moved.rejected, band.center, gradient_condition(gram, d + 0.1, 1.0).bound

    assert torch.autograd.gradcheck(everything, (w, lose, d))


def test_all_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    gram = PairGram(*(torch.empty(5, device=fake_gpu) for _ in range(3)))
    d = torch.empty(2, 5, device=fake_gpu)
    moved, found, band = log_prob_changes(gram, d, d, 0.1), gradient_condition(gram, d, d), weight_ratio_band(gram)
    for x in (moved.chosen, moved.margin, found.bound, found.regime, band.center, *normalized_weights(gram)):
        assert str(x.device) == fake_gpu
    assert found.regime.shape == (2, 5)
    assert found.bound.dtype == band.lower.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: gradient_condition(g, 0.0, 1.0), "d_w: got 0"),
        (lambda g: gradient_condition(g, 1.0, -2.0), "d_l: got -2"),
        (lambda g: gradient_condition(g, math.nan, 1.0), "d_w: got nan"),
        (lambda g: gradient_condition(g, [1.0, 2.0, 3.0], 1.0), "do not broadcast"),
        (lambda g: log_prob_changes(g, 1.0, math.inf, 0.1), "d_l: got inf"),
        (lambda g: log_prob_changes(g, 1.0, 1.0, -0.1), "lr: got -0.1"),
        (lambda g: log_prob_changes(g, 1.0, [1.0, 2.0, 3.0], 0.1), "do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(PairGram([1.0, 2.0], [0.1, 0.2], [1.0, 1.0]))
