"""Gradient descent on the penalised model: step by step against the chain rule, and its end against the optimum."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

from lib.neural_collapse import collapse_metrics, train_ufm, ufm_optimum

from . import oracle

LABELS = np.array([0, 2, 1, 1, 0, 2, 2])


def objective(W: np.ndarray, H: np.ndarray, lambda_w: float, lambda_h: float) -> float:
    logits = H @ W.T
    loss = (special.logsumexp(logits, -1) - logits[np.arange(len(LABELS)), LABELS]).mean()
    return float(loss + lambda_w / 2 * (W**2).sum() + lambda_h / 2 * (H**2).sum())


def trained(steps: int, **change: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    given = {"lambda_w": 0.03, "lambda_h": 0.01, "step_size": 0.7, "init_scale": 0.5} | change
    return train_ufm(LABELS, 3, 4, steps=steps, generator=generator, **given)


def test_each_step_follows_the_gradient_and_the_loss_is_that_before_it() -> None:
    states = [trained(steps) for steps in (1, 2, 3, 4)]
    for before, after in itertools.pairwise(states):
        W, H = before.weight.numpy(), before.features.numpy()
        R = oracle.cross_entropy_residual(H @ W.T, LABELS)
        on_weight, on_features = oracle.gradients(R, H, W)
        np.testing.assert_allclose(after.weight, W - 0.7 * (on_weight + 0.03 * W), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(after.features, H - 0.7 * (on_features + 0.01 * H), rtol=1e-12, atol=1e-14)
        assert after.loss[-1].item() == pytest.approx(objective(W, H, 0.03, 0.01), rel=1e-12)
        torch.testing.assert_close(after.loss[:-1], before.loss)
    assert [len(state.loss) for state in states] == [1, 2, 3, 4]


def test_the_start_is_gaussian_of_the_wanted_scale() -> None:
    labels = np.arange(10).repeat(200)
    start = train_ufm(labels, 10, 50, lambda_w=0.0, lambda_h=0.0, steps=1, step_size=1e-12, init_scale=0.3)
    numbers = torch.cat((start.weight, start.features)).flatten()
    assert numbers.std().item() == pytest.approx(0.3, rel=0.02)  # 100,500 numbers: six standard errors
    assert abs(numbers.mean().item()) < 0.3 * 5 / math.sqrt(len(numbers))
    assert abs((numbers.abs() > 0.6).double().mean().item() - 0.0455) < 5e-3  # two deviations


def test_it_reaches_the_exact_optimum_and_collapses() -> None:
    labels = np.arange(5).repeat(4)
    generator = torch.Generator().manual_seed(0)
    state = train_ufm(
        labels, 5, 6, lambda_w=0.02, lambda_h=0.01, steps=6000, step_size=2.0, init_scale=0.3, generator=generator
    )
    best = ufm_optimum(5, 4, 0.02, 0.01)
    assert state.loss[-1].item() == pytest.approx(best.loss.item(), rel=1e-9)
    np.testing.assert_allclose(state.weight.norm(dim=-1), best.weight_norm.item(), rtol=1e-5)
    np.testing.assert_allclose(state.features.norm(dim=-1), best.feature_norm.item(), rtol=1e-5)
    got = collapse_metrics(state.features, labels, state.weight)
    assert got.nc1 < 1e-9
    assert max(got.nc2_norm, got.nc2_angle, got.nc3, got.nc4) < 1e-4
    assert (state.loss.diff() < 1e-12).all()


def test_a_generator_decides_the_start_and_none_is_no_surprise() -> None:
    first, again, other = (
        train_ufm([0, 1], 2, 2, lambda_w=0.1, lambda_h=0.1, steps=3, generator=g)
        for g in (torch.Generator().manual_seed(1), torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))
    )
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    train_ufm([0, 1], 2, 2, lambda_w=0.1, lambda_h=0.1, steps=3)
    assert torch.equal(state, torch.get_rng_state())  # the global generator is left alone


def test_the_defaults_are_those_of_the_signature() -> None:
    state = train_ufm(torch.tensor([0, 1, 1]), 2, 3, lambda_w=0.01, lambda_h=0.01)
    assert (state.weight.shape, state.features.shape, state.loss.shape) == ((2, 3), (3, 3), (2000,))
    assert {x.dtype for x in vars(state).values()} == {torch.float64}
    same = train_ufm([0, 1, 1], 2, 3, lambda_w=0.01, lambda_h=0.01, steps=2000, step_size=1.0, init_scale=0.1)
    assert torch.equal(state.weight, same.weight)


def test_labels_decide_the_device(device: str) -> None:
    state = train_ufm(torch.tensor(LABELS, device=device), 3, 4, lambda_w=0.01, lambda_h=0.01, steps=5)
    assert {x.device.type for x in vars(state).values()} == {device}


def test_a_class_without_sample_is_allowed_and_fades() -> None:
    state = train_ufm([0, 0, 1], 3, 4, lambda_w=0.1, lambda_h=0.1, steps=300)
    assert state.loss[-1] < state.loss[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 3]}, "labels: got 3, want"),
        ({"labels": [0, -1]}, "labels: got -1, want"),
        ({"labels": [0.0, 1.0]}, "labels: got .*float64, want whole numbers"),
        ({"labels": [[0, 1], [1, 0]]}, r"labels: got shape \(2, 2\), want"),
        ({"labels": []}, "labels: got"),
        ({"labels": 1}, "labels: got"),
        ({"labels": "ab"}, "labels: got"),
        ({"num_classes": 1}, "num_classes: got 1, want"),
        ({"dim": 0}, "dim: got 0, want"),
        ({"lambda_w": -0.1}, "lambda_w: got -0.1, want"),
        ({"lambda_w": [0.1, 0.1]}, r"lambda_w: got shape \(2,\), want one number"),
        ({"lambda_h": []}, r"lambda_h: got shape \(0,\), want one number"),
        ({"lambda_h": math.nan}, "lambda_h: got nan, want"),
        ({"steps": 0}, "steps: got 0, want"),
        ({"step_size": 0.0}, "step_size: got 0, want"),
        ({"step_size": -1.0}, "step_size: got -1, want"),
        ({"init_scale": -0.1}, "init_scale: got -0.1, want"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    fine: dict[str, Any] = {"labels": [0, 1], "num_classes": 2, "dim": 2, "lambda_w": 0.1, "lambda_h": 0.1, "steps": 2}
    with pytest.raises(ValueError, match=message):
        train_ufm(**(fine | change))


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    labels, generator = torch.empty(6, dtype=torch.int64, device=fake_gpu), torch.Generator()
    state = train_ufm(labels, 3, 4, lambda_w=0.01, lambda_h=0.01, steps=2, generator=generator)
    assert {str(x.device) for x in (state.weight, state.features, state.loss)} == {fake_gpu}


def test_sizes_may_be_numbers_of_numpy() -> None:
    decays: dict[str, Any] = {"lambda_w": 0.1, "lambda_h": 0.1}
    got = inspect.unwrap(train_ufm)([0, 1], np.int64(2), np.int64(3), steps=np.int32(5), **decays)
    torch.testing.assert_close(got.weight, train_ufm([0, 1], 2, 3, steps=5, **decays).weight, rtol=0, atol=0)
