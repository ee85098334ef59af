"""Conditional risk, regret, optimum and calibration gap, against constrained minimisation by scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.h_consistency import calibration_gap, conditional_optimum, logistic_risk, zero_one_regret
from tests.h_consistency import oracle

BOUNDS = (0.1, 0.7, 2.0, 6.0)


def simplex(count: int, classes: int, seed: int = 0, concentration: float = 0.6) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, concentration), count)


def test_risk_is_the_mean_loss_of_the_softmax(device: str) -> None:
    p, o = simplex(20, 4), 3 * np.random.default_rng(1).normal(size=(20, 4))
    got = logistic_risk(torch.tensor(o, device=device), torch.tensor(p, device=device))
    np.testing.assert_allclose(got.cpu(), [oracle.risk(a, b) for a, b in zip(o, p, strict=True)], rtol=1e-13)


def test_a_class_that_cannot_occur_costs_nothing_however_low_its_score() -> None:
    assert logistic_risk([0.0, -math.inf], [1.0, 0.0]).item() == 0.0
    assert logistic_risk([0.0, -math.inf], [0.5, 0.5]).item() == math.inf
    assert logistic_risk([1e300, -1e300], [1.0, 0.0]).item() == 0.0
    assert logistic_risk([2e4, 0.0, -3e4], [0.0, 0.5, 0.5]).item() == pytest.approx(3.5e4, rel=1e-14)


def test_regret_counts_what_the_prediction_misses_and_ties_pessimistically(device: str) -> None:
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64, device=device)
    o = torch.tensor([[3.0, 1, 2], [1, 3, 2], [1, 2, 3], [2, 2, 1], [1, 2, 2], [0, 0, 0]], device=device)
    np.testing.assert_allclose(zero_one_regret(o.double(), p).cpu(), [0, 0.2, 0.3, 0.2, 0.3, 0.3], atol=1e-15)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_optimum_and_gap_agree_with_constrained_minimisation(classes: int, bound: float, device: str) -> None:
    for p in [*simplex(3, classes), np.eye(classes)[0], np.full(classes, 1 / classes)]:
        on = torch.tensor(p, device=device)
        best = conditional_optimum(on, bound)
        free = oracle.least_risk(p, bound)
        assert best.risk.item() == pytest.approx(free, abs=1e-9)
        assert oracle.risk(best.scores.cpu().numpy(), p) == pytest.approx(best.risk.item(), abs=1e-14)
        assert best.scores.abs().max() <= bound
        gaps = [calibration_gap(on, j, bound).item() for j in range(classes)]
        wanted = [max(oracle.least_risk(p, bound, j) - free, 0) for j in range(classes)]
        np.testing.assert_allclose(gaps, wanted, atol=1e-8)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_without_a_bound_the_optimum_is_the_entropy_and_the_gap_the_limit_of_boxes(classes: int) -> None:
    p = torch.tensor(simplex(50, classes))
    best = conditional_optimum(p)
    torch.testing.assert_close(best.risk, torch.special.entr(p).sum(-1))
    torch.testing.assert_close(best.scores, p.log())
    for j in range(classes):
        torch.testing.assert_close(calibration_gap(p, j), calibration_gap(p, j, 300.0), rtol=0, atol=1e-13)


def test_the_gap_of_a_hand_computed_pool() -> None:
    """Classes 0 and 1 are pooled with 3 at their mean 0.3, class 2 is left alone."""
    p = np.array([0.4, 0.4, 0.1, 0.1])
    want = 2 * 0.4 * math.log(0.4 / 0.3) + 0.1 * math.log(0.1 / 0.3)
    assert calibration_gap(p, 3).item() == pytest.approx(want, rel=1e-14)
    assert calibration_gap([0.6, 0.4], 1).item() == pytest.approx(0.6 * math.log(1.2) + 0.4 * math.log(0.8))


rows = (
    st.integers(2, 7)
    .flatmap(lambda k: st.lists(st.floats(0, 1), min_size=k, max_size=k))
    .filter(lambda row: sum(row) > 1e-3)
)


@settings(max_examples=50)
@given(rows, st.sampled_from([*BOUNDS, math.inf]), st.integers(0, 10_000))
def test_no_scores_beat_the_optimum_nor_predict_a_class_below_its_gap(
    row: list[float], bound: float, seed: int
) -> None:
    p = torch.tensor(row, dtype=torch.float64) / sum(row)
    generator = torch.Generator().manual_seed(seed)
    width = min(bound, 5.0)
    o = (2 * torch.rand(64, len(row), generator=generator, dtype=torch.float64) - 1) * width
    excess = logistic_risk(o, p) - conditional_optimum(p, bound).risk
    assert excess.min() >= -1e-13
    assert (excess >= calibration_gap(p, o.argmax(-1), bound) - 1e-13).all()
    top = int(p.argmax())
    assert calibration_gap(p, top, bound).item() == 0.0


@settings(max_examples=50)
@given(rows, st.floats(-30, 30))
def test_a_common_shift_of_scores_changes_neither_risk_nor_regret(row: list[float], shift: float) -> None:
    p = torch.tensor(row, dtype=torch.float64) / sum(row)
    o = torch.linspace(-1, 1, len(row), dtype=torch.float64)
    torch.testing.assert_close(logistic_risk(o + shift, p), logistic_risk(o, p), rtol=1e-12, atol=1e-12)
    assert zero_one_regret(o + shift, p) == zero_one_regret(o, p)


@pytest.mark.parametrize("bound", [0.5, 3.0, math.inf])
def test_a_batch_equals_its_rows_and_broadcasts(bound: float) -> None:
    p, o = torch.tensor(simplex(6, 4)).view(2, 1, 3, 4), torch.randn(5, 1, 4, dtype=torch.float64)
    risks, regrets = logistic_risk(o, p), zero_one_regret(o, p)
    assert risks.shape == regrets.shape == (2, 5, 3)
    torch.testing.assert_close(risks[1, 2, 0], logistic_risk(o[2, 0], p[1, 0, 0]))
    torch.testing.assert_close(regrets[1, 2, 0], zero_one_regret(o[2, 0], p[1, 0, 0]))
    labels = torch.tensor([[0], [1], [2], [3], [0]])
    gaps = calibration_gap(p, labels, bound)
    assert gaps.shape == (2, 5, 3)
    torch.testing.assert_close(gaps[0, 3, 2], calibration_gap(p[0, 0, 2], 3, bound))
    torch.testing.assert_close(conditional_optimum(p, bound).risk[1, 0, 2], conditional_optimum(p[1, 0, 2], bound).risk)


def test_derivatives_are_those_of_the_definition() -> None:
    o = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: logistic_risk(a, b.softmax(-1)), (o, logits))

    def gap(b: Tensor) -> Tensor:
        return calibration_gap(b.softmax(-1), 0)

    assert torch.autograd.gradcheck(gap, (logits,))


@pytest.mark.parametrize("bound", [0.3, 0.6, 1.0])
def test_derivatives_where_a_bound_acts_follow_the_normaliser(bound: float) -> None:
    logits = torch.tensor([[0.1, 0.9, -1.0], [0.5, -2.0, 1.5], [4.0, -4.0, 0.1]], dtype=torch.float64)
    scores = conditional_optimum(logits.softmax(-1), bound).scores
    assert ((scores.abs() == bound).any(-1)).all()
    assert ((scores.abs() < bound).any(-1)).any()
    assert torch.autograd.gradcheck(
        lambda x: conditional_optimum(x.softmax(-1), bound).scores, (logits.requires_grad_(),)
    )


def test_derivatives_are_numbers_where_nothing_is_clipped_and_at_impossible_classes() -> None:
    p = torch.tensor([[0.3, 0.3, 0.4], [0.9, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    best = conditional_optimum(p, 1.0)
    for got in (best.scores[0, 0] - best.scores[0, 2], best.scores[1].sum(), best.risk.sum()):
        (grad,) = torch.autograd.grad(got, p, retain_graph=True)
        assert grad.isfinite().all()
    (grad,) = torch.autograd.grad(best.scores[0, 0] - best.scores[0, 2], p)
    torch.testing.assert_close(grad[0], torch.tensor([1 / 0.3, 0, -1 / 0.4], dtype=torch.float64))


def test_single_precision_agrees_to_1e_5() -> None:
    p, o = torch.tensor(simplex(40, 5)), torch.randn(40, 5, dtype=torch.float64)
    p32 = p.float()
    for bound in (0.5, math.inf):
        low = calibration_gap(p32, 2, bound)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), calibration_gap(p, 2, bound), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            conditional_optimum(p32, bound).risk.double(), conditional_optimum(p, bound).risk, rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(logistic_risk(o.float(), p32).double(), logistic_risk(o, p), rtol=1e-5, atol=1e-5)


def test_lists_and_integers_become_double_precision() -> None:
    assert logistic_risk([1, 0], [0.1, 0.9]).dtype == torch.float64
    assert zero_one_regret(torch.tensor([1, 0]), [0.1, 0.9]).item() == pytest.approx(0.8, rel=1e-15)
    assert calibration_gap(np.array([0.3, 0.7]), np.array([0, 1])).dtype == torch.float64
    assert conditional_optimum([0.1, 0.9]).risk.dtype == torch.float64


def test_all_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    o, p = torch.empty(5, 3, device=fake_gpu), torch.empty(2, 1, 3, device=fake_gpu)
    label = torch.empty(5, dtype=torch.int64, device=fake_gpu)
    best = conditional_optimum(p, 1.0)
    got = [logistic_risk(o, p), zero_one_regret(o, p), best.scores, best.risk, conditional_optimum(p).risk]
    got += [calibration_gap(p, label), calibration_gap(p, label, 2.0), calibration_gap(p, 1)]
    for x in got:
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: logistic_risk([0.0, 0.0], [0.5, 0.6]), "probs: got 1.1, want rows that sum to one"),
        (lambda: logistic_risk([0.0, 0.0], [0.5, 0.500002]), r"probs: got 1\.000002, want rows that sum to one"),
        (lambda: logistic_risk([0.0, 0.0], [1.5, -0.5]), "probs: got -0.5"),
        (lambda: logistic_risk([0.0, 0.0], [math.nan, 0.5]), "probs: got nan"),
        (lambda: logistic_risk([0.0, math.nan], [0.5, 0.5]), "scores: got nan"),
        (lambda: logistic_risk([0.0, 0.0, 0.0], [0.5, 0.5]), r"scores: got shape \(3,\)"),
        (lambda: logistic_risk([[0.0, 0.0]] * 2, [[0.5, 0.5]] * 3), r"scores \(2,\)"),
        (lambda: logistic_risk(["a", "b"], [0.5, 0.5]), "scores: got"),
        (lambda: zero_one_regret([0.0], [1.0]), r"probs: got shape \(1,\)"),
        (lambda: conditional_optimum([0.5, 0.5], 0.0), "bound: got 0.0"),
        (lambda: conditional_optimum([0.5, 0.5], -1.0), "bound: got -1.0"),
        (lambda: conditional_optimum([0.5, 0.5], math.nan), "bound: got nan"),
        (lambda: conditional_optimum([0.5, 0.49]), "probs: got 0.99"),
        (lambda: calibration_gap([0.5, 0.5], 2), "label: got 2, want .* 0 to 1"),
        (lambda: calibration_gap([0.5, 0.5], -1), "label: got -1"),
        (lambda: calibration_gap([0.5, 0.5], [0, 5]), "label: got 5"),
        (lambda: calibration_gap([0.5, 0.5], [0.5]), "label: got"),
        (lambda: calibration_gap([[0.5, 0.5]] * 3, [0, 1]), r"label \(2,\)"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_probabilities_may_be_off_by_rounding_only() -> None:
    conditional_optimum([0.5, 0.5 + 9e-7])
    conditional_optimum(torch.tensor([0.5, 0.50009]))
    with pytest.raises(ValueError, match="probs: got"):
        conditional_optimum([0.5, 0.5 + 2e-6])
    with pytest.raises(ValueError, match="probs: got"):
        conditional_optimum(torch.tensor([0.5, 0.5002]))
