"""Text and chain: what the chapter's models learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lib.gradient_entanglement import decode, letter_chain, python_manual, text_rows
from lib.gradient_entanglement.text import ALPHABET


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
        (lambda: text_rows(torch.arange(5), 1, 6, generator=generator()), "text: got 5 tokens"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
