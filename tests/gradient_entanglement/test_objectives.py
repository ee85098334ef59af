"""Losses and weights of the objectives against their definitions, finite differences and autograd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.gradient_entanglement import OBJECTIVES, margin_objective
from tests.gradient_entanglement.oracle import loss, margin

each_objective = pytest.mark.parametrize("name", OBJECTIVES)
OPTIONS = {"beta": 0.3, "gamma": 0.4, "lam": 0.7, "alpha": 0.05, "delta": 0.8, "z_ref": 0.2, "lam_w": 1.3, "lam_l": 0.6}


def pairs(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "u": -rng.uniform(0.5, 12, count),
        "v": -rng.uniform(0.5, 12, count),
        "ref_w": -rng.uniform(0.5, 12, count),
        "ref_l": -rng.uniform(0.5, 12, count),
        "len_w": rng.integers(1, 9, count).astype(float),
        "len_l": rng.integers(1, 9, count).astype(float),
    }


def measured(name: str, device: str = "cpu", dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    x = pairs(60) | changes
    rest = {key: torch.tensor(value, device=device, dtype=dtype) for key, value in x.items()}
    return margin_objective(name, rest.pop("u"), rest.pop("v"), **rest, **OPTIONS)


def test_the_objectives_are_the_eleven_of_the_chapter() -> None:
    assert OBJECTIVES == (
        "dpo",
        "rdpo",
        "simpo",
        "ipo",
        "rrhf",
        "slic",
        "cpo",
        "orpo",
        "dpop",
        "kto",
        "sppo",
    )


@each_objective
def test_loss_and_margin_are_those_of_the_definition(name: str, device: str) -> None:
    x, got = pairs(60), measured(name, device)
    rows = [dict(zip(x, row, strict=True)) for row in zip(*x.values(), strict=True)]
    np.testing.assert_allclose(got.loss.cpu(), [loss(name, **row, **OPTIONS) for row in rows], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(got.margin.cpu(), [margin(name, **row, **OPTIONS) for row in rows], rtol=1e-11)


@each_objective
def test_weights_are_the_slopes_of_the_definition_by_central_differences(name: str) -> None:
    x, got, h = pairs(60), measured(name), 1e-6
    rows = [dict(zip(x, row, strict=True)) for row in zip(*x.values(), strict=True)]

    def slope(row: dict[str, float], key: str) -> float:
        up, down = (loss(name, **(row | {key: row[key] + s * h}), **OPTIONS) for s in (1, -1))
        return (up - down) / (2 * h)

    np.testing.assert_allclose(got.d_w, [-slope(row, "u") for row in rows], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got.d_l, [slope(row, "v") for row in rows], rtol=1e-6, atol=1e-8)


@each_objective
def test_weights_are_the_derivatives_of_the_loss(name: str) -> None:
    x = {key: torch.tensor(value) for key, value in pairs(60).items()}
    u, v = x.pop("u").requires_grad_(), x.pop("v").requires_grad_()
    found = margin_objective(name, u, v, **x, **OPTIONS)
    d_w, d_l = torch.autograd.grad(found.loss.sum(), (u, v))
    torch.testing.assert_close(found.d_w, -d_w, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.d_l, d_l, rtol=1e-12, atol=1e-12)


def test_at_a_kink_weights_and_derivatives_are_those_of_the_flat_side() -> None:
    """Training starts there: every response begins at its reference."""
    for name, known in (("dpop", {"ref_w": -3.0, "ref_l": -3.0}), ("rrhf", {"len_w": 1, "len_l": 1}), ("slic", {})):
        u = torch.tensor(-3.0 + (name == "slic"), dtype=torch.float64, requires_grad=True)
        found = margin_objective(name, u, -3.0, lam=0.0 if name != "dpop" else 2.0, beta=0.5, **known)
        (slope,) = torch.autograd.grad(found.loss, u)
        assert found.d_w.item() == pytest.approx(-slope.item(), abs=1e-15)
        assert found.d_w.item() == pytest.approx(0.25 if name == "dpop" else 0.0)


def test_the_weights_are_differentiable() -> None:
    u, v = (torch.tensor([-3.0, -4.0], dtype=torch.float64, requires_grad=True) for _ in range(2))

    def weights(u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = margin_objective("orpo", u, v, len_w=2, len_l=3)
        return found.d_w, found.d_l

    assert torch.autograd.gradcheck(weights, (u, v))


@each_objective
def test_a_batch_is_what_its_rows_are_and_arguments_broadcast(name: str) -> None:
    x = pairs(3)
    grid = margin_objective(
        name,
        x["u"][:, None],
        x["v"],
        **{key: x[key] for key in ("ref_w", "ref_l", "len_w", "len_l")},
        beta=np.array([0.1, 0.5])[:, None, None],
    )
    shape = (3, 3) if name in ("rrhf", "slic", "orpo") else (2, 3, 3)  # what is not used is ignored
    assert grid.loss.shape == grid.margin.shape == grid.d_w.shape == grid.d_l.shape == shape
    single = margin_objective(
        name,
        x["u"][2],
        x["v"][1],
        **{key: x[key][1] for key in ("ref_w", "ref_l", "len_w", "len_l")},
        beta=0.5,
    )
    for part in ("loss", "margin", "d_w", "d_l"):
        torch.testing.assert_close(getattr(grid, part)[..., 2, 1].flatten()[-1], getattr(single, part))


@each_objective
def test_float32_agrees_with_float64(name: str) -> None:
    low, high = measured(name, dtype=torch.float32), measured(name)
    for part in ("loss", "d_w", "d_l"):
        assert getattr(low, part).dtype == torch.float32
        torch.testing.assert_close(getattr(low, part).double(), getattr(high, part), rtol=2e-5, atol=2e-5)


def test_an_enormous_margin_overflows_nowhere() -> None:
    for name in ("dpo", "cpo", "simpo"):
        far = margin_objective(name, [-1e4, -1.0], [-1.0, -1e4], ref_w=0.0, ref_l=0.0, len_w=1, len_l=1, beta=10.0)
        assert far.loss.isfinite().all()
        assert far.d_w.isfinite().all()


def test_orpo_keeps_its_digits_near_probability_one() -> None:
    found = margin_objective("orpo", -1e-12, -1.0, len_w=1, len_l=1)
    assert found.d_w.item() == pytest.approx(1 + (1 / math.e / (1 - 1 / math.e)) / (1 + 0), rel=1e-3)


@given(st.floats(-30, -0.1), st.floats(-30, -0.1), st.floats(-20, 20))
def test_dpo_and_its_relatives_see_only_the_difference(u: float, v: float, shift: float) -> None:
    for name in ("dpo", "ipo", "rdpo"):
        rest = {"ref_w": -5.0, "ref_l": -6.0, "len_w": 3, "len_l": 5}
        here, there = margin_objective(name, u, v, **rest), margin_objective(name, u + shift, v + shift, **rest)
        torch.testing.assert_close(here.loss, there.loss, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(here.d_w, here.d_l, rtol=0, atol=0)


@each_objective
def test_it_runs_on_an_accelerator_without_a_host_sync(name: str, fake_gpu: str) -> None:
    u = torch.empty(4, 1, device=fake_gpu)
    rest = {key: torch.empty(7, device=fake_gpu) for key in ("ref_w", "ref_l", "len_w", "len_l")}
    got = margin_objective(name, u, torch.empty(7, device=fake_gpu), **rest)
    for x in (got.loss, got.margin, got.d_w, got.d_l):
        assert str(x.device) == fake_gpu
        assert x.dtype == torch.float32
        assert x.shape == (4, 7)


def test_it_runs_under_vmap() -> None:
    u = torch.linspace(-5, -1, 4, dtype=torch.float64)
    mapped = torch.func.vmap(lambda x: margin_objective("cpo", x, -2.0).loss)(u)
    torch.testing.assert_close(mapped, margin_objective("cpo", u, -2.0).loss)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ppo", {}, "name: got 'ppo', want one of dpo, rdpo, simpo"),
        ("dpo", {"ref_w": None}, "ref_w: got none"),
        ("sppo", {"ref_l": None}, "ref_l: got none"),
        ("simpo", {"len_w": None}, "len_w: got none"),
        ("orpo", {"len_l": None}, "len_l: got none"),
        ("dpo", {"beta": 0.0}, "beta: got 0"),
        ("dpo", {"beta": math.nan}, "beta: got nan"),
        ("cpo", {"lam": -1.0}, "lam: got -1"),
        ("kto", {"lam_l": -2.0}, "lam_l: got -2"),
        ("rrhf", {"len_w": [0.5, 3.0]}, "len_w: got 0.5"),
        ("dpo", {"logp_w": [math.nan, 1.0]}, "logp_w: got nan"),
        ("dpo", {"ref_l": math.inf}, "ref_l: got inf"),
        ("orpo", {"logp_l": 0.0}, "logp_l: got 0, want a log-probability < 0"),
        ("dpo", {"logp_l": [-1.0, -2.0, -3.0]}, "do not broadcast"),
        ("dpo", {"logp_w": "high"}, "logp_w: got str"),
        ("simpo", {"gamma": math.nan}, "gamma: got nan"),
        ("simpo", {"gamma": [0.5] * 3}, r"gamma \(3,\).*do not broadcast"),
        ("cpo", {"lam": [0.5] * 3}, r"lam \(3,\).*do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(name: str, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "logp_w": [-1.0, -2.0],
        "logp_l": [-2.0, -1.0],
        "ref_w": -1.0,
        "ref_l": -1.0,
        "len_w": 2,
        "len_l": 2,
    }
    given |= changes
    with pytest.raises(ValueError, match=message):
        margin_objective(name, given.pop("logp_w"), given.pop("logp_l"), **given)


def test_what_an_objective_does_not_need_it_does_not_ask_for() -> None:
    assert margin_objective("cpo", -1, -2).loss.dtype == torch.float64
    assert margin_objective("slic", -1.0, -2.0, ref_w=None, len_w=None).loss.shape == ()
