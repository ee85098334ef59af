"""A small language to align: real English that ships with Python, a chain of letters, and a transformer for either."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lib.gradient_entanglement.sequences import sequence_logps
from lib.shapes import Float, Int

ALPHABET = "abcdefghijklmnopqrstuvwxyz .,"


@dataclass(frozen=True)
class PreferencePairs:
    """Prompt and response in one row: `chosen` and `rejected` tokens, which agree in the first `prompt` of them."""

    chosen: Int[Tensor, "B T"]
    rejected: Int[Tensor, "B T"]
    prompt: int


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


class CharTransformer(nn.Module):
    """A decoder with one block, normalised before each part; all parameters in linear, embedding and norm layers.

    Args:
        vocabulary: tokens.
        context: longest sequence.
        width: of the residual stream.
        heads: of the attention; divides the width.
        inner: width of the feed-forward part.
        generator: source of the random start, on the CPU.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        generator: torch.Generator,
        context: int = 32,
        width: int = 32,
        heads: int = 2,
        inner: int = 64,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: got {heads}, want a divisor of the width {width}")
        self.heads = heads
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.before_attention, self.before_inner, self.before_head = (nn.LayerNorm(width) for _ in range(3))
        self.attention, self.mix = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        initialise(self, generator)

    def hidden(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T d"]:
        """What the unembedding reads at each position."""
        count, length = tokens.shape
        places = torch.arange(length, device=tokens.device).expand(count, length)
        x = self.token(tokens) + self.position(places)
        x = x + self._attend(self.before_attention(x))
        x = x + self.outer(nn.functional.silu(self.inner(self.before_inner(x))))
        out: Tensor = self.before_head(x)
        return out

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits of the next token at each position."""
        out: Tensor = self.head(self.hidden(tokens))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        count, length, width = x.shape
        split = self.attention(x).reshape(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = split[0], split[1], split[2]
        later = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        weights = (later + query @ key.mT / math.sqrt(width // self.heads)).softmax(-1)
        out: Tensor = self.mix((weights @ value).transpose(1, 2).reshape(count, length, width))
        return out


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """A random start from a generator: linear layers uniform by their inputs, embeddings normal, as torch has it.

    Args:
        model: changed in place.
        generator: source of randomness, on the device of the model.

    Returns:
        Nothing.

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> layer = nn.Linear(4, 2)
    >>> initialise(layer, torch.Generator().manual_seed(0))
    >>> bool((layer.weight.abs() <= 0.5).all())
    True
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            reach = 1 / math.sqrt(layer.in_features)
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -reach, reach, generator=generator)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, generator=generator)


def response_logps(model: nn.Module, tokens: Int[Tensor, "B T"], prompt: int) -> Float[Tensor, " B"]:
    """Summed log-probability of the tokens after the first `prompt`, given these.

    Args:
        model: gives logits (B, T, V) for tokens (B, T).
        tokens: prompt and response, shape (B, T).
        prompt: tokens of the prompt, at least 1.

    Returns:
        In nats, shape (B,).

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> model = CharTransformer(5, width=4, inner=4, generator=torch.Generator().manual_seed(0))
    >>> response_logps(model, torch.tensor([[0, 1, 2]]), 1).shape
    torch.Size([1])
    """
    return sequence_logps(model(tokens[:, :-1])[:, prompt - 1 :], tokens[:, prompt:])


def pretrain(
    model: CharTransformer,
    text: Int[Tensor, " length"],
    *,
    steps: int,
    generator: torch.Generator,
    batch: int = 32,
    window: int = 28,
    lr: float = 5e-3,
) -> float:
    """Fit a model to a text by Adam on random windows.

    Args:
        model: trained in place, in its own dtype.
        text: tokens; windows of it are drawn on the CPU.
        steps: of Adam; the learning rate falls to zero along a cosine.
        generator: source of randomness, on the CPU.
        batch: windows a step.
        window: tokens a window.
        lr: largest learning rate.

    Returns:
        Mean loss of the last tenth of the steps, in nats a token.

    Raises:
        ValueError: a text shorter than a window, or no step.

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> model = CharTransformer(5, width=4, inner=4, generator=torch.Generator().manual_seed(0))
    >>> text = torch.tensor([0, 1, 2, 3] * 20)
    >>> pretrain(model, text, steps=60, generator=torch.Generator().manual_seed(0), window=8) < 1.6
    True
    """
    if len(text) <= window or steps < 1:
        raise ValueError(f"text and steps: got {len(text)} tokens and {steps}, want more than {window} and at least 1")
    device = next(model.parameters()).device
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    for _ in range(steps):
        starts = torch.randint(len(text) - window, (batch, 1), generator=generator)
        rows = text[starts + torch.arange(window + 1)].to(device)
        loss = cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
    return float(torch.stack(losses[-max(1, steps // 10) :]).mean())


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
