"""Text to model: real English that ships with Python, and a chain of letters whose law is known."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.shapes import Float, Int

ALPHABET = "abcdefghijklmnopqrstuvwxyz .,"


def python_manual() -> Int[Tensor, " length"]:
    """The topics of Python's own help as one row of letters: real English prose, in the standard library.

    Lower case; whatever is not one of the 29 characters of `ALPHABET` counts as a space, and spaces are joined.

    Args:
        None.

    Returns:
        Tokens, shape (length,).

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> decode(python_manual()[:6]).islower()
    True
    """
    from pydoc_data.topics import topics  # half a megabyte of text, read where it is needed

    text = " ".join(topics[name] for name in sorted(topics)).lower()
    kept = "".join(letter if letter in ALPHABET else " " for letter in text)
    return torch.tensor([ALPHABET.index(letter) for letter in " ".join(kept.split())])


def decode(tokens: Int[Tensor, " length"]) -> str:
    """A row of tokens as text.

    Args:
        tokens: places in `ALPHABET`, shape (length,).

    Returns:
        The text.

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> decode(torch.tensor([7, 8]))
    'hi'
    """
    return "".join(ALPHABET[token] for token in tokens.tolist())


def letter_chain(
    length: int, letters: int, *, sharpness: float, generator: torch.Generator
) -> tuple[Int[Tensor, " length"], Float[Tensor, "letters letters"]]:
    """A synthetic text: a Markov chain with random transition probabilities, and these probabilities.

    Args:
        length: letters to draw.
        letters: size of the alphabet.
        sharpness: 0 makes all transitions equally likely, larger values make a few likely.
        generator: source of randomness, on the CPU.

    Returns:
        The text as tokens, shape (length,), and the transition probabilities, shape (letters, letters).

    Raises:
        ValueError: a length below 1 or fewer than 2 letters.

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> letter_chain(5, 3, sharpness=1.0, generator=torch.Generator().manual_seed(0))[1].sum(-1)
    tensor([1.0000, 1.0000, 1.0000], dtype=torch.float64)
    """
    if length < 1 or letters < 2:
        raise ValueError(f"length and letters: got {length} and {letters}, want at least 1 and 2")
    scores = sharpness * torch.randn(letters, letters, dtype=torch.float64, generator=generator)
    transitions = scores.softmax(-1)
    edges = transitions.cumsum(-1)
    draws = torch.rand(length, 1, dtype=torch.float64, generator=generator)
    # The next letter for every letter that may precede, of which the chain then follows one.
    following = (edges.unsqueeze(0) < draws.unsqueeze(-1)).sum(-1).clamp_max(letters - 1).tolist()
    row, letter = [], 0
    for choices in following:
        letter = choices[letter]
        row.append(letter)
    return torch.tensor(row), transitions


def text_rows(
    text: Int[Tensor, " letters"], count: int, length: int, *, generator: torch.Generator
) -> Int[Tensor, "count length"]:
    """Random stretches of a text.

    Args:
        text: tokens, shape (letters,).
        count: stretches to draw, with replacement.
        length: tokens of each.
        generator: source of randomness, on the CPU.

    Returns:
        Shape (count, length).

    Raises:
        ValueError: a text shorter than a stretch.

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> text_rows(torch.arange(3), 2, 3, generator=torch.Generator().manual_seed(0))
    tensor([[0, 1, 2],
            [0, 1, 2]])
    """
    if len(text) < length:
        raise ValueError(f"text: got {len(text)} tokens, want at least {length}")
    starts = torch.randint(len(text) - length + 1, (count, 1), generator=generator)
    return text[starts + torch.arange(length)]
