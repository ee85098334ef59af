"""Inner products of gradients: ours against the loop a user would write, one thread, agreement proved first.

Run `python benchmarks/bench_gradient_entanglement.py`. The peer of pair products takes two backward passes a pair, as
published code does; peers of the token kernel form the gradients of the unembedding, of both responses at once and
token by token. Where a peer would take minutes a sample of its pairs is timed, and the time for all is extrapolated and
marked with ~.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from timeit import Timer
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.gradient_entanglement import (
    CharTransformer,
    layerwise_kernel,
    layerwise_pair_gram,
    pair_gram,
    response_logps,
    token_gram,
)

PROMPT, LENGTH, PAIRS, REPEATS = 16, 28, 512, 5


def model_and_rows(dtype: torch.dtype, **sizes: int) -> tuple[CharTransformer, Tensor, Tensor]:
    """The chapter's transformer (or a wider one) and random pairs of its sizes."""
    generator = torch.Generator().manual_seed(0)
    model = CharTransformer(29, generator=generator, **sizes).to(dtype)
    chosen, rejected = torch.randint(29, (2, PAIRS, LENGTH), generator=generator)
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


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Median times, one after the other, so that a busy machine hits both."""
    us, them = [], []
    for _ in range(repeats):
        us.append(Timer(ours).timeit(1))
        them.append(Timer(theirs).timeit(1))
    return statistics.median(us), statistics.median(them)


def report(what: str, own: float, other: float, error: float, bar: float | None = None, mark: str = " ") -> None:
    verdict = "" if bar is None else f"   bar {bar:g} x: {'met' if other / own >= bar else 'MISSED'}"
    print(f"{what:<46} ours {own:9.2e} s   peer {mark}{other:9.2e} s   {other / own:7.1f} x   off {error:.0e}{verdict}")


def compare(name: str, model: nn.Module, chosen: Tensor, rejected: Tensor, tolerance: float) -> None:
    """One precision: prove agreement, then time both sides in turn."""
    want = loop(model, chosen, rejected)
    scale = (want[0] * want[2]).sqrt()
    for label, ours, chunk, bar in (
        ("layer by layer", layers, 32, 5.0),
        ("layer by layer", layers, 256, None),
        ("gradients by vmap", vectorised, 64, 2.0 if name == "f64" else 4.0),
    ):
        call = partial(ours, model, chosen, rejected, chunk)
        error = float(((call() - want).abs() / scale).max())
        if error > tolerance:
            raise AssertionError(f"{label}, {name}: the two sides differ by {error:.1e}")
        own, other = in_turn(call, lambda: loop(model, chosen, rejected))
        report(f"512 pairs, {name}, {label}, chunk {chunk}", own, other, error, bar)


def pairs() -> None:
    """512 pairs: layer by layer and by vmap against the loop, over precisions and widths."""
    for dtype, name, tolerance in ((torch.float64, "f64", 1e-10), (torch.float32, "f32", 1e-2)):
        compare(name, *model_and_rows(dtype), tolerance)
    model, chosen, rejected = model_and_rows(torch.float64, width=128, inner=512)
    few = slice(0, 64)
    want = loop(model, chosen[few], rejected[few])
    error = float(((layers(model, chosen[few], rejected[few], 32) - want).abs() / want[0]).max())
    own, other = in_turn(
        lambda: layers(model, chosen, rejected, 32), lambda: loop(model, chosen[few], rejected[few]), repeats=3
    )
    report("512 pairs, f64, 210,000 parameters", own, other * PAIRS / 64, error, mark="~")


def kernels() -> None:
    """All against all."""
    model, chosen, _ = model_and_rows(torch.float64)
    few = loop(model, chosen[:2], chosen[1:3])
    kernel = layerwise_kernel(model, logp, chosen, chunk_size=128)
    error = float((kernel[0, 1] - few[1, 0]).abs() / few[0, 0])
    own = statistics.median(Timer(lambda: layerwise_kernel(model, logp, chosen, chunk_size=128)).repeat(3, 1))
    verdict = "met" if own < 60 else "MISSED"
    print(f"kernel of 512 sequences, f64, chunk 128: {own:.2f} s, off {error:.0e}   bar 60 s: {verdict}")


def tokens() -> None:
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

    def ours() -> Tensor:
        return token_gram(hidden[0], logits[0], target[0], hidden[1], logits[1], target[1])

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

    want, got = explicit(), ours()
    scale = want.abs().max()
    own, other = in_turn(ours, explicit)
    report("token kernel, 16 x 64, V 8192: sum", own, other, float(((got.sum((-1, -2)) - want).abs() / scale).max()), 2)
    error = float((got[0, :4, :4] - token_by_token()).abs().max() / got[0].abs().max())
    own, other = in_turn(ours, token_by_token, repeats=3)
    report("token kernel, 16 x 64, V 8192: every entry", own, other * batch * length / 4, error, 100, "~")


def status(field: str) -> float:
    """A line of this process's memory status, in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def peak_memory() -> None:
    """In a process of its own: resident memory that 512 pairs add, for the chunk that the command line names."""
    chunk = int(sys.argv[-1])
    model, chosen, rejected = model_and_rows(torch.float64)
    layers(model, chosen[:2], rejected[:2], 1)  # loads what the first call loads
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    layers(model, chosen, rejected, chunk)
    print(status("VmHWM") - before)


def main() -> None:
    """Agreement, times and memory."""
    torch.set_num_threads(1)
    print(f"one thread; sequences of {LENGTH} tokens; median of {REPEATS} runs in turn; ~ extrapolated from a sample")
    pairs()
    kernels()
    tokens()
    for chunk in (8, 32, 128, 512):
        call = [sys.executable, __file__, "--peak-memory", str(chunk)]
        megabytes = float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        print(f"512 pairs layer by layer, chunk {chunk:>3}: {megabytes:.0f} MB above the model and its rows")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--peak-memory" in sys.argv:
        peak_memory()
    else:
        main()
