"""Text, chain, transformer and pairs: what the chapter trains on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lib.gradient_entanglement import (
    CharTransformer,
    decode,
    letter_chain,
    minimal_pairs,
    pretrain,
    python_manual,
    response_logps,
    text_rows,
)
from lib.gradient_entanglement.language import ALPHABET


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(seed: int = 0) -> CharTransformer:
    return CharTransformer(9, generator=generator(seed), context=12, width=8, inner=10)


def test_the_manual_is_english_of_the_alphabet() -> None:
    text = python_manual()
    assert len(text) > 200_000
    assert set(text.tolist()) == set(range(len(ALPHABET)))
    words = decode(text).split(" ")
    assert "" not in words
    assert {"the", "statement", "python"} <= set(words)


def test_the_chain_follows_its_transition_probabilities() -> None:
    row, drawn = letter_chain(60_000, 4, sharpness=1.0, generator=generator())
    transitions = drawn.numpy()
    counts = np.zeros((4, 4))
    np.add.at(counts, (row[:-1].numpy(), row[1:].numpy()), 1)
    total = counts.sum(1, keepdims=True)
    error = np.sqrt(transitions * (1 - transitions) / total)
    assert (np.abs(counts / total - transitions) < 4.5 * error).all()
    again, _ = letter_chain(60_000, 4, sharpness=1.0, generator=generator())
    assert torch.equal(row, again)


def test_the_transformer_sees_no_later_token_and_starts_from_its_generator() -> None:
    rows = torch.randint(9, (3, 10), generator=generator())
    changed = rows.clone()
    changed[:, 6:] = 0
    before, after = model()(rows), model()(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().max() > 1e-3
    assert not torch.equal(before, model(1)(rows))


def test_attention_is_softmax_attention_of_torch() -> None:
    net = model().double()
    x = torch.randn(2, 7, 8, dtype=torch.float64, generator=generator())
    query, key, value = (part.reshape(2, 7, 2, 4).transpose(1, 2) for part in net.attention(x).chunk(3, -1))
    want = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(net._attend(x), net.mix(want.transpose(1, 2).reshape(2, 7, 8)))


def test_a_response_is_scored_token_by_token_after_its_prompt() -> None:
    net, rows = model().double(), torch.randint(9, (3, 10), generator=generator())
    want = torch.zeros(3, dtype=torch.float64)
    for i in range(4, 10):
        want += net(rows[:, :i])[:, -1].log_softmax(-1)[torch.arange(3), rows[:, i]]
    torch.testing.assert_close(response_logps(net, rows, 4), want)


def test_training_lowers_the_loss_towards_the_entropy_of_the_chain() -> None:
    text, transitions = letter_chain(20_000, 9, sharpness=2.0, generator=generator())
    net = CharTransformer(9, generator=generator(), width=16, inner=16)
    entropy = torch.special.entr(transitions).sum(-1)[text].mean().item()
    loss = pretrain(net, text, steps=300, generator=generator(), batch=16)
    assert entropy - 0.05 < loss < entropy + 0.15


def test_minimal_pairs_differ_in_the_best_other_token_at_one_place() -> None:
    net, rows = model().double(), torch.randint(9, (20, 10), generator=generator())
    for position, place in ((0, 4), (3, 7), (-1, 9)):
        pairs = minimal_pairs(net, rows, 4, position)
        assert torch.equal(pairs.chosen, rows)
        differs = pairs.chosen != pairs.rejected
        assert torch.equal(differs.nonzero()[:, 1], torch.full((20,), place))
        scores = net(rows[:, :place])[:, -1].scatter(-1, rows[:, place, None], -torch.inf)
        assert torch.equal(pairs.rejected[:, place], scores.argmax(-1))


def test_rows_are_stretches_of_the_text() -> None:
    rows = text_rows(torch.arange(50), 30, 7, generator=generator())
    assert rows.shape == (30, 7)
    assert (rows.diff(dim=1) == 1).all()
    assert rows.min() >= 0
    assert text_rows(torch.arange(7), 2, 7, generator=generator()).tolist() == [list(range(7))] * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: letter_chain(0, 3, sharpness=1.0, generator=generator()), "length and letters: got 0"),
        (lambda: letter_chain(5, 1, sharpness=1.0, generator=generator()), "length and letters: got 5 and 1"),
        (lambda: CharTransformer(9, generator=generator(), width=9), "heads: got 2, want a divisor"),
        (lambda: pretrain(model(), torch.arange(5), steps=1, generator=generator()), "text and steps: got 5"),
        (lambda: pretrain(model(), torch.zeros(99).long(), steps=0, generator=generator()), "text and steps"),
        (lambda: text_rows(torch.arange(5), 1, 6, generator=generator()), "text: got 5 tokens"),
        (lambda: minimal_pairs(model(), torch.zeros(2, 6).long(), 4, 2), "prompt and position"),
        (lambda: minimal_pairs(model(), torch.zeros(2, 6).long(), 0, 0), "prompt and position"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
