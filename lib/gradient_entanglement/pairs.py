"""Preference pairs of token rows, and the log-probability of their responses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.gradient_entanglement.sequences import sequence_logps
from lib.shapes import Float, Int


@dataclass(frozen=True)
class PreferencePairs:
    """Prompt and response in one row: `chosen` and `rejected` tokens, which agree in the first `prompt` of them."""

    chosen: Int[Tensor, "B T"]
    rejected: Int[Tensor, "B T"]
    prompt: int


def response_logps(model: nn.Module, tokens: Int[Tensor, "B T"], prompt: int) -> Float[Tensor, " B"]:
    """Summed log-probability of the tokens after the first `prompt`, given these.

    Args:
        model: gives logits (B, T, V) for tokens (B, T).
        tokens: prompt and response, shape (B, T).
        prompt: tokens of the prompt, at least 1.

    Returns:
        In nats, shape (B,).

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> from lib.gradient_entanglement import CharTransformer
    >>> model = CharTransformer(5, width=4, inner=4, generator=torch.Generator().manual_seed(0))
    >>> response_logps(model, torch.tensor([[0, 1, 2]]), 1).shape
    torch.Size([1])
    """
    return sequence_logps(model(tokens[:, :-1])[:, prompt - 1 :], tokens[:, prompt:])


def minimal_pairs(model: nn.Module, rows: Int[Tensor, "B T"], prompt: int, position: int) -> PreferencePairs:
    """Pairs that differ in one token: the text, and the text with the model's best other token at one place.

    Args:
        model: gives logits (B, T, V) for tokens (B, T).
        rows: real text, prompt and response.
        prompt: tokens of the prompt, at least 1.
        position: place of the exchanged token in the response, from 0; negative counts from its end.

    Returns:
        The pairs, of which the text itself is chosen.

    Raises:
        ValueError: no prompt, no response, or a place outside the response.

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> from lib.gradient_entanglement import CharTransformer
    >>> model = CharTransformer(5, width=4, inner=4, generator=torch.Generator().manual_seed(0))
    >>> pairs = minimal_pairs(model, torch.tensor([[0, 1, 2]]), 1, -1)
    >>> (pairs.chosen != pairs.rejected).tolist()
    [[False, False, True]]
    """
    length = rows.shape[1] - prompt
    if prompt < 1 or length < 1 or not -length <= position < length:
        raise ValueError(
            f"prompt and position: got {prompt} and {position} for rows of {rows.shape[1]} tokens, want at least one "
            "token of prompt and a place inside the response"
        )
    place = prompt + position % length
    with torch.no_grad():
        scores = model(rows[:, :place])[:, -1]
    others = scores.scatter(-1, rows[:, place, None], -torch.inf)
    rejected = rows.clone()
    rejected[:, place] = others.argmax(-1)
    return PreferencePairs(rows, rejected, prompt)
