"""One softmax under a step: exact steps by autograd, first order by small ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib.gradient_entanglement import distribution_change, single_token_step

V = 6


def softmaxes(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, V, generator=generator, dtype=torch.float64)
    pick = torch.rand(count, V, generator=generator).argsort(-1)
    return logits, pick[:, 0], pick[:, 1]


def stepped(logits: Tensor, w: Tensor, lose: Tensor, d_w: float, d_l: float, lr: float) -> Tensor:
    """A real gradient step on one softmax after another."""
    moved = []
    for o, i, j in zip(logits, w, lose, strict=True):
        leaf = o.clone().requires_grad_()
        logp = leaf.log_softmax(-1)
        (g,) = torch.autograd.grad(d_w * logp[i] - d_l * logp[j], leaf)
        moved.append((o + lr * g).log_softmax(-1) - o.log_softmax(-1))
    return torch.stack(moved)


@pytest.mark.parametrize(("d_w", "d_l", "lr"), [(1.0, 1.0, 3.5), (0.3, 2.0, 1.0), (2.0, -0.5, 0.1)])
def test_the_step_is_exact(d_w: float, d_l: float, lr: float, device: str) -> None:
    logits, w, lose = softmaxes(50)
    got = single_token_step(logits.to(device), w.to(device), lose.to(device), d_w, d_l, lr)
    torch.testing.assert_close(got.cpu(), stepped(logits, w, lose, d_w, d_l, lr), rtol=1e-12, atol=1e-13)


@given(st.integers(0, 10_000), st.floats(0.0, 30.0))
def test_with_equal_weights_it_is_safe_at_every_size(seed: int, dose: float) -> None:
    logits, w, lose = softmaxes(4, seed)
    got, p = single_token_step(logits, w, lose, 1.0, 1.0, dose), logits.softmax(-1)
    p_w, p_l = (p.gather(-1, x[:, None])[:, 0] for x in (w, lose))
    Z = 1 + p_w * math.expm1(dose) + p_l * math.expm1(-dose)
    rest = torch.ones_like(p, dtype=torch.bool).scatter(-1, torch.stack([w, lose], -1), False)
    torch.testing.assert_close(got.gather(-1, w[:, None])[:, 0], dose - Z.log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.gather(-1, lose[:, None])[:, 0], -dose - Z.log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got[rest].reshape(4, -1), -Z.log()[:, None].expand(4, V - 2), rtol=1e-9, atol=1e-9)
    assert (got.gather(-1, w[:, None]) >= -1e-12).all()
    assert (got.gather(-1, lose[:, None]) <= 1e-12).all()


def test_first_order_is_what_small_steps_of_a_network_do(device: str) -> None:
    """Logits F h with both trained: the kernel is |h|^2 I + F F^T, and steps are real."""
    generator = torch.Generator().manual_seed(2)
    h, F = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((5, 4), (5, V, 4)))
    _, w, lose = softmaxes(5, 3)
    kernel = h.square().sum(-1)[:, None, None] * torch.eye(V, dtype=torch.float64) + F @ F.mT
    probs = (F @ h[..., None])[..., 0].softmax(-1)
    on: Any = [x.to(device) for x in (probs, kernel, w, lose)]
    got = distribution_change(on[0], on[1], on[2], on[3], 0.7, 1.4, 1.0)
    for i in range(5):
        leaves = F[i].clone().requires_grad_(), h[i].clone().requires_grad_()
        logp = (leaves[0] @ leaves[1]).log_softmax(-1)
        g = torch.autograd.grad(0.7 * logp[w[i]] - 1.4 * logp[lose[i]], leaves)
        moved = ((F[i] + 1e-7 * g[0]) @ (h[i] + 1e-7 * g[1])).log_softmax(-1) - logp
        torch.testing.assert_close(got[i].cpu(), moved.detach() / 1e-7, rtol=1e-4, atol=1e-4)


def test_first_order_of_free_logits_is_the_limit_of_the_exact_step() -> None:
    logits, w, lose = softmaxes(20)
    identity = torch.eye(V, dtype=torch.float64)
    told = distribution_change(logits.softmax(-1), identity, w, lose, 1.3, 0.4, 1e-6)
    torch.testing.assert_close(single_token_step(logits, w, lose, 1.3, 0.4, 1e-6), told, rtol=1e-4, atol=1e-11)
    assert (logits.softmax(-1) * told).sum(-1).abs().max() < 1e-15  # probability is kept


def test_a_batch_equals_its_rows_broadcasts_and_keeps_float32() -> None:
    logits, w, lose = softmaxes(3)
    grid = single_token_step(logits, w, lose, 1.0, [[0.5], [2.0]], 0.3)
    assert grid.shape == (2, 3, V)
    torch.testing.assert_close(grid[1, 2], single_token_step(logits[2], w[2], lose[2], 1.0, 2.0, 0.3))
    kernel = torch.eye(V) + 0.1
    wide = distribution_change(logits.softmax(-1).float(), kernel, w, lose, [[1.0], [2.0]], 1.0, 0.1)
    assert wide.shape == (2, 3, V)
    assert wide.dtype == torch.float32
    high = distribution_change(logits.softmax(-1), kernel.double(), w, lose, [[1.0], [2.0]], 1.0, 0.1)
    torch.testing.assert_close(wide.double(), high, rtol=1e-4, atol=1e-5)
    assert single_token_step(logits.float(), w, lose, 1.0, 1.0, 0.3).dtype == torch.float32


def test_gradients_and_vmap_work() -> None:
    logits, w, lose = softmaxes(2)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda o: single_token_step(o, w, lose, 1.0, 0.5, 0.3), (logits,))
    kernel = torch.eye(V, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: distribution_change([1 / V] * V, k, 0, 1, 1.0, 0.5, 0.3), (kernel,))
    mapped = torch.func.vmap(lambda o, i, j: single_token_step(o, i, j, 1.0, 1.0, 0.3))(logits, w, lose)
    torch.testing.assert_close(mapped, single_token_step(logits, w, lose, 1.0, 1.0, 0.3))


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    p, index = torch.empty(4, V, device=fake_gpu), torch.empty(4, dtype=torch.int64, device=fake_gpu)
    moved = distribution_change(p, torch.empty(4, V, V, device=fake_gpu), index, index, p[:, 0], 1.0, 0.1)
    for x in (moved, single_token_step(p, index, index, 1.0, p[:, 0], 0.1)):
        assert x.shape == (4, V)
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32


HALF = [0.5, 0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distribution_change([0.5, 0.6], np.eye(2), 0, 1, 1, 1, 1), "probs: got 1.1, want rows that sum to 1"),
        (lambda: distribution_change([1.5, -0.5], np.eye(2), 0, 1, 1, 1, 1), "probs: got -0.5"),
        (lambda: distribution_change([1.0], np.eye(1), 0, 0, 1, 1, 1), "probs: got shape"),
        (lambda: distribution_change(HALF, np.eye(3), 0, 1, 1, 1, 1), "kernel: got shape"),
        (lambda: distribution_change(HALF, [[1.0, math.nan], [0.0, 1.0]], 0, 1, 1, 1, 1), "kernel: got nan"),
        (lambda: distribution_change(HALF, np.eye(2), 2, 1, 1, 1, 1), "chosen: got 2"),
        (lambda: distribution_change(HALF, np.eye(2), 0, -1, 1, 1, 1), "rejected: got -1"),
        (lambda: distribution_change(HALF, np.eye(2), 0.5, 1, 1, 1, 1), "chosen: got torch.float64"),
        (lambda: single_token_step([0.0], 0, 0, 1, 1, 1), "logits: got shape"),
        (lambda: single_token_step([0.0, math.inf], 0, 1, 1, 1, 1), "logits: got inf"),
        (lambda: single_token_step([0.0, 0.0], 0, 1, math.nan, 1, 1), "d_w: got nan"),
        (lambda: single_token_step([0.0, 0.0], 0, 1, 1, 1, -1), "lr: got -1"),
        (lambda: single_token_step([0.0, 0.0], [0, 1], [0, 1, 1], 1, 1, 1), "do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
