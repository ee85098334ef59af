"""The distance by its definition, the axioms of a metric, what it must not see, and where rewards count as zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.starc import canonicalise, potential_shaping, redistribute, starc_distance
from lib.starc.canonical import METHODS

from . import oracle

NORMS: tuple[float | str, ...] = (1, 2, math.inf, "range")
seeds = st.integers(0, 10**6)


def form(method: str, R: np.ndarray, case: oracle.Case, weights: np.ndarray) -> np.ndarray:
    """The canonical reward without `lib`, with the policy and the initial distribution of the case."""
    shaping, d_a = oracle.shaping_basis(R.shape, case.gamma), case.policy[0]
    value = oracle.state_values(R, case.P, case.gamma, case.policy)
    advantage = oracle.action_values(R, case.P, case.gamma, case.policy) - value[:, None]
    if method == "minimal":
        return oracle.least_squares_rest(R, np.c_[shaping, oracle.redistribution_basis(case.P)], weights)
    return {
        "none": R,
        "val": np.broadcast_to(advantage[..., None], R.shape),
        "val_potential": oracle.shaped(R, value, case.gamma),
        "minimal_potential": oracle.least_squares_rest(R, shaping, weights),
        "epic": oracle.epic_reward(R, case.gamma, case.initial, d_a),
        "dard": oracle.dard_reward(R, case.P, case.gamma, d_a),
    }[method]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_distance_is_that_of_normalised_canonical_rewards(method: str, weighted: bool, device: str) -> None:
    case = oracle.case(0, 3, 2)
    w = np.random.default_rng(0).uniform(0.2, 3, case.P.shape) if weighted else np.ones(case.P.shape)
    policy = case.policy[0] if method in ("epic", "dard") else case.policy
    forms = [form(method, R, case, w) for R in (case.R1, case.R2)]

    def size(x: np.ndarray, kind: float | str) -> float:
        if isinstance(kind, str):
            return oracle.width(x, case.P, case.gamma, case.initial)
        return oracle.norm(x, w, kind)

    R1, R2, P = (torch.tensor(x, device=device) for x in (case.R1, case.R2, case.P))
    for norm in NORMS:
        for metric in (*NORMS, None):
            first, second = (x / size(x, norm) for x in forms)
            want = size(first - second, norm if metric is None else metric)
            given_weights = w if weighted else None
            got = starc_distance(
                R1, R2, P, case.gamma, method, norm, metric, given_weights, policy, case.initial, case.initial
            )
            assert got.item() == pytest.approx(want, rel=1e-10), (norm, metric)


def test_defaults_are_val_of_the_uniform_policy_and_twice_the_euclidean_norm() -> None:
    case = oracle.case(1)
    advantages = []
    for R in (case.R1, case.R2):
        policy = np.full((4, 3), 1 / 3)
        q_value = oracle.action_values(R, case.P, 0.9, policy)
        advantages.append(q_value - q_value.mean(1, keepdims=True))
    cosine = (advantages[0] * advantages[1]).sum() / np.prod([np.linalg.norm(x) for x in advantages])
    got = starc_distance(case.R1, case.R2, case.P, 0.9).item()
    assert got == pytest.approx(2 * math.sin(math.acos(cosine) / 2), rel=1e-12)


@settings(max_examples=30)
@given(seeds, st.floats(0, 0.99), st.floats(1e-3, 1e3), st.sampled_from(NORMS), st.sampled_from(["val", "minimal"]))
def test_what_no_policy_notices_is_at_distance_zero(
    seed: int, gamma: float, scale: float, norm: float | str, method: str
) -> None:
    case = oracle.case(seed, 4, 3, gamma)
    same = scale * redistribute(potential_shaping(case.R1, 3 * case.initial, gamma), case.P, case.R2)
    assert starc_distance(case.R1, same, case.P, gamma, method, norm) < 1e-10
    plain, moved = (starc_distance(R, case.R2, case.P, gamma, method, norm) for R in (case.R1, same))
    torch.testing.assert_close(moved, plain, rtol=0, atol=1e-10)


@settings(max_examples=25)
@given(seeds, st.floats(0, 0.99), st.sampled_from(NORMS), st.sampled_from(METHODS), st.booleans())
def test_the_axioms_of_a_metric_hold_and_opposites_are_at_two(
    seed: int, gamma: float, norm: float | str, method: str, weighted: bool
) -> None:
    case = oracle.case(seed, 4, 3, gamma)
    third = np.random.default_rng(seed).normal(size=case.P.shape)
    w = np.exp(third) if weighted else None
    one_two, two_one, two_three, one_three, opposite, itself = (
        starc_distance(x, y, case.P, gamma, method, norm, weights=w, initial=case.initial).item()
        for x, y in (
            (case.R1, case.R2),
            (case.R2, case.R1),
            (case.R2, third),
            (case.R1, third),
            (case.R1, -case.R1),
            (case.R1, case.R1),
        )
    )
    assert one_two == pytest.approx(two_one, rel=1e-10)
    assert 0 < one_two <= 2 + 1e-10
    assert one_three <= one_two + two_three + 1e-10
    assert opposite == pytest.approx(2, rel=1e-10)
    assert itself == 0


@settings(max_examples=30)
@given(seeds, st.floats(0, 0.9))
def test_zero_distance_is_the_same_order_of_all_policies(seed: int, gamma: float) -> None:
    case = oracle.case(seed, 3, 2, gamma)
    same = 2 * potential_shaping(case.R1, case.initial, gamma).numpy()
    for R, alike in ((same, True), (case.R2, False)):
        one, two = (oracle.all_returns(x, case.P, gamma, np.full(3, 1 / 3)) for x in (case.R1, R))
        differ = np.subtract.outer(one, one) * np.subtract.outer(two, two) < -1e-9
        if not alike and not differ.any():
            continue  # too few deterministic policies to tell; mixtures would
        assert differ.any() != alike
        assert (starc_distance(case.R1, R, case.P, gamma) < 1e-10) == alike


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("gamma", [0.0, 0.999])
def test_trivial_rewards_are_at_zero_from_each_other_and_at_one_from_the_rest(
    method: str, norm: float | str, gamma: float
) -> None:
    case = oracle.case(2, 4, 3, gamma)
    zero = np.zeros(case.P.shape)
    trivial = potential_shaping(zero, [1.0, -2.0, 5.0, 0.0], gamma).numpy()
    if method in ("val", "minimal"):
        trivial = redistribute(trivial, case.P, case.R2).numpy()
    for other in (zero, 1e6 * trivial):
        assert starc_distance(trivial, other, case.P, gamma, method, norm) == 0
        assert starc_distance(case.R1, other, case.P, gamma, method, norm).item() == pytest.approx(1, rel=1e-12)
        assert starc_distance(other, case.R1, case.P, gamma, method, norm).item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("dtype", "share"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_a_reward_is_trivial_up_to_the_stated_share_of_its_own_size(
    norm: float | str, dtype: torch.dtype, share: float
) -> None:
    case = oracle.case(3)
    uniform = np.full(4, 0.25)
    seen = canonicalise(case.R1, case.P, 0.9).numpy()
    unseen = oracle.shaped(np.zeros(case.P.shape), case.R2[0, 0], 0.9)
    if isinstance(norm, str):
        ratio = oracle.mean_reward(np.abs(unseen), case.P).max() / oracle.width(seen, case.P, 0.9, uniform)
    else:
        ratio = oracle.norm(unseen, np.ones(case.P.shape), norm) / oracle.norm(seen, np.ones(case.P.shape), norm)
    P = torch.tensor(case.P, dtype=dtype)
    for part, want in ((0.5, 1.0), (2.0, 0.0)):  # trivial: at 1 from everything; not: the same class as `seen`
        near = torch.tensor(unseen + part * share * ratio * seen, dtype=dtype)
        got = starc_distance(near, torch.tensor(seen, dtype=dtype), P, 0.9, norm=norm)
        assert got.item() == pytest.approx(want, abs=0.1 if part == 2 and dtype == torch.float32 else 1e-6)


def test_where_nothing_rewarded_can_happen_everything_is_trivial() -> None:
    case = oracle.case(4)
    impossible = np.where(case.P == 0, case.R1, 0.0)
    assert np.abs(impossible).max() > 0
    for norm in NORMS:
        assert starc_distance(impossible, np.zeros_like(impossible), case.P, 0.9, norm=norm, weights=case.P) == 0
        assert starc_distance(impossible, case.R2, case.P, 0.9, norm=norm).item() == pytest.approx(1, rel=1e-12)
