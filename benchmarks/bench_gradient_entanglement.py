"""Inner products of gradients: ours against the loop a user would write, one thread, agreement proved first.

Run `make bench CHAPTERS=gradient_entanglement`. The peer of pair products takes two backward passes a pair, as
published code does; peers of the token kernel form the gradients of the unembedding, of both responses at once and
token by token. Where a peer would take minutes a sample of its pairs is timed, and the time for all is extrapolated.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.harness import Growth, Race, run
from lib.gradient_entanglement import (
    CharTransformer,
    layerwise_kernel,
    layerwise_pair_gram,
    pair_gram,
    response_logps,
    token_gram,
)

PROMPT, LENGTH, PAIRS, TIMED = 16, 28, 512, 64


def model_and_rows(dtype: torch.dtype, count: int = PAIRS, **sizes: int) -> tuple[CharTransformer, Tensor, Tensor]:
    """The chapter's transformer (or a wider one) and random pairs of its sizes."""
    generator = torch.Generator().manual_seed(0)
    model = CharTransformer(29, generator=generator, **sizes).to(dtype)
    chosen, rejected = torch.randint(29, (2, count, LENGTH), generator=generator)
    return model, chosen, rejected


def logp(model: nn.Module, rows: Tensor) -> Tensor:
    return response_logps(model, rows, PROMPT)


def loop(model: nn.Module, chosen: Tensor, rejected: Tensor) -> Tensor:
    """Two backward passes a pair; shape (3, pairs)."""
    parameters, found = list(model.parameters()), []
    for pair in zip(chosen, rejected, strict=True):
        both = []
        for row in pair:
            gradient = torch.autograd.grad(logp(model, row.unsqueeze(0)).sum(), parameters)
            both.append(torch.cat([g.flatten() for g in gradient]))
        found.append(torch.stack([both[0] @ both[0], both[0] @ both[1], both[1] @ both[1]]))
    return torch.stack(found, -1)


def vectorised(model: nn.Module, chosen: Tensor, rejected: Tensor, chunk: int | None) -> Tensor:
    """`pair_gram`: gradients by vmap."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def one(theta: Any, row: Tensor) -> Tensor:
        logits = functional_call(model, theta, (row.unsqueeze(0)[:, :-1],))[:, PROMPT - 1 :]
        chosen: Tensor = logits.log_softmax(-1).gather(-1, row[None, PROMPT:, None]).sum()
        return chosen

    gram = pair_gram(one, parameters, chosen, rejected, chunk_size=chunk)
    return torch.stack([gram.ww, gram.wl, gram.ll])


def layers(model: nn.Module, chosen: Tensor, rejected: Tensor, chunk: int | None) -> Tensor:
    """`layerwise_pair_gram`: no gradient of the model."""
    gram = layerwise_pair_gram(model, logp, chosen, rejected, chunk_size=chunk)
    return torch.stack([gram.ww, gram.wl, gram.ll])


def cosines(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference relative to the lengths of the two gradients, on the pairs that the loop was given."""
    scale = (theirs[0] * theirs[2]).sqrt()
    return float(((ours[:, : theirs.shape[-1]] - theirs).abs() / scale).max())


def pair_races() -> Iterator[Race]:
    """512 pairs: layer by layer and by vmap against the loop, over precisions and widths; the loop is given 64."""
    ways: tuple[tuple[str, Callable[..., Tensor], int, float | None], ...] = (
        ("layerwise_pair_gram", layers, 32, 5.0),
        ("layerwise_pair_gram", layers, 256, None),
        ("pair_gram", vectorised, 64, 2.0),
    )
    for dtype, name, limit in ((torch.float64, "float64", 1e-10), (torch.float32, "float32", 1e-2)):
        rows = model_and_rows(dtype)
        few = rows[0], rows[1][:TIMED], rows[2][:TIMED]
        for kernel, way, chunk, bar in ways:
            yield Race(
                kernel,
                f"{PAIRS} pairs, {name}, chunk {chunk}",
                partial(way, *rows, chunk),
                "two backward passes a pair",
                partial(loop, *few),
                agree=cosines,
                limit=limit,
                share=TIMED / PAIRS,
                at_least=4.0 if kernel == "pair_gram" and name == "float32" else bar,
                repeats=3,
            )
    rows = model_and_rows(torch.float64, width=128, inner=512)
    few = rows[0], rows[1][:16], rows[2][:16]
    yield Race(
        "layerwise_pair_gram",
        f"{PAIRS} pairs, float64, 210,000 parameters, chunk 32",
        partial(layers, *rows, 32),
        "two backward passes a pair",
        partial(loop, *few),
        agree=cosines,
        share=16 / PAIRS,
        repeats=3,
    )


def kernel_race() -> Iterator[Race]:
    """All against all; the loop is given the two pairs that prove agreement."""
    model, chosen, _ = model_and_rows(torch.float64)
    yield Race(
        "layerwise_kernel",
        f"{PAIRS} sequences against each other, float64, chunk 128",
        partial(layerwise_kernel, model, logp, chosen, chunk_size=128),
        "two backward passes a pair",
        partial(loop, model, chosen[:2], chosen[1:3]),
        agree=lambda ours, theirs: float((ours[0, 1] - theirs[1, 0]).abs() / theirs[0, 0]),
        share=2 / (PAIRS * (PAIRS + 1) / 2),
        within=60,
        repeats=3,
    )


def token_races() -> Iterator[Race]:
    """The unembedding's token kernel against explicit gradients."""
    generator = torch.Generator().manual_seed(0)
    batch, length, vocabulary, width = 16, 64, 8192, 128
    head = torch.randn(vocabulary, width, generator=generator) / width**0.5
    hidden = torch.randn(2, batch, length, width, generator=generator)
    target = torch.randint(vocabulary, (2, batch, length), generator=generator)
    logits = hidden @ head.T

    def explicit() -> Tensor:
        errors = [-logits[i].softmax(-1) for i in range(2)]
        for i in range(2):
            errors[i].scatter_add_(-1, target[i].unsqueeze(-1), torch.ones(batch, length, 1))
        first, second = (e.mT @ h for e, h in zip(errors, hidden, strict=True))
        total: Tensor = (first * second).sum((-1, -2))
        return total

    def token_by_token() -> Tensor:
        """Gradients of four tokens of each response of one pair, one backward pass each."""
        rows = []
        for i in range(2):
            for t in range(4):
                leaf = head.clone().requires_grad_()
                (g,) = torch.autograd.grad((leaf @ hidden[i, 0, t]).log_softmax(-1)[target[i, 0, t]], leaf)
                rows.append(g.flatten())
        found = torch.stack(rows)
        return found[:4] @ found[4:].T

    ours = partial(token_gram, hidden[0], logits[0], target[0], hidden[1], logits[1], target[1])
    size = f"{batch} pairs, {length} tokens, vocabulary {vocabulary:,}, float32"
    yield Race(
        "token_gram",
        f"{size}: its sum",
        ours,
        "explicit gradients",
        explicit,
        agree=lambda got, want: float((got.sum((-1, -2)) - want).abs().max() / want.abs().max()),
        limit=1e-4,
        at_least=2,
    )
    yield Race(
        "token_gram",
        f"{size}: every entry",
        ours,
        "a backward pass a token",
        token_by_token,
        agree=lambda got, want: float((got[0, :4, :4] - want).abs().max() / got[0].abs().max()),
        limit=1e-4,
        share=4 / (batch * length),
        at_least=100,
        repeats=3,
    )


def races() -> Iterator[Race]:
    for section in (pair_races, kernel_race, token_races):
        yield from section()


def growths() -> Iterator[Growth]:
    """Against the number of pairs, in chunks of 32, and of sequences compared with each other."""
    model, chosen, rejected = model_and_rows(torch.float64, 10_000)
    yield Growth(
        "layerwise_pair_gram",
        "pairs, in chunks of 32",
        (10, 100, 1_000, 10_000),
        lambda n: partial(layers, model, chosen[:n], rejected[:n], 32),
        (1, 1),
        "1 for each pair its own products",
        batch=True,
    )
    yield Growth(
        "layerwise_kernel",
        "sequences against each other, in chunks of 128",
        (64, 128, 256, 512),
        lambda n: partial(layerwise_kernel, model, logp, chosen[:n], chunk_size=128),
        (1, 2),
        "1 where passes through the model bind, 2 where products of all pairs do",
    )


if __name__ == "__main__":
    run(__file__, races, growths)
