"""The transformer: causal, attending as torch does, trained towards the entropy of its text."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib.gradient_entanglement import CharTransformer, letter_chain, pretrain


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(seed: int = 0) -> CharTransformer:
    return CharTransformer(9, generator=generator(seed), context=12, width=8, inner=10)


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


def test_training_lowers_the_loss_towards_the_entropy_of_the_chain() -> None:
    text, transitions = letter_chain(20_000, 9, sharpness=2.0, generator=generator())
    net = CharTransformer(9, generator=generator(), width=16, inner=16)
    entropy = torch.special.entr(transitions).sum(-1)[text].mean().item()
    loss = pretrain(net, text, steps=300, generator=generator(), batch=16)
    assert entropy - 0.05 < loss < entropy + 0.15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CharTransformer(9, generator=generator(), width=9), "heads: got 2, want a divisor"),
        (lambda: pretrain(model(), torch.arange(5), steps=1, generator=generator()), "text and steps: got 5"),
        (lambda: pretrain(model(), torch.zeros(99).long(), steps=0, generator=generator()), "text and steps"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
