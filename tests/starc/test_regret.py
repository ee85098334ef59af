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
from .corridor import corridor, two_ends

seeds = st.integers(0, 10**6)
SIZES = [(1, 2), (1, 4), (2, 2), (4, 3), (7, 2), (5, 4)]


def regret_of(case: oracle.Case, **options: int) -> WorstCaseRegret:
    return worst_case_regret(case.R1, case.R2, case.P, case.gamma, case.initial, **options)


def assert_certified(got: WorstCaseRegret, case: oracle.Case) -> None:
    """The occupancies obey flow and constraint and lose what is stated, the bounds meet, the numbers are in range."""
    scale = 1 / (1 - case.gamma)
    flow = oracle.flow_matrix(case.P, case.gamma).T
    means = [oracle.mean_reward(R, case.P) for R in (case.R1, case.R2)]
    x, y = got.occupancy_1.numpy(), got.occupancy_2.numpy()
    for went in (x, y):
        assert went.min() >= -1e-12 * scale
        np.testing.assert_allclose(flow @ went.ravel(), case.initial, rtol=0, atol=1e-12 * scale)
    sizes = [np.abs(mean).max() * scale for mean in means]
    assert ((x - y) * means[1]).sum() <= 1e-11 * sizes[1]
    assert got.regret.item() == pytest.approx(((x - y) * means[0]).sum(), rel=1e-9, abs=1e-11 * sizes[0])
    assert -1e-11 * scale <= got.gap.item() <= 1e-9 * scale
    assert 0 <= got.residual.item() <= 1e-10 * scale
    assert 0 <= got.normalised.item() <= 1
    assert got.multiplier.item() >= 0


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


@pytest.mark.parametrize(
    ("gamma", "dtype"),
    [
        (0.0, torch.float64),
        (0.9, torch.float64),
        (0.999, torch.float64),
        (0.0, torch.float32),
        (0.9, torch.float32),  # at 0.999 rounding alone, eps / (1 - gamma)^2, is larger than the share that counts
    ],
)
def test_trivial_rewards_have_nothing_to_lose_and_constrain_nothing(gamma: float, dtype: torch.dtype) -> None:
    case = oracle.case(2, 4, 3, gamma)
    R, P, zero = (torch.tensor(x, dtype=dtype) for x in (case.R1, case.P, np.zeros(case.P.shape)))
    shaped = potential_shaping(zero + 1, torch.tensor([1.0, -2.0, 5.0, 0.0], dtype=dtype), gamma)
    for trivial in (zero, shaped, redistribute(shaped, P, R), 1e5 * shaped):
        nothing, free = worst_case_regret(trivial, R, P, gamma), worst_case_regret(R, trivial, P, gamma)
        assert [x.item() for x in (nothing.normalised, nothing.regret, free.normalised)] == [0, 0, 1]
        both = worst_case_regret(trivial, shaped, P, gamma)
        assert [x.item() for x in (both.normalised, both.regret)] == [0, 0]
        want = oracle.width(case.R1, case.P, gamma, np.full(4, 0.25))
        assert free.regret.item() == pytest.approx(want, rel=1e-12 if dtype == torch.float64 else 1e-4)
        for got in (nothing, free, both):
            assert got.multiplier == 0
            assert all(x.isfinite().all() for x in vars(got).values())


@pytest.mark.parametrize("gamma", [0.9999, 0.99999])
def test_what_rounding_leaves_of_a_trivial_reward_is_no_regret_however_far_the_horizon(gamma: float) -> None:
    case = oracle.case(2, 4, 3, gamma)
    trivial = redistribute(potential_shaping(np.ones(case.P.shape), [1.0, -2.0, 5.0, 0.0], gamma), case.P, case.R2)
    assert worst_case_regret(trivial, case.R1, case.P, gamma).normalised == 0
    assert worst_case_regret(case.R1, trivial, case.P, gamma).normalised == 1
    assert starc_distance(trivial, np.zeros(case.P.shape), case.P, gamma, norm="range") == 0


@pytest.mark.parametrize(("dtype", "share"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_a_reward_is_trivial_up_to_the_stated_share_of_its_own_size(dtype: torch.dtype, share: float) -> None:
    case = oracle.case(3)
    unseen = oracle.shaped(np.zeros(case.P.shape), case.R2[0, 0], 0.9)
    ratio = oracle.mean_reward(np.abs(unseen), case.P).max() / oracle.width(case.R1, case.P, 0.9, np.full(4, 0.25))
    P, seen = torch.tensor(case.P, dtype=dtype), torch.tensor(case.R1, dtype=dtype)
    for part, want in ((0.5, 0.0), (2.0, 1.0)):
        near = torch.tensor(unseen + part * share * ratio * case.R1, dtype=dtype)
        loose = part == 2 and dtype == torch.float32
        assert worst_case_regret(near, -seen, P, 0.9).normalised.item() == pytest.approx(
            want, abs=0.1 if loose else 1e-6
        )
        constrained = worst_case_regret(seen, near, P, 0.9).normalised.item()
        assert constrained == pytest.approx(1 - want, abs=0.1 if loose else 1e-6)


@pytest.mark.parametrize("swap", [False, True])
def test_occupancies_obey_the_constraint_also_for_a_trivial_reward(swap: bool) -> None:
    case = oracle.case(5)
    trivial = potential_shaping(np.zeros(case.P.shape), 10 * case.initial, 0.9).numpy()
    R1, R2 = (case.R1, trivial) if swap else (trivial, case.R1)
    assert_certified(regret_of(dataclasses.replace(case, R1=R1, R2=R2)), dataclasses.replace(case, R1=R1, R2=R2))


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


def test_a_policy_that_no_end_of_the_ray_suggests_is_found_from_afar() -> None:
    R1, P = two_ends(60, 1.0, 0.1)  # nearly all go right; less a multiple of the second reward, nearly all go left,
    R2 = two_ends(60, 1.0, 0.0)[0]  # though its worst policy is to stay: the left end has to be found
    R2[:, 0] = -1e-6
    case = oracle.Case(R1, R2, P, 0.9, R1[:, :, 0], np.full(60, 1 / 60))
    got = regret_of(case)
    assert got.normalised.item() == pytest.approx(oracle.regret_by_pairs(case), rel=1e-7)
    assert got.multiplier.item() == pytest.approx(1, rel=0.01)
    assert_certified(got, case)


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
