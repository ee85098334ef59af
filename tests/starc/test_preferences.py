"""Trajectories by their frequencies, counts by loops, and the reward of largest posterior probability."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression

from lib.starc import Trajectories, discounted_counts, preference_reward, sample_trajectories

from . import oracle


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_frequencies_are_those_of_policy_dynamics_and_first_states(device: str) -> None:
    case = oracle.case(0, 4, 3)
    count = 40_000
    generator = torch.Generator(device).manual_seed(0)
    P = torch.tensor(case.P, device=device)
    walk = sample_trajectories(P, count, 3, case.policy, case.initial, generator=generator)
    states, actions = walk.states.cpu().numpy(), walk.actions.cpu().numpy()
    assert (states.shape, actions.shape) == ((count, 4), (count, 3))
    here = case.initial
    for t in range(3):
        pairs = here[:, None] * case.policy
        steps = pairs[..., None] * case.P
        seen = np.zeros(steps.shape)
        np.add.at(seen, (states[:, t], actions[:, t], states[:, t + 1]), 1 / count)
        np.testing.assert_allclose(seen, steps, rtol=0, atol=5 * math.sqrt(0.25 / count))
        assert (seen[steps == 0] == 0).all()
        here = steps.sum((0, 1))


def test_policy_and_first_state_are_uniform_unless_said_otherwise() -> None:
    walk = sample_trajectories(np.full((2, 4, 2), 0.5), 20_000, 1, generator=draws(1))
    error = 5 * math.sqrt(0.25 / 20_000)
    assert walk.states[:, 0].double().mean().item() == pytest.approx(0.5, abs=error)
    np.testing.assert_allclose(np.bincount(walk.actions[:, 0].numpy()) / 20_000, 0.25, rtol=0, atol=error)


def test_the_generator_decides() -> None:
    P = oracle.case(1).P
    one, two, three = (sample_trajectories(P, 50, 10, generator=draws(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.states, two.states)
    assert torch.equal(one.actions, two.actions)
    assert not torch.equal(one.states, three.states)
    assert one.states.dtype == one.actions.dtype == torch.int64


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_counts_are_discounted_visits(gamma: float, device: str) -> None:
    walk = sample_trajectories(oracle.case(2, 4, 3).P, 7, 9, generator=draws(0))
    on_device = Trajectories(walk.states.to(device), walk.actions.to(device))
    got = discounted_counts(on_device, gamma, 4, 3)
    want = np.zeros((7, 4, 3))
    for i, t in np.ndindex(7, 9):
        want[i, walk.states[i, t], walk.actions[i, t]] += gamma**t
    np.testing.assert_allclose(got.cpu(), want, rtol=1e-14)
    assert got.dtype == torch.float64


def test_the_mean_of_counts_is_the_occupancy() -> None:
    case = oracle.case(3, 4, 3, 0.7)
    walk = sample_trajectories(case.P, 20_000, 60, case.policy, case.initial, generator=draws(2))
    got = discounted_counts(walk, 0.7, 4, 3)
    error = (got.std(0) / math.sqrt(20_000)).numpy()
    want = oracle.visits(case.P, 0.7, case.policy, case.initial)
    assert (np.abs(got.mean(0).numpy() - want) < 5 * error + 1e-9).all()  # what is cut off is 0.7^60 / 0.3


def comparisons(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Visits of pairs of trajectories, and choices made by a true reward."""
    rng = np.random.default_rng(seed)
    one, two = rng.exponential(size=(2, count, 3, 2))
    chance = special.expit(((one - two) * rng.normal(size=(3, 2))).sum((1, 2)))
    return one, two, (rng.random(count) < chance).astype(float)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_the_reward_is_that_of_a_regularised_logistic_regression(ridge: float) -> None:
    one, two, choice = comparisons(0, 300)
    features = (one - two).reshape(300, 6)
    peer = LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(features, choice)
    got = preference_reward(one, two, choice, ridge=ridge)
    np.testing.assert_allclose(got.flatten(), peer.coef_[0], rtol=0, atol=1e-6)


def test_one_number_is_the_root_of_a_scalar_equation() -> None:
    # nine choices of +1: the slope 9 / (1 + e^x) balances the prior's 2 x
    want = optimize.brentq(lambda x: 9 / (1 + math.exp(x)) - 2 * x, 0, 9, xtol=1e-14)
    got = preference_reward([[[1.0]]] * 9, [[[0.0]]] * 9, [1.0] * 9, ridge=2.0)
    assert got.item() == pytest.approx(want, rel=1e-8)
    assert preference_reward([[[1.0]]] * 9, [[[0.0]]] * 9, [0.0] * 9, ridge=2.0).item() == pytest.approx(
        -want, rel=1e-8
    )
    assert preference_reward([[[3.0]]], [[[3.0]]], [1.0]).item() == 0


def test_the_order_of_a_pair_does_not_matter_and_one_is_the_default_ridge() -> None:
    one, two, choice = comparisons(1, 60)
    got = preference_reward(one, two, choice)
    torch.testing.assert_close(preference_reward(two, one, 1 - choice), got, rtol=0, atol=1e-8)
    torch.testing.assert_close(preference_reward(one, two, choice, ridge=1.0), got, rtol=0, atol=0)
    assert (preference_reward(one, two, choice, ridge=1.1) - got).abs().max() > 1e-4


def test_dtype_follows_the_tensors() -> None:
    one, two, choice = comparisons(2, 60)
    single = preference_reward(*(torch.tensor(x, dtype=torch.float32) for x in (one, two, choice)))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), preference_reward(one, two, choice), rtol=0, atol=1e-5)
    assert preference_reward([[[1, 0]]], [[[0, 1]]], [1]).dtype == torch.float64


HALF = [[[0.5, 0.5], [1.0, 0.0]]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, r"count: got 0, want a whole number >= 1"),
        ({"steps": 0}, r"steps: got 0, want a whole number >= 1"),
        ({"P": [HALF]}, r"P: got shape \(1, 2, 2, 2\), want \(S, A, S\)"),
        ({"P": [[[0.5, 0.6], [1.0, 0.0]]] * 2}, "P: got 1.1, want rows that sum to one"),
        ({"policy": [[[0.5, 0.5]] * 2]}, r"policy: got shape \(1, 2, 2\), want \(2, 2\)"),
        ({"policy": [[0.5, 0.4]] * 2}, "policy: got 0.9, want rows that sum to one"),
        ({"initial": [[0.5, 0.5]]}, r"initial: got shape \(1, 2\), want \(2,\)"),
        ({"initial": [1.5, -0.5]}, "initial: got -0.5, want no negative entry"),
    ],
)
def test_what_is_wrong_with_a_sample_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"P": HALF, "count": 3, "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        sample_trajectories(generator=draws(0), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gamma", "states", "actions", "message"),
    [
        (1.0, 2, 2, "gamma: got 1, want 0 <= gamma < 1"),
        ([0.5], 2, 2, r"gamma: got shape \(1,\), want one number"),
        (0.5, 1, 2, "states: got 1, want numbers from 0 to 0"),
        (0.5, 2, 1, "actions: got 1, want numbers from 0 to 0"),
    ],
)
def test_what_is_wrong_with_counts_is_named(gamma: float, states: int, actions: int, message: str) -> None:
    walk = Trajectories(torch.tensor([[0, 1, 0]]), torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match=message):
        discounted_counts(walk, gamma, states, actions)


ONE = [[[1.0, 0.0]], [[0.0, 1.0]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts_1": [[1.0]]}, r"counts_1: got shape \(1, 1\), want \(count, S, A\)"),
        ({"counts_1": [[[]]]}, r"counts_1: got shape \(1, 1, 0\), want \(count, S, A\)"),
        ({"counts_2": ONE[:1]}, r"counts_2: got shape \(1, 1, 2\), want \(2, 1, 2\) as counts_1 has it"),
        ({"counts_2": [[[math.nan, 0.0]]] * 2}, "counts_2: got nan, want finite numbers"),
        ({"counts_1": [[[math.inf, 0.0]]] * 2}, "counts_1: got inf, want finite numbers"),
        ({"first_preferred": [1.0]}, r"first_preferred: got shape \(1,\), want \(2,\)"),
        ({"first_preferred": [1.0, 0.5]}, "first_preferred: got 0.5, want 0 or 1"),
        ({"first_preferred": [1.0, math.nan]}, "first_preferred: got nan, want 0 or 1"),
        ({"ridge": 0.0}, "ridge: got 0, want a number above 0"),
        ({"ridge": -1.0}, "ridge: got -1, want a number above 0"),
        ({"ridge": math.nan}, "ridge: got nan, want a number above 0"),
    ],
)
def test_what_is_wrong_with_preferences_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"counts_1": ONE, "counts_2": ONE, "first_preferred": [1.0, 0.0]} | change
    with pytest.raises(ValueError, match=message):
        preference_reward(**arguments)  # type: ignore[arg-type]


def test_counts_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    states = torch.empty(4, 6, dtype=torch.int64, device=fake_gpu)
    counts = discounted_counts(Trajectories(states, states[:, :5]), 0.9, 3, 2)
    assert counts.shape == (4, 3, 2)
    assert str(counts.device) == fake_gpu
