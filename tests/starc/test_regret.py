"""Worst-case regret against linear programs and by hand; duality, certificates, the cone of the range metric."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.starc import WorstCaseRegret, potential_shaping, redistribute, starc_distance, worst_case_regret

from . import oracle
from .certificate import assert_certified, regret_of
from .corridor import corridor, two_ends

seeds = st.integers(0, 10**6)
SIZES = [(1, 2), (1, 4), (2, 2), (4, 3), (7, 2), (5, 4)]


@pytest.mark.parametrize(("states", "actions"), SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.7, 0.99])
def test_regret_is_the_optimum_of_a_linear_program_over_pairs_of_occupancies(
    states: int, actions: int, gamma: float, device: str
) -> None:
    for seed in range(4):
        case = oracle.case(seed, states, actions, gamma)
        R1, R2, P = (torch.tensor(x, device=device) for x in (case.R1, case.R2, case.P))
        got = worst_case_regret(R1, R2, P, gamma, case.initial)
        assert got.normalised.item() == pytest.approx(oracle.regret_by_pairs(case), rel=1e-8, abs=1e-9)
        assert_certified(WorstCaseRegret(**{name: value.cpu() for name, value in vars(got).items()}), case)


@pytest.mark.parametrize(("states", "gamma"), [(30, 0.9), (64, 0.95), (20, 0.999)])
def test_larger_processes_too(states: int, gamma: float) -> None:
    case = oracle.case(7, states, 4, gamma)
    got = regret_of(case)
    assert got.normalised.item() == pytest.approx(
        oracle.regret_by_pairs(case), rel=1e-6
    )  # what the program is good for
    assert_certified(got, case)


@settings(max_examples=25)
@given(seeds, st.floats(0, 0.95), st.lists(st.floats(0, 5), min_size=5, max_size=5))
def test_it_is_the_distance_in_the_range_norm_to_the_ray_of_the_other_reward(
    seed: int, gamma: float, elsewhere: list[float]
) -> None:
    case = oracle.case(seed, 4, 2, gamma)

    def width(R: np.ndarray) -> float:
        return oracle.width(R, case.P, gamma, case.initial)

    got, at = regret_of(case), regret_of(case).multiplier.item()
    tolerance = 1e-11 / (1 - gamma)
    assert width(case.R1 - at * case.R2) == pytest.approx(got.regret.item(), rel=1e-9, abs=tolerance)
    assert got.normalised.item() == pytest.approx(got.regret.item() / width(case.R1), rel=1e-9)
    assert at <= 2 * width(case.R1) / width(case.R2) * (1 + 1e-9)
    for factor in elsewhere:
        assert width(case.R1 - factor * case.R2) >= got.regret.item() - tolerance


@settings(max_examples=15)
@given(seeds, st.floats(0, 0.98))
def test_half_the_range_distance_bounds_it_below_and_the_distance_above(seed: int, gamma: float) -> None:
    case = oracle.case(seed, 5, 3, gamma)
    for other in (case.R2, case.R1 + 0.1 * case.R2, -case.R1 + 0.1 * case.R2, case.R1):
        got = worst_case_regret(case.R1, other, case.P, gamma, case.initial).normalised
        apart = starc_distance(case.R1, other, case.P, gamma, norm="range", initial=case.initial)
        assert apart / 2 - 1e-10 <= got <= apart + 1e-10
        assert 0 <= got <= 1


@settings(max_examples=25)
@given(seeds, st.floats(0, 0.98), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_shaping_redistribution_and_scale_change_only_units(seed: int, gamma: float, one: float, two: float) -> None:
    case = oracle.case(seed, 5, 3, gamma)
    phi = np.random.default_rng(seed).normal(size=5)
    changed = dataclasses.replace(
        case,
        R1=one * redistribute(potential_shaping(case.R1, 10 * phi, gamma), case.P, case.R2).numpy(),
        R2=two * redistribute(potential_shaping(case.R2, -phi, gamma), case.P, case.R1).numpy(),
    )
    plain, moved = regret_of(case), regret_of(changed)
    for got, want in (
        (moved.normalised, plain.normalised),
        (moved.regret / one, plain.regret),
        (moved.multiplier * (two / one), plain.multiplier),
    ):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10 / (1 - gamma))
    assert_certified(moved, changed)


@settings(max_examples=20)
@given(seeds, st.floats(0, 0.99))
def test_of_equal_and_opposite_rewards_it_is_zero_and_one(seed: int, gamma: float) -> None:
    case = oracle.case(seed, 4, 3, gamma)
    same = 3 * potential_shaping(case.R1, case.initial, gamma)
    equal, opposite = (worst_case_regret(case.R1, R, case.P, gamma) for R in (same, -case.R1))
    assert abs(equal.normalised) < 1e-11
    assert equal.multiplier.item() == pytest.approx(1 / 3, rel=1e-9)
    assert opposite.normalised.item() == pytest.approx(1, rel=1e-12)
    assert opposite.multiplier == 0
    apart = starc_distance(case.R1, -case.R1, case.P, gamma, norm="range").item()
    assert opposite.normalised.item() / apart == pytest.approx(0.5, rel=1e-10)


def bandit(u: tuple[float, float]) -> np.ndarray:
    """A reward of two states, two actions, discount 0, whose range is (|u_1| + |u_2|) / 2."""
    R = np.zeros((2, 2, 2))
    R[:, 0] = np.array(u)[:, None]
    return R


@pytest.mark.parametrize("epsilon", [0.5, 0.1, 1e-3])
def test_bandits_solved_by_hand_reach_both_ends_of_the_cone(epsilon: float) -> None:
    anywhere = np.full((2, 2, 2), 0.5)
    inside_a_facet = (0.5, 0.5), (0.5 + epsilon / 2, 0.5 - epsilon / 2)
    at_a_vertex = (1.0, 0.0), (1.0, epsilon)
    for (u, v), regret, apart, multiplier in (
        (inside_a_facet, epsilon / (1 + epsilon), epsilon, 1 / (1 + epsilon)),
        (at_a_vertex, epsilon, 2 * epsilon / (1 + epsilon), 1.0),
    ):
        got = worst_case_regret(bandit(u), bandit(v), anywhere, 0.0)
        assert got.normalised.item() == pytest.approx(regret, rel=1e-10)
        assert got.regret.item() == pytest.approx(regret / 2, rel=1e-10)
        assert got.multiplier.item() == pytest.approx(multiplier, rel=1e-10)
        distance = starc_distance(bandit(u), bandit(v), anywhere, 0.0, norm="range")
        assert distance.item() == pytest.approx(apart, rel=1e-10)


def test_it_is_not_symmetric() -> None:
    case = oracle.case(1)
    swapped = dataclasses.replace(case, R1=case.R2, R2=case.R1)
    one, two = (regret_of(x).normalised.item() for x in (case, swapped))
    assert (one, two) == pytest.approx((oracle.regret_by_pairs(case), oracle.regret_by_pairs(swapped)), rel=1e-8)
    assert abs(one - two) > 1e-3


@pytest.mark.parametrize("states", [40, 140])
def test_a_corridor_is_solved_from_both_ends(states: int) -> None:
    R, P = corridor(states, 1e-8)
    rng = np.random.default_rng(0)
    initial = np.full(states, 1 / states)
    for other in (rng.normal(size=R.shape), R + 0.1 * rng.normal(size=R.shape)):
        for one, two in ((R, other), (other, R)):
            case = oracle.Case(one, two, P, 0.9, R[:, :, 0], initial)
            got = regret_of(case)
            assert got.normalised.item() == pytest.approx(oracle.regret_by_pairs(case), rel=1e-6)
            assert_certified(got, case)


@pytest.mark.parametrize("states", [40, 47, 60, 73])
def test_a_policy_that_no_end_of_the_ray_suggests_is_found_from_afar(states: int) -> None:
    R1, P = two_ends(states, 1.0, 0.1)  # nearly all go right; less a multiple of the second reward, nearly all go left,
    R2 = two_ends(states, 1.0, 0.0)[0]  # though its worst policy is to stay: the left end has to be found
    R2[:, 0] = -1e-6
    case = oracle.Case(R1, R2, P, 0.9, R1[:, :, 0], np.full(states, 1 / states))
    got = regret_of(case)
    assert got.normalised.item() == pytest.approx(oracle.regret_by_pairs(case), rel=1e-7)
    assert_certified(got, case)
    left = oracle.width_by_program(R1 - got.multiplier.item() * R2, case)  # also where the second reward is level there
    assert left == pytest.approx(got.regret.item(), rel=1e-7)


@settings(max_examples=25)
@given(seeds, st.integers(1, 4), st.integers(1, 3), st.floats(0, 0.98))
def test_with_too_few_steps_the_truth_lies_within_gap_and_residual(
    seed: int, steps: int, iterations: int, gamma: float
) -> None:
    case = oracle.case(seed, 5, 3, gamma)
    truth, got = oracle.regret_by_pairs(case), regret_of(case, steps=steps, iterations=iterations)
    slack = 1e-8 + 8 * got.residual.item() / (1 - gamma)  # of both ranges, above and below
    assert truth - slack <= got.normalised.item() + got.gap.item()
    assert got.normalised.item() <= truth + slack
    enough = regret_of(case, steps=steps)
    assert truth - 1e-8 <= enough.normalised.item() + enough.gap.item()
    assert enough.normalised.item() <= truth + 1e-8


def test_too_few_iterations_show_in_the_residual_and_too_few_steps_in_the_gap() -> None:
    R, P = corridor(130, 1e-8)
    initial = np.eye(130)[0]
    case = oracle.Case(R, np.random.default_rng(0).normal(size=R.shape), P, 0.9, R[:, :, 0], initial)
    assert regret_of(case).residual < 1e-9
    assert regret_of(case, iterations=2).residual > 1e-3
    for seed in range(5):
        case = oracle.case(seed, 10, 4)
        case = dataclasses.replace(case, R2=case.R1 + 0.5 * case.R2)
        truth, rough = regret_of(case), regret_of(case, steps=1)
        assert truth.gap < 1e-10
        assert rough.gap > 1e-3
        assert rough.normalised < truth.normalised <= rough.normalised + rough.gap


@pytest.mark.parametrize("difference", [1e-6, 1e-10, 1e-13, 0.0])
def test_actions_that_are_nearly_equal_leave_it_exact(difference: float) -> None:
    case = oracle.case(6, 5, 3, 0.95)
    P, (R1, R2) = case.P.copy(), (case.R1.copy(), case.R2.copy())
    noise = np.random.default_rng(0).normal(size=(2, 5, 1))
    P[:, 1] = P[:, 0]
    R1[:, 1], R2[:, 1] = R1[:, 0] + difference * noise[0], R2[:, 0] + difference * noise[1]
    tied = dataclasses.replace(case, P=P, R1=R1, R2=R2)
    got = regret_of(tied)
    assert got.normalised.item() == pytest.approx(oracle.regret_by_pairs(tied), rel=1e-8)
    assert_certified(got, tied)


def test_where_states_cannot_be_reached_only_the_rest_counts() -> None:
    case = dataclasses.replace(oracle.case(8, 5, 3), initial=np.eye(5)[0])
    P = case.P.copy()
    P[:3, :, 3:] = 0
    P[:3, :, 0] += 0.1
    P /= P.sum(-1, keepdims=True)
    R2 = case.R1.copy()
    R2[3:] *= -1
    hidden = dataclasses.replace(case, P=P, R2=R2)
    assert regret_of(hidden).normalised < 1e-10
    assert starc_distance(hidden.R1, hidden.R2, P, 0.9) > 0.1
    seen = regret_of(dataclasses.replace(hidden, initial=np.full(5, 0.2)))
    assert seen.normalised > 0.01
