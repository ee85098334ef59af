"""Small networks with an output scale: fully connected ones of any depth, and a one-layer transformer for addition."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.checks import read_size
from lib.shapes import Float


class Dense(nn.Module):
    r"""A fully connected network with standard normal weights whose output is a mean over the last hidden layer:

    $$ h^1=W^1x,\qquad h^{l+1}=W^{l+1}\sigma(h^l)/\sqrt{N_l},\qquad g(x)=V\sigma(h^L)/N_L. $$

    With one hidden layer this is the network of theory with readouts that are trained as well. Inputs are meant to
    have length about one.

    Args:
        widths: sizes of all layers, inputs first, outputs last; three or more.
        activation: $\sigma$, applied to each entry of a tensor.
        generator: source of randomness for the weights, which lie on its device.
        dtype: of the weights.

    Raises:
        ValueError: fewer than three sizes, or one that is no whole number above 0.

    Source: Yang and Hu (ICML 2021), arXiv 2011.14522, for the scaling of a mean-field output.

    >>> network = Dense((4, 8, 3), torch.relu, generator=torch.Generator().manual_seed(0))
    >>> network(torch.zeros(5, 4, dtype=torch.float64)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: Callable[[Tensor], Tensor],
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if len(widths) < 3:
            raise ValueError(f"widths: got {tuple(widths)}, want three or more sizes")
        for size in widths:
            read_size("widths", size, 1)
        self.activation, self.width = activation, widths[-2]
        self.weights = nn.ParameterList(
            torch.randn(b, a, generator=generator, dtype=dtype, device=generator.device) for a, b in pairwise(widths)
        )

    def forward(self, inputs: Float[Tensor, "rows d"]) -> Float[Tensor, "rows k"]:
        """Outputs, one row for each input."""
        first, *middle, last = self.weights
        hidden: Tensor = self.activation(inputs @ first.mT)
        for weight in middle:
            hidden = self.activation(hidden @ weight.mT / math.sqrt(weight.shape[-1]))
        outputs: Tensor = hidden @ last.mT / self.width
        return outputs


class AdditionTransformer(nn.Module):
    r"""One layer of attention and one hidden layer that read two tokens and answer with scores of $p$ tokens.

    Both tokens go through one embedding and receive a vector for their place; a third place "=" has a vector of its own
    and attends to all three. Its stream, the sum of what it holds and what it read, enters the hidden layer; the output
    is a mean over the hidden units. There is no normalisation layer and no bias.

    Args:
        modulus: $p$, number of tokens.
        dim: size of an embedding, a multiple of `heads`.
        heads: number of attention heads.
        width: hidden units.
        activation: of the hidden units, applied to each entry of a tensor.
        generator: source of randomness for the weights, which lie on its device.
        dtype: of the weights.

    Raises:
        ValueError: a size below 1, or `dim` that is no multiple of `heads`.

    Source: Vaswani et al. (NeurIPS 2017), arXiv 1706.03762; own reduction to one layer.

    >>> network = AdditionTransformer(5, 8, 2, 16, torch.relu, generator=torch.Generator().manual_seed(0))
    >>> network(torch.zeros(3, 10, dtype=torch.float64)).shape
    torch.Size([3, 5])
    """

    def __init__(
        self,
        modulus: int,
        dim: int,
        heads: int,
        width: int,
        activation: Callable[[Tensor], Tensor],
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        for name, size in {"modulus": modulus, "dim": dim, "heads": heads, "width": width}.items():
            read_size(name, size, 1)
        if dim % heads:
            raise ValueError(f"dim: got {dim}, want a multiple of heads, which is {heads}")
        self.modulus, self.heads, self.width, self.activation = modulus, heads, width, activation

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=dtype, device=generator.device))

        self.embedding, self.places, self.equals = weight(modulus, dim), weight(2, dim), weight(1, dim)
        self.query, self.key, self.value, self.mix = (weight(dim, dim) for _ in range(4))
        self.up, self.readout = weight(dim, width), weight(width, modulus)

    def forward(self, inputs: Float[Tensor, "rows d"]) -> Float[Tensor, "rows k"]:
        """Scores for the sum of the two tokens whose one-hot vectors, over root two, stand in a row of `inputs`."""
        size = self.equals.shape[-1]
        tokens = inputs.unflatten(-1, (2, self.modulus)) * math.sqrt(2) @ self.embedding + self.places
        asking = self.equals.expand(len(inputs), 1, size)
        stream = torch.cat([tokens, asking], -2)

        def split(x: Tensor) -> Tensor:
            heads: Tensor = (x / math.sqrt(size)).unflatten(-1, (self.heads, -1))
            return heads.transpose(-3, -2)

        query, key, value = split(asking @ self.query), split(stream @ self.key), split(stream @ self.value)
        # torch's fused attention has no batching rule for vmap on the CPU
        focus = (query @ key.mT / math.sqrt(size / self.heads)).softmax(-1)
        read = (focus @ value).transpose(-3, -2).flatten(-2).squeeze(-2)
        stream = self.equals + read @ self.mix / math.sqrt(size)
        scores: Tensor = self.activation(stream @ self.up / math.sqrt(size)) @ self.readout / self.width
        return scores


__all__ = ["AdditionTransformer", "Dense"]
