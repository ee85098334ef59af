"""Gaps, top labels and proper scores against numpy and sklearn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from lib.temperature_scaling import (
    logit_gap,
    proper_scores,
    top_label,
)

from . import oracle
from .cases import problem


@pytest.mark.parametrize("shape", [(7, 4), (2, 3, 7, 4)])
def test_the_gap_is_the_label_above_the_best_other(shape: tuple[int, ...], device: str) -> None:
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=shape), rng.integers(4, size=shape[:-1])
    given = torch.tensor(z, device=device)
    with_labels = logit_gap(given, torch.tensor(labels, device=device))
    without = logit_gap(given)
    assert with_labels.shape == without.shape == shape[:-1]
    for i in np.ndindex(shape[:-1]):
        others = np.delete(z[i], labels[i])
        assert with_labels[i].item() == pytest.approx(z[i][labels[i]] - others.max(), abs=1e-14)
        first, second = np.sort(z[i])[::-1][:2]
        assert without[i].item() == pytest.approx(first - second, abs=1e-14)


def test_gaps_of_ties_are_zero_and_have_gradients() -> None:
    assert logit_gap([[2.0, 2.0, 1.0]]).tolist() == [0]
    assert logit_gap([[2.0, 2.0, 1.0]], [1]).tolist() == [0]
    assert logit_gap([[2.0, 5.0, 1.0]], [0]).tolist() == [-3]
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: (logit_gap(z), logit_gap(z, torch.tensor([0, 1, 2, 0]))), (z,))


@pytest.mark.parametrize("T", [0.1, 1.0, 7.0])
def test_the_top_label_is_the_largest_probability_and_whether_it_is_right(T: float, device: str) -> None:
    z, labels = problem(0, 300, 6)
    got = top_label(torch.tensor(z, device=device), torch.tensor(labels, device=device), T)
    p = oracle.softmax(z, T)
    np.testing.assert_allclose(got[0].cpu().numpy(), p.max(-1), atol=1e-14)
    np.testing.assert_array_equal(got[1].cpu().numpy().astype(bool), p.argmax(-1) == labels)


def test_a_batch_of_temperatures_is_the_loop() -> None:
    z, labels = np.random.default_rng(0).normal(size=(3, 20, 4)), np.random.default_rng(1).integers(4, size=(3, 20))
    temperatures = [0.5, 1.0, 3.0]
    confidence, correct = top_label(z, labels, temperatures)
    scores = proper_scores(z, labels, temperatures)
    for i, T in enumerate(temperatures):
        alone = top_label(z[i], labels[i], T)
        torch.testing.assert_close((confidence[i], correct[i]), alone)
        one = proper_scores(z[i], labels[i], T)
        for name in ("nll", "brier", "accuracy"):
            assert getattr(scores, name)[i].item() == pytest.approx(getattr(one, name).item(), abs=1e-14)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_huge_logits_and_tiny_temperatures_do_not_overflow(scale: float) -> None:
    z, labels = scale * np.array([[1.0, 0.0], [0.0, 1.0]]), [0, 1]
    confidence, correct = top_label(z, labels, 1e-3)
    assert confidence.tolist() == [1, 1]
    assert correct.tolist() == [1, 1]
    got = proper_scores(z, labels)
    assert (got.nll.item(), got.brier.item(), got.accuracy.item()) == (0, 0, 1)
    assert proper_scores(z, [1, 0]).nll.item() == pytest.approx(scale)


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("k", [2, 7])
def test_scores_are_those_of_sklearn(T: float, k: int, device: str) -> None:
    z, labels = problem(5, 400, k)
    got = proper_scores(torch.tensor(z, device=device), torch.tensor(labels, device=device), T)
    p = oracle.softmax(z, T)
    assert got.nll.item() == pytest.approx(log_loss(labels, p, labels=range(k)), rel=1e-12)
    brier = brier_score_loss(labels, p, labels=list(range(k)), scale_by_half=False)
    assert got.brier.item() == pytest.approx(brier, rel=1e-12)
    assert got.accuracy.item() == pytest.approx((p.argmax(-1) == labels).mean(), rel=1e-15)


def test_scores_have_the_gradient_of_finite_differences() -> None:
    z, labels = problem(6, 8, 3, 1.0)
    logits, T = torch.tensor(z, requires_grad=True), torch.tensor(1.7, dtype=torch.float64, requires_grad=True)

    def scores(logits: torch.Tensor, T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        got = proper_scores(logits, torch.tensor(labels), T)
        return got.nll, got.brier

    assert torch.autograd.gradcheck(scores, (logits, T))


@pytest.mark.parametrize("size", [50, 30_000])
def test_scores_and_top_labels_keep_float32(size: int) -> None:
    z, labels = problem(7, size, 5)
    single, double = (torch.tensor(z, dtype=dtype) for dtype in (torch.float32, torch.float64))
    y = torch.tensor(labels)
    assert top_label(single, y)[0].dtype == torch.float32
    torch.testing.assert_close(top_label(single, y)[0].double(), top_label(double, y)[0], rtol=0, atol=1e-6)
    one, two = proper_scores(single, y), proper_scores(double, y)
    for name in ("nll", "brier", "accuracy"):
        assert getattr(one, name).dtype == torch.float32
        torch.testing.assert_close(getattr(one, name).double(), getattr(two, name), rtol=1e-6, atol=1e-7)
    assert proper_scores(z.tolist()[:9], labels.tolist()[:9]).nll.dtype == torch.float64


def test_top_labels_have_the_gradient_of_finite_differences() -> None:
    z, labels = problem(6, 8, 3, 1.0)
    logits, T = torch.tensor(z, requires_grad=True), torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, T: top_label(z, torch.tensor(labels), T)[0], (logits, T))


@pytest.mark.parametrize("T", [1e-3, 1.0, 1e6])
def test_of_equal_logits_the_first_is_the_top(T: float) -> None:
    z, labels = (
        np.round(np.random.default_rng(0).normal(size=(5000, 4))),
        np.random.default_rng(1).integers(4, size=5000),
    )
    _, correct = top_label(z, labels, T)
    np.testing.assert_array_equal(correct.numpy(), z.argmax(-1) == labels)
    hits = (z.max(-1) == np.take_along_axis(z, labels[:, None], -1)[:, 0]).sum()
    assert correct.sum().item() < hits  # some labels are largest, but not first


def test_under_vmap_top_labels_are_those_of_a_batch() -> None:
    z, labels = torch.randn(3, 20, 4, dtype=torch.float64).round(), torch.randint(4, (3, 20))
    torch.testing.assert_close(torch.func.vmap(top_label)(z, labels), top_label(z, labels))


def test_finite_logits_of_any_size_are_welcome() -> None:
    z = torch.full((2, 3), 3e38)
    assert top_label(z, [0, 1])[0].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert proper_scores(z, [0, 1]).nll.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("size", [9, 20_000])
def test_all_run_on_an_accelerator_without_a_host_sync(size: int, fake_gpu: str) -> None:
    z = torch.empty(2, size, 3, device=fake_gpu)
    labels = torch.empty(2, size, dtype=torch.int64, device=fake_gpu)
    scores = proper_scores(z, labels, torch.empty(2, device=fake_gpu))
    for got in (scores.nll, scores.brier, scores.accuracy):
        assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2,))
    for got in (logit_gap(z), logit_gap(z, labels), top_label(z, labels)[0]):
        assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2, size))
