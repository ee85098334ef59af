"""Values against power series and by hand, occupancies against the flow equation; gradients, batches, devices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.starc import PolicyValue, occupancy, policy_value, potential_shaping

from . import oracle

SIZES = [(1, 1), (1, 3), (4, 1), (5, 3)]
PARTS = ("value", "q_value", "advantage")


@pytest.mark.parametrize(("states", "actions"), SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.6, 0.999])
def test_values_are_the_discounted_sum_of_rewards(states: int, actions: int, gamma: float, device: str) -> None:
    case = oracle.case(0, states, actions, gamma)
    R, P, pi = (torch.tensor(x, device=device) for x in (case.R1, case.P, case.policy))
    for policy, given_policy in ((case.policy, pi), (np.full((states, actions), 1 / actions), None)):
        got = policy_value(R, P, gamma, given_policy)
        value = oracle.state_values(case.R1, case.P, gamma, policy)
        q_value = oracle.action_values(case.R1, case.P, gamma, policy)
        for part, want in zip(PARTS, (value, q_value, q_value - value[:, None]), strict=True):
            np.testing.assert_allclose(getattr(got, part).cpu(), want, rtol=1e-12, atol=1e-12 / (1 - gamma))


def test_a_process_of_two_states_is_worth_what_the_hand_says() -> None:
    # from state 0 action 0 stays for 1 and action 1 leaves for 2; state 1 is absorbing and pays 4 for ever
    P = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    R = [[[1.0, 99.0], [99.0, 2.0]], [[99.0, 4.0], [99.0, 4.0]]]  # 99: what cannot happen is worth nothing
    got = policy_value(R, P, 0.5, [[0.25, 0.75], [1.0, 0.0]])
    first = (0.25 * 1 + 0.75 * (2 + 0.5 * 8)) / (1 - 0.25 * 0.5)  # V1 = 4 / (1 - 1/2) = 8
    np.testing.assert_allclose(got.value, [first, 8.0], rtol=1e-14)
    np.testing.assert_allclose(got.q_value, [[1 + first / 2, 6.0], [8.0, 8.0]], rtol=1e-14)
    went = occupancy(P, 0.5, [[0.25, 0.75], [1.0, 0.0]], [1.0, 0.0])
    stayed = 1 / (1 - 0.125)
    np.testing.assert_allclose(went, [[stayed / 4, 0.75 * stayed], [2 - stayed, 0.0]], rtol=1e-14)


@pytest.mark.parametrize(("states", "actions"), SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.6, 0.999])
def test_occupancies_are_the_discounted_visits(states: int, actions: int, gamma: float, device: str) -> None:
    case = oracle.case(1, states, actions, gamma)
    P, pi, start = (torch.tensor(x, device=device) for x in (case.P, case.policy, case.initial))
    got = occupancy(P, gamma, pi, start).cpu()
    np.testing.assert_allclose(got, oracle.visits(case.P, gamma, case.policy, case.initial), rtol=1e-11, atol=1e-14)
    uniform = np.full((states, actions), 1 / actions), np.full(states, 1 / states)
    np.testing.assert_allclose(occupancy(P, gamma).cpu(), oracle.visits(case.P, gamma, *uniform), rtol=1e-11)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4), st.floats(0, 0.99))
def test_occupancies_obey_the_flow_equation_and_turn_returns_into_inner_products(
    seed: int, states: int, actions: int, gamma: float
) -> None:
    case = oracle.case(seed, states, actions, gamma)
    went = occupancy(case.P, gamma, case.policy, case.initial).numpy()
    assert (went >= 0).all()
    flow = oracle.flow_matrix(case.P, gamma).T @ went.ravel()
    np.testing.assert_allclose(flow, case.initial, rtol=0, atol=1e-14 / (1 - gamma))
    assert went.sum() == pytest.approx(1 / (1 - gamma), rel=1e-12)
    np.testing.assert_allclose(went / went.sum(1, keepdims=True), case.policy, rtol=1e-9)
    got = policy_value(case.R1, case.P, gamma, case.policy)
    returns = (went * oracle.mean_reward(case.R1, case.P)).sum()
    assert returns == pytest.approx(case.initial @ got.value.numpy(), rel=1e-11, abs=1e-13 / (1 - gamma))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0, 0.99), st.floats(-10, 10))
def test_values_are_linear_and_shaping_subtracts_the_potential(seed: int, gamma: float, factor: float) -> None:
    case = oracle.case(seed, 4, 2, gamma)
    phi = factor * np.random.default_rng(seed).normal(size=4)
    one, two, both, moved = (
        policy_value(R, case.P, gamma, case.policy)
        for R in (case.R1, case.R2, case.R1 + factor * case.R2, potential_shaping(case.R1, phi, gamma))
    )
    tolerance = 1e-13 * (1 + abs(factor)) / (1 - gamma)
    torch.testing.assert_close(both.value, one.value + factor * two.value, rtol=0, atol=tolerance)
    torch.testing.assert_close(moved.value, one.value - torch.tensor(phi), rtol=0, atol=tolerance)
    torch.testing.assert_close(moved.advantage, one.advantage, rtol=0, atol=tolerance)
    mean = (torch.tensor(case.policy) * one.advantage).sum(1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=tolerance)


Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [
        (((7,), (), (), ()), (7,)),
        (((), (7,), (), ()), (7,)),
        (((), (), (7,), ()), (7,)),
        (((), (), (), (7,)), (7,)),
        (((1, 4), (3, 1), (), ()), (3, 4)),
        (((4,), (3, 1), (2, 1, 1), (1,)), (2, 3, 4)),
        (((2, 1, 1), (4,), (), (3, 1)), (2, 3, 4)),
        (((2, 1), (1, 1), (1, 3), ()), (2, 3)),
        (((), (1,), (), ()), (1,)),
        (((), (), (1, 1), ()), (1, 1)),
        (((1,), (), (), (1, 1)), (1, 1)),
        (((0,), (), (), ()), (0,)),
    ],
)
def test_leading_axes_of_all_arguments_broadcast(shapes: Shapes, batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for_first, for_dynamics, for_gamma, for_policy = shapes
    R, P = rng.normal(size=(*for_first, 3, 2, 3)), rng.dirichlet(np.ones(3), size=(*for_dynamics, 3, 2))
    gamma, pi = rng.uniform(0, 0.9, for_gamma), rng.dirichlet(np.ones(2), size=(*for_policy, 3))
    start = rng.dirichlet(np.ones(3), size=for_first)
    values, went = policy_value(R, P, gamma, pi), occupancy(P, gamma, pi, start)
    assert [getattr(values, part).shape for part in PARTS] == [(*batch, 3), (*batch, 3, 2), (*batch, 3, 2)]
    assert went.shape == (*batch, 3, 2)
    R, P, pi = (np.broadcast_to(x, (*batch, *x.shape[-k:])) for x, k in ((R, 3), (P, 3), (pi, 2)))
    gamma, start = np.broadcast_to(gamma, batch), np.broadcast_to(start, (*batch, 3))
    for i in np.ndindex(batch):
        alone = policy_value(R[i], P[i], float(gamma[i]), pi[i])
        for part in PARTS:
            torch.testing.assert_close(getattr(values, part)[i], getattr(alone, part), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(went[i], occupancy(P[i], float(gamma[i]), pi[i], start[i]), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("for_reward", "for_dynamics", "for_gamma"),
    [((), (), (2,)), ((), (2,), ()), ((3, 1), (), (2,)), ((2,), (2,), (2,))],
)
def test_processes_of_many_states_broadcast_as_small_ones_do(
    for_reward: tuple[int, ...], for_dynamics: tuple[int, ...], for_gamma: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    R, P = rng.normal(size=(*for_reward, 140, 2, 1)), rng.dirichlet(np.ones(140), size=(*for_dynamics, 140, 2))
    R, gamma = np.broadcast_to(R, (*for_reward, 140, 2, 140)), rng.uniform(0, 0.9, for_gamma)
    values, went = policy_value(R, P, gamma), occupancy(P, gamma)
    batch, without_R = np.broadcast_shapes(for_reward, for_dynamics, for_gamma), went.shape[:-2]
    assert values.value.shape == (*batch, 140)
    R, P = (np.broadcast_to(x, (*batch, 140, 2, 140)) for x in (R, P))
    gamma = np.broadcast_to(gamma, batch)
    for i in np.ndindex(batch):
        alone = policy_value(R[i], P[i], float(gamma[i]))
        torch.testing.assert_close(values.value[i], alone.value, rtol=0, atol=1e-11)
        went_alone = occupancy(P[i], float(gamma[i]))
        torch.testing.assert_close(went[i[len(batch) - len(without_R) :]], went_alone, rtol=1e-10, atol=0)


@pytest.mark.parametrize("axes", [(1,), (1, 1)])
def test_an_axis_of_length_one_is_kept_whichever_argument_has_it(axes: tuple[int, ...]) -> None:
    case = oracle.case(0)
    P, pi, start = (torch.tensor(x) for x in (case.P, case.policy, case.initial))
    gamma = torch.full(axes, 0.5, dtype=torch.float64)
    lead = (None,) * len(axes)
    assert occupancy(P[lead], 0.5).shape == (*axes, 4, 3)
    assert occupancy(P, gamma).shape == (*axes, 4, 3)
    assert occupancy(P, 0.5, pi[lead]).shape == (*axes, 4, 3)
    assert occupancy(P, 0.5, pi, start[lead]).shape == (*axes, 4, 3)
    assert policy_value(case.R1, P, gamma).value.shape == (*axes, 4)


def test_gradients_in_every_argument_are_those_of_finite_differences() -> None:
    case = oracle.case(2, 3, 2, zeros=False)
    reward, *logits = (
        torch.tensor(x, requires_grad=True)
        for x in (case.R1, np.log(case.P), np.log(case.policy), np.log(case.initial))
    )
    gamma = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)

    def values(R: torch.Tensor, P: torch.Tensor, gamma: torch.Tensor, pi: torch.Tensor) -> tuple[torch.Tensor, ...]:
        got = policy_value(R, P.softmax(-1), gamma, pi.softmax(-1))
        return got.value, got.q_value, got.advantage

    def visits(P: torch.Tensor, gamma: torch.Tensor, pi: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return occupancy(P.softmax(-1), gamma, pi.softmax(-1), start.softmax(-1))

    assert torch.autograd.gradcheck(values, (reward, logits[0], gamma, logits[1]))
    assert torch.autograd.gradcheck(visits, (logits[0], gamma, logits[1], logits[2]))


def test_vmap_over_rewards_and_processes_is_the_batch() -> None:
    rng = np.random.default_rng(0)
    R, P = torch.tensor(rng.normal(size=(5, 3, 2, 3))), torch.tensor(rng.dirichlet(np.ones(3), size=(5, 3, 2)))

    def advantage(R: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
        return policy_value(R, P, 0.9).advantage

    for axes, processes in (((0, 0), P), ((0, None), P[0])):
        mapped = torch.func.vmap(advantage, in_dims=axes)(R, processes)
        torch.testing.assert_close(mapped, advantage(R, processes))
    torch.testing.assert_close(torch.func.vmap(occupancy, in_dims=(0, None))(P, 0.9), occupancy(P, 0.9))


def test_float32_is_kept_and_agrees_with_float64() -> None:
    case = oracle.case(4, 5, 3, 0.95)
    R, P, pi = (torch.tensor(x, dtype=torch.float32) for x in (case.R1, case.P, case.policy))
    single, double = policy_value(R, P, 0.95, pi), policy_value(case.R1, case.P, 0.95, case.policy)
    for part in PARTS:  # 20 steps ahead, each rounded to 6e-8 of values of size 10
        assert getattr(single, part).dtype == torch.float32
        torch.testing.assert_close(getattr(single, part).double(), getattr(double, part), rtol=0, atol=1e-4)
    assert occupancy(P, 0.95).dtype == torch.float32
    torch.testing.assert_close(occupancy(P, 0.95).double(), occupancy(case.P, 0.95), rtol=1e-4, atol=0)


def test_lists_and_whole_numbers_become_float64() -> None:
    stay = [[[1, 0]], [[0, 1]]]
    assert policy_value(stay, stay, 0.5).value.tolist() == [2.0, 2.0]
    whole = torch.tensor(stay)
    assert policy_value(whole, whole, 0.5).value.dtype == torch.float64
    assert occupancy(np.array(stay), 0.5).dtype == torch.float64
    assert occupancy(whole.float(), torch.tensor(0.5), [[1], [1]], [1, 0]).dtype == torch.float32


def test_values_and_occupancies_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    R, P = torch.rand(5, 4, 3, 4, device=fake_gpu), torch.rand(4, 3, 4, device=fake_gpu)
    gamma, pi = torch.rand(2, 1, device=fake_gpu), torch.rand(4, 3, device=fake_gpu)
    for policy in (None, pi, [[0.0, 0.0, 1.0]] * 4):
        got = policy_value(R, P, gamma, policy)
        assert isinstance(got, PolicyValue)
        assert {str(x.device) for x in vars(got).values()} == {fake_gpu}
        assert got.advantage.shape == (2, 5, 4, 3)
        went = occupancy(P, gamma, policy, torch.rand(5, 4, device=fake_gpu))
        assert (str(went.device), went.dtype, went.shape) == (fake_gpu, torch.float32, (2, 5, 4, 3))


HALF, PAIR = [[[0.5, 0.5], [1.0, 0.0]]] * 2, [[[0.0, 0.0], [0.0, 0.0]]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": [[1.0, 0.0]]}, r"policy: got shape \(1, 2\), want \(\*batch, 2, 2\)"),
        ({"policy": [1.0, 0.0]}, r"policy: got shape \(2,\), want \(\*batch, 2, 2\)"),
        ({"policy": [[1.0, 0.0, 0.0]] * 2}, r"policy: got shape \(2, 3\), want \(\*batch, 2, 2\)"),
        ({"policy": [[1.0, 0.5], [0.5, 0.5]]}, "policy: got 1.5, want rows that sum to one"),
        ({"policy": [[1.5, -0.5], [0.5, 0.5]]}, "policy: got -0.5, want no negative entry"),
        ({"policy": [[math.nan, 0.5], [0.5, 0.5]]}, "policy: got nan"),
        ({"policy": [[[0.5, 0.5]] * 2] * 3, "gamma": [0.1, 0.2]}, r"gamma \(2,\), policy \(3,\).*do not broadcast"),
    ],
)
def test_a_bad_policy_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"P": HALF, "gamma": 0.5} | change
    with pytest.raises(ValueError, match=message):
        policy_value(R=PAIR, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        occupancy(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ([1.0, 0.0, 0.0], r"initial: got shape \(3,\), want \(\*batch, 2\)"),
        (1.0, r"initial: got shape \(\), want \(\*batch, 2\)"),
        ([0.5, 0.6], "initial: got 1.1, want rows that sum to one"),
        ([1.5, -0.5], "initial: got -0.5, want no negative entry"),
        ([math.nan, 1.0], "initial: got nan"),
    ],
)
def test_a_bad_initial_distribution_is_named(initial: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        occupancy(HALF, 0.5, initial=initial)
