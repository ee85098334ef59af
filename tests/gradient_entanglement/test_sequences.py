"""Log-probabilities of responses against a loop over tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.counts import count
from lib.gradient_entanglement import sequence_logps


def loop(logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = np.zeros(tokens.shape)
    for index in np.ndindex(tokens.shape):
        if mask[index]:
            scores = logits[index]
            out[index] = scores[tokens[index]] - math.log(sum(math.exp(x) for x in scores))
    return out


def test_sum_mean_and_tokens_are_those_of_a_loop(device: str) -> None:
    rng = np.random.default_rng(0)
    logits, tokens, mask = rng.normal(size=(2, 3, 5, 7)), rng.integers(0, 7, (2, 3, 5)), rng.random((2, 3, 5)) > 0.4
    mask[..., 0] = True
    want = loop(logits, tokens, mask)
    args = [torch.tensor(x, device=device) for x in (logits, tokens, mask)]
    np.testing.assert_allclose(sequence_logps(*args, reduction="none").cpu(), want, rtol=1e-12)
    np.testing.assert_allclose(sequence_logps(*args).cpu(), want.sum(-1), rtol=1e-12)
    np.testing.assert_allclose(sequence_logps(*args, reduction="mean").cpu(), want.sum(-1) / mask.sum(-1), rtol=1e-12)


@pytest.mark.parametrize(
    ("logits", "tokens"), [((5,), (3, 2, 5)), ((2, 5), (3, 1, 5)), ((3, 1, 5), (2, 5)), ((3, 2, 5), (5,))]
)
def test_leading_axes_of_logits_and_tokens_broadcast_both_ways(
    logits: tuple[int, ...], tokens: tuple[int, ...], device: str
) -> None:
    rng = np.random.default_rng(0)
    scores, rows = rng.normal(size=(*logits, 7)), rng.integers(0, 7, tokens)
    mask = rng.random((3, 2, 5)) > 0.3 if len(tokens) + len(logits) > 3 else np.ones(5)
    shape = np.broadcast_shapes(logits, tokens)
    want = loop(np.broadcast_to(scores, (*shape, 7)), np.broadcast_to(rows, shape), np.broadcast_to(mask, shape))
    args = [torch.tensor(x, device=device) for x in (scores, rows, mask)]
    np.testing.assert_allclose(sequence_logps(*args, reduction="none").cpu(), want, rtol=1e-12)
    np.testing.assert_allclose(sequence_logps(*args).cpu(), want.sum(-1), rtol=1e-12)


def test_many_rows_of_tokens_hold_no_copy_of_the_logits_also_on_the_way_back() -> None:
    logits = torch.randn(6, 500, dtype=torch.float64, requires_grad=True)
    tokens = torch.arange(200 * 6).reshape(200, 6) % 500
    found = count(lambda: torch.autograd.grad(sequence_logps(logits, tokens).sum(), logits))
    assert found.peak < 20 * logits.nbytes


def test_a_mask_may_weigh_tokens() -> None:
    rng = np.random.default_rng(0)
    logits, tokens, weights = rng.normal(size=(3, 5, 7)), rng.integers(0, 7, (3, 5)), rng.uniform(0, 2, (3, 5))
    want = weights * loop(logits, tokens, np.ones((3, 5)))
    np.testing.assert_allclose(sequence_logps(logits, tokens, weights, reduction="none"), want, rtol=1e-12)
    np.testing.assert_allclose(sequence_logps(logits, tokens, weights), want.sum(-1), rtol=1e-12)
    mean = want.sum(-1) / weights.sum(-1)
    np.testing.assert_allclose(sequence_logps(logits, tokens, weights, reduction="mean"), mean, rtol=1e-12)


def test_a_masked_token_may_be_anything_and_a_banned_one_costs_nothing_there() -> None:
    logits = np.zeros((1, 3, 4))
    logits[0, 1, 2] = -math.inf
    got = sequence_logps(logits, [[0, -100, 1]], [[True, False, True]])
    assert got.item() == pytest.approx(2 * math.log(1 / 4))
    banned = sequence_logps(logits, [[0, 2, 1]])
    assert banned.item() == -math.inf


def test_gradients_are_right() -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    tokens, mask = torch.tensor([[0, 1, 2], [3, 3, 0]]), torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert torch.autograd.gradcheck(lambda x: sequence_logps(x, tokens, mask), (logits,))
    assert torch.autograd.gradcheck(lambda x: sequence_logps(x[0], torch.tensor([[0, 1, 2], [0, 3, 2]])), (logits,))


def test_float32_and_tokens_that_broadcast() -> None:
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    got = sequence_logps(logits, [1, 0, 2])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), sequence_logps(logits.double(), [1, 0, 2]), rtol=1e-5, atol=1e-5)


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    tokens = torch.empty(4, 3, dtype=torch.int64, device=fake_gpu)
    mask = torch.empty(4, 3, dtype=torch.bool, device=fake_gpu)
    for reduction, shape in (("sum", (4,)), ("mean", (4,)), ("none", (4, 3))):
        got = sequence_logps(torch.empty(4, 3, 9, device=fake_gpu), tokens, mask, reduction=reduction)
        assert got.shape == shape
        assert str(got.device) == fake_gpu


@pytest.mark.parametrize(
    ("logits", "tokens", "options", "message"),
    [
        ([0.0, 1.0], [0], {}, "logits: got shape"),
        ([[0.0, 1.0]], [0, 1], {}, "tokens: got shape"),
        ([[0.0, 1.0]] * 3, [0], {}, r"tokens: got shape \(1,\), want \(\*batch, 3\)"),
        ([[[0.0, 1.0]]] * 2, [[0]] * 3, {}, r"logits \(2,\), tokens \(3,\): got shapes that do not broadcast"),
        ([[0.0, 1.0]], [2], {}, "tokens: got 2"),
        ([[0.0, 1.0]], [-1], {}, "tokens: got -1"),
        ([[0.0, 1.0]], [0.5], {}, "tokens: got torch.float64"),
        ([[0.0, math.nan]], [0], {}, "logits: got nan"),
        ([[0.0, math.inf]], [0], {}, "logits: got inf"),
        ([[0.0, 1.0]], [0], {"mask": [[1.0, 1.0]]}, "mask: got shape"),
        ([[0.0, 1.0]], [0], {"mask": [-1.0]}, "mask: got -1"),
        ([[0.0, 1.0]], [0], {"mask": [0.0], "reduction": "mean"}, "mask: got 0, want at least one token"),
        ([[0.0, 1.0]], [0], {"reduction": "max"}, "reduction: got 'max'"),
    ],
)
def test_what_is_wrong_is_named(logits: Any, tokens: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequence_logps(logits, tokens, **options)
