"""Expected rewards, shaping and redistribution, transition by transition and over all deterministic policies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.starc import expected_reward, potential_shaping, redistribute
from lib.starc.rewards import largest_mean_size

from . import oracle


@pytest.mark.parametrize(("states", "actions"), [(1, 1), (1, 3), (4, 1), (5, 3)])
def test_all_three_agree_with_their_definitions(states: int, actions: int, device: str) -> None:
    case = oracle.case(0, states, actions)
    R, P, N = (torch.tensor(x, device=device) for x in (case.R1, case.P, case.R2))
    mean = oracle.mean_reward(case.R1, case.P)
    moved = case.R1 + case.R2 - oracle.mean_reward(case.R2, case.P)[..., None]
    np.testing.assert_allclose(expected_reward(R, P).cpu(), mean, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(redistribute(R, P, N).cpu(), moved, rtol=1e-13, atol=1e-15)
    got = potential_shaping(R, torch.tensor(case.initial, device=device), 0.7)
    np.testing.assert_allclose(got.cpu(), oracle.shaped(case.R1, case.initial, 0.7), rtol=1e-13, atol=1e-15)


@given(st.integers(0, 10**6), st.floats(0, 0.99), st.floats(0.01, 100))
def test_shaping_moves_the_returns_of_all_policies_by_the_same_constant(seed: int, gamma: float, size: float) -> None:
    case = oracle.case(seed, 3, 2, gamma)
    phi = size * np.random.default_rng(seed).normal(size=3)
    shaped = potential_shaping(case.R1, phi, gamma).numpy()
    before, after = (oracle.all_returns(R, case.P, gamma, case.initial) for R in (case.R1, shaped))
    tolerance = 1e-13 * (1 + size) / (1 - gamma)  # rounding of a sum of 1 / (1 - gamma) terms
    np.testing.assert_allclose(after - before, -case.initial @ phi, rtol=0, atol=tolerance)


@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_redistribution_moves_the_return_of_no_policy(seed: int, size: float) -> None:
    case = oracle.case(seed, 3, 2)
    moved = redistribute(case.R1, case.P, size * case.R2).numpy()
    assert np.abs(moved - case.R1).max() > 1e-3 * size
    before, after = (oracle.all_returns(R, case.P, case.gamma, case.initial) for R in (case.R1, moved))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12 * (1 + size))


def test_every_reward_with_the_same_expectation_is_a_redistribution() -> None:
    case = oracle.case(3)
    other = case.R2 + (oracle.mean_reward(case.R1, case.P) - oracle.mean_reward(case.R2, case.P))[..., None]
    got = redistribute(case.R1, case.P, other - case.R1)
    np.testing.assert_allclose(got, other, rtol=0, atol=1e-13)


def test_leading_axes_of_all_arguments_broadcast() -> None:
    generator = torch.Generator().manual_seed(0)
    R = torch.randn(1, 4, 3, 2, 3, dtype=torch.float64, generator=generator)
    N = torch.randn(2, 1, 1, 3, 2, 3, dtype=torch.float64, generator=generator)
    P = torch.rand(3, 1, 3, 2, 3, dtype=torch.float64, generator=generator)
    P = P / P.sum(-1, keepdim=True)
    phi, gamma = torch.randn(3, 1, 3, dtype=torch.float64, generator=generator), torch.tensor([[0.1], [0.5]]).double()
    mean, moved, shaped = expected_reward(R, P), redistribute(R, P, N), potential_shaping(R, phi, gamma[:, None])
    assert (mean.shape, moved.shape, shaped.shape) == ((3, 4, 3, 2), (2, 3, 4, 3, 2, 3), (2, 3, 4, 3, 2, 3))
    for i, j, k in np.ndindex(2, 3, 4):
        torch.testing.assert_close(mean[j, k], expected_reward(R[0, k], P[j, 0]))
        torch.testing.assert_close(moved[i, j, k], redistribute(R[0, k], P[j, 0], N[i, 0, 0]))
        torch.testing.assert_close(shaped[i, j, k], potential_shaping(R[0, k], phi[j, 0], gamma[i, 0]))


def test_axes_of_length_one_are_kept() -> None:
    case = oracle.case(0)
    R = torch.tensor(case.R1)
    assert expected_reward(R, case.P[None, None]).shape == (1, 1, 4, 3)
    assert redistribute(R, case.P[None], case.R2).shape == (1, 4, 3, 4)
    assert potential_shaping(R, np.zeros(4), torch.zeros(1, 1)).shape == (1, 1, 4, 3, 4)


def test_gradients_are_those_of_finite_differences() -> None:
    case = oracle.case(1, 3, 2, zeros=False)
    R, N, logits, phi, gamma = (
        torch.tensor(x, requires_grad=True) for x in (case.R1, case.R2, np.log(case.P), case.initial, np.array(0.6))
    )
    assert torch.autograd.gradcheck(lambda R, z: expected_reward(R, z.softmax(-1)), (R, logits))
    assert torch.autograd.gradcheck(lambda R, z, N: redistribute(R, z.softmax(-1), N), (R, logits, N))
    assert torch.autograd.gradcheck(potential_shaping, (R, phi, gamma))


def test_the_scale_of_a_range_is_the_largest_expected_size() -> None:
    case = oracle.case(2)
    want = oracle.mean_reward(np.abs(case.R1), case.P).max()
    assert largest_mean_size(torch.tensor(case.R1), torch.tensor(case.P)).item() == pytest.approx(want, rel=1e-14)


def test_dtypes_follow_the_tensors_and_lists_become_float64() -> None:
    R, P = torch.zeros(2, 1, 2), torch.full((2, 1, 2), 0.5)
    for got in (expected_reward(R, P), redistribute(R, P, R), potential_shaping(R, torch.zeros(2), 0.5)):
        assert got.dtype == torch.float32
    assert potential_shaping(R, [0.0, 1.0], 0.5).dtype == torch.float32
    assert potential_shaping(R.long(), [0, 1], 0).dtype == torch.float64
    assert expected_reward(R.tolist(), P.tolist()).dtype == torch.float64
    assert expected_reward(R, P.double()).dtype == torch.float64


def test_all_three_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    R, P = torch.rand(5, 4, 3, 4, device=fake_gpu), torch.rand(4, 3, 4, device=fake_gpu)
    phi, gamma = torch.rand(5, 4, device=fake_gpu), torch.rand(5, device=fake_gpu)
    for got in (expected_reward(R, P), redistribute(R, P, R), potential_shaping(R, phi, gamma)):
        assert str(got.device) == fake_gpu
        assert got.dtype == torch.float32


PAIR, HALF = [[[1.0, 2.0]], [[3.0, 4.0]]], [[[0.5, 0.5]], [[0.5, 0.5]]]
THREE = [[[1.0] * 3]] * 3


@pytest.mark.parametrize(
    ("R", "P", "noise", "message"),
    [
        ([1.0], HALF, PAIR, r"R: got shape \(1,\), want \(\*batch, 2, 1, 2\)"),
        (THREE, HALF, PAIR, r"R: got shape \(3, 1, 3\), want \(\*batch, 2, 1, 2\)"),
        (PAIR, HALF, THREE, r"noise: got shape \(3, 1, 3\), want \(\*batch, 2, 1, 2\)"),
        (PAIR, HALF, [[[0.0, math.nan]], [[0.0, 0.0]]], "noise: got nan, want finite numbers"),
        ([[[0.0, math.inf]], [[0.0, 0.0]]], HALF, PAIR, "R: got inf, want finite numbers"),
        ("two", HALF, PAIR, "R: got str 'two', want real numbers"),
        (PAIR, [[0.5, 0.5]], PAIR, r"P: got shape \(1, 2\), want \(\*batch, S, A, S\)"),
        (PAIR, [[[0.5, 0.6]], [[0.5, 0.5]]], PAIR, "P: got 1.1, want rows that sum to one"),
        (PAIR, [[[1.5, -0.5]], [[0.5, 0.5]]], PAIR, "P: got -0.5, want no negative entry"),
        ([PAIR] * 2, [HALF] * 3, PAIR, r"R \(2,\), P \(3,\).*do not broadcast"),
        (PAIR, [HALF] * 3, [PAIR] * 2, r"P \(3,\), noise \(2,\).*do not broadcast"),
    ],
)
def test_bad_rewards_and_dynamics_are_named(R: list[float], P: list[float], noise: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        redistribute(R, P, noise)


@pytest.mark.parametrize(
    ("R", "potential", "gamma", "message"),
    [
        ([[[1.0, 2.0]]], [1.0, 2.0], 0.5, r"R: got shape \(1, 1, 2\), want \(\*batch, S, A, S\)"),
        (PAIR, [1.0, 2.0, 3.0], 0.5, r"potential: got shape \(3,\), want \(\*batch, 2\)"),
        (PAIR, 1.0, 0.5, r"potential: got shape \(\), want \(\*batch, 2\)"),
        (PAIR, [1.0, math.inf], 0.5, "potential: got inf, want finite numbers"),
        (PAIR, [1.0, 2.0], 1.0, "gamma: got 1, want 0 <= gamma < 1"),
        ([PAIR] * 2, [[1.0, 2.0]] * 3, 0.5, r"R \(2,\), potential \(3,\), gamma \(\): .*do not broadcast"),
    ],
)
def test_bad_potentials_are_named(R: list[float], potential: list[float], gamma: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        potential_shaping(R, potential, gamma)
