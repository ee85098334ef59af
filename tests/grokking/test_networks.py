"""Small networks against sums over their units and tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lib.grokking import network_output
from lib.grokking.networks import AdditionTransformer, Dense


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_one_hidden_layer_is_a_mean_over_units() -> None:
    network = Dense((3, 7, 2), torch.tanh, generator=source())
    x = torch.randn(5, 3, generator=source(1), dtype=torch.float64)
    first, last = (w.detach().numpy() for w in network.weights)
    want = [[sum(last[k, i] * math.tanh(first[i] @ row) for i in range(7)) / 7 for k in range(2)] for row in x.numpy()]
    np.testing.assert_allclose(network(x).detach().numpy(), want, rtol=1e-12)


def test_with_readouts_of_one_it_is_the_network_of_theory() -> None:
    network = Dense((4, 9, 1), lambda h: h + 0.15 * h**2, generator=source())
    x = torch.randn(6, 4, generator=source(1), dtype=torch.float64)
    with torch.no_grad():
        network.weights[1].fill_(1.0)
        got = 2.5 * network(x).squeeze(-1)
    torch.testing.assert_close(got, network_output(network.weights[0].detach(), x, alpha=2.5, eps=0.3))


def test_deeper_layers_keep_the_size_of_hidden_units() -> None:
    x = torch.nn.functional.normalize(torch.randn(40, 10, generator=source(1), dtype=torch.float64), dim=-1)
    network = Dense((10, 400, 400, 400, 400, 1), lambda h: h, generator=source())
    first, *middle, last = (w.detach() for w in network.weights)
    hidden = x @ first.T
    for weight in middle:
        hidden = hidden @ weight.T / 20
        assert hidden.square().mean().item() == pytest.approx(1, rel=0.3)
    torch.testing.assert_close(network(x).detach(), hidden @ last.T / 400)


def test_transformer_reads_its_tokens_with_attention() -> None:
    p, dim, heads = 4, 6, 2
    network = AdditionTransformer(p, dim, heads, 5, torch.relu, generator=source())
    w = {name: value.detach().numpy() for name, value in network.named_parameters()}
    for a, b in ((0, 3), (2, 2), (3, 1)):
        x = torch.zeros(1, 2 * p, dtype=torch.float64)
        x[0, a] = x[0, p + b] = 1 / math.sqrt(2)
        stream = np.stack([w["embedding"][a] + w["places"][0], w["embedding"][b] + w["places"][1], w["equals"][0]])
        query, key, value = w["equals"][0] @ w["query"], stream @ w["key"], stream @ w["value"]
        read = []
        for head in (slice(0, 3), slice(3, 6)):
            score = np.exp(key[:, head] @ query[head] / dim / math.sqrt(dim / heads))
            read.append(score / score.sum() @ value[:, head] / math.sqrt(dim))
        seen = w["equals"][0] + np.concatenate(read) @ w["mix"] / math.sqrt(dim)
        want = np.maximum(seen @ w["up"] / math.sqrt(dim), 0) @ w["readout"] / 5
        np.testing.assert_allclose(network(x).detach().numpy()[0], want, rtol=1e-10)


def test_without_places_the_transformer_commutes() -> None:
    network = AdditionTransformer(5, 8, 2, 12, torch.square, generator=source())
    a, b = torch.eye(5, dtype=torch.float64)[[0, 1, 4]], torch.eye(5, dtype=torch.float64)[[3, 1, 2]]
    pair, mirror = (torch.cat(x, -1) / math.sqrt(2) for x in ((a, b), (b, a)))
    assert not torch.allclose(network(pair), network(mirror))
    with torch.no_grad():
        network.places[1] = network.places[0]
    torch.testing.assert_close(network(pair), network(mirror))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_standard_normal_in_the_dtype_asked_for(dtype: torch.dtype) -> None:
    for network in (
        Dense((200, 300, 50), torch.relu, generator=source(), dtype=dtype),
        AdditionTransformer(60, 80, 4, 200, torch.relu, generator=source(), dtype=dtype),
    ):
        for weight in network.parameters():
            assert weight.dtype == dtype
            assert weight.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * weight.numel()))
            assert abs(weight.mean().item()) < 4 / math.sqrt(weight.numel())


def test_networks_live_where_their_generator_lives(device: str) -> None:
    generator = torch.Generator(device).manual_seed(0)
    network = Dense((3, 4, 1), torch.relu, generator=generator)
    assert {weight.device.type for weight in network.parameters()} == {device}
    assert network(torch.zeros(2, 3, dtype=torch.float64, device=device)).shape == (2, 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Dense((3, 4), torch.relu, generator=source()), r"widths: got \(3, 4\), want three or more sizes"),
        (lambda: Dense((3, 0, 1), torch.relu, generator=source()), "widths: got 0, want a whole number >= 1"),
        (lambda: AdditionTransformer(5, 9, 2, 4, torch.relu, generator=source()), "dim: got 9, want a multiple of"),
        (lambda: AdditionTransformer(5, 8, 0, 4, torch.relu, generator=source()), "heads: got 0, want a whole number"),
    ],
)
def test_bad_sizes_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
