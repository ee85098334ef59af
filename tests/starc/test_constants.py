"""Certified constants: the inradius by another program and by balls, and the cone they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from lib.starc import certified_constants, starc_distance, worst_case_regret

from . import oracle


@pytest.mark.parametrize(("states", "actions", "gamma"), [(1, 2, 0.5), (2, 2, 0.0), (4, 3, 0.9), (6, 2, 0.99)])
def test_inradius_and_diameter_are_those_of_the_set_of_occupancies(states: int, actions: int, gamma: float) -> None:
    for seed in range(3):
        case = oracle.case(seed, states, actions, gamma)
        for initial, given_initial in ((case.initial, case.initial), (np.full(states, 1 / states), None)):
            got = certified_constants(torch.tensor(case.P), gamma, given_initial)
            r = oracle.inradius(case.P, gamma, initial)
            assert got.inradius == pytest.approx(r, rel=1e-7)
            assert got.diameter == pytest.approx(math.sqrt(2) / (1 - gamma), rel=1e-14)
            assert got.lower == pytest.approx(r * (1 - gamma) / math.sqrt(2), rel=1e-7)
            assert got.upper == pytest.approx(1 / (math.sqrt(2) * (1 - gamma) * r), rel=1e-7)


def test_a_ball_of_the_inradius_fits_and_none_is_wider_than_the_diameter() -> None:
    case = oracle.case(0, 3, 2, 0.8)
    got = certified_constants(case.P, 0.8, case.initial)
    directions = linalg.null_space(oracle.flow_matrix(case.P, 0.8).T)
    corners = np.array(
        [oracle.visits(case.P, 0.8, policy, case.initial).ravel() for policy in oracle.deterministic_policies(3, 2)]
    )
    rng = np.random.default_rng(0)
    for direction in (directions @ rng.normal(size=(directions.shape[1], 200))).T:
        across = np.ptp(corners @ (direction / np.linalg.norm(direction)))
        assert 2 * got.inradius <= across + 1e-9 <= got.diameter + 2e-9
    apart = np.linalg.norm(corners[:, None] - corners, axis=-1).max()
    assert apart <= got.diameter


def test_one_state_is_solved_by_hand() -> None:
    # twice the probabilities of 3 actions: a triangle of side s = 2 sqrt(2), whose inscribed circle is s / sqrt(12)
    got = certified_constants(np.ones((1, 3, 1)), 0.5)
    assert got.inradius == pytest.approx(2 * math.sqrt(2) / math.sqrt(12), rel=1e-9)
    assert got.diameter == pytest.approx(2 * math.sqrt(2), rel=1e-14)
    assert got.lower == pytest.approx(1 / math.sqrt(12), rel=1e-9)
    assert got.upper == pytest.approx(math.sqrt(12) / 2, rel=1e-9)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.floats(0, 0.95))
def test_regret_lies_between_the_two_multiples_of_the_distance(seed: int, gamma: float) -> None:
    case = oracle.case(seed, 4, 3, gamma)
    bounds = certified_constants(case.P, gamma, case.initial)
    assert 0 < bounds.lower < bounds.upper
    for other in (case.R2, case.R1 + 0.1 * case.R2, -case.R1, case.R2[::-1]):
        apart = starc_distance(case.R1, other, case.P, gamma, "minimal", weights=case.P).item()
        regret = worst_case_regret(case.R1, other, case.P, gamma, case.initial).normalised.item()
        assert bounds.lower * apart - 1e-9 <= regret <= bounds.upper * apart + 1e-9


def test_a_state_that_cannot_be_reached_makes_them_vacuous() -> None:
    stay = [[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]
    got = certified_constants(stay, 0.9, [1.0, 0.0])
    assert (got.lower, got.inradius, got.upper) == (0.0, 0.0, math.inf)
    assert math.copysign(1, got.lower) == math.copysign(1, got.inradius) == 1
    assert certified_constants(stay, 0.9, [0.5, 0.5]).inradius > 0
    for seed in range(5):
        case = oracle.case(seed, 6, 2)
        case.P[:5, :, 5] = 0
        case.P[:5, :, 0] += 0.1  # a row of which nothing was left
        found = certified_constants(case.P / case.P.sum(-1, keepdims=True), 0.9, np.eye(6)[0])
        assert (found.lower, found.upper) == (0.0, math.inf)


def test_numbers_come_back_whatever_went_in() -> None:
    case = oracle.case(1)
    want = certified_constants(case.P, 0.9)
    single = certified_constants(torch.tensor(case.P, dtype=torch.float32), torch.tensor(0.9))
    trained = certified_constants(torch.tensor(case.P, requires_grad=True), torch.tensor(0.9, dtype=torch.float64))
    for got in (single, trained, certified_constants(case.P.tolist(), 0.9, [0.25] * 4)):
        assert {type(x) for x in vars(got).values()} == {float}
        assert list(vars(got).values()) == pytest.approx(list(vars(want).values()), rel=1e-5)


HALF = [[[0.5, 0.5], [1.0, 0.0]]] * 2


@pytest.mark.parametrize(
    ("P", "gamma", "initial", "message"),
    [
        ([HALF], 0.5, None, r"P: got shape \(1, 2, 2, 2\), want \(S, A, S\) with A >= 2"),
        ([[[1.0]]], 0.5, None, r"P: got shape \(1, 1, 1\), want \(S, A, S\) with A >= 2"),
        ([[0.5, 0.5]], 0.5, None, r"P: got shape \(1, 2\)"),
        ([[[0.5, 0.6], [1.0, 0.0]]] * 2, 0.5, None, "P: got 1.1, want rows that sum to one"),
        (HALF, 1, None, "gamma: got 1, want 0 <= gamma < 1"),
        (HALF, [0.5], None, r"gamma: got shape \(1,\), want one number"),
        (HALF, 0.5, [1.0], r"initial: got shape \(1,\), want \(\*batch, 2\)"),
        (HALF, 0.5, [[0.5, 0.5]], r"initial: got shape \(1, 2\), want \(2,\)"),
        (HALF, 0.5, [0.5, 0.6], "initial: got 1.1, want rows that sum to one"),
    ],
)
def test_what_is_wrong_is_named(P: list[float], gamma: float, initial: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certified_constants(P, gamma, initial)
