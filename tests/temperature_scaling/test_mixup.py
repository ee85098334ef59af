"""Mixed batches against the loop over rows and parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.temperature_scaling import (
    mixup_batch,
)


@pytest.mark.parametrize("per_row", [False, True])
def test_a_mixed_batch_is_the_loop_over_rows_and_parts(per_row: bool, device: str) -> None:
    rng = np.random.default_rng(0)
    n, m, k = 6, 3, 4
    inputs, labels = rng.normal(size=(n, 2, 5)), rng.integers(k, size=n)
    weights = rng.dirichlet(np.ones(m), size=n) if per_row else rng.dirichlet(np.ones(m))
    permutations = np.stack([rng.permutation(n) for _ in range(m)])
    x, y, w, order = (torch.tensor(part, device=device) for part in (inputs, labels, weights, permutations))
    got = mixup_batch(x, y, w, order, k)
    mixed, targets = np.zeros_like(inputs), np.zeros((n, k))
    for row in range(n):
        for part in range(m):
            share = weights[row, part] if per_row else weights[part]
            mixed[row] += share * inputs[permutations[part, row]]
            targets[row, labels[permutations[part, row]]] += share
    np.testing.assert_allclose(got[0].cpu().numpy(), mixed, atol=1e-14)
    np.testing.assert_allclose(got[1].cpu().numpy(), targets, atol=1e-14)


def test_one_part_is_the_batch_itself_and_dtypes_stay() -> None:
    inputs, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    mixed, targets = mixup_batch(inputs, labels, [1.0], [[0, 1, 2, 3]], 3)
    assert torch.equal(mixed, inputs)
    assert (mixed.dtype, targets.dtype) == (torch.float32, torch.float32)
    assert targets.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert mixup_batch([[1.0], [3.0]], [0, 1], [0.5, 0.5], [[0, 1], [1, 0]], 2)[0].tolist() == [[2], [2]]


def test_gradients_flow_through_a_mixed_batch() -> None:
    inputs = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    permutations = torch.tensor([[0, 1, 2], [2, 0, 1]])
    labels = torch.tensor([0, 1, 1])
    assert torch.autograd.gradcheck(lambda x: mixup_batch(x, labels, weights, permutations, 2)[0], (inputs,))


def test_a_batch_is_mixed_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    mixed, targets = mixup_batch(
        torch.empty(4, 3, device=fake_gpu),
        torch.empty(4, dtype=torch.int64, device=fake_gpu),
        torch.empty(2, device=fake_gpu),
        torch.empty(2, 4, dtype=torch.int64, device=fake_gpu),
        5,
    )
    assert (str(mixed.device), str(targets.device)) == (fake_gpu, fake_gpu)
    assert (mixed.shape, targets.shape) == ((4, 3), (4, 5))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"weights": [0.5, 0.4]}, "weights"),
        ({"weights": [1.5, -0.5]}, "weights"),
        ({"weights": [math.nan, 1.0]}, "weights"),
        ({"weights": [1.0]}, "weights"),
        ({"weights": [[0.5, 0.5]]}, "weights"),
        ({"labels": [0, 1, 3]}, "labels"),
        ({"labels": [0, -1, 1]}, "labels"),
        ({"labels": [0.0, 1.0, 1.0]}, "labels"),
        ({"labels": [0, 1]}, "labels"),
        ({"permutations": [[0, 1, 2], [0, 1, 3]]}, "permutations"),
        ({"permutations": [[0, 1, 2], [0, 1, -1]]}, "permutations"),
        ({"permutations": [[0, 1], [0, 1]]}, "permutations"),
        ({"permutations": [0, 1, 2]}, "permutations"),
        ({"permutations": [[0.0, 1.0, 2.0]] * 2}, "permutations"),
        ({"inputs": 1.0}, "inputs"),
        ({"inputs": [[1.0], [math.nan], [3.0]]}, "inputs"),
        ({"inputs": [1.0, 2.0, math.inf]}, "inputs"),
        ({"n_classes": 0}, "n_classes"),
    ],
)
def test_what_is_wrong_with_a_batch_is_named(change: dict[str, object], name: str) -> None:
    arguments = {
        "inputs": [[1.0], [2.0], [3.0]],
        "labels": [0, 1, 1],
        "weights": [0.5, 0.5],
        "permutations": [[0, 1, 2], [2, 0, 1]],
        "n_classes": 2,
    }
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        mixup_batch(**arguments | change)  # type: ignore[arg-type]
