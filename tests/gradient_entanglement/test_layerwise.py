"""Inner products layer by layer against gradients formed one backward pass at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib.gradient_entanglement import (
    CharTransformer,
    layerwise,
    layerwise_kernel,
    layerwise_pair_gram,
    response_logps,
)
from lib.gradient_entanglement.layers import summed_gradient
from tests.gradient_entanglement.oracle import gradients


def transformer(seed: int = 0, width: int = 16) -> CharTransformer:
    model = CharTransformer(11, generator=torch.Generator().manual_seed(seed), context=12, width=width, inner=20)
    for parameter in model.parameters():  # gains and biases away from their special start
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    return model.double()


def tokens(count: int, seed: int = 1, length: int = 10) -> Tensor:
    return torch.randint(11, (count, length), generator=torch.Generator().manual_seed(seed))


def logp(model: nn.Module, rows: Tensor) -> Tensor:
    return response_logps(model, rows, 4)


class Odd(nn.Module):
    """Everything a hook must get right: a shared layer, padding, a norm over two axes, frozen and missing biases."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.token = nn.Embedding(9, 6, padding_idx=0)
        self.norm = nn.LayerNorm((5, 6))
        self.plain = nn.LayerNorm(6, elementwise_affine=False)
        self.shared, self.last = nn.Linear(6, 6), nn.Linear(6, 2, bias=False)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.shared.bias.requires_grad_(False)
        self.norm.bias.requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        """One number an example."""
        x = self.norm(self.token(rows)).tanh()
        x = self.plain(self.shared(self.shared(x).tanh()))
        out: Tensor = self.last(x.mean(1)).log_softmax(-1)[:, 0]
        return out


def call(model: nn.Module, rows: Tensor) -> Tensor:
    out: Tensor = model(rows)
    return out


def wide() -> nn.Sequential:
    """Layers so wide and sequences so short that products of Grams are the cheaper form."""
    model = nn.Sequential(nn.Embedding(40, 50), nn.Linear(50, 60), nn.Tanh(), nn.Linear(60, 30))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) / 5
    return model.double()


def first_class(model: nn.Module, rows: Tensor) -> Tensor:
    out: Tensor = model(rows).log_softmax(-1)[..., 0].sum(-1)
    return out


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Callable[[int], Tensor]]] = {
    "transformer": (transformer, logp, tokens),
    "odd": (lambda: Odd().double(), call, lambda seed: tokens(6, seed, 5) % 9),
    "wide": (wide, first_class, lambda seed: torch.randint(40, (6, 3), generator=torch.Generator().manual_seed(seed))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_pairs_and_kernel_are_those_of_formed_gradients(case: str, chunk_size: int | None) -> None:
    build, value, rows = CASES[case]
    model, w, lose = build(), rows(6), rows(7) if case != "transformer" else tokens(6, 7)
    w = w[:6]
    g_w, g_l = gradients(model, value, w), gradients(model, value, lose)
    got = layerwise_pair_gram(model, value, w, lose, chunk_size=chunk_size)
    for part, want in (("ww", g_w * g_w), ("wl", g_w * g_l), ("ll", g_l * g_l)):
        torch.testing.assert_close(getattr(got, part), want.sum(-1), rtol=1e-11, atol=1e-11)
    both = torch.cat([g_w, g_l])
    kernel = layerwise_kernel(model, value, torch.cat([w, lose]), chunk_size=chunk_size)
    torch.testing.assert_close(kernel, both @ both.T, rtol=1e-11, atol=1e-11)


def test_no_trace_is_left_in_the_model() -> None:
    model = transformer()
    layerwise_pair_gram(model, logp, tokens(3, 1), tokens(3, 2))
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="logp: got shape"):
        layerwise_pair_gram(model, lambda m, rows: logp(m, rows).sum(), tokens(3, 1), tokens(3, 2))
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_parameters_do_not_count() -> None:
    model = transformer()
    model.token.requires_grad_(False)
    model.head.requires_grad_(False)
    rows = tokens(4)
    formed = gradients(model, logp, rows)
    torch.testing.assert_close(layerwise_kernel(model, logp, rows), formed @ formed.T, rtol=1e-11, atol=1e-11)


def test_float32_agrees_with_float64() -> None:
    model, w, lose = transformer(), tokens(5, 1), tokens(5, 2)
    high = layerwise_pair_gram(model, logp, w, lose)
    low = layerwise_pair_gram(model.float(), logp, w, lose)
    assert low.wl.dtype == torch.float32
    scale = (high.ww * high.ll).sqrt()
    assert ((low.wl.double() - high.wl).abs() / scale).max() < 1e-4


def test_it_runs_where_gradients_are_switched_off() -> None:
    with torch.no_grad():
        assert layerwise_kernel(transformer(), logp, tokens(2)).diagonal().min() > 0


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    with torch.device(fake_gpu):
        model = nn.Sequential(nn.Embedding(40, 50), nn.LayerNorm(50), nn.Linear(50, 60), nn.Tanh(), nn.Linear(60, 30))
    rows = torch.empty(6, 3, dtype=torch.int64, device=fake_gpu)
    got = layerwise_pair_gram(model, first_class, rows, rows, chunk_size=4)
    assert str(got.wl.device) == fake_gpu
    kernel = layerwise_kernel(model, first_class, rows, chunk_size=4)
    assert kernel.shape == (6, 6)
    assert kernel.dtype == torch.float32


class Tied(nn.Module):
    """The unembedding is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(11, 5)

    def forward(self, rows: Tensor) -> Tensor:
        """One number an example."""
        out: Tensor = (self.token(rows) @ self.token.weight.T).log_softmax(-1)[..., 0].sum(-1)
        return out


class InPlace(nn.Module):
    """The output of a layer is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = nn.Embedding(11, 5), nn.Linear(5, 5)

    def forward(self, rows: Tensor) -> Tensor:
        """One number an example."""
        return torch.relu_(self.layer(self.token(rows))).sum((-1, -2))


class Positions(nn.Module):
    """Positions are embedded once for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(11, 5), nn.Embedding(12, 5)

    def forward(self, rows: Tensor) -> Tensor:
        """One number an example."""
        out: Tensor = (self.token(rows) * self.place(torch.arange(rows.shape[1]))).sum((-1, -2))
        return out


def frozen() -> nn.Module:
    return transformer().requires_grad_(False)


@pytest.mark.parametrize(
    ("build", "value", "message"),
    [
        (Tied, call, "token.weight used outside its layer"),
        (InPlace, call, "output of layer layer changed in place"),
        (Positions, call, "from layer place, want examples on its first axis"),
        (lambda: nn.Conv1d(1, 1, 1), call, "model: got the parameter weight of a Conv1d"),
        (lambda: nn.Embedding(11, 5, max_norm=1.0), call, "model: got the parameter weight of a Embedding"),
        (frozen, logp, "model: got no trainable parameter"),
        (transformer, lambda *_: 0.5, "logp: got float"),
        (transformer, lambda _, rows: torch.zeros(len(rows)), "logp: got values that do not depend"),
    ],
)
def test_a_model_that_hooks_cannot_read_is_refused(build: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layerwise_kernel(build(), value, tokens(3))


@pytest.mark.parametrize(
    ("rejected", "chunk_size", "message"),
    [
        (tokens(3), None, "rejected: got shape"),
        (tokens(4, length=9), None, "rejected: got shape"),
        (tokens(4), 0, "chunk_size: got 0"),
    ],
)
def test_what_is_wrong_is_named(rejected: Tensor, chunk_size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layerwise_pair_gram(transformer(), logp, tokens(4).tolist(), rejected.tolist(), chunk_size=chunk_size)


def test_wide_layers_form_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    formed = []

    def spy(x: Tensor, g: Tensor, rows: int) -> Tensor:
        formed.append(x.shape[1])
        return summed_gradient(x, g, rows)

    monkeypatch.setattr(layerwise, "summed_gradient", spy)
    model, rows = wide(), torch.randint(40, (6, 3), generator=torch.Generator().manual_seed(0))
    layerwise_pair_gram(model, first_class, rows[:3], rows[3:])
    layerwise_kernel(model, first_class, rows)
    assert set(formed) == {1}  # biases alone, which are vectors


def test_a_chunk_may_be_a_number_of_numpy() -> None:
    rows = tokens(4)
    plain = inspect.unwrap(layerwise_pair_gram)
    got = plain(transformer(), logp, rows, rows.flip(0), chunk_size=np.int64(3))
    torch.testing.assert_close(got.wl, layerwise_pair_gram(transformer(), logp, rows, rows.flip(0)).wl)
    with pytest.raises(ValueError, match=r"chunk_size: got 2\.5, want a whole number >= 1"):
        plain(transformer(), logp, rows, rows, chunk_size=2.5)
