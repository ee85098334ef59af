"""The suffix model against an explicit one with real vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.gradient_entanglement import PairGram, critical_suffix_length, gradient_condition, suffix_gram


def explicit(p: float, e_w: float, e_l: float, s: float, length: int) -> tuple[float, float, float]:
    """Gradients of both responses in a 2 x d head, built position by position."""
    states = np.eye(2 * length + 1)
    mix = [s * states[1 + i] + math.sqrt(1 - s * s) * states[1 + length + i] for i in range(length)]
    error = np.array([1.0, -1.0])  # one-hot minus probabilities, per unit of missing probability
    g_w = (1 - p) * np.outer(error, states[0])
    g_l = -p * np.outer(error, states[0])  # the other letter, whose probability is 1 - p
    for i in range(length):
        g_w = g_w + e_w * np.outer(error, states[1 + i])
        g_l = g_l + e_l * np.outer(error, mix[i])
    return float((g_w * g_w).sum()), float((g_w * g_l).sum()), float((g_l * g_l).sum())


share = st.floats(0.01, 0.99)


@given(share, share, share, st.floats(-1, 1), st.integers(0, 6))
def test_the_gram_is_that_of_the_explicit_model(p: float, e_w: float, e_l: float, s: float, length: int) -> None:
    got = suffix_gram(p, e_w, e_l, s, length)
    np.testing.assert_allclose([got.ww, got.wl, got.ll], explicit(p, e_w, e_l, s, length), rtol=1e-9, atol=1e-9)


@given(share, share, share, st.floats(-1, 1))
def test_verdicts_turn_at_the_critical_lengths(p: float, e_w: float, e_l: float, s: float) -> None:
    lengths = critical_suffix_length(p, e_w, e_l, s)
    assert lengths[0].isinf() or lengths[1].isinf()
    for length, part in zip(lengths, ("chosen_up", "rejected_down"), strict=True):
        if length.isinf():
            far = suffix_gram(p, e_w, e_l, s, 1e6)
            assert getattr(gradient_condition(far, 1.0, 1.0), part)
        elif length < 1e9:
            at = suffix_gram(p, e_w, e_l, s, length * torch.tensor([1 - 1e-6, 1 + 1e-6], dtype=torch.float64))
            assert getattr(gradient_condition(at, 1.0, 1.0), part).tolist() == [True, False]


def test_the_example_of_the_chapter(device: str) -> None:
    p = torch.tensor(0.7, dtype=torch.float64, device=device)
    n_w, n_l = critical_suffix_length(p, 0.2, 0.9, 0.9)
    assert n_w.item() == pytest.approx(0.3 / (0.2 * 0.61))
    assert n_l.item() == math.inf
    assert str(n_w.device).startswith(device)
    gram = suffix_gram(p, 0.2, 0.9, 0.9, [2, 3])
    assert gradient_condition(gram, 1.0, 1.0).regime.tolist() == [0, 2]


def test_a_letter_that_is_never_missed_turns_nothing() -> None:
    assert critical_suffix_length(1.0, 0.0, 0.5, 1.0)[0].item() == math.inf
    assert critical_suffix_length(0.0, 0.5, 0.0, 1.0)[1].item() == math.inf
    assert critical_suffix_length(1.0, 0.1, 0.5, 1.0)[0].item() == 0.0


def test_everything_broadcasts_batches_and_keeps_float32() -> None:
    p, e = torch.rand(4, 1), torch.rand(3)
    gram, lengths = suffix_gram(p, e, 0.5, 0.9, 2), critical_suffix_length(p, e, 0.5, 0.9)
    assert gram.wl.shape == lengths[0].shape == lengths[1].shape == (4, 3)
    assert gram.wl.dtype == lengths[0].dtype == torch.float32
    alone = suffix_gram(p[1, 0].double(), e[2].double(), 0.5, 0.9, 2)
    assert gram.wl[1, 2].item() == pytest.approx(alone.wl.item(), rel=1e-5)


def test_gradients_pass_through() -> None:
    x = torch.tensor([0.6, 0.3, 0.8, 0.9], dtype=torch.float64, requires_grad=True)

    def everything(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gram: PairGram = suffix_gram(x[0], x[1], x[2], x[3], 3)
        return gram.ww, gram.wl, gram.ll, critical_suffix_length(x[0], x[1], x[2], x[3])[0]

    assert torch.autograd.gradcheck(everything, (x,))


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    x = torch.empty(5, device=fake_gpu)
    for got in (suffix_gram(x, x, x, x, 3).wl, *critical_suffix_length(x, x, x, 0.5)):
        assert str(got.device) == fake_gpu
        assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: suffix_gram(1.2, 0.1, 0.1, 0.0, 1), "p_chosen: got 1.2"),
        (lambda: suffix_gram(0.5, -0.1, 0.1, 0.0, 1), "miss_w: got -0.1"),
        (lambda: suffix_gram(0.5, 0.1, math.nan, 0.0, 1), "miss_l: got nan"),
        (lambda: suffix_gram(0.5, 0.1, 0.1, 1.5, 1), "similarity: got 1.5"),
        (lambda: suffix_gram(0.5, 0.1, 0.1, 0.0, -1), "length: got -1"),
        (lambda: suffix_gram([0.5, 0.4], 0.1, 0.1, 0.0, [1, 2, 3]), "do not broadcast"),
        (lambda: critical_suffix_length(0.5, 2.0, 0.1, 0.0), "miss_w: got 2"),
        (lambda: critical_suffix_length(0.5, 0.1, 0.1, -1.1), "similarity: got -1.1"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
