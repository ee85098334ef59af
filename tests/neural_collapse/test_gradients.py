"""Gradients of head and features, their split into pull and push, and gradient alignment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib.neural_collapse import align_gradient, pull_push, ufm_gradients

from . import oracle

N, K, D = 9, 4, 5


def case(seed: int, *batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Residual, features, weight and labels."""
    rng = np.random.default_rng(seed)
    shapes = ((*batch, N, K), (*batch, N, D), (*batch, K, D))
    residual, features, weight = (torch.tensor(rng.normal(size=shape)) for shape in shapes)
    return residual, features, weight, torch.tensor(rng.permutation(np.arange(N) % K))


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_are_sums_over_samples_and_classes(seed: int, device: str) -> None:
    residual, features, weight, labels = (x.to(device) for x in case(seed))
    got = ufm_gradients(residual, features, weight)
    on_weight, on_features = oracle.gradients(*(x.cpu().numpy() for x in (residual, features, weight)))
    np.testing.assert_allclose(got.weight.cpu(), on_weight, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got.features.cpu(), on_features, rtol=1e-12, atol=1e-14)
    forces = pull_push(residual, labels, features)
    pull, push = oracle.pull_push(*(x.cpu().numpy() for x in (residual, labels, features)))
    np.testing.assert_allclose(forces.pull.cpu(), pull, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(forces.push.cpu(), push, rtol=1e-12, atol=1e-14)
    assert {x.device.type for x in (*vars(got).values(), *vars(forces).values())} == {device}


def test_gradients_are_those_of_a_loss() -> None:
    _, features, weight, labels = case(2)
    features.requires_grad_()
    weight.requires_grad_()
    logits = features @ weight.mT
    loss = torch.nn.functional.cross_entropy(logits, labels)
    on_weight, on_features = torch.autograd.grad(loss, (weight, features))
    residual = torch.tensor(oracle.cross_entropy_residual(logits.detach().numpy(), labels.numpy()))
    got = ufm_gradients(residual, features, weight)
    torch.testing.assert_close(got.weight, on_weight, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(got.features, on_features, rtol=1e-12, atol=1e-15)


@given(st.integers(0, 10_000))
def test_pull_and_push_are_the_whole_force(seed: int) -> None:
    residual, features, weight, labels = case(seed)
    forces = pull_push(residual, labels, features)
    want = -ufm_gradients(residual, features, weight).weight
    torch.testing.assert_close(forces.pull + forces.push, want, rtol=1e-12, atol=1e-14)


def test_a_class_without_sample_is_pulled_by_none() -> None:
    residual, features, _, _ = case(0)
    forces = pull_push(residual, torch.zeros(N, dtype=torch.int64), features)
    assert (forces.pull[1:] == 0).all()
    assert (forces.push[0] == 0).all()


def test_those_of_a_batch_are_those_of_its_members() -> None:
    residual, features, weight, labels = case(3, 2, 3)
    got, forces = ufm_gradients(residual, features, weight), pull_push(residual, labels, features)
    own = torch.tensor(np.random.default_rng(0).integers(0, K, (2, 3, N)))
    separate = pull_push(residual, own, features)
    shared = ufm_gradients(residual, features, weight[0, 0])
    crossed = pull_push(residual[:, :1], labels, features[0, 0])
    assert crossed.pull.shape == (2, 1, K, D)
    for i, j in np.ndindex(2, 3):
        alone = ufm_gradients(residual[i, j], features[i, j], weight[i, j])
        torch.testing.assert_close(got.weight[i, j], alone.weight)
        torch.testing.assert_close(got.features[i, j], alone.features)
        alone = ufm_gradients(residual[i, j], features[i, j], weight[0, 0])
        torch.testing.assert_close(shared.features[i, j], alone.features)
        for several, y in ((forces, labels), (separate, own[i, j])):
            one = pull_push(residual[i, j], y, features[i, j])
            torch.testing.assert_close(several.pull[i, j], one.pull)
            torch.testing.assert_close(several.push[i, j], one.push)
        one = pull_push(residual[i, 0], labels, features[0, 0])
        torch.testing.assert_close(crossed.push[i, 0], one.push)


def test_all_are_differentiable() -> None:
    residual, features, weight, labels = case(4)
    for x in (residual, features, weight):
        x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: tuple(vars(ufm_gradients(*x)).values()), (residual, features, weight), fast_mode=True
    )
    assert torch.autograd.gradcheck(
        lambda r, h: tuple(vars(pull_push(r, labels, h)).values()), (residual, features), fast_mode=True
    )
    one, two = (torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(align_gradient, (one, two))


def aligned(primary: np.ndarray, auxiliary: np.ndarray) -> np.ndarray:
    """Sum of both, after the auxiliary has lost what opposes the primary."""
    inner = primary @ auxiliary
    if inner < 0:
        auxiliary = auxiliary - inner / (primary @ primary) * primary
    return np.asarray(primary + auxiliary)


@pytest.mark.parametrize("seed", range(6))
def test_alignment_takes_away_what_opposes(seed: int, device: str) -> None:
    primary, auxiliary = np.random.default_rng(seed).normal(size=(2, 20))
    for sign in (1, -1):
        got = align_gradient(torch.tensor(primary, device=device), torch.tensor(sign * auxiliary, device=device))
        assert got.device.type == device
        np.testing.assert_allclose(got.cpu(), aligned(primary, sign * auxiliary), rtol=1e-12, atol=1e-14)


@given(st.integers(0, 10_000), st.floats(1e-6, 1e6))
def test_aligned_steps_never_help_the_primary_less(seed: int, scale: float) -> None:
    primary, auxiliary = np.random.default_rng(seed).normal(size=(2, 6))
    got = align_gradient(primary, scale * auxiliary).numpy()
    square = primary @ primary
    assert got @ primary >= square * (1 - 1e-9) - 1e-9 * scale


def test_opposite_gradients_leave_the_primary_alone() -> None:
    primary = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(align_gradient(primary, -5 * primary), primary, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(align_gradient(primary, 5 * primary), 6 * primary, rtol=1e-14, atol=1e-14)


def test_a_zero_primary_returns_the_auxiliary() -> None:
    got = align_gradient([[0.0, 0.0], [1.0, 0.0]], [[3.0, -4.0], [-1.0, 2.0]])
    torch.testing.assert_close(got, torch.tensor([[3.0, -4.0], [1.0, 2.0]], dtype=torch.float64))
    assert align_gradient([0.0, 0.0], [0.0, 0.0]).tolist() == [0, 0]


@pytest.mark.parametrize("scale", [1e-170, 1e-160, 1e150, 1e160])
def test_tiny_and_huge_gradients_are_aligned_too(scale: float) -> None:
    got = align_gradient([scale, 0.0], [-scale, 2 * scale])
    torch.testing.assert_close(got / scale, torch.tensor([1.0, 2.0], dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_gradients_of_a_batch_broadcast() -> None:
    rng = np.random.default_rng(0)
    primary, auxiliary = rng.normal(size=(3, 1, 6)), rng.normal(size=(4, 6))
    got = align_gradient(primary, auxiliary)
    assert got.shape == (3, 4, 6)
    for i, j in np.ndindex(3, 4):
        np.testing.assert_allclose(got[i, j], aligned(primary[i, 0], auxiliary[j]), rtol=1e-12, atol=1e-14)


def test_single_precision_is_kept_and_agrees_with_double() -> None:
    residual, features, weight, labels = case(5)
    low = ufm_gradients(residual.float(), features.float(), weight.float())
    forces = pull_push(residual.float(), labels, features.float())
    line = align_gradient(weight.float(), -weight.flip(-2).float())
    assert {x.dtype for x in (*vars(low).values(), *vars(forces).values(), line)} == {torch.float32}
    high = ufm_gradients(residual, features, weight)
    torch.testing.assert_close(low.weight.double(), high.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(low.features.double(), high.features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(forces.pull.double(), pull_push(residual, labels, features).pull, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(line.double(), align_gradient(weight, -weight.flip(-2)), rtol=1e-5, atol=1e-5)


def test_lists_and_whole_numbers_become_float64() -> None:
    got = ufm_gradients([[1, -1]], [[2, 0, 1]], [[1, 0, 0], [0, 1, 0]])
    assert got.weight.tolist() == [[2, 0, 1], [-2, 0, -1]]
    assert got.features.tolist() == [[1, -1, 0]]
    forces = pull_push([[1, -1]], [0], [[2, 0, 1]])
    assert forces.pull.tolist() == [[-2, 0, -1], [0, 0, 0]]
    assert forces.push.tolist() == [[0, 0, 0], [2, 0, 1]]
    assert {x.dtype for x in (*vars(got).values(), *vars(forces).values())} == {torch.float64}
    assert align_gradient([1, 0], [-1, 1]).dtype == torch.float64


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    residual, features, weight = (torch.rand(*s, device=fake_gpu) for s in ((2, N, K), (N, D), (2, K, D)))
    labels = torch.zeros(N, dtype=torch.int64, device=fake_gpu)
    got, forces = ufm_gradients(residual, features, weight), pull_push(residual, labels, features)
    line = align_gradient(weight, weight[0])
    results = (*vars(got).values(), *vars(forces).values(), line)
    assert {str(x.device) for x in results} == {fake_gpu}
    assert {x.dtype for x in results} == {torch.float32}
    assert [x.shape for x in results] == [(2, K, D), (2, N, D), (2, K, D), (2, K, D), (2, K, D)]


GOOD: dict[str, Any] = {
    "residual": [[0.5, -0.5], [-0.5, 0.5]],
    "features": [[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]],
    "weight": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    "labels": [1, 0],
}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"residual": [0.5, -0.5]}, r"residual: got shape \(2,\), want"),
    ({"residual": [[math.nan, 0.0]] * 2}, "residual: got nan, want"),
    ({"residual": "x"}, "residual: got str"),
    ({"features": [[1.0, 0.0, 0.0]]}, r"(features|residual): got shape .*want"),
    ({"features": [1.0, 0.0]}, r"features: got shape \(2,\), want"),
    ({"features": [[1.0, 0.0, math.inf]] * 2}, "features: got inf, want"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *WRONG,
        ({"weight": [[1.0, 0.0, 0.0]]}, r"weight: got shape \(1, 3\), want"),
        ({"weight": [[1.0, 0.0], [0.0, 1.0]]}, r"weight: got shape \(2, 2\), want"),
        ({"weight": [[math.nan, 0.0, 0.0]] * 2}, "weight: got nan, want"),
    ],
)
def test_what_is_wrong_with_gradients_is_named(change: dict[str, Any], message: str) -> None:
    given_all = GOOD | change
    with pytest.raises(ValueError, match=message):
        ufm_gradients(given_all["residual"], given_all["features"], given_all["weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *WRONG,
        ({"labels": [0]}, r"labels: got shape \(1,\), want"),
        ({"labels": [0, 2]}, "labels: got 2, want"),
        ({"labels": [0, -1]}, "labels: got -1, want"),
        ({"labels": [0.0, 1.0]}, "labels: got .*float64, want whole numbers"),
    ],
)
def test_what_is_wrong_with_forces_is_named(change: dict[str, Any], message: str) -> None:
    given_all = GOOD | change
    with pytest.raises(ValueError, match=message):
        pull_push(given_all["residual"], given_all["labels"], given_all["features"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, [1.0]), r"primary: got shape \(\), want"),
        (([1.0, 0.0], [1.0]), r"auxiliary: got shape \(1,\), want .*2"),
        (([math.nan], [1.0]), "primary: got nan, want"),
        (([1.0], [math.inf]), "auxiliary: got inf, want"),
        (([[1.0]] * 2, [[1.0]] * 3), r"primary \(2,\), auxiliary \(3,\)"),
    ],
)
def test_what_is_wrong_with_alignment_is_named(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align_gradient(*arguments)
