"""Token kernels against autograd on an explicit unembedding, token changes against explicit steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib.gradient_entanglement import ches_score, token_changes, token_gram

B, TA, TB, D, V = 3, 4, 5, 6, 7


def response(length: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, length, D, generator=generator, dtype=torch.float64)
    return hidden.to(dtype), torch.randint(V, (B, length), generator=generator)


def unembedding() -> Tensor:
    return torch.randn(V, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def token_gradients(F: Tensor, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Gradient of each token's log-probability in F, shape (B, T, V * D), one backward pass a token."""
    found = []
    for h, y in zip(hidden.reshape(-1, D), tokens.flatten(), strict=True):
        leaf = F.clone().requires_grad_()
        (g,) = torch.autograd.grad((leaf @ h).log_softmax(-1)[y], leaf)
        found.append(g.flatten())
    return torch.stack(found).reshape(*tokens.shape, -1)


def test_token_gram_is_that_of_explicit_gradients(device: str) -> None:
    F, (h_a, y_a), (h_b, y_b) = unembedding(), response(TA, 0), response(TB, 1)
    want = token_gradients(F, h_a, y_a) @ token_gradients(F, h_b, y_b).mT
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
    args: Any = [x.to(device) for x in (h_a, h_a @ F.T, y_a, h_b, h_b @ F.T, y_b)]
    torch.testing.assert_close(token_gram(*args).cpu(), want, rtol=1e-12, atol=1e-12)
    masked = token_gram(*args, mask_a=mask.to(device), mask_b=torch.ones(TB, device=device))
    torch.testing.assert_close(masked.cpu(), want * mask[:, None], rtol=1e-12, atol=1e-12)


def test_a_batch_of_one_side_broadcasts_and_equals_its_rows() -> None:
    F, (h_a, y_a), (h_b, y_b) = unembedding(), response(TA, 0), response(TB, 1)
    together = token_gram(h_a[:1], h_a[:1] @ F.T, y_a[:1], h_b, h_b @ F.T, y_b)
    for i in range(B):
        alone = token_gram(h_a[0], h_a[0] @ F.T, y_a[0], h_b[i], h_b[i] @ F.T, y_b[i])
        torch.testing.assert_close(together[i], alone)


def test_its_gradients_and_float32_are_right() -> None:
    F, (h_a, y_a), (h_b, y_b) = unembedding(), response(2, 0), response(3, 1)
    h_a, h_b = h_a[:1].requires_grad_(), h_b[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: token_gram(a, a @ F.T, y_a[:1], b, b @ F.T, y_b[:1]), (h_a, h_b))
    halves: Any = [(x.float(), (x @ F.T).float(), y[:1]) for x, y in ((h_a, y_a), (h_b, y_b))]
    low = token_gram(*halves[0], *halves[1])
    assert low.dtype == torch.float32
    high = token_gram(h_a, h_a @ F.T, y_a[:1], h_b, h_b @ F.T, y_b[:1])
    torch.testing.assert_close(low.double(), high, rtol=1e-4, atol=1e-4)


def test_masked_steps_move_every_token_as_told(device: str) -> None:
    F, (h_a, y_a), (h_b, y_b) = unembedding(), response(TA, 0), response(TB, 1)
    g_a, g_b = token_gradients(F, h_a, y_a), token_gradients(F, h_b, y_b)
    rng = np.random.default_rng(0)
    m_w, m_l, d_w, d_l = (torch.tensor(rng.random(s)) for s in ((B, TA), (B, TB), B, B))
    step = d_w[:, None] * (m_w[..., None] * g_a).sum(1) - d_l[:, None] * (m_l[..., None] * g_b).sum(1)
    kernels: Any = [(x @ y.mT).to(device) for x, y in ((g_a, g_a), (g_a, g_b), (g_b, g_b))]
    got = token_changes(
        kernels[0],
        kernels[1],
        kernels[2],
        d_w.to(device),
        d_l.to(device),
        0.2,
        mask_w=m_w.to(device),
        mask_l=m_l.to(device),
    )
    torch.testing.assert_close(got.chosen.cpu(), 0.2 * (g_a @ step[..., None])[..., 0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(got.rejected.cpu(), 0.2 * (g_b @ step[..., None])[..., 0], rtol=1e-11, atol=1e-11)
    unmasked = token_changes(kernels[0], kernels[1], kernels[2], 1.0, 1.0, 1.0)
    full = token_changes(
        kernels[0],
        kernels[1],
        kernels[2],
        1.0,
        1.0,
        1.0,
        mask_w=torch.ones(TA),
        mask_l=torch.ones(B, TB, dtype=torch.bool),
    )
    torch.testing.assert_close(unmasked.chosen, full.chosen)


def test_token_changes_of_a_batch_are_those_of_its_rows_and_differentiable() -> None:
    rng = np.random.default_rng(1)
    ww, wl, ll = (torch.tensor(rng.normal(size=s)) for s in ((2, 3, 3), (2, 3, 4), (2, 4, 4)))
    both = token_changes(ww, wl, ll, [1.0, 2.0], 0.5, 0.1)
    for i in range(2):
        alone = token_changes(ww[i], wl[i], ll[i], [1.0, 2.0][i], 0.5, 0.1)
        torch.testing.assert_close(both.chosen[i], alone.chosen)
        torch.testing.assert_close(both.rejected[i], alone.rejected)
    d = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: token_changes(ww, wl, ll, d, d, 0.1).rejected, (d,))


def test_ches_is_sums_and_means_of_hidden_states(device: str) -> None:
    (h_w, _), (h_l, _) = response(TA, 0), response(TB, 1)
    mask = torch.tensor([True, True, False, True])
    for normalized in (False, True):
        total_w, total_l = h_w[:, mask].sum(1), h_l.sum(1)
        if normalized:
            total_w, total_l = total_w / 3, total_l / TB
        want = (total_w * (total_l - total_w)).sum(-1)
        got = ches_score(h_w.to(device), h_l.to(device), mask_w=mask.to(device), length_normalized=normalized)
        torch.testing.assert_close(got.cpu(), want)
    low = ches_score(h_w.float(), h_l.float())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), ches_score(h_w, h_l), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ches_score(h_w[1], h_l[1]), ches_score(h_w, h_l)[1])
    h = h_w[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ches_score(x, h_l[:1]), (h,))


states = st.lists(st.lists(st.floats(-3, 3), min_size=2, max_size=2), min_size=1, max_size=4)


@given(states, st.floats(0.1, 3))
def test_ches_of_a_response_with_itself_is_zero_and_with_a_longer_one_is_not_negative(
    h: list[list[float]], stretch: float
) -> None:
    assert ches_score(h, h).item() == pytest.approx(0.0, abs=1e-9)
    longer = ches_score(h, (1 + stretch) * np.array(h))
    assert longer.item() >= -1e-9


def test_all_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    h, o, y = (
        torch.empty(2, 3, 4, device=fake_gpu),
        torch.empty(2, 3, 9, device=fake_gpu),
        torch.empty(2, 3, dtype=torch.int64, device=fake_gpu),
    )
    mask = torch.empty(2, 3, dtype=torch.bool, device=fake_gpu)
    kernel = token_gram(h, o, y, h, o, y, mask_a=mask)
    moved = token_changes(kernel, kernel, kernel, torch.empty(2, device=fake_gpu), 1.0, 0.1, mask_l=mask)
    for x in (kernel, moved.chosen, moved.rejected, ches_score(h, h, mask_w=mask, length_normalized=True)):
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: token_gram([[1.0]], [[0.0, 0.0]], [2], [[1.0]], [[0.0, 0.0]], [0]), "tokens_a: got 2"),
        (lambda: token_gram([[1.0]], [[0.0, 0.0]], [0], [[1.0, 2.0]], [[0.0, 0.0]], [0]), "hidden_b: got shape"),
        (lambda: token_gram([[1.0]], [[0.0, 0.0]], [0], [[1.0]], [[0.0]], [0]), "logits_b: got shape"),
        (lambda: token_gram([[1.0]], [[0.0], [0.0]], [0], [[1.0]], [[0.0]], [0]), "logits_a: got shape"),
        (lambda: token_gram([[1.0]], [[0.0]], [0, 0], [[1.0]], [[0.0]], [0]), "tokens_a: got shape"),
        (lambda: token_gram([[math.nan]], [[0.0]], [0], [[1.0]], [[0.0]], [0]), "hidden_a: got nan"),
        (lambda: token_gram([1.0], [[0.0]], [0], [[1.0]], [[0.0]], [0]), "hidden_a: got shape"),
        (lambda: token_gram([[1.0]], [[0.0]], [0], [[1.0]], [[math.nan]], [0]), "logits_b: got nan"),
        (lambda: token_gram([[1.0]], [[0.0]], [0], [[1.0]], [[0.0]], [0], mask_a=[1, 1]), "mask_a: got shape"),
        (lambda: token_changes([[1.0, 0.0]], [[1.0]], [[1.0]], 1, 1, 1), "k_ww: got shape"),
        (lambda: token_changes([[1.0]], [[1.0, 2.0]], [[1.0]], 1, 1, 1), "k_wl: got shape"),
        (lambda: token_changes([[1.0]], [[1.0]], [1.0], 1, 1, 1), "k_ll: got shape"),
        (lambda: token_changes([[1.0]], [[1.0]], [[1.0]], 1, 1, -1.0), "lr: got -1"),
        (lambda: token_changes([[1.0]], [[1.0]], [[1.0]], 1, math.nan, 1), "d_l: got nan"),
        (lambda: token_changes([[1.0]], [[1.0]], [[1.0]], 1, 1, 1, mask_w=[-0.5]), "mask_w: got -0.5"),
        (lambda: ches_score([[1.0, 2.0]], [[1.0]]), "hidden_l: got shape"),
        (lambda: ches_score([1.0], [[1.0]]), "hidden_w: got shape"),
        (lambda: ches_score([[1.0]], [[1.0]], mask_l=[0.0], length_normalized=True), "mask_l: got 0"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
