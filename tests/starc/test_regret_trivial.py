"""Worst-case regret where a reward orders no policies, or orders them by what counts as nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lib.starc import potential_shaping, redistribute, starc_distance, worst_case_regret

from . import oracle
from .certificate import assert_certified, regret_of
from .corridor import corridor


@pytest.mark.parametrize(
    ("gamma", "dtype"),
    [
        (0.0, torch.float64),
        (0.9, torch.float64),
        (0.999, torch.float64),
        (0.0, torch.float32),
        (0.9, torch.float32),
        (0.999, torch.float32),
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
        assert free.regret.item() == pytest.approx(want, rel=1e-11 if dtype == torch.float64 else 1e-3)
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


@pytest.mark.parametrize("left", [0.0, 1e-15, 1e-13, 1e-11])
@pytest.mark.parametrize("swap", [False, True])
def test_occupancies_obey_the_constraint_also_where_a_reward_counts_as_trivial(swap: bool, left: float) -> None:
    for seed in range(5):
        case = oracle.case(seed)
        phi = 10 * np.random.default_rng(seed).normal(size=4)
        trivial = potential_shaping(left * case.R1, phi, 0.9).numpy()
        changed = dataclasses.replace(case, R2=trivial) if swap else dataclasses.replace(case, R1=trivial)
        got = regret_of(changed)
        assert got.normalised == (1 if swap else 0)
        assert_certified(got, changed)


def test_the_residual_shows_too_few_iterations_also_where_the_other_reward_is_trivial() -> None:
    R, P = corridor(130, 1e-8)
    nothing = np.zeros_like(R)
    for R1, R2 in ((R, nothing), (nothing, R)):
        assert worst_case_regret(R1, R2, P, 0.9, np.eye(130)[0], iterations=2).residual > 1e-3
        assert worst_case_regret(R1, R2, P, 0.9, np.eye(130)[0]).residual < 1e-9
