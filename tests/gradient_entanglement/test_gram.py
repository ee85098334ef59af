"""Inner products of gradients against loops of backward passes."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib.gradient_entanglement import PairGram, gram_from_gradients, pair_gram


def logp(theta: dict[str, Any], example: Tensor) -> Tensor:
    """A small nonlinear model: log-probability of class 0."""
    scores: Tensor = theta["out"] @ torch.tanh(theta["deep"][0] @ example)
    return scores.log_softmax(-1)[0]


def model(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(5, 4, generator=generator).double(), torch.randn(3, 5, generator=generator).double()]
    return {"deep": (draw[0],), "out": draw[1]}


def looped(theta: dict[str, Any], rows: Tensor) -> Tensor:
    leaves = [theta["deep"][0].clone().requires_grad_(), theta["out"].clone().requires_grad_()]
    found = []
    for row in rows:
        grads = torch.autograd.grad(logp({"deep": (leaves[0],), "out": leaves[1]}, row), leaves)
        found.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(found)


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5, 100])
def test_pair_gram_is_that_of_a_loop_of_backward_passes(chunk_size: int | None, device: str) -> None:
    generator = torch.Generator().manual_seed(1)
    w, lose = (torch.randn(7, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    theta = model()
    g_w, g_l = looped(theta, w), looped(theta, lose)
    on = {"deep": (theta["deep"][0].to(device),), "out": theta["out"].to(device)}
    got = pair_gram(logp, on, w.to(device), lose.to(device), chunk_size=chunk_size)
    for part, want in (("ww", g_w * g_w), ("wl", g_w * g_l), ("ll", g_l * g_l)):
        torch.testing.assert_close(getattr(got, part).cpu(), want.sum(-1), rtol=1e-12, atol=1e-12)


def test_a_chunk_bounds_the_gradients_held() -> None:
    sizes = []

    def spy(theta: Tensor, example: Tensor) -> Tensor:
        sizes.append(example.shape)
        return (theta * example).sum()

    pair_gram(spy, torch.ones(3), torch.ones(10, 3), torch.ones(10, 3), chunk_size=4)
    assert len(sizes) == 2 * 5  # five chunks of two pairs, two functions traced in each


def test_whole_numbers_stay_whole_and_float32_stays() -> None:
    table = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    got = pair_gram(lambda theta, token: theta[token].sum(), table, [[0, 1], [2, 2]], [[1, 1], [3, 4]])
    assert got.wl.dtype == torch.float32
    torch.testing.assert_close(got.wl, torch.tensor([6.0, 0.0]))  # two tokens of one row, three columns each
    high = pair_gram(logp, model(), np.ones((2, 4)), np.zeros((2, 4)))
    theta = model()
    halved = {"deep": (theta["deep"][0].float(),), "out": theta["out"].float()}
    low = pair_gram(logp, halved, torch.ones(2, 4), torch.zeros(2, 4))
    torch.testing.assert_close(low.ww.double(), high.ww, rtol=1e-4, atol=1e-5)


def test_gram_from_gradients_is_the_products_and_the_cosine() -> None:
    rng = np.random.default_rng(0)
    w, lose = rng.normal(size=(4, 1, 9)), rng.normal(size=(3, 9))
    got = gram_from_gradients(w, lose)
    np.testing.assert_allclose(got.wl, np.einsum("aip,jp->aj", w, lose), rtol=1e-12)
    np.testing.assert_allclose(got.ww, np.broadcast_to((w**2).sum(-1), (4, 3)), rtol=1e-12)
    norms = np.linalg.norm(w, axis=-1) * np.linalg.norm(lose, axis=-1)
    np.testing.assert_allclose(got.cosine, np.einsum("aip,jp->aj", w, lose) / norms, rtol=1e-12)


vectors = st.lists(st.floats(-10, 10), min_size=3, max_size=3).filter(lambda x: sum(y * y for y in x) > 1e-6)


@given(vectors, vectors, st.floats(0.1, 10), st.floats(0.1, 10))
def test_the_cosine_is_bounded_and_blind_to_scale(w: list[float], lose: list[float], a: float, b: float) -> None:
    got = gram_from_gradients(w, lose)
    assert abs(got.cosine) <= 1 + 1e-12
    scaled = gram_from_gradients(a * np.array(w), b * np.array(lose))
    torch.testing.assert_close(scaled.cosine, got.cosine, rtol=1e-9, atol=1e-9)


def test_gradients_pass_through() -> None:
    w, lose = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: gram_from_gradients(x, y).cosine, (w, lose))


def test_a_pair_gram_takes_numbers_and_lists() -> None:
    gram = PairGram([1, 4], 0.5, 9.0)
    assert gram.ww.dtype == gram.ll.dtype == torch.float64
    assert gram.wl.shape == (2,)
    assert gram.cosine.tolist() == pytest.approx([0.5 / 3, 0.5 / 6])


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    got = gram_from_gradients(torch.empty(4, 9, device=fake_gpu), torch.empty(9, device=fake_gpu))
    assert str(got.cosine.device) == fake_gpu
    theta = torch.empty(3, 5, device=fake_gpu)
    found = pair_gram(
        lambda t, y: (t @ y).log_softmax(-1)[0],
        theta,
        torch.empty(4, 5, device=fake_gpu),
        torch.empty(4, 5, device=fake_gpu),
        chunk_size=4,
    )
    assert found.wl.shape == (4,)
    assert str(found.wl.device) == fake_gpu
    assert found.wl.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gram_from_gradients([1.0, 2.0], [1.0]), "grad_l: got shape"),
        (lambda: gram_from_gradients([1.0, math.nan], [1.0, 1.0]), "grad_w: got nan"),
        (lambda: gram_from_gradients(1.0, [1.0]), "grad_w: got shape"),
        (
            lambda: gram_from_gradients([[1.0]] * 2, [[1.0]] * 4),
            r"grad_w \(2,\), grad_l \(4,\): got shapes that do not",
        ),
        (lambda: PairGram(-1.0, 0.0, 1.0), "ww: got -1"),
        (lambda: PairGram(1.0, math.inf, 1.0), "wl: got inf"),
        (lambda: PairGram([1.0, 2.0], [1.0, 2.0, 3.0], 1.0), "do not broadcast"),
        (lambda: pair_gram(lambda t, _: t.sum(), torch.ones(2), [[1.0]], [[1.0], [2.0]]), "rejected: got shape"),
        (lambda: pair_gram(lambda t, _: t, torch.ones(2), [[1.0]], [[1.0]]), "logp: got shape \\(2,\\), want a scalar"),
        (lambda: pair_gram(lambda t, _: t.sum(), {}, [[1.0]], [[1.0]]), "params: got no tensor"),
        (lambda: pair_gram(lambda t, _: t.sum(), torch.ones(2).long(), [[1.0]], [[1.0]]), "params: got torch.int64"),
        (lambda: pair_gram(lambda t, _: t.sum(), "model", [[1.0]], [[1.0]]), "params: got a str"),
        (lambda: pair_gram(lambda t, _: t.sum(), torch.ones(2), [[1.0]], [[1.0]], chunk_size=0), "chunk_size: got 0"),
        (
            lambda: pair_gram(lambda t, _: t.sum(), torch.ones(2), [[1.0]], [[1.0]], chunk_size=True),
            "chunk_size: got T",
        ),
        (lambda: pair_gram(lambda t, _: t.sum(), torch.ones(2), [], []), "chosen: got shape"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_chunk_may_be_a_number_of_numpy() -> None:
    w, lose = torch.ones(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    got = inspect.unwrap(pair_gram)(logp, model(), w, lose, chunk_size=np.int64(2))
    torch.testing.assert_close(got.ww, pair_gram(logp, model(), w, lose).ww)
