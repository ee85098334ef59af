"""Canonical rewards: each method against its definition, and what a canonicalisation must and must not see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.starc import canonicalise, potential_shaping, redistribute
from lib.starc.canonical import METHODS

from . import oracle

SIZES = [(1, 1), (1, 3), (4, 1), (2, 2), (4, 3)]
CANONICAL, SHAPING_ONLY = ("val", "minimal"), ("val_potential", "minimal_potential", "epic", "dard")


@pytest.mark.parametrize(("states", "actions"), SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.8, 0.999])
def test_val_is_the_advantage_whatever_the_successor(states: int, actions: int, gamma: float, device: str) -> None:
    case = oracle.case(0, states, actions, gamma)
    R, P, pi = (torch.tensor(x, device=device) for x in (case.R1, case.P, case.policy))
    for policy, given_policy in ((case.policy, pi), (np.full((states, actions), 1 / actions), None)):
        value = oracle.state_values(case.R1, case.P, gamma, policy)
        advantage = oracle.action_values(case.R1, case.P, gamma, policy) - value[:, None]
        got = canonicalise(R, P, gamma, policy=given_policy)
        want = np.broadcast_to(advantage[..., None], case.R1.shape)
        np.testing.assert_allclose(got.cpu(), want, rtol=0, atol=1e-12 / (1 - gamma))
        levelled = canonicalise(R, P, gamma, "val_potential", given_policy)
        want = oracle.shaped(case.R1, value, gamma)
        np.testing.assert_allclose(levelled.cpu(), want, rtol=0, atol=1e-12 / (1 - gamma))


@pytest.mark.parametrize(("states", "actions"), [(1, 1), (1, 3), (3, 1), (3, 2)])
@pytest.mark.parametrize("gamma", [0.0, 0.8])
def test_epic_and_dard_are_their_sums_term_by_term(states: int, actions: int, gamma: float, device: str) -> None:
    case = oracle.case(1, states, actions, gamma)
    R, P = (torch.tensor(x, device=device) for x in (case.R1, case.P))
    for d_s, d_a, extra in (
        (np.full(states, 1 / states), np.full(actions, 1 / actions), {}),
        (case.initial, case.policy[0], {"state_weights": case.initial, "policy": case.policy[0]}),
    ):
        epic, dard = (canonicalise(R, P, gamma, method, **extra).cpu() for method in ("epic", "dard"))
        np.testing.assert_allclose(epic, oracle.epic_reward(case.R1, gamma, d_s, d_a), rtol=0, atol=1e-13)
        np.testing.assert_allclose(dard, oracle.dard_reward(case.R1, case.P, gamma, d_a), rtol=0, atol=1e-13)


def test_none_is_the_reward_itself_in_memory_of_its_own() -> None:
    case = oracle.case(0)
    R = torch.tensor(case.R1)
    got = canonicalise(R, case.P, 0.9, "none")
    assert torch.equal(got, R)
    got.zero_()
    assert torch.equal(R, torch.tensor(case.R1))


@pytest.mark.parametrize("gamma", [0.9, 0.999, 0.99999])
def test_a_constant_in_the_reward_costs_no_digits_however_far_the_horizon(gamma: float) -> None:
    case = oracle.case(6, 5, 3, gamma)
    for method in ("val", "val_potential"):
        plain, raised = (canonicalise(case.R1 + c, case.P, gamma, method) for c in (0.0, 1024.0))
        torch.testing.assert_close(raised, plain, rtol=0, atol=1e-11)  # a hundred roundings of 1024


seeds = st.integers(0, 10**6)


@settings(max_examples=25)
@given(seeds, st.floats(0, 0.99), st.floats(0.01, 100), st.booleans())
def test_all_ignore_shaping_and_only_two_ignore_redistribution(
    seed: int, gamma: float, size: float, zeros: bool
) -> None:
    case = oracle.case(seed, 4, 2, gamma, zeros=zeros)
    phi = size * np.random.default_rng(seed).normal(size=4)
    shaped = potential_shaping(case.R1, phi, gamma)
    moved = redistribute(case.R1, case.P, case.R2)
    tolerance = 1e-13 * (10 + size) / (1 - gamma)
    for method in METHODS[1:]:
        plain, again, other = (canonicalise(R, case.P, gamma, method) for R in (case.R1, shaped, moved))
        torch.testing.assert_close(again, plain, rtol=0, atol=tolerance)
        if method in CANONICAL:
            torch.testing.assert_close(other, plain, rtol=0, atol=tolerance)
        else:
            assert (other - plain).abs().max() > 1e-3


@settings(max_examples=25)
@given(seeds, st.floats(0, 0.99), st.floats(-10, 10))
def test_all_are_linear_and_all_but_dard_are_projections(seed: int, gamma: float, factor: float) -> None:
    case = oracle.case(seed, 4, 2, gamma)
    tolerance = 1e-13 * (10 + abs(factor)) / (1 - gamma)
    for method in METHODS:
        one, two = (canonicalise(R, case.P, gamma, method) for R in (case.R1, case.R2))
        both = canonicalise(case.R1 + factor * case.R2, case.P, gamma, method)
        torch.testing.assert_close(both, one + factor * two, rtol=0, atol=tolerance)
        if method != "dard":
            again = canonicalise(one, case.P, gamma, method)
            torch.testing.assert_close(again, one, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("states", "actions"), SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_the_image_has_the_dimension_of_all_orders_of_policies(states: int, actions: int, gamma: float) -> None:
    case = oracle.case(2, states, actions, gamma)
    units = np.eye(case.P.size).reshape(-1, *case.P.shape)
    for method, want in (
        ("val", states * (actions - 1)),
        ("minimal", states * (actions - 1)),
        ("val_potential", states**2 * actions - states),
        ("minimal_potential", states**2 * actions - states),
        ("none", states**2 * actions),
    ):
        image = canonicalise(units, case.P, gamma, method).reshape(len(units), -1).numpy()
        assert np.linalg.matrix_rank(image, tol=1e-9) == want, method


@settings(max_examples=30)
@given(seeds, st.floats(0, 0.95))
def test_the_representative_belongs_to_the_class_of_the_reward(seed: int, gamma: float) -> None:
    case = oracle.case(seed, 3, 2, gamma)
    shaping, moving = oracle.shaping_basis(case.P.shape, gamma), oracle.redistribution_basis(case.P)
    for method in (*CANONICAL, "val_potential", "minimal_potential", "epic"):
        basis = np.c_[shaping, moving] if method in CANONICAL else shaping
        change = canonicalise(case.R1, case.P, gamma, method).numpy() - case.R1
        rest = oracle.least_squares_rest(change, basis, np.ones(case.P.shape))
        np.testing.assert_allclose(rest, 0, rtol=0, atol=1e-11)


def test_the_advantages_of_the_policy_average_to_zero() -> None:
    case = oracle.case(3)
    got = canonicalise(case.R1, case.P, 0.9, policy=case.policy)[..., 0]
    np.testing.assert_allclose((case.policy * got.numpy()).sum(-1), 0, rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_finite_differences(method: str) -> None:
    case = oracle.case(4, 3, 2, zeros=False)
    R, P, gamma = (torch.tensor(x, requires_grad=True) for x in (case.R1, np.log(case.P), np.array(case.gamma)))
    assert torch.autograd.gradcheck(lambda R, P, g: canonicalise(R, P.softmax(-1), g, method), (R, P, gamma))


@pytest.mark.parametrize("method", METHODS)
def test_leading_axes_of_all_arguments_broadcast(method: str) -> None:
    rng = np.random.default_rng(0)
    actions_only = method in ("epic", "dard")
    R, gamma = rng.normal(size=(1, 4, 3, 2, 3)), rng.uniform(0, 0.9, (2, 1, 1))
    P, w = rng.dirichlet(np.ones(3), size=(3, 1, 3, 2)), rng.uniform(1, 2, (2, 1, 4, 3, 2, 3))
    pi = rng.dirichlet(np.ones(2), size=(4,) if actions_only else (4, 3))
    d_s = rng.dirichlet(np.ones(3), size=(2, 3, 1))
    got = canonicalise(R, P, gamma, method, pi, w, d_s)
    assert got.shape == (2, 3, 4, 3, 2, 3)
    for i, j, k in np.ndindex(2, 3, 4):
        alone = canonicalise(R[0, k], P[j, 0], float(gamma[i, 0, 0]), method, pi[k], w[i, 0, k], d_s[i, j, 0])
        torch.testing.assert_close(got[i, j, k], alone, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_an_axis_of_one_argument_alone_becomes_an_axis_of_the_result(method: str) -> None:
    case = oracle.case(0, 3, 2)
    pi = case.policy[0] if method in ("epic", "dard") else case.policy
    for lead in ((1,), (5,), (0,), (2, 1)):
        for name in ("R", "P", "gamma"):
            arguments = {"R": case.R1, "P": case.P, "gamma": np.array(0.9)}
            arguments[name] = np.broadcast_to(arguments[name], (*lead, *arguments[name].shape))
            assert canonicalise(**arguments, method=method).shape == (*lead, 3, 2, 3), (name, lead)
        if method in ("val", "val_potential", "epic", "dard"):
            got = canonicalise(case.R1, case.P, 0.9, method, policy=np.broadcast_to(pi, (*lead, *pi.shape)))
            assert got.shape == (*lead, 3, 2, 3)
        if method.startswith("minimal"):
            got = canonicalise(case.R1, case.P, 0.9, method, weights=np.ones((*lead, 3, 2, 3)))
            assert got.shape == (*lead, 3, 2, 3)
        if method == "epic":
            got = canonicalise(case.R1, case.P, 0.9, method, state_weights=np.full((*lead, 3), 1 / 3))
            assert got.shape == (*lead, 3, 2, 3)


@pytest.mark.parametrize("method", METHODS)
def test_vmap_over_rewards_and_processes_is_the_batch(method: str) -> None:
    rng = np.random.default_rng(0)
    R, P = torch.tensor(rng.normal(size=(5, 3, 2, 3))), torch.tensor(rng.dirichlet(np.ones(3), size=(5, 3, 2)))

    def form(R: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
        return canonicalise(R, P, 0.9, method)

    for axes, processes in (((0, 0), P), ((0, None), P[0])):
        torch.testing.assert_close(torch.func.vmap(form, in_dims=axes)(R, processes), form(R, processes))


@pytest.mark.parametrize("method", METHODS)
def test_float32_is_kept_and_agrees_with_float64(method: str) -> None:
    case = oracle.case(5, 6, 3, 0.95)
    R, P = (torch.tensor(x, dtype=torch.float32) for x in (case.R1, case.P))
    single, double = canonicalise(R, P, 0.95, method), canonicalise(case.R1, case.P, 0.95, method)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)  # values of size 20, 20 steps ahead
    assert canonicalise(R.tolist(), P.double().tolist(), 0.95, method).dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_all_run_on_an_accelerator_without_a_host_sync(method: str, fake_gpu: str) -> None:
    R, P = torch.rand(5, 4, 3, 4, device=fake_gpu), torch.rand(4, 3, 4, device=fake_gpu)
    gamma, w, d_s = (torch.rand(shape, device=fake_gpu) for shape in ((2, 1), (4, 3, 4), (4,)))
    pi = torch.rand(*((3,) if method in ("epic", "dard") else (4, 3)), device=fake_gpu)
    for got in (canonicalise(R, P, gamma, method), canonicalise(R, P, gamma, method, pi, w, d_s)):
        assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2, 5, 4, 3, 4))


HALF, PAIR = [[[0.5, 0.5], [1.0, 0.0]]] * 2, [[[0.0, 1.0], [0.0, 0.0]]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "VAL"}, "method: got 'VAL', want one of 'none', 'val', 'val_potential', 'minimal'"),
        ({"method": ""}, "method: got '', want one of"),
        ({"R": [[[0.0]]]}, r"R: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\) as P has it"),
        ({"R": [[[0.0, math.inf], [0.0, 0.0]]] * 2}, "R: got inf, want finite numbers"),
        ({"policy": [[1.0, 0.0, 0.0]] * 2}, r"policy: got shape \(2, 3\), want \(\*batch, 2, 2\)"),
        ({"policy": [[1.0, 0.1]] * 2}, "policy: got 1.1, want rows that sum to one"),
        ({"policy": [[1.0] * 3] * 2, "method": "epic"}, r"policy: got shape \(2, 3\), want \(\*batch, 2\)"),
        ({"policy": 1.0, "method": "dard"}, r"policy: got shape \(\), want \(\*batch, 2\)"),
        ({"policy": [0.5, 0.6], "method": "dard"}, "policy: got 1.1, want rows that sum to one"),
        ({"policy": [-0.5, 1.5], "method": "epic"}, "policy: got -0.5, want no negative entry"),
        ({"state_weights": [1.0], "method": "epic"}, r"state_weights: got shape \(1,\), want \(\*batch, 2\)"),
        ({"state_weights": [0.5, 0.4], "method": "epic"}, "state_weights: got 0.9, want rows that sum to one"),
        ({"state_weights": [math.nan, 1.0], "method": "epic"}, "state_weights: got nan"),
        ({"weights": [[[1.0]]], "method": "minimal"}, r"weights: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\)"),
        ({"R": [PAIR] * 2, "gamma": [0.1] * 3}, r"R \(2,\), P \(\), gamma \(3,\).*: got shapes that do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"R": PAIR, "P": HALF, "gamma": 0.5} | change
    with pytest.raises(ValueError, match=message):
        canonicalise(**arguments)  # type: ignore[arg-type]
