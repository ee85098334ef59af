"""Taylor's terms against polynomials and models, certified steps against a scan of real ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from lib.gradient_entanglement import certified_step, taylor_change
from tests.gradient_entanglement.test_layerwise import tokens, transformer


def test_a_quadratic_is_exact_to_second_order(device: str) -> None:
    A = np.array([[2.0, 1.0], [1.0, -3.0]])
    x, v = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    on = torch.tensor(A, device=device)
    got = taylor_change(lambda y: y @ on @ y, torch.tensor(x, device=device), torch.tensor(v, device=device), 0.3)
    first = 0.3 * 2 * x @ A @ v
    second = first + 0.3**2 * v @ A @ v
    assert got.first.item() == pytest.approx(first)
    assert got.second.item() == pytest.approx(second)
    assert got.exact.item() == pytest.approx(second)


def test_errors_shrink_as_the_square_and_the_cube_in_a_transformer() -> None:
    """With layer normalisation, whose gradient torch differentiates wrongly inside `jacrev`."""
    model = transformer()
    shapes = {name: value.shape for name, value in model.named_parameters()}
    sizes = [value.numel() for value in model.parameters()]
    theta = torch.cat([value.detach().flatten() for value in model.parameters()])

    def logps(flat: Tensor) -> Tensor:
        parts = {n: x.view(shapes[n]) for n, x in zip(shapes, flat.split(sizes), strict=True)}
        logits: Tensor = functional_call(model, parts, (tokens(2)[:, :-1],))
        return logits.log_softmax(-1).gather(-1, tokens(2)[:, 1:, None]).squeeze(-1).sum(-1)

    direction = torch.func.grad(lambda flat: logps(flat)[0])(theta)
    near, far = (taylor_change(logps, theta, direction, lr) for lr in (1e-5, 1e-4))
    for part, order in (("first", 100), ("second", 1000)):
        ratio = (getattr(far, part) - far.exact) / (getattr(near, part) - near.exact)
        torch.testing.assert_close(ratio, torch.full_like(ratio, order), rtol=0.25, atol=0)


def test_functions_of_any_shape_and_float32() -> None:
    x, v = torch.rand(2, 3), torch.rand(2, 3)
    got = taylor_change(lambda y: y.exp(), x, v, 0.1)
    assert got.first.shape == got.second.shape == got.exact.shape == (2, 3)
    assert got.first.dtype == torch.float32
    torch.testing.assert_close(got.second, x.exp() * (0.1 * v + 0.005 * v**2))


def test_certified_step_is_slope_curvature_and_range_of_the_definition(device: str) -> None:
    rng = np.random.default_rng(0)
    o, v, y = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 5)), rng.integers(0, 5, (3, 4))
    got = certified_step(*(torch.tensor(x, device=device) for x in (o, y, v)))
    for i in range(3):
        p = np.exp(o[i]) / np.exp(o[i]).sum(-1, keepdims=True)
        mean = (p * v[i]).sum(-1)
        slope = (v[i][range(4), y[i]] - mean).sum()
        assert got.slope[i].item() == pytest.approx(slope)
        assert got.curvature[i].item() == pytest.approx(-((p * v[i] ** 2).sum(-1) - mean**2).sum())
        want = 8 * slope / (np.ptp(v[i], axis=-1) ** 2).sum() if slope > 0 else 0.0
        assert got.step[i].item() == pytest.approx(want)


def change(o: Tensor, y: Tensor, v: Tensor, lr: Tensor) -> Tensor:
    moved = (o + lr[:, None, None] * v).log_softmax(-1) - o.log_softmax(-1)
    return moved.gather(-1, y.expand(len(lr), -1)[..., None]).sum((-1, -2))


@given(st.integers(0, 100_000), st.floats(0.1, 10))
def test_what_is_certified_holds_and_what_falls_never_returns(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    o, v = (scale * torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    y = torch.randint(4, (3,), generator=generator)
    got = certified_step(o, y, v)
    if got.slope > 0:
        inside = torch.linspace(0.01, 1, 40, dtype=torch.float64) * got.step
        assert (change(o, y, v, inside) >= -1e-12).all()
    else:
        assert got.step == 0
        anywhere = torch.logspace(-4, 4, 60, dtype=torch.float64)
        assert (change(o, y, v, anywhere) <= 1e-12).all()


def test_logits_that_move_together_have_no_curvature_and_no_limit() -> None:
    got = certified_step([[0.3, 0.1]], [0], [[2.0, 2.0]])
    assert got.curvature.item() == pytest.approx(0.0, abs=1e-15)
    assert got.slope.item() == pytest.approx(0.0, abs=1e-15)
    nearly = certified_step([[0.0, 0.0]], [0], [[1e-9, 0.0]])
    assert nearly.step.item() == pytest.approx(8 * 5e-10 / 1e-18)


def test_certified_steps_broadcast_batch_differentiate_and_keep_float32() -> None:
    o, v = torch.randn(2, 1, 3, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)
    y = torch.tensor([0, 1, 3])
    got = certified_step(o, y, v)
    assert got.slope.shape == got.step.shape == got.curvature.shape == (2, 5)
    torch.testing.assert_close(got.step[1, 3], certified_step(o[1, 0], y, v[3]).step)
    low = certified_step(o.float(), y, v.float())
    assert low.slope.dtype == torch.float32
    torch.testing.assert_close(low.slope.double(), got.slope, rtol=1e-4, atol=1e-4)
    leaf = o.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: (certified_step(x, y, v).slope, certified_step(x, y, v).curvature), (leaf,)
    )


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    o, y = torch.empty(2, 3, 4, device=fake_gpu), torch.empty(2, 3, dtype=torch.int64, device=fake_gpu)
    got = certified_step(o, y, o)
    moved = taylor_change(lambda x: x.log_softmax(-1).sum(), o, o, 0.1)
    for x in (got.step, got.slope, got.curvature, moved.exact, moved.first, moved.second):
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: taylor_change(torch.sum, [1.0, 2.0], [1.0], 0.1), "direction: got shape"),
        (lambda: taylor_change(torch.sum, [1.0, math.nan], [1.0, 1.0], 0.1), "params: got nan"),
        (lambda: taylor_change(torch.sum, [1.0], [1.0], -0.1), "lr: got -0.1"),
        (lambda: taylor_change(torch.sum, [1.0], [1.0], [0.1, 0.2]), "lr: got shape"),
        (lambda: certified_step([0.0], [0], [0.0]), "logits: got shape"),
        (lambda: certified_step([[0.0, 1.0]], [0], [[0.0]]), "velocity: got shape"),
        (lambda: certified_step([[0.0, 1.0]], [0, 1], [[0.0, 1.0]]), "tokens: got shape"),
        (lambda: certified_step([[0.0, 1.0]], [2], [[0.0, 1.0]]), "tokens: got 2"),
        (
            lambda: certified_step([[[0.0, 1.0]]] * 2, [0], [[[0.0, 1.0]]] * 3),
            r"logits \(2,\), tokens .*do not broadcast",
        ),
        (lambda: certified_step([[0.0, 1.0]], [0], [[0.0, math.inf]]), "velocity: got inf"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
