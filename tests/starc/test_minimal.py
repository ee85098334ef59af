"""The smallest rewards of a class against least squares over an explicit basis of what may be added."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from lib.starc import canonicalise, potential_shaping, redistribute

from . import oracle

SIZES = [(1, 1), (1, 3), (4, 1), (2, 2), (4, 3)]


def weightings(case: oracle.Case) -> dict[str, np.ndarray | None]:
    rng = np.random.default_rng(0)
    positive = rng.uniform(0.1, 10, case.P.shape)
    return {"equal": None, "random": positive, "P": case.P, "zero where impossible": positive * (case.P > 0)}


@pytest.mark.parametrize(("states", "actions"), SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.8, 0.999])
def test_minimal_is_the_least_squares_rest_of_shaping_and_redistribution(
    states: int, actions: int, gamma: float, device: str
) -> None:
    case = oracle.case(0, states, actions, gamma)
    R = torch.tensor(case.R1, device=device)
    basis = np.c_[oracle.shaping_basis(case.P.shape, gamma), oracle.redistribution_basis(case.P)]
    for kind, weights in weightings(case).items():
        w = np.ones(case.P.shape) if weights is None else weights
        want = np.where(w > 0, oracle.least_squares_rest(case.R1, basis, w), 0.0)
        got = canonicalise(R, case.P, gamma, "minimal", weights=weights).cpu()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11, err_msg=kind)
        assert (got.numpy()[case.P == 0] == 0).all()
        assert got.isfinite().all()


@pytest.mark.parametrize(("states", "actions"), SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.8, 0.999])
def test_minimal_potential_is_the_least_squares_rest_of_shaping(
    states: int, actions: int, gamma: float, device: str
) -> None:
    case = oracle.case(1, states, actions, gamma)
    R, basis = torch.tensor(case.R1, device=device), oracle.shaping_basis(case.P.shape, gamma)
    for kind, weights in weightings(case).items():
        w = np.ones(case.P.shape) if weights is None else weights
        got = canonicalise(R, case.P, gamma, "minimal_potential", weights=weights).cpu()
        want = oracle.least_squares_rest(case.R1, basis, w)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11, err_msg=kind)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0, 0.99))
def test_no_reward_of_the_class_is_smaller(seed: int, gamma: float) -> None:
    case = oracle.case(seed, 4, 2, gamma)
    rng = np.random.default_rng(seed)
    for w in (None, rng.uniform(0.1, 10, case.P.shape)):
        weights = np.ones(case.P.shape) if w is None else w
        least = oracle.norm(canonicalise(case.R1, case.P, gamma, "minimal", weights=w).numpy(), weights, 2)
        shaped_only = canonicalise(case.R1, case.P, gamma, "minimal_potential", weights=w).numpy()
        assert least <= oracle.norm(shaped_only, weights, 2) * (1 + 1e-12)
        assert oracle.norm(shaped_only, weights, 2) <= oracle.norm(case.R1, weights, 2) * (1 + 1e-12)
        for size in (1e-4, 1e-2, 1.0):
            other = redistribute(
                potential_shaping(
                    canonicalise(case.R1, case.P, gamma, "minimal", weights=w), size * case.initial, gamma
                ),
                case.P,
                size * case.R2,
            )
            assert least < oracle.norm(other.numpy(), weights, 2)
        assert least <= oracle.norm(canonicalise(case.R1, case.P, gamma).numpy(), weights, 2)


@given(st.integers(0, 10**6), st.floats(0, 0.99))
def test_weighted_by_the_dynamics_it_is_the_projection_on_the_directions_of_occupancies(
    seed: int, gamma: float
) -> None:
    case = oracle.case(seed, 4, 2, gamma)
    directions = linalg.null_space(oracle.flow_matrix(case.P, gamma).T)
    want = (directions @ directions.T @ oracle.mean_reward(case.R1, case.P).ravel()).reshape(4, 2, 1)
    got = canonicalise(case.R1, case.P, gamma, "minimal", weights=case.P).numpy()
    np.testing.assert_allclose(got, np.where(case.P > 0, want, 0.0), rtol=0, atol=1e-12)


def test_a_bandit_loses_the_mean_of_its_actions() -> None:
    R = np.arange(18.0).reshape(3, 2, 3) ** 2
    got = canonicalise(R, np.full((3, 2, 3), 1 / 3), 0.0, "minimal").numpy()
    mean = R.mean(-1, keepdims=True)
    np.testing.assert_allclose(got, np.broadcast_to(mean - mean.mean(1, keepdims=True), R.shape), rtol=1e-12)


@pytest.mark.parametrize("method", ["minimal", "minimal_potential"])
def test_a_large_potential_costs_only_the_digits_it_takes_from_the_reward(method: str) -> None:
    case = oracle.case(2, 5, 3, 0.99)
    phi = 1e6 * np.random.default_rng(0).normal(size=5)
    plain, shaped = (canonicalise(R, case.P, 0.99, method) for R in (case.R1, potential_shaping(case.R1, phi, 0.99)))
    torch.testing.assert_close(shaped, plain, rtol=0, atol=1e-8)  # 1e6 has spacings of 1e-10, a hundred steps of them


@pytest.mark.parametrize("gamma", [0.9, 0.999])
def test_nothing_that_shaping_could_still_take_is_left_of_a_large_potential(gamma: float) -> None:
    case = oracle.case(2, 5, 3, gamma)
    shaped = potential_shaping(case.R1, 1e6 * np.random.default_rng(0).normal(size=5), gamma)
    w = np.exp(case.R2)
    smallest = canonicalise(shaped, case.P, gamma, "minimal", weights=case.P).numpy()
    mean = oracle.mean_reward(smallest, case.P).ravel()
    slope = oracle.flow_matrix(case.P, gamma).T @ mean
    assert np.abs(slope).max() < 1e-13 * np.abs(mean).max()  # rounding of what is left, not of what was taken
    left = canonicalise(shaped, case.P, gamma, "minimal_potential", weights=w).numpy()
    slope = oracle.shaping_basis(case.P.shape, gamma).T @ (w * left).ravel()
    assert np.abs(slope).max() < 1e-12 * np.abs(w * left).max()


@pytest.mark.parametrize("kind", ["random", "P"])
@pytest.mark.parametrize("method", ["minimal", "minimal_potential"])
def test_gradients_reach_weights_too(method: str, kind: str) -> None:
    case = oracle.case(3, 3, 2, zeros=False)
    R, P, w = (torch.tensor(x, requires_grad=True) for x in (case.R1, np.log(case.P), np.exp(case.R2)))

    def form(R: torch.Tensor, P: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        dynamics = P.softmax(-1)
        return canonicalise(R, dynamics, 0.9, method, weights=w if kind == "random" else dynamics)

    assert torch.autograd.gradcheck(form, (R, P, w))


def test_gradients_are_finite_where_transitions_are_impossible() -> None:
    case = oracle.case(4)
    R, P = (torch.tensor(x, requires_grad=True) for x in (case.R1, case.P))
    canonicalise(R, P, 0.9, "minimal", weights=P).square().sum().backward()
    assert R.grad is not None
    assert P.grad is not None
    assert R.grad.isfinite().all()
    assert P.grad.isfinite().all()


HALF, PAIR = [[[0.5, 0.5], [1.0, 0.0]]] * 2, [[[0.0, 1.0], [0.0, 0.0]]] * 2


@pytest.mark.parametrize("method", ["minimal", "minimal_potential"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[[0.0, 1.0], [1.0, 1.0]]] * 2, "weights: got 0, want positive numbers where P > 0"),
        ([[[1.0, 1.0], [0.0, 1.0]]] * 2, "weights: got 0, want positive numbers where P > 0"),
        ([[[1.0, 1.0], [1.0, -2.0]]] * 2, "weights: got -2, want numbers >= 0"),
        ([[[1.0, math.nan], [1.0, 1.0]]] * 2, "weights: got nan, want finite numbers"),
        ([[[1.0, math.inf], [1.0, 1.0]]] * 2, "weights: got inf, want finite numbers"),
        ([[1.0, 1.0]] * 2, r"weights: got shape \(2, 2\), want \(\*batch, 2, 2, 2\) as P has it"),
        (1.0, r"weights: got shape \(\), want \(\*batch, 2, 2, 2\) as P has it"),
    ],
)
def test_bad_weights_are_named(weights: list[float], method: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canonicalise(PAIR, HALF, 0.5, method, weights=weights)


def test_a_weight_may_be_zero_where_nothing_can_happen() -> None:
    weights = [[[1.0, 1.0], [1.0, 0.0]]] * 2
    got = canonicalise(PAIR, HALF, 0.5, "minimal", weights=weights)
    assert torch.equal(got, canonicalise(PAIR, HALF, 0.5, "minimal"))
    with pytest.raises(ValueError, match=r"P \(3,\), gamma \(\), weights \(2,\): got shapes that do not broadcast"):
        canonicalise(PAIR, [HALF] * 3, 0.5, "minimal", weights=[weights] * 2)
