"""Levelling by successor lists against dense solutions; hard chains, large ones, and honest residuals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.starc import canonicalise, sparse_val_canonical


@dataclass(frozen=True)
class Lists:
    """Rewards, successors and probabilities of each state and action, and a policy."""

    rewards: np.ndarray
    next_states: np.ndarray
    probs: np.ndarray
    policy: np.ndarray


def lists(seed: int, states: int, actions: int, successors: int) -> Lists:
    """Random lists, some entries of probability 0, successors repeated as chance has it."""
    rng = np.random.default_rng(seed)
    shape = (states, actions, successors)
    probs = rng.exponential(size=shape) * (rng.random(shape) < 0.7)
    probs[..., 0] += 0.1
    return Lists(
        rng.normal(size=shape),
        rng.integers(0, states, size=shape),
        probs / probs.sum(-1, keepdims=True),
        rng.dirichlet(np.ones(actions), size=states),
    )


def dense(case: Lists) -> np.ndarray:
    """P (S, A, S), one listed successor after the other."""
    states, actions, _ = case.probs.shape
    P = np.zeros((states, actions, states))
    for s, a, k in np.ndindex(case.probs.shape):
        P[s, a, case.next_states[s, a, k]] += case.probs[s, a, k]
    return P


def solved(case: Lists, gamma: float, policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and advantage of a policy by a dense solve."""
    P, mean = dense(case), (case.probs * case.rewards).sum(-1)
    chain = np.einsum("sa,sat->st", policy, P)
    value = np.linalg.solve(np.eye(len(P)) - gamma * chain, (policy * mean).sum(1))
    return value, mean + gamma * P @ value - value[:, None]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (5, 1, 1), (6, 3, 9), (150, 2, 4)])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.999])
def test_values_and_advantages_are_those_of_a_dense_solve(
    shape: tuple[int, int, int], gamma: float, device: str
) -> None:
    case = lists(0, *shape)
    R, following, probs, pi = (
        torch.tensor(x, device=device) for x in (case.rewards, case.next_states, case.probs, case.policy)
    )
    for policy, given_policy in ((case.policy, pi), (np.full(shape[:2], 1 / shape[1]), None)):
        value, advantage = solved(case, gamma, policy)
        got = sparse_val_canonical(R, following, probs, gamma, given_policy)
        np.testing.assert_allclose(got.value.cpu(), value, rtol=0, atol=1e-12 / (1 - gamma))
        np.testing.assert_allclose(got.advantage.cpu(), advantage, rtol=0, atol=1e-12 / (1 - gamma))
        assert 0 <= got.residual.item() < 1e-13 / (1 - gamma)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0, 0.99), st.integers(1, 12))
def test_the_residual_is_the_violation_of_bellmans_equation_and_bounds_the_error(
    seed: int, gamma: float, sweeps: int
) -> None:
    case = lists(seed, 30, 2, 3)
    got = sparse_val_canonical(case.rewards, case.next_states, case.probs, gamma, case.policy, sweeps)
    value = got.value.numpy()
    mean = (case.probs * case.rewards).sum(-1)
    violation = (case.policy * (mean + gamma * dense(case) @ value)).sum(1) - value
    assert got.residual.item() == pytest.approx(np.abs(violation).max(), rel=1e-6, abs=1e-13 / (1 - gamma))
    error = np.abs(value - solved(case, gamma, case.policy)[0]).max()
    assert error <= got.residual.item() / (1 - gamma) + 1e-12 / (1 - gamma)


def test_too_few_sweeps_leave_a_residual() -> None:
    case = lists(1, 300, 2, 2)
    residuals = [
        sparse_val_canonical(case.rewards, case.next_states, case.probs, 0.999, sweeps=n).residual.item()
        for n in (1, 4, 512)
    ]
    assert residuals[0] > 1e-3
    assert residuals[1] > 1e-4
    assert residuals[2] < 1e-11


@pytest.mark.parametrize("gamma", [0.5, 0.99, 0.999])
@pytest.mark.parametrize("kind", ["cycle", "corridor", "swap", "stay"])
@pytest.mark.parametrize("states", [50, 400])
def test_chains_on_which_krylov_methods_break_down_are_solved_or_owned_up_to(
    kind: str, states: int, gamma: float
) -> None:
    here = np.arange(states)
    following = {
        "cycle": (here + 1) % states,
        "corridor": np.minimum(here + 1, states - 1),
        "swap": here ^ 1,
        "stay": here,
    }[kind]
    rewards = np.zeros((states, 1, 1))
    rewards[-1] = 1
    case = Lists(rewards, following[:, None, None], np.ones((states, 1, 1)), np.ones((states, 1)))
    value, _ = solved(case, gamma, case.policy)
    got = sparse_val_canonical(case.rewards, case.next_states, case.probs, gamma)
    error, rounding = np.abs(got.value.numpy() - value).max(), 1e-13 / (1 - gamma)
    assert error <= (got.residual.item() + rounding) / (1 - gamma)
    # eigenvalues all around a circle leave a Krylov method nothing to gain: then it is half as many plain sweeps
    assert got.residual.item() <= (max(gamma**512, rounding) if kind == "cycle" else rounding)


def test_it_is_the_canonical_reward_of_the_dense_kernel() -> None:
    case = lists(2, 12, 3, 4)
    P, earned = dense(case), np.zeros((12, 3, 12))
    for s, a, k in np.ndindex(case.probs.shape):
        earned[s, a, case.next_states[s, a, k]] += case.probs[s, a, k] * case.rewards[s, a, k]
    R = np.divide(earned, P, out=np.zeros_like(P), where=P > 0)
    got = sparse_val_canonical(case.rewards, case.next_states, case.probs, 0.95, case.policy)
    want = canonicalise(R, P, 0.95, policy=case.policy)[..., 0]
    torch.testing.assert_close(got.advantage, want, rtol=0, atol=1e-11)


def test_a_state_space_whose_square_would_not_fit() -> None:
    states = 100_000  # its square in float64 is 80 gigabytes
    rng = np.random.default_rng(0)
    following = rng.integers(0, states, size=(states, 2, 2))
    rewards, probs = rng.normal(size=(states, 2, 2)), np.full((states, 2, 2), 0.5)
    got = sparse_val_canonical(rewards, following, probs, 0.95)
    value = got.value.numpy()
    ahead = (probs * (rewards + 0.95 * value[following])).sum(-1)
    assert np.abs(ahead.mean(1) - value).max() < 1e-11
    np.testing.assert_allclose(got.advantage.numpy(), ahead - value[:, None], rtol=0, atol=1e-11)


def test_rewards_and_discounts_broadcast_and_columns_do_not_mix() -> None:
    case = lists(3, 40, 3, 4)
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(2, 3, 40, 3, 4))
    rewards[0, 1] = 0
    rewards[1, 2] *= 1e6
    gamma = np.array([0.0, 0.9, 0.999])
    got = sparse_val_canonical(rewards, case.next_states, case.probs, gamma, case.policy)
    assert (got.advantage.shape, got.value.shape, got.residual.shape) == ((2, 3, 40, 3), (2, 3, 40), (2, 3))
    for i, j in np.ndindex(2, 3):
        one = Lists(rewards[i, j], case.next_states, case.probs, case.policy)
        value, advantage = solved(one, float(gamma[j]), case.policy)
        scale = (1e6 if (i, j) == (1, 2) else 1.0) / float(1 - gamma[j])
        torch.testing.assert_close(got.value[i, j], torch.tensor(value), rtol=0, atol=1e-12 * scale)
        torch.testing.assert_close(got.advantage[i, j], torch.tensor(advantage), rtol=0, atol=1e-12 * scale)
    assert got.value[0, 1].abs().max() == 0


@pytest.mark.parametrize(
    ("for_rewards", "for_gamma", "batch"),
    [((1,), (3, 1), (3, 1)), ((5,), (3, 1), (3, 5)), ((), (1,), (1,)), ((0,), (), (0,))],
)
def test_tensors_of_any_batch_axes_broadcast(
    for_rewards: tuple[int, ...], for_gamma: tuple[int, ...], batch: tuple[int, ...]
) -> None:
    case = lists(6, 7, 2, 3)
    rewards = torch.tensor(np.broadcast_to(case.rewards, (*for_rewards, 7, 2, 3)).copy())
    gamma = torch.full(for_gamma, 0.5, dtype=torch.float64)
    got = sparse_val_canonical(rewards, case.next_states, case.probs, gamma)
    assert (got.advantage.shape, got.value.shape, got.residual.shape) == ((*batch, 7, 2), (*batch, 7), batch)
    want = sparse_val_canonical(case.rewards, case.next_states, case.probs, 0.5).value
    torch.testing.assert_close(got.value, want.expand_as(got.value), rtol=1e-12, atol=1e-12)


def test_it_carries_no_gradient_and_leaves_its_arguments_alone() -> None:
    case = lists(4, 10, 2, 3)
    R, probs, pi = (torch.tensor(x, requires_grad=True) for x in (case.rewards, case.probs, case.policy))
    got = sparse_val_canonical(R, case.next_states, probs, torch.tensor(0.9, requires_grad=True), pi)
    assert not any(x.requires_grad for x in vars(got).values())
    assert np.array_equal(R.detach(), case.rewards)


def test_float32_is_kept_and_agrees_with_float64() -> None:
    case = lists(5, 60, 3, 4)
    R, probs = (torch.tensor(x, dtype=torch.float32) for x in (case.rewards, case.probs))
    single = sparse_val_canonical(R, torch.tensor(case.next_states), probs, 0.95)
    double = sparse_val_canonical(case.rewards, case.next_states.tolist(), case.probs.tolist(), 0.95)
    assert {x.dtype for x in vars(single).values()} == {torch.float32}
    assert {x.dtype for x in vars(double).values()} == {torch.float64}
    torch.testing.assert_close(single.advantage.double(), double.advantage, rtol=0, atol=2e-4)
    assert single.residual < 1e-4
    small = torch.tensor(case.next_states, dtype=torch.int32)
    assert sparse_val_canonical(R, small, probs, 0.95).value.dtype == torch.float32


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    R, probs = torch.rand(5, 30, 2, 4, device=fake_gpu), torch.rand(30, 2, 4, device=fake_gpu)
    following = torch.randint(0, 30, (30, 2, 4), device=fake_gpu)
    pi, gamma = torch.rand(30, 2, device=fake_gpu), torch.rand(5, device=fake_gpu)
    for policy in (None, pi):
        got = sparse_val_canonical(R, following, probs, gamma, policy, sweeps=40)  # more than one restart
        assert {str(x.device) for x in vars(got).values()} == {fake_gpu}
        assert {x.dtype for x in vars(got).values()} == {torch.float32}
        assert (got.advantage.shape, got.residual.shape) == ((5, 30, 2), (5,))


REWARDS, NEXT, PROBS = [[[1.0, 0.0]], [[0.0, 2.0]]], [[[0, 1]], [[1, 0]]], [[[0.5, 0.5]], [[1.0, 0.0]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": [[[1.0]], [[0.0]]]}, r"rewards: got shape \(2, 1, 1\), want .*2, 1, 2\) as probs has it"),
        ({"rewards": 1.0}, r"rewards: got shape \(\)"),
        ({"rewards": [[[1.0, math.nan]], [[0.0, 2.0]]]}, "rewards: got nan, want finite numbers"),
        ({"next_states": [[[0]], [[1]]]}, r"next_states: got shape \(2, 1, 1\), want \(2, 1, 2\) as probs has it"),
        ({"next_states": [[[0, 2]], [[1, 0]]]}, "next_states: got 2, want states 0 to 1"),
        ({"next_states": [[[0, -1]], [[1, 0]]]}, "next_states: got -1, want states 0 to 1"),
        ({"next_states": [[[0.0, 1.0]], [[1.0, 0.0]]]}, "next_states: got torch.float64, want whole numbers"),
        ({"next_states": [[[0, 1]], [[1]]]}, "next_states: got"),
        ({"next_states": "one"}, "next_states: got"),
        ({"probs": [[0.5, 0.5]]}, r"probs: got shape \(1, 2\), want \(S, A, K\)"),
        ({"probs": [[[]]]}, r"probs: got shape \(1, 1, 0\), want \(S, A, K\)"),
        ({"probs": [[[0.5, 0.6]], [[1.0, 0.0]]]}, "probs: got 1.1, want lists that sum to one"),
        ({"probs": [[[1.5, -0.5]], [[1.0, 0.0]]]}, "probs: got -0.5, want no negative entry"),
        ({"probs": [[[math.nan, 0.5]], [[1.0, 0.0]]]}, "probs: got nan"),
        ({"gamma": 1.0}, "gamma: got 1, want 0 <= gamma < 1"),
        ({"gamma": [0.5, -0.5]}, "gamma: got -0.5, want 0 <= gamma < 1"),
        ({"policy": [[0.5], [1.0]]}, "policy: got 0.5, want rows that sum to one"),
        ({"policy": [[0.5, 0.5]] * 2}, r"policy: got shape \(2, 2\), want \(\*batch, 2, 1\)"),
        ({"policy": [[[1.0]] * 2]}, r"policy: got shape \(1, 2, 1\), want \(2, 1\)"),
        ({"sweeps": 0}, r"sweeps: got 0, want a whole number >= 1"),
        ({"rewards": [REWARDS] * 2, "gamma": [0.1] * 3}, r"rewards \(2,\), gamma \(3,\): got shapes that do not"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"rewards": REWARDS, "next_states": NEXT, "probs": PROBS, "gamma": 0.5} | change
    with pytest.raises(ValueError, match=message):
        sparse_val_canonical(**arguments)  # type: ignore[arg-type]
