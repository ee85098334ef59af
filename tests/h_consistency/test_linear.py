"""Scores and exact errors of linear classifiers, against draws of the mixture and interval probabilities."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lib.h_consistency import LinearClassifier, gaussian_mixture_error, predict_scores


@dataclass(frozen=True)
class Rule:
    """A classifier that nobody here fitted."""

    weights: Tensor
    bias: Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scores_are_products_row_by_row_and_broadcast(device: str) -> None:
    rule = Rule(normal(2, 1, 3, 4).to(device), normal(2, 1, 3, seed=1).to(device))
    assert isinstance(rule, LinearClassifier)
    x = normal(5, 7, 4, seed=2).to(device)
    got = predict_scores(rule, x)
    assert got.shape == (2, 5, 7, 3)
    want = rule.weights[1, 0] @ x[3, 6] + rule.bias[1, 0]
    torch.testing.assert_close(got[1, 3, 6], want)
    assert predict_scores(Rule(rule.weights.float(), rule.bias.float()), x).dtype == torch.float32


def test_a_classifier_may_hold_arrays_or_lists() -> None:
    rule, x = Rule(normal(3, 4), normal(3, seed=1)), normal(5, 4, seed=2)
    want = predict_scores(rule, x)
    for held in (
        SimpleNamespace(weights=rule.weights.numpy(), bias=rule.bias.tolist()),
        SimpleNamespace(weights=rule.weights, bias=rule.bias.numpy()),
    ):
        torch.testing.assert_close(predict_scores(held, x), want, rtol=0, atol=0)
        assert predict_scores(held, x.numpy()).dtype == torch.float64
    arrays = SimpleNamespace(weights=rule.weights.numpy(), bias=rule.bias.numpy())
    assert predict_scores(arrays, x.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"weights": [[1.0, 2.0]]}, "classifier: got SimpleNamespace without bias, want weights and bias"),
        ({"bias": [1.0]}, "classifier: got SimpleNamespace without weights"),
        ({"weights": [["a", "b"]], "bias": [1.0]}, "classifier.weights: got"),
        ({"weights": [1.0, 2.0], "bias": [1.0]}, r"classifier.weights: got shape \(2,\), want \(\*batch, C, d\)"),
        ({"weights": [[1.0, 2.0]] * 3, "bias": [1.0] * 2}, r"classifier.bias: got shape \(2,\), want \(\*batch, 3\)"),
        ({"weights": [[[1.0, 2.0]]] * 3, "bias": [[1.0]] * 2}, r"weights \(3,\), bias \(2,\), x \(\): got shapes that"),
    ],
)
def test_what_is_wrong_with_a_classifier_is_named(held: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(predict_scores)(SimpleNamespace(**held), [[1.0, 2.0]])


def test_two_classes_agree_with_draws_of_the_mixture(device: str) -> None:
    w, b, mean = normal(2, 5), normal(2, seed=1), normal(2, 5, seed=2)
    variance, prior = normal(5, seed=3).square() + 0.1, torch.tensor([0.3, 0.7], dtype=torch.float64)
    got = gaussian_mixture_error(*(z.to(device) for z in (w, b, mean, variance, prior))).item()
    draws, wrong = 200_000, 0.0
    for y in range(2):
        x = mean[y] + variance.sqrt() * normal(draws, 5, seed=4 + y)
        wrong += prior[y].item() * ((x @ w.T + b).argmax(-1) != y).double().mean().item()
    assert got == pytest.approx(wrong, abs=4.5 * math.sqrt(0.25 / draws))
    gaps = [((w[1] - w[0]) @ mean[y] + b[1] - b[0]).item() for y in range(2)]
    spread = math.sqrt(((w[1] - w[0]) ** 2 @ variance).item())
    exact = 0.3 * stats.norm.cdf(gaps[0] / spread) + 0.7 * stats.norm.cdf(-gaps[1] / spread)
    assert got == pytest.approx(exact, rel=1e-12)


def test_three_classes_on_a_line_have_interval_probabilities(device: str) -> None:
    """Means at -1, 1 and 2 in all of 8 features: their scores have a covariance of rank one."""
    c, d = np.array([-1.0, 1.0, 2.0]), 8
    variance = np.linspace(1, 8, d)
    w = c[:, None] / variance
    b = -(c**2) * (1 / variance).sum() / 2
    spread = 1 / math.sqrt((1 / variance).sum())
    cuts = [-math.inf, 0.0, 1.5, math.inf]
    want = 1 - np.mean([np.diff(stats.norm.cdf(cuts, c[y], spread))[y] for y in range(3)])
    noise = normal(400_000, 3).to(device)
    mean = np.repeat(c[:, None], d, 1)
    got = gaussian_mixture_error(w, b, mean, variance, [1 / 3] * 3, noise).item()
    assert got == pytest.approx(want, abs=4.5 * math.sqrt(want / 400_000))


def test_two_classes_are_the_limit_of_three_with_one_out_of_reach() -> None:
    w, b, mean = normal(2, 4), normal(2, seed=1), normal(2, 4, seed=2)
    want = gaussian_mixture_error(w, b, mean, [1.0] * 4, [0.5, 0.5]).item()
    more = torch.cat((w, torch.zeros(1, 4))), torch.cat((b, torch.tensor([-1e6]))), torch.cat((mean, mean[:1]))
    got = gaussian_mixture_error(*more, [1.0] * 4, [0.5, 0.5, 0.0], normal(100_000, 3)).item()
    assert got == pytest.approx(want, abs=0.007)


def test_sampling_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    w, b, mean, noise = normal(2, 3, 4), normal(3, seed=1), normal(3, 4, seed=2), normal(1000, 3)
    whole = gaussian_mixture_error(w, b, mean, [1.0] * 4, [0.2, 0.3, 0.5], noise)
    monkeypatch.setattr("lib.h_consistency.linear.CHUNK", 10)
    torch.testing.assert_close(gaussian_mixture_error(w, b, mean, [1.0] * 4, [0.2, 0.3, 0.5], noise), whole)
    for i in range(2):
        one = gaussian_mixture_error(w[i], b, mean, [1.0] * 4, [0.2, 0.3, 0.5], noise)
        torch.testing.assert_close(whole[i], one)


def test_batches_ties_dtypes_and_derivatives() -> None:
    assert gaussian_mixture_error([[0.0], [0.0]], [0, 0], [[-1], [1]], [1], [0.2, 0.8]).item() == pytest.approx(0.5)
    w, b, mean, v = normal(2, 1, 2, 3), normal(5, 2, seed=1), normal(2, 3, seed=2), normal(5, 3, seed=3).exp()
    got = gaussian_mixture_error(w, b, mean, v, [0.4, 0.6])
    assert got.shape == (2, 5)
    torch.testing.assert_close(got[1, 2], gaussian_mixture_error(w[1, 0], b[2], mean, v[2], [0.4, 0.6]))
    low = gaussian_mixture_error(w.float(), b.float(), mean.float(), v.float(), [0.4, 0.6])
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), got, rtol=1e-4, atol=1e-5)
    leaf = w[0, 0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: gaussian_mixture_error(z, b, mean, v, [0.4, 0.6]), leaf)


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    w, b = torch.empty(4, 3, 5, device=fake_gpu), torch.empty(4, 3, device=fake_gpu)
    v, noise = torch.empty(5, device=fake_gpu), torch.empty(20, 3, device=fake_gpu)
    prior = torch.empty(3, device=fake_gpu)
    got = [
        gaussian_mixture_error(w, b, w, v, prior, noise),
        predict_scores(Rule(w, b), torch.empty(9, 5, device=fake_gpu)),
    ]
    got += [gaussian_mixture_error(w[:, :2], b[:, :2], w[:, :2], v, prior[:2])]
    for x in got:
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32


GOOD: dict[str, Any] = {
    "weights": [[0.0], [1.0]],
    "bias": [0.0, 0.0],
    "mean": [[-1.0], [1.0]],
    "variance": [1.0],
    "prior": [0.5, 0.5],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.0, 1.0]}, r"weights: got shape \(2,\)"),
        ({"weights": [[0.0], [math.nan]]}, "weights: got nan"),
        ({"bias": [0.0]}, r"bias: got shape \(1,\)"),
        ({"mean": [[0.0, 1.0]]}, r"mean: got shape \(1, 2\)"),
        ({"variance": [1.0, 1.0]}, r"variance: got shape \(2,\)"),
        ({"variance": [0.0]}, "variance: got 0"),
        ({"prior": [0.5, 0.6]}, "prior: got 1.1, want a sum of one"),
        ({"prior": [1.5, -0.5]}, "prior: got -0.5"),
        ({"prior": [1.0]}, r"prior: got shape \(1,\)"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    gaussian_mixture_error(**GOOD)
    with pytest.raises(ValueError, match=message):
        gaussian_mixture_error(**(GOOD | change))


def test_three_classes_need_noise_and_scores_need_rows() -> None:
    three: dict[str, Any] = {
        "weights": [[0.0]] * 3,
        "bias": [0.0] * 3,
        "mean": [[0.0]] * 3,
        "variance": [1.0],
        "prior": [0.5, 0.25, 0.25],
    }
    with pytest.raises(ValueError, match="noise: got None"):
        gaussian_mixture_error(**three)
    with pytest.raises(ValueError, match=r"noise: got shape \(4, 2\)"):
        gaussian_mixture_error(**three, noise=np.zeros((4, 2)))
    rule = Rule(normal(3, 4), normal(3))
    with pytest.raises(ValueError, match=r"x: got shape \(4,\)"):
        predict_scores(rule, [0.0] * 4)
    with pytest.raises(ValueError, match=r"x: got shape \(1, 3\)"):
        predict_scores(rule, [[0.0] * 3])
    with pytest.raises(ValueError, match="x: got inf"):
        predict_scores(rule, [[0.0, 0.0, 0.0, math.inf]])
