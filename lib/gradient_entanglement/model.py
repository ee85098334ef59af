"""A transformer small enough to train on a page."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lib.shapes import Float, Int


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
        parts = self.attention(x).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        later = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        weights = (later + query / math.sqrt(width // self.heads) @ key.mT).softmax(-1)
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
